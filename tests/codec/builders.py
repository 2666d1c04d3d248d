"""Arrays of every kind, small sparse networks, and files whose inside is altered under a right checksum."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from falconet.codec.container import CHECKSUM_BYTES, MAGIC, VERSION, inflate, read_varint, write_varint
from falconet.codec.dictionary import DICTIONARY

HEADER: Mapping[str, Any] = {
    "architecture": "lenet5_caffe",
    "input": {"kind": "image", "labels": [str(digit) for digit in range(10)], "mean": [0.1307], "std": [0.3081]},
    "Ärger": [None, True, -1.5, {}],
}


def spread(count: int, size: int) -> np.ndarray:
    """Return integers in 0 ... size - 1 that look random, and are the same with every version of numpy."""
    state, result = 1, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % (1 << 31)
        result.append((state >> 8) % size)
    return np.array(result, dtype=np.int64)


def make_arrays() -> dict[str, np.ndarray]:
    """Return an array of every kind and type, with what is on an edge."""
    sparse = np.where(spread(400, 4).reshape(20, 5, 2, 2) == 0, spread(400, 15).reshape(20, 5, 2, 2) - 7, 0)
    sparse[[2, 3, 11]] = 0
    sparse[:, 3] = 0
    centroids = (spread(15, 1 << 22) / (1 << 20)).astype(np.float32) - np.float32(2)
    centroids[7] = 0
    words = spread(60, 1 << 23) * 512 + spread(60, 512)
    return {
        "grid": (sparse * np.float32(0.046875)).astype(np.float32),
        "next": ((spread(120, 3).reshape(6, 20) - 1) * np.float32(0.25)).astype(np.float32),
        "channels": (sparse * np.float32(2.0) ** -np.arange(1, 21, dtype=np.float32)[:, None, None, None]).astype("f4"),
        "wide": (spread(300, 60001) - 30000).reshape(20, 15) * np.float32(2.0**-12),
        "table": centroids[sparse + 7],
        "brain": (spread(90, 40).astype(np.uint32) << 20).view(np.float32).reshape(9, 10),
        "half": (spread(90, 50) / 1024 + 1).astype(np.float16).astype(np.float32),
        "floats": words.astype(np.uint32).view(np.float32),
        "doubles": (words * (1 << 31) + words[::-1]).view(np.float64),
        "halves": words.astype(np.uint16).view(np.float16).reshape(3, 4, 5),
        "odd": np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, 3.4e38], dtype=np.float32),
        "payloads": np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0, 0x80000000], dtype=np.uint32).view(np.float32),
        "zeros": np.zeros((7, 3, 2), dtype=np.float32),
        "ones": np.ones(64, dtype=np.float32),
        "negative zeros": np.full(9, -0.0, dtype=np.float32),
        "counter": np.array(46900),
        "scalar": np.array(-1.1),
        "empty": np.zeros((0, 3), dtype=np.float16),
        "flags": spread(70, 3).reshape(7, 10) == 0,
        "few": spread(200, 1 << 31)[spread(40, 200) % 9].astype(np.int32).reshape(4, 10),
        **{
            f"all {kind}": np.resize(words, (5, 12)).astype(kind)
            for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
        },
    }


def make_network(seed: int, nonzeros: int, ratio: float = 0.5) -> dict[str, np.ndarray]:
    """Return a pruned LeNet-5-Caffe: rows and columns of log-normal densities, many dead; 3 bits and a sign."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    alive: np.ndarray = np.ones(1, dtype=bool)
    shapes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
    for (name, shape), share in zip(shapes.items(), (0.05, 0.3, 0.55, 0.1), strict=True):
        rows, columns = shape[0], int(np.prod(shape[1:]))
        row = generator.lognormal(size=rows) * (generator.random(rows) > (0 if name in ("conv1", "fc2") else 0.3))
        column = generator.lognormal(size=columns) * (generator.random(columns) > (0 if name == "conv1" else 0.4))
        column *= np.repeat(alive, columns // len(alive))
        mask = draw_mask(generator, row, column, share * nonzeros)
        values = generator.choice([-1, 1], mask.shape) * np.minimum(generator.geometric(ratio, mask.shape), 7)
        arrays[f"{name}.weight"] = (np.where(mask, values, 0) * np.float32(0.02197265625)).reshape(shape)
        bias = generator.integers(-7, 8, rows) * (generator.random(rows) < 0.3)
        arrays[f"{name}.bias"] = bias * np.float32(0.015625)
        alive = np.any(mask, axis=1)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def draw_mask(generator: np.random.Generator, row: np.ndarray, column: np.ndarray, count: float) -> np.ndarray:
    density = np.outer(row, column)
    factor = count / density.sum()
    for _ in range(20):
        factor *= count / np.minimum(1, factor * density).sum()
    mask: np.ndarray = generator.random(density.shape) < np.minimum(1, factor * density)
    return mask


def assert_identical(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def take_apart(data: bytes) -> tuple[bytes, bytes]:
    """Return the inflated front and the coded values."""
    size, start = read_varint(data, len(MAGIC) + 1)
    return inflate(data[start : start + size]), data[start + size : -CHECKSUM_BYTES]


def put_together(front: bytes, stream: bytes) -> bytes:
    """Return a file with a right checksum."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=DICTIONARY)
    packed = compressor.compress(front) + compressor.flush()
    return mend(MAGIC + bytes([VERSION]) + write_varint(len(packed)) + packed + stream)


def mend(content: bytes) -> bytes:
    """Return content followed by its checksum."""
    return content + zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")
