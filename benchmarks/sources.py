"""Data sets with splits of their own, so that whatever is compared learns from, chooses by and is tested on the same.

Each is written in a form that `falconet train` reads (docs/data.md): folders `train/ val/ test/` of files, one table a
split, or arrays. The test split is the published one, except of hand signs, which have none: there the seed draws a
fifth of each class. The seed also draws the labeled samples of a class where these are to be few, and of them a tenth
for validation, at least one: samples that choose among models have to be labeled as well.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, Shaped
from PIL import Image

from falconet.data.ts import read_ts_file

TEST_SHARE, VAL_SHARE = 0.2, 0.1
Kind = Literal["images", "texts", "series", "recordings"]


@dataclass(frozen=True, eq=False)
class Part:
    """Samples of a split, and a label each."""

    samples: Any
    """An array of images or series, or a list of texts or files."""
    labels: Shaped[np.ndarray, " samples"]

    def take(self, indices: Int64[np.ndarray, " taken"]) -> Part:
        is_array = isinstance(self.samples, np.ndarray)
        samples = self.samples[indices] if is_array else [self.samples[index] for index in indices]
        return Part(samples, self.labels[indices])


@dataclass(frozen=True)
class Source:
    """A data set, or a few samples of each of its classes."""

    kind: Kind
    read: Callable[[Path], tuple[Part, Part | None]]
    """Returns the labeled samples and those of the published test split."""
    title: str
    per_class: int | None = None
    """Labeled samples of a class, those for validation among them; None: all."""
    bundled: bool = False
    """Whether the data lie in aeon's wheel, whose folder is then what `read` is given."""


def write_source(source: Source, root: Path, seed: int, folder: Path) -> Path:
    """Write the splits that a seed draws into a new folder; return what `falconet train` is given."""
    labeled, test = source.read(root)
    if test is None:
        kept, evaluated = draw(labeled.labels, seed, None, TEST_SHARE)
        labeled, test = labeled.take(kept), labeled.take(evaluated)
    train, val = draw(labeled.labels, seed, source.per_class, VAL_SHARE)
    folder.mkdir(parents=True)
    parts = {"train": labeled.take(train), "val": labeled.take(val), "test": test}
    if source.kind == "texts":
        return write_tables(parts, folder)
    return write_arrays(parts, folder) if isinstance(test.samples, np.ndarray) else copy_files(parts, folder)


