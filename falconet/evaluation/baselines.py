"""Baselines: what a constant answer and a linear model come to on the same split, beside which a network must stand.

The linear model is multinomial logistic regression on what needs no learning: pixels, values and spectra of series, or
TF-IDF of tokens and their n-grams, as the model `linear` has it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from falconet import metrics
from falconet.data.loader import load_inputs
from falconet.evaluation.adapters import ADAPTERS
from falconet.evaluation.features import Describe, PreparedInputs, take
from falconet.evaluation.logits import SplitLogits
from falconet.spec import InputSpec, ModalityName
from falconet.training.linear_probe import LinearProbe, solve

_FITTED = 3_000
"""Training samples that the linear model is fitted to, at most: seconds, not minutes."""
_CHOOSING = 1_000
"""Of these, those that its penalty is chosen by."""
_EVALUATED = 5_000
"""Test samples that baselines are asked about, at most."""
MAJORITY = "majority class"
LINEAR: Mapping[ModalityName, str] = {kind: adapter.linear for kind, adapter in ADAPTERS.items()}
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

    inputs: PreparedInputs
    labels: Int64[Tensor, " samples"]

    def thin(self, most: int, seed: int = 0) -> Prepared:
        """Return some of the samples, drawn at random, in order."""
        if len(self.labels) <= most:
            return self
        drawn = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))[:most]
        rows = drawn.sort().values
        return Prepared(take(self.inputs, rows), self.labels[rows])


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Multinomial logistic regression on what needs no learning, fitted to training samples."""

    name: str
    solution: LinearProbe
    describe: Describe
    fitted: int
    """Training samples that it was fitted to."""
    seconds: float
    """That this took."""

    def answer(self, samples: Prepared) -> Int64[np.ndarray, " samples"]:
        """Return the class numbers that it answers."""
        logits = self.solution.apply(self.describe(samples.inputs))
        answers: Int64[np.ndarray, " samples"] = logits.argmax(dim=1).numpy()
        return answers


def fit_linear(train: Prepared, kind: ModalityName, num_classes: int, tokens: int = 0) -> LinearModel | None:
    """Return the linear model, fitted to at most FITTED training samples; None where these are of one class.

    `tokens` is the vocabulary size of texts; for others it counts for nothing.
    """
    if len(torch.unique(train.labels)) < 2:
        return None
    started = time.perf_counter()
    drawn = train.thin(_FITTED)
    describe = ADAPTERS[kind].fit_features(drawn.inputs, tokens)
    solution = solve(describe(drawn.inputs), drawn.labels, num_classes, cv_samples=_CHOOSING)
    return LinearModel(LINEAR[kind], solution, describe, len(drawn.labels), time.perf_counter() - started)


@dataclass(frozen=True, eq=False)
class BaselineInputs:
    """Samples of a split that baselines are asked about, and what the model makes of them."""

    samples: Prepared
    hits: Bool[np.ndarray, " samples"]
    """Of each sample, whether the model answers it right."""


def prepare_baseline_inputs(answers: SplitLogits, spec: InputSpec, tokenizer: str | None = None) -> BaselineInputs:
    """Return at most _EVALUATED samples of an answered split, drawn at random, as the model takes them.

    Raises DataError where none can be read any more.
    """
    split, hits = answers.split, answers.logits.argmax(axis=1) == answers.split.labels
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:_EVALUATED])
    loaded = load_inputs(split.take(rows), spec, tokenizer)
    return BaselineInputs(Prepared(loaded.inputs, torch.from_numpy(loaded.split.labels)), hits[rows][loaded.kept])


def measure_baselines(
    train: Prepared, linear: LinearModel | None, asked: BaselineInputs, num_classes: int
) -> tuple[Baseline, ...]:
    """Return the majority class of `train`, and the linear model where there is one, beside the model."""
    labels = asked.samples.labels.numpy()
    started = time.perf_counter()
    majority = int(torch.bincount(train.labels, minlength=num_classes).argmax())
    constant = np.full(len(labels), majority)
    seconds = time.perf_counter() - started
    found = [_compare(MAJORITY, constant, labels, num_classes, asked.hits, seconds, len(train.labels))]
    if linear is not None:
        started = time.perf_counter()
        answers = linear.answer(asked.samples)
        seconds = linear.seconds + time.perf_counter() - started
        found.append(_compare(linear.name, answers, labels, num_classes, asked.hits, seconds, linear.fitted))
    return tuple(found)


def _compare(
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
