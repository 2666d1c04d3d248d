"""Binary decisions <-> bytes: fixed-point logarithms and a range coder.

A model calls `coder.code(chances, bits)` for a batch of decisions, and continues with the bits that are returned. The
encoder and the meter return what they were given, the decoder what it reads. So a model is written once, for all three.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from falconet.errors import CodecError

_UNIT = 256
"""A logit of 1, that is odds of 2 : 1. Logits are int64."""
LIMIT = 16 * _UNIT
"""Logits are kept in -LIMIT ... LIMIT - 1."""
_GRAIN = 1 << 16
"""Chances (probabilities of a 1 bit, float64) are multiples of 1/GRAIN, so that all sums of them are exact."""
LEAST = 1 / _GRAIN
_LOGARITHMS = np.array([round(_UNIT * math.log2(1 + i / 256)) for i in range(256)], dtype=np.int64)
"""UNIT * log2(1 + i/256). No value is near a half, so that every platform rounds alike (a test pins them)."""
_CORRECTIONS = _LOGARITHMS - np.arange(256) - 1023 * _UNIT
_POWERS = [round(_GRAIN * 2 ** (i / _UNIT)) for i in range(_UNIT)]
"""GRAIN * 2**(i / UNIT)."""


def _squash_exactly(logit: int) -> int:
    """Return GRAIN times the chance of a logit in -LIMIT ... LIMIT - 1."""
    odds = _POWERS[abs(logit) % _UNIT] << (abs(logit) // _UNIT)
    chance = min(_GRAIN * odds // (odds + _GRAIN), _GRAIN - 1)
    return chance if logit >= 0 else _GRAIN - chance


CHANCES = np.array([_squash_exactly(logit) for logit in range(-LIMIT, LIMIT)]) / _GRAIN


def squash(logits: np.ndarray) -> np.ndarray:
    """Return the chances of logits; logits beyond the limits are clipped."""
    return CHANCES.take(logits + LIMIT, mode="clip")


def log2(values: np.ndarray) -> np.ndarray:
    """Return UNIT * log2 of positive, normal float64, from their leading nine bits."""
    # A float64 is its exponent + 1023 in 11 bits, followed by what comes after the leading bit.
    leading = values.view(np.int64) >> 44
    return leading + _CORRECTIONS.take(leading & 255)


@runtime_checkable
class Coder(Protocol):
    """Interface of entropy coders. Each method takes the values to write, or None to read them, and returns them."""

    def code(self, chances: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        """Code bits, each with its chance of being 1."""

    def code_evenly(self, sizes: np.ndarray, values: np.ndarray | None) -> np.ndarray:
        """Code integers below these sizes (1 ... 2**16); all values are equally likely."""

    def code_number(self, size: int, value: int | None) -> int:
        """Code one integer below `size`, as `code_evenly` does."""


class Meter:
    """Counts what an Encoder would write."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, chances: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        assert bits is not None
        self.bits -= float(np.log2(np.where(bits != 0, chances, 1 - chances)).sum())
        return bits

    def code_evenly(self, sizes: np.ndarray, values: np.ndarray | None) -> np.ndarray:
        assert values is not None
        self.bits += float(np.log2(sizes).sum())
        return values

    def code_number(self, size: int, value: int | None) -> int:
        assert value is not None
        self.bits += math.log2(size)
        return value


