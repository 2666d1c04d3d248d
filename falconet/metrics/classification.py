"""Figures of merit as pure functions of logits and labels; equal to scikit-learn's, without importing it or torch.

Averages over classes count the classes that occur among labels or predictions, and a ratio with nothing in its
denominator is 0, both as in scikit-learn.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Float64, Int64

Logits = Float[np.ndarray, "samples classes"]
Labels = Int64[np.ndarray, " samples"]
Confusion = Int64[np.ndarray, "classes classes"]


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest; fractions of 0 to 1."""

    precision: float
    recall: float
    f1: float
    support: int
    """Samples of this class."""


def count_confusion(predictions: Labels, labels: Labels, num_classes: int) -> Confusion:
    """Return how often a sample of class `row` was taken for class `column`."""
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return np.asarray(flat.reshape(num_classes, num_classes), dtype=np.int64)


def compute_accuracy(confusion: Confusion) -> float:
    """Return the fraction of samples on the diagonal."""
    return float(np.trace(confusion) / confusion.sum())


def wilson_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share (Wilson, 1927): sound for few samples and near 0 and 1."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # Rounding must not push the ends past the share itself at 0 and 1.
    return min(float(center - half), share) if hits else 0.0, max(float(center + half), share) if hits < count else 1.0


def score_classes(confusion: Confusion) -> list[ClassScores]:
    """Return precision, recall and F1 of each class."""
    hits = np.diag(confusion).astype(np.float64)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = divide(hits, predicted), divide(hits, actual)
    f1 = divide(2 * hits, predicted + actual)
    rows = zip(precision, recall, f1, actual, strict=True)
    return [ClassScores(float(p), float(r), float(f), int(n)) for p, r, f, n in rows]


def average_scores(confusion: Confusion, how: str = "macro") -> ClassScores:
    """Return the mean over classes: each alike for "macro", each by its support for "weighted"."""
    scores = score_classes(confusion)
    occurring = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    weights = occurring.astype(np.float64) if how == "macro" else confusion.sum(axis=1).astype(np.float64)
    table = np.array([[row.precision, row.recall, row.f1] for row in scores])
    precision, recall, f1 = np.average(table, axis=0, weights=weights)
    return ClassScores(float(precision), float(recall), float(f1), int(confusion.sum()))


def log_softmax(logits: Logits) -> Float64[np.ndarray, "samples classes"]:
    """Return log-probabilities in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def softmax(logits: Logits) -> Float64[np.ndarray, "samples classes"]:
    """Return probabilities in double precision."""
    return np.asarray(np.exp(log_softmax(logits)))


def compute_log_loss(logits: Logits, labels: Labels) -> float:
    """Return the mean negative log-probability of the true class, in nats."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def top_k_accuracy(logits: Logits, labels: Labels, k: int) -> float:
    """Return the fraction of samples whose true class has fewer than k classes above it or level before it."""
    own = logits[np.arange(len(labels)), labels][:, None]
    above = (logits > own).sum(axis=1)
    level_before = ((logits == own) & (np.arange(logits.shape[1]) < labels[:, None])).sum(axis=1)
    return float((above + level_before < k).mean())


def expected_calibration_error(logits: Logits, labels: Labels, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins (Guo et al., 2017, equation 3)."""
    probabilities = softmax(logits)
    confidence = probabilities.max(axis=1)
    hits = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    # Bins are (lower, upper], as in the paper; rounding may push a confidence past 1.
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def divide(
    numerator: Float[np.ndarray, " classes"], denominator: Int64[np.ndarray, " classes"]
) -> Float64[np.ndarray, " classes"]:
    """Return the quotient, 0 where the denominator is 0."""
    quotient: Float64[np.ndarray, " classes"] = np.zeros(len(numerator))
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
