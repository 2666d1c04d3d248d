"""Baselines: what a constant answer and a linear model come to on the same split, beside which a network must stand.

The linear model is multinomial logistic regression on what needs no learning: pixels, values and spectra of series, or
TF-IDF of words and pairs of words.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from falconet import metrics
from falconet.data.cache import PixelCache
from falconet.data.loader import load_inputs
from falconet.data.preprocessing import to_unit
from falconet.evaluation.answers import Answers
from falconet.spec import InputSpec, Kind
from falconet.training.linear_probe import Solution, make_sparse, solve

FITTED = 3_000
"""Training samples that the linear model is fitted to, at most: seconds, not minutes."""
CHOOSING = 1_000
"""Of these, those that its penalty is chosen by."""
JUDGED = 5_000
"""Test samples that baselines are asked about, at most."""
SIDE = 24
"""Pixels of each side that images are averaged down to."""
STEPS = 256
"""Values of a series that are kept, averaged over neighbours; as many coefficients of its spectrum."""
BUCKETS = 2**15
"""Columns that words and pairs of words are hashed into."""

MAJORITY = "majority class"
LINEAR: Mapping[Kind, str] = {
    "image": "linear model on pixels",
    "series": "linear model on values and spectra",
    "text": "linear model on TF-IDF",
}
"""The linear model's name by kind of sample."""


@dataclass(frozen=True)
class Baseline:
    """What a baseline comes to on a split, and how the model compares."""

    name: str
    accuracy: float
    """A fraction of 0 to 1."""
    accuracy_ci: tuple[float, float]
    """95% interval (Wilson)."""
    macro_f1: float
    seconds: float
    """To fit it and ask it."""
    fitted: int
    """Training samples that it was fitted to."""
    n: int
    """Test samples that it was asked about."""
    difference: float
    """Accuracy of the model less that of the baseline."""
    difference_ci: tuple[float, float]
    """95% interval, by samples that one answers right and the other wrong."""

    @property
    def is_better(self) -> bool:
        """Whether it is right more often than the model by more than chance."""
        return self.difference_ci[1] < 0

    @property
    def is_beaten(self) -> bool:
        """Whether the model is right more often by more than chance."""
        return self.difference_ci[0] > 0


@dataclass(frozen=True, eq=False)
class Prepared:
    """Samples of a split as a model takes them, and their labels."""

    inputs: Tensor | PixelCache
    labels: Int64[Tensor, " samples"]

    def thin(self, most: int, seed: int = 0) -> Prepared:
        """Return some of the samples, drawn at random, in order."""
        if len(self.labels) <= most:
            return self
        drawn = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))[:most]
        rows = drawn.sort().values
        return Prepared(take(self.inputs, rows), self.labels[rows])


def take(inputs: Tensor | PixelCache, rows: Int64[Tensor, " chosen"]) -> Tensor:
    """Return some samples."""
    return inputs.take(rows) if isinstance(inputs, PixelCache) else inputs[rows]


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Multinomial logistic regression on what needs no learning, fitted to training samples."""

    kind: Kind
    solution: Solution
    statistics: Tensor
    """The features' mean, or the IDF of tokens."""
    fitted: int
    """Training samples that it was fitted to."""
    seconds: float
    """That this took."""

    def answer(self, samples: Prepared) -> Int64[np.ndarray, " samples"]:
        """Return the class numbers that it answers."""
        if self.kind == "text":
            features, _ = weigh_tokens(to_tensor(samples.inputs).long(), self.statistics)
        else:
            features = flatten(samples.inputs, self.kind) - self.statistics
        answers: Int64[np.ndarray, " samples"] = self.solution.apply(features).argmax(dim=1).numpy()
        return answers


def fit_linear(train: Prepared, kind: Kind, num_classes: int) -> LinearModel | None:
    """Return the linear model, fitted to at most FITTED training samples; None where these are of one class."""
    if len(torch.unique(train.labels)) < 2:
        return None
    started = time.perf_counter()
    drawn = train.thin(FITTED)
    if kind == "text":
        features, statistics = weigh_tokens(to_tensor(drawn.inputs).long())
    else:
        features = flatten(drawn.inputs, kind)
        statistics = features.mean(dim=0)
        features = features - statistics
    solution = solve(features, drawn.labels, num_classes, judged=CHOOSING)
    return LinearModel(kind, solution, statistics, len(drawn.labels), time.perf_counter() - started)


@dataclass(frozen=True, eq=False)
class Asked:
    """Samples of a split that baselines are asked about, and what the model makes of them."""

    samples: Prepared
    hits: Bool[np.ndarray, " samples"]
    """Of each sample, whether the model answers it right."""


def draw_asked(answers: Answers, spec: InputSpec, tokenizer: str | None = None) -> Asked:
    """Return at most JUDGED samples of an answered split, drawn at random, as the model takes them.

    Raises DataError where none can be read any more.
    """
    split, hits = answers.split, answers.logits.argmax(axis=1) == answers.split.labels
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:JUDGED])
    loaded = load_inputs(split.take(rows), spec, tokenizer)
    return Asked(Prepared(loaded.inputs, torch.from_numpy(loaded.split.labels)), hits[rows][loaded.kept])


