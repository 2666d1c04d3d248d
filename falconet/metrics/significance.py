"""Tests whether one model is better than another, from predictions of the same samples, over several seeds each.

Two things make the accuracy of a way of training uncertain: which samples the test split happens to hold, and which
seed training happened to have. Models share the samples, so these are compared in pairs (Dietterich: Approximate
statistical tests for comparing supervised classification learning algorithms. Neural Computation 10, 1998; Dror and
others: The hitchhiker's guide to testing statistical significance in natural language processing. ACL, 2018). They do
not share the seeds, and to leave out what seeds do makes luck look like progress (Bouthillier and others: Accounting
for variance in machine learning benchmarks. MLSys, 2021): a test of the samples alone, whether McNemar's for one seed
or a bootstrap of means over seeds, speaks of the networks at hand, not of the next ones trained alike.

Both are accounted for as in studies of several readers of the same cases (Gallas, Pennello, Myers: Multireader
multicase variance analysis for binary data. JOSA A 24, 2007), where seeds are the readers. `compare_models` has the
equations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

FirstAnswers = Bool[np.ndarray, "first_seeds samples"]
SecondAnswers = Bool[np.ndarray, "second_seeds samples"]
"""Whether the network of each seed predicts each sample correctly."""


@dataclass(frozen=True)
class PairTest:
    """How much more accurate a first model is than a second; fractions of 0 to 1."""

    difference: float
    """Difference of the mean accuracies, first less second."""
    interval: tuple[float, float]
    """95% interval of the difference."""
    p_value: float
    """Two-sided p-value of the difference under equally good models."""


def compare_models(first: FirstAnswers, second: SecondAnswers) -> PairTest:
    """Test whether two models are equally good on average over samples and seeds.

    Of models A and B with S seeds each (they may differ) and N samples, let d_n be the difference of the fractions of
    seeds that predict sample n correctly. The variance of the mean difference is

        V = mean(d_n^2) / N  +  sum over A, B of max(0, s^2 - m / N) / S.

    The first term is what samples do, as in McNemar's test, to whose statistic d / sqrt(V) comes down for one seed. In
    the others, s^2 is the variance of accuracy between a model's seeds, and m, the mean square of the interaction of
    seeds and samples (two-way analysis of variance without replication), is what the first term has of it already. For
    a single seed the term is 0: the test then speaks of this very network.

    The statistic follows Student's t, whose degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946), S - 1
    for a model's seeds, and for samples 2 N / (kurtosis of d_n - 1), but at most N - 1: about twice the number of
    samples that the models predict differently, however many they agree on.

    Equal models, simulated in `tests/metrics/test_significance.py`, are called different at p < 0.05 in 1 to 6% of
    cases where seeds matter, and in 0.5 to 4% where they do not, which a few seeds cannot tell; a test of the samples
    alone calls 7 to 74% of them different where seeds matter.
    """
    count = first.shape[1]
    differences = first.mean(axis=0) - second.mean(axis=0)
    difference = float(differences.mean())
    squares = float((differences**2).mean())
    if count < 2:
        return PairTest(difference, (-1.0, 1.0), 1.0)
    excess = float((differences**4).mean()) / squares**2 - 1 if squares else 0.0
    parts = [(squares / count, squares / count, min(2 * count / excess, count - 1) if excess else count - 1)]
    parts += [_seed_variance(answers) for answers in (first, second) if len(answers) > 1]
    variance = sum(part for part, _, _ in parts)
    if not variance:
        # No two networks differ anywhere. So would they with a fraction of 3 / n of such samples, in 5% of splits
        # (Hanley and Lippman-Hand: If nothing goes wrong, is everything all right? JAMA 249, 1983).
        return PairTest(difference, (-min(3 / count, 1.0), min(3 / count, 1.0)), 1.0)
    # Satterthwaite's are never fewer than those of the least certain part, but truncation at 0 may take them below.
    freedom = max(variance**2 / sum(raw**2 / degrees for _, raw, degrees in parts), 1.0)
    error = math.sqrt(variance)
    half = student_quantile(0.975, freedom) * error
    interval = max(difference - half, -1.0), min(difference + half, 1.0)
    return PairTest(difference, interval, student_tails(difference / error, freedom))


def _seed_variance(answers: FirstAnswers) -> tuple[float, float, float]:
    """Return what seeds add to the variance of a model's mean accuracy, that with the interaction, and its freedom."""
    seeds, count = answers.shape
    accuracies, fractions = answers.mean(axis=1, keepdims=True), answers.mean(axis=0, keepdims=True)
    between = float(accuracies.var(ddof=1))
    residuals = answers - accuracies - fractions + fractions.mean()
    interaction = float((residuals**2).sum()) / ((seeds - 1) * (count - 1))
    return max(0.0, between - interaction / count) / seeds, between / seeds, seeds - 1


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values for many tests at once, in the same order (Holm, Scandinavian Journal of Statistics 6, 1979).

    Calling those below 0.05 different is wrong about any of the pairs in at most 5% of studies.
    """
    order = np.argsort(np.array(p_values), kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.maximum.accumulate(np.minimum(np.array(p_values)[order] * factors, 1.0))
    corrected = np.empty(len(p_values))
    corrected[order] = adjusted
    return [float(value) for value in corrected]


_NODES: tuple[Float64[np.ndarray, " nodes"], Float64[np.ndarray, " nodes"]] = np.polynomial.legendre.leggauss(100)
_FAR = 10.0
"""Standard deviations beyond which a normal density is below what double precision tells from 0."""


def student_tails(statistic: float, freedom: float) -> float:
    """Return the probability of a value at least as far from 0 under Student's t, by Gauss-Legendre quadrature.

    With t = sqrt(v) tan(u) for v degrees of freedom, the density is proportional to cos(u)^(v - 1), which is below that
    of a normal variable of std 1 / sqrt(v - 1). Exact to 1e-4 for v of 1 and more.
    """
    start, end = math.atan(abs(statistic) / math.sqrt(freedom)), min(math.pi / 2, _FAR / math.sqrt(freedom))
    if start >= end:
        return 0.0
    nodes, weights = _NODES
    angles = start + (end - start) * (nodes + 1) / 2
    area = float((weights * np.cos(angles) ** (freedom - 1)).sum()) * (end - start) / 2
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return min(2 * area * math.exp(scale), 1.0)


def agreement_p_value(confusion: Int64[np.ndarray, "classes classes"]) -> float:
    """Return the one-sided p-value of as many hits on the diagonal as these, were labels dealt out at random.

    As Cohen's kappa above 0, but exact in mean and variance for the margins that there are (Hoeffding: A combinatorial
    central limit theorem. Annals of Mathematical Statistics 22, 1951), and normal beyond that. 1 where nothing varies.
    """
    n = confusion.sum()
    rows, columns = confusion.sum(axis=1) / n, confusion.sum(axis=0) / n
    expected = float(rows @ columns)
    # Centred twice, each pair of a sample and a label is 1 where their classes agree, less both classes' fractions.
    centred = np.eye(len(rows)) - columns[:, None] - rows[None, :] + expected
    variance = float(rows @ centred**2 @ columns) * n * n / max(n - 1, 1)
    if variance <= 0:
        return 1.0
    # Half a hit less, as hits are whole numbers.
    return math.erfc((float(np.trace(confusion)) - 0.5 - n * expected) / math.sqrt(2 * variance)) / 2


def student_quantile(fraction: float, freedom: float) -> float:
    """Return the value below which a `fraction` above one half of Student's t lies, by bisection of the angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        above = student_tails(math.sqrt(freedom) * math.tan(middle), freedom) > 2 * (1 - fraction)
        low, high = (middle, high) if above else (low, middle)
    return math.sqrt(freedom) * math.tan(low)
