"""Common corruptions of inputs, each at five severities, reproducible by seed.

Images: the noises, blur, brightness, contrast and JPEG of D. Hendrycks, T. Dietterich, "Benchmarking neural network
robustness to common corruptions and perturbations", ICLR 2019, with the severities of their ImageNet-C, or of their
CIFAR-10-C for images below 64 pixels; the shear of N. Mu, J. Gilmer, "MNIST-C: a robustness benchmark for computer
vision", 2019. Values stay floats in 0..1, where theirs are rounded to 8 bits.

Series: noise at the signal-to-noise ratios of H.-G. Hirsch, D. Pearce, "The Aurora experimental framework", ASR 2000.
Texts: the swapped letters of Y. Belinkov, Y. Bisk, "Synthetic and natural noise both break neural machine translation",
ICLR 2018, and dropped letters, of D. Pruthi, B. Dhingra, Z. Lipton, "Combating adversarial misspellings", ACL 2019.
Corruptions without a source have evenly spaced severities of our own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from PIL import Image
from torch import Tensor

from falconet.data import Samples
from falconet.spec import ImageSpec

Amounts = tuple[float, float, float, float, float]
"""Amounts of a corruption at severities 1 to 5."""

_SMALL = 64
"""Pixels of the shorter side below which images get the amounts made for 32x32."""

_SHEAR: Amounts = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Amounts of shear, as the slope of a vertical line, from MNIST-C."""

IMAGE_AMOUNTS: Mapping[str, Amounts] = MappingProxyType(
    {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "blur": (1, 2, 3, 4, 6),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "affine": _SHEAR,
        "jpeg": (25, 18, 15, 10, 7),
    }
)
"""Amounts by name of the corruption for larger images, from ImageNet-C; see also _SHEAR."""

SMALL_IMAGE_AMOUNTS: Mapping[str, Amounts] = MappingProxyType(
    {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "blur": (0.4, 0.6, 0.7, 0.8, 1),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "affine": _SHEAR,
        "jpeg": (80, 65, 58, 50, 40),
    }
)
"""Amounts by name of the corruption for small images, from CIFAR-10-C; see also _SHEAR."""

SERIES_AMOUNTS: Mapping[str, Amounts] = MappingProxyType(
    {
        "noise": (20, 15, 10, 5, 0),
        "gain": (3, 6, 9, 12, 15),
        "shift": (0.05, 0.1, 0.15, 0.2, 0.25),
        "dropped": (0.1, 0.2, 0.3, 0.4, 0.5),
    }
)
"""Amounts for series: `noise` (signal-to-noise ratio) and `gain` (loss) in dB, `shift` and `dropped` as fractions."""

TEXT_AMOUNTS: Mapping[str, Amounts] = MappingProxyType(
    dict.fromkeys(("swapped_letters", "dropped_letters", "dropped_words"), (0.1, 0.2, 0.3, 0.4, 0.5))
)
"""Amounts for texts: fractions of the words."""


def choose_amounts(spec: ImageSpec) -> Mapping[str, Amounts]:
    """Return the corruptions for images of a model's size, each with its amounts at severities 1 to 5."""
    return SMALL_IMAGE_AMOUNTS if min(spec.shape[1:]) < _SMALL else IMAGE_AMOUNTS


def corrupt_images(
    images: Float32[Tensor, "batch channels height width"], name: str, amount: float, generator: torch.Generator
) -> Float32[Tensor, "batch channels height width"]:
    """Return corrupted images; values of 0..1 stay there. `amount` is one of `choose_amounts`."""
    return _IMAGE_CORRUPTIONS[name](images, amount, generator).clamp_(0, 1)


def _add_gaussian_noise(images: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Add white noise."""
    return images + std * torch.randn(images.shape, generator=generator)


def _add_shot_noise(images: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Add shot noise; `photons` is the mean count of a white pixel."""
    return torch.poisson(images * photons, generator=generator) / photons


def blur(images: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Blur by a Gaussian with this std in pixels, cut at four stds; the border is replicated."""
    radius = int(4 * std + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / std) ** 2)
    kernel = (weights / weights.sum()).view(1, 1, 1, -1)
    x = images.flatten(0, 1)[:, None]
    for axis in (2, 3):
        along = kernel if axis == 3 else kernel.transpose(2, 3)
        margins = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
        x = F.conv2d(F.pad(x, margins, mode="replicate"), along)
    return x.view(images.shape)


def _brighten(images: Tensor, added: float, generator: torch.Generator) -> Tensor:
    """Add to the value of HSV, the largest of a pixel's channels; hue and saturation are kept."""
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value), brighter)


def _reduce_contrast(images: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Scale each value's distance from its channel's mean by a fraction."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + fraction * (images - mean)


def _shear(images: Tensor, slope: float, generator: torch.Generator) -> Tensor:
    """Shear each image to the left or to the right about its center; the outside is black."""
    sides = torch.randint(0, 2, (len(images),), generator=generator) * 2 - 1
    height, width = images.shape[2:]
    maps = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(len(images), 1, 1)
    # Coordinates of the grid are halves of a side.
    maps[:, 0, 1] = slope * sides * height / width
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _compress_jpeg(images: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Compress each image as 8-bit JPEG of this quality, and decode it again."""
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    read = np.stack([reread_jpeg(image, int(quality)) for image in pixels])
    return torch.from_numpy(read).permute(0, 3, 1, 2).float() / 255


def reread_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Return an image of uint8 after compression as JPEG."""
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content)).reshape(image.shape)


