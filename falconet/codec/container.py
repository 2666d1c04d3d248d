"""The file format `model.fnet`: a header and named arrays <-> bytes. See docs/fnet.md."""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from falconet.codec.coder import TOO_MANY, Decoder, Encoder, count_allowed
from falconet.codec.dictionary import DICTIONARY
from falconet.codec.symbols import Memory
from falconet.codec.tensors import TYPES, code_tensor
from falconet.errors import CodecError

MAGIC = b"fnet"
VERSION = 1
_MAX_HEADER = 1 << 20
"""Bytes of header and names together, inflated."""
_MAX_TENSORS = 1 << 14
_MAX_ELEMENTS = 1 << 26
FREE_BYTES, EXPANSION = 1 << 22, 1 << 11
"""Most bytes of decoded values: a constant, plus so many for each byte of the file, so that small files cost little to
read. A million weights in single precision fit a file of any size; beyond these, a network may shrink to a 2,048th."""
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Entry:
    """One array, without its values."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


def encode(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the content of a `model.fnet` that holds plain data and arrays, in this order, without any loss.

    Raises CodecError for what the format cannot hold: another type than TYPES, a header that is not JSON or too large,
    millions of values that compress to almost nothing.
    """
    arrays = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    entries = [Entry(name, _find_type(name, array), array.shape) for name, array in arrays.items()]
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=DICTIONARY)
    front = compressor.compress(_write_front(header, entries)) + compressor.flush()
    encoder, memory = Encoder(), Memory()
    for entry, array in zip(entries, arrays.values(), strict=True):
        if array.size:
            code_tensor(encoder, memory, entry.dtype, entry.shape, array.astype(entry.dtype, copy=False))
    content = MAGIC + bytes([VERSION]) + write_varint(len(front)) + front + encoder.finish()
    content += zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")
    _check_size(entries, len(content), sys.maxsize)
    if encoder.decisions > count_allowed(len(content)):
        raise CodecError(TOO_MANY)
    return content


def decode(data: bytes, *, max_elements: int = _MAX_ELEMENTS) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays of a `model.fnet`. Raises CodecError where it is none, damaged, too new or too large."""
    header, entries, stream = open_file(data)
    _check_size(entries, len(data), max_elements)
    decoder, memory, tensors = Decoder(stream, count_allowed(len(data))), Memory(), {}
    for entry in entries:
        if math.prod(entry.shape):
            tensors[entry.name] = code_tensor(decoder, memory, entry.dtype, entry.shape, None)
        else:
            tensors[entry.name] = np.zeros(entry.shape, dtype=entry.dtype)
    decoder.finish()
    return header, tensors


def _check_size(entries: list[Entry], length: int, most: int) -> None:
    """Raise CodecError where a file of this length holds more values, or more bytes of them, than it may."""
    # Empty axes count as one, so that no shape is beyond what numpy can hold.
    counts = [math.prod(max(size, 1) for size in entry.shape) for entry in entries]
    wanted = sum(count * entry.dtype.itemsize for count, entry in zip(counts, entries, strict=True))
    if wanted > FREE_BYTES + EXPANSION * length:
        raise CodecError(
            f"wanted at most {FREE_BYTES} bytes of values, and {EXPANSION} for each byte of the file, "
            f"found {wanted} in {length} bytes"
        )
    if sum(counts) > most:
        raise CodecError(f"the file holds {sum(counts)} values: wanted at most {most}; raise max_elements to read it")


def read_header(data: bytes) -> dict[str, Any]:
    """Return the header alone. Raises CodecError as `decode` does, except for damaged values."""
    return open_file(data)[0]


def read_outline(data: bytes) -> tuple[dict[str, Any], list[Entry]]:
    """Return the header, and the arrays' entries without their values. Raises CodecError as `read_header` does."""
    header, entries, _ = open_file(data)
    _check_size(entries, len(data), _MAX_ELEMENTS)
    return header, entries


