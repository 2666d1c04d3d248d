"""The data sets that have names: the embedded digits, and those that torchvision can download.

Importing it does not import torch.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from falconet.catalog import DOWNLOADABLE
from falconet.data.arrays import as_images, read_idx_pair, to_splits
from falconet.data.dataset import Dataset, ImageArray, Split
from falconet.data.series import series_dataset
from falconet.errors import DataError, MissingExtraError
from falconet.spec import ModalityName
from falconet.storage import open_regular, read_regular
from falconet.tables import MAX_BYTES, check_size

_Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Images `(n, height, width, channels)`, uint8, and labels `(n,)`, int64, by split."""

_IDX_FILES = {
    "idx": {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"},
    "emnist": {"train": "emnist-balanced-train-images-idx3-ubyte", "test": "emnist-balanced-test-images-idx3-ubyte"},
}
"""Files of images by layout and split; those of labels are named alike."""

_CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
"""Folders of the binary versions, as they are unpacked."""
_CIFAR10_TRAIN = re.compile(r"data_batch_(\d+)\.bin")
_CIFAR_SIZE = 32


def read_named(name: str, data_root: Path) -> Dataset:
    """Read `digits` or one of `DOWNLOADABLE`, where it lies below `data_root` or after torchvision has fetched it.

    Raises DataError where files are damaged, or missing and not to be downloaded; MissingExtraError for `svhn` without
    SciPy.
    """
    if name == "digits":
        return _read_digits()
    layout = DOWNLOADABLE[name].layout
    if layout == "cifar":
        return _read_cifar(name, data_root)
    arrays = _read_svhn(name, data_root) if layout == "svhn" else _read_idx_set(name, data_root)
    return _from_named_arrays(name, arrays)


def _read_digits() -> Dataset:
    """The embedded 1,797 digits of 8x8 pixels; their 17 gray levels are stretched over 0..255."""
    with resources.files("falconet.data").joinpath("digits.npz").open("rb") as file, np.load(file) as archive:
        levels, labels = archive["images"], archive["labels"]
    images = np.round(levels * (255 / 16)).astype(np.uint8)[..., None]
    return from_arrays("digits", "image", *to_splits({"train": (images, labels.astype(np.int64))}, "digits", None))


def _read_idx_set(name: str, data_root: Path) -> _Arrays:
    """Read a set of IDX files, compressed or not."""
    known = DOWNLOADABLE[name]
    folder = data_root / known.name / "raw"
    files = _IDX_FILES[known.layout]
    stems = [stem for images in files.values() for stem in (images, images.replace("images-idx3", "labels-idx1"))]
    if not all(_find_plain_or_compressed(folder, stem) for stem in stems):
        options = {"split": "balanced"} if known.layout == "emnist" else {}
        _fetch(name, data_root, f"put its IDX files into {folder}", **options)
    arrays = {
        split: read_idx_pair(_find_plain_or_compressed(folder, stem) or folder / stem) for split, stem in files.items()
    }
    if known.layout != "emnist":
        return arrays
    # Published column by column: EMNIST's images lie on their side, mirrored.
    return {split: (images.transpose(0, 2, 1, 3), labels) for split, (images, labels) in arrays.items()}


def _find_plain_or_compressed(folder: Path, stem: str) -> Path | None:
    """Return a file of this name, or its twin compressed by gzip."""
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _read_svhn(name: str, data_root: Path) -> _Arrays:
    """Read the cropped house numbers, `train_32x32.mat` and `test_32x32.mat`, through torchvision."""
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError("hub", f"reading {name}")
    remedy = f"put train_32x32.mat and test_32x32.mat into {data_root}"
    parts = {split: _fetch(name, data_root, remedy, split=split) for split in ("train", "test")}
    return {split: (as_images(part.data, name), np.asarray(part.labels, np.int64)) for split, part in parts.items()}


def _read_cifar(name: str, data_root: Path) -> Dataset:
    """Read CIFAR from its binary version where that is whole, else through torchvision.

    Its Python version is a pickle, which runs code when read, so that only torchvision reads it, having checked that
    it is the published one.
    """
    folder = data_root / _CIFAR_FOLDERS[name]
    if all((folder / file).is_file() for file in _list_cifar_files(name)):
        return read_cifar_binaries(folder, name)
    remedy = f"unpack its binary or Python version into {data_root}, which gives {folder.name} there"
    parts = {split: _fetch(name, data_root, remedy, train=split == "train") for split in ("train", "test")}
    arrays = {split: (as_images(part.data, name), np.asarray(part.targets, np.int64)) for split, part in parts.items()}
    return _from_named_arrays(name, arrays)


def _list_cifar_files(name: str) -> list[str]:
    """Return the names of all record files of the published binary version."""
    return (
        ["train.bin", "test.bin"]
        if name == "cifar100"
        else [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    )


def _fetch(name: str, data_root: Path, remedy: str, **options: Any) -> Any:
    """Return torchvision's object for a set, downloaded into `data_root` unless it lies there.

    Raises DataError, with what to do, where that fails.
    """
    import torchvision

    make = getattr(torchvision.datasets, DOWNLOADABLE[name].name)
    try:
        return make(str(data_root), download=True, **options)
    except (OSError, RuntimeError, HTTPException) as error:
        cause = " ".join(str(error).split())
        raise DataError(
            f"{name} is not in {data_root} and could not be downloaded; {remedy}, or say --data-root or FALCONET_DATA "
            f"({cause})"
        ) from error


def find_cifar_binaries(folder: Path) -> bool:
    """Tell whether a folder holds record files of CIFAR-10's or CIFAR-100's binary version."""
    return bool(_list_cifar10_batches(folder)) or _is_cifar100(folder)


def _list_cifar10_batches(folder: Path) -> list[Path]:
    """Return the training files of CIFAR-10, by number."""
    matches = [
        (match, path) for path in folder.glob("data_batch_*.bin") if (match := _CIFAR10_TRAIN.fullmatch(path.name))
    ]
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches)]


