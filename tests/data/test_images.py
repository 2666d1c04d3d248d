from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from falconet.data import images
from falconet.data.images import (
    EXIF_ORIENTATION,
    ValueRange,
    convert_image,
    decode_image,
    find_extremes,
    inspect_image,
    read_image,
    to_bytes,
    to_words,
)
from falconet.errors import DataError
from falconet.spec import PixelType
from tests.data.builders import encode

COLOR = (10, 120, 230)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def flat(mode: str, value: object, palette: tuple[int, ...] = ()) -> Image.Image:
    image = Image.new(mode, (4, 3), value)  # type: ignore[arg-type]
    if palette:
        image.putpalette(palette)
    return image


MODES = pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        pytest.param(flat("1", 1), "PNG", {}, [255], id="1"),
        pytest.param(flat("L", 100), "PNG", {}, [100], id="L"),
        pytest.param(flat("L", 100), "PNG", {"transparency": 100}, [255], id="L-transparent"),
        pytest.param(flat("LA", (100, 255)), "PNG", {}, [100], id="LA-opaque"),
        pytest.param(flat("LA", (100, 0)), "PNG", {}, [255], id="LA-transparent"),
        pytest.param(flat("P", 1, (0, 0, 0, *COLOR)), "PNG", {}, COLOR, id="P"),
        pytest.param(flat("P", 1, (0, 0, 0, *COLOR)), "PNG", {"transparency": 1}, [255] * 3, id="P-transparent"),
        pytest.param(flat("P", 1, (0, 0, 0, *COLOR)), "PNG", {"transparency": 0}, COLOR, id="P-opaque"),
        pytest.param(flat("RGB", COLOR), "PNG", {}, COLOR, id="RGB"),
        pytest.param(flat("RGB", COLOR), "PNG", {"transparency": COLOR}, [255] * 3, id="RGB-transparent"),
        pytest.param(flat("RGBA", (*COLOR, 255)), "PNG", {}, COLOR, id="RGBA-opaque"),
        pytest.param(flat("RGBA", (*COLOR, 0)), "PNG", {}, [255] * 3, id="RGBA-transparent"),
        pytest.param(flat("RGBA", (*COLOR, 51)), "PNG", {}, [206, 228, 250], id="RGBA-one-fifth"),
        pytest.param(flat("CMYK", (0, 255, 0, 0)), "TIFF", {}, [255, 0, 255], id="CMYK"),
        pytest.param(flat("I;16", 65535), "PNG", {}, [255], id="I;16-white"),
        pytest.param(flat("I;16", 257 * 100 + 128), "PNG", {}, [100], id="I;16-down"),
        pytest.param(flat("I;16", 257 * 100 + 129), "PNG", {}, [101], id="I;16-up"),
        pytest.param(flat("I", 257 * 100), "TIFF", {}, [100], id="I"),
        pytest.param(flat("F", 257 * 100.0), "TIFF", {}, [100], id="F"),
        pytest.param(flat("L", 100), "BMP", {}, [100], id="BMP"),
        pytest.param(flat("RGB", COLOR), "PPM", {}, COLOR, id="PPM"),
    ],
)


@MODES
def test_every_mode_becomes_gray_or_color(
    image: Image.Image, kind: str, options: dict[str, object], expected: list[int]
) -> None:
    decoded = decode_image(encode(image, kind, **options))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (3, 4, len(expected))
    assert (decoded == np.array(expected)).all()


@MODES
def test_the_header_tells_size_and_channels(
    image: Image.Image, kind: str, options: dict[str, object], expected: list[int]
) -> None:
    facts = inspect_image(encode(image, kind, **options))
    assert (facts.height, facts.width, facts.channels) == (3, 4, len(expected))


