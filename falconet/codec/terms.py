"""Terms of logits by an element's position, learned while coding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from falconet.codec.coder import log2


@dataclass(frozen=True)
class Layout:
    """An array as rows, columns and positions; the order in which its elements are coded."""

    rows: int
    columns: int
    positions: int

    @property
    def size(self) -> int:
        return self.rows * self.columns * self.positions


class Terms:
    """Logit terms of rows, columns, kernels and positions: by how much ones and zeros exceed their expected counts.

    All coordinates share one table; `indices` (coordinates x elements) says for each element which columns it has.
    Evidence is float64, yet exact: multiples of 2**-16 that stay below 2**36.
    """

    def __init__(self, coordinates: list[tuple[int, float, np.ndarray]], count: int) -> None:
        """Take the size, the prior and the value for each element of each coordinate."""
        sizes = [size for size, _, _ in coordinates]
        starts = np.cumsum([0, *sizes])[:-1]
        self.indices = np.zeros((len(coordinates), count), dtype=np.int64)
        for line, start, (_, _, index) in zip(self.indices, starts, coordinates, strict=True):
            np.add(index, start, out=line)
        self.evidence = np.tile(np.repeat([prior for _, prior, _ in coordinates], sizes), (4, 1))
        """Ones found, ones expected, zeros found, zeros expected; expectations leave out the term itself."""

    def at(self, part: slice) -> np.ndarray:
        """Return the logits of each coordinate for these elements."""
        index = self.indices[:, part]
        if index.size < self.evidence.shape[1]:
            return _combine(log2(self.evidence[:, index]))
        return _combine(log2(self.evidence)).take(index)

    def learn(self, part: slice, bits: np.ndarray, chances: np.ndarray, decisions: int = 1) -> None:
        """Update on decisions, with their chances without each coordinate; on sums of several for each element."""
        for index, chance in zip(self.indices[:, part], np.atleast_2d(chances), strict=True):
            _take_in(self.evidence, index, bits, chance, decisions)


def _take_in(evidence: np.ndarray, index: np.ndarray, bits: np.ndarray, chances: np.ndarray, decisions: int) -> None:
    size = evidence.shape[1]
    count = np.bincount(index, minlength=size) * decisions
    ones, expected = np.bincount(index, bits, size), np.bincount(index, chances, size)
    evidence[0] += ones
    evidence[1] += expected
    evidence[2] += count - ones
    evidence[3] += count - expected


def _combine(logarithms: np.ndarray) -> np.ndarray:
    logits: np.ndarray = logarithms[0] - logarithms[1] - logarithms[2] + logarithms[3]
    return logits


class Common:
    """The term that all elements share."""

    def __init__(self, prior: float) -> None:
        self.evidence = np.full((4, 1), prior)

    def logit(self) -> int:
        return int(_combine(log2(self.evidence))[0])

    def learn(self, bits: np.ndarray, chances: np.ndarray) -> None:
        # Exact as long as the sum stays below 2**36, whatever the order of summation.
        ones, expected = bits.sum(), chances.sum()
        self.evidence[:, 0] += (ones, expected, len(bits) - ones, len(bits) - expected)


def make_terms(layout: Layout, places: np.ndarray, priors: tuple[float, float, float]) -> Terms:
    """Return the terms that apply to a layout, for elements at flat indices.

    `priors` are those of rows, of columns, and of kernels and positions.
    """
    wanted: list[tuple[int, float, np.ndarray]] = []
    rows, inner = np.divmod(places, layout.columns * layout.positions)
    columns, positions = np.divmod(inner, layout.positions) if layout.positions > 1 else (inner, inner)
    if layout.rows > 1 and layout.size > layout.rows:
        wanted.append((layout.rows, priors[0], rows))
    if layout.columns > 1 and layout.size > layout.columns:
        wanted.append((layout.columns, priors[1], columns))
    if layout.positions > 1 and min(layout.rows, layout.columns) > 1:
        wanted.append((layout.rows * layout.columns, priors[2], places // layout.positions))
    if layout.positions > 1:
        wanted.append((layout.positions, priors[2], positions))
    return Terms(wanted, len(places))
