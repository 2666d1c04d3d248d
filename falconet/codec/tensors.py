"""Arrays of any type <-> decisions, in the kind that takes least: constant, grid, table or words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from falconet.codec.coder import Coder, Meter
from falconet.codec.integers import code_integers
from falconet.codec.symbols import LARGEST, Memory
from falconet.codec.words import code_sorted, code_words
from falconet.errors import CodecError

TYPES = tuple(
    np.dtype(kind)
    for kind in (
        np.bool_,
        np.uint8,
        np.int8,
        np.uint16,
        np.int16,
        np.uint32,
        np.int32,
        np.uint64,
        np.int64,
        np.float16,
        np.float32,
        np.float64,
    )
)
"""Types of arrays; a file states a type's index here. All are little-endian."""
_CONSTANT, _GRID, _CHANNEL_GRID, _TABLE, WORDS = range(5)
_MAX_TABLE = 4096
_NATIVE, _BRAIN, _HALF = range(3)
"""Forms of float32: unchanged; the upper 16 bits (bfloat16); float16."""


def code_tensor(
    coder: Coder, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], tensor: np.ndarray | None
) -> np.ndarray:
    """Code an array that holds at least one element."""
    plan = None if tensor is None else _choose_plan(memory, tensor)
    kind = coder.code_number(5, None if plan is None else plan.kind)
    return _CODERS[kind](coder, memory, dtype, shape, plan)


@dataclass(frozen=True, eq=False)
class _Plan:
    """An array in one of the kinds that it can be written in."""

    kind: int
    integers: np.ndarray | None = None
    words: np.ndarray | None = None
    """Bit patterns of the array, or of the entries of its table, uint64; or the steps of its grid, float32."""
    form: int = _NATIVE


def _choose_plan(memory: Memory, tensor: np.ndarray) -> _Plan:
    """Return the plan that takes the fewest bits."""
    words = _to_words(tensor)
    if (words == words.flat[0]).all():
        return _Plan(_CONSTANT, words=words.ravel()[:1])
    plans = _plan_grids(tensor)
    if len(plans) == 1 and _is_crowded(plans[0].integers):
        return plans[0]
    plans += _plan_table(tensor)
    if not plans or tensor.size < 8 * len(np.unique(words)):
        plans.append(_plan_words(tensor, words))
    return plans[0] if len(plans) == 1 else min(plans, key=lambda plan: _measure(memory, plan, tensor))


def _is_crowded(integers: np.ndarray | None) -> bool:
    """Tell whether so many of the integers in a range occur that naming them cannot pay."""
    return integers is not None and bool(np.ptp(integers) < 2 * len(np.unique(integers)))


def _measure(memory: Memory, plan: _Plan, tensor: np.ndarray) -> float:
    """Return the bits that a plan takes."""
    meter = Meter()
    _CODERS[plan.kind](meter, memory.copy(), tensor.dtype, tensor.shape, plan)
    return meter.bits


def _to_words(tensor: np.ndarray) -> np.ndarray:
    """Return the bit patterns, uint64, in the same shape."""
    return tensor.view(f"u{tensor.dtype.itemsize}").astype(np.uint64)


def from_words(words: np.ndarray, dtype: np.dtype) -> np.ndarray:
    patterns = words.astype(f"u{dtype.itemsize}")
    return patterns.astype(np.bool_) if dtype == np.bool_ else patterns.view(dtype)


def _plan_words(tensor: np.ndarray, words: np.ndarray) -> _Plan:
    form = _shortest_form(tensor)
    return _Plan(WORDS, words=_shorten(words.ravel(), form), form=form)


def _shortest_form(tensor: np.ndarray) -> int:
    """Return the shortest form that loses nothing."""
    if tensor.dtype != np.float32:
        return _NATIVE
    words = _to_words(tensor).ravel()
    for form in (_BRAIN, _HALF):
        if np.array_equal(lengthen(_shorten(words, form), form), words):
            return form
    return _NATIVE


def _shorten(words: np.ndarray, form: int) -> np.ndarray:
    """Return bit patterns of float32 in a form."""
    if form == _BRAIN:
        return words >> np.uint64(16)
    if form == _HALF:
        values = words.astype(np.uint32).view(np.float32)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            halves = values.astype(np.float16)
        return np.where(np.isfinite(halves), halves, np.float16(0)).view(np.uint16).astype(np.uint64)
    return words


