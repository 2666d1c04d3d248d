"""Arrays of integers, most of them small and many of them zero <-> binary decisions.

First come the positions of nonzero integers, then signs, then magnitudes. Every decision has a logit that is a sum of
terms: one for all decisions alike, and one each for the row (axis 0), the column (axis 1), the kernel (both) and the
position in the kernel (the remaining axes), learned from what was coded before. So that each of these is known
early, elements are coded in passes: the diagonals (row + column + 7 * position) mod 32, in groups that grow.
"""

from __future__ import annotations

import itertools

import numpy as np

from falconet.codec.coder import PORTION, STEPS, Coder, code_flags, from_step, squash, to_step
from falconet.codec.symbols import Memory, code_nonzeros
from falconet.codec.terms import Common, Layout, make_terms

_DIAGONALS = 32
_STRIDE = 7
"""Diagonals from one position in the kernel to the next, so that the elements of a kernel lie in different passes."""
_GROUPS = np.cumsum([0, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8])
"""Diagonals where passes begin."""
_PRIORS = (0.5, 2.0, 8.0, 32.0)
"""Pseudo-counts of ones, and of zeros, that a row or column starts with; the file states which."""
_KERNEL_PRIOR = 4.0


def _lay_out(shape: tuple[int, ...]) -> Layout:
    """Return the layout of an array; vectors, and arrays with very long rows, are coded without context."""
    size = int(np.prod(shape))
    if len(shape) < 2 or size // shape[0] > PORTION:
        return Layout(size, 1, 1)
    return Layout(shape[0], shape[1], size // (shape[0] * shape[1]))


def code_integers(coder: Coder, memory: Memory, shape: tuple[int, ...], values: np.ndarray | None) -> np.ndarray:
    """Code integers of magnitude LARGEST or less, int32, of any shape but an empty one."""
    layout = _lay_out(shape)
    grid = None if values is None else values.reshape(layout.rows, layout.columns, layout.positions)
    rows, columns = np.arange(layout.rows), np.arange(layout.columns)
    if layout.size > layout.rows > 1:
        inputs, size = memory.outputs, layout.columns
        hints = np.repeat(inputs, size // len(inputs)) if size % len(inputs) == 0 else np.ones(size, dtype=np.int64)
        columns = _code_alive(coder, hints, None if grid is None else np.any(grid, axis=(0, 2)))
        hints = np.ones(layout.rows, dtype=np.int64)
        rows = _code_alive(coder, hints, None if grid is None else np.any(grid, axis=(1, 2)))
        memory.outputs = np.zeros(layout.rows, dtype=np.int64)
        memory.outputs[rows] = 1
    if grid is not None:
        grid = grid[rows][:, columns]
    result = np.zeros((layout.rows, layout.columns, layout.positions), dtype=np.int32)
    inner = Layout(len(rows), len(columns), layout.positions)
    if inner.size:
        result[np.ix_(rows, columns)] = _code_dense(coder, memory, inner, grid)
    return result.reshape(shape)


def _code_alive(coder: Coder, hints: np.ndarray, alive: np.ndarray | None) -> np.ndarray:
    """Return the indices of rows or columns that are not all zero. Those with the same hint have the same chance."""
    if not coder.code_number(2, None if alive is None else int(not alive.all())):
        return np.arange(len(hints))
    result = np.zeros(len(hints), dtype=np.int64)
    for hint in (0, 1):
        same = np.flatnonzero(hints == hint)
        if len(same):
            result[same] = code_flags(coder, len(same), None if alive is None else alive[same].astype(np.int64))
    return np.flatnonzero(result)


def _code_dense(coder: Coder, memory: Memory, layout: Layout, grid: np.ndarray | None) -> np.ndarray:
    """Code integers in stripes of rows."""
    result = np.zeros((layout.rows, layout.columns, layout.positions), dtype=np.int32)
    height = max(1, PORTION // (layout.columns * layout.positions))
    for top in range(0, layout.rows, height):
        part = slice(top, min(top + height, layout.rows))
        stripe = Layout(part.stop - top, layout.columns, layout.positions)
        result[part] = _code_stripe(coder, memory, stripe, None if grid is None else grid[part])
    return result


def _code_stripe(coder: Coder, memory: Memory, layout: Layout, grid: np.ndarray | None) -> np.ndarray:
    order, parts = _arrange(layout)
    values = None if grid is None else grid.ravel()[order]
    full = coder.code_number(2, None if values is None else int(values.all()))
    chosen = np.arange(layout.size)
    if not full:
        mask = None if values is None else (values != 0).astype(np.int64)
        chosen = np.flatnonzero(_code_mask(coder, layout, order, parts, mask))
    places = order[chosen]
    result = np.zeros(layout.size, dtype=np.int64)
    result[places] = code_nonzeros(coder, memory, layout, places, None if values is None else values[chosen])
    return result.reshape(layout.rows, layout.columns, layout.positions)


def _arrange(layout: Layout) -> tuple[np.ndarray, list[slice]]:
    """Return flat indices in the order of coding, and the passes in it. Vectors take one pass."""
    if layout.columns * layout.positions == 1:
        return np.arange(layout.size), [slice(0, layout.size)]
    inner = np.arange(layout.columns)[:, None] + _STRIDE * np.arange(layout.positions)
    diagonals = ((np.arange(layout.rows)[:, None, None] + inner) % _DIAGONALS).astype(np.uint8).ravel()
    ends = np.cumsum([0, *np.bincount(diagonals, minlength=_DIAGONALS)])[_GROUPS].tolist()
    passes = [slice(first, last) for first, last in itertools.pairwise(ends) if first < last]
    return np.argsort(diagonals, kind="stable"), passes


def _code_mask(
    coder: Coder, layout: Layout, order: np.ndarray, parts: list[slice], mask: np.ndarray | None
) -> np.ndarray:
    """Code which elements are not zero, int64, in the order of coding."""
    step: int | None = None
    choices: tuple[int | None, int | None] = (None, None)
    if mask is not None:
        step, choices = to_step(int(mask.sum()), layout.size), _choose_priors(layout, order, mask)
    start = from_step(coder.code_number(STEPS, step))
    row, column = (_PRIORS[coder.code_number(len(_PRIORS), choice)] for choice in choices)
    terms = make_terms(layout, order, (row, column, _KERNEL_PRIOR))
    common = Common(_KERNEL_PRIOR)
    result = np.zeros(layout.size, dtype=np.int64)
    for part in parts:
        own, shared = terms.at(part), common.logit()
        logits = own.sum(0) + (start + shared)
        bits = coder.code(squash(logits), None if mask is None else mask[part])
        terms.learn(part, bits, squash(logits - own))
        common.learn(bits, squash(logits - shared))
        result[part] = bits
    return result


def _choose_priors(layout: Layout, order: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """Return which priors suit rows and columns, as indices: the more these differ, the smaller.

    With E expected in each row, counts n of a gamma-Poisson mixture have the variance E + E**2 / prior.
    """
    flat = np.zeros(layout.size, dtype=np.int64)
    flat[order] = mask
    grid = flat.reshape(layout.rows, layout.columns, layout.positions)
    return _choose_prior(grid.sum(axis=(1, 2))), _choose_prior(grid.sum(axis=(0, 2)))


def _choose_prior(counts: np.ndarray) -> int:
    mean = float(counts.mean())
    if not mean:
        return 0
    excess = max(float(counts.var()) / mean - 1, 1e-9)
    return int(np.abs(np.log(_PRIORS) - np.log(mean / excess)).argmin())
