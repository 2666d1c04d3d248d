"""Image files to arrays: one decoder for training, evaluation and prediction. Importing it does not import torch."""

from __future__ import annotations

import io
import math
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped, UInt, UInt8, UInt16

from falconet.errors import DataError, MissingExtraError
from falconet.spec import PixelType
from falconet.storage import open_regular

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM")
"""Formats that Pillow decodes itself; for others it runs programs, such as Ghostscript for an EPS of any name."""
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""Brands at the beginning of HEIF files that are no AVIF (ISO/IEC 23008-12, annex B)."""
FILE_LIMIT = 1 << 30
"""Most bytes of one file of a sample: more than PIXEL_LIMIT pixels take in any format."""
PIXEL_LIMIT = 80_000_000
"""Most pixels of an image, fewer than those at which Pillow begins to warn; decoding takes up to ten bytes a pixel."""
WEBP_LIMIT = 50_000_000
"""Most pixels of a WebP image, whose decoder holds several copies of the whole image."""
SIDE_LIMIT = 1 << 20
"""Most pixels of one side: a longer image is a line, and takes much memory when it is scaled."""
BAND_PIXELS = 1 << 20
"""Pixels that are converted at once, since Pillow's copies of a whole image would take gigabytes."""
_DEFLATE_RATIO = 1032
"""Best compression ratio of Deflate: 258 bytes in two bits."""
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by PNG's type of color."""
_TIFF_TILE = (322, 323)
"""The tags of a tile's width and length."""
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
EXIF_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange height and width."""


ValueRange = tuple[float, float]
"""Values of black and of white."""

_WHITES = {False: (255.0, 1023.0, 4095.0, 16383.0, 65535.0), True: (1.0, 255.0, 65535.0)}
"""Possible values of white in high-bit-depth images, by whether they are floating point."""
LEVELS = {"uint8": 255, "uint16": 65535}
"""White of samples, by their type."""


def read_image(
    path: Path, value_range: ValueRange | None = None, dtype: PixelType = "uint8"
) -> UInt[np.ndarray, "height width channels"]:
    """Read and decode one file; see `decode_image`."""
    try:
        return decode_image(read_content(path), value_range, dtype)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_content(path: str | Path) -> bytes:
    """Return what a sample's file holds. Raises DataError for what is no regular file, too large, or cannot be read."""
    try:
        with open_regular(path) as file:
            # Reading up to a limit would reserve that much memory.
            if os.fstat(file.fileno()).st_size > FILE_LIMIT:
                raise DataError(f"larger than the limit of {FILE_LIMIT:,} bytes")
            return file.read()
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
    except ValueError as error:  # A path with a NUL.
        raise DataError(str(error)) from error


def decode_image(
    content: bytes, value_range: ValueRange | None = None, dtype: PixelType = "uint8"
) -> UInt[np.ndarray, "height width channels"]:
    """Decode an image file: gray becomes 1 channel, everything else 3.

    The first frame of an animation; turned as EXIF says; transparency laid on white. Images of 8 bits are uint8. In
    high-bit-depth ones (16 or 32 bits, floating point) `value_range` is scaled to all that `dtype` holds, other values
    are clipped; None: 0..65535, or 0..1 of one in floating point that has no more. Raises DataError for what is empty,
    truncated, no image, or larger than PIXEL_LIMIT pixels.
    """
    try:
        return _decode_pixels(content, value_range, dtype)
    except DataError:
        bare = _keep_pixels(content)
        if bare == content:
            raise
    return _decode_pixels(bare, value_range, dtype)


def _decode_pixels(
    content: bytes, value_range: ValueRange | None, dtype: PixelType
) -> UInt[np.ndarray, "height width channels"]:
    """Decode an image file, its metadata included."""
    with _open_image(content) as image:
        array, orientation = _load_pixels(image, value_range, dtype)
        image.close()  # Gives its pixels back before they are copied.
        return turn(array, orientation)