def open_file(data: bytes) -> tuple[dict[str, Any], list[Entry], bytes]:
    """Return the header, the arrays' entries, and their coded values."""
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC:
        raise CodecError(f"wanted a coded model, which begins with {MAGIC.decode()}, found another file")
    start = len(MAGIC) + 1
    if len(data) < start + CHECKSUM_BYTES:
        raise CodecError("the file is cut short")
    if data[start - 1] > VERSION:
        raise CodecError(f"wanted format version {VERSION} or lower, found {data[start - 1]}: update falconet")
    content, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if data[start - 1] < 1 or zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        raise CodecError("the file is cut short or altered: its checksum is another one")
    size, start = read_varint(content, start)
    if size > len(content) - start:
        raise CodecError("the file is damaged: its header is longer than the file")
    header, entries = _read_front(inflate(content[start : start + size]))
    stream = content[start + size :]
    if stream.endswith(b"\0"):
        raise CodecError("the file is damaged: it ends in zeros that nobody wrote")
    return header, entries, stream


def inflate(data: bytes) -> bytes:
    decompressor = zlib.decompressobj(-15, zdict=DICTIONARY)
    try:
        front = decompressor.decompress(data, _MAX_HEADER + 1)
    except zlib.error as error:
        raise CodecError(f"the file is damaged: {error}") from error
    if len(front) > _MAX_HEADER:
        raise CodecError(f"the file's header is too large: wanted at most {_MAX_HEADER} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise CodecError("the file is damaged: its header does not end where it should")
    return front


def _write_front(header: Mapping[str, Any], entries: list[Entry]) -> bytes:
    """Return header and entries as bytes: JSON, a zero byte, then each name, a zero byte, type, axes and sizes."""
    try:
        text = json.dumps(dict(header), separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
        content = b"".join([text.encode(), b"\0", *map(_write_entry, entries)])
    except (TypeError, ValueError, RecursionError) as error:
        raise CodecError(f"header: wanted what JSON can hold: {error}") from error
    if len(content) > _MAX_HEADER or len(entries) > _MAX_TENSORS:
        raise CodecError(
            f"wanted at most {_MAX_HEADER} bytes of header and names and {_MAX_TENSORS} arrays, "
            f"found {len(content)} and {len(entries)}"
        )
    return content


def _write_entry(entry: Entry) -> bytes:
    if "\0" in entry.name:
        raise ValueError(f"the name {entry.name!r} holds a zero byte")
    head = entry.name.encode() + bytes([0, TYPES.index(entry.dtype), len(entry.shape)])
    return head + b"".join(map(write_varint, entry.shape))


def _read_front(content: bytes) -> tuple[dict[str, Any], list[Entry]]:
    text, position = read_text(content, 0)
    try:
        header = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"the file is damaged: its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise CodecError(f"the file is damaged: wanted a JSON object, found {type(header).__name__}")
    entries: dict[str, Entry] = {}
    while position < len(content):
        entry, position = _read_entry(content, position)
        if entry.name in entries or len(entries) == _MAX_TENSORS:
            raise CodecError(
                f"the file is damaged: {entry.name!r} comes twice, or there are over {_MAX_TENSORS} arrays"
            )
        entries[entry.name] = entry
    return header, list(entries.values())


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_MAX_AXES = 16


def _read_entry(content: bytes, position: int) -> tuple[Entry, int]:
    name, position = read_text(content, position)
    if position + 2 > len(content) or content[position] >= len(TYPES) or content[position + 1] > _MAX_AXES:
        raise CodecError(f"the file is damaged: {name!r} has no type or too many axes")
    dtype, axes = TYPES[content[position]], content[position + 1]
    position += 2
    shape = []
    for _ in range(axes):
        size, position = read_varint(content, position)
        shape.append(size)
    return Entry(name, dtype, tuple(shape)), position


def read_text(content: bytes, position: int) -> tuple[str, int]:
    """Return the UTF-8 text up to a zero byte, and what follows that."""
    end = content.find(b"\0", position)
    try:
        if end < 0:
            raise ValueError("a text has no end")
        return content[position:end].decode(), end + 1
    except ValueError as error:
        raise CodecError(f"the file is damaged: {error}") from error


def write_varint(value: int) -> bytes:
    """Return an integer in groups of seven bits, the lowest first; all but the last have the high bit set."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Return an integer below 2**35, and the position after it."""
    value = 0
    for index in range(5):
        if position + index >= len(content):
            break
        byte = content[position + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise CodecError("the file is damaged: a size has no end")


def _find_type(name: str, array: np.ndarray) -> np.dtype:
    dtype = array.dtype.newbyteorder("=")
    if dtype not in TYPES or array.ndim > _MAX_AXES:
        known = ", ".join(map(str, TYPES))
        raise CodecError(f"{name}: wanted one of {known} and at most {_MAX_AXES} axes, found {dtype} and {array.ndim}")
    return dtype
