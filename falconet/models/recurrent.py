"""Recurrent networks over the tokens of a text, the steps of a series or the rows of an image: `rnn`, `lstm`, `gru`.

    rnn     h' = f(W x + U h + b), with f = tanh or ReLU       Elman: Finding structure in time. Cognitive Science, 1990
    lstm    a cell that forgets, takes in and puts out         Hochreiter, Schmidhuber: Long short-term memory.
            through gates                                      Neural Computation, 1997
    gru     a state that is reset and updated through gates    Cho et al.: Learning phrase representations using RNN
                                                               encoder-decoder. EMNLP, 2014
    bidirectional=True: a second network from end to start     Schuster, Paliwal: Bidirectional recurrent neural
                                                               networks. IEEE Trans. Signal Processing, 1997

The LSTM has the forget gate of Gers, Schmidhuber and Cummins (2000), as every library does.

Padding (see `falconet.models.sequences`) changes no answer: no other step's state sees it, and pooling leaves it out.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from falconet.models.options import MAX_LAYERS, check_choice, check_count, check_fraction, check_switch
from falconet.models.sequences import make_encoder, pool_mean
from falconet.spec import ModalityName

Cell = Literal["rnn", "lstm", "gru"]
Nonlinearity = Literal["tanh", "relu"]
_Pooling = Literal["mean", "last"]


class Recurrent(nn.Module):
    """Embedding of tokens or projection of channels, recurrent layers, pooling over non-padding steps, dense output.

    Parameters
    ----------
    num_classes, in_channels, input_size, kind
        As in `falconet.create_model`; any number of tokens, steps or rows is taken, whatever `input_size` says.
    cell
        Which member of the family it is; set by the table of models.
    hidden
        Units of each layer, in each direction.
    embedding
        Width of a token's vector, or of what a step's channels or a row's pixels are projected to.
    layers, bidirectional
        The second direction reads each sample from its own last step to its first.
    dropout
        Fraction of values that are zeroed in training, between layers and before the output (Zaremba et al., 2014).
    pooling
        What the output sees: the mean over a sample's non-padding steps, or the last state of each direction. The mean
        gives each step a short way to the loss, so it is the default.
    nonlinearity
        Activation function of `rnn`; the other cells have their own.

    Recurrent matrices start orthogonal, gate by gate (Saxe et al., 2014), and the forget gate of the LSTM with bias 1
    (Jozefowicz et al., 2015); all else starts as torch has it. A sample without any non-padding step gets finite
    logits, the same for each. Raises ConfigError for an option's value that makes no network.

    """

    def __init__(  # noqa: PLR0913 - one parameter for each option
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, ...],
        kind: ModalityName,
        cell: Cell,
        *,
        hidden: int = 128,
        embedding: int = 64,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.2,
        pooling: _Pooling = "mean",
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        super().__init__()
        for name, number in (("hidden", hidden), ("embedding", embedding)):
            check_count(name, number)
        check_count("layers", layers, MAX_LAYERS)
        check_switch("bidirectional", bidirectional)
        check_choice("pooling", pooling, get_args(_Pooling))
        check_choice("nonlinearity", nonlinearity, get_args(Nonlinearity))
        check_fraction("dropout", dropout)
        width = hidden * (2 if bidirectional else 1)
        self.hidden = hidden
        self.pooling = pooling
        self.encoder = make_encoder(kind, in_channels, input_size, embedding)
        self.layers = nn.ModuleList(
            Layer(cell, embedding if index == 0 else width, hidden, bidirectional, nonlinearity)
            for index in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, num_classes)

    def forward(
        self, x: Int64[Tensor, "batch steps"] | Float[Tensor, "batch channels *steps"]
    ) -> Float[Tensor, "batch classes"]:
        states, lengths = self.encoder(x)
        for index, layer in enumerate(self.layers):
            states = layer(self.dropout(states) if index else states, lengths)
        pooled = pool_mean(states, lengths) if self.pooling == "mean" else _pool_last(states, lengths, self.hidden)
        logits: Tensor = self.output(self.dropout(pooled))
        return logits


class Layer(nn.Module):
    """One recurrent layer; the states of the second direction stand after those of the first."""

    def __init__(
        self, cell: Cell, in_features: int, hidden: int, bidirectional: bool, nonlinearity: Nonlinearity
    ) -> None:
        super().__init__()
        self.ahead = make_cell(cell, in_features, hidden, nonlinearity)
        self.back = make_cell(cell, in_features, hidden, nonlinearity) if bidirectional else None

    def forward(
        self, x: Float[Tensor, "batch steps features"], lengths: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch steps width"]:
        states: Tensor = self.ahead(x)[0]
        if self.back is None:
            return states
        mirrored = self.back(reverse(x, lengths))[0]
        return torch.cat([states, reverse(mirrored, lengths)], dim=2)


def make_cell(cell: Cell, in_features: int, hidden: int, nonlinearity: Nonlinearity) -> nn.RNNBase:
    """Return one layer of one direction with its initial weights; see `Recurrent` for where they start."""
    made: nn.RNNBase
    if cell == "rnn":
        made = nn.RNN(in_features, hidden, nonlinearity=nonlinearity, batch_first=True)
    else:
        made = (nn.LSTM if cell == "lstm" else nn.GRU)(in_features, hidden, batch_first=True)
    _, recurrent, input_bias, state_bias = made.all_weights[0]
    with torch.no_grad():
        for gate in recurrent.chunk(len(recurrent) // hidden):
            nn.init.orthogonal_(gate)
        if cell == "lstm":
            # The order of the gates is input, forget, cell, output; torch adds two biases.
            input_bias[hidden : 2 * hidden] = 1.0
            state_bias[hidden : 2 * hidden] = 0.0
    return made


def reverse(
    x: Float[Tensor, "batch steps features"], lengths: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch steps features"]:
    """Turn each sample around within its own length; padding stays where it is."""
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - steps
    positions = torch.where(mirrored >= 0, mirrored, steps)
    return x.gather(1, positions[:, :, None].expand_as(x))


def _pool_last(
    states: Float[Tensor, "batch steps width"], lengths: Int64[Tensor, " batch"], hidden: int
) -> Float[Tensor, "batch width"]:
    """Return the last states: the first `hidden` units at the last non-padding step, the backward ones at step 0."""
    last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, hidden)
    return torch.cat([states[:, :, :hidden].gather(1, last)[:, 0], states[:, 0, hidden:]], dim=1)
