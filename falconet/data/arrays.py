"""Samples that come as arrays: IDX files (MNIST's format) and `.npz`. Importing it does not import torch."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8, UInt64

from falconet.data.dataset import ImageArray, Split, hash_arrays, normalize_label
from falconet.data.images import BAND_PIXELS, Extremes, ValueRange, merge_extremes, scale_values
from falconet.data.series import NO_VALUES, count_steps, split_series
from falconet.errors import DataError
from falconet.modalities import MODALITIES
from falconet.spec import ModalityName, PixelType
from falconet.storage import open_regular
from falconet.tables import MAX_BYTES, check_size

IDX_IMAGES = re.compile(r"(?P<part>.*?)[-_.]?images[-.]idx[34]-ubyte(?:\.gz)?$")
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "t10k": "test"}

_MAX_HEADER = 1 << 14
"""Most bytes of an array's header in an `.npz`."""
_NEAR_LEVEL = 1e-3
"""Tolerance in gray levels: rounding in single precision of values that were 8 bits once."""
_MAX_ARRAYS = 1000
"""Most arrays in an `.npz`; pairs for three splits, lengths and classes are ten."""
_MAX_DIMENSIONS = 8
"""Most dimensions of an array in an IDX file; those of images have three or four."""

_NPZ_PAIRS = (
    ("images", "labels"), ("x", "y"), ("X", "y"), ("data", "target"), ("data", "labels"),
    ("series", "labels"), ("series", "y"), ("values", "labels"), ("values", "y"),
)  # fmt: skip


def read_idx(path: Path, max_bytes: int = MAX_BYTES) -> UInt8[np.ndarray, "*shape"]:
    """Read one IDX file of unsigned bytes, compressed by gzip or not.

    The format, as published with MNIST: two zero bytes, a type byte (8 for unsigned), the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the values. Raises DataError for anything else or anything less, and
    for more than `max_bytes`, before they are read.
    """
    try:
        with open_regular(path) as plain:
            file = gzip.GzipFile(fileobj=plain) if path.suffix.lower() == ".gz" else cast("io.BufferedReader", plain)
            return _read_idx_values(path, file, max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read_idx_values(path: Path, file: io.BufferedIOBase, max_bytes: int) -> UInt8[np.ndarray, "*shape"]:
    """Read an IDX file's header, and no more values than it says."""
    start = file.read(4)
    if len(start) < 4 or start[:3] != b"\0\0\x08" or start[3] > _MAX_DIMENSIONS:
        raise DataError(
            f"{path}: wanted an IDX file of unsigned bytes (0x000008..) and up to {_MAX_DIMENSIONS} dimensions, found "
            f"0x{start.hex()}"
        )
    rest = file.read(4 * start[3])
    if len(rest) < 4 * start[3]:
        raise DataError(f"{path}: truncated IDX header: {4 + len(rest)} bytes")
    shape = struct.unpack(f">{start[3]}I", rest)
    wanted = math.prod(shape)
    check_size(path, wanted, max_bytes)
    values = file.read(wanted + 1)
    if len(values) != wanted:
        found = f"{len(values):,}" if len(values) < wanted else "more"
        raise DataError(f"{path}: wanted {wanted:,} values for shape {shape}, found {found}: truncated or altered")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape).copy()


def find_idx_images(folder: Path) -> list[Path]:
    """Return the IDX image files in a folder; of a file and its compressed twin, the plain one."""
    found = sorted(path for path in folder.iterdir() if IDX_IMAGES.match(path.name))
    return [path for path in found if path.suffix != ".gz" or path.with_suffix("") not in found]