@pytest.mark.parametrize("value", [-1.0, 65536.0, float("nan")])
def test_float_pixels_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(DataError, match=r"outside 0\.\.65535"):
        decode_image(encode(flat("F", value), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    assert np.array_equal(decode_image(encode(Image.fromarray(NOISE), kind)), NOISE)


ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF's eight values: how the stored image must be turned to be seen upright (CIPA DC-008, Orientation)."""


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_photos_are_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(Image.fromarray(NOISE), "PNG", exif=exif))
    assert np.array_equal(decoded, ORIENTATIONS[orientation](NOISE))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_header_tells_the_size_after_turning(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(NOISE), kind, exif=exif)
    facts = inspect_image(content)
    assert (facts.height, facts.width, facts.channels) == decode_image(content).shape
    assert (facts.height, facts.width) == ((30, 20) if orientation > 4 else (20, 30))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_header_is_read_without_the_pixels(kind: str) -> None:
    content = encode(Image.fromarray(NOISE), kind)[:-50]
    with pytest.raises(DataError):
        decode_image(content)
    facts = inspect_image(content)
    assert (facts.height, facts.width, facts.channels) == (20, 30, 3)


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert len(content) > len(encode(frames[0], "GIF"))
    assert (decode_image(content) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", r"empty file \(0 bytes\)", id="empty"),
        pytest.param(b"no picture at all", "not an image", id="text"),
        pytest.param(encode(Image.fromarray(NOISE))[:-200], "damaged image: .*truncated", id="PNG"),
        pytest.param(encode(Image.fromarray(NOISE), "JPEG")[:-200], "damaged image: .*truncated", id="JPEG"),
        pytest.param(encode(Image.fromarray(NOISE))[:20], "not an image|damaged", id="PNG-header"),
    ],
)
def test_what_is_no_whole_image_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"photo\.png: ({reason})") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]),
    changes=st.dictionaries(st.integers(0, 2000), st.integers(0, 255), min_size=1, max_size=8),
)
def test_altered_bytes_decode_or_raise_data_error(kind: str, changes: dict[int, int]) -> None:
    content = bytearray(encode(Image.fromarray(NOISE), kind))
    for place, value in changes.items():
        content[place % len(content)] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "PIXEL_LIMIT", 10_000)  # An altered size may ask for much memory.
        try:
            decoded = decode_image(bytes(content))
        except DataError:
            return
    assert decoded.ndim == 3
    assert decoded.shape[2] in (1, 3)


@pytest.mark.parametrize("limit", [11, 12])
def test_images_over_the_pixel_limit_are_refused(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PIXEL_LIMIT", limit)
    content = encode(flat("L", 7))
    for read in (decode_image, inspect_image):
        if limit == 12:
            read(content)
        else:
            with pytest.raises(DataError, match="4x3 pixels are more than the limit of 11"):
                read(content)


def test_images_over_the_limit_of_the_decoder_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(DataError, match="too many pixels"):
        decode_image(encode(flat("L", 7)))


@settings(deadline=None, max_examples=60)
@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"P6\n"]),
)
def test_a_header_of_any_bytes_is_read_or_refused(content: bytes, start: bytes) -> None:
    try:
        facts = inspect_image(start + content)
    except DataError:
        return
    assert facts.channels in (1, 3)


