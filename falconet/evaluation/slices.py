"""Where a model fails: accuracy in parts of a split, by what a table says about its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from falconet import metrics
from falconet.data import Split
from falconet.errors import DataError

_FEW = 30
"""Fewer samples are marked: at half of them right, the 95% interval spans more than a third of the scale."""


@dataclass(frozen=True)
class Slice:
    """The samples with one value in a column; fractions of 0 to 1."""

    value: str
    """Empty: the cell holds nothing."""
    n: int
    accuracy: float
    accuracy_ci: tuple[float, float]
    """95% score interval."""
    few: bool
    """Fewer than 30 samples, so that the accuracy says little."""


@dataclass(frozen=True)
class Slices:
    """All parts of a split by a column, worst first."""

    column: str
    slices: tuple[Slice, ...]
    """By the upper end of the interval, so that no slice of two samples stands before a surely bad one."""


def check_column(split: Split, column: str) -> None:
    """Raise DataError where a split was read from no table, and so has no columns."""
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
