"""Image files to arrays: one decoder for training, evaluation and prediction. Importing it does not import torch."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from falconet.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"})
PIXEL_LIMIT = 80_000_000
"""Below the number at which Pillow begins to warn."""

GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
EXIF_ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange height and width."""


ValueRange = tuple[float, float]
"""The values of black and of white."""

WHITES = {False: (255.0, 1023.0, 4095.0, 16383.0, 65535.0), True: (1.0, 255.0, 65535.0)}
"""What white may be in deep pictures of whole numbers, and in those of floating point."""


def read_image(path: Path, value_range: ValueRange | None = None) -> UInt8[np.ndarray, "height width channels"]:
    """Read and decode one file; see `decode_image`."""
    try:
        return decode_image(path.read_bytes(), value_range)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def decode_image(content: bytes, value_range: ValueRange | None = None) -> UInt8[np.ndarray, "height width channels"]:
    """Decode an image file: gray becomes 1 channel, everything else 3.

    The first frame of an animation; turned as EXIF says; transparency laid on white. Of deep pictures (16 or 32 bits,
    floating point) `value_range` is scaled to 0..255, and what lies outside is clipped; None: 0..65535, or 0..1 of one
    in floating point that has no more. Raises DataError for what is empty, truncated, no image, or larger than
    PIXEL_LIMIT pixels.
    """
    from PIL import ImageOps

    with open_image(content) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return to_array(image, value_range)


@dataclass(frozen=True)
class Extremes:
    """The lowest and highest value of deep pictures."""

    low: float
    high: float
    floating: bool

    def choose_range(self) -> ValueRange:
        """Return black and white: 0, and the least usual white that covers all; where none does, the extremes."""
        white = next((white for white in WHITES[self.floating] if self.high <= white), None)
        if white is not None and self.low >= 0:
            return 0.0, white
        return self.low, max(self.high, self.low + 1)  # One value alone has no contrast.


def find_extremes(contents: Iterable[bytes]) -> Extremes | None:
    """Return the extremes of encoded pictures, without those that cannot be read; None where no deep one is left."""
    found = []
    for content in contents:
        with suppress(DataError), open_image(content) as image:
            if is_deep(image):
                pixels = np.asarray(image)
                if np.isfinite(pixels).all():
                    found.append(Extremes(float(pixels.min()), float(pixels.max()), image.mode == "F"))
    if not found:
        return None
    low, high = min(part.low for part in found), max(part.high for part in found)
    return Extremes(low, high, any(part.floating for part in found))


def is_deep(image: Image.Image) -> bool:
    """Whether a picture's values are more than eight bits say."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


@dataclass(frozen=True)
class ImageFacts:
    """What an image's header tells."""

    height: int
    """In pixels, after turning as EXIF says."""
    width: int
    channels: int
    """1 or 3, as `decode_image` returns it."""
    deep: bool = False
    """Whether it has more than 8 bits a value."""


def inspect_image(content: bytes) -> ImageFacts:
    """Read a file's header without decoding its pixels. Raises DataError as `decode_image` does, as far as it sees."""
    from PIL import Image

    with open_image(content) as image:
        channels = 1 if image.mode in GRAY_MODES or image.mode.startswith("I;16") else 3
        # Not image.getexif(): that of a PNG decodes all pixels, in search of what may stand behind them.
        orientation = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1)
        # Pillow gives the size of a TIFF as it will be after turning.
        turned = orientation in SIDEWAYS and image.format != "TIFF"
        width, height = image.size[::-1] if turned else image.size
        return ImageFacts(height, width, channels, is_deep(image))


@contextmanager
def open_image(content: bytes) -> Iterator[Image.Image]:
    """Open an encoded image; whatever Pillow raises then or inside the context becomes a DataError."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise DataError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise DataError(f"{image.width}x{image.height} pixels are more than the limit of {PIXEL_LIMIT:,}")
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("not an image, or of an unknown format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too many pixels: {error}") from error
    except Exception as error:  # Pillow's plug-ins raise anything from SyntaxError to struct.error on damaged files.
        raise DataError(f"damaged image: {error}") from error


def to_array(image: Image.Image, value_range: ValueRange | None = None) -> UInt8[np.ndarray, "height width channels"]:
    """Return a Pillow image of any mode as uint8 with 1 or 3 channels."""
    if value_range is not None and is_deep(image):
        return scale_values(np.asarray(image), value_range)
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        return ((deep + 128) // 257).astype(np.uint8)[..., None]
    if image.mode in ("I", "F"):
        wide = np.asarray(image)
        if image.mode == "F" and wide.min() >= 0 and wide.max() <= 1:
            return np.round(wide * 255).astype(np.uint8)[..., None]
        if not (wide.min() >= 0 and wide.max() <= 65535):
            raise DataError(f"pixel values {wide.min()}..{wide.max()} are outside 0..65535")
        return np.round(wide / 257).astype(np.uint8)[..., None]
    if image.has_transparency_data:
        image = flatten_on_white(image)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    array = np.array(image if image.mode == mode else image.convert(mode))
    return array if mode == "RGB" else array[..., None]


def scale_values(pixels: np.ndarray, value_range: ValueRange) -> UInt8[np.ndarray, "height width 1"]:
    """Return deep gray values as uint8: black is 0, white 255, what lies outside is clipped."""
    if not np.isfinite(pixels).all():
        raise DataError("wanted finite pixel values, found NaN or infinity")
    low, high = value_range
    scaled = np.round((pixels.astype(np.float64) - low) * (255 / (high - low)))
    return scaled.clip(0, 255).astype(np.uint8)[..., None]


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white; gray stays gray."""
    from PIL import Image

    gray = image.mode in ("LA", "La", "L", "1")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("L" if gray else "RGB")