def lengthen(words: np.ndarray, form: int) -> np.ndarray:
    """Return bit patterns of float32 again. Of halves, only finite ones are ever written."""
    if form == _BRAIN:
        return words << np.uint64(16)
    if form == _HALF:
        halves = words.astype(np.uint16).view(np.float16)
        if not np.isfinite(halves).all():
            raise CodecError("the file is damaged: a value in float16 is not finite")
        return halves.astype(np.float32).view(np.uint32).astype(np.uint64)
    return words


def _width_of(dtype: np.dtype, form: int) -> int:
    """Return the bits of a word."""
    return 8 * dtype.itemsize if form == _NATIVE else 16


def _code_form(coder: Coder, dtype: np.dtype, form: int | None) -> int:
    return coder.code_number(3, form) if dtype == np.float32 else _NATIVE


def _code_constant(
    coder: Coder, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], plan: _Plan | None
) -> np.ndarray:
    """Code the one value as bytes: how many, then these. Of floats the lower bytes are left out where they are zero."""
    lead, width = dtype.kind == "f", 8 * dtype.itemsize
    count = word = None
    if plan is not None:
        assert plan.words is not None
        word = int(plan.words[0])
        content = word.to_bytes(dtype.itemsize, "big" if lead else "little").rstrip(b"\0")
        count = len(content)
    count = coder.code_number(dtype.itemsize + 1, count)
    value = 0
    for index in range(count):
        shift = width - 8 * (index + 1) if lead else 8 * index
        value |= coder.code_number(256, None if word is None else word >> shift & 255) << shift
    return np.full(shape, from_words(np.array([value], dtype=np.uint64), dtype)[0])


def _rotate(words: np.ndarray, width: int, by: int) -> np.ndarray:
    """Rotate the bits of words to the left."""
    mask = np.uint64((1 << width) - 1)
    return ((words << np.uint64(by)) | (words >> np.uint64(width - by))) & mask


def _code_raw(coder: Coder, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], plan: _Plan | None) -> np.ndarray:
    """Code bit patterns; those of floats with the sign moved to the end, so that the exponent fills the first byte."""
    form = _code_form(coder, dtype, None if plan is None else plan.form)
    width, turn = _width_of(dtype, form), dtype.kind == "f"
    words = None if plan is None else plan.words
    if words is not None and turn:
        words = _rotate(words, width, 1)
    words = code_words(coder, int(np.prod(shape)), width, words)
    return from_words(lengthen(_rotate(words, width, width - 1) if turn else words, form), dtype).reshape(shape)


def _plan_table(tensor: np.ndarray) -> list[_Plan]:
    """Return a codebook of rising values and an index into it for each element, counted from where zero is."""
    if tensor.dtype.itemsize > 4:
        return []
    form = _shortest_form(tensor)
    width = _width_of(tensor.dtype, form)
    keys = _to_keys(_shorten(_to_words(tensor).ravel(), form), tensor.dtype, width)
    entries, indices = np.unique(keys, return_inverse=True)
    if len(entries) > _MAX_TABLE:
        return []
    integers = indices.reshape(tensor.shape) - _find_zero(entries, tensor.dtype, width)
    return [_Plan(_TABLE, integers, entries, form)]


def _to_keys(words: np.ndarray, dtype: np.dtype, width: int) -> np.ndarray:
    """Return integers, int64, that rise with the value of bit patterns."""
    keys, sign = words.astype(np.int64), 1 << (width - 1)
    if dtype.kind == "f":
        return np.where(keys & sign, 2 * sign - 1 - keys, keys | sign)
    return keys ^ sign if dtype.kind == "i" else keys


def _from_keys(keys: np.ndarray, dtype: np.dtype, width: int) -> np.ndarray:
    sign = 1 << (width - 1)
    if dtype.kind == "f":
        return np.where(keys & sign, keys ^ sign, 2 * sign - 1 - keys).astype(np.uint64)
    return (keys ^ sign if dtype.kind == "i" else keys).astype(np.uint64)


def _find_zero(entries: np.ndarray, dtype: np.dtype, width: int) -> int:
    """Return the index of zero in a codebook, or of the middle where there is none."""
    zero = int(_to_keys(np.zeros(1, dtype=np.uint64), dtype, width)[0])
    place = int(np.searchsorted(entries, zero))
    return place if place < len(entries) and entries[place] == zero else len(entries) // 2