_IMAGE_CORRUPTIONS: Mapping[str, Callable[[Tensor, float, torch.Generator], Tensor]] = MappingProxyType(
    {
        "gaussian_noise": _add_gaussian_noise,
        "shot_noise": _add_shot_noise,
        "blur": blur,
        "brightness": _brighten,
        "contrast": _reduce_contrast,
        "affine": _shear,
        "jpeg": _compress_jpeg,
    }
)


@dataclass(frozen=True, eq=False)
class CorruptedSamples:
    """Raw series or texts that are corrupted when they are read, each with a random generator of its own."""

    samples: Samples
    corrupt: Callable[[Any, str, float, np.random.Generator], Any]
    """Applies a named corruption, with an amount and a random generator, to a sample."""
    name_of_corruption: str
    amount: float
    seed: int
    places: Int64[np.ndarray, " samples"]
    """Number that, with `seed`, seeds each sample's corruption, which so is the same in a subset as in the whole."""

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def read(self, index: int) -> Any:
        sample = self.samples.read(index)
        generator = np.random.default_rng((self.seed, int(self.places[index])))
        return self.corrupt(sample, self.name_of_corruption, self.amount, generator)

    def take(self, indices: Int64[np.ndarray, " kept"]) -> Samples:
        return replace(self, samples=self.samples.take(indices), places=self.places[indices])

    def join(self, others: Sequence[Any]) -> Samples:
        joined = self.samples.join([other.samples for other in others])
        return replace(self, samples=joined, places=np.concatenate([self.places, *(other.places for other in others)]))


def corrupt_series(series: np.ndarray, name: str, amount: float, generator: np.random.Generator) -> np.ndarray:
    """Return a corrupted series. `amount` is one of SERIES_AMOUNTS."""
    return SERIES_CORRUPTIONS[name](series, amount, generator)


def _add_noise(series: np.ndarray, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """Add white noise at this signal-to-noise ratio to each channel, whose signal is its variance."""
    std = np.nanstd(series, axis=1, keepdims=True) * 10 ** (-decibels / 20)
    noisy: np.ndarray = (series + std * generator.standard_normal(series.shape)).astype(np.float32)
    return noisy


def _reduce_gain(series: np.ndarray, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """Attenuate a series by so many dB, as a more distant sensor does."""
    weakened: np.ndarray = (series * 10 ** (-decibels / 20)).astype(np.float32)
    return weakened


def _shift_time(series: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Shift a series by a fraction of its length, to either side; its first or last value fills the gap."""
    steps = series.shape[1]
    moved = round(fraction * steps) * int(generator.choice([-1, 1]))
    return np.ascontiguousarray(series[:, np.clip(np.arange(steps) - moved, 0, steps - 1)])


def _drop_steps(series: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Make a fraction of the steps missing (NaN) in all channels, but never the first and the last."""
    dropped = np.asarray(generator.random(series.shape[1]) < fraction)
    dropped[[0, -1]] = False
    return np.where(dropped, np.float32(np.nan), series)


SERIES_CORRUPTIONS: Mapping[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = MappingProxyType(
    {"noise": _add_noise, "gain": _reduce_gain, "shift": _shift_time, "dropped": _drop_steps}
)


def corrupt_text(text: str, name: str, amount: float, generator: np.random.Generator) -> str:
    """Return a corrupted text. `amount` is one of TEXT_AMOUNTS."""
    return TEXT_CORRUPTIONS[name](text, amount, generator)


def _change_words(
    text: str, fraction: float, generator: np.random.Generator, change: Callable[[str, np.random.Generator], str]
) -> str:
    """Change a fraction of the words, drawn at random; everything between them is kept."""
    parts = re.split(r"(\s+)", text)
    return "".join(
        change(part, generator) if part and not part.isspace() and generator.random() < fraction else part
        for part in parts
    )


def _swap_letters(word: str, generator: np.random.Generator) -> str:
    """Swap two adjacent letters within a word of four or more; the first and the last one are kept."""
    if len(word) < 4:
        return word
    place = int(generator.integers(1, len(word) - 2))
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _drop_letter(word: str, generator: np.random.Generator) -> str:
    """Leave out a letter within a word of three or more; the first and the last one are kept."""
    if len(word) < 3:
        return word
    place = int(generator.integers(1, len(word) - 1))
    return word[:place] + word[place + 1 :]


def _drop_word(word: str, generator: np.random.Generator) -> str:
    """Leave out a word."""
    return ""


TEXT_CORRUPTIONS: Mapping[str, Callable[[str, float, np.random.Generator], str]] = MappingProxyType(
    {
        "swapped_letters": lambda text, fraction, generator: _change_words(text, fraction, generator, _swap_letters),
        "dropped_letters": lambda text, fraction, generator: _change_words(text, fraction, generator, _drop_letter),
        "dropped_words": lambda text, fraction, generator: _change_words(text, fraction, generator, _drop_word),
    }
)
