"""Batches of sequences of different lengths: what is padding, and means that leave it out.

A batch carries its own padding: token 0 after the end of a text, NaN in all channels after the end of a series.
Lengths become masks and positions instead of packed sequences, which exported formats do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float, Int64
from torch import SymInt, Tensor, nn

from falconet.spec import ModalityName


class TokenEncoder(nn.Module):
    """Token numbers to vectors and lengths. Token 0 is padding: its vector is zero and stays so."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=0)

    def forward(
        self, tokens: Int64[Tensor, "batch steps"]
    ) -> tuple[Float[Tensor, "batch steps width"], Int64[Tensor, " batch"]]:
        return self.embedding(tokens), measure_lengths(tokens != 0)


class StepEncoder(nn.Module):
    """The channels of each step to one vector, and lengths. NaN counts as the channel's mean, which is 0."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, width)

    def forward(
        self, series: Float[Tensor, "batch channels steps"]
    ) -> tuple[Float[Tensor, "batch steps width"], Int64[Tensor, " batch"]]:
        missing = series.isnan()
        known = series.masked_fill(missing, 0.0)
        return self.projection(known.transpose(1, 2)), measure_lengths(~missing.all(dim=1))


class RowEncoder(nn.Module):
    """An image's rows, from top to bottom, to one vector each; all images of a batch have as many."""

    def __init__(self, channels: int, columns: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels * columns, width)

    def forward(
        self, images: Float[Tensor, "batch channels rows columns"]
    ) -> tuple[Float[Tensor, "batch rows width"], Int64[Tensor, " batch"]]:
        rows = images.transpose(1, 2).flatten(2)
        return self.projection(rows), torch.full((images.shape[0],), rows.shape[1], device=images.device)


_ENCODERS: Mapping[ModalityName, Callable[..., TokenEncoder | StepEncoder | RowEncoder]] = MappingProxyType(
    {"image": RowEncoder, "series": StepEncoder, "text": TokenEncoder}
)


def make_encoder(
    kind: ModalityName, in_channels: int, input_size: tuple[int, ...], width: int
) -> TokenEncoder | StepEncoder | RowEncoder:
    """Return what turns samples of a kind into vectors and lengths: tokens, steps, or rows of pixels."""
    encoder = _ENCODERS[kind]
    return encoder(in_channels, *input_size[1:], width)


def measure_lengths(present: Bool[Tensor, "batch steps"]) -> Int64[Tensor, " batch"]:
    """Return the number of steps up to each sample's last present one."""
    counted = torch.arange(1, present.shape[1] + 1, device=present.device)
    return (present * counted).amax(dim=1)


def make_attention_mask(lengths: Int64[Tensor, " batch"], steps: int | SymInt) -> Bool[Tensor, "batch steps"]:
    """Return which of so many steps lie within each sample's length; a graph that is traced has a symbol for them."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def pool_mean(
    states: Float[Tensor, "batch steps width"], lengths: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch width"]:
    """Return the mean over each sample's non-padding steps; zero where it has none."""
    padding = ~make_attention_mask(lengths, states.shape[1])
    # Filled rather than multiplied by 0, which would let an infinite state of a padding step through as NaN.
    return states.masked_fill(padding[:, :, None], 0.0).sum(dim=1) / lengths.clamp(min=1)[:, None]
