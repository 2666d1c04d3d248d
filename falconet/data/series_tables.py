"""Series in tables: rows or columns of cells gathered to arrays. Importing this does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from falconet.data.series import NO_VALUES, count_steps
from falconet.tables import ABSENT, Table

_MISSING: Mapping[Any, float] = MappingProxyType(dict.fromkeys(("", None, *ABSENT), math.nan))
"""Cells that mean a missing value, besides NaN itself."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def wide_series(table: Table, value_columns: Sequence[str]) -> list[np.ndarray | str]:
    """Return for each row of a table its series of one channel, `value_columns` in order, or why there is none.

    Missing values at the end are not part of a series.
    """
    block = np.stack([to_numbers(table.columns[name]) for name in value_columns], axis=1)[:, None]
    lengths = count_steps(block).tolist()
    series: list[np.ndarray | str] = [
        row[:, :length] if length else NO_VALUES for row, length in zip(block, lengths, strict=True)
    ]
    bad = np.isinf(block[:, 0])
    for row in np.flatnonzero(bad.any(axis=1)).tolist():
        name = value_columns[int(bad[row].argmax())]
        series[row] = f"column {name}: {describe_cell(table.columns[name][row])}"
    return series


def long_series(
    table: Table, series: str, time: str | None, values: Sequence[str]
) -> tuple[list[np.ndarray | str], list[int]]:
    """Gather rows to series: those with the same cell in the column `series`, ordered by the column `time`.

    Times are numbers, dates (ISO 8601, without an offset in UTC) or texts, as the first of them is; without a column
    the order is the file's. Channels are the columns `values`. Missing values at the end are not part of a series.

    Returns the series in order of their first rows, each an array or the reason why there is none, and the positions
    of these rows in the table.
    """
    places: dict[str, int] = {}
    ids = ["" if cell is None else str(cell).strip() for cell in table.columns[series]]
    owners = np.array([places.setdefault(name, len(places)) for name in ids], dtype=np.int64)
    reasons = {places[""]: f"column {series}: no name of a series"} if "" in places else {}
    keys = np.arange(len(ids))
    if time is not None:
        keys, bad, wanted = _to_order(table.columns[time])
        _note_cells(reasons, table, time, owners, bad, wanted)
    block = np.stack([to_numbers(table.columns[name]) for name in values], axis=1)
    for channel, name in enumerate(values):
        _note_cells(reasons, table, name, owners, np.isinf(block[:, channel]))
    order = np.lexsort((keys, owners))
    _note_repeated(reasons, table, time, owners, keys, order)
    firsts = np.searchsorted(owners[order], np.arange(len(places) + 1))
    rows = [block[order[begin:end]] for begin, end in pairwise(firsts)]
    gathered = [reasons.get(place) or _trim_rows(part) for place, part in enumerate(rows)]
    return gathered, np.unique(owners, return_index=True)[1].tolist()


def _trim_rows(rows: Float32[np.ndarray, "steps channels"]) -> np.ndarray | str:
    """Return rows of a table as a series, without missing values at its end."""
    length = int(count_steps(rows.T))
    return np.ascontiguousarray(rows[:length].T) if length else NO_VALUES


def _note_cells(
    reasons: dict[int, str],
    table: Table,
    column: str,
    owners: Int64[np.ndarray, " rows"],
    bad: Bool[np.ndarray, " rows"],
    wanted: str = "a number",
) -> None:
    """Add the first bad cell of each series to the reasons."""
    for row in np.flatnonzero(bad).tolist():
        found = describe_cell(table.columns[column][row], wanted)
        reasons.setdefault(int(owners[row]), f"column {column}, line {table.lines[row]}: {found}")


def _note_repeated(
    reasons: dict[int, str],
    table: Table,
    time: str | None,
    owners: Int64[np.ndarray, " rows"],
    keys: Shaped[np.ndarray, " rows"],
    order: Int64[np.ndarray, " rows"],
) -> None:
    """Add the first time that stands twice in each series to the reasons; without a column no time does."""
    before, after = order[:-1], order[1:]
    for row in after[(owners[before] == owners[after]) & (keys[before] == keys[after])].tolist():
        found = f"column {time}, line {table.lines[row]}: {table.columns[str(time)][row]!r} a second time"
        reasons.setdefault(int(owners[row]), found)


def describe_cell(cell: object, wanted: str = "a number") -> str:
    shown = repr(cell.strip() if isinstance(cell, str) else cell)
    return f"wanted {wanted}, found {shown if len(shown) <= 40 else shown[:40] + '…'}"


def _to_order(
    cells: Sequence[Any],
) -> tuple[Shaped[np.ndarray, " rows"], Bool[np.ndarray, " rows"], str]:
    """Return what orders times, which of them are of another kind than the first, and what that kind is called."""
    first = next((cell for cell in cells if not math.isnan(_to_float(cell))), None)
    if first is None or math.isfinite(_to_float(first)):
        numbers = to_floats(cells)
        return numbers, ~np.isfinite(numbers), "a number"
    if not math.isnan(_to_microseconds(first)):
        moments = np.array([_to_microseconds(cell) for cell in cells])
        return moments, np.isnan(moments), "a date"
    _, ranks = np.unique(np.array([str(cell) for cell in cells]), return_inverse=True)
    return ranks, np.isnan(to_floats(cells)), "a time"


def _to_microseconds(cell: Any) -> float:
    """Return a date as microseconds since 1970, NaN for what is none."""
    try:
        moment = datetime.fromisoformat(str(cell).strip())
    except ValueError:
        return math.nan
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) / timedelta(microseconds=1)


def to_numbers(cells: Sequence[Any]) -> Float32[np.ndarray, " rows"]:
    """Return cells as numbers: NaN for a missing one, infinity for one that is no number or too large for float32."""
    with np.errstate(over="ignore"):
        return to_floats(cells).astype(np.float32)


def to_floats(cells: Sequence[Any]) -> Float64[np.ndarray, " rows"]:
    """Return cells as numbers: NaN for a missing one, infinity for one that is no number."""
    try:
        return np.array([_MISSING.get(cell, cell) for cell in cells], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array([_to_float(cell) for cell in cells], dtype=np.float64)


def _to_float(cell: Any) -> float:
    try:
        text = cell.strip() if isinstance(cell, str) else cell
        return float(_MISSING.get(text, text))
    except (TypeError, ValueError, OverflowError):
        return math.inf
