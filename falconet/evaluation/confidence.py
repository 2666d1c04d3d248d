"""Calibration and abstention: a model's temperature, and the confidence above which it is right often enough."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from falconet import metrics
from falconet.artifact import Artifact
from falconet.data import Dataset
from falconet.errors import ConfigError
from falconet.evaluation.logits import SplitLogits, predict_split, scale_logits

DIGITS = 4
"""Significant digits of a temperature: further ones depend on rounding in the network rather than on the samples."""


@dataclass(frozen=True)
class CalibrationChange:
    """Expected calibration error of one split, without and with the temperature; fractions of 0 to 1."""

    ece_before: float
    ece_after: float
    n: int
    """Number of samples."""


@dataclass(frozen=True)
class Calibration(CalibrationChange):
    """The effect of a temperature: on the validation split, to which it was fitted and which flatters it."""

    temperature: float
    test: CalibrationChange
    """Effect on test samples, to which it was not fitted."""
    reason: str = ""
    """A sentence on why the temperature is 1; empty for another."""


def calibrate(artifact: Artifact, dataset: Dataset) -> tuple[Artifact, SplitLogits]:
    """Return a model with the temperature that fits the validation split of its data best, and its logits there.

    The temperature is 1 where `falconet.metrics.choose_temperature` finds none that helps. Which class is the most
    probable does not change.
    """
    plain = dataclasses.replace(artifact, config=dataclasses.replace(artifact.config, calibration_temperature=1.0))
    answers = predict_split(plain, dataset, "val")
    chosen = metrics.choose_temperature(answers.logits, answers.split.labels)
    temperature = float(f"{chosen.temperature:.{DIGITS}g}")
    scaled = dataclasses.replace(answers, logits=scale_logits(answers.logits, temperature))
    return dataclasses.replace(
        plain, config=dataclasses.replace(plain.config, calibration_temperature=temperature)
    ), scaled


def measure_calibration(artifact: Artifact, val: SplitLogits, test: SplitLogits) -> Calibration:
    """Return the effect of a model's temperature, from its logits with it."""
    temperature = artifact.config.calibration_temperature
    fitted, seen = (measure_change(answers, temperature) for answers in (val, test))
    reason = metrics.choose_temperature(val.logits, val.split.labels).reason if temperature == 1 else ""
    return Calibration(fitted.ece_before, fitted.ece_after, fitted.n, temperature, seen, reason)


def measure_change(answers: SplitLogits, temperature: float) -> CalibrationChange:
    """Return calibration errors without and with a temperature, from logits divided by it."""
    labels = answers.split.labels
    before, after = (
        metrics.expected_calibration_error(logits, labels)
        for logits in (scale_logits(answers.logits, 1 / temperature), answers.logits)
    )
    return CalibrationChange(before, after, len(labels))


@dataclass(frozen=True)
class Answered:
    """The samples of a split with a prediction above the threshold; fractions of 0 to 1."""

    split: str
    n: int
    """Number of samples with a prediction."""
    coverage: float
    """Fraction of samples with a prediction."""
    accuracy: float | None
    """Accuracy on samples with a prediction; None: there are none."""
    accuracy_ci: tuple[float, float] | None
    """95% Wilson score interval of the accuracy; None: no sample has a prediction."""


@dataclass(frozen=True)
class Abstention:
    """A model that says "I don't know" where its highest probability is below a threshold."""

    precision: float
    """Wanted accuracy of the answered samples."""
    threshold: float | None
    """Lowest confidence that reaches it where it was chosen; None: none does."""
    chosen: Answered | None
    judged: Answered | None
    """Result on the evaluated split; it flatters where the threshold was chosen on the same one. None: no threshold."""


def check_target_accuracy(target: float | None) -> None:
    """Raise ConfigError for an impossible accuracy."""
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"target_accuracy: wanted a fraction above 0 and up to 1, such as 0.99, found {target:g}")


def abstain(target: float, choosing: tuple[str, SplitLogits], evaluated: tuple[str, SplitLogits]) -> Abstention:
    """Choose the threshold for a wanted accuracy on a split, given by name and logits, and evaluate it on another."""
    logits, labels = choosing[1].logits, choosing[1].split.labels
    threshold = metrics.find_threshold(metrics.coverage_curve(logits, labels), target)
    if threshold is None:
        return Abstention(target, None, None, None)
    chosen, found = (_answer_above(threshold, name, answers) for name, answers in (choosing, evaluated))
    return Abstention(target, threshold, chosen, found)


def _answer_above(threshold: float, split: str, answers: SplitLogits) -> Answered:
    """Return coverage and accuracy at a threshold."""
    given = metrics.score_by_probability(answers.logits) >= threshold
    right = answers.logits.argmax(axis=1) == answers.split.labels
    count, hits = int(given.sum()), int((right & given).sum())
    interval = metrics.wilson_interval(hits, count) if count else None
    return Answered(split, count, count / len(given), hits / count if count else None, interval)
