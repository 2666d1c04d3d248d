"""What is decoded is what was encoded, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from falconet.codec import decode, encode, read_header
from falconet.errors import CodecError
from tests.codec.builders import HEADER, assert_identical, make_arrays, make_network

KINDS = ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")


def test_every_kind_in_one_file() -> None:
    data = encode(HEADER, make_arrays())
    header, arrays = decode(data)
    assert header == HEADER == read_header(data)
    assert_identical(arrays, make_arrays())


@pytest.mark.parametrize("name", make_arrays())
def test_every_kind_alone(name: str) -> None:
    arrays = {name: make_arrays()[name]}
    assert_identical(decode(encode({}, arrays))[1], arrays)


def test_nothing_at_all() -> None:
    assert decode(encode({}, {})) == ({}, {})


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9),
        st.sampled_from(KINDS).flatmap(
            lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6))
        ),
        max_size=4,
    )
)
@settings(max_examples=50)
def test_any_arrays(arrays: dict[str, np.ndarray]) -> None:
    assert_identical(decode(encode({}, arrays))[1], arrays)


@pytest.mark.slow
@given(
    hnp.arrays("i4", hnp.array_shapes(max_dims=4, max_side=9), elements=st.integers(-32768, 32767), fill=st.just(0)),
    st.floats(2.0**-40, 2.0**40, width=32),
    st.booleans(),
)
@settings(max_examples=40)
def test_any_grid(integers: np.ndarray, step: float, by_row: bool) -> None:
    steps = np.float32(step) * (np.arange(1, len(integers) + 1, dtype=np.float32) if by_row else np.float32(1))
    values = (integers.reshape(len(integers), -1) * np.reshape(steps, (-1, 1))).astype(np.float32)
    arrays = {"a": values.reshape(integers.shape)}
    assert_identical(decode(encode({}, arrays))[1], arrays)


@given(
    hnp.arrays("f4", st.integers(1, 300), elements=st.floats(width=32)),
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=12),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_any_table(entries: np.ndarray, shape: tuple[int, ...], seed: int) -> None:
    arrays = {"a": np.random.default_rng(seed).choice(entries, shape)}
    assert_identical(decode(encode({}, arrays))[1], arrays)


@pytest.mark.parametrize("density", [1e-4, 0.01, 0.3, 0.97])
@pytest.mark.parametrize("shape", [(40, 60), (300,), (1, 70), (70, 1), (8, 6, 3, 3), (30, 1, 5), (5, 2, 1, 4, 3)])
def test_any_sparsity(shape: tuple[int, ...], density: float) -> None:
    generator = np.random.default_rng(0)
    integers = generator.integers(-9, 10, shape) * (generator.random(shape) < density)
    integers.flat[-1] = 5
    arrays: dict[str, np.ndarray] = {"a": integers, "b": (integers * np.float32(0.75)).astype(np.float32)}
    assert_identical(decode(encode({}, arrays))[1], arrays)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1300, 1000), (3, (1 << 20) + 5), ((1 << 20) + 9,)])
def test_more_than_a_stripe(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    integers = generator.integers(-3, 4, shape) * (generator.random(shape) < 0.01)
    integers[-1:] = 0  # The last stripe of a matrix then has rows without anything.
    arrays = {"a": integers.astype(np.int8)}
    assert_identical(decode(encode({}, arrays))[1], arrays)


def test_the_sparse_network() -> None:
    arrays = make_network(0, 2500)
    assert_identical(decode(encode(HEADER, arrays))[1], arrays)


def test_order_of_memory_and_of_bytes_do_not_matter() -> None:
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5) / 8
    wanted = encode({}, {"a": array})
    for other in (np.asfortranarray(array), array.astype(">f4"), array[:, ::-1][:, ::-1]):
        assert encode({}, {"a": other}) == wanted


def test_arrays_can_be_written_to() -> None:
    _, arrays = decode(encode({}, make_arrays()))
    assert all(array.flags.writeable and array.flags.c_contiguous for array in arrays.values())


@pytest.mark.parametrize(
    ("header", "arrays"),
    [
        ({"a": float("nan")}, {}),
        ({"a": {1, 2}}, {}),
        ({"a": "x" * (1 << 20)}, {}),
        ({}, {"a": np.zeros(2, dtype=np.complex64)}),
        ({}, {"a": np.array(["x"])}),
        ({}, {"a\0b": np.zeros(2)}),
        ({}, {"a": np.zeros((1,) * 17)}),
    ],
)
def test_what_the_format_cannot_hold_is_refused(header: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(CodecError, match="wanted"):
        encode(header, arrays)
