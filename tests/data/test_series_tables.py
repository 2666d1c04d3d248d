from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data.series_tables import long_series, wide_series
from falconet.tables import Table
from tests.data.builders import noise, series_of

NAN = math.nan


def make_table(columns: Mapping[str, Sequence[Any]]) -> Table:
    return Table(Path("mine.csv"), columns, range(2, 2 + len(next(iter(columns.values())))))


def as_lists(series: Sequence[np.ndarray | str]) -> list[Any]:
    return [values if isinstance(values, str) else values.tolist() for values in series]


def test_rows_of_a_wide_table_are_series() -> None:
    table = make_table(
        {
            "label": ["x"] * 6,
            "t0": ["1", "", "4", "?", "1", "-inf"],
            "t1": ["2.5", "2", " 5 ", "  ", "abc", "1"],
            "t2": ["-3e2", "", "?", "NaN", "x", "1"],
        }
    )
    series = wide_series(table, ["t0", "t1", "t2"])
    assert np.array_equal(series[1], series_of([NAN, 2]), equal_nan=True)
    expected = [[[1, 2.5, -300]], [[4, 5]], "no values", "column t1: wanted a number, found 'abc'"]
    assert as_lists([series[0], *series[2:5]]) == expected
    assert series[5] == "column t0: wanted a number, found '-inf'"


def test_long_cells_are_cut_in_messages() -> None:
    series = wide_series(make_table({"t": ["x" * 500, list(range(500))]}), ["t"])
    assert all(len(str(found)) < 90 and str(found).endswith("…") for found in series)


def test_cells_of_any_type_are_numbers_missing_or_refused() -> None:
    cells = [1, None, 2.5, NAN, True, [1], {"a": 1}, 10**400, 1e39, date(2024, 1, 1), "7"]
    series = wide_series(make_table({"t": cells}), ["t"])
    assert as_lists(series[:5]) == [[[1]], "no values", [[2.5]], "no values", [[1]]]
    assert all(isinstance(found, str) and "column t: wanted a number, found " in found for found in series[5:10])
    assert as_lists(series[10:]) == [[[7]]]


TIMES: tuple[Callable[[int], object], ...] = (
    str,
    int,
    lambda step: f"2024-01-01T00:00:{step:02}Z",
    lambda step: f"step {step}",
)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_long_tables_are_gathered_whatever_the_order_of_their_rows(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    truth = {f"s{owner}": noise(2, length) for owner, length in enumerate(lengths)}
    rows = [(owner, step) for owner, series in truth.items() for step in range(series.shape[1])]
    rows = data.draw(st.permutations(rows))
    write = data.draw(st.sampled_from(TIMES))
    table = make_table(
        {
            "id": [owner for owner, _ in rows],
            "at": [write(step) for _, step in rows],
            "y": [repr(float(truth[owner][1, step])) for owner, step in rows],
            "x": [float(truth[owner][0, step]) for owner, step in rows],
        }
    )
    gathered, firsts = long_series(table, "id", "at", ["x", "y"])
    owners = list(dict.fromkeys(owner for owner, _ in rows))
    assert [rows[first][0] for first in firsts] == owners
    assert firsts == [next(place for place, row in enumerate(rows) if row[0] == owner) for owner in owners]
    for owner, series in zip(owners, gathered, strict=True):
        assert isinstance(series, np.ndarray)
        assert np.array_equal(series, truth[owner])


def gather(time: Sequence[Any] | None, values: Sequence[Any], ids: Sequence[Any] | None = None) -> list[Any]:
    columns = {"id": ids or ["s"] * len(values), "v": values, "t": time or [None] * len(values)}
    return as_lists(long_series(make_table(columns), "id", "t" if time else None, ["v"])[0])


@pytest.mark.parametrize(
    ("time", "order"),
    [
        (["10", "9", "1e1.5", "11"], "column t, line 4: wanted a number, found '1e1.5'"),
        (["10", "9", "", "11"], "column t, line 4: wanted a number, found ''"),
        (["10", "9", "-1", "1.5"], [[3, 4, 2, 1]]),
        (["2024-01-10", "2024-01-09T23:00", "2023-12-31", "2024-01-10T01:00+03:00"], [[3, 4, 2, 1]]),
        ([datetime(2024, 1, 1, 1), datetime(2024, 1, 1), datetime(2023, 1, 1), date(2022, 1, 1)], [[4, 3, 2, 1]]),
        (["2024-01-10", "soon", "2023-12-31", "2024-01-11"], "column t, line 3: wanted a date, found 'soon'"),
        (["b", "a", "c", "B"], [[4, 2, 1, 3]]),
        (["b", "a", None, "B"], "column t, line 4: wanted a time, found None"),
        (["", "2", "1", "3"], "column t, line 2: wanted a number, found ''"),
        (["", "", "", ""], "column t, line 2: wanted a number, found ''"),
        (["2", "1", "1.0", "3"], "column t, line 4: '1.0' a second time"),
        (["2024-01-01", "2024-01-01T00:00Z", "2", "3"], "column t, line 4: wanted a date, found '2'"),
        (["1700000000001", "1700000000000", "1700000000003", "1700000000002"], [[2, 1, 4, 3]]),
        (None, [[1, 2, 3, 4]]),
    ],
)
def test_rows_are_ordered_by_numbers_dates_or_texts(time: list[Any] | None, order: Any) -> None:
    assert gather(time, ["1", "2", "3", "4"]) == [order]


def test_what_is_wrong_with_one_series_does_not_harm_the_others() -> None:
    ids = ["a", "b", " ", "c", "a", None, "b", "c", "d", "d", "e", "e"]
    time = [1, 1, 1, 1, 2, 1, 2, 1, 1, 2, 1, 2]
    values = ["1", "x", "3", "4", "", "6", "y", "8", "", "?", "", "7"]
    gathered = gather(time, values, ids)
    assert gathered[:4] == [
        [[1]],
        "column v, line 3: wanted a number, found 'x'",
        "column id: no name of a series",
        "column t, line 9: 1 a second time",
    ]
    assert gathered[4] == "no values"
    assert np.array_equal(gathered[5], [[NAN, 7]], equal_nan=True)


def test_long_tables_keep_values_missing_inside() -> None:
    (series,) = gather([3, 1, 2], ["5", "1", "NaN"])
    assert np.array_equal(series, [[1, NAN, 5]], equal_nan=True)
