"""InputSpec, what a model takes, one dataclass a modality; OutputSpec, what its outputs mean, one a task. Pure data.

The arithmetic is in `falconet.data.preprocessing` and `falconet.tasks`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from falconet.errors import ConfigError, abridge
from falconet.schema import SPARSE

ModalityName = Literal["image", "series", "text"]
"""Kind of a sample."""

PixelType = Literal["uint8", "uint16"]
"""Type of raw images: gray levels of 0..255, or of 0..65535."""

ResizeMode = Literal["stretch", "crop", "pad"]
"""How an image is brought to the model's size.

`stretch`: height and width are scaled each by itself, whatever becomes of the proportions. `crop`: both by the factor
at which the image just covers the size, and the middle is kept. `pad`: both by the factor at which it just fits in,
black on two sides; not of the mean color, which is measured on the very images that are padded.
"""

TaskName = Literal["classification"]
"""Task: what is predicted for a sample."""

KIND_NAMES: tuple[ModalityName, ...] = get_args(ModalityName)

_MAX_VALUES, _MAX_RAW_VALUES = 1 << 24, 1 << 25
"""Most values of one input, as a model takes it and before spectra are computed: a small file can ask for any size."""
_MAX_TOKENS = 1 << 16
FLOAT32_LEAST, FLOAT32_MOST = 2.0**-126, 2.0**127
"""Bounds between which numbers in single precision become neither 0 nor infinite."""


@dataclass(frozen=True)
class ImageSpec:
    """How a raw image becomes a model's input."""

    shape: tuple[int, int, int]
    """Channels (1 or 3), height and width in pixels, as the model takes them."""

    mean: tuple[float, ...]
    """Mean per channel to subtract from pixels in 0..1."""

    std: tuple[float, ...]
    """Std per channel to divide pixels in 0..1 by."""

    padding: int = 0
    """Pixels on each side of `shape`, filled from the image's border; the image is scaled to what lies inside."""

    kind: Literal["image"] = "image"
    """Tag of an ImageSpec in `config.json`."""

    dtype: PixelType = "uint8"
    """Type of a raw sample's values; uint16 for models of high-bit-depth images, for which 8-bit ones are widened."""

    value_range: tuple[float, float] | None = field(default=None, metadata={SPARSE: True})
    """Black and white of images with more than 8 bits, scaled to all that `dtype` holds; None: those of the format."""

    resize_mode: ResizeMode = field(default="stretch", metadata={SPARSE: True})
    """How images of another aspect ratio than the model's are resized."""

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        check_value_range(self.value_range)
        if self.dtype == "uint16" and self.value_range is None:
            raise ConfigError("value_range: wanted black and white of samples of 16 bits, found none")
        if channels not in (1, 3):
            raise ConfigError(f"shape: wanted 1 or 3 channels, found {channels}")
        _check_values(self.shape, _MAX_VALUES)
        if min(height, width) <= 2 * self.padding or self.padding < 0:
            raise ConfigError(f"padding: {self.padding} pixels leave nothing of {height}x{width}")
        _check_statistics(channels, self.mean, self.std)

    @property
    def inner_size(self) -> tuple[int, int]:
        """Height and width in pixels to which an image is scaled, inside the padding."""
        _, height, width = self.shape
        return height - 2 * self.padding, width - 2 * self.padding


@dataclass(frozen=True)
class SeriesSpec:
    """How a raw series becomes a model's input."""

    shape: tuple[int, int]
    """Channels and steps, as the model takes them; with `bands`, rows of spectra and frames."""

    mean: tuple[float, ...] = field(repr=False)
    """Mean per channel to subtract."""

    std: tuple[float, ...] = field(repr=False)
    """Std per channel to divide by."""

    length_mode: Literal["pad", "resample"] = "pad"
    """How a series gets its number of steps: cut or padded with NaN, which models leave out; or stretched in time."""

    rate: int | None = None
    """Sampling rate in Hz, to which recordings are resampled; None: series without a rate."""

    bands: int | None = None
    """Mel bands of the spectra that the model sees, one spectrum for each frame (see `falconet.data.spectra`).

    None: the model sees the values themselves.
    """

    kind: Literal["series"] = "series"
    """Tag of a SeriesSpec in `config.json`."""

    dtype: Literal["float32"] = "float32"
    """Type of a raw sample's values."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ConfigError(f"shape: wanted at least 1 channel and 1 step, found {list(self.shape)}")
        if self.rate is not None and self.rate < 1:
            raise ConfigError(f"rate: wanted 1 or more steps a second, or null, found {self.rate}")
        _check_values(self.shape, _MAX_VALUES)
        if self.bands is not None:
            _check_bands(self.bands, self.rate, self.shape[0])
            _check_values(self.raw_shape, _MAX_RAW_VALUES)
        _check_statistics(self.shape[0], self.mean, self.std)

    @property
    def raw_shape(self) -> tuple[int, int]:
        """Channels and steps of a series before its spectra are computed."""
        rows, frames = self.shape
        return self.shape if self.bands is None else (rows // self.bands, (frames - 1) * self.hop + self.window)

    @property
    def window(self) -> int:
        """Steps of a frame of 25 ms."""
        return round(0.025 * (self.rate or 0))

    @property
    def hop(self) -> int:
        """Steps from one frame to the next, 10 ms."""
        return round(0.01 * (self.rate or 0))


@dataclass(frozen=True)
class TextSpec:
    """How a text becomes a model's input."""

    shape: tuple[int]
    """Number of tokens: longer texts are cut, shorter ones padded with token 0."""

    vocab_size: int
    """Vocabulary size, including token 0, the padding, and token 1, the mask."""

    kind: Literal["text"] = "text"
    """Tag of a TextSpec in `config.json`."""

    dtype: Literal["str"] = "str"
    """Type of a raw sample."""

    def __post_init__(self) -> None:
        if not 1 <= self.shape[0] <= _MAX_TOKENS:
            raise ConfigError(f"shape: wanted 1 to {_MAX_TOKENS} tokens, found {list(self.shape)}")
        if self.vocab_size < 3:
            raise ConfigError(f"vocab_size: wanted 3 or more, found {self.vocab_size}")


