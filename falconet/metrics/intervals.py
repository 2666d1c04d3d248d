"""Uncertainty of metrics: score and bootstrap intervals, and McNemar's test between two models.

Bootstrap intervals are bias-corrected and accelerated (BCa): B. Efron, R. Tibshirani, "An Introduction to the
Bootstrap", 1993, section 14.3. The plain percentile interval (13.3) is a little quicker, but macro F1 is biased and
skewed where classes are small: for 20 uneven classes in 400 samples it held the true one in 91% of simulated data sets,
BCa in 94%; macro recall, which is not biased, in 94% and 92%. Samples are resampled with a fixed seed, so that the same
answers always get the same intervals.

There is none for the expected calibration error, on purpose. It is a mean of absolute gaps, which noise can only
widen; a resample adds noise to noise, so that nearly all resamples lie above the estimate, and no quantile of theirs
says where the true error is.
"""

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from falconet.metrics.classification import Confusion, average_classes

Interval = tuple[float, float]

_RESAMPLES = 1000
"""Number of resamples, as Efron and Tibshirani recommend at 95% (section 14.3)."""
_SEED = 0


def wilson_interval(hits: int, count: int, confidence: float = 0.95) -> Interval:
    """Return the score interval of a binomial proportion (Wilson, 1927): sound for few samples and near 0 and 1."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    fraction = hits / count
    center = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(fraction * (1 - fraction) / count + z**2 / (4 * count**2))
    # Rounding must not push the ends past the fraction itself at 0 and 1.
    return min(float(center - half), fraction) if hits else 0.0, max(
        float(center + half), fraction
    ) if hits < count else 1.0


def paired_interval(only_first: float, only_second: float, count: float, confidence: float = 0.95) -> Interval:
    """Return the score interval of a difference of two fractions of the same samples (Tango, 1998).

    `only_first` and `only_second` are how many of `count` samples only one model predicts correctly; their difference
    is that of the accuracies. Unlike resampling it is sound for few such samples, and for none, where it is the score
    interval of a fraction of which nothing was seen. See T. Tango, "Equivalence test and confidence interval for the
    difference in proportions for the paired-sample design", Statistics in Medicine 17.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def score(difference: float) -> float:
        # The most likely fraction that only the second predicts correctly, given the difference.
        middle = (2 * count - only_first + only_second) * difference - only_first - only_second
        product = only_second * difference * (1 - difference)
        fraction = (math.sqrt(max(middle**2 + 8 * count * product, 0.0)) - middle) / (4 * count)
        variance = count * (2 * fraction + difference * (1 - difference))
        gap = only_first - only_second - count * difference
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)

    def search(inner: float, outer: float) -> float:
        for _ in range(60):
            between = (inner + outer) / 2
            inner, outer = (between, outer) if abs(score(between)) <= z else (inner, between)
        return inner

    difference = (only_first - only_second) / count
    return search(difference, -1.0), search(difference, 1.0)


def bootstrap_macro(
    confusion: Confusion, confidence: float = 0.95, resamples: int = _RESAMPLES
) -> tuple[Interval | None, Interval | None, Interval | None]:
    """Return the intervals of macro precision, recall and F1.

    None where all resamples agree, as after a test without a single mistake: resampling then has nothing to say.
    """
    truths, answers = np.nonzero(confusion)
    counts = confusion[truths, answers].astype(np.float64)
    identity = np.eye(len(confusion))
    actual, predicted = identity[truths], identity[answers]
    hits = actual * predicted

    def score(samples: Float64[np.ndarray, "draws cells"]) -> Float64[np.ndarray, "draws figures"]:
        return average_classes(samples @ hits, samples @ predicted, samples @ actual)

    # Samples of one cell are alike, so that what is drawn are the cells' counts.
    total = int(counts.sum())
    drawn = np.random.default_rng(_SEED).multinomial(total, counts / total, size=resamples).astype(np.float64)
    without_one = score(counts - np.eye(len(counts)))
    precision, recall, f1 = _accelerate(score(counts[None])[0], score(drawn), without_one, counts, confidence)
    return precision, recall, f1


