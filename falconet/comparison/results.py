"""Comparison: the table of many models evaluated alike, with tests of their differences. No torch."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool

from falconet import metrics
from falconet.escaping import escape_line
from falconet.latency import Latency, compare_latencies
from falconet.schema import to_mapping

LEVEL = 0.05
"""Significance level: corrected p-values below it count as significant."""
COSTS = ("bytes", "macs", "latency_ms")
"""Fields of a row with the costs that accuracy is compared with."""


@dataclass(frozen=True)
class ComparisonRow:
    """One model; fractions of 0 to 1, means over seeds. None: not known, or the model failed."""

    model: str
    accuracy: float | None = None
    """Accuracy on the test split, as are the next three fields."""
    accuracy_std: float | None = None
    """Standard deviation between seeds; None for a single one."""
    macro_recall: float | None = None
    macro_f1: float | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    latency_ms: float | None = None
    """Median milliseconds of one sample on one thread, in torch."""
    fastest: str | None = None
    """Installed runtime with the least median latency."""
    fastest_ms: float | None = None
    """Median milliseconds of one sample on one thread in the fastest runtime."""
    seconds: float | None = None
    """Seconds of the epochs of one training."""
    energy_wh: float | None = None
    """Watt-hours of one training, by all that ran on the machine."""
    seeds: int = 0
    front: tuple[str, ...] = ()
    """Costs on whose Pareto front the model is: none is as cheap and as accurate, and better in one of these."""
    failed: str | None = None
    """Reason why there are no figures; None: the model did not fail."""
    val_accuracy: float | None = None
    """Validation accuracy, by which models are ranked: the mean over `folds`, else over seeds.

    None for a model that was trained elsewhere, which may have learned from validation samples.
    """
    val_accuracy_std: float | None = None
    """Standard deviation between folds, else between seeds; None for a single one."""
    folds: int = 0
    """Number of cross-validation folds; 0: the validation split alone."""

    def __repr__(self) -> str:
        if self.failed is not None:
            return f"ComparisonRow({escape_line(self.model)}, failed)"
        named = (("val accuracy", self.val_accuracy), ("test accuracy", self.accuracy))
        found = [f"{name} {value:.1%}" for name, value in named if value is not None]
        return f"ComparisonRow({', '.join([escape_line(self.model), *found, f'seeds {self.seeds}'])})"


@dataclass(frozen=True)
class ComparisonPair:
    """Two models; see `falconet.metrics.compare_models`."""

    first: str
    """Name of the model that is more accurate on the test split."""
    second: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_corrected: float
    """p-value corrected for all pairs of the comparison (Holm)."""
    significant: bool


@dataclass(frozen=True)
class Comparison:
    """Many models evaluated alike."""

    out: Path
    source: str
    fingerprint: str
    n: int
    """Number of test samples."""
    classes: int
    seeds: int
    rows: tuple[ComparisonRow, ...]
    """Rows by falling validation accuracy, then those without one, and those that failed last."""
    pairs: tuple[ComparisonPair, ...]
    notes: tuple[str, ...]
    """Notes for the reader."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all runs."""
    environment: Mapping[str, str] = field(default_factory=dict)
    folds: int = 0
    """Number of cross-validation folds; 0: there was no cross-validation."""

    def __repr__(self) -> str:
        counts = f"models {len(self.rows):,}, seeds {self.seeds}, test samples {self.n:,}"
        return f"Comparison({escape_line(self.source)}, {counts}, {escape_line(str(self.out))})"

    def facts(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        facts: dict[str, Any] = to_mapping(replace(self, out=Path()))
        return {**facts, "out": str(self.out)}


def find_front(
    accuracies: Sequence[float], costs: Sequence[float], alike: Callable[[int, int], bool] | None = None
) -> list[bool]:
    """Return which models are on the Pareto front: none is at least as good in both and better in one.

    Two that are `alike`, by their positions, cost the same, whatever was measured.
    """

    def surpasses(one: int, other: int) -> bool:
        same = alike is not None and alike(one, other)
        better = accuracies[one] > accuracies[other] or (costs[one] < costs[other] and not same)
        return better and accuracies[one] >= accuracies[other] and (costs[one] <= costs[other] or same)

    count = len(accuracies)
    return [not any(surpasses(one, other) for one in range(count) if one != other) for other in range(count)]


def rank_rows(
    rows: Sequence[ComparisonRow], latencies: Mapping[str, Latency] = MappingProxyType({})
) -> tuple[ComparisonRow, ...]:
    """Return rows in order of validation accuracy, with the fronts that they are on by it.

    Whoever chose by test accuracy would find it lower in use: the best of many is also the luckiest. Rows without a
    validation accuracy are on no front. `latencies` are those of models, by name, that were timed in turns:
    models whose difference is not measurable count as equally fast.
    """
    ranked = sorted((row for row in rows if row.val_accuracy is not None), key=lambda row: -(row.val_accuracy or 0))
    unranked = sorted((row for row in rows if row.val_accuracy is None), key=lambda row: row.failed is not None)

    def as_fast(one: int, other: int) -> bool:
        first, second = (latencies.get(ranked[index].model) for index in (one, other))
        ratio = compare_latencies(first, second) if first and second else None
        return ratio is not None and not ratio.measurable

    fronts = {
        cost: find_front(
            [row.val_accuracy or 0 for row in ranked],
            [getattr(row, cost) for row in ranked],
            as_fast if cost == "latency_ms" else None,
        )
        for cost in COSTS
    }
    marked = [
        replace(row, front=tuple(cost for cost in COSTS if fronts[cost][index])) for index, row in enumerate(ranked)
    ]
    return (*marked, *unranked)


def compare_pairs(answers: Mapping[str, Bool[np.ndarray, "seeds samples"]]) -> tuple[ComparisonPair, ...]:
    """Test all pairs of models, given each seed's correct predictions; of a pair, the more accurate one is first."""
    accuracies = {model: right.mean() for model, right in answers.items()}
    pairs = [
        (one, other) if accuracies[one] >= accuracies[other] else (other, one)
        for one, other in itertools.combinations(answers, 2)
    ]
    tests = [metrics.compare_models(answers[first], answers[second]) for first, second in pairs]
    corrected = metrics.correct_holm([test.p_value for test in tests])
    return tuple(
        ComparisonPair(first, second, test.difference, test.interval, test.p_value, p, p < LEVEL)
        for (first, second), test, p in zip(pairs, tests, corrected, strict=True)
    )


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where one is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def sample_std(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample; None for a single value."""
    return statistics.stdev(values) if len(values) > 1 else None