InputSpec = ImageSpec | SeriesSpec | TextSpec


@dataclass(frozen=True)
class ClassificationSpec:
    """What the outputs of a classifier mean."""

    labels: tuple[str, ...]
    """Class names in the order of the logits."""

    task: TaskName = "classification"
    """Tag of a ClassificationSpec in `config.json`."""

    def __repr__(self) -> str:
        return f"ClassificationSpec({self.num_outputs:,} classes)"

    def __post_init__(self) -> None:
        _check_labels(self.labels)

    @property
    def num_outputs(self) -> int:
        """Number of the network's outputs for a sample."""
        return len(self.labels)


OutputSpec = ClassificationSpec


_RENAMED = {"margin": "padding", "fit": "length_mode"}
"""Current names of fields of the input spec, by their names in format 1."""


def upgrade_record(record: Mapping[str, Any], output: str = "output") -> dict[str, Any]:
    """Return what a `config.json`, or the like, of format 1 would hold in format 2, the output spec under `output`.

    Format 1 kept the labels in the input spec and the task beside it, and had other names for padding and length mode.
    """
    if output in record or not isinstance(record.get("input"), Mapping):
        return dict(record)
    spec = {_RENAMED.get(key, key): value for key, value in record["input"].items()}
    meaning = {"labels": spec.pop("labels", None)}
    rest = {key: value for key, value in record.items() if key not in {"task", "format_version"}}
    return {**rest, "input": spec, output: meaning}


def _check_values(shape: tuple[int, ...], most: int) -> None:
    """Raise ConfigError for an input of more values than `most`."""
    if math.prod(shape) > most:
        found = "x".join(map(abridge, shape))
        raise ConfigError(f"shape: wanted at most {most} values, found {found}; use a smaller size")


def check_value_range(value_range: tuple[float, float] | None) -> None:
    """Raise ConfigError unless black and white are finite, and white is more than black."""
    if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise ConfigError(f"value_range: wanted black and a higher white, found {list(value_range)}")


_MIN_RATE, HIGHEST_RATE = 1000, 96_000
"""Range of sampling rates in Hz for spectra: below, a hundredth of a second holds too little; above, the kernels of the
Fourier transform take hundreds of megabytes."""


def _check_bands(bands: int, rate: int | None, rows: int) -> None:
    """Raise ConfigError unless recordings of this rate can have spectra of so many bands."""
    if rate is None or not _MIN_RATE <= rate <= HIGHEST_RATE:
        found = "series without a rate" if rate is None else f"{rate} Hz"
        wanted = f"recordings of {_MIN_RATE} to {HIGHEST_RATE} Hz"
        raise ConfigError(f"bands: wanted {wanted}, found {found}; use bands=null")
    if bands < 1 or rows % bands:
        raise ConfigError(f"bands: wanted 1 or more, and a divisor of the {rows} rows of shape, found {bands}")


_LISTED = 20
"""Most values that an error shows."""


def _check_statistics(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raise ConfigError unless there is a finite mean and a positive std for each channel, as float32."""
    if len(mean) != channels or len(std) != channels:
        raise ConfigError(f"mean, std: wanted {channels} values each, found {len(mean)} and {len(std)}")
    odd = [value for value in mean if not abs(value) <= FLOAT32_MOST]
    if odd:
        raise ConfigError(f"mean: wanted finite values, found {odd[:_LISTED]}")
    odd = [value for value in std if not FLOAT32_LEAST <= value <= FLOAT32_MOST]
    if odd:
        raise ConfigError(f"std: wanted finite values above 0, found {odd[:_LISTED]}")


def _check_labels(labels: tuple[str, ...]) -> None:
    """Raise ConfigError unless there are at least two names, all different."""
    if len(labels) < 2 or len(set(labels)) != len(labels):
        more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
        raise ConfigError(f"labels: wanted at least two different names, found {list(labels[:_LISTED])}{more}")