@pytest.mark.parametrize("name", ["missing.png", "folder"])
def test_what_cannot_be_opened_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=rf"{name}: (No such file|not a regular file|Permission denied)"):
        read_image(tmp_path / name)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def make_png(
    width: int, height: int, *, depth: int = 8, color: int = 0, pixels: bytes = b"", extra: bytes = b""
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return images.PNG_START + header + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("read", [decode_image, inspect_image])
def test_no_program_is_run_for_a_picture(read: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was run")

    monkeypatch.setattr("subprocess.Popen", run)
    monkeypatch.setattr("subprocess.check_call", run)
    monkeypatch.setattr("os.system", run)
    with pytest.raises(DataError, match="not an image, or of an unknown format"):
        read(EPS)


@pytest.mark.parametrize("kind", ["PCX", "TGA", "ICO", "SGI", "PDF"])
def test_formats_that_are_not_listed_are_no_images(kind: str) -> None:
    with pytest.raises(DataError, match="not an image"):
        decode_image(encode(flat("RGB", COLOR), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM"])
def test_formats_that_are_listed_are_read(kind: str) -> None:
    assert decode_image(encode(flat("RGB", (250, 250, 250)), kind)).mean() == pytest.approx(250, abs=3)


def test_a_photo_of_a_phone_names_its_format() -> None:
    with pytest.raises(DataError, match="AVIF: convert it to JPEG or PNG"):
        inspect_image(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_without_its_extra_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"reading HEIC needs an optional dependency: pip install 'falconet\[heic\]'"):
        inspect_image(HEIC)


def test_damaged_heic_is_called_so() -> None:
    pytest.importorskip("pillow_heif")
    with pytest.raises(DataError, match="damaged image: no HEIC that can be read"):
        decode_image(HEIC)


def test_heic_is_read_as_the_picture_that_it_was_made_of() -> None:
    heif = pytest.importorskip("pillow_heif")
    rows = np.linspace(0, 255, 64, dtype=np.uint8)
    red = np.tile(rows[:, None], (1, 96))
    picture = np.stack([red, np.full_like(red, 90), np.full_like(red, 30)], axis=2)
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(picture)).save(buffer, quality=95)
    facts = inspect_image(buffer.getvalue())
    assert (facts.height, facts.width, facts.channels) == (64, 96, 3)
    found = decode_image(buffer.getvalue())
    assert np.abs(found.astype(int) - picture).mean() < 4
    with pytest.raises(DataError, match="more than the limit"):
        inspect_image(buffer.getvalue(), max_pixels=100)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_turned_once(orientation: int) -> None:
    """As Pillow itself turns a JPEG of the same picture by the same EXIF."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener(thumbnails=False)
    picture = Image.fromarray(np.pad(np.full((32, 32, 3), 240, np.uint8), ((0, 32), (0, 64), (0, 0))))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    jpeg, heic = io.BytesIO(), io.BytesIO()
    picture.save(jpeg, "JPEG", exif=exif, quality=95)
    picture.save(heic, "HEIF", exif=exif.tobytes(), quality=95)
    with Image.open(jpeg) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image), dtype=int)
    assert np.abs(decode_image(heic.getvalue()).astype(int) - wanted).mean() < 6


def test_a_picture_in_memory_is_read_as_its_file() -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    for mode in ("RGBA", "P", "L", "RGB"):
        buffer = io.BytesIO()
        Image.effect_noise((9, 6), 60).convert(mode).save(buffer, "PNG", exif=exif)
        with Image.open(buffer) as image:
            assert np.array_equal(convert_image(image), decode_image(buffer.getvalue()))
    with pytest.raises(DataError, match="found 80000x1001"):
        convert_image(Image.new("1", (80_000, 1001)))


@pytest.mark.parametrize(
    ("width", "height", "depth", "color"),
    [(1, 1_000_000, 8, 0), (8000, 8000, 8, 6), (8000, 9000, 16, 2), (9999, 8000, 1, 3)],
)
def test_a_png_too_short_for_its_pixels_takes_no_memory(width: int, height: int, depth: int, color: int) -> None:
    content = make_png(width, height, depth=depth, color=color, pixels=bytes(500))
    tracemalloc.start()
    try:
        for read in (decode_image, inspect_image):
            with pytest.raises(DataError, match=f"truncated, .* bytes cannot hold {width}x{height} pixels"):
                read(content)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("depth", "color"), [(1, 0), (2, 3), (4, 0), (8, 0), (8, 2), (8, 4), (8, 6), (16, 0), (16, 6)])
def test_a_png_as_small_as_can_be_is_read(depth: int, color: int) -> None:
    width, height = 3000, 700
    row = 1 + (width * depth * images.PNG_SAMPLES[color] + 7) // 8
    palette = chunk(b"PLTE", bytes(3)) if color == 3 else b""
    content = make_png(width, height, depth=depth, color=color, pixels=bytes(row * height), extra=palette)
    assert decode_image(content).shape[:2] == (height, width)


def test_a_picture_that_is_a_line_is_refused() -> None:
    with pytest.raises(DataError, match="a side is longer than the limit"):
        inspect_image(make_png(1, images.SIDE_LIMIT + 1))


def test_a_large_tile_of_a_small_tiff_is_refused() -> None:
    tags = {256: 4, 257: 3, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(40)
    with pytest.raises(DataError, match="tiles of 30000x30000 pixels"):
        decode_image(content)


def test_fewer_pixels_can_be_asked_for() -> None:
    content = encode(flat("L", 7))
    assert inspect_image(content, 12).width == 4
    with pytest.raises(DataError, match="4x3 pixels are more than the limit of 11"):
        inspect_image(content, 11)


def test_a_webp_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "WEBP_LIMIT", 11)
    assert inspect_image(encode(flat("RGB", COLOR))).width == 4
    with pytest.raises(DataError, match="4x3 pixels are more than the limit of 11"):
        inspect_image(encode(flat("RGB", COLOR), "WEBP"))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("behind", [False, True])
def test_metadata_of_megabytes_do_not_spoil_the_pixels(name: bytes, behind: bool) -> None:
    packed = zlib.compress(b"x" * 3_000_000)
    text = chunk(name, b"key\0" + (b"\1\0\0\0" if name == b"iTXt" else b"\0") + packed)
    content = encode(Image.fromarray(NOISE))
    place = content.index(b"IEND") - 4 if behind else 33
    content = content[:place] + text + content[place:]
    assert np.array_equal(decode_image(content), NOISE)
    assert inspect_image(content) == images.ImageInfo(20, 30, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", ["upside down", (3, 6), 0, 9, 40_000])
def test_an_odd_orientation_does_not_spoil_the_pixels(kind: str, value: object) -> None:
    text, values = isinstance(value, str), value if isinstance(value, tuple) else (value,)
    cells = b"up\0\0" if text else struct.pack(f"<{len(values)}H", *values).ljust(4, b"\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHI", 8, 1, 0x0112, 2 if text else 3, 3 if text else len(values))
    content = encode(Image.fromarray(NOISE), kind, exif=exif + cells + bytes(4))
    assert decode_image(content).shape == (20, 30, 3)
    assert inspect_image(content) == images.ImageInfo(20, 30, 3)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1" * 40]
)
def test_damaged_exif_does_not_spoil_the_pixels(exif: bytes) -> None:
    content = encode(Image.fromarray(NOISE), "JPEG", exif=exif)
    assert decode_image(content).shape == (20, 30, 3)


def test_what_pillow_warns_of_is_not_the_users_concern() -> None:
    corrupt = encode(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1" * 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(corrupt)) as image:
            image.getexif()
        assert [str(item.message)[:17] for item in caught] == ["Corrupt EXIF data"]
        caught.clear()
        for _ in range(2):
            assert inspect_image(corrupt) == images.ImageInfo(20, 30, 3)
            assert decode_image(corrupt).shape == (20, 30, 3)
        assert not caught
        warnings.warn("of somebody else", UserWarning, stacklevel=1)
        assert len(caught) == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white_band_by_band(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (23, 31, 4), dtype=np.uint8)).convert(mode)
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    whole = decode_image(encode(image, **options))
    monkeypatch.setattr(images, "BAND_PIXELS", 62)
    assert np.array_equal(decode_image(encode(image, **options)), whole)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), struct.error("short"), SyntaxError("odd")])
def test_whatever_a_decoder_raises_is_told_of_the_file(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(DataError, match=r"damaged image: |more memory"):
        decode_image(encode(flat("L", 7)))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(DataError, match=f"{name}: not a regular file"):
            read_image(tmp_path / name)


def test_a_file_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(flat("L", 7))
    (tmp_path / "1.png").write_bytes(content)
    monkeypatch.setattr(images, "FILE_LIMIT", len(content))
    read_image(tmp_path / "1.png")
    monkeypatch.setattr(images, "FILE_LIMIT", len(content) - 1)
    with pytest.raises(DataError, match="larger than the limit"):
        read_image(tmp_path / "1.png")


def encode_tiff(pixels: np.ndarray) -> bytes:
    return encode(Image.fromarray(pixels), "TIFF")


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 200]], dtype=np.uint16), (0, 255)),
        (np.array([[0, 900]], dtype=np.uint16), (0, 1023)),
        (np.array([[7, 4095]], dtype=np.uint16), (0, 4095)),
        (np.array([[0, 4096]], dtype=np.uint16), (0, 16383)),
        (np.array([[0, 65535]], dtype=np.uint16), (0, 65535)),
        (np.array([[0, 3000]], dtype=np.int32), (0, 4095)),
        (np.array([[-1000, 3000]], dtype=np.int32), (-1000, 3000)),
        (np.array([[0, 70000]], dtype=np.int32), (0, 70000)),
        (np.array([[-5, -5]], dtype=np.int32), (-5, -4)),
        (np.array([[0, 0.5]], dtype=np.float32), (0, 1)),
        (np.array([[0, 254.5]], dtype=np.float32), (0, 255)),
    ],
)
def test_the_least_usual_white_is_chosen(pixels: np.ndarray, expected: tuple[float, float]) -> None:
    found = find_extremes([encode_tiff(pixels)])
    assert found is not None
    assert found.choose_range() == expected


def test_a_range_is_chosen_of_all_pictures_that_can_be_read() -> None:
    nothing = np.array([[np.nan, 5000]], dtype=np.float32)
    dark, light = np.array([[3, 9]], dtype=np.uint16), np.array([[0, 4000]], dtype=np.uint16)
    shallow = np.array([[0, 255]], dtype=np.uint8)
    found = find_extremes([encode_tiff(dark), b"none", encode_tiff(nothing), encode_tiff(light), encode_tiff(shallow)])
    assert found is not None
    assert found.choose_range() == (0, 4095)
    assert find_extremes([encode_tiff(shallow), encode_tiff(nothing)]) is None


def test_twelve_bits_have_full_contrast() -> None:
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    pixels = decode_image(encode_tiff(ramp), (0, 4095))[..., 0]
    assert pixels.tolist() == np.round(ramp / 4095 * 255).astype(np.uint8).tolist()
    assert len(np.unique(pixels)) == 256
    # Without a range, as models of before read them: seventeen levels are left.
    assert len(np.unique(decode_image(encode_tiff(ramp)))) == 17


def test_sixteen_bits_keep_all_levels() -> None:
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    pixels = decode_image(encode_tiff(ramp), (0, 4095), "uint16")[..., 0]
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, np.round(ramp * (65535 / 4095)))
    assert len(np.unique(pixels)) == 4096
    # In 8 bits they are what they are without the way through 16.
    assert np.array_equal(to_bytes(pixels), decode_image(encode_tiff(ramp), (0, 4095))[..., 0])
    shallow = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert decode_image(encode_tiff(shallow), (0, 4095), "uint16").dtype == np.uint8
    assert np.array_equal(to_bytes(to_words(shallow)), shallow)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_pictures_are_decoded_in_bands(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels: np.ndarray = np.random.default_rng(0).integers(0, 5000, (600, 700)).astype(dtype)
    content = encode_tiff(pixels)
    whole = {name: decode_image(content, value_range, name) for name, value_range in RANGES}
    monkeypatch.setattr(images, "BAND_PIXELS", 10 * 700)
    find_extremes([content])  # What is imported and set up once does not count.
    tracemalloc.start()
    try:
        for name, value_range in RANGES:
            assert np.array_equal(decode_image(content, value_range, name), whole[name])
        extremes = find_extremes([content])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert extremes is not None
    assert (extremes.low, extremes.high) == (pixels.min(), pixels.max())
    # What is returned, and bands; in double precision the whole alone would take 8 bytes a pixel.
    assert peak < 4 * pixels.size


RANGES: tuple[tuple[PixelType, ValueRange | None], ...] = (("uint8", None), ("uint16", (0, 4095)))
"""Of models of before, and of later ones."""


def test_floating_point_to_255_is_what_bytes_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    for deep in (pixels.astype(np.float32), pixels.astype(np.int32), pixels.astype(np.uint16)):
        assert np.array_equal(decode_image(encode_tiff(deep), (0, 255))[..., 0], pixels)
    assert np.array_equal(decode_image(encode_tiff(pixels), (0, 4095))[..., 0], pixels)


def test_what_lies_outside_of_a_range_is_clipped() -> None:
    pixels = np.array([[-3, 10, 20, 30, 99]], dtype=np.int32)
    assert decode_image(encode_tiff(pixels), (10, 30)).ravel().tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(DataError, match="wanted finite pixel values"):
        decode_image(encode_tiff(np.array([[np.inf, 1]], dtype=np.float32)), (0, 1))