def draw(
    labels: Shaped[np.ndarray, " samples"], seed: int, per_class: int | None, share: float
) -> tuple[Int64[np.ndarray, " rest"], Int64[np.ndarray, " drawn"]]:
    """Return the indices of two parts of `per_class` samples of each class; the second has a `share`, but at least one.

    Both are in the order of the source.
    """
    rng = np.random.default_rng(seed)
    rest, drawn = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))[:per_class]
        count = max(round(share * len(members)), 1)
        drawn.append(members[:count])
        rest.append(members[count:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(drawn))


def write_tables(parts: Mapping[str, Part], folder: Path) -> Path:
    for name, part in parts.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(zip(part.samples, part.labels, strict=True))
    return folder


def write_arrays(parts: Mapping[str, Part], folder: Path) -> Path:
    """Write images or series, whose arrays are called so that they are not taken for one another."""
    values = "x" if parts["test"].samples.dtype == np.uint8 else "series"
    arrays = {f"{values}_{name}": part.samples for name, part in parts.items()}
    labels = {f"{'y' if values == 'x' else 'labels'}_{name}": part.labels for name, part in parts.items()}
    np.savez(folder / "splits.npz", **arrays, **labels)  # type: ignore[arg-type]  # names are no options
    return folder / "splits.npz"


def copy_files(parts: Mapping[str, Part], folder: Path) -> Path:
    for name, part in parts.items():
        for path, label in zip(part.samples, part.labels, strict=True):
            target = folder / name / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return folder


def list_files(folder: Path) -> Part:
    """Return the files of class folders, by name."""
    paths = sorted(path for path in folder.glob("*/*") if path.is_file())
    return Part(paths, np.array([path.parent.name for path in paths]))


def read_photographs(root: Path) -> tuple[Part, None]:
    return list_files(root / "sign-digits"), None


def read_recordings(root: Path) -> tuple[Part, Part]:
    folder = root / "spoken-digits"
    return list_files(folder / "train"), list_files(folder / "test")


def read_questions(root: Path) -> tuple[Part, Part]:
    def read(name: str) -> Part:
        with (root / "banking77" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return Part([row["text"] for row in rows], np.array([row["category"] for row in rows]))

    return read("train"), read("test")


def read_mnist(root: Path) -> tuple[Part, Part]:
    def read(name: str) -> Part:
        folder = root / "MNIST" / "raw"
        images = np.fromfile(folder / f"{name}-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 28, 28)
        return Part(images, np.fromfile(folder / f"{name}-labels-idx1-ubyte", np.uint8, offset=8))

    return read("train"), read("t10k")


def read_cifar(root: Path) -> tuple[Part, Part]:
    """Read sheets of 25 x 40 tiles without loss, or the binary files as published."""

    def read(name: str) -> Part:
        folder = root / "cifar10"
        if sheets := sorted(folder.glob(f"{name}-*.webp")):
            tiles = [np.asarray(Image.open(sheet).convert("RGB")).reshape(25, 32, 40, 32, 3) for sheet in sheets]
            images = np.concatenate([part.transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3) for part in tiles])
            return Part(images, np.fromfile(folder / f"{name}-labels.u8", np.uint8))
        files = sorted(root.glob("**/data_batch_*.bin" if name == "train" else "**/test_batch.bin"))
        records = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files])
        return Part(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])

    return read("train"), read("test")


def read_series(pattern: str) -> Callable[[Path], tuple[Part, Part]]:
    """Return what reads a problem of the UCR and UEA archives, `_TRAIN.ts` and `_TEST.ts` in the place of the star."""

    def read(root: Path) -> tuple[Part, Part]:
        return read_cases(root / pattern.replace("*", "TRAIN")), read_cases(root / pattern.replace("*", "TEST"))

    return read


def read_cases(path: Path) -> Part:
    cases, _ = read_ts_file(path)
    return Part(np.stack([case.series for case in cases]), np.array([case.label for case in cases]))


SOURCES: Mapping[str, Source] = {
    "sign-digits": Source("images", read_photographs, "sign-digits"),
    "sign-digits-20": Source("images", read_photographs, "sign-digits, 20 a class", 20),
    "cifar10": Source("images", read_cifar, "CIFAR-10"),
    "cifar10-50": Source("images", read_cifar, "CIFAR-10, 50 a class", 50),
    "mnist": Source("images", read_mnist, "MNIST"),
    "banking77": Source("texts", read_questions, "banking77"),
    "banking77-10": Source("texts", read_questions, "banking77, 10 a class", 10),
    "gunpoint": Source("series", read_series("ucr/GunPoint_*.ts"), "GunPoint"),
    "italypowerdemand": Source("series", read_series("ucr/ItalyPowerDemand_*.ts"), "ItalyPowerDemand"),
    "arrowhead": Source("series", read_series("ArrowHead/ArrowHead_*.ts"), "ArrowHead", bundled=True),
    "basicmotions": Source("series", read_series("BasicMotions/BasicMotions_*.ts"), "BasicMotions", bundled=True),
    "spoken-digits": Source("recordings", read_recordings, "spoken-digits"),
}


def copy_some(folder: Path, per_class: int, target: Path) -> None:
    """Copy the first files of each class folder, without splits."""
    files: Sequence[Path] = list_files(folder).samples
    for name in {path.parent.name for path in files}:
        (target / name).mkdir(parents=True)
        for path in [path for path in files if path.parent.name == name][:per_class]:
            shutil.copyfile(path, target / name / path.name)
