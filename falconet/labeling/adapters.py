"""Measuring, display and tasks of samples, by modality: see ADAPTERS."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt

from falconet.data import Samples
from falconet.data.dataset import Encoded
from falconet.data.files import suffix_of
from falconet.data.images import read_content
from falconet.data.wav import inspect_wav
from falconet.errors import DataError, UsageError
from falconet.modalities import MODALITIES
from falconet.report.pictures import draw_path, encode_picture
from falconet.spec import ImageSpec, InputSpec, ModalityName, SeriesSpec, TextSpec

_SIDE = 384
"""Pixels of the longer side of a picture on the page."""
_POINTS = 600
"""Steps in the page's drawing of a series, at most."""
_WIDTH, _HEIGHT = 600, 200
"""Width and height of the drawing of a series, in SVG units."""
_MAX_TEXT = 20_000
"""Characters of a text on the page, at most; the task holds the whole text."""
_MAX_LINES = 8
"""Channels in the page's drawing of a series, at most."""


@dataclass(frozen=True)
class Views:
    """The page's display of a sample: a picture, a text or a drawing of a series."""

    picture: str | None = None
    """The picture, a PNG as a data URI; None: the sample is no image."""
    text: str | None = None
    paths: tuple[str, ...] = ()
    """Commands of an SVG path for each channel of a series; empty for other samples."""
    note: str = ""


@dataclass(frozen=True)
class LabelingAdapter:
    """Functions that measure and show samples of one modality and put them into tasks.

    Their specs describe how samples are read, not a model's input.
    """

    make_spec: Callable[[int, int | None], InputSpec]
    """Returns the spec for a number of channels and a sample rate, None without one."""
    guess_files: Callable[[Path, Sequence[str]], InputSpec]
    """Returns the spec of files below a folder, each with one sample. Raises DataError where none can be read."""
    guess_array: Callable[[np.ndarray], InputSpec]
    """Returns the spec of an array of samples."""
    measure: Callable[[Any], tuple[int, tuple[int, ...]]]
    """Returns the number of channels and the size of a sample."""
    show: Callable[[Any], Views]
    """Returns the page's display of a sample."""
    embed: Callable[[Samples, int], Any]
    """Returns the content of the sample at a position, for the data of a task."""


# Images


def _make_image_spec(channels: int = 3, rate: int | None = None) -> ImageSpec:
    """Return a spec of color images, which holds for gray ones too."""
    return ImageSpec((3, 32, 32), (0.0,) * 3, (1.0,) * 3)


def _show_image(image: UInt[np.ndarray, "height width channels"]) -> Views:
    height, width = image.shape[:2]
    return Views(picture=encode_picture(image, _SIDE), note=f"{width} × {height} pixels")


def _embed_image(samples: Samples, index: int) -> str:
    """Return an image as a data URI."""
    content = samples.content(index) if isinstance(samples, Encoded) else _encode_pixels(samples.read(index))
    return f"data:{_find_type(content)};base64,{base64.b64encode(content).decode('ascii')}"


def _encode_pixels(image: UInt[np.ndarray, "height width channels"]) -> bytes:
    """Return an image as a PNG with the same values. Raises UsageError for color with 16 bits."""
    from PIL import Image

    if image.dtype != np.uint8 and image.shape[2] > 1:
        raise UsageError(
            "wanted images of 8 bits, or gray ones, found colours of 16 bits in an array; save them as files"
        )
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, format="PNG")
    return buffer.getvalue()


