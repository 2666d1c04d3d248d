"""Images: gray or in color, of 8 or 16 bits."""

from __future__ import annotations

from typing import Any

from falconet.modalities.modality import Modality
from falconet.spec import ImageSpec

_EXTENSIONS = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
        *(".pbm", ".pgm", ".ppm", ".pnm", ".heic", ".heif", ".hif"),
    }
)


def _describe_input(spec: ImageSpec) -> str:
    """Return what a model takes, in words."""
    size = "×".join(map(str, spec.shape))
    padding = f", padding {spec.padding}" if spec.padding else ""
    placed = {"stretch": "", "crop": ", their middle", "pad": ", padded with black"}[spec.resize_mode]
    return f"{size}{padding}, from images of any size{placed}"


def _describe_samples(data: Any) -> str:
    """Return the color and the median size of a data set's images."""
    color = "gray" if data.channels == 1 else "color"
    values = "" if data.value_range is None else f", values {data.value_range[0]:g} to {data.value_range[1]:g}"
    return f"{color} images of {data.size[0]}x{data.size[1]} (median){values}"


def _name_task(spec: ImageSpec) -> str:
    """Return the Hub's name of the task."""
    return "image-classification"


IMAGE = Modality(
    name="image",
    spec_type=ImageSpec,
    plural="images",
    files="images",
    extensions=_EXTENSIONS,
    has_format=True,
    example="image.png",
    axes=2,
    unit="pixels",
    raw_unit="pixels",
    has_tokens=False,
    missing_is_nan=False,
    has_statistics=True,
    bounded=True,
    describe_input=_describe_input,
    describe_samples=_describe_samples,
    name_task=_name_task,
)
