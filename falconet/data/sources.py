"""From what a user wrote to a Dataset: names, folders, IDX, `.npz`. Importing it does not import torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path

import numpy as np

from falconet.catalog import DOWNLOADABLE, check_source
from falconet.data.arrays import find_idx_images, read_idx_folder, read_npz, to_splits
from falconet.data.dataset import Dataset, ImageFiles, Split, Unreadable, hash_bytes
from falconet.data.images import decode_image, list_images
from falconet.data.splits import DataConfig, complete_splits
from falconet.errors import DataError

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_dataset(
    source: str | Path, *, data_root: str | Path | None = None, config: DataConfig | None = None
) -> Dataset:
    """Read a source and give it train, val and test splits.

    Parameters
    ----------
    source
        A name (`digits`, `mnist`, `fashion-mnist`) or a path: a folder of class subfolders, with or without
        `train/ val/ test/` above them; a folder of IDX files; a `.npz`.
    data_root
        Where named sets are kept and downloaded to; None: the environment's FALCONET_DATA, else a cache folder.
    config
        How splits that the source lacks are made, and whether unreadable files are skipped or refused.

    Raises UnknownNameError and PathError for a source that is not there, DataError for one that cannot be used.

    """
    config = config or DataConfig()
    dataset = read_source(str(source), find_data_root(data_root))
    if config.strict and dataset.unreadable:
        first = dataset.unreadable[0]
        raise DataError(
            f"{source}: {len(dataset.unreadable)} unreadable files, the first {first.file} ({first.reason}); mend or "
            "remove them, or leave out --strict"
        )
    if len(dataset.classes) < 2:
        raise DataError(f"{source}: wanted at least two classes, found only {', '.join(dataset.classes)}")
    return complete_splits(dataset, config)


def find_data_root(data_root: str | Path | None) -> Path:
    """Return the folder of named data sets."""
    if data_root is not None:
        return Path(data_root)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FALCONET_DATA") or Path(cache) / "falconet" / "data")


def read_source(source: str, data_root: Path) -> Dataset:
    """Read a source as it is, without completing its splits."""
    check_source(source)
    path = Path(source)
    if source == "digits":
        return read_digits()
    if source in DOWNLOADABLE:
        return read_downloadable(source, data_root)
    if path.is_file():
        return from_arrays(source, *read_npz(path, path.name))
    return read_idx_source(path) if find_idx_images(path) else read_image_folder(path)


def read_digits() -> Dataset:
    """The embedded 1,797 digits of 8x8 pixels; their 17 gray levels are stretched over 0..255."""
    with resources.files("falconet.data").joinpath("digits.npz").open("rb") as file, np.load(file) as archive:
        levels, labels = archive["images"], archive["labels"]
    images = np.round(levels * (255 / 16)).astype(np.uint8)[..., None]
    splits, classes = to_splits({"train": (images, labels.astype(np.int64))}, "digits", None)
    return from_arrays("digits", splits, classes, augmentation="digits")


def read_downloadable(name: str, data_root: Path) -> Dataset:
    """A torchvision set: read where it lies below `data_root`, downloaded first where it does not."""
    known = DOWNLOADABLE[name]
    folder = data_root / known.name / "raw"
    if not all((folder / file).is_file() or (folder / f"{file}.gz").is_file() for file in MNIST_FILES):
        download(name, data_root)
    splits, labels = read_idx_folder(folder, name)
    if int(labels[-1]) >= len(known.classes):
        raise DataError(f"{name}: labels out of range: found {labels[-1]}, wanted 0 to {len(known.classes) - 1}")
    classes = tuple(known.classes[int(label)] for label in labels)
    return from_arrays(name, splits, classes, augmentation=known.augmentation)


def download(name: str, data_root: Path) -> None:
    """Let torchvision fetch a set into `data_root`. Raises DataError, with what to do, where that fails."""
    import torchvision

    kind = getattr(torchvision.datasets, DOWNLOADABLE[name].name)
    try:
        kind(str(data_root), download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        cause = " ".join(str(error).split())
        raise DataError(
            f"{name} is not in {data_root} and could not be downloaded; put its IDX files into "
            f"{data_root / DOWNLOADABLE[name].name / 'raw'}, or say --data-root or FALCONET_DATA ({cause})"
        ) from error


def read_idx_source(folder: Path) -> Dataset:
    """A folder of IDX files."""
    return from_arrays(str(folder), *read_idx_folder(folder, folder.name))


def from_arrays(
    source: str, splits: Mapping[str, Split], classes: tuple[str, ...], augmentation: str = "light"
) -> Dataset:
    """Wrap splits of arrays."""
    if "train" not in splits:
        raise DataError(f"{source}: no training split; found {', '.join(splits)}")
    shapes = [split.samples.read(0).shape for split in splits.values()]
    height, width, _ = shapes[0]
    channels = max(shape[2] for shape in shapes)
    return Dataset(source, classes, splits, channels, (height, width), augmentation=augmentation)


@dataclass(frozen=True)
class ScannedFile:
    """One image file of a class folder, read and decoded once as a check."""

    path: str
    """Relative to the source's root."""
    split: str
    label: str
    hash: int = 0
    shape: tuple[int, ...] = ()
    """Height, width and channels; empty where the file cannot be read."""
    reason: str = ""