def _code_table(
    coder: Coder, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], plan: _Plan | None
) -> np.ndarray:
    if dtype.itemsize > 4:
        raise CodecError(f"the file is damaged: a table of {dtype}")
    form = _code_form(coder, dtype, None if plan is None else plan.form)
    width = _width_of(dtype, form)
    entries = None if plan is None else plan.words
    count = coder.code_number(_MAX_TABLE, None if entries is None else len(entries) - 1) + 1
    if count < 2:
        raise CodecError("the file is damaged: a table of a single value")
    entries = code_sorted(coder, count, width, entries)
    integers = None if plan is None else plan.integers
    indices = code_integers(coder, memory, shape, integers) + _find_zero(entries, dtype, width)
    if indices.min() < 0 or indices.max() >= count:
        raise CodecError("the file is damaged: an index outside of its table")
    return from_words(lengthen(_from_keys(entries, dtype, width), form)[indices], dtype)


def _plan_grids(tensor: np.ndarray) -> list[_Plan]:
    """Return the lossless plans among integers times one step, and integers times a step of each row."""
    if tensor.dtype.kind in "biu":
        integers = tensor.astype(np.int64)
        fits = integers.min() >= -LARGEST and integers.max() <= LARGEST
        exact = fits and np.array_equal(integers.astype(tensor.dtype), tensor)
        return [_Plan(_GRID, integers)] if exact else []
    if tensor.dtype != np.float32:
        return []
    whole = _find_steps(tensor.reshape(1, -1))
    plans = [_Plan(_GRID, whole[0].reshape(tensor.shape), whole[1])] if whole else []
    by_row = _find_steps(tensor.reshape(len(tensor), -1)) if tensor.ndim > 1 and len(tensor) > 1 else None
    # Steps of channels pay only where they make integers smaller.
    if by_row and not (whole and np.ptp(whole[0]) <= np.ptp(by_row[0])):
        plans.append(_Plan(_CHANNEL_GRID, by_row[0].reshape(tensor.shape), by_row[1]))
    return plans


def _find_steps(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the integers and the largest step of each row, float32, that they are multiples of; None: there are none.

    The step is the greatest common divisor of the values as integers. Rows of zeros have the step of the first row.
    """
    if not np.isfinite(rows).all() or not rows.any():
        return None
    fractions, exponents = np.frexp(rows)
    lowest = int(exponents[rows != 0].min())
    shifts = np.where(rows != 0, exponents - lowest, 0)
    if shifts.max() > 38:
        return None
    values = np.ldexp(fractions, 24).astype(np.int64) << shifts
    divisors = np.gcd.reduce(values, axis=1)
    divisors = np.where(divisors == 0, divisors[divisors != 0][0], divisors)
    integers = values // divisors[:, None]
    if abs(integers).max() > LARGEST:
        return None
    with np.errstate(under="ignore"):
        steps = np.ldexp(divisors.astype(np.float64), lowest - 24).astype(np.float32)
    same = np.array_equal(_apply_steps(integers, steps).view(np.uint32), rows.view(np.uint32))
    return (integers, steps) if same else None


def _apply_steps(integers: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return integers times the step of their row, float32."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        values: np.ndarray = integers.astype(np.float32) * steps[:, None]
    return values


def _code_grid(coder: Coder, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], plan: _Plan | None) -> np.ndarray:
    """Code one step, and integers; integers alone where the type is one."""
    if dtype.kind == "f":
        return _code_steps(coder, memory, dtype, shape, plan, 1)
    integers = None if plan is None else plan.integers
    return code_integers(coder, memory, shape, integers).astype(dtype)


def _code_channels(
    coder: Coder, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], plan: _Plan | None
) -> np.ndarray:
    """Code a step of each row, and integers."""
    if not shape:
        raise CodecError("the file is damaged: rows of a single value")
    return _code_steps(coder, memory, dtype, shape, plan, shape[0])


def _code_steps(
    coder: Coder, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], plan: _Plan | None, count: int
) -> np.ndarray:
    if dtype != np.float32:
        raise CodecError(f"the file is damaged: a grid of {dtype}")
    given = None
    if plan is not None:
        assert plan.words is not None
        given = _plan_words(plan.words, _to_words(plan.words))
    steps = _code_raw(coder, memory, dtype, (count,), given)
    integers = None if plan is None else plan.integers
    integers = code_integers(coder, memory, shape, integers)
    return _apply_steps(integers.reshape(count, -1), steps).reshape(shape)


_CODERS: tuple[Callable[[Coder, Memory, np.dtype, tuple[int, ...], _Plan | None], np.ndarray], ...] = (
    _code_constant,
    _code_grid,
    _code_channels,
    _code_table,
    _code_raw,
)
