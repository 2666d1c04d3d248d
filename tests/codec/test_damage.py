"""Whatever is read ends in an answer or in a CodecError of one line, soon and without much memory."""

from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.codec import decode, encode, read_header
from falconet.codec.coder import Decoder, Encoder, count_allowed
from falconet.codec.container import MAGIC, write_varint
from falconet.codec.words import code_bytes
from falconet.errors import CodecError
from tests.codec.builders import make_arrays, mend, put_together, take_apart

SMALL = {name: array[:4] for name, array in make_arrays().items() if array.ndim} | {"counter": np.array(46900)}
FILE = encode({"a": [1, "b"]}, SMALL)
SINGLE = [encode({}, {name: array}) for name, array in SMALL.items()]


def attempt(data: bytes) -> None:
    message = "-"
    try:
        _, arrays = decode(data, max_elements=4000)
        assert sum(array.size for array in arrays.values()) <= 4000
    except CodecError as error:
        message = str(error)
    assert len(message.splitlines()) == 1


def test_every_shorter_file_is_refused() -> None:
    for size in range(len(FILE)):
        with pytest.raises(CodecError):
            decode(FILE[:size])


def test_every_altered_byte_is_noticed() -> None:
    for place in range(len(FILE)):
        data = bytearray(FILE)
        data[place] ^= 1 << place % 8
        with pytest.raises(CodecError):
            decode(bytes(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "begins with"),
        (MAGIC, "cut short"),
        (FILE[:9], "checksum"),
        (FILE + b"\0", "checksum"),
        (MAGIC + b"\2" + FILE[5:], "version 1 or lower, found 2: update falconet"),
        (mend(MAGIC + b"\0" + FILE[5:-4]), "checksum"),
        (mend(FILE[:-4] + b"\0"), "zeros that nobody wrote"),
        (mend(FILE[:-4] + b"more, and more"), "more than its tensors"),
        (mend(FILE[:5] + b"\xff\xff\xff\xff\xff\xff" + FILE[6:-4]), "no end"),
        (mend(FILE[:5] + write_varint(9999) + FILE[6:-4]), "longer than the file"),
    ],
)
def test_each_damage_has_its_message(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode(data)


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (b"", "no end"),
        (b"{}", "no end"),
        (b"[]\0", "JSON object"),
        (b"{\0", "no JSON"),
        (b"\xff\0", "damaged"),
        (b'{"a":NaN}\0', "no JSON"),
        (b'{"a":' + b"9" * 5000 + b"}\0", "no JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\0", "no JSON"),
        (b"{}\0a", "no end"),
        (b"{}\0a\0", "no type"),
        (b"{}\0a\0\x0c\0", "no type"),
        (b"{}\0a\0\x0a\x11", "too many axes"),
        (b"{}\0a\0\x0a\x01", "no end"),
        (b"{}\0a\0\x0a\x01\xff\xff\xff\xff\xff\xff\x01", "no end"),
        (b"{}\0" + 2 * b"a\0\x0a\x00", "twice"),
        (b"{}\0" + b"".join(b"%d\0\x0a\x00" % number for number in range(20_000)), "16384 arrays"),
        (b"{}\0a\0\x0a\x04" + 4 * b"\xff\xff\xff\xff\x7f", "2048 for each byte of the file"),
        (b"{}\0a\0\x0a\x04\0" + 3 * b"\xff\xff\xff\xff\x7f", "2048 for each byte of the file"),
        (b'{"a":"' + b" " * (1 << 20) + b'"}\0', "too large"),
    ],
)
def test_each_damage_of_the_front_has_its_message(front: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode(put_together(front, b""))


def test_the_header_is_read_though_values_are_damaged() -> None:
    front, stream = take_apart(FILE)
    assert read_header(put_together(front, stream[: len(stream) // 2])) == {"a": [1, "b"]}


def test_a_small_file_that_inflates_hugely_takes_little_memory() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(64 << 20)) + compressor.flush()
    tracemalloc.start()
    with pytest.raises(CodecError, match="too large"):
        decode(mend(MAGIC + b"\1" + write_varint(len(bomb)) + bomb))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_values_are_counted_before_memory_is_taken() -> None:
    data = encode({}, {"a": np.zeros((30, 40), np.float32), "b": np.zeros((0, 7))})
    assert decode(data, max_elements=1207)[1]["a"].shape == (30, 40)
    with pytest.raises(CodecError, match="holds 1207 values: wanted at most 1206"):
        decode(data, max_elements=1206)


def test_what_says_nothing_is_not_written_to_be_refused() -> None:
    with pytest.raises(CodecError, match=r"2048 for each byte of the file, found 16000000 in \d\d bytes"):
        encode({}, {"a": np.zeros(4_000_000, np.float32)})


def test_what_takes_too_many_decisions_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    encode({}, {"a": np.arange(40)})
    monkeypatch.setattr("falconet.codec.container.count_allowed", lambda _: 30)
    with pytest.raises(CodecError, match="wanted at most 4194304 decisions, and 512 for each byte, found more"):
        encode({}, {"a": np.arange(40)})


def make_bomb(dtype: int, size: int, stream: bytes) -> bytes:
    """Return a file of one vector."""
    return put_together(b"{}\0a\0" + bytes([dtype, 1]) + write_varint(size), stream)


@pytest.mark.parametrize("stream", [b"", b"\xfe" * 31, b"\x90\x01\x7f" * 300, b"\xcc\xcc" * 40, b"\x99" * 999])
@pytest.mark.parametrize(("dtype", "size"), [(8, 1 << 19), (11, 1 << 19), (10, 1 << 20), (2, 1 << 22), (11, 1 << 26)])
def test_a_small_file_makes_few_decisions(
    dtype: int, size: int, stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    read = Decoder._decode

    def count(self: Decoder, model: object, parameters: np.ndarray) -> np.ndarray:
        nonlocal made
        made += len(parameters)
        return read(self, model, parameters)

    monkeypatch.setattr(Decoder, "_decode", count)
    data = make_bomb(dtype, size, stream)
    with suppress(CodecError):
        decode(data)
    assert made <= count_allowed(len(data))


def test_decisions_that_say_nothing_are_counted() -> None:
    # All planes of a million doubles by how often each byte was seen, where the likeliest is always right.
    encoder = Encoder()
    encoder.code_number(5, 4)
    for _ in range(8):
        encoder.code_number(3, 2)
        code_bytes(encoder, 1 << 17, np.zeros(1 << 17, np.int64))
    assert encoder.decisions > 64 << 17
    data = make_bomb(11, 1 << 17, encoder.finish())
    assert len(data) < 1000
    with pytest.raises(CodecError, match="wanted at most 4194304 decisions"):
        decode(data)


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_bytes(data: bytes) -> None:
    attempt(data)
    attempt(MAGIC + data)
    attempt(mend(MAGIC + b"\1" + data))


@given(st.sampled_from(SINGLE), st.binary(max_size=80))
@settings(max_examples=100)
def test_any_values(data: bytes, stream: bytes) -> None:
    attempt(put_together(take_apart(data)[0], stream))


@given(st.sampled_from(SINGLE), st.binary(max_size=12), st.integers(0, 400), st.integers(0, 12))
@settings(max_examples=100)
def test_any_alteration_of_names_and_values(data: bytes, piece: bytes, place: int, width: int) -> None:
    front, stream = take_apart(data)
    place %= len(front) + len(stream) + 1
    if place <= len(front):
        front = front[:place] + piece + front[place + width :]
    else:
        place -= len(front)
        stream = stream[:place] + piece + stream[place + width :]
    attempt(put_together(front, stream))
