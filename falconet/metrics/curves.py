"""Curves over a threshold: precision and recall, ROC, and accuracy over coverage, with their areas.

All go through the distinct scores from high to low, so that tied samples are taken together; areas are those of
scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from falconet.metrics.classification import Labels, Logits, softmax

_POINTS = 100
"""Points of a thinned curve, more than a plot of a few hundred pixels shows."""

_Scores = Float64[np.ndarray, " samples"]
Points = Float64[np.ndarray, " points"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Points for falling thresholds, and the area under them."""

    thresholds: Points
    """Scores at and above which samples are taken."""
    x: Points
    y: Points
    area: float


def precision_recall_curve(scores: _Scores, positive: Bool[np.ndarray, " samples"]) -> Curve | None:
    """Return precision (y) over recall (x) of one class against the rest; None without positives or negatives.

    The area is average precision: the sum of precision times the step of recall, without interpolation, which would be
    too optimistic (Davis and Goadrich, 2006).
    """
    if positive.all() or not positive.any():
        return None
    thresholds, taken, hits = step_down(scores, positive)
    precision, recall = hits / taken, hits / hits[-1]
    return Curve(thresholds, recall, precision, float(np.diff(recall, prepend=0) @ precision))


def roc_curve(scores: _Scores, positive: Bool[np.ndarray, " samples"]) -> Curve | None:
    """Return the fraction of positives (y) over that of negatives (x) that are taken, from (0, 0).

    None without positives or negatives. The area is the chance that a positive has the higher score than a negative,
    ties counting half.
    """
    if positive.all() or not positive.any():
        return None
    thresholds, taken, hits = step_down(scores, positive)
    misses = taken - hits
    x, y = (np.concatenate([[0.0], part / part[-1]]) for part in (misses, hits))
    return Curve(np.concatenate([[np.inf], thresholds]), x, y, float(np.diff(x) @ (y[1:] + y[:-1])) / 2)


def coverage_curve(logits: Logits, labels: Labels) -> Curve:
    """Return accuracy (y) among the most confident predictions, over their fraction (x).

    The area is AURC: the error among predictions at least as confident as a sample's, averaged over samples (Geifman,
    Uziel, El-Yaniv, ICLR 2019); 0 is best, and lower where mistakes are the least confident predictions.
    """
    probabilities = softmax(logits)
    right = probabilities.argmax(axis=1) == labels
    thresholds, taken, hits = step_down(probabilities.max(axis=1), right)
    accuracy, coverage = hits / taken, taken / len(labels)
    return Curve(thresholds, coverage, accuracy, float(np.diff(coverage, prepend=0) @ (1 - accuracy)))


def find_threshold(curve: Curve, precision: float) -> float | None:
    """Return the lowest confidence at and above which predictions have the wanted accuracy; None where there is none.

    `curve` is that of coverage. The lowest keeps most predictions.
    """
    enough = np.flatnonzero(curve.y >= precision)
    return float(curve.thresholds[enough[-1]]) if len(enough) else None


def fpr_at_tpr(scores: _Scores, others: Float64[np.ndarray, " others"], accepted: float = 0.95) -> float:
    """Return the fraction of `others` at or above the score that `accepted` of `scores` reach: FPR at 95% TPR."""
    kept = int(np.ceil(accepted * len(scores)))
    threshold = np.sort(scores)[len(scores) - kept]
    return float((others >= threshold).mean())


def thin_curve(curve: Curve, points: int = _POINTS) -> Curve:
    """Return a curve with at most `points` of its points, evenly spaced along it, both ends among them; same area."""
    if len(curve.x) <= points:
        return curve
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y)))])
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], points)[:-1], side="right") - 1)
    kept = np.append(kept, len(way) - 1)
    return Curve(curve.thresholds[kept], curve.x[kept], curve.y[kept], curve.area)


def step_down(
    scores: _Scores, positive: Bool[np.ndarray, " samples"]
) -> tuple[Points, Int64[np.ndarray, " points"], Int64[np.ndarray, " points"]]:
    """Return the distinct scores, falling, with the numbers of samples and of positives that reach each."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return ranked[last], last + 1, np.cumsum(positive[order], dtype=np.int64)[last]
