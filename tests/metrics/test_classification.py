"""Figures of merit against scikit-learn's, a second implementation, or values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.metrics import (
    ClassScores,
    average_scores,
    compute_accuracy,
    compute_log_loss,
    count_confusion,
    expected_calibration_error,
    log_softmax,
    score_classes,
    softmax,
    top_k_accuracy,
    wilson_interval,
)

EXACT = 1e-9


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw predictions, labels and a number of classes, of which some may not occur or be the only one predicted."""
    classes = draw(st.integers(2, 6))
    count = draw(st.integers(1, 30))
    predictable = draw(st.integers(1, classes))
    predictions = draw(st.lists(st.integers(0, predictable - 1), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return np.array(predictions, dtype=np.int64), np.array(labels, dtype=np.int64), classes


@st.composite
def judged_logits(draw: st.DrawFn, least_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits without ties, confident or not, and labels."""
    classes = draw(st.integers(least_classes, 6))
    count = draw(st.integers(1, 30))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(0, draw(st.sampled_from([0.01, 1.0, 4.0])), size=(count, classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return logits, np.array(labels, dtype=np.int64)


quick = settings(deadline=None, max_examples=60)


@quick
@given(answers())
def test_confusion_and_accuracy(drawn: tuple[np.ndarray, np.ndarray, int]) -> None:
    predictions, labels, classes = drawn
    confusion = count_confusion(predictions, labels, classes)
    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(classes))
    np.testing.assert_array_equal(confusion, expected)
    assert compute_accuracy(confusion) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, predictions), abs=EXACT, rel=0
    )


@quick
@given(answers())
def test_scores_by_class(drawn: tuple[np.ndarray, np.ndarray, int]) -> None:
    predictions, labels, classes = drawn
    found = score_classes(count_confusion(predictions, labels, classes))
    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(classes), zero_division=0
    )
    table = [[row.precision, row.recall, row.f1, row.support] for row in found]
    np.testing.assert_allclose(table, np.transpose(expected), rtol=0, atol=EXACT)


@quick
@given(answers(), st.sampled_from(["macro", "weighted"]))
def test_average_scores(drawn: tuple[np.ndarray, np.ndarray, int], how: str) -> None:
    predictions, labels, classes = drawn
    found = average_scores(count_confusion(predictions, labels, classes), how)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predictions, average=how, zero_division=0)
    np.testing.assert_allclose([found.precision, found.recall, found.f1], expected[:3], rtol=0, atol=EXACT)
    assert found.support == len(labels)


@quick
@given(judged_logits())
def test_log_loss(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    expected = sklearn.metrics.log_loss(labels, softmax(logits), labels=range(logits.shape[1]))
    assert compute_log_loss(logits, labels) == pytest.approx(expected, abs=EXACT, rel=EXACT)


@quick
@given(judged_logits(least_classes=3), st.integers(1, 2))
def test_top_k_accuracy(drawn: tuple[np.ndarray, np.ndarray], k: int) -> None:
    logits, labels = drawn
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(logits.shape[1]))
    assert top_k_accuracy(logits, labels, k) == pytest.approx(expected, abs=EXACT, rel=0)


def test_scores_worked_by_hand() -> None:
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    found = score_classes(confusion)
    assert found == [ClassScores(3 / 5, 3 / 4, 2 / 3, 4), ClassScores(4 / 5, 4 / 6, 8 / 11, 6), ClassScores(0, 0, 0, 0)]
    assert compute_accuracy(confusion) == 0.7
    assert average_scores(confusion).recall == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert average_scores(confusion, "weighted").recall == pytest.approx(0.7)


def test_confusion_has_labels_in_rows() -> None:
    confusion = count_confusion(np.array([1, 1]), np.array([0, 0]), 2)
    np.testing.assert_array_equal(confusion, [[0, 2], [0, 0]])


def test_ties_go_to_the_first_class_as_in_argmax() -> None:
    logits = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
    assert top_k_accuracy(logits, np.array([0, 1]), 1) == 1.0
    assert top_k_accuracy(logits, np.array([1, 2]), 1) == 0.0
    assert top_k_accuracy(logits, np.array([1, 2]), 2) == 1.0


@given(judged_logits())
@quick
def test_top_1_is_accuracy_and_top_all_is_1(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = np.round(drawn[0]), drawn[1]
    assert top_k_accuracy(logits, labels, 1) == pytest.approx(float((logits.argmax(axis=1) == labels).mean()))
    assert top_k_accuracy(logits, labels, logits.shape[1]) == 1.0


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


def loop_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    probabilities = [[math.exp(value) for value in row] for row in logits.tolist()]
    total = 0.0
    for number in range(bins):
        inside = []
        for row, label in zip(probabilities, labels.tolist(), strict=True):
            confidence = max(row) / sum(row)
            if number / bins < confidence <= (number + 1) / bins:
                inside.append((confidence, row.index(max(row)) == label))
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            confidence = sum(value for value, _ in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@quick
@given(judged_logits(), st.sampled_from([1, 2, 10, 15]))
def test_calibration_error_equals_a_plain_loop(drawn: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    found = expected_calibration_error(*drawn, bins)
    assert found == pytest.approx(loop_calibration_error(*drawn, bins), abs=EXACT, rel=0)


@pytest.mark.parametrize(
    ("confidences", "hits", "bins", "expected"),
    [
        ([0.8] * 5, [True, True, True, True, False], 10, 0.0),
        ([0.9, 0.9], [True, False], 10, 0.4),
        ([0.9, 0.6], [True, False], 10, (0.1 + 0.6) / 2),
        ([0.9, 0.6], [True, False], 1, 0.25),
        ([0.5], [True], 2, 0.5),
        # A confidence on an edge belongs to the lower bin.
        ([0.5, 0.9], [True, False], 2, (0.5 + 0.9) / 2),
    ],
)
def test_calibration_error_by_hand(confidences: list[float], hits: list[bool], bins: int, expected: float) -> None:
    logits = np.array([[math.log(value), math.log(1 - value)] for value in confidences])
    labels = np.array([0 if hit else 1 for hit in hits], dtype=np.int64)
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(expected)


def test_calibration_error_of_the_certain() -> None:
    logits = np.array([[1e4, 0.0], [1e4, 0.0]])
    assert expected_calibration_error(logits, np.array([0, 0])) == 0.0
    assert expected_calibration_error(logits, np.array([1, 1])) == 1.0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_softmax_is_stable(kind: type[np.floating]) -> None:
    logits = np.array([[1e30, 0.0, -1e30], [1e4, 1e4, -1e4], [-1e4, -1e4 - 1, -1e4]], dtype=kind)
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float64
    thin = math.exp(-1) / (2 + math.exp(-1))
    expected = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [(1 - thin) / 2, thin, (1 - thin) / 2]]
    np.testing.assert_allclose(probabilities, expected, atol=1e-12)


@pytest.mark.parametrize("shift", [-1e6, 0.0, 1e6])
def test_log_softmax_ignores_a_common_shift(shift: float) -> None:
    logits = np.array([[0.0, 1.0, 2.0]])
    expected = np.array([[0.0, 1.0, 2.0]]) - math.log(1 + math.e + math.e**2)
    np.testing.assert_allclose(log_softmax(logits + shift), expected, atol=1e-9)


def test_log_loss_of_a_confident_mistake_is_finite() -> None:
    assert compute_log_loss(np.array([[1000.0, 0.0]], dtype=np.float32), np.array([1])) == 1000.0
