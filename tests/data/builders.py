"""Small data sets in memory and on disk, made for these tests."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from PIL import Image

from falconet.data import Dataset, ImageArray, Split
from falconet.data.dataset import hash_arrays


def make_split(
    labels: Sequence[int], content: Sequence[int] | None = None, size: tuple[int, int] = (4, 4), channels: int = 1
) -> Split:
    """Return a split of arrays; samples with equal `content` have equal pixels, None: all differ."""
    content = range(len(labels)) if content is None else content
    images = np.zeros((len(labels), *size, channels), dtype=np.uint8)
    images[:, 0, :4, 0] = np.array(content, dtype="<u4").view(np.uint8).reshape(-1, 4)
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
