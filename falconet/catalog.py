"""The data sets that have names, and a first look at what a user wrote; quick to import, for quick answers."""

import os
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from falconet.errors import PathError, UnknownNameError, UsageError


@dataclass(frozen=True)
class TorchvisionSet:
    """A data set that torchvision can download."""

    name: str
    """Class name in `torchvision.datasets`; for IDX files also the name of their folder below the data root."""
    layout: Literal["idx", "emnist", "cifar", "svhn"]
    """Layout of its files below the data root."""
    classes: tuple[str, ...]
    """Class names in the order of the published labels."""
    policy: str
    """Augmentation policy that suits it."""


_DIGITS = tuple(string.digits)
_CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_KUZUSHIJI = "o ki su tsu na ha ma ya re wo"
_EMNIST_BALANCED = string.digits + string.ascii_uppercase + "abdefghnqrt"
"""Classes of EMNIST Balanced, which merges letters alike in both cases (Cohen and others, 2017, table II)."""
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""

DOWNLOADABLE: Mapping[str, TorchvisionSet] = MappingProxyType(
    {
        "mnist": TorchvisionSet("MNIST", "idx", _DIGITS, "digits"),
        "fashion-mnist": TorchvisionSet("FashionMNIST", "idx", tuple(_CLOTHES.split(",")), "light"),
        "kmnist": TorchvisionSet("KMNIST", "idx", tuple(_KUZUSHIJI.split()), "digits"),
        "emnist": TorchvisionSet("EMNIST", "emnist", tuple(_EMNIST_BALANCED), "digits"),
        "cifar10": TorchvisionSet("CIFAR10", "cifar", tuple(CIFAR10.split()), "light"),
        "cifar100": TorchvisionSet("CIFAR100", "cifar", tuple(CIFAR100.split()), "light"),
        "svhn": TorchvisionSet("SVHN", "svhn", _DIGITS, "digits"),
    }
)

SOURCE_NAMES = ("digits", *DOWNLOADABLE)
HUB_PREFIX = "hf:"
"""Prefix of the name of a data set of the Hugging Face Hub, or of the path of a folder laid out like one."""
FILE_SUFFIXES = (".npz", ".csv", ".tsv", ".jsonl", ".parquet", ".ts")
"""Suffixes of files that are data sets."""
LOOSE_SUFFIXES = (".txt", ".data", ".dat", "")
"""Suffixes of files that may be tables."""
TASKS_SUFFIX = ".json"
"""Suffix of files of annotated tasks, as Label Studio exports them; in folders, other files have it too."""
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def list_paths(asked: object, wanted: str) -> list[Path]:
    """Return paths that one alone or several name: a string is one path, not its letters.

    Raises UsageError for anything else, such as arrays and tables, and for none at all; `wanted` says what they are.
    """
    if isinstance(asked, str | os.PathLike):
        return [Path(asked)]
    flat = isinstance(asked, Iterable) and not isinstance(asked, Mapping | bytes) and getattr(asked, "ndim", 1) == 1
    several = list(asked) if isinstance(asked, Iterable) and flat else [asked]
    if not several:
        raise UsageError(f"wanted {wanted}, found none")
    paths = []
    for path in several:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"wanted {wanted}, each a string or a Path, found {type(path).__name__}")
        paths.append(Path(path))
    return paths


def check_source(source: object) -> None:
    """Raise UnknownNameError or PathError unless `source` is a known name, a hub's or a usable path; reads nothing.

    Raises UsageError for what is neither a string nor a Path.
    """
    if not isinstance(source, str | os.PathLike):
        wanted = "the name of a data set or a path"
        remedy = "make a data set of arrays by falconet.Dataset.from_arrays(x, y)"
        raise UsageError(f"source: wanted {wanted}, found {type(source).__name__}; {remedy}")
    name, path = str(source), Path(source)
    if name in SOURCE_NAMES or is_hub_source(name) or path.is_dir():
        return
    if path.is_file():
        check_suffix(path)
    elif os.sep in name or "/" in name or path.suffix:
        hint = f"; a set of the Hugging Face Hub is written {HUB_PREFIX}{name}" if is_hub_name(name) else ""
        raise PathError(f"no such file or folder: {source}{hint}")
    else:
        raise UnknownNameError("source", name, SOURCE_NAMES, "(nor is there a file or folder of this name)")


def check_place(place: str | Path, remedy: str = "") -> None:
    """Raise PathError unless there is a file or folder, or a source of this name; `remedy` ends what is said."""
    name = as_name(place)
    if not (os.path.lexists(place) or name in SOURCE_NAMES or is_hub_source(name)):
        raise PathError(f"no such file or folder: {place}{remedy}")


def is_url(name: str) -> bool:
    """Tell whether a name is a web address."""
    return name[:8].lower().startswith(("http://", "https://"))


def is_hub_source(name: str) -> bool:
    """Tell whether something follows the hub's prefix."""
    return name.startswith(HUB_PREFIX) and len(name) > len(HUB_PREFIX)


def is_hub_name(name: str) -> bool:
    """Tell whether a path could be meant as `owner/name`."""
    parts = name.split("/")
    return len(parts) == 2 and all(part.strip(".") for part in parts) and not Path(name).suffix


def check_suffix(path: Path) -> None:
    """Raise PathError unless a file's name ends like that of a data set."""
    if path.suffix.lower() in (*FILE_SUFFIXES, *LOOSE_SUFFIXES, TASKS_SUFFIX):
        return
    if path.suffix.lower() in _ARCHIVE_SUFFIXES:
        raise PathError(f"{path} is compressed: unpack it and name what comes out, a folder or a file")
    *others, last = FILE_SUFFIXES
    wanted = f"wanted a folder or a file ending in {', '.join(others)} or {last}"
    raise PathError(f"{path}: {wanted}, found a file {path.suffix or 'without extension'}")


def as_name(folder: str | Path) -> str:
    """Return a path as a user writes the name of a model."""
    return folder.as_posix() if isinstance(folder, Path) else folder
