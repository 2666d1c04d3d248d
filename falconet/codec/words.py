"""Arrays of bit patterns <-> decisions: floats without a grid or table, and sorted codebooks."""

from __future__ import annotations

import numpy as np

from falconet.codec.coder import Coder, Meter
from falconet.codec.symbols import Memory, Tree, code_chunk, code_symbols
from falconet.errors import CodecError

_ZERO, _EVEN, _MODELED = 0, 1, 2
"""Codings of a plane of bytes: all zero; all values equally likely; by how often each was seen."""


def code_words(coder: Coder, count: int, width: int, words: np.ndarray | None) -> np.ndarray:
    """Code unsigned integers below 2**width, uint64, byte by byte, the highest bytes of all words first."""
    result = np.zeros(count, dtype=np.uint64)
    for shift in range(width - 8, -8, -8):
        plane = None if words is None else ((words >> np.uint64(shift)) & np.uint64(255)).astype(np.int64)
        result |= _code_plane(coder, count, plane).astype(np.uint64) << np.uint64(shift)
    return result


def _code_plane(coder: Coder, count: int, plane: np.ndarray | None) -> np.ndarray:
    """Code one byte of each word, int64."""
    mode = coder.code_number(3, None if plane is None else _choose_mode(plane))
    if mode == _ZERO:
        return np.zeros(count, dtype=np.int64)
    if mode == _EVEN:
        return coder.code_evenly(np.full(count, 256), plane)
    return code_bytes(coder, count, plane)


def _choose_mode(plane: np.ndarray) -> int:
    if not plane.any():
        return _ZERO
    meter = Meter()
    code_bytes(meter, len(plane), plane)
    return _MODELED if meter.bits < 8 * len(plane) else _EVEN


def code_bytes(coder: Coder, count: int, values: np.ndarray | None) -> np.ndarray:
    """Code bytes by how often each was seen before."""
    return code_symbols(coder, Tree(Memory(), 255), None, np.zeros(count, dtype=np.int64), values)


_STEPS = 32


def code_sorted(coder: Coder, count: int, width: int, values: np.ndarray | None) -> np.ndarray:
    """Code different, rising integers below 2**width (at most 32): the ends, then always the middle between two.

    The position of a middle between two neighbors is coded in 32 steps of the distance, by how often each was seen,
    then evenly within the step.
    """
    result = np.zeros(count, dtype=np.int64)
    ends = None if values is None else values[[0, -1]].astype(np.uint64)
    result[[0, -1]] = code_words(coder, 2, width, ends).astype(np.int64)
    if result[-1] - result[0] < count - 1:
        raise CodecError("the file is damaged: a codebook does not rise")
    tree = Tree(Memory(), _STEPS - 1)
    lower, upper = np.array([0]), np.array([count - 1])
    while len(lower):
        middle = (lower + upper) // 2
        least = result[lower] + middle - lower
        room = result[upper] - (upper - middle) - least + 1
        wanted = None if values is None else values[middle] - least
        result[middle] = least + _code_between(coder, tree, room, wanted)
        lower, upper = np.stack([lower, middle], 1).ravel(), np.stack([middle, upper], 1).ravel()
        inside = upper - lower > 1
        lower, upper = lower[inside], upper[inside]
    return result


def _code_between(coder: Coder, tree: Tree, room: np.ndarray, values: np.ndarray | None) -> np.ndarray:
    """Code integers below `room`, which is at most 2**32."""
    steps = None if values is None else values * _STEPS // room
    part = slice(0, len(room))
    steps = code_chunk(coder, tree, None, part, np.zeros_like(room), steps)
    # The least value of a step: ceil(step * room / _STEPS).
    first, after = -(-steps * room // _STEPS), -(-(steps + 1) * room // _STEPS)
    size = np.maximum(after - first, 1)
    rest = None if values is None else values - first
    shift = np.maximum(np.frexp(size.astype(np.float64))[1].astype(np.int64) - 15, 0)
    high = coder.code_evenly(((size - 1) >> shift) + 1, None if rest is None else rest >> shift)
    low = coder.code_evenly(1 << shift, None if rest is None else rest & ((1 << shift) - 1))
    result: np.ndarray = np.minimum(first + (high << shift) + low, room - 1)
    return result