def bootstrap_means(
    values: Float64[np.ndarray, "samples figures"], confidence: float = 0.95, resamples: int = _RESAMPLES
) -> list[Interval | None]:
    """Return the interval of each column's mean; None where all values of one are equal."""
    count = len(values)
    generator = np.random.default_rng(_SEED)
    columns = np.ascontiguousarray(values.T)
    means = np.empty((resamples, len(columns)))
    for row in means:
        # How often each sample was drawn is all that a mean needs.
        row[:] = columns @ np.bincount(generator.integers(count, size=count), minlength=count) / count
    estimate = values.mean(axis=0)
    # The mean without a sample, up to a factor, which is all that acceleration asks for.
    return _accelerate(estimate, means, estimate - values, np.ones(count), confidence)


def _accelerate(
    estimates: Float64[np.ndarray, " figures"],
    drawn: Float64[np.ndarray, "draws figures"],
    without_one: Float64[np.ndarray, "cells figures"],
    weights: Float64[np.ndarray, " cells"],
    confidence: float,
) -> list[Interval | None]:
    """Return the BCa interval of each figure: equations 14.9 to 14.15 of Efron and Tibshirani.

    `drawn` are the figures of resamples, `without_one` those of the data without one sample of a cell, of which there
    are `weights`.
    """
    normal = NormalDist()
    tails = [normal.inv_cdf((1 - confidence) / 2), normal.inv_cdf((1 + confidence) / 2)]
    lowest = 1 / (2 * len(drawn))
    intervals: list[Interval | None] = []
    for estimate, draws, left in zip(estimates.tolist(), drawn.T, without_one.T, strict=True):
        # Sums of the same numbers in another order differ by rounding.
        equal = np.isclose(draws, estimate, rtol=1e-9, atol=1e-12)
        if equal.all():
            intervals.append(None)
            continue
        # Of ties half count as below: figures of counts take few values.
        below = float(np.mean((draws < estimate) & ~equal) + equal.mean() / 2)
        bias = normal.inv_cdf(min(max(below, lowest), 1 - lowest))
        gaps = np.average(left, weights=weights) - left
        spread = float(weights @ gaps**2)
        # Without any sample the figure is the same: nothing says that its std depends on its value.
        acceleration = float(weights @ gaps**3) / (6 * spread**1.5) if spread else 0.0
        levels = [normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in tails]
        low, high = np.quantile(draws, levels)
        intervals.append((float(low), float(high)))
    return intervals


def mcnemar_p_value(
    only_first: int, only_second: int, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return the p value that two models err equally often (McNemar, 1947), by the exact binomial test.

    It rests on the samples that only one model predicts correctly, however many: each is as likely to be the first's
    as the second's if the models are alike. No approximation is used. 1 where there are none. "greater" asks whether
    the first is better, so that only samples in its favor count as signs of a difference.
    """
    count = only_first + only_second
    # Whole numbers of any length: nothing is rounded before the division.
    term = tail = 1
    for k in range(1, (only_second if alternative == "greater" else min(only_first, only_second)) + 1):
        term = term * (count - k + 1) // k
        tail += term
    return min(float((1 if alternative == "greater" else 2) * tail / 2**count), 1.0)


def count_pairs(first: Bool[np.ndarray, " samples"], second: Bool[np.ndarray, " samples"]) -> tuple[int, int, int, int]:
    """Return how many samples both models, only the first, only the second, and neither predict correctly."""
    cells = np.bincount(2 * ~first + ~second, minlength=4).tolist()
    return cells[0], cells[1], cells[2], cells[3]


def bootstrap_difference(
    first: Bool[np.ndarray, " samples"], second: Bool[np.ndarray, " samples"], confidence: float = 0.95
) -> Interval | None:
    """Return the interval of two models' difference of accuracy on the same samples, which are resampled in pairs.

    None where the difference is the same for every sample.
    """
    return bootstrap_means((first.astype(np.float64) - second)[:, None], confidence)[0]