def read_idx_folder(folder: Path, source: str, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Read `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and their `t10k` or `test` counterparts."""
    paths: dict[str, Path] = {}
    for path in find_idx_images(folder):
        split = _split_of(path)
        if split in paths:
            raise DataError(f"{folder}: wanted one file of {split} images, found {paths[split].name} and {path.name}")
        paths[split] = path
    return to_splits({split: read_idx_pair(path, max_bytes) for split, path in paths.items()}, source, None)


def read_idx_pair(path: Path, max_bytes: int = MAX_BYTES) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of images and its file of labels."""
    labels_path = _find_idx_labels(path)
    images, labels = read_idx(path, max_bytes), read_idx(labels_path, max_bytes)
    return as_images(images, str(path)), as_labels(labels, str(labels_path))


def _find_idx_labels(images: Path) -> Path:
    stem = images.name.removesuffix(".gz").replace("images", "labels")
    stem = re.sub(r"idx[34]", "idx1", stem)
    for name in (stem, f"{stem}.gz"):
        if images.with_name(name).is_file():
            return images.with_name(name)
    raise DataError(f"{images.with_name(stem)} is missing: it should hold the labels of {images.name}")


def _split_of(path: Path) -> str:
    match = IDX_IMAGES.match(path.name)
    assert match is not None
    word = re.split(r"[-_.]", match["part"])[-1]
    if word not in SPLIT_WORDS and match["part"]:
        raise DataError(f"{path}: wanted a name that begins with {', '.join(SPLIT_WORDS)}, found {match['part']!r}")
    return SPLIT_WORDS.get(word, "train")


def read_npz(
    path: Path,
    source: str,
    kind: ModalityName | None,
    max_bytes: int = MAX_BYTES,
    value_range: ValueRange | None = None,
) -> tuple[ModalityName, dict[str, Split], tuple[str, ...]]:
    """Read arrays of images or of series with labels, in one pair or in a pair for each split.

    Known names are those of Keras (`x_train`, `y_train`, ...), MedMNIST (`train_images`, `train_labels`, ...) and plain
    pairs (`images`, `series` or `values` and `labels`, `x` and `y`, `data` and `target`), with class names in `classes`
    where wanted. Without `kind`, arrays called `series` or `values` and arrays `(n, steps)` are series, others images.

    Images that are not uint8 are scaled by one range of values for all splits: `value_range`, or see `choose_depth`.
    Series are `(n, steps)` or `(n, channels, steps)`, shorter ones followed by NaN; or `values` of shape
    `(channels, total steps)`, or of one dimension, one series after the other, with an array `lengths`.

    Returns kind, splits and classes. Raises DataError for arrays that are neither, for object arrays, which would need
    pickle, and for arrays of more than `max_bytes` together, before they are unpacked.
    """
    if kind is not None and kind not in _READERS:
        several = MODALITIES[kind].plural
        raise DataError(
            f"{path}: wanted {several}, found arrays; put {several} into a table or a folder, or leave out data.kind"
        )
    arrays = _read_archive(path, max_bytes)
    pairs = _find_pairs(arrays)
    if not pairs:
        raise DataError(
            f"{path}: wanted arrays such as images and labels, series and labels, or x_train, y_train, x_test and "
            f"y_test, found {sorted(arrays)}"
        )
    labels = {split: as_labels(arrays[y], f"{path}:{y}") for split, (_, y) in pairs.items()}
    found = kind or _guess_kind(arrays, [x for x, _ in pairs.values()])
    names = {split: x for split, (x, _) in pairs.items()}
    origins = {split: f"{path}:{x}" for split, x in names.items()}
    labeled = _LabeledArrays(source, arrays, names, origins, labels, guessed=kind is None)
    return found, *_READERS[found](labeled, value_range)


@dataclass(frozen=True, eq=False)
class _LabeledArrays:
    """Arrays of samples, with labels."""

    source: str
    arrays: Mapping[str, np.ndarray]
    """All arrays of the file, by name."""
    names: Mapping[str, str]
    """Name of the array of samples, by split."""
    origins: Mapping[str, str]
    """Name of the array of samples in errors, by split."""
    labels: Mapping[str, np.ndarray]
    guessed: bool
    """Whether the kind of the samples was guessed."""

    @property
    def classes(self) -> np.ndarray | None:
        """Names of the classes, where the file has some."""
        return self.arrays.get("classes")


def _split_image_arrays(
    found: _LabeledArrays, value_range: ValueRange | None
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return splits of images, and their classes."""
    images = {split: as_images(found.arrays[name], found.origins[split]) for split, name in found.names.items()}
    depth = choose_depth(images, found.origins, value_range, guessed=found.guessed)
    named = {split: (array, found.labels[split]) for split, array in images.items()}
    return to_splits(named, found.source, found.classes, depth)


def _split_series_arrays(
    found: _LabeledArrays, value_range: ValueRange | None
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return splits of series, and their classes."""
    series = {
        split: (find_series(found.arrays, name, found.origins[split]), found.labels[split])
        for split, name in found.names.items()
    }
    return to_series_splits(series, found.source, found.classes)


_READERS: Mapping[
    ModalityName, Callable[[_LabeledArrays, ValueRange | None], tuple[dict[str, Split], tuple[str, ...]]]
] = MappingProxyType({"image": _split_image_arrays, "series": _split_series_arrays})
"""Readers of arrays with labels; texts do not come as arrays."""


def read_npz_inputs(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` that hold samples, by name, whether labels stand beside them or not.

    An array `lengths` comes with the series that it cuts. Raises DataError where no array has a name that `read_npz`
    knows and there are several, and what `_read_archive` raises.
    """
    arrays = _read_archive(path, max_bytes)
    stems = dict.fromkeys(x for x, _ in _NPZ_PAIRS)
    known = [name for stem in stems for word in SPLIT_WORDS for name in (f"{stem}_{word}", f"{word}_{stem}")]
    found = [x for x, _ in _find_pairs(arrays).values()] or [name for name in (*stems, *known) if name in arrays]
    if not found and len(arrays) == 1:
        found = list(arrays)
    if not found:
        raise DataError(
            f"{path}: wanted an array such as images, series, x or x_test, or one array alone, found {sorted(arrays)}"
        )
    lengths = [name.replace("values", "lengths") for name in found if "values" in name]
    return {name: arrays[name] for name in dict.fromkeys((*found, *lengths)) if name in arrays}


def _guess_kind(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> ModalityName:
    """Return what the samples in arrays of these names are."""
    flat = any(array.ndim == 2 and array.dtype.kind in "buif" for array in (arrays[name] for name in names))
    return "series" if flat or any("series" in name or "values" in name for name in names) else "image"


def _read_archive(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Read all arrays of a `.npz`, after the sizes that each declares itself: nothing is unpacked beyond them."""
    try:
        with open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path}: cannot be read: it is no whole .npz archive; save it again with numpy.savez")
            with zipfile.ZipFile(file) as archive:
                members = [item for item in archive.infolist() if item.filename.endswith(".npy")]
                if len(members) > _MAX_ARRAYS:
                    raise DataError(f"{path}: wanted at most {_MAX_ARRAYS} arrays, found {len(members)}")
                check_size(path, sum(_measure_member(archive, item) for item in members), max_bytes)
                return {item.filename.removesuffix(".npy"): _read_member(archive, item) for item in members}
    except DataError:
        raise
    except Exception as error:  # Of damaged archives, zipfile and NumPy raise anything from KeyError to zlib.error.
        raise DataError(f"{path}: cannot be read: {error}") from error