def _load_pixels(
    image: Image.Image, value_range: ValueRange | None, dtype: PixelType
) -> tuple[UInt[np.ndarray, "height width channels"], int]:
    """Return a Pillow image as an array, and how it is still to be turned, as EXIF counts."""
    image.load()
    # Pillow turns a TIFF by itself.
    orientation = 1 if image.format == "TIFF" else _read_orientation(image)
    return to_array(image, value_range, dtype), orientation


def convert_image(
    image: Image.Image, value_range: ValueRange | None = None, dtype: PixelType = "uint8"
) -> UInt[np.ndarray, "height width channels"]:
    """Return a Pillow image as `decode_image` returns that of a file.

    Raises DataError for one that is damaged, empty, or larger than PIXEL_LIMIT pixels.
    """
    if min(image.size) < 1 or image.width * image.height > PIXEL_LIMIT:
        raise DataError(f"wanted 1 to {PIXEL_LIMIT:,} pixels, found {image.width}x{image.height}")
    with _raise_data_errors():
        return turn(*_load_pixels(image, value_range, dtype))


def _keep_pixels(content: bytes) -> bytes:
    """Return a PNG without its metadata, texts of megabytes for example; anything else as it is."""
    if not content.startswith(PNG_START):
        return content
    kept, place = [PNG_START], len(PNG_START)
    while place + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        if name in _PNG_PIXEL_CHUNKS:
            kept.append(content[place : place + size + 12])
        place += size + 12
    return b"".join(kept)


def _read_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 where it is unclear: pixels decide whether an image can be used."""
    from PIL import Image

    try:
        # Not image.getexif(): that of a PNG decodes all pixels, in search of what may stand after them.
        return int(Image.Image.getexif(image).get(EXIF_ORIENTATION, 1))
    except Exception:  # Damaged EXIF raises anything.
        return 1


def turn(array: UInt[np.ndarray, "height width channels"], orientation: int) -> UInt[np.ndarray, "_ _ channels"]:
    """Return an image as it is seen upright (CIPA DC-008, Orientation)."""
    if orientation in _SIDEWAYS:
        array = array.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


@dataclass(frozen=True)
class Extremes:
    """The lowest and highest value of high-bit-depth images."""

    low: float
    high: float
    floating: bool

    def choose_range(self) -> ValueRange:
        """Return black and white: 0, and the least usual white that covers all; where none does, the extremes."""
        white = next((white for white in _WHITES[self.floating] if self.high <= white), None)
        if white is not None and self.low >= 0:
            return 0.0, white
        return self.low, max(self.high, self.low + 1)  # One value alone has no contrast.


def find_extremes(contents: Iterable[bytes]) -> Extremes | None:
    """Return the extremes of the readable high-bit-depth images among encoded ones; None where there are none."""
    found = []
    for content in contents:
        with suppress(DataError), _open_image(content) as image:
            if is_high_bit_depth(image):
                low, high = _find_bounds(np.asarray(band) for _, band in _cut_bands(image))
                if math.isfinite(high - low):
                    found.append(Extremes(low, high, image.mode == "F"))
    return merge_extremes(found) if found else None


def merge_extremes(parts: Sequence[Extremes]) -> Extremes:
    """Return the extremes of all of several parts."""
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    return Extremes(low, high, any(part.floating for part in parts))


def _find_bounds(parts: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the lowest and the highest value of several arrays, NaN where one holds NaN."""
    bounds = [(float(part.min()), float(part.max())) for part in parts]
    lows, highs = zip(*bounds, strict=True)
    return float(np.min(lows)), float(np.max(highs))


