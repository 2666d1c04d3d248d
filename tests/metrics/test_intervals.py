"""Intervals in simulations and against scipy; McNemar's test against scipy's binomial test and by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from falconet.metrics import (
    average_scores,
    bootstrap_difference,
    bootstrap_macro,
    bootstrap_means,
    count_confusion,
    count_pairs,
    mcnemar_p_value,
    paired_interval,
    wilson_interval,
)
from tests.metrics.drawing import quick


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(hits: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("count", [1, 2, 10, 360, 10_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_wilson_interval_holds_the_share(count: int, confidence: float) -> None:
    for hits in sorted({0, 1, count // 2, count - 1, count}):
        low, high = wilson_interval(hits, count, confidence)
        assert 0 <= low <= hits / count <= high <= 1
        assert (low == 0) == (hits == 0)
        assert (high == 1) == (hits == count)


def test_wilson_interval_at_the_ends_is_the_closed_form() -> None:
    z = 1.959963984540054
    assert wilson_interval(0, 20)[1] == pytest.approx(z**2 / (20 + z**2))
    assert wilson_interval(20, 20)[0] == pytest.approx(20 / (20 + z**2))


def make_population(classes: int, accuracy: float) -> np.ndarray:
    """Return how often a sample is of the class of a row and taken for that of a column; classes differ in error."""
    generator = np.random.default_rng(1)
    joint = np.zeros((classes, classes))
    for row in range(classes):
        error = (1 - accuracy) * generator.uniform(0.3, 1.7)
        joint[row, np.arange(classes) != row] = error * generator.dirichlet(np.full(classes - 1, 0.5))
        joint[row, row] = 1 - error
    return joint / classes


def find_truth(joint: np.ndarray) -> dict[str, float]:
    recalls, precisions = np.diag(joint) / joint.sum(axis=1), np.diag(joint) / joint.sum(axis=0)
    f1 = 2 * np.diag(joint) / (joint.sum(axis=1) + joint.sum(axis=0))
    means = {"precision": precisions.mean(), "recall": recalls.mean(), "f1": f1.mean()}
    return {"accuracy": float(np.trace(joint)), **{name: float(value) for name, value in means.items()}}


def measure_coverage(classes: int, samples: int, accuracy: float, sets: int) -> dict[str, float]:
    """Return how often each interval holds the true value, over simulated data sets."""
    joint = make_population(classes, accuracy)
    truth, generator = find_truth(joint), np.random.default_rng(2)
    held = dict.fromkeys(truth, 0)
    for _ in range(sets):
        confusion = generator.multinomial(samples, joint.ravel()).reshape(classes, classes)
        intervals = (wilson_interval(int(np.trace(confusion)), samples), *bootstrap_macro(confusion))
        for name, interval in zip(truth, intervals, strict=True):
            held[name] += interval is not None and interval[0] <= truth[name] <= interval[1]
    return {name: count / sets for name, count in held.items()}


@pytest.mark.slow
def test_intervals_hold_the_truth_in_a_short_simulation() -> None:
    """200 data sets: a coverage of 95% is found within 90% and 99% all but surely (3.2 deviations of 1.5 points)."""
    for name, coverage in measure_coverage(3, 200, 0.8, 200).items():
        assert 0.90 <= coverage <= 0.99, name


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "samples", "accuracy"), [(3, 200, 0.8), (10, 1000, 0.9), (10, 360, 0.97)])
def test_intervals_hold_the_truth_in_93_to_97_of_100_data_sets(classes: int, samples: int, accuracy: float) -> None:
    for name, coverage in measure_coverage(classes, samples, accuracy, 1000).items():
        assert 0.93 <= coverage <= 0.97, (name, coverage)


@pytest.mark.slow
def test_intervals_of_skewed_losses_hold_the_truth() -> None:
    generator = np.random.default_rng(3)
    held = np.zeros(2)
    for _ in range(1000):
        losses = np.stack([generator.exponential(size=300), generator.beta(0.3, 2.0, size=300)], axis=1)
        for column, (interval, truth) in enumerate(zip(bootstrap_means(losses), (1.0, 0.3 / 2.3), strict=True)):
            assert interval is not None
            held[column] += interval[0] <= truth <= interval[1]
    assert ((held >= 930) & (held <= 970)).all(), held


def test_intervals_of_means_equal_those_of_scipy() -> None:
    """Up to the noise of 1000 resamples, of the interval's width."""
    values = np.random.default_rng(0).exponential(size=(400, 1))
    expected = scipy.stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap_means(values, resamples=10_000)[0]
    assert found == pytest.approx((expected.low, expected.high), abs=0.05 * (expected.high - expected.low))


