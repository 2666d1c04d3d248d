"""Accuracy on parts of a split, by the values of a table's column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from falconet import metrics
from falconet.data import Split
from falconet.errors import DataError

_FEW = 30
"""Samples below which a slice is marked as small: at an accuracy of 0.5, its 95% interval is wider than a third."""


@dataclass(frozen=True)
class Slice:
    """The samples with one value in a column; fractions of 0 to 1."""

    value: str
    """Value in the column; empty: the cell is empty."""
    n: int
    accuracy: float
    accuracy_ci: tuple[float, float]
    """95% Wilson score interval of the accuracy."""
    few: bool
    """Whether there are fewer than 30 samples, so that the accuracy says little."""


@dataclass(frozen=True)
class Slices:
    """All parts of a split by a column, worst first."""

    column: str
    slices: tuple[Slice, ...]
    """Slices, sorted by the upper end of the interval, so that none of two samples comes before a surely bad one."""


def check_column(split: Split, column: str) -> None:
    """Raise DataError where a split was not read from a table with this column."""
    if column not in split.extras:
        raise DataError(f"by: wanted a table with the column {column}, found a source that is no table")


def slice_answers(split: Split, right: Bool[np.ndarray, " samples"], column: str) -> Slices:
    """Return the accuracy for each value in a column of the table that a split was read from."""
    values, owners = np.unique(split.extras[column].astype(str), return_inverse=True)
    counts = np.bincount(owners, minlength=len(values)).tolist()
    hits = np.bincount(owners[right], minlength=len(values)).tolist()
    slices = [
        Slice(str(value), n, hit / n, metrics.wilson_interval(hit, n), n < _FEW)
        for value, hit, n in zip(values, hits, counts, strict=True)
    ]
    return Slices(column, tuple(sorted(slices, key=lambda part: (part.accuracy_ci[1], part.accuracy, -part.n))))
