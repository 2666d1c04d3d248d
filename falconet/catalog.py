"""The data sets that have names, and a first look at what a user wrote; quick to import, for quick answers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from falconet.errors import PathError, UnknownNameError


@dataclass(frozen=True)
class TorchvisionSet:
    """A data set that torchvision can download as IDX files."""

    name: str
    """Class name in `torchvision.datasets`, and folder name below the data root."""
    classes: tuple[str, ...]
    augmentation: str


CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"

DOWNLOADABLE: Mapping[str, TorchvisionSet] = MappingProxyType(
    {
        "mnist": TorchvisionSet("MNIST", tuple("0123456789"), "digits"),
        "fashion-mnist": TorchvisionSet("FashionMNIST", tuple(CLOTHES.split(",")), "light"),
    }
)

SOURCE_NAMES = ("digits", *DOWNLOADABLE)


def check_source(source: str | Path) -> None:
    """Raise UnknownNameError or PathError unless `source` is a known name or an existing path; reads nothing."""
    name, path = str(source), Path(source)
    if name in SOURCE_NAMES or path.is_dir() or (path.is_file() and path.suffix == ".npz"):
        return
    if path.is_file():
        raise PathError(f"{source}: wanted a folder or a .npz file, found a file {path.suffix or 'without extension'}")
    if os.sep in name or "/" in name or path.suffix:
        raise PathError(f"no such file or folder: {source}")
    raise UnknownNameError("source", name, SOURCE_NAMES, "(nor is there a file or folder of this name)")