def read_image_folder(root: Path) -> Dataset:
    """A folder of class subfolders, or of `train/ val/ test/` that hold them."""
    folders = find_class_folders(root)
    paths = [(path, split, folder.name) for split, folder in folders for path in list_images(folder)]
    if not paths:
        raise DataError(describe_empty(root))
    with ThreadPoolExecutor() as pool:
        files = list(pool.map(lambda row: scan_file(root, *row), paths))
    names = list(dict.fromkeys(split for split, _ in folders))
    check_readable(root, names, files)
    readable = [file for file in files if file.shape]
    unreadable = tuple(Unreadable(file.path, file.reason) for file in files if not file.shape)
    classes = sort_classes({folder.name for _, folder in folders})
    splits = {name: to_split(root, [file for file in readable if file.split == name], classes) for name in names}
    height, width = np.median([file.shape[:2] for file in readable], axis=0)
    channels = max(file.shape[2] for file in readable)
    return Dataset(str(root), classes, splits, channels, (int(height), int(width)), unreadable)


def find_class_folders(root: Path) -> list[tuple[str, Path]]:
    """Return (split, class folder) for each class; everything is "train" where the folder knows no splits."""
    layers: dict[str | None, Path] = {}
    for folder in list_folders(root):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split in layers and split is not None:
            raise DataError(f"{root}: wanted one folder for {split}, found {layers[split].name} and {folder.name}")
        layers[split] = folder
    # A class may be called "train" too; then it holds images, not class folders.
    splits = [split for split, layer in layers.items() if split and list_folders(layer)]
    if "train" in splits:
        return [(split, folder) for split in splits for folder in list_folders(layers[split])]
    if splits and len(splits) == len(layers):
        raise DataError(f"{root}: no training split; found {', '.join(splits)}")
    return [("train", folder) for folder in list_folders(root)]


def list_folders(folder: Path) -> list[Path]:
    """Return the visible subfolders, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def scan_file(root: Path, path: Path, split: str, label: str) -> ScannedFile:
    """Read and decode one file."""
    name = str(path.relative_to(root).as_posix())
    try:
        content = path.read_bytes()
        return ScannedFile(name, split, label, hash_bytes(content), decode_image(content).shape)
    except OSError as error:
        return ScannedFile(name, split, label, reason=error.strerror or str(error))
    except DataError as error:
        return ScannedFile(name, split, label, reason=str(error))


def check_readable(root: Path, splits: Iterable[str], files: Sequence[ScannedFile]) -> None:
    """Raise DataError where no file can be read, or none of one split."""
    if not any(file.shape for file in files):
        first = files[0]
        raise DataError(f"{root}: none of {len(files)} images can be read; the first: {first.path} ({first.reason})")
    for split in splits:
        if not any(file.shape for file in files if file.split == split):
            raise DataError(f"{root}: no readable images in {split}; add some, or remove the folder")


def to_split(root: Path, files: list[ScannedFile], classes: tuple[str, ...]) -> Split:
    """Return the readable files of one split."""
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[file.label] for file in files], dtype=np.int64)
    hashes = np.array([file.hash for file in files], dtype=np.uint64)
    return Split(ImageFiles(root, [file.path for file in files]), labels, hashes)


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Sort class names: by value where all are whole numbers, else as text."""
    # Sorted twice, since a set has no order of its own and 1 and 01 have the same value.
    return tuple(sorted(sorted(names), key=int if all(name.isdecimal() for name in names) else str))


def describe_empty(root: Path) -> str:
    """Say what was found in a folder that holds no images in class subfolders."""
    direct, subfolders = list_images(root), list_folders(root)
    if direct and not subfolders:
        found = f"{len(direct)} images directly in it and no subfolders"
    else:
        found = f"{len(subfolders)} subfolders and no images in them"
    return f"{root}: wanted one subfolder of images for each class, found {found}"
