"""How small `model.fnet` is, and how soon it is read: published weights, and pruned networks made by chance.

SqueezeNet v1.0 is given as the float32 arrays that the published file of Deep Compression (Han et al., 2016) decodes
to; the peer is that file. The random networks have the layers of LeNet-5-Caffe and were never trained: their weights
are drawn, most are zero, and rows and columns have log-normal densities, many of them dead. They show how the coder
takes to such patterns, not how small a trained network becomes.
"""

from __future__ import annotations

import argparse
import bz2
import lzma
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from record import Row, decide, mean, save, seed_interval

from falconet.codec import decode, encode

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.codec.builders import HEADER, assert_identical, make_network

PUBLISHED = 675_763
"""Bytes of compressed_SqueezeNet.net."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squeezenet", type=Path, required=True, help="squeezenet_v1.0_decoded.npz")
    parser.add_argument("--rounds", type=int, default=30, help="of decoding; 0: sizes alone")
    arguments = parser.parse_args()
    save("codec", [measure_squeezenet(arguments.squeezenet), *measure_networks()])
    if arguments.rounds:
        save("codec-speed", time_decoding(arguments.rounds))


def measure_squeezenet(path: Path) -> Row:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    data = encode({}, arrays)
    assert_identical(decode(data)[1], arrays)
    size = len(data)
    params = sum(array.size for array in arrays.values())
    name = "SqueezeNet v1.0 of Deep Compression, bit-exact"
    return Row(
        name, size, "bytes", 1, 0.0, "<= 540000", size <= 540_000, "published file", PUBLISHED, PUBLISHED / size,
        params, interval=(size, size),
    )  # fmt: skip


def time_decoding(rounds: int) -> list[Row]:
    """Return wall time and processor time of decoding a file of about 50 kB, in one warm process."""
    data = encode(HEADER, make_network(0, 150_000, 0.3))
    walls, processors = [], []
    decode(data)
    for _ in range(rounds):
        wall, processor = time.perf_counter(), time.process_time()
        decode(data)
        walls.append(1000 * (time.perf_counter() - wall))
        processors.append(1000 * (time.process_time() - processor))
    title = f"random network in the layers of LeNet-5-Caffe, {len(data):,} bytes: decoding"
    value, std = mean(processors)
    interval = seed_interval(processors)
    return [
        Row(f"{title}, time of the processor", value, "ms", rounds, std, "< 50", decide(value, interval, most=50.0),
            interval=interval, over="rounds"),
        Row(f"{title}, wall time", mean(walls)[0], "ms", rounds, mean(walls)[1]),
    ]  # fmt: skip


def measure_networks() -> list[Row]:
    rows = []
    for nonzeros in (2000, 4000):
        arrays = make_network(1, nonzeros)
        size, count = len(encode(HEADER, arrays)), sum(int(np.count_nonzero(array)) for array in arrays.values())
        for peer, bytes_ in compress_otherwise(arrays).items():
            name = f"random network in the layers of LeNet-5-Caffe with {count:,} non-zeros, against {peer}"
            rows.append(Row(name, size, "bytes", 1, 0.0, peer=peer, peer_value=bytes_, ratio=bytes_ / size))
    return rows


def compress_otherwise(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return bytes of the values by other means: of float32, and of the same as 8-bit integers."""
    whole = b"".join(array.tobytes() for array in arrays.values())
    steps = (float(np.abs(array[array != 0]).min(initial=1)) for array in arrays.values())
    integers = [np.rint(array / step).astype(np.int8) for array, step in zip(arrays.values(), steps, strict=True)]
    small = b"".join(array.tobytes() for array in integers)
    return {
        "entropy of order 0 of each array": sum(map(entropy, integers)),
        "zlib of float32": len(zlib.compress(whole, 9)),
        "lzma of float32": len(lzma.compress(whole, preset=9 | lzma.PRESET_EXTREME)),
        "lzma of int8": len(lzma.compress(small, preset=9 | lzma.PRESET_EXTREME)),
        "bz2 of int8": len(bz2.compress(small, 9)),
    }


def entropy(array: np.ndarray) -> float:
    counts = np.unique(array, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) / 8


if __name__ == "__main__":
    main()
