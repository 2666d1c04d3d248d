"""Dataset: what every source becomes. Arrays and paths only; importing it does not import torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from falconet.data.images import read_image
from falconet.errors import DataError, UnknownNameError

SPLIT_NAMES = ("train", "val", "test")


@runtime_checkable
class Samples(Protocol):
    """A sequence of raw images, each uint8 of its own height and width with 1 or 3 channels."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return how a person would find this sample again: a path, or a position in an array."""

    def read(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        """Return one image. Raises DataError where it cannot be read any more."""

    def take(self, indices: Int64[np.ndarray, " kept"]) -> Samples:
        """Return the samples at `indices`, in that order."""


@dataclass(frozen=True, eq=False)
class ImageArray:
    """Images of one size, in memory."""

    images: UInt8[np.ndarray, "samples height width channels"]
    names: np.ndarray
    """One string a sample: where it stood in its source, such as `mnist:test[12]` or `digits[12]`."""

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def read(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        image: UInt8[np.ndarray, "height width channels"] = self.images[index]
        return image

    def take(self, indices: Int64[np.ndarray, " kept"]) -> ImageArray:
        return ImageArray(self.images[indices], self.names[indices])


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files, read when they are wanted."""

    root: Path
    paths: Sequence[str]
    """Relative to `root`."""

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        return read_image(self.root / self.paths[index])

    def take(self, indices: Int64[np.ndarray, " kept"]) -> ImageFiles:
        return ImageFiles(self.root, [self.paths[index] for index in indices])


@dataclass(frozen=True, eq=False)
class Split:
    """Samples with their labels."""

    samples: Samples
    labels: Int64[np.ndarray, " samples"]
    """Positions in the data set's `classes`."""
    hashes: UInt64[np.ndarray, " samples"]
    """64 bits of each sample's content, before decoding."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Int64[np.ndarray, " kept"]) -> Split:
        return Split(self.samples.take(indices), self.labels[indices], self.hashes[indices])


@dataclass(frozen=True)
class Unreadable:
    """A file that was skipped."""

    file: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """A source, read and split."""

    source: str
    """As the user wrote it: a name or a path."""
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    """By name; after `complete_splits` always train, val and test."""
    channels: int
    """1 where every image is gray, else 3."""
    size: tuple[int, int]
    """Median height and width in pixels."""
    unreadable: tuple[Unreadable, ...] = ()
    augmentation: str = "light"
    """Name of the augmentation policy that cannot change a label of this source."""
    made: frozenset[str] = frozenset()
    """Splits that the source lacks and that were made from its training samples."""
    split_seed: int | None = None
    """The seed with which they were made."""

    def split(self, name: str) -> Split:
        """Return one split, or all samples for "all". Raises UnknownNameError for any other name."""
        if name == "all":
            return concatenate(list(self.splits.values()))
        if name not in self.splits:
            raise UnknownNameError("split", name, [*self.splits, "all"])
        return self.splits[name]

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when any sample, label, class name or split of the source itself does.

        The order of samples and the splits that Falconet made do not count.
        """
        digest = hashlib.blake2b("\0".join(self.classes).encode("utf-8", "backslashreplace"), digest_size=16)
        own: dict[str, list[np.ndarray]] = {}
        for name, split in self.splits.items():
            rows = np.stack([split.hashes, split.labels.astype(np.uint64)], axis=1)
            own.setdefault("train" if name in self.made else name, []).append(rows)
        for name, parts in sorted(own.items()):
            rows = np.concatenate(parts)
            digest.update(name.encode() + rows[np.lexsort(rows.T)].tobytes())
        return digest.hexdigest()


def concatenate(splits: Sequence[Split]) -> Split:
    """Return all samples of several splits of one data set, in order."""
    labels = np.concatenate([split.labels for split in splits])
    hashes = np.concatenate([split.hashes for split in splits])
    return Split(concatenate_samples([split.samples for split in splits]), labels, hashes)


def concatenate_samples(parts: Sequence[Samples]) -> Samples:
    """Join files of one root, or arrays of one image size. Raises DataError for arrays of different sizes."""
    files = [part for part in parts if isinstance(part, ImageFiles)]
    if files:
        return ImageFiles(files[0].root, [path for part in files for path in part.paths])
    arrays = [part for part in parts if isinstance(part, ImageArray)]
    sizes = {part.images.shape[1:] for part in arrays}
    if len(sizes) > 1:
        raise DataError(f"splits hold images of different sizes, {sorted(sizes)}: name one split instead of all")
    return ImageArray(np.concatenate([part.images for part in arrays]), np.concatenate([part.names for part in arrays]))


def hash_arrays(images: UInt8[np.ndarray, "samples ..."]) -> UInt64[np.ndarray, " samples"]:
    """Return 64 bits of each image's content."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.array([hash_bytes(row.data) for row in rows], dtype=np.uint64)


def hash_bytes(content: bytes | memoryview) -> int:
    """Return 64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
