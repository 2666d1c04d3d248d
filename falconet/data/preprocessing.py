"""The one way from raw samples to a model's input, for training, evaluation, prediction and export."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Barrier
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, Shaped, UInt, UInt8
from torch import SymInt, Tensor, nn

from falconet.data.dataset import ImageArray, Samples, Texts
from falconet.data.series import pad_or_resample
from falconet.data.spectra import LogMel
from falconet.data.texts import TextEncoder
from falconet.errors import DataError
from falconet.spec import ImageSpec, InputSpec, ModalityName, SeriesSpec, TextSpec


class ImagePreprocess(nn.Module):
    """Raw images of any size to normalized input, in float32 throughout.

    In order: to 0..1; channels as the spec has them (gray repeated, color weighted to luma by ITU-R BT.601); scaled by
    antialiased bilinear interpolation to `spec.inner_size`, as `spec.resize_mode` says; the border repeated over
    `spec.padding`; `(x - mean) / std`.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mean: Tensor
        self.std: Tensor
        self.luma: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, images: UInt[Tensor, "batch height width channels"]
    ) -> Float32[Tensor, "batch model_channels model_height model_width"]:
        return self.normalize(self.scale(images))

    def scale(
        self, images: UInt[Tensor, "batch height width channels"]
    ) -> Float32[Tensor, "batch model_channels model_height model_width"]:
        """All steps but the last: values stay in 0..1."""
        return self.fit(to_unit(images.permute(0, 3, 1, 2)))

    def fit(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch model_channels model_height model_width"]:
        """Channels, scaling and border, for pixels in 0..1."""
        x = self.match_channels(x)
        if x.shape[-2:] != self.spec.inner_size:
            x = self.resize(x)
        return self.pad_border(x)

    def resize(
        self, x: Shaped[Tensor, "batch channels height width"]
    ) -> Shaped[Tensor, "batch channels inner_height inner_width"]:
        """Scale to `spec.inner_size`, in floating point or in 8 bits; an image that has it stays as it is."""
        if self.spec.resize_mode == "stretch":
            return _interpolate(x, *self.spec.inner_size)
        rows, columns = place_image(x.shape[2], x.shape[3], self.spec)
        if self.spec.resize_mode == "crop":
            return _crop_image(x, (rows, columns), self.spec.inner_size)
        scaled = _interpolate(x, int(rows.scaled), int(columns.scaled))
        top, left = -int(rows.start), -int(columns.start)
        bottom, right = (
            wanted - before - int(side.scaled)
            for wanted, before, side in zip(self.spec.inner_size, (top, left), (rows, columns), strict=True)
        )
        return F.pad(scaled, (left, right, top, bottom))

    def pad_border(
        self, x: Float32[Tensor, "batch channels inner_height inner_width"]
    ) -> Float32[Tensor, "batch channels height width"]:
        """Repeat the border over the padding, where there is one."""
        padding = self.spec.padding
        return F.pad(x, (padding,) * 4, mode="replicate") if padding else x

    def normalize(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch channels height width"]:
        """The last step, for pixels in 0..1."""
        return (x - self.mean) / self.std

    def match_channels(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch model_channels height width"]:
        wanted = self.spec.shape[0]
        if x.shape[1] == wanted:
            return x
        return (x * self.luma).sum(dim=1, keepdim=True) if wanted == 1 else x.expand(-1, wanted, -1, -1)

    def scale_bytes(
        self, image: UInt8[Tensor, "1 height width channels"]
    ) -> UInt8[Tensor, "1 model_channels model_height model_width"]:
        """`scale` of 8 bits in 8 bits, within a gray level of it and several times as fast; for training only."""
        wanted, x = self.spec.shape[0], image.permute(0, 3, 1, 2)
        if self.spec.padding or x.shape[1] > wanted:
            return (self.scale(image) * 255).round_().to(torch.uint8)
        if x.shape[-2:] != self.spec.inner_size:
            x = self.resize(x)
        return x.expand(-1, wanted, -1, -1)

    def store(self, image: UInt[Tensor, "1 height width channels"]) -> UInt[Tensor, "1 _ _ _"]:
        """`scale` as it is kept for training: in as many bits as the model's samples have."""
        return self.scale_bytes(image) if self.spec.dtype == "uint8" else to_levels(self.scale(image), torch.uint16)

    def prepare(self, samples: Sequence[np.ndarray]) -> Float32[Tensor, "batch channels height width"]:
        """Raw images, each of its own size, scaled but not normalized."""
        return torch.cat([scale_image(image, self) for image in samples])


def _interpolate(
    x: Shaped[Tensor, "batch channels _ _"], height: int, width: int
) -> Shaped[Tensor, "batch channels height width"]:
    """Return images scaled by antialiased bilinear interpolation."""
    return F.interpolate(x, (height, width), mode="bilinear", antialias=True, align_corners=False)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where one side of an image comes to lie; numbers are tensors, for graphs that know them only when they run."""

    found: Int64[Tensor, ""]
    """Pixels of this side of the image."""
    scaled: Int64[Tensor, ""]
    """Pixels of this side after scaling."""
    start: Int64[Tensor, ""]
    """First scaled pixel that is kept; below 0: minus the number of black pixels before them."""


def place_image(height: int | SymInt, width: int | SymInt, spec: ImageSpec) -> tuple[Placement, Placement]:
    """Return where rows and columns of an image come to lie.

    Sizes are rounded and middles found as torchvision's `resize` and `center_crop` do, and Pillow's `ImageOps.pad`.
    """
    found = [torch.scalar_tensor(side, dtype=torch.int64) for side in (height, width)]
    sides = []
    for own, other, wanted, across in zip(found, found[::-1], spec.inner_size, spec.inner_size[::-1], strict=True):
        # Its length is what it becomes when the other side is scaled to what is wanted of that one.
        if spec.resize_mode == "crop":
            scaled = torch.div(across * own, other, rounding_mode="floor").clamp(min=wanted)
            start = _divide(scaled - wanted, 2)
        elif spec.resize_mode == "pad":
            scaled = _divide(across * own, other).clamp(min=1, max=wanted)
            start = -_divide(wanted - scaled, 2)
        else:
            scaled = torch.scalar_tensor(wanted, dtype=torch.int64)
            start = torch.zeros_like(scaled)
        sides.append(Placement(own, scaled, start))
    return sides[0], sides[1]


def _divide(count: Int64[Tensor, ""], by: int | Int64[Tensor, ""]) -> Int64[Tensor, ""]:
    """Return a quotient of whole numbers, rounded as Python's `round` does: halves to the even neighbor."""
    nearest = torch.div(2 * count + by, 2 * by, rounding_mode="floor")
    halfway = (2 * by * nearest == 2 * count + by).to(torch.int64)
    return nearest - halfway * (nearest - 2 * torch.div(nearest, 2, rounding_mode="floor"))


def _crop_image(
    x: Shaped[Tensor, "batch channels height width"], sides: Sequence[Placement], size: tuple[int, int]
) -> Shaped[Tensor, "batch channels inner_height inner_width"]:
    """Scale images and keep what lies within `size`, without computing what does not."""
    firsts = []
    for axis, (side, wanted) in enumerate(zip(sides, size, strict=True), start=2):
        scale = int(side.found) / int(side.scaled)
        reach = max(scale, 1.0) + 1
        first = max(math.floor((int(side.start) + 0.5) * scale - reach), 0)
        last = min(math.ceil((int(side.start) + wanted - 0.5) * scale + reach), int(side.found))
        firsts.append(first)
        x = x.narrow(axis, first, last - first)
    # One side just fits; of the other, which is cut, as many pixels are left as its middle takes.
    height, width = (
        wanted if int(side.scaled) == wanted else found
        for side, wanted, found in zip(sides, size, x.shape[2:], strict=True)
    )
    y = _interpolate(x, height, width)
    for axis, (side, wanted, first) in enumerate(zip(sides, size, firsts, strict=True), start=2):
        if int(side.scaled) != wanted:
            places = torch.arange(int(side.start), int(side.start) + wanted)
            weights = weigh_pixels(torch.arange(first, first + y.shape[axis]), places, side)
            y = weights @ y.float() if axis == 2 else y.float() @ weights.T
    return y if x.is_floating_point() or not y.is_floating_point() else y.round_().to(x.dtype)


def weigh_pixels(
    positions: Int64[Tensor, " some"], places: Int64[Tensor, " kept"], side: Placement
) -> Float32[Tensor, "kept some"]:
    """Return the fraction of pixels of a line in those at `places` of the scaled line: antialiased bilinear
    interpolation.

    A triangle around the middle of each new pixel, as wide as two of the larger pixels, cut off at the line's ends;
    `positions` must hold all pixels below it. Distances are whole numbers, in halves of the common measure of old and
    new pixels, so that those in the middle of long lines are exact.
    """
    distances = ((2 * positions + 1) * side.scaled - ((2 * places + 1) * side.found)[:, None]).abs()
    triangles = (1 - distances / (2 * torch.maximum(side.found, side.scaled))).clamp(min=0)
    return triangles / triangles.sum(dim=1, keepdim=True)


class SeriesPreprocess(nn.Module):
    """Raw series of any length to normalized input: fitted, turned into spectra where the spec has bands, normalized.

    See `pad_or_resample` and `LogMel`. Steps after a series' end are NaN; models leave them out.
    """

    def __init__(self, spec: SeriesSpec) -> None:
        super().__init__()
        self.spec = spec
        self.spectra = nn.Identity() if spec.bands is None else LogMel(spec)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1), persistent=False)

    def forward(
        self, series: Float32[Tensor, "batch channels steps"]
    ) -> Float32[Tensor, "batch model_channels model_steps"]:
        """All steps but the first: `series` have been fitted."""
        return self.normalize(self.spectra(series))

    def normalize(self, x: Float32[Tensor, "batch channels steps"]) -> Float32[Tensor, "batch channels steps"]:
        """The last step."""
        return (x - self.mean) / self.std

    def prepare(self, samples: Sequence[np.ndarray]) -> Float32[Tensor, "batch model_channels model_steps"]:
        """Raw series, each of its own length, all steps but the last."""
        fitted: Tensor = self.spectra(
            torch.from_numpy(np.stack([pad_or_resample(series, self.spec) for series in samples]))
        )
        return fitted


class TextPreprocess(nn.Module):
    """Raw texts to token numbers, `spec.shape[0]` of each; 0 follows after a text's end."""

    def __init__(self, spec: TextSpec, tokenizer: str) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = TextEncoder(tokenizer, spec.shape[0])

    def forward(self, tokens: Int64[Tensor, "batch tokens"]) -> Int64[Tensor, "batch tokens"]:
        return self.normalize(tokens)

    def normalize(self, tokens: Int64[Tensor, "batch tokens"]) -> Int64[Tensor, "batch tokens"]:
        """Nothing is left to do."""
        return tokens

    def prepare(self, samples: Sequence[str]) -> Int64[Tensor, "batch tokens"]:
        """Texts as token numbers."""
        return torch.from_numpy(self.encoder.encode(samples))


AnyPreprocess = ImagePreprocess | SeriesPreprocess | TextPreprocess


def create_preprocess(spec: InputSpec, tokenizer: str | None = None) -> AnyPreprocess:
    """Return the module for a spec; texts need the tokenizer that belongs to it. Raises DataError without it."""
    return _PREPROCESSES[spec.kind](spec, tokenizer)


def _create_text_preprocess(spec: TextSpec, tokenizer: str | None) -> TextPreprocess:
    if tokenizer is None:
        raise DataError("wanted the tokenizer of a text model, found none")
    return TextPreprocess(spec, tokenizer)


_PREPROCESSES: Mapping[ModalityName, Callable[[Any, str | None], AnyPreprocess]] = MappingProxyType(
    {
        "image": lambda spec, tokenizer: ImagePreprocess(spec),
        "series": lambda spec, tokenizer: SeriesPreprocess(spec),
        "text": _create_text_preprocess,
    }
)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A batch of samples, fitted to a model but not normalized."""

    inputs: Tensor
    """The readable samples, in order."""
    unreadable: dict[int, str]
    """Reasons why the other samples cannot be read, by position."""


def single_threaded_pool(count: int | None = None) -> ThreadPoolExecutor:
    """Return threads, as many as there are processors by default, of which each computes alone.

    Torch would give each a team of its own, and the teams would get into each other's way.
    """
    count = count or os.cpu_count() or 1
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    started = Barrier(count, timeout=60)  # Where the system gives no more threads, an error instead of a halt.

    def start() -> None:
        torch.get_num_threads()  # Torch settles a thread's number when it is first asked for.
        started.wait()  # A pool starts no further thread while one is idle.

    wait([pool.submit(start) for _ in range(count)])
    # Torch hands the number that was set last to threads that start later; this one's own stays what it was.
    torch.set_num_threads(threads)
    return pool


def iterate_prepared(samples: Samples, preprocess: AnyPreprocess, batch_size: int) -> Iterator[_Prepared]:
    """Yield all samples in order, decoding no more than a batch at a time."""
    with single_threaded_pool() as pool:
        for start in range(0, len(samples), batch_size):
            yield _prepare_range(samples, preprocess, range(start, min(start + batch_size, len(samples))), pool)


def _prepare_range(samples: Samples, preprocess: AnyPreprocess, block: range, pool: ThreadPoolExecutor) -> _Prepared:
    """Prepare consecutive samples: arrays and texts at once, anything else one by one, in parallel."""
    if isinstance(samples, ImageArray) and isinstance(preprocess, ImagePreprocess):
        return _Prepared(preprocess.scale(torch.from_numpy(samples.cut(block.start, block.stop))), {})
    if isinstance(samples, Texts) and isinstance(preprocess, TextPreprocess):
        return _Prepared(preprocess.prepare(samples.texts[block.start : block.stop]), {})
    # Prepared where they are decoded, so that no more raw samples are held than there are workers.
    results = list(pool.map(lambda index: _try_preparing(samples, index, preprocess), block))
    inputs = [result for result in results if isinstance(result, Tensor)]
    reasons = {index: result for index, result in zip(block, results, strict=True) if isinstance(result, str)}
    return _Prepared(torch.cat(inputs) if inputs else torch.empty(0), reasons)


def _try_preparing(samples: Samples, index: int, preprocess: AnyPreprocess) -> Tensor | str:
    """Return one sample as a batch of one, or why there is none."""
    try:
        return preprocess.prepare([samples.read(index)])
    except DataError as error:
        return strip_name(error, samples.name(index))


def strip_name(error: DataError, name: str) -> str:
    """Return why a sample cannot be read, without its name or the path that ends in it."""
    return str(error).rpartition(f"{name}: ")[2]


def scale_image(
    image: UInt[np.ndarray, "_ _ _"], preprocess: ImagePreprocess
) -> Float32[Tensor, "1 channels height width"]:
    """Return one image as a batch of one: scaled but not normalized."""
    return preprocess.scale(torch.from_numpy(image)[None])


WHITES = {torch.uint8: 255, torch.uint16: 65535}
"""White of images, by their type."""


@torch.inference_mode()
def load_prepared(samples: Samples, preprocess: AnyPreprocess) -> tuple[Tensor, dict[int, str]]:
    """Return all readable samples, prepared for training and held in memory, and why others are not.

    Images are rounded to 8 bits, high-bit-depth ones to 16, tokens to 32, which evaluation never sees. Raises
    DataError where none is readable.
    """
    dtype = _choose_stored(preprocess)
    parts: list[Tensor] = []
    unreadable: dict[int, str] = {}
    for batch in iterate_prepared(samples, preprocess, batch_size=512):
        parts.append(to_levels(batch.inputs, dtype) if dtype in WHITES else batch.inputs.to(dtype))
        unreadable |= batch.unreadable
    if len(unreadable) == len(samples):
        raise DataError(f"none of {len(samples)} samples can be read; the first: {samples.name(0)} ({unreadable[0]})")
    return torch.cat([part for part in parts if len(part)]), unreadable


def _choose_stored(preprocess: AnyPreprocess) -> torch.dtype:
    """Return how samples are held for training."""
    if isinstance(preprocess, ImagePreprocess):
        return torch.uint8 if preprocess.spec.dtype == "uint8" else torch.uint16
    return torch.float32 if isinstance(preprocess, SeriesPreprocess) else torch.int32


def to_unit(images: UInt[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Return gray levels of 8 or 16 bits as 0..1; of the same level it makes the very same number."""
    return images.float().div_(WHITES[images.dtype])


def to_levels(x: Float32[Tensor, "*shape"], dtype: torch.dtype) -> UInt[Tensor, "*shape"]:
    """Return 0..1 as gray levels."""
    return (x * WHITES[dtype]).round_().to(dtype)
