"""Random augmentation of training samples: its settings, and POLICIES by name.

The arithmetic is in `falconet.data.transforms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from falconet.catalog import DOWNLOADABLE
from falconet.errors import ConfigError, UnknownNameError
from falconet.schema import check_fields
from falconet.spec import ModalityName


@dataclass(frozen=True)
class ImageAugmentation:
    """Ranges from which the augmentation of each image is drawn; the defaults change nothing."""

    rotate: float = 0.0
    """Largest rotation in degrees, either way."""

    scale: float = 0.0
    """Factors of height and width of the visible area are 1 - scale to 1 + scale; larger ones make content smaller."""

    shear: float = 0.0
    """Largest horizontal shear in degrees, either way."""

    shift: float = 0.0
    """Largest shift, as a fraction of height and width, either way; in whole pixels where nothing else moves them."""

    flip_horizontal: float = 0.0
    """Probability of a horizontal flip."""

    flip_vertical: float = 0.0
    """Probability of a vertical flip."""

    crop: float = 1.0
    """Smallest fraction of the area that a crop keeps and scales to the whole; 1: no crop (Szegedy et al. 2015)."""

    elastic: float = 0.0
    """Root mean square of each pixel's displacement along either axis, as a fraction of that side.

    Simard, Steinkraus and Platt (2003) smooth noise from -1..1 by a Gaussian of 4 pixels and multiply it by 34. On
    their 29 pixels that is 34 / sqrt(3 * 4 * pi * 4**2) / 29 = 0.05.
    """

    smoothness: float = 0.14
    """Standard deviation of the Gaussian that smooths `elastic`, as a fraction of the side; theirs is 4 / 29 = 0.14."""

    brightness: float = 0.0
    """Values are multiplied by a factor of 1 - brightness to 1 + brightness."""

    contrast: float = 0.0
    """Differences from the image's mean gray are multiplied by a factor of 1 - contrast to 1 + contrast."""

    saturation: float = 0.0
    """Differences of pixels from their own gray are scaled by 1 - saturation to 1 + saturation; color images only."""

    hue: float = 0.0
    """Largest turn of the hue, as a fraction of the color circle, either way; color images only."""

    trivial: bool = False
    """Apply one of 14 operations at one of 31 strengths to each image: TrivialAugment Wide (Müller and Hutter 2021)."""

    erase: float = 0.0
    """Probability that a rectangle of 2 to 33 % of the area is filled with the image's mean (Zhong et al. 2020)."""

    mixup: float = 0.0
    """Alpha of mixup, both parameters of the Beta distribution of its weights; 0: no mixup (Zhang et al. 2018)."""

    cutmix: float = 0.0
    """Alpha of CutMix, which pastes a rectangle from another image; 0: no CutMix (Yun et al. 2019).

    Where both this and `mixup` are above 0, each batch gets one of them, at even odds.
    """

    kind: Literal["image"] = "image"
    """Tag of an ImageAugmentation in `config.yaml`."""

    def __post_init__(self) -> None:
        _check_ranges(self, {"rotate": (0, 180), "scale": (0, 0.9), "shear": (0, 60), "shift": (0, 0.5)})
        _check_ranges(self, dict.fromkeys(("flip_horizontal", "flip_vertical", "erase"), (0, 1)))
        _check_ranges(self, {"crop": (0.01, 1), "elastic": (0, 0.5), "smoothness": (0.01, 1)})
        _check_ranges(self, {"brightness": (0, 1), "contrast": (0, 1), "saturation": (0, 1), "hue": (0, 0.5)})
        _check_ranges(self, {"mixup": (0, 100), "cutmix": (0, 100)})
        check_fields(self)

    @property
    def moves(self) -> bool:
        """Whether pixels would be moved."""
        affine = (self.rotate, self.scale, self.shear, self.shift)
        return any((*affine, self.flip_horizontal, self.flip_vertical, self.crop < 1, self.elastic))

    @property
    def resamples(self) -> bool:
        """Whether pixels would be moved by fractions of a pixel, so that values are interpolated."""
        return any((self.rotate, self.scale, self.shear, self.crop < 1, self.elastic))

    @property
    def recolors(self) -> bool:
        """Whether brightness or colors would change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def mixes(self) -> bool:
        """Whether images would be mixed with others, so that labels become soft ones."""
        return any((self.mixup, self.cutmix))

    @property
    def active(self) -> bool:
        """Whether anything would change."""
        return any((self.moves, self.recolors, self.trivial, self.erase, self.mixes))


@dataclass(frozen=True)
class SeriesAugmentation:
    """Ranges from which the augmentation of each series is drawn; all zero: none."""

    time_warp: float = 0.0
    """Root mean square of a step's displacement in time, as a fraction of the series' length; order is kept."""

    jitter: float = 0.0
    """Standard deviation of Gaussian noise, in standard deviations of the series itself."""

    mask: float = 0.0
    """Largest fraction of the length that is set to the mean, in one piece."""

    barycenter: float = 0.0
    """Probability that a series is replaced by a weighted average of it and another of its class under dynamic time
    warping (Petitjean et al. 2011; Forestier et al. 2017), before all else; see `falconet.data.barycenters`."""

    kind: Literal["series"] = "series"
    """Tag of a SeriesAugmentation in `config.yaml`."""

    def __post_init__(self) -> None:
        _check_ranges(self, {"time_warp": (0, 0.2), "jitter": (0, 10), "mask": (0, 0.9), "barycenter": (0, 1)})
        check_fields(self)

    @property
    def active(self) -> bool:
        """Whether anything would change."""
        return any((self.time_warp, self.jitter, self.mask, self.barycenter))


@dataclass(frozen=True)
class TextAugmentation:
    """How texts are augmented; all zero: not at all."""

    mask: float = 0.0
    """Probability that a token is replaced by the mask token."""

    delete: float = 0.0
    """Probability that a token is deleted; one always stays (Wei, Zou: EDA. EMNLP, 2019, section 2)."""

    swap: float = 0.0
    """Fraction of the tokens that are swapped with each other (EDA, section 2); the paper swaps whole words."""

    kind: Literal["text"] = "text"
    """Tag of a TextAugmentation in `config.yaml`."""

    def __post_init__(self) -> None:
        _check_ranges(self, {"mask": (0, 0.9), "delete": (0, 0.9), "swap": (0, 1)})
        check_fields(self)

    @property
    def active(self) -> bool:
        """Whether anything would change."""
        return any((self.mask, self.delete, self.swap))


Augmentation = ImageAugmentation | SeriesAugmentation | TextAugmentation


def _check_ranges(config: Any, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raise ConfigError for the first of the named fields that is not within its limits, both included."""
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name}: wanted {low} to {high}, found {value}")