def _measure_member(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> int:
    """Return how many bytes an array declares; the archive's own word for it proves nothing."""
    if item.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # Others may ask for gigabytes before they unpack a byte.
        raise ValueError(f"{item.filename} is compressed in another way than numpy.savez_compressed does")
    with archive.open(item) as member:
        start = io.BytesIO(member.read(_MAX_HEADER))  # NumPy would read gigabytes if a header says that it has them.
    read = np.lib.format.read_array_header_2_0
    if np.lib.format.read_magic(start) == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(start)
    if dtype.hasobject:
        raise ValueError("it holds object arrays, which need pickle")
    if min(shape, default=0) < 0:
        raise ValueError(f"{item.filename} declares a negative size")  # Which would make room for another array.
    return math.prod(shape) * max(dtype.itemsize, 1)


def _read_member(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(item) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _find_pairs(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """Return split -> (name of the images, name of the labels)."""
    pairs: dict[str, tuple[str, str]] = {}
    for x, y in _NPZ_PAIRS:
        if x in arrays and y in arrays:
            pairs.setdefault("train", (x, y))
        for word, split in SPLIT_WORDS.items():
            for left, right in ((f"{x}_{word}", f"{y}_{word}"), (f"{word}_{x}", f"{word}_{y}")):
                if left in arrays and right in arrays:
                    pairs[split] = (left, right)
    return pairs


def as_images(array: np.ndarray, origin: str) -> Shaped[np.ndarray, "samples height width channels"]:
    """Return gray or RGB images, channels last, of any numbers; False and True as 0 and 255."""
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise DataError(
            f"{origin}: wanted images as (n, h, w), (n, h, w, 1) or (n, h, w, 3), found shape {array.shape}"
        )
    if array.dtype.kind not in "buif":
        raise DataError(f"{origin}: wanted numbers, found dtype {array.dtype}")
    return np.ascontiguousarray(array * np.uint8(255) if array.dtype.kind == "b" else array)


@dataclass(frozen=True)
class Depth:
    """How the values of a source's arrays become samples, where they are not uint8 already."""

    value_range: ValueRange
    """Values of black and white."""
    dtype: PixelType
    """Type of the samples; uint8 where the values are 8 bits in a larger type and no other range is set."""
    levels: ValueRange | None
    """Black and white of values that are 8 bits in a larger type; None: some are not."""


def choose_depth(
    images: Mapping[str, np.ndarray], origins: Mapping[str, str], asked: ValueRange | None, *, guessed: bool
) -> Depth | None:
    """Return one range of values for all arrays that are not uint8, by those for training; None without such.

    Raises DataError for what is not finite, and, where it is but `guessed` that they are images and no range is
    `asked` for, for values that images seldom have.
    """
    deep = {split: array for split, array in images.items() if array.dtype != np.uint8}
    if not deep:
        return None
    found = {split: _measure_values(array, origins[split]) for split, array in deep.items()}
    for split, extremes in found.items():
        if asked is None and guessed and not (extremes.low >= 0 and extremes.high <= 65535):
            raise DataError(
                f"{origins[split]}: wanted values in 0..65535, found {extremes.low:g}..{extremes.high:g}; set "
                "data.kind=series where they are series, or data.value_range=[BLACK,WHITE]"
            )
    own = (found.get("train") or merge_extremes(list(found.values()))).choose_range()
    shallow = own[0] == 0 and own[1] in (1, 255) and all(_is_shallow(array, own) for array in deep.values())
    return Depth(asked or own, "uint8" if shallow and asked is None else "uint16", own if shallow else None)


def _measure_values(array: np.ndarray, origin: str) -> Extremes:
    """Return the extremes of images. Raises DataError for values that are not finite."""
    low, high = float(array.min()), float(array.max())
    if not math.isfinite(high - low):
        raise DataError(
            f"{origin}: wanted finite values, found {low:g}..{high:g}{_locate_strange(array)}; leave such images out, "
            "or set data.kind=series where they are series"
        )
    return Extremes(low, high, array.dtype.kind == "f")


def _locate_strange(array: np.ndarray) -> str:
    """Say which image is the first to hold a value that is not finite."""
    index = next((index for index, image in enumerate(array) if not np.isfinite(image).all()), None)
    return "" if index is None else f" in image {index}"


def _is_shallow(array: np.ndarray, levels: ValueRange) -> bool:
    """Tell whether all values are gray levels of 8 bits, black and white being as in `levels`."""
    return all(bool(_fits_levels(part, levels).all()) for part in _cut_parts(array))


def _fits_levels(array: Shaped[np.ndarray, "*shape"], levels: ValueRange) -> Bool[np.ndarray, "*shape"]:
    """Mark the values that are gray levels of 8 bits."""
    scaled = array.astype(np.float64) * (255 / levels[1])
    near: np.ndarray = np.abs(scaled - np.round(scaled).clip(0, 255)) <= _NEAR_LEVEL
    return near


def _cut_parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield samples, some at a time, so that copies of them take little memory."""
    step = max(1, BAND_PIXELS // math.prod(array.shape[1:]))
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _hash_images(array: np.ndarray, depth: Depth | None) -> UInt64[np.ndarray, " samples"]:
    """Return 64 bits of each image: of 8 bits alike in every type, and of others whatever range they are read in."""
    if depth is None or array.dtype == np.uint8:
        return hash_arrays(array)
    levels = depth.levels
    parts = [
        hash_arrays(part.astype(np.float64) if levels is None else scale_values(part, levels, "uint8"))
        for part in _cut_parts(array)
    ]
    return np.concatenate(parts)


def _make_images(array: np.ndarray, names: np.ndarray, depth: Depth | None) -> ImageArray:
    """Return images as samples, whole numbers in the smallest type that holds them."""
    if depth is None or array.dtype == np.uint8:
        return ImageArray(array, names)
    if array.dtype.kind in "iu" and array.min() >= 0:
        array = array.astype(np.min_scalar_type(int(array.max())))
    return ImageArray(array, names, depth.value_range, depth.dtype)


def find_series(arrays: Mapping[str, np.ndarray], name: str, origin: str) -> list[Float32[np.ndarray, "_ _"]]:
    """Return the series of an array, each without the NaN after it; where there are lengths, they say where to cut."""
    array = arrays[name]
    lengths = arrays.get(name.replace("values", "lengths")) if "values" in name else None
    if lengths is not None:
        series = _cut_series(array, lengths, origin)
    elif array.ndim in (2, 3):
        series = list(as_series(array[:, None] if array.ndim == 2 else array, origin))
    else:
        raise DataError(
            f"{origin}: wanted series as (n, steps) or (n, channels, steps), or values with lengths, "
            f"found shape {array.shape}"
        )
    steps = [int(count_steps(values)) for values in series]
    if 0 in steps:
        raise DataError(f"{origin}[{steps.index(0)}]: {NO_VALUES}; leave this series out")
    return [values[:, :length] for values, length in zip(series, steps, strict=True)]


def _cut_series(array: np.ndarray, lengths: np.ndarray, origin: str) -> list[Float32[np.ndarray, "_ _"]]:
    """Cut series that stand one after the other."""
    values = array[None] if array.ndim == 1 else array
    whole = lengths.ndim == 1 and lengths.size > 0 and lengths.dtype.kind in "ui" and bool((lengths > 0).all())
    if values.ndim != 2 or not whole or sum(lengths.tolist()) != values.shape[1]:
        raise DataError(
            f"{origin}: wanted values (channels, total steps) and lengths, whole numbers above 0 with that total, "
            f"found shapes {array.shape} and {lengths.shape}, lengths of dtype {lengths.dtype}"
        )
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.split(as_series(values[None], origin)[0], ends[:-1], axis=1)


def as_series(
    array: Shaped[np.ndarray, "samples channels steps"], origin: str
) -> Float32[np.ndarray, "samples channels steps"]:
    """Return real numbers as float32. Raises DataError for anything else, for infinities and for an empty array."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{origin}: wanted numbers, found dtype {array.dtype}")
    if 0 in array.shape:
        raise DataError(f"{origin}: wanted series, found shape {array.shape}")
    with np.errstate(over="ignore"):
        series = array.astype(np.float32)
    if np.isinf(series).any():
        row = int(np.argwhere(np.isinf(series))[0, 0])
        worst = array[row][np.isinf(series[row])][0]
        where = f"{origin}[{row}]" if len(array) > 1 else origin
        raise DataError(f"{where}: wanted finite values, or NaN for missing ones, found {worst}")
    return series


def as_labels(array: np.ndarray, origin: str) -> np.ndarray:
    """Return labels as a vector of integers or of strings."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{origin}: wanted one label a sample, found shape {array.shape}")
    if array.dtype.kind == "U":
        return np.array([normalize_label(str(label)) for label in array.tolist()])
    if array.dtype.kind not in "buif" or not np.array_equal(array, np.floor(array)):
        raise DataError(f"{origin}: wanted whole numbers or strings as labels, found dtype {array.dtype}")
    for value in (array.min(initial=0), array.max(initial=0)):
        if not 0 <= value < 2**31:
            raise DataError(f"{origin}: labels out of range: found {value}, wanted 0 to {2**31 - 1}")
    return array.astype(np.int64)


def to_splits(
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]],
    source: str,
    names: np.ndarray | None,
    depth: Depth | None = None,
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Check images against labels and number the classes: `names` in order where given, else the sorted labels."""
    numbers, classes = number_labels(arrays, source, names, "images")
    places = name_samples(numbers, source)
    splits = {
        split: Split(_make_images(images, places[split], depth), numbers[split], _hash_images(images, depth))
        for split, (images, _) in arrays.items()
    }
    return splits, classes


def to_series_splits(
    arrays: Mapping[str, tuple[Sequence[Float32[np.ndarray, "_ _"]], np.ndarray]], source: str, names: np.ndarray | None
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Do what `to_splits` does, for series."""
    numbers, classes = number_labels(arrays, source, names, "series")
    places = name_samples(numbers, source)
    splits = {split: split_series(series, places[split], numbers[split]) for split, (series, _) in arrays.items()}
    return splits, classes


def number_labels(
    arrays: Mapping[str, tuple[Sized, np.ndarray]], source: str, names: np.ndarray | None, what: str
) -> tuple[dict[str, Int64[np.ndarray, " _"]], tuple[str, ...]]:
    """Return each split's labels as positions in the classes, and these."""
    for split, (samples, labels) in arrays.items():
        if len(samples) != len(labels):
            raise DataError(f"{source}: {split} has {len(samples)} {what} but {len(labels)} labels")
    values = np.unique(np.concatenate([labels for _, labels in arrays.values()]))
    classes = tuple(str(value) for value in values)
    if names is not None:
        if values.dtype.kind != "i" or values.max() >= len(names):
            raise DataError(f"{source}: labels out of range: found {values[-1]}, wanted 0 to {len(names) - 1}")
        values, classes = np.arange(len(names)), tuple(str(name) for name in names)
    return {split: np.searchsorted(values, labels).astype(np.int64) for split, (_, labels) in arrays.items()}, classes


def name_samples(labels: Mapping[str, Int64[np.ndarray, " _"]], source: str) -> dict[str, np.ndarray]:
    """Return where each sample stands: `mnist:test[12]`, or `digits[12]` where there is only one split."""
    return {
        split: np.array(
            [f"{source}:{split}[{index}]" if len(labels) > 1 else f"{source}[{index}]" for index in range(len(numbers))]
        )
        for split, numbers in labels.items()
    }