class Encoder:
    """Writes bits and integers by a range coder."""

    def __init__(self) -> None:
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()
        self._binary, self._uniform = _open_models()
        self.decisions = 0
        """Bits and numbers written so far; a Decoder reads no more than `count_allowed` returns."""

    def code(self, chances: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        assert bits is not None
        self.decisions += len(bits)
        if len(bits):
            self._coder.encode(bits.astype(np.int32), self._binary, pair(chances))
        return bits

    def code_evenly(self, sizes: np.ndarray, values: np.ndarray | None) -> np.ndarray:
        assert values is not None
        open_ = sizes > 1
        self.decisions += int(open_.sum())
        if open_.any():
            self._coder.encode(values[open_].astype(np.int32), self._uniform, sizes[open_].astype(np.int32))
        return values

    def code_number(self, size: int, value: int | None) -> int:
        assert value is not None
        if size > 1:
            self.decisions += 1
            self._coder.encode(value, _open_uniform(size))
        return value

    def finish(self) -> bytes:
        """Return the bytes written, without trailing zeros, which a Decoder assumes."""
        return bytes(self._coder.get_compressed().astype(">u4").tobytes()).rstrip(b"\0")


_NO_SUCH_CODE = "the file is damaged: no values have such a code"
_SLACK = 256
"""Bits that may be read beyond the end of a file: rounding, and trailing zeros that were left out."""
_FREE_DECISIONS, _DECISIONS_A_BYTE = 1 << 22, 1 << 9
"""Most decisions read from a file: a constant, plus so many a byte; likely decisions take time, but no space."""
TOO_MANY = f"wanted at most {_FREE_DECISIONS} decisions, and {_DECISIONS_A_BYTE} for each byte, found more"


def count_allowed(length: int) -> int:
    """Return how many decisions a file of `length` bytes may hold."""
    return _FREE_DECISIONS + _DECISIONS_A_BYTE * length


class Decoder:
    """Reads what an Encoder wrote. Raises CodecError for other bytes, and beyond a number of decisions."""

    def __init__(self, data: bytes, decisions: int) -> None:
        import constriction

        words = np.frombuffer(data + b"\0" * (-len(data) % 4), dtype=">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        # Beyond its end a file reads as zeros: it must not claim what would need more than it has.
        self._bits, self._even_bits = 8 * len(data) + _SLACK, 0.0
        self._decisions = decisions
        self._binary, self._uniform = _open_models()

    def code(self, chances: np.ndarray, bits: np.ndarray | None = None) -> np.ndarray:
        self._count(len(chances))
        return self._decode(self._binary, pair(chances))

    def code_evenly(self, sizes: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        self._take(float(np.log2(sizes).sum()))
        result = np.zeros(len(sizes), dtype=np.int64)
        open_ = sizes > 1
        self._count(int(open_.sum()))
        result[open_] = self._decode(self._uniform, sizes[open_].astype(np.int32))
        return result

    def code_number(self, size: int, value: int | None = None) -> int:
        self._take(math.log2(size))
        self._count(int(size > 1))
        try:
            return int(self._coder.decode(_open_uniform(size))) if size > 1 else 0
        except AssertionError as error:
            raise CodecError(_NO_SUCH_CODE) from error

    def _take(self, bits: float) -> None:
        self._even_bits += bits
        if self._even_bits > self._bits:
            raise CodecError("the file is damaged: it holds less than its tensors")

    def _count(self, decisions: int) -> None:
        self._decisions -= decisions
        if self._decisions < 0:
            raise CodecError(TOO_MANY)

    def finish(self) -> None:
        """Raise CodecError where there is more to read."""
        if not self._coder.maybe_exhausted():
            raise CodecError("the file is damaged: it holds more than its tensors")

    def _decode(self, model: Any, parameters: np.ndarray) -> np.ndarray:
        if not len(parameters):
            return np.zeros(0, dtype=np.int32)
        try:
            symbols: np.ndarray = self._coder.decode(model, parameters)
        except AssertionError as error:  # Thus constriction says that no Encoder ends up here.
            raise CodecError(_NO_SUCH_CODE) from error
        return symbols


def pair(chances: np.ndarray) -> np.ndarray:
    """Return the chances of 0 and of 1, each in a row."""
    both = np.empty((len(chances), 2))
    np.subtract(1, chances, out=both[:, 0])
    both[:, 1] = chances
    return both


@cache
def _open_models() -> tuple[Any, Any]:
    """Return the families of distributions used here; constriction is imported late."""
    import constriction

    models = constriction.stream.model
    return models.Categorical(perfect=False), models.Uniform()


@cache
def _open_uniform(size: int) -> Any:
    """Return the distribution of integers below `size`, all equally likely."""
    import constriction

    return constriction.stream.model.Uniform(size)


PORTION = 1 << 20
"""Most decisions that are coded together, which bounds memory."""


STEPS = 256
"""Number of logits that a file can state, an eighth apart."""


def code_flags(coder: Coder, count: int, flags: np.ndarray | None) -> np.ndarray:
    """Code many flags by how many of them are set, in 255 steps of an eighth of a logit."""
    step = None if flags is None else to_step(int(flags.sum()), count)
    logit = from_step(coder.code_number(STEPS, step))
    chance = squash(np.array([logit]))
    result = np.zeros(count, dtype=np.int64)
    for first in range(0, count, PORTION):
        part = slice(first, min(first + PORTION, count))
        result[part] = coder.code(np.repeat(chance, part.stop - first), None if flags is None else flags[part])
    return result


def to_step(ones: int, count: int) -> int:
    """Return the nearest step of the logit of a fraction."""
    logit = math.log2((ones + 1 / 16) / (count - ones + 1 / 16))
    return min(max(round(8 * logit) + STEPS // 2, 0), STEPS - 1)


def from_step(step: int) -> int:
    return (step - STEPS // 2) * (_UNIT // 8)
