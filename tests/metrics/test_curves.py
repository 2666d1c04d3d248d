"""Curves against scikit-learn's and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from falconet.metrics import (
    Curve,
    coverage_curve,
    find_threshold,
    fpr_at_tpr,
    precision_recall_curve,
    roc_curve,
    softmax,
    thin_curve,
)
from tests.metrics.drawing import EXACT, evaluated_logits, quick


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores, often tied, and which are positive: at least one, and not all."""
    count = draw(st.integers(2, 40))
    levels = draw(st.integers(1, 40))
    scores = draw(st.lists(st.integers(0, levels), min_size=count, max_size=count))
    positive = draw(
        st.lists(st.booleans(), min_size=count, max_size=count).filter(lambda marks: 0 < sum(marks) < count)
    )
    return np.array(scores, dtype=np.float64) / 40, np.array(positive)


@quick
@given(scored())
def test_average_precision(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = drawn
    curve = precision_recall_curve(scores, positive)
    assert curve is not None
    assert curve.area == pytest.approx(sklearn.metrics.average_precision_score(positive, scores), abs=EXACT)
    precision, recall, _ = sklearn.metrics.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(curve.y, precision[-2::-1], atol=EXACT)
    np.testing.assert_allclose(curve.x, recall[-2::-1], atol=EXACT)


@quick
@given(scored())
def test_roc(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = drawn
    curve = roc_curve(scores, positive)
    assert curve is not None
    assert curve.area == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores), abs=EXACT)
    false, true, thresholds = sklearn.metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(np.stack([curve.x, curve.y]), np.stack([false, true]), atol=EXACT)
    np.testing.assert_allclose(curve.thresholds, thresholds)


def test_roc_area_is_the_chance_of_the_higher_score() -> None:
    curve = roc_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    assert curve is not None
    assert curve.area == (1 + 1 + 0.5 + 1) / 4


@pytest.mark.parametrize("positive", [True, False])
def test_classes_without_others_or_samples_have_no_curve(positive: bool) -> None:
    scores, marks = np.array([0.1, 0.2]), np.full(2, positive)
    assert precision_recall_curve(scores, marks) is None
    assert roc_curve(scores, marks) is None


def make_logits(confidences: list[float], hits: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    logits = np.array([[math.log(value), math.log(1 - value)] for value in confidences])
    return logits, np.array([0 if hit else 1 for hit in hits], dtype=np.int64)


def test_coverage_by_hand() -> None:
    curve = coverage_curve(*make_logits([0.9, 0.8, 0.8, 0.6], [True, True, False, False]))
    np.testing.assert_allclose(curve.thresholds, [0.9, 0.8, 0.6])
    np.testing.assert_allclose(curve.x, [0.25, 0.75, 1.0])
    np.testing.assert_allclose(curve.y, [1.0, 2 / 3, 0.5])
    assert curve.area == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 2) / 4)


@quick
@given(evaluated_logits())
def test_area_over_coverage_equals_a_plain_loop(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    confidence, right = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    risks = [1 - right[confidence >= own].mean() for own in confidence]
    curve = coverage_curve(logits, labels)
    assert curve.area == pytest.approx(np.mean(risks), abs=EXACT)
    assert (curve.x[-1], curve.y[-1]) == (1.0, pytest.approx(right.mean()))


def test_the_threshold_leaves_most_answers() -> None:
    hits = [True, False, True, True, True, False]
    curve = coverage_curve(*make_logits([0.95, 0.9, 0.85, 0.8, 0.7, 0.6], hits))
    assert find_threshold(curve, 0.8) == pytest.approx(0.7)
    assert find_threshold(curve, 0.9) == pytest.approx(0.95)
    assert find_threshold(curve, 0.5) == pytest.approx(0.6)
    assert find_threshold(coverage_curve(*make_logits([0.9, 0.8], [False, True])), 0.9) is None


@quick
@given(evaluated_logits(), st.floats(0.01, 1))
def test_the_threshold_gives_the_precision(drawn: tuple[np.ndarray, np.ndarray], precision: float) -> None:
    logits, labels = drawn
    confidence, right = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    threshold = find_threshold(coverage_curve(logits, labels), precision)
    shares = {own: float(right[confidence >= own].mean()) for own in confidence.tolist()}
    enough = [own for own, share in shares.items() if share >= precision]
    assert threshold == (min(enough) if enough else None)


def test_share_that_passes_by_hand() -> None:
    scores = np.arange(100, dtype=np.float64)
    assert fpr_at_tpr(scores, np.array([4.0, 5.0, 6.0, 50.0])) == 0.75
    assert fpr_at_tpr(np.full(10, 0.5), np.full(4, 0.5)) == 1.0
    assert fpr_at_tpr(np.array([3.0]), np.array([2.0])) == 0.0


@quick
@given(scored(), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_share_that_passes_is_a_point_of_scikit_learns_roc(
    drawn: tuple[np.ndarray, np.ndarray], accepted: float
) -> None:
    scores, positive = drawn
    false, true, _ = sklearn.metrics.roc_curve(positive, scores, drop_intermediate=False)
    expected = false[np.flatnonzero(true >= accepted - EXACT)[0]]
    assert fpr_at_tpr(scores[positive], scores[~positive], accepted) == pytest.approx(expected)


def test_thin_curves_keep_their_ends_and_shape() -> None:
    x = np.linspace(0, 1, 5000)
    curve = Curve(1 - x, x, np.where(x < 0.001, 0.0, 1.0), 0.5)
    thin = thin_curve(curve)
    assert len(thin.x) <= 100
    assert (thin.x[0], thin.x[-1], thin.y[0], thin.y[-1], thin.area) == (0, 1, 0, 1, 0.5)
    assert np.diff(thin.x).max() < 0.03
    assert set(zip(thin.thresholds, thin.x, thin.y, strict=True)) <= set(zip(1 - x, x, curve.y, strict=True))
    assert thin_curve(thin) is thin