@pytest.mark.slow
def test_intervals_of_macro_figures_equal_those_of_scipy() -> None:
    """Whose resamples are drawn from the samples themselves, and whose jackknife leaves each of them out."""
    generator = np.random.default_rng(5)
    labels = generator.integers(3, size=120)
    predictions = np.where(generator.random(120) < 0.8, labels, generator.integers(3, size=120))

    def score(indices: np.ndarray) -> float:
        return average_scores(count_confusion(predictions[indices], labels[indices], 3)).f1

    expected = scipy.stats.bootstrap(
        (np.arange(120),), score, n_resamples=1500, method="BCa", vectorized=False, rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap_macro(count_confusion(predictions, labels, 3), resamples=20_000)[2]
    assert found == pytest.approx((expected.low, expected.high), abs=0.08 * (expected.high - expected.low))


@quick
@given(st.lists(st.integers(0, 12), min_size=9, max_size=9))
def test_intervals_are_ordered_shares_and_always_the_same(cells: list[int]) -> None:
    confusion = np.array(cells, dtype=np.int64).reshape(3, 3)
    confusion[0, 0] += 1
    intervals = bootstrap_macro(confusion, resamples=200)
    assert intervals == bootstrap_macro(confusion, resamples=200)
    for interval in intervals:
        assert interval is None or 0 <= interval[0] <= interval[1] <= 1


def test_without_mistakes_resampling_says_nothing() -> None:
    assert bootstrap_macro(np.diag([5, 5, 9])) == (None, None, None)
    assert bootstrap_means(np.full((7, 1), 0.1)) == [None]
    assert bootstrap_difference(np.array([True, False]), np.array([True, False])) is None


@pytest.mark.slow
@pytest.mark.timed
def test_ten_thousand_samples_take_well_under_two_seconds() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(10, size=10_000)
    predictions = np.where(generator.random(10_000) < 0.95, labels, generator.integers(10, size=10_000))
    losses = generator.exponential(size=(10_000, 2))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        bootstrap_macro(count_confusion(predictions, labels, 10))
        bootstrap_means(losses)
        times.append(time.perf_counter() - started)
    assert min(times) < 1


@quick
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_scipys_binomial_test(first: int, second: int) -> None:
    count = first + second
    expected = scipy.stats.binomtest(first, count).pvalue if count else 1.0
    assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-9)


@quick
@given(st.integers(0, 60), st.integers(0, 60))
def test_one_sided_mcnemar_equals_scipys_binomial_test(first: int, second: int) -> None:
    count = first + second
    expected = scipy.stats.binomtest(first, count, alternative="greater").pvalue if count else 1.0
    assert mcnemar_p_value(first, second, "greater") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (0, 5, 2 / 32), (6, 1, 2 * (1 + 7) / 128), (3, 3, 1.0)],
)
def test_mcnemar_by_hand(first: int, second: int, expected: float) -> None:
    assert mcnemar_p_value(first, second) == expected


def test_mcnemar_of_many_pairs_is_exact_still() -> None:
    expected = scipy.stats.binomtest(9_700, 20_000).pvalue
    assert mcnemar_p_value(9_700, 10_300) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p_value(0, 3000) == 0.0 < mcnemar_p_value(0, 1000) == math.ldexp(1, -999)


def test_paired_interval_as_published() -> None:
    # Tango's crossover trial: 44 patients, of whom one answers to one treatment alone.
    assert paired_interval(0, 1, 44) == pytest.approx((-0.118, 0.059), abs=5e-4)


@pytest.mark.parametrize("count", [1, 30, 2000])
def test_paired_interval_of_equal_answers_is_the_score_interval_of_a_difference_never_seen(count: int) -> None:
    most = wilson_interval(0, count)[1]
    assert paired_interval(0, 0, count) == pytest.approx((-most, most))


@pytest.mark.parametrize(("first", "second", "count"), [(7, 3, 60), (0, 5, 40), (12, 0, 300), (1, 1, 30)])
def test_the_ends_of_a_paired_interval_are_where_a_score_test_rejects(first: int, second: int, count: int) -> None:
    """At both ends, the test under the likeliest shares with that difference, found by trying all, gives p = 0.05."""
    for end in paired_interval(first, second, count):
        shares = np.linspace(max(0.0, -end), (1 - end) / 2, 2_000_001)[1:-1]
        both = count - first - second
        likelihood = first * np.log(shares + end) + second * np.log(shares) + both * np.log(1 - end - 2 * shares)
        best = shares[np.argmax(likelihood)]
        statistic = (first - second - count * end) / math.sqrt(count * (2 * best + end * (1 - end)))
        assert abs(statistic) == pytest.approx(1.96, abs=2e-3)


@pytest.mark.slow
def test_a_paired_interval_of_few_differences_holds_the_truth() -> None:
    generator = np.random.default_rng(0)
    cells = generator.multinomial(200, [0.03, 0.01, 0.96], size=1000)
    bounds = np.array([paired_interval(first, second, 200) for first, second, _ in cells.tolist()])
    assert 0.93 <= ((bounds[:, 0] <= 0.02) & (bounds[:, 1] >= 0.02)).mean() <= 0.98


def test_pairs_and_their_difference() -> None:
    first = np.array([True] * 60 + [True] * 20 + [False] * 10 + [False] * 10)
    second = np.array([True] * 60 + [False] * 20 + [True] * 10 + [False] * 10)
    assert count_pairs(first, second) == (60, 20, 10, 10)
    interval = bootstrap_difference(first, second)
    assert interval is not None
    # Of normal approximation, as McNemar's differences have it: 0.1 ± 1.96 * sqrt((20 + 10 - 100 * 0.1²) / 100²).
    half = 1.96 * math.sqrt((30 - 1) / 100**2)
    assert interval == pytest.approx((0.1 - half, 0.1 + half), abs=0.012)
