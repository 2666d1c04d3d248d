"""Files are as small as the structure of what they hold allows."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import numpy as np
import pytest

from falconet.codec import decode, encode
from tests.codec.builders import HEADER, assert_identical, make_network


def size_of(*arrays: np.ndarray) -> int:
    """Return the bytes that arrays take beyond an empty file and their names."""
    named = {str(number): array for number, array in enumerate(arrays)}
    return len(encode({}, named)) - len(encode({}, {name: array[:0] for name, array in named.items()}))


def entropy(counts: np.ndarray) -> float:
    """Return the bytes of symbols with these counts, each by itself, their frequencies known."""
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) / 8


def order_0(array: np.ndarray) -> float:
    return entropy(np.unique(array, return_counts=True)[1])


def test_constant_arrays_cost_about_a_byte_each() -> None:
    arrays = [np.zeros((64, 3, 3), np.float32), np.ones(64, np.float32), np.full(9, 2.0, np.float32)] * 20
    assert size_of(*arrays) <= 1.75 * len(arrays)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_grid_without_any_structure_costs_its_entropy(bits: int, density: float) -> None:
    generator = np.random.default_rng(bits)
    largest = 2 ** (bits - 1) - 1
    integers = np.clip(np.rint(generator.laplace(0, largest / 3, (120, 250))), -largest, largest).astype(int)
    integers *= generator.random(integers.shape) < density
    array = (integers * np.float32(0.01171875)).astype(np.float32)
    # Frequencies are not known beforehand: each symbol that occurs costs half a logarithm of the count.
    allowed = 1.01 * order_0(integers) + len(np.unique(integers)) * 1.5 + 16
    assert 0.99 * order_0(integers) < size_of(array) < allowed


def test_table_costs_its_entropy_and_its_entries() -> None:
    generator = np.random.default_rng(0)
    centroids = np.sort(generator.standard_normal(256).astype(np.float32))
    integers = np.clip(np.rint(generator.normal(128, 30, (200, 200))), 0, 255).astype(int)
    assert size_of(centroids[integers]) < 1.01 * order_0(integers) + 256 * 3.25 + 100


def test_short_floats_cost_their_bits() -> None:
    generator = np.random.default_rng(0)
    brain = (generator.integers(0, 1 << 15, 5000).astype(np.uint32) << 16).view(np.float32)
    half = generator.uniform(0, 1, 5000).astype(np.float16).astype(np.float32)
    assert size_of(brain) < 5000 * 15.2 / 8 + 150
    assert size_of(half) < 5000 * 12.4 / 8 + 150
    assert size_of(generator.standard_normal(5000).astype(np.float32)) < 5000 * 28 / 8


def test_steps_of_channels_pay() -> None:
    generator = np.random.default_rng(0)
    integers = generator.integers(-7, 8, (40, 200))
    steps = (generator.integers(129, 256, 40) / 2**12).astype(np.float32)
    array = (integers * steps[:, None]).astype(np.float32)
    assert size_of(array) < 1.02 * order_0(integers) + 40 * 2 + 20


def test_network_with_dead_units_costs_far_less_than_its_entropy() -> None:
    arrays = make_network(0, 3000)
    data = encode(HEADER, arrays)
    plain = sum(order_0(array) for array in arrays.values())
    assert len(data) < 0.9 * plain
    assert len(data) < 0.5 * len(lzma.compress(b"".join(array.tobytes() for array in arrays.values()), preset=9))


def test_dead_rows_tell_the_dead_columns_of_the_next_array() -> None:
    generator = np.random.default_rng(0)
    alive = generator.random(400) < 0.5
    first = generator.integers(1, 4, (400, 3)) * alive[:, None]
    second = generator.integers(1, 4, (3, 800)) * np.repeat(alive, 2)
    other = generator.integers(1, 4, (3, 800)) * np.repeat(generator.permutation(alive), 2)
    assert size_of(first, second) < size_of(first, other) - 80


def test_header_of_a_usual_model_costs_little() -> None:
    names = {f"{name}.{end}": np.zeros((2, 2), np.float32) for name in ("conv1", "fc1") for end in ("weight", "bias")}
    assert len(encode(HEADER, names)) < 110


@pytest.mark.slow
def test_squeezenet_of_deep_compression() -> None:
    """Its published weights, where they are at hand: FALCONET_SQUEEZENET names the file of decoded arrays."""
    path = os.environ.get("FALCONET_SQUEEZENET")
    if path is None:
        pytest.skip("FALCONET_SQUEEZENET is not set")
    with np.load(Path(path)) as file:
        arrays = {name: file[name] for name in file.files}
    data = encode({}, arrays)
    assert len(data) <= 530_000
    assert_identical(decode(data)[1], arrays)