def measure_baselines(
    train: Prepared, linear: LinearModel | None, asked: Asked, num_classes: int
) -> tuple[Baseline, ...]:
    """Return the majority class of `train`, and the linear model where there is one, beside the model."""
    labels = asked.samples.labels.numpy()
    started = time.perf_counter()
    majority = int(torch.bincount(train.labels, minlength=num_classes).argmax())
    constant = np.full(len(labels), majority)
    seconds = time.perf_counter() - started
    found = [compare(MAJORITY, constant, labels, num_classes, asked.hits, seconds, len(train.labels))]
    if linear is not None:
        started = time.perf_counter()
        answers = linear.answer(asked.samples)
        seconds = linear.seconds + time.perf_counter() - started
        found.append(compare(LINEAR[linear.kind], answers, labels, num_classes, asked.hits, seconds, linear.fitted))
    return tuple(found)


def to_tensor(inputs: Tensor | PixelCache) -> Tensor:
    """Return all samples in memory."""
    return inputs if isinstance(inputs, Tensor) else inputs.take(torch.arange(len(inputs)))


def flatten(inputs: Tensor | PixelCache, kind: Kind) -> Float[Tensor, "samples features"]:
    """Return what the linear model sees of images or series, not yet centered."""
    return flatten_images(inputs) if kind == "image" else flatten_series(inputs)


def flatten_images(inputs: Tensor | PixelCache) -> Float[Tensor, "samples features"]:
    """Return the pixels of images from 0 to 1, averaged down to SIDE pixels a side."""
    parts = []
    for rows in torch.split(torch.arange(len(inputs)), 256):
        images = to_unit(take(inputs, rows))
        size = min(images.shape[2], SIDE), min(images.shape[3], SIDE)
        parts.append(F.adaptive_avg_pool2d(images, size).flatten(1))
    return torch.cat(parts)


def flatten_series(inputs: Tensor | PixelCache) -> Float[Tensor, "samples features"]:
    """Return the values of series, 0 behind their ends, and the logarithms of their spectra's powers."""
    values = to_tensor(inputs).float().nan_to_num(0.0)
    size = min(values.shape[-1], STEPS)
    powers = torch.fft.rfft(values, dim=-1).abs().square().add(1e-6).log()
    spectrum = F.adaptive_avg_pool1d(powers, min(powers.shape[-1], STEPS)).flatten(1)
    shape = F.adaptive_avg_pool1d(values, size).flatten(1)
    # Each part counts as much as the other, whatever its unit.
    parts = [part / part.std().clamp(min=1e-6) if part.numel() > 1 else part for part in (shape, spectrum)]
    return torch.cat(parts, dim=1)


def weigh_tokens(
    tokens: Int64[Tensor, "samples tokens"], idf: Float[Tensor, " buckets"] | None = None
) -> tuple[Float[Tensor, "samples buckets"], Float[Tensor, " buckets"]]:
    """Return TF-IDF of tokens and pairs of tokens as sparse rows of norm 1, and the IDF, of these texts or as given.

    With 1 + log(count) as term frequency and log((1 + n) / (1 + df)) + 1 as scikit-learn's smoothed IDF.
    """
    pairs = (tokens[:, :-1] * 1_000_003 + tokens[:, 1:]) % (BUCKETS // 2) + BUCKETS // 2
    terms = torch.cat([tokens % (BUCKETS // 2), pairs], dim=1)
    present = torch.cat([tokens > 0, (tokens[:, :-1] > 0) & (tokens[:, 1:] > 0)], dim=1)
    rows = torch.arange(len(tokens))[:, None].expand_as(terms)[present]
    cells, counts = torch.unique(rows * BUCKETS + terms[present], return_counts=True)
    rows, columns = cells // BUCKETS, cells % BUCKETS
    if idf is None:
        frequency = torch.bincount(columns, minlength=BUCKETS)
        idf = ((1 + len(tokens)) / (1 + frequency)).log() + 1
    values = (1 + counts.log()) * idf[columns]
    norms = torch.zeros(len(tokens)).index_add_(0, rows, values.square()).sqrt()
    ends = F.pad(torch.bincount(rows, minlength=len(tokens)).cumsum(0), (1, 0))
    return make_sparse(ends, columns, values / norms[rows], (len(tokens), BUCKETS)), idf


def compare(
    name: str,
    answers: Int64[np.ndarray, " samples"],
    labels: Int64[np.ndarray, " samples"],
    num_classes: int,
    hits: Bool[np.ndarray, " samples"],
    seconds: float,
    fitted: int,
) -> Baseline:
    """Return a baseline's figures."""
    confusion = metrics.count_confusion(answers, labels, num_classes)
    right = answers == labels
    count, own = len(labels), int(right.sum())
    test = metrics.compare_models(hits[None], right[None])
    return Baseline(
        name,
        own / count,
        metrics.wilson_interval(own, count),
        metrics.average_scores(confusion).f1,
        seconds,
        fitted,
        count,
        test.difference,
        test.interval,
    )


def describe_verdict(baselines: Sequence[Baseline]) -> str:
    """Return in plain words what the model lacks; nothing where it beats all baselines by more than chance."""
    unbeaten = [baseline for baseline in baselines if not baseline.is_beaten]
    if not unbeaten:
        return ""
    best = max(unbeaten, key=lambda baseline: baseline.accuracy)
    low, high = (100 * bound for bound in best.difference_ci)
    points = f"{100 * best.difference:+.2f} points (95%: {low:+.2f} to {high:+.2f})"
    if best.is_better:
        return f"worse than the {best.name}, which takes {math.ceil(best.seconds)} s: {points}"
    return f"not shown to be better than the {best.name}: {points}"
