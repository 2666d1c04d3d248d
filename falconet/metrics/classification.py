"""Metrics as pure functions of logits and labels; equal to scikit-learn's, without importing it or torch.

Averages over classes count the classes that occur among labels or predictions, and a ratio with nothing in its
denominator is 0, both as in scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Num

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
    """Number of samples of this class."""


def count_confusion(predictions: Labels, labels: Labels, num_classes: int) -> Confusion:
    """Return how often a sample of class `row` was taken for class `column`."""
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return np.asarray(flat.reshape(num_classes, num_classes), dtype=np.int64)


def compute_accuracy(confusion: Confusion) -> float:
    """Return the fraction of samples on the diagonal."""
    return float(np.trace(confusion) / confusion.sum())


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
    hits = np.diag(confusion).astype(np.float64)
    predicted, actual = (confusion.sum(axis=axis).astype(np.float64) for axis in (0, 1))
    means = average_classes(hits, predicted, actual, None if how == "macro" else actual)
    precision, recall, f1 = means.tolist()
    return ClassScores(precision, recall, f1, int(confusion.sum()))


def average_classes(
    hits: Float64[np.ndarray, "*draws classes"],
    predicted: Float64[np.ndarray, "*draws classes"],
    actual: Float64[np.ndarray, "*draws classes"],
    weights: Float64[np.ndarray, "*draws classes"] | None = None,
) -> Float64[np.ndarray, "*draws 3"]:
    """Return the means of precision, recall and F1 over classes, from counts; unweighted over those that occur."""
    both = predicted + actual
    weights = (both > 0).astype(np.float64) if weights is None else weights
    scores = (divide(hits, predicted), divide(hits, actual), divide(2 * hits, both))
    sums = np.stack([(score * weights).sum(axis=-1) for score in scores], axis=-1)
    # Weights are whole numbers, all 0 only where nothing was counted.
    return np.asarray(sums / np.maximum(weights.sum(axis=-1), 1)[..., None])


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


def divide(
    numerator: Float[np.ndarray, "*shape"], denominator: Num[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """Return the quotient, 0 where the denominator is 0."""
    quotient: Float64[np.ndarray, "*shape"] = np.zeros(numerator.shape)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