POLICIES: Mapping[ModalityName, Mapping[str, Augmentation]] = MappingProxyType(
    {
        "image": MappingProxyType(
            {
                "none": ImageAugmentation(),
                "light": ImageAugmentation(rotate=10, scale=0.1, shift=0.08),
                "digits": ImageAugmentation(rotate=10, scale=0.15, shear=10, shift=0.08),
                "strong": ImageAugmentation(
                    rotate=15, scale=0.15, shear=10, shift=0.08, crop=0.6,
                    brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03,
                    erase=0.25, mixup=0.2, cutmix=1.0,
                ),
                "trivial": ImageAugmentation(trivial=True),
            }
        ),
        "series": MappingProxyType(
            {
                "none": SeriesAugmentation(),
                "light": SeriesAugmentation(time_warp=0.02, jitter=0.03),
                "strong": SeriesAugmentation(time_warp=0.05, jitter=0.1, mask=0.2),
            }
        ),
        "text": MappingProxyType(
            {
                "none": TextAugmentation(),
                "light": TextAugmentation(mask=0.1),
                "strong": TextAugmentation(mask=0.25),
            }
        ),
    }
)  # fmt: skip
"""Named settings by kind of sample; none flips images, since a mirrored letter or sign may be another one."""


def find_policy(kind: ModalityName, name: str) -> Augmentation:
    """Return the settings called `name` for this kind of sample. Raises UnknownNameError for any other name."""
    if name not in POLICIES[kind]:
        raise UnknownNameError("augmentation policy", name, POLICIES[kind])
    return POLICIES[kind][name]


def default_policy(source: str, kind: ModalityName) -> str:
    """Return the name of the policy for samples of a source, as the user wrote it: `light`, or what a known one has."""
    own = "digits" if source == "digits" else DOWNLOADABLE[source].policy if source in DOWNLOADABLE else "light"
    return own if own in POLICIES[kind] else "light"