def _find_type(content: bytes) -> str:
    """Return the media type of an encoded image."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.get_format_mimetype() or "image/png"


# Series


def _make_series_spec(channels: int, rate: int | None = None) -> SeriesSpec:
    return SeriesSpec((channels, 1), (0.0,) * channels, (1.0,) * channels, rate=rate)


def _guess_recordings(root: Path, files: Sequence[str]) -> SeriesSpec:
    """Return the spec of the first recording that can be read."""
    for name in files:
        if suffix_of(name) in MODALITIES["series"].extensions:
            with suppress(DataError):
                facts = inspect_wav(read_content(root / name))
                return _make_series_spec(facts.channels, facts.rate)
    raise DataError(f"{root}: not one recording can be read")


def _guess_series_array(array: np.ndarray) -> SeriesSpec:
    return _make_series_spec(array.shape[1] if array.ndim == 3 else 1)


def _show_series(series: Float32[np.ndarray, "channels steps"]) -> Views:
    channels, steps = series.shape
    more = f", the first {_MAX_LINES} shown" if channels > _MAX_LINES else ""
    several = f"{channels} channels{more}, " if channels > 1 else ""
    return Views(paths=_draw_series(series[:_MAX_LINES]), note=f"{several}{steps:,} steps")


def _draw_series(series: Float32[np.ndarray, "channels steps"]) -> tuple[str, ...]:
    """Return the commands of an SVG path for each channel, all on one scale.

    Long series keep the lowest and the highest step of each interval, so that recordings keep their shape.
    """
    finite = np.isfinite(series)
    low, high = (float(series[finite].min()), float(series[finite].max())) if finite.any() else (0.0, 1.0)
    steps = series.shape[1]
    x = np.linspace(2, _WIDTH - 2, steps)
    y = _HEIGHT - 4 - (_HEIGHT - 8) * (series - low) / ((high - low) or 1.0)
    return tuple(draw_path(x[kept], channel[kept]) for channel in y for kept in [thin_out(channel)])


def thin_out(channel: Float32[np.ndarray, " steps"]) -> np.ndarray:
    """Return the positions of at most _POINTS steps, among them the extremes of each interval."""
    steps = len(channel)
    if steps <= _POINTS:
        return np.arange(steps)
    kept = []
    for stretch in np.array_split(np.arange(steps), _POINTS // 2):
        values = channel[stretch]
        if np.isfinite(values).any():
            kept += sorted({int(stretch[np.nanargmin(values)]), int(stretch[np.nanargmax(values)])})
        else:
            kept.append(int(stretch[0]))
    return np.array(kept)


def list_columns(series: Float32[np.ndarray, "channels steps"]) -> dict[str, list[float | None]]:
    """Return a series in Label Studio's format: a column of numbers for each channel, null for missing values."""
    # The shortest decimal that stands for the same float32.
    return {
        name: [None if np.isnan(value) else float(str(value)) for value in channel]
        for name, channel in zip(name_channels(len(series)), series, strict=True)
    }


def name_channels(count: int) -> tuple[str, ...]:
    """Return names for the columns of a series without names."""
    return tuple(f"channel_{number}" for number in range(1, count + 1))


# Texts


def _make_text_spec(channels: int = 1, rate: int | None = None) -> TextSpec:
    return TextSpec((1,), vocab_size=3)


def _show_text(text: str) -> Views:
    more = f", the first {_MAX_TEXT:,} shown" if len(text) > _MAX_TEXT else ""
    return Views(text=text[:_MAX_TEXT], note=f"{len(text):,} characters{more}")


ADAPTERS: Mapping[ModalityName, LabelingAdapter] = MappingProxyType(
    {
        "image": LabelingAdapter(
            make_spec=_make_image_spec,
            guess_files=lambda root, files: _make_image_spec(),
            guess_array=lambda array: _make_image_spec(),
            measure=lambda image: (image.shape[2], image.shape[:2]),
            show=_show_image,
            embed=_embed_image,
        ),
        "series": LabelingAdapter(
            make_spec=_make_series_spec,
            guess_files=_guess_recordings,
            guess_array=_guess_series_array,
            measure=lambda series: (series.shape[0], series.shape[1:]),
            show=_show_series,
            embed=lambda samples, index: list_columns(samples.read(index)),
        ),
        "text": LabelingAdapter(
            make_spec=_make_text_spec,
            guess_files=lambda root, files: _make_text_spec(),
            guess_array=_guess_series_array,  # Numbers are no texts, whatever was asked for.
            measure=lambda text: (1, (len(text),)),
            show=_show_text,
            embed=lambda samples, index: samples.read(index),
        ),
    }
)
