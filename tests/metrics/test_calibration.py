"""Calibration against scikit-learn, scipy, a second implementation, or values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.metrics
from hypothesis import assume, given
from hypothesis import strategies as st

from falconet.metrics import (
    ReliabilityBin,
    average_gaps,
    bin_reliability,
    choose_temperature,
    compute_log_loss,
    expected_calibration_error,
    fit_temperature,
    list_brier_scores,
    list_log_losses,
    softmax,
)
from tests.metrics.drawing import EXACT, evaluated_logits, quick


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
@given(evaluated_logits(), st.sampled_from([1, 2, 10, 15]))
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


def test_bins_by_hand() -> None:
    confidences, hits = [0.9, 0.95, 0.6, 0.8], [True, False, True, True]
    logits = np.array([[math.log(value), math.log(1 - value)] for value in confidences])
    labels = np.array([0 if hit else 1 for hit in hits], dtype=np.int64)
    found = bin_reliability(logits, labels, 5)
    expected = [ReliabilityBin(0.4, 0.6, 0.6, 1.0, 1), ReliabilityBin(0.6, 0.8, 0.8, 1.0, 1)]
    for bin_, wanted in zip(found, [*expected, ReliabilityBin(0.8, 1.0, 0.925, 0.5, 2)], strict=True):
        assert vars(bin_) == pytest.approx(vars(wanted))
    assert average_gaps(found) == pytest.approx((0.4 + 0.2 + 2 * 0.425) / 4)


@quick
@given(evaluated_logits())
def test_brier_score(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    classes = range(logits.shape[1])
    options = {"labels": list(classes), "scale_by_half": False}
    expected = sklearn.metrics.brier_score_loss(labels, softmax(logits), **options)
    assert list_brier_scores(logits, labels).mean() == pytest.approx(expected, abs=EXACT)


@quick
@given(evaluated_logits())
def test_losses_of_samples_have_the_log_loss_as_mean(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    assert list_log_losses(*drawn).mean() == pytest.approx(compute_log_loss(*drawn), abs=EXACT)


def make_answers(sharpness: float, count: int = 2000, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are `sharpness` times those from whose softmax the labels are drawn."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, size=(count, classes))
    labels = (softmax(logits).cumsum(axis=1) < generator.random((count, 1))).sum(axis=1)
    return sharpness * logits, np.minimum(labels, classes - 1).astype(np.int64)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 4.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(sharpness: float) -> None:
    assert fit_temperature(*make_answers(sharpness)) == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("count", [3, 30, 300])
def test_temperature_equals_that_of_scipy(sharpness: float, count: int) -> None:
    """Its general minimizer, on the smoothed loss written down as it is meant."""
    logits, labels = make_answers(sharpness, count)
    wrong = 1 / (count + 2)
    others = logits.copy()
    others[np.arange(count), labels] = -np.inf
    targets = np.zeros_like(logits)
    targets[np.arange(count), labels] = 1 - wrong
    targets[np.arange(count), others.argmax(axis=1)] = wrong

    def loss(log_temperature: float) -> float:
        return float(-(targets * scipy.special.log_softmax(logits / math.exp(log_temperature), axis=1)).sum())

    found = scipy.optimize.minimize_scalar(loss, bounds=(-8, 8), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(found.x), rel=1e-5)


@quick
@given(evaluated_logits(), st.floats(1e-6, 1e6))
def test_scaled_logits_have_a_scaled_temperature(drawn: tuple[np.ndarray, np.ndarray], scale: float) -> None:
    logits, labels = drawn
    found = fit_temperature(logits, labels)
    assume(found != 1.0)  # Nothing to be learned from these labels.
    assert fit_temperature(scale * logits, labels) == pytest.approx(scale * found, rel=1e-5)


@quick
@given(evaluated_logits())
def test_a_temperature_changes_no_answer(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    temperature = fit_temperature(logits, labels)
    assert 0 < temperature < math.inf
    np.testing.assert_array_equal((logits / temperature).argmax(axis=1), logits.argmax(axis=1))


@pytest.mark.parametrize("count", [4, 100, 5000])
def test_answers_that_are_all_right_are_as_sure_as_their_number_allows(count: int) -> None:
    """Without smoothing the temperature would fall to 0; with it the rule of succession holds."""
    labels = np.arange(count, dtype=np.int64) % 2
    logits = 7.0 * np.eye(2)[labels]
    confidence = softmax(logits / fit_temperature(logits, labels)).max(axis=1)
    np.testing.assert_allclose(confidence, (count + 1) / (count + 2), rtol=1e-6)


@pytest.mark.parametrize("logits", [np.zeros((4, 3)), np.array([[5.0, 0.0, 1.0]] * 4), np.full((4, 3), 1e30)])
def test_logits_that_no_temperature_helps_are_left_alone(logits: np.ndarray) -> None:
    assert fit_temperature(logits, np.array([1, 2, 1, 2])) == 1.0


def test_temperature_of_few_wrong_answers_by_hand() -> None:
    """Two classes, gap 2, of 8 samples 6 right: P(right) = (6 (1 - w) + 2 w) / 8 with w = 1/10, so 0.7."""
    labels = np.array([0] * 6 + [1] * 2, dtype=np.int64)
    logits = np.array([[2.0, 0.0]] * 8)
    assert fit_temperature(logits, labels) == pytest.approx(2 / math.log(0.7 / 0.3), rel=1e-6)


def test_temperature_lowers_the_calibration_error_of_samples_it_never_saw() -> None:
    logits, labels = make_answers(3.0, 4000)
    temperature = fit_temperature(logits[:2000], labels[:2000])
    before = expected_calibration_error(logits[2000:], labels[2000:])
    assert expected_calibration_error(logits[2000:] / temperature, labels[2000:]) < before / 3


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_a_temperature_of_many_samples_is_kept_near_the_truth(sharpness: float) -> None:
    chosen = choose_temperature(*make_answers(sharpness))
    assert chosen.temperature == fit_temperature(*make_answers(sharpness)) == pytest.approx(sharpness, rel=0.05)
    assert chosen.reason == ""


@pytest.mark.parametrize("count", [1, 20, 99])
def test_few_samples_give_no_temperature(count: int) -> None:
    chosen = choose_temperature(*make_answers(2.0, count))
    assert chosen.temperature == 1.0
    assert chosen.reason == f"{count} validation samples are too few to fit a temperature; 100 are wanted."


def test_models_that_are_calibrated_keep_their_probabilities() -> None:
    chosen = [choose_temperature(*make_answers(1.0, 200, seed=seed)) for seed in range(40)]
    left = [one for one in chosen if one.temperature == 1.0]
    assert len(left) >= 36
    assert all("held-out validation samples" in one.reason for one in left)


def test_few_samples_in_order_of_their_classes_are_parted_evenly() -> None:
    """Folds without a class would fit temperatures to other tasks."""
    logits, labels = make_answers(2.0, 400)
    order = np.argsort(labels, kind="stable")
    in_order, mixed = choose_temperature(logits[order], labels[order]), choose_temperature(logits, labels)
    assert in_order.temperature == pytest.approx(mixed.temperature, rel=1e-6)
    assert mixed.temperature == pytest.approx(2.0, rel=0.2)
