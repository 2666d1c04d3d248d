"""Transformer encoder for the tokens of a text, the steps of a series, and the rows or patches of an image.

Vaswani et al., "Attention is all you need" (NeurIPS 2017): section 3.2.1 has the attention, 3.5 sinusoidal positions.
Normalization precedes each branch (Xiong et al., "On layer normalization in the Transformer architecture", ICML 2020),
which trains without a warm-up of thousands of steps. The class token is BERT's (Devlin et al., NAACL 2019); images as
patches are those of Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021).

Padding (see `falconet.models.sequences`) changes no answer: nothing attends to it, and pooling leaves it out. The
articles' sample had its mask in the wrong place, and neither embedding, nor positions, nor pooling.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.modalities import MODALITIES
from falconet.models.options import MAX_LAYERS, check_choice, check_count, check_fraction
from falconet.models.sequences import make_attention_mask, make_encoder, pool_mean
from falconet.spec import ModalityName

_Positions = Literal["sinusoidal", "learned"]
_Pooling = Literal["mean", "token"]

_MAX_WAVE = 10_000
"""Longest wavelength of sinusoidal positions in steps, divided by 2 pi."""


class Transformer(nn.Module):
    """Vectors of tokens, steps, rows or patches, with positions; encoder blocks; pooling; dense output.

    Parameters
    ----------
    num_classes, in_channels, input_size, kind
        As in `falconet.create_model`. With sinusoidal positions, any number of steps is taken; with learned ones, up to
        `input_size`.
    width, layers, heads
        Length of a step's vector, encoder blocks, and parts of the vector that attend by themselves.
    expansion
        Width of a block's hidden dense layer, relative to the vector.
    dropout
        Fraction of values that are zeroed in training, after positions, attention and dense layers.
    positions
        `sinusoidal`, which need no training, or `learned`.
    pooling
        What the output sees: the mean over non-padding steps, or a class token's vector.
    patch
        Side of the square patches of an image, in pixels; None: its rows are the steps.

    A sample without any non-padding step gets finite logits. Raises ConfigError for an option's value that makes no
    network.

    """

    def __init__(  # noqa: PLR0913 - one parameter for each option
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, ...],
        kind: ModalityName,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
        positions: _Positions = "sinusoidal",
        pooling: _Pooling = "mean",
        patch: int | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("width", width), ("heads", heads), ("expansion", expansion)):
            check_count(name, number)
        check_count("layers", layers, MAX_LAYERS)
        check_fraction("dropout", dropout)
        check_choice("positions", positions, get_args(_Positions))
        check_choice("pooling", pooling, get_args(_Pooling))
        _check_heads(width, heads)
        steps = input_size[0]
        self.encoder: nn.Module = make_encoder(kind, in_channels, input_size, width)
        if patch is not None:
            _check_patch(patch, input_size, kind)
            self.encoder = PatchEncoder(in_channels, patch, width)
            steps = (input_size[0] // patch) * (input_size[1] // patch)
        self.positions = LearnedPositions(steps, width) if positions == "learned" else SinusoidalPositions(width)
        self.token = nn.Parameter(torch.zeros(width)) if pooling == "token" else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, expansion, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_classes)
        self.apply(_initialize)

    def forward(
        self, x: Int64[Tensor, "batch steps"] | Float[Tensor, "batch channels *steps"]
    ) -> Float[Tensor, "batch classes"]:
        vectors, lengths = self.encoder(x)
        states = self.positions(vectors)
        if self.token is not None:
            states = torch.cat([self.token.expand(states.shape[0], 1, -1), states], dim=1)
            lengths = lengths + 1
        # A sample without a non-padding step attends to its first one, since a softmax over nothing is NaN.
        attention_mask = make_attention_mask(lengths.clamp(min=1), states.shape[1])
        states = self.dropout(states)
        for block in self.blocks:
            states = block(states, attention_mask)
        states = self.norm(states)
        pooled = pool_mean(states, lengths) if self.token is None else states[:, 0]
        logits: Tensor = self.output(pooled)
        return logits


class PatchEncoder(nn.Module):
    """Squares of an image, row by row, to one vector each; what is left over at the right and below is not seen."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch patches vector"], Int64[Tensor, " batch"]]:
        vectors = self.projection(images).flatten(2).transpose(1, 2)
        return vectors, torch.full((images.shape[0],), vectors.shape[1], device=images.device)


class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the position, of wavelengths from 2 pi to 10,000 times that (section 3.5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Float[Tensor, "batch steps width"]) -> Float[Tensor, "batch steps width"]:
        steps = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        exponent = torch.arange(0, self.width, 2, device=x.device, dtype=x.dtype) / self.width
        angles = steps[:, None] * torch.exp(-math.log(_MAX_WAVE) * exponent)
        waves = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, : self.width]
        return x + waves


class LearnedPositions(nn.Module):
    """Adds a trained vector for each position, up to the number of steps that the network was built for."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(steps, width))

    def forward(self, x: Float[Tensor, "batch steps width"]) -> Float[Tensor, "batch steps width"]:
        if x.shape[1] > len(self.table):
            raise ConfigError(f"model.input_size: wanted up to {len(self.table)} steps, found {x.shape[1]}")
        return x + self.table[: x.shape[1]]


class EncoderBlock(nn.Module):
    """Self-attention and two dense layers, each with normalization before and a shortcut around it."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, expansion * width)
        self.fc2 = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch steps width"], attention_mask: Bool[Tensor, "batch steps"]
    ) -> Float[Tensor, "batch steps width"]:
        x = x + self.dropout(self.attention(self.norm1(x), attention_mask))
        dense = self.fc2(self.dropout(F.gelu(self.fc1(self.norm2(x)))))
        total: Tensor = x + self.dropout(dense)
        return total


class SelfAttention(nn.Module):
    """Each step's mean of all non-padding steps' values, weighted by softmax(q k / sqrt(d)) (equation 1), per head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch steps width"], attention_mask: Bool[Tensor, "batch steps"]
    ) -> Float[Tensor, "batch steps width"]:
        batch, steps, width = x.shape
        # (batch, steps, 3 heads d) -> 3 of (batch, heads, steps, d)
        queries, keys, values = (
            self.qkv(x).view(batch, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attention_mask[:, None, None, :])
        projected: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, steps, width))
        return projected


def _initialize(module: nn.Module) -> None:
    """Draw dense weights as Glorot and Bengio (2010) did, biases zero; positions and the class token start small."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, LearnedPositions):
        nn.init.normal_(module.table, std=0.02)
    elif isinstance(module, Transformer) and module.token is not None:
        nn.init.normal_(module.token, std=0.02)


def _check_heads(width: int, heads: int) -> None:
    """Raise ConfigError unless each head gets as much of the vector."""
    if width % heads:
        raise ConfigError(f"model.options.heads: wanted a divisor of the width, {width}, found {heads}")


def _check_patch(patch: int, input_size: tuple[int, ...], kind: ModalityName) -> None:
    """Raise ConfigError unless an image has a patch of this side."""
    check_count("patch", patch)
    if MODALITIES[kind].axes != 2 or patch > min(input_size):
        found = f"{patch} for {kind} of {'x'.join(map(str, input_size))}"
        raise ConfigError(f"model.options.patch: wanted the side of a square within an image, found {found}")