def _is_cifar100(folder: Path) -> bool:
    """Tell whether a folder holds CIFAR-100; the name of its training file alone says too little."""
    return (folder / "train.bin").is_file() and any(
        (folder / other).is_file() for other in ("test.bin", "fine_label_names.txt")
    )


def read_cifar_binaries(folder: Path, source: str, max_bytes: int = MAX_BYTES) -> Dataset:
    """Read a folder of CIFAR's binary version: records of one label (CIFAR-100: coarse and fine) and 3x32x32 pixels.

    Every `data_batch_N.bin` (or `train.bin`) is training data, `test_batch.bin` (or `test.bin`) may be missing. Class
    names are those of `batches.meta.txt` (or `fine_label_names.txt`) where there is one, else the published ones.
    Raises DataError for a file that does not hold whole records, for files of more than `max_bytes` together, before
    they are read, or a label of no class.
    """
    batches = _list_cifar10_batches(folder)
    name, test, names_file, labels = ("cifar10", "test_batch.bin", "batches.meta.txt", 1)
    if not batches:
        batches = [folder / "train.bin"]
        name, test, names_file, labels = ("cifar100", "test.bin", "fine_label_names.txt", 2)
    tests = [folder / test] if (folder / test).is_file() else []
    check_size(folder, sum(path.stat().st_size for path in (*batches, *tests) if path.is_file()), max_bytes)
    arrays = {"train": _read_cifar_records(batches, labels)}
    if tests:
        arrays["test"] = _read_cifar_records(tests, labels)
    classes = _read_class_names(folder / names_file) or DOWNLOADABLE[name].classes
    return from_arrays(source, "image", *to_splits(arrays, source, np.array(classes)))


def _read_cifar_records(paths: Sequence[Path], label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of record files, one after the other; of several label bytes, the last counts."""
    records = [_read_records(path, label_bytes + 3 * _CIFAR_SIZE**2) for path in paths]
    planes = [part[:, label_bytes:].reshape(-1, 3, _CIFAR_SIZE, _CIFAR_SIZE) for part in records]
    images = np.empty((sum(map(len, records)), _CIFAR_SIZE, _CIFAR_SIZE, 3), dtype=np.uint8)
    np.concatenate([part.transpose(0, 2, 3, 1) for part in planes], out=images)
    return images, np.concatenate([part[:, label_bytes - 1] for part in records]).astype(np.int64)


def _read_records(path: Path, size: int) -> UInt8[np.ndarray, "records size"]:
    """Read a file of records of `size` bytes."""
    try:
        with open_regular(path) as file:
            content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if len(content) == 0 or len(content) % size:
        raise DataError(f"{path}: wanted records of {size:,} bytes, found {len(content):,}: truncated or altered")
    return content.reshape(-1, size)


def _read_class_names(path: Path) -> tuple[str, ...]:
    """Return the lines that are not blank; none where there is no such file."""
    if not path.is_file():
        return ()
    lines = read_regular(path).decode("utf-8", "replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _from_named_arrays(name: str, arrays: _Arrays) -> Dataset:
    """Make a Dataset of a known set's arrays."""
    return from_arrays(name, "image", *to_splits(arrays, name, np.array(DOWNLOADABLE[name].classes)))


def from_arrays(source: str, kind: ModalityName, splits: Mapping[str, Split], classes: tuple[str, ...]) -> Dataset:
    """Wrap splits of arrays: of images of one size in each split, or of series.

    Raises DataError where the channels of series differ between splits.
    """
    return _WRAPPERS[kind](source, splits, classes)


def _image_dataset(source: str, splits: Mapping[str, Split], classes: tuple[str, ...]) -> Dataset:
    """Wrap splits of images in memory."""
    shapes = [split.samples.read(0).shape for split in splits.values()]
    height, width, _ = shapes[0]
    arrays = [split.samples for split in splits.values() if isinstance(split.samples, ImageArray)]
    deep = next((array.value_range for array in arrays if array.dtype == "uint16"), None)
    channels = max(shape[2] for shape in shapes)
    notes = _describe_dark(arrays[0]) if arrays else ()
    return Dataset(source, classes, splits, channels, (height, width), value_range=deep, notes=notes)


def _describe_dark(images: ImageArray) -> tuple[str, ...]:
    """Say that images use the darkest quarter of gray levels only, as those do that have 16 levels of their own.

    Nothing is said of other levels than the usual 256, which somebody has chosen, or the values themselves.
    """
    black, white = images.value_range or (0.0, 255.0)
    if (black, white) != (0.0, 255.0):
        return ()
    highest = float(images.images.max())
    if highest - black >= (white - black) / 4:
        return ()
    return (
        f"values up to {highest:g} are taken as of {black:g} to {white:g}, so that images are dark; where {highest:g} "
        f"is white, multiply them by {white / highest:.4g}"
        if highest > black
        else "all images are black",
    )


_WRAPPERS: Mapping[ModalityName, Callable[[str, Mapping[str, Split], tuple[str, ...]], Dataset]] = MappingProxyType(
    {"image": _image_dataset, "series": series_dataset}
)
"""Functions that make a Dataset of splits of arrays, by kind of sample."""
