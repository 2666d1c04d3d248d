"""Small data sets in memory and on disk, made for these tests."""

from __future__ import annotations

import gzip
import io
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from PIL import Image

from falconet.data import Dataset, ImageArray, Split
from falconet.data.dataset import SeriesArray, Texts, hash_arrays, hash_bytes
from falconet.data.splits import hash_with_seed
from falconet.errors import DataError


def make_split(
    labels: Sequence[int], content: Sequence[int] | None = None, size: tuple[int, int] = (4, 4), channels: int = 1
) -> Split:
    """Return a split of arrays of noise; samples with equal `content` have equal pixels, None: all differ."""
    numbers = np.array(range(len(labels)) if content is None else content, dtype=np.uint64)
    places = numbers[:, None] << np.uint64(20) | np.arange(np.prod(size) * channels, dtype=np.uint64)
    images = (
        (hash_with_seed(places.ravel(), seed=0) >> np.uint64(56)).astype(np.uint8).reshape(len(labels), *size, channels)
    )
    names = np.array([f"made[{index}]" for index in range(len(labels))])
    return Split(ImageArray(images, names), np.array(labels, dtype=np.int64), hash_arrays(images))


def make_dataset(**splits: Split) -> Dataset:
    """Return splits as a data set with the classes a, b, ... that nothing was added to."""
    count = 1 + max(int(split.labels.max(initial=1)) for split in splits.values())
    return Dataset("made", tuple(ascii_lowercase[:count]), splits, channels=1, size=(4, 4))


def to_idx(array: np.ndarray) -> bytes:
    """Return an array in MNIST's format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    """Write an IDX file, compressed where the name ends in .gz; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = to_idx(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_mnist(folder: Path, train: int = 40, test: int = 20, suffix: str = "", classes: int = 10) -> Path:
    """Write images of 6x5 noise named like MNIST's files, with labels 0, 1, ... in turn."""
    generator = np.random.default_rng(0)
    for word, count in (("train", train), ("t10k", test)):
        write_idx(
            folder / f"{word}-images-idx3-ubyte{suffix}", generator.integers(0, 256, (count, 6, 5), dtype=np.uint8)
        )
        write_idx(folder / f"{word}-labels-idx1-ubyte{suffix}", np.arange(count) % classes)
    return folder


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_series_split(series: Sequence[np.ndarray], labels: Sequence[int], name: str = "made.ts") -> Split:
    """Return a split of series `(channels, steps)` of any lengths, named by line."""
    ends = np.cumsum([values.shape[1] for values in series])
    bounds = np.stack([[0, *ends[:-1]], ends], axis=1).astype(np.int64)
    names = np.array([f"{name}:{line}" for line in range(len(series))])
    values = np.concatenate(series, axis=1).astype(np.float32)
    hashes = np.array([hash_bytes(entry.astype(np.float32).tobytes()) for entry in series], dtype=np.uint64)
    return Split(SeriesArray(values, bounds, names), np.array(labels, dtype=np.int64), hashes)


def make_series_dataset(rate: int | None = None, **splits: Split) -> Dataset:
    """Return splits of series as a data set with the classes a, b, ..."""
    count = 1 + max(int(split.labels.max(initial=1)) for split in splits.values())
    first = splits["train"].samples.read(0)
    return Dataset(
        "made", tuple(ascii_lowercase[:count]), splits, len(first), first.shape[1:], kind="series", rate=rate
    )


def make_text_dataset(**splits: Sequence[str]) -> Dataset:
    """Return texts as a data set; those of each split are of the classes a and b in turn."""
    made = {
        split: Split(
            Texts(list(texts), np.array([f"{split}.csv:{line}" for line in range(len(texts))])),
            np.arange(len(texts)) % 2,
            np.array([hash_bytes(text.encode()) for text in texts], dtype=np.uint64),
        )
        for split, texts in splits.items()
    }
    size = int(np.median([len(text) for texts in splits.values() for text in texts]))
    return Dataset("made", ("a", "b"), made, 1, (size,), kind="text")


@dataclass(frozen=True, eq=False)
class LoggedImages:
    """Images of noise that are made when they are read; each reading adds a line to a file."""

    numbers: Sequence[int]
    """Each sample's seed; equal numbers are equal images."""
    log: Path
    bad: frozenset[int] = frozenset()
    """Numbers of samples that cannot be read."""
    pause: float = 0.0
    """Seconds that a reading takes."""

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, index: int) -> str:
        return f"noise/{self.numbers[index]}.png"

    def read(self, index: int) -> np.ndarray:
        number = self.numbers[index]
        time.sleep(self.pause)
        with self.log.open("a") as file:
            file.write(f"{number}\n")
        if number in self.bad:
            raise DataError(f"/mnt/{self.name(index)}: damaged image: cut off")
        height, width, channels = 8 + number % 5, 9 + number % 4, 1 + 2 * (number % 2)
        return np.random.default_rng(number).integers(0, 256, (height, width, channels), dtype=np.uint8)

    def take(self, indices: np.ndarray) -> LoggedImages:
        return replace(self, numbers=[self.numbers[index] for index in indices])

    def join(self, others: Sequence[LoggedImages]) -> LoggedImages:
        return replace(self, numbers=[number for part in (self, *others) for number in part.numbers])


def make_logged_split(
    log: Path, count: int = 50, *, bad: Sequence[int] = (), pause: float = 0.0, first: int = 0
) -> Split:
    """Return `count` images of noise, from number `first` on, of three classes in turn."""
    numbers = range(first, first + count)
    samples = LoggedImages(numbers, log, frozenset(bad), pause)
    return Split(samples, np.array(numbers, dtype=np.int64) % 3, np.array(numbers, dtype=np.uint64) + 1)


def series_of(*rows: Sequence[float]) -> np.ndarray:
    """Return a series with a row for each channel."""
    return np.array(rows, dtype=np.float32)


def noise(channels: int, steps: int) -> np.ndarray:
    """Return a series of normally distributed values, the same whenever it is as long."""
    return np.random.default_rng(steps).normal(size=(channels, steps)).astype(np.float32)
