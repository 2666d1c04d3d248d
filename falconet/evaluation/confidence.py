"""How sure a model may be: its temperature, and from which confidence on its answers are right as often as wanted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from falconet import metrics
from falconet.artifact import Artifact
from falconet.data import Dataset
from falconet.errors import ConfigError
from falconet.evaluation.logits import SplitLogits, predict_split, scale_logits

DIGITS = 4
"""Significant digits of a temperature: more follow from rounding in the network rather than from the samples."""


@dataclass(frozen=True)
class CalibrationChange:
    """Expected calibration error of one split, without and with the temperature; fractions of 0 to 1."""

    ece_before: float
    ece_after: float
    n: int
    """Samples."""


@dataclass(frozen=True)
class Calibration(CalibrationChange):
    """What a temperature changes: on the validation split, to which it was fitted and which flatters it."""

    temperature: float
    test: CalibrationChange
    """On samples that it never saw."""
    reason: str = ""
    """Why the temperature is 1, as a sentence; empty where it is another."""


def calibrate(artifact: Artifact, dataset: Dataset) -> tuple[Artifact, SplitLogits]:
    """Return a model with the temperature that fits the validation split of its data best, and its answers there.

    The temperature is 1 where `falconet.metrics.choose_temperature` finds none that helps. Which class is the most
    probable stays as it was.
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
    """Return what a model's temperature changed, from its answers with it."""
    temperature = artifact.config.calibration_temperature
    fitted, seen = (measure_change(answers, temperature) for answers in (val, test))
    reason = metrics.choose_temperature(val.logits, val.split.labels).reason if temperature == 1 else ""
    return Calibration(fitted.ece_before, fitted.ece_after, fitted.n, temperature, seen, reason)


def measure_change(answers: SplitLogits, temperature: float) -> CalibrationChange:
    """Return calibration errors without and with the temperature that answers were given with."""
    labels = answers.split.labels
    before, after = (
        metrics.expected_calibration_error(logits, labels)
        for logits in (scale_logits(answers.logits, 1 / temperature), answers.logits)
    )
    return CalibrationChange(before, after, len(labels))


@dataclass(frozen=True)
class Answered:
    """The samples of a split that get an answer; fractions of 0 to 1."""

    split: str
    n: int
    """Samples that get one."""
    coverage: float
    """Their fraction."""
    accuracy: float | None
    """Among them; None where there are none."""
    accuracy_ci: tuple[float, float] | None
    """95% score interval."""


@dataclass(frozen=True)
class Abstention:
    """A model that says "I don't know" where its highest probability is below a threshold."""

    precision: float
    """The fraction of right answers that was wanted."""
    threshold: float | None
    """The lowest that gives it where it was chosen; None: none does."""
    chosen: Answered | None
    judged: Answered | None
    """On the split that was asked for. The same one, and so flattering, where there is no other to choose on."""


def check_precision(precision: float | None) -> None:
    """Raise ConfigError for a precision that no answers can have."""
    if precision is not None and not 0 < precision <= 1:
        raise ConfigError(f"precision: wanted a fraction above 0 and up to 1, such as 0.99, found {precision:g}")


def abstain(precision: float, choosing: tuple[str, SplitLogits], evaluated: tuple[str, SplitLogits]) -> Abstention:
    """Choose the threshold for a wanted precision on a split, by name and answers, and evaluate it on another."""
    logits, labels = choosing[1].logits, choosing[1].split.labels
    threshold = metrics.find_threshold(metrics.coverage_curve(logits, labels), precision)
    if threshold is None:
        return Abstention(precision, None, None, None)
    chosen, found = (_answer_above(threshold, name, answers) for name, answers in (choosing, evaluated))
    return Abstention(precision, threshold, chosen, found)


def _answer_above(threshold: float, split: str, answers: SplitLogits) -> Answered:
    """Return how many samples get an answer, and how good these are."""
    given = metrics.score_by_probability(answers.logits) >= threshold
    right = answers.logits.argmax(axis=1) == answers.split.labels
    count, hits = int(given.sum()), int((right & given).sum())
    interval = metrics.wilson_interval(hits, count) if count else None
    return Answered(split, count, count / len(given), hits / count if count else None, interval)
