"""Preparation of raw samples of each modality for exported files, and for the graphs that these are written from.

Imports no torch: whoever runs a file may have none, and only graphs need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, UInt

from falconet.data import ImageArray, Samples, SeriesArray, Texts
from falconet.data.images import LEVELS, to_words
from falconet.data.series import pad_or_resample
from falconet.data.texts import TextEncoder
from falconet.errors import DataError
from falconet.exporters.metadata import Metadata
from falconet.spec import ImageSpec, ModalityName, SeriesSpec, TextSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Prepare = Callable[[Any], np.ndarray]
"""Function from a raw sample to the input of a file, without the batch dimension."""


@dataclass(frozen=True)
class ExportAdapter:
    """Preparation of a modality's raw samples for exported files."""

    open: Callable[[Metadata, str | None], Prepare]
    """Returns the function that prepares samples for a file, given its metadata and its tokenizer."""
    make_random: Callable[[Any, np.ndarray, np.random.Generator], Samples]
    """Returns random samples with these names, given an input spec."""
    thin: Callable[[Samples, int], Samples]
    """Subsamples images until no side has more pixels than this; leaves other samples as they are."""
    input: str
    """Name of a graph's input of raw samples; that of a bare network is `input`."""
    make_preprocess: Callable[[Any], nn.Module]
    """Returns the preprocessing before the network in a graph, given an input spec."""
    make_example: Callable[[Any], Tensor]
    """Returns two raw samples to trace a graph with, given an input spec."""
    sides: Mapping[int, str]
    """Names of the dimensions of raw samples, besides the batch, that no graph fixes."""
    find_sequence: Callable[[Any], tuple[int, str] | None]
    """Returns the dimension that counts steps, and its name, given an input spec; None where no sample has fewer."""


def _open_images(metadata: Metadata, tokenizer: str | None) -> Prepare:
    """Return a function that passes images on; only their type may change."""
    if metadata.input.dtype == "uint16":
        return lambda image: to_words(_check_sides(image, metadata.sides))
    return lambda image: _check_sides(image, metadata.sides)


def _check_sides(image: np.ndarray, most: int | None) -> np.ndarray:
    """Return an image. Raises DataError for one that is larger than a file takes."""
    height, width, _ = image.shape
    if most is not None and max(height, width) > most:
        raise DataError(f"wanted images of at most {most} pixels a side, found {height}x{width}")
    return image


def _open_series(metadata: Metadata, tokenizer: str | None) -> Prepare:
    """Return a function that gives series the model's number of steps."""
    spec: Any = metadata.input
    return lambda series: pad_or_resample(series, spec)


def _open_texts(metadata: Metadata, tokenizer: str | None) -> Prepare:
    """Return a function that tokenizes texts, which no file does itself."""
    assert tokenizer is not None
    encoder = TextEncoder(tokenizer, metadata.input.shape[0])
    return lambda text: encoder.encode([text])[0]


def _make_random_images(spec: ImageSpec, names: np.ndarray, generator: np.random.Generator) -> Samples:
    """Return images of noise, twice as large as the model's."""
    height, width = (2 * side for side in spec.inner_size)
    shape, dtype = (len(names), height, width, 3), np.dtype(spec.dtype)
    return ImageArray(generator.integers(0, LEVELS[spec.dtype], shape, dtype=dtype, endpoint=True), names)


def _make_random_series(spec: SeriesSpec, names: np.ndarray, generator: np.random.Generator) -> Samples:
    """Return random walks of all lengths up to the model's."""
    channels, steps = spec.raw_shape
    ends = generator.integers(1, steps + 1, len(names)).cumsum()
    walk = generator.normal(size=(channels, ends[-1])).cumsum(axis=1)
    return SeriesArray(walk.astype(np.float32), np.stack([np.r_[0, ends[:-1]], ends], axis=1), names)


def _make_random_texts(spec: TextSpec, names: np.ndarray, generator: np.random.Generator) -> Samples:
    """Return texts of random letters, up to four for each of the model's tokens."""
    lengths = generator.integers(1, 4 * spec.shape[0], len(names))
    return Texts(["".join(map(chr, generator.integers(32, 127, length))) for length in lengths], names)


@dataclass(frozen=True, eq=False)
class ThinnedSamples:
    """Images of which every second, third, ... pixel is read, so that no side is longer than a format takes."""

    samples: Samples
    sides: int

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def read(self, index: int) -> UInt[np.ndarray, "height width channels"]:
        image: UInt[np.ndarray, "height width channels"] = self.samples.read(index)
        step = -(-max(image.shape[:2]) // self.sides)
        return np.ascontiguousarray(image[::step, ::step])

    def take(self, indices: Int64[np.ndarray, " kept"]) -> ThinnedSamples:
        return ThinnedSamples(self.samples.take(indices), self.sides)

    def join(self, others: Sequence[ThinnedSamples]) -> ThinnedSamples:
        return ThinnedSamples(self.samples.join([part.samples for part in others]), self.sides)


def _wrap_images(spec: ImageSpec) -> nn.Module:
    """Return a module that scales and normalizes images of any size."""
    from falconet.exporters.resizing import AnyImage

    return AnyImage(spec)


def _wrap_series(spec: SeriesSpec) -> nn.Module:
    """Return a module that normalizes series of the model's length."""
    from falconet.data.preprocessing import SeriesPreprocess

    return SeriesPreprocess(spec)


def _wrap_tokens(spec: TextSpec) -> nn.Module:
    """Return a module that leaves tokens, which are made outside, as they are."""
    from torch import nn

    return nn.Identity()


def _draw_gray(spec: ImageSpec) -> Tensor:
    """Return two gray images, not of the model's own size, so that no step of scaling is left out."""
    import torch

    height, width = (side + 3 for side in spec.inner_size)
    dtype, gray = (torch.uint8, 128) if spec.dtype == "uint8" else (torch.uint16, 32896)
    return torch.full((2, height, width, 3), gray, dtype=dtype)


def _draw_ramps(spec: SeriesSpec) -> Tensor:
    """Return two series that rise."""
    import torch

    return torch.linspace(-1, 1, spec.raw_shape[1]).expand(2, *spec.raw_shape).contiguous()


def _draw_tokens(spec: TextSpec) -> Tensor:
    """Return two rows of tokens."""
    import torch

    return torch.ones(2, *spec.shape, dtype=torch.int64)


ADAPTERS: Mapping[ModalityName, ExportAdapter] = MappingProxyType(
    {
        "image": ExportAdapter(
            open=_open_images,
            make_random=_make_random_images,
            thin=ThinnedSamples,
            input="image",
            make_preprocess=_wrap_images,
            make_example=_draw_gray,
            sides={1: "height", 2: "width", 3: "channels"},
            find_sequence=lambda _: None,
        ),
        "series": ExportAdapter(
            open=_open_series,
            make_random=_make_random_series,
            thin=lambda samples, _: samples,
            input="series",
            make_preprocess=_wrap_series,
            make_example=_draw_ramps,
            sides={},
            # Series that are stretched to a length have no other.
            find_sequence=lambda spec: None if spec.length_mode == "resample" else (2, "steps"),
        ),
        "text": ExportAdapter(
            open=_open_texts,
            make_random=_make_random_texts,
            thin=lambda samples, _: samples,
            input="tokens",
            make_preprocess=_wrap_tokens,
            make_example=_draw_tokens,
            sides={},
            find_sequence=lambda _: (1, "tokens"),
        ),
    }
)
