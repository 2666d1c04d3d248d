"""The format is the one that docs/fnet.md tells, and stays so."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from falconet.codec import decode, encode
from falconet.codec.coder import CHANCES, LIMIT, Decoder, Encoder, log2, squash
from falconet.codec.dictionary import DICTIONARY
from tests.codec import reader
from tests.codec.builders import HEADER, assert_identical, make_arrays, make_network

GOLDEN = Path(__file__).with_name("golden.fnet")
DOCUMENT = Path(__file__).parents[2] / "docs" / "fnet.md"


def test_golden_file_is_still_read() -> None:
    header, arrays = decode(GOLDEN.read_bytes())
    assert header == HEADER
    assert_identical(arrays, make_arrays())


def test_golden_file_is_read_by_the_naive_reader() -> None:
    header, arrays = reader.read(GOLDEN.read_bytes())
    assert header == HEADER
    assert_identical(arrays, make_arrays())


@pytest.mark.parametrize("name", make_arrays())
def test_naive_reader_reads_what_is_written(name: str) -> None:
    arrays = {name: make_arrays()[name]}
    assert_identical(reader.read(encode({}, arrays))[1], arrays)


@pytest.mark.slow
def test_naive_reader_reads_a_network() -> None:
    arrays = make_network(1, 2500)
    assert_identical(reader.read(encode({}, arrays))[1], arrays)


def test_naive_reader_reads_modeled_signs_and_scales() -> None:
    generator = np.random.default_rng(0)
    scale, sign = 4.0 ** generator.uniform(0, 3, (24, 1, 1)), np.sign(generator.standard_normal((24, 5, 1)))
    values = np.rint(scale * sign * np.abs(generator.normal(1, 0.3, (24, 5, 9)))).astype(np.int16)
    arrays: dict[str, np.ndarray] = {"a": values, "b": (values * 8).astype(np.int32)}
    data = encode({}, arrays)
    assert_identical(reader.read(data)[1], arrays)
    assert_identical(decode(data)[1], arrays)


def test_dictionary_is_as_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert hashlib.sha256(DICTIONARY).hexdigest() in text
    assert f"{len(DICTIONARY):,} bytes" in text


def test_chances_are_the_same_everywhere() -> None:
    assert [int(65536 * chance) for chance in CHANCES] == [reader.squash(logit) for logit in range(-LIMIT, LIMIT)]
    digest = hashlib.sha256((65536 * CHANCES).astype("<u4").tobytes()).hexdigest()
    assert digest == "c636697177a5008810e84d4e3c06e31829202525873e59d4c70d82e53a7c342f"


def test_chances_and_logarithms_are_what_they_stand_for() -> None:
    logits = np.arange(-LIMIT, LIMIT)
    np.testing.assert_allclose(squash(logits), 1 / (1 + 2.0 ** (-logits / 256)), atol=3e-5)
    assert squash(np.array([-(10**6), 10**6])).tolist() == [1 / 65536, 65534 / 65536]
    values = np.array([2.0**-16, 0.75, 1, 3, 100.5, 2.0**35])
    np.testing.assert_allclose(log2(values) / 256, np.log2(values), atol=0.008)
    offset = 16 * 256
    assert (log2(values) + offset).tolist() == [reader.log(int(value * 65536)) for value in values]


def test_tables_do_not_depend_on_rounding() -> None:
    numbers = [256 * math.log2(1 + i / 256) for i in range(256)] + [65536 * 2 ** (i / 256) for i in range(256)]
    assert min(abs(number % 1 - 0.5) for number in numbers) > 1e-4


def test_coder_gives_back_what_it_took() -> None:
    generator = np.random.default_rng(0)
    chances = generator.integers(1, 65536, 3000) / 65536
    bits = (generator.random(3000) < chances).astype(np.int64)
    sizes = generator.integers(1, 65537, 500)
    numbers = generator.integers(0, sizes)
    encoder = Encoder()
    encoder.code(chances, bits)
    encoder.code_evenly(sizes, numbers)
    data = encoder.finish()
    decoder, naive = Decoder(data, encoder.decisions), reader.RangeReader(data)
    assert decoder.code(chances).tolist() == bits.tolist()
    assert decoder.code_evenly(sizes).tolist() == numbers.tolist()
    decoder.finish()
    assert [naive.bit(round(chance * 65536)) for chance in chances] == bits.tolist()
    assert [naive.number(int(size)) for size in sizes] == numbers.tolist()
    ideal = -np.log2(np.where(bits == 1, chances, 1 - chances)).sum() + np.log2(sizes).sum()
    assert len(data) * 8 < 1.001 * ideal + 64