def is_high_bit_depth(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits per value."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


@dataclass(frozen=True)
class ImageInfo:
    """Facts from the header of an image."""

    height: int
    """Height in pixels, after rotating as EXIF says."""
    width: int
    channels: int
    """Channels, 1 or 3, as `decode_image` returns them."""
    deep: bool = False
    """Whether the image has more than 8 bits per value."""


def inspect_image(content: bytes, max_pixels: int = PIXEL_LIMIT) -> ImageInfo:
    """Read a file's header without decoding its pixels. Raises DataError as `decode_image` does, as far as it sees.

    And for more than `max_pixels` pixels.
    """
    try:
        return _inspect_header(content, max_pixels)
    except DataError:
        bare = _keep_pixels(content)
        if bare == content:
            raise
    return _inspect_header(bare, max_pixels)


def _inspect_header(content: bytes, max_pixels: int) -> ImageInfo:
    """Read a file's header, its metadata included."""
    with _open_image(content, max_pixels) as image:
        channels = 1 if image.mode in _GRAY_MODES or image.mode.startswith("I;16") else 3
        # Pillow gives the size of a TIFF as it will be after turning.
        turned = image.format != "TIFF" and _read_orientation(image) in _SIDEWAYS
        width, height = image.size[::-1] if turned else image.size
        return ImageInfo(height, width, channels, is_high_bit_depth(image))


_PILLOW = r"PIL\."
"""Modules whose warnings repeat what `decode_image` says, or do not matter to pixels."""


def _pass_over_warnings() -> None:
    """Keep Pillow's warnings from the user, such as that of damaged EXIF in each image of a camera.

    For the whole process: a context, of which each thread that decodes would have one, would undo the others'.
    """
    quiet = ("ignore", None, UserWarning, re.compile(_PILLOW), 0)
    if quiet not in warnings.filters:
        warnings.filterwarnings("ignore", category=UserWarning, module=_PILLOW)


@contextmanager
def _open_image(content: bytes, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an encoded image; whatever Pillow raises then or inside the context becomes a DataError."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise DataError("empty file (0 bytes)")
    _pass_over_warnings()
    formats = (*_FORMATS, "HEIF") if _is_heic(content) and _register_heic() else _FORMATS
    with _raise_data_errors():
        try:
            opened = Image.open(io.BytesIO(content), formats=formats)
        except UnidentifiedImageError as error:
            raise DataError(_describe_foreign(content)) from error
        with opened as image:
            _check_size(image, content, PIXEL_LIMIT if max_pixels is None else min(max_pixels, PIXEL_LIMIT))
            yield image


def _is_heic(content: bytes) -> bool:
    """Whether a file says that it is HEIC, or HEIF in general and no AVIF."""
    return content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS and b"avif" not in content[:64]


def _register_heic() -> bool:
    """Let Pillow read HEIC from now on, by the extra `heic`. Raises DataError, which names it, where it is missing."""
    try:
        import pillow_heif
    except ImportError as error:
        raise DataError(str(MissingExtraError("heic", "reading HEIC"))) from error
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _describe_foreign(content: bytes) -> str:
    """Say what a file is that Pillow does not know."""
    if _is_heic(content):
        return "damaged image: no HEIC that can be read"
    found = "AVIF: convert it to JPEG or PNG" if content[4:8] == b"ftyp" else "or of an unknown format"
    return f"not an image, {found}"


@contextmanager
def _raise_data_errors() -> Iterator[None]:
    """Turn whatever Pillow raises into a DataError."""
    from PIL import Image

    try:
        yield
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too many pixels: {error}") from error
    except MemoryError as error:
        raise DataError("more memory is needed than there is") from error
    except Exception as error:  # Pillow's plug-ins raise anything from SyntaxError to struct.error on damaged files.
        raise DataError(f"damaged image: {error}") from error


def _check_size(image: Image.Image, content: bytes, limit: int) -> None:
    """Raise DataError, before memory is taken, for more pixels than allowed or than so many bytes can hold."""
    from PIL.TiffImagePlugin import TiffImageFile

    width, height = image.size
    if image.format == "WEBP":
        limit = min(limit, WEBP_LIMIT)
    if width * height > limit:
        raise DataError(f"{width}x{height} pixels are more than the limit of {limit:,}")
    if max(width, height) > SIDE_LIMIT:
        raise DataError(f"{width}x{height} pixels: a side is longer than the limit of {SIDE_LIMIT:,}")
    if image.format == "PNG":
        depth, color = content[24:26]
        wanted = height * (1 + (width * depth * PNG_SAMPLES[color] + 7) // 8) // _DEFLATE_RATIO
    elif image.format == "PPM":
        wanted = width * height // 8
    elif isinstance(image, TiffImageFile):
        # A tile is decoded whole, however small the image is.
        sides = [image.tag_v2.get(tag, 0) for tag in _TIFF_TILE]
        if math.prod(sides) > limit:
            raise DataError(f"tiles of {sides[0]}x{sides[1]} pixels are more than the limit of {limit:,}")
        return
    else:
        return
    if len(content) < wanted:
        raise DataError(f"damaged image: truncated, {len(content):,} bytes cannot hold {width}x{height} pixels")


def to_array(
    image: Image.Image, value_range: ValueRange | None, dtype: PixelType
) -> UInt[np.ndarray, "height width channels"]:
    """Return a Pillow image of any mode as an array with 1 or 3 channels."""
    if is_high_bit_depth(image):
        return _scale_deep(image, value_range, dtype)
    mode = "L" if image.mode in _GRAY_MODES else "RGB"
    array = np.empty((image.height, image.width, 1 if mode == "L" else 3), dtype=np.uint8)
    for top, band in _cut_bands(image):
        flat = _flatten_on_white(band) if band.has_transparency_data else band
        array[top : top + band.height] = np.asarray(flat.convert(mode)).reshape(-1, *array.shape[1:])
    return array


def _cut_bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in bands of some rows, with the first row of each."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _scale_deep(
    image: Image.Image, value_range: ValueRange | None, dtype: PixelType
) -> UInt[np.ndarray, "height width 1"]:
    """Return a high-bit-depth image as an array."""
    scale = _guess_scale(image) if value_range is None else partial(scale_values, value_range=value_range, dtype=dtype)
    array = np.empty((image.height, image.width, 1), dtype=np.uint8 if value_range is None else dtype)
    for top, band in _cut_bands(image):
        array[top : top + band.height, :, 0] = scale(np.asarray(band))
    return array


def _guess_scale(image: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
    """Return how values become 0..255 by what a single image holds, as models of earlier versions read it."""
    if image.mode.startswith("I;16"):
        return partial(scale_values, value_range=(0, 65535), dtype="uint8")
    low, high = _find_bounds(np.asarray(band) for _, band in _cut_bands(image))
    if image.mode == "F" and low >= 0 and high <= 1:
        return lambda pixels: np.round(pixels * 255)
    if not (low >= 0 and high <= 65535):
        raise DataError(f"pixel values {low:g}..{high:g} are outside 0..65535")
    return lambda pixels: np.round(pixels / 257)


def scale_values(
    pixels: Shaped[np.ndarray, "*shape"], value_range: ValueRange, dtype: PixelType
) -> UInt[np.ndarray, "*shape"]:
    """Return high-bit-depth values as samples: black is 0, white the maximum of `dtype`, and the rest is clipped."""
    if not np.isfinite(pixels).all():
        raise DataError("wanted finite pixel values, found NaN or infinity")
    low, high = value_range
    scaled = np.round((pixels.astype(np.float64) - low) * (LEVELS[dtype] / (high - low)))
    return scaled.clip(0, LEVELS[dtype]).astype(dtype)


def to_bytes(image: UInt[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Return samples in 8 bits, as they are shown."""
    return image if image.dtype == np.uint8 else scale_values(image, (0, LEVELS["uint16"]), "uint8")


def to_words(image: UInt[np.ndarray, "*shape"]) -> UInt16[np.ndarray, "*shape"]:
    """Return samples in 16 bits: the same gray levels."""
    return image if image.dtype == np.uint16 else image * np.uint16(257)


def _flatten_on_white(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white; gray stays gray."""
    from PIL import Image

    gray = image.mode in ("LA", "La", "L", "1")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("L" if gray else "RGB")
