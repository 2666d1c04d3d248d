"""Figures of merit against scikit-learn's, a second implementation, or values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from falconet.metrics import (
    ClassScores,
    average_scores,
    compute_accuracy,
    compute_log_loss,
    count_confusion,
    log_softmax,
    score_classes,
    softmax,
    top_k_accuracy,
)
from tests.metrics.drawing import EXACT, evaluated_logits, quick


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw predictions, labels and a number of classes, of which some may not occur or be the only one predicted."""
    classes = draw(st.integers(2, 6))
    count = draw(st.integers(1, 30))
    predictable = draw(st.integers(1, classes))
    predictions = draw(st.lists(st.integers(0, predictable - 1), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return np.array(predictions, dtype=np.int64), np.array(labels, dtype=np.int64), classes


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
@given(evaluated_logits())
def test_log_loss(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    expected = sklearn.metrics.log_loss(labels, softmax(logits), labels=range(logits.shape[1]))
    assert compute_log_loss(logits, labels) == pytest.approx(expected, abs=EXACT, rel=EXACT)


@quick
@given(evaluated_logits(least_classes=3), st.integers(1, 2))
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


@given(evaluated_logits())
@quick
def test_top_1_is_accuracy_and_top_all_is_1(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = np.round(drawn[0]), drawn[1]
    assert top_k_accuracy(logits, labels, 1) == pytest.approx(float((logits.argmax(axis=1) == labels).mean()))
    assert top_k_accuracy(logits, labels, logits.shape[1]) == 1.0


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
