"""Tests of pairs of models, against scipy, hand-worked cases and simulated models that are equally good."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from falconet.metrics import agreement_p_value, compare_models, correct_holm, count_confusion
from falconet.metrics.significance import student_quantile, student_tails

ANSWERS = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 30)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.bool_, (shape[0], shape[2])), arrays.arrays(np.bool_, (shape[1], shape[2]))
    )
)


def simulate(
    generator: np.random.Generator, seeds: tuple[int, int], count: int, between: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers of two models of equal quality, as a logistic model with random effects draws them.

    Samples differ in how hard they are, models in which samples they find so, and seeds, by `between`, in how good they
    turn out.
    """
    hardness = 2 + 2 * generator.normal(size=count)
    both = []
    for number in seeds:
        taste = 0.5 * generator.normal(size=count)
        luck = between * generator.normal(size=(number, 1)) + generator.normal(size=(number, count))
        both.append(generator.random((number, count)) < 1 / (1 + np.exp(-(hardness + taste + luck))))
    return both[0], both[1]


def share_called_different(seeds: tuple[int, int], count: int, between: float, rounds: int) -> float:
    generator = np.random.default_rng(0)
    p_values = [compare_models(*simulate(generator, seeds, count, between)).p_value for _ in range(rounds)]
    return float(np.mean(np.array(p_values) < 0.05))


def test_equal_models_are_seldom_called_different() -> None:
    assert 0.02 <= share_called_different((3, 3), 300, 0.4, 300) <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "count", "between"),
    [
        ((2, 2), 100, 0.0),
        ((3, 5), 100, 0.4),
        ((2, 2), 2000, 0.4),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in [
                ((2, 2), 100, 0.4),
                ((3, 5), 100, 0.0),
                ((2, 2), 2000, 0.0),
                ((3, 5), 2000, 0.0),
                ((3, 5), 2000, 0.4),
            ]
        ),
        ((3, 3), 360, 0.1),
        ((10, 10), 360, 0.4),
    ],
)
def test_of_equal_models_about_one_in_twenty_is_called_different(
    seeds: tuple[int, int], count: int, between: float
) -> None:
    # Of 2000 rounds at 5%, 99.9% have a share below 6.6%.
    share = share_called_different(seeds, count, between, 2000)
    assert share <= 0.066
    if between == 0.4 and count >= 360:
        assert share >= 0.03


@pytest.mark.slow
def test_the_interval_covers_the_true_difference() -> None:
    generator = np.random.default_rng(1)
    tests = [compare_models(*simulate(generator, (3, 3), 500, 0.4)) for _ in range(1000)]
    covered = np.mean([test.interval[0] <= 0 <= test.interval[1] for test in tests])
    assert 0.93 <= covered <= 0.985


def test_a_clear_difference_is_found() -> None:
    generator = np.random.default_rng(0)
    good, bad = generator.random((3, 500)) < 0.95, generator.random((3, 500)) < 0.85
    test = compare_models(good, bad)
    assert test.p_value < 0.001
    assert test.interval[0] > 0
    assert test.difference == pytest.approx(good.mean() - bad.mean())


def test_luck_of_seeds_is_not_taken_for_a_difference() -> None:
    # Each seed answers the first so many samples right: on average 80 and 90, but seeds scatter by 10.
    def count_right(*numbers: int) -> np.ndarray:
        return np.arange(100) < np.array(numbers)[:, None]

    assert compare_models(count_right(70, 80, 90), count_right(80, 90, 100)).p_value > 0.2
    assert compare_models(count_right(79, 80, 81), count_right(89, 90, 91)).p_value < 0.05


def test_single_seeds_get_mcnemars_statistic() -> None:
    # 10 samples that only the first answers right, 2 that only the second does: (10 - 2)^2 / (10 + 2).
    first, second = np.ones((1, 500), dtype=bool), np.ones((1, 500), dtype=bool)
    second[0, :10], first[0, 10:12] = False, False
    test = compare_models(first, second)
    kurtosis = 500 / 12
    expected = 2 * stats.t.sf(8 / math.sqrt(12), 1000 / (kurtosis - 1))
    assert test.p_value == pytest.approx(expected, abs=1e-6)
    # Between the normal approximation and the exact test.
    assert 2 * stats.norm.sf(8 / math.sqrt(12)) < test.p_value
    assert test.p_value == pytest.approx(stats.binomtest(2, 12).pvalue, abs=0.01)


def test_equal_answers_and_single_samples_prove_nothing() -> None:
    right = np.ones((2, 40), dtype=bool)
    same = compare_models(right, right)
    assert same.p_value == 1
    # Of samples that the models answer differently there may be up to 3 in 40 without one being seen.
    assert same.interval == (-0.075, 0.075)
    turned = np.stack([right[0], ~right[0]])
    opposite = compare_models(turned, turned[::-1])
    assert opposite.difference == 0
    assert opposite.interval == (-1.0, 1.0)
    assert compare_models(right[:, :1], ~right[:, :1]).p_value == 1


@pytest.mark.slow
@given(pair=ANSWERS)
@settings(deadline=None)
def test_swapping_models_swaps_the_sign(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = compare_models(*pair), compare_models(*pair[::-1])
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == pytest.approx(other.p_value)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert 0 <= one.p_value <= 1
    assert -1 <= one.interval[0] <= one.difference + 1e-12
    # Whether 0 lies outside the interval is what the p-value says.
    if abs(one.p_value - 0.05) > 1e-3:
        outside = not one.interval[0] <= 0 <= one.interval[1]
        assert outside == (one.p_value < 0.05)


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 4.4, 30, 39, 101, 9_999, 1e6])
def test_students_t_is_scipys(freedom: float) -> None:
    for statistic in (0, 0.3, 1, 2, 5, 30):
        expected = 2 * stats.t.sf(statistic, freedom)
        assert student_tails(statistic, freedom) == pytest.approx(expected, abs=1e-4)
    assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-4)


def test_holms_example() -> None:
    # Smallest times 4, next times 3, and never below the one before.
    assert correct_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_holm([0.6, 0.7]) == [1.0, 1.0]
    assert correct_holm([]) == []


@pytest.mark.parametrize("learned", [0.0, 0.2, 0.5])
def test_agreement_with_labels_is_held_against_labels_dealt_out_at_random(learned: float) -> None:
    generator = np.random.default_rng(1)
    labels = np.where(np.arange(90) < 60, 0, generator.integers(0, 3, 90))
    answers = np.where(generator.random(90) < learned, labels, generator.integers(0, 3, 90))
    hits = [int((generator.permutation(labels) == answers).sum()) for _ in range(20_000)]
    expected = float(np.mean(np.array(hits) >= int((labels == answers).sum())))
    assert agreement_p_value(count_confusion(answers, labels, 3)) == pytest.approx(expected, abs=0.02)


def test_a_constant_answer_agrees_by_chance() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert agreement_p_value(count_confusion(np.zeros(100, dtype=np.int64), labels, 2)) == 1.0


def test_a_network_that_beats_the_majority_by_little_may_agree_by_far() -> None:
    """Right in 95 of 100 where 90 are of one class: no significant lead over a constant, and yet no chance."""
    assert agreement_p_value(np.array([[88, 2], [3, 7]])) < 1e-6
