"""Baselines: the majority class and a linear model, evaluated on the same split as a network.

The linear model is multinomial logistic regression on fixed features: pixels, values and spectra of series, or TF-IDF
of tokens and their n-grams, as in the model `linear`.
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
"""Training samples that the linear model is fitted to, at most, so that it takes seconds."""
_CHOOSING = 1_000
"""Training samples among them for cross-validation of the linear model's penalty, at most."""
_EVALUATED = 5_000
"""Test samples that baselines are evaluated on, at most."""
MAJORITY = "majority class"
LINEAR: Mapping[ModalityName, str] = {kind: adapter.linear for kind, adapter in ADAPTERS.items()}
"""Names of the linear model, by modality."""


@dataclass(frozen=True)
class Baseline:
    """The result of a baseline on a split, compared with the model's."""

    name: str
    accuracy: float
    """Accuracy of the baseline, 0 to 1."""
    accuracy_ci: tuple[float, float]
    """95% Wilson score interval of the accuracy."""
    macro_f1: float
    seconds: float
    """Seconds for fitting and prediction."""
    fitted: int
    """Training samples that the baseline was fitted to."""
    n: int
    """Test samples that the baseline was evaluated on."""
    difference: float
    """Accuracy of the model minus that of the baseline."""
    difference_ci: tuple[float, float]
    """95% interval of the difference, from the samples that only one of both predicts correctly."""

    @property
    def is_better(self) -> bool:
        """Whether the baseline is significantly more accurate than the model."""
        return self.difference_ci[1] < 0

    @property
    def is_beaten(self) -> bool:
        """Whether the model is significantly more accurate than the baseline."""
        return self.difference_ci[0] > 0


@dataclass(frozen=True, eq=False)
class Prepared:
    """Samples of a split, prepared as a model's inputs, and their labels."""

    inputs: PreparedInputs
    labels: Int64[Tensor, " samples"]

    def thin(self, most: int, seed: int = 0) -> Prepared:
        """Return at most `most` of the samples, drawn at random, in order."""
        if len(self.labels) <= most:
            return self
        drawn = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))[:most]
        rows = drawn.sort().values
        return Prepared(take(self.inputs, rows), self.labels[rows])


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Multinomial logistic regression on fixed features, fitted to training samples."""

    name: str
    solution: LinearProbe
    describe: Describe
    fitted: int
    """Training samples that the baseline was fitted to."""
    seconds: float
    """Seconds that fitting took."""

    def answer(self, samples: Prepared) -> Int64[np.ndarray, " samples"]:
        """Return the predicted class numbers."""
        logits = self.solution.apply(self.describe(samples.inputs))
        answers: Int64[np.ndarray, " samples"] = logits.argmax(dim=1).numpy()
        return answers


def fit_linear(train: Prepared, kind: ModalityName, num_classes: int, tokens: int = 0) -> LinearModel | None:
    """Return the linear model, fitted to at most 3,000 training samples; None where these are of one class.

    `tokens` is the vocabulary size of texts; for other samples it is ignored.
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
    """Samples of a split that baselines are evaluated on, with the model's hits."""

    samples: Prepared
    hits: Bool[np.ndarray, " samples"]
    """Whether the model predicts each sample correctly."""


def prepare_baseline_inputs(answers: SplitLogits, spec: InputSpec, tokenizer: str | None = None) -> BaselineInputs:
    """Return at most _EVALUATED samples of a predicted split, drawn at random, as the model's inputs.

    Raises DataError where none can be read any more.
    """
    split, hits = answers.split, answers.logits.argmax(axis=1) == answers.split.labels
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:_EVALUATED])
    loaded = load_inputs(split.take(rows), spec, tokenizer)
    return BaselineInputs(Prepared(loaded.inputs, torch.from_numpy(loaded.split.labels)), hits[rows][loaded.kept])


def measure_baselines(
    train: Prepared, linear: LinearModel | None, asked: BaselineInputs, num_classes: int
) -> tuple[Baseline, ...]:
    """Return the results of the majority class of `train`, and of the linear model where there is one."""
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
    """Return in words what the model lacks; empty where it is significantly better than all baselines."""
    unbeaten = [baseline for baseline in baselines if not baseline.is_beaten]
    if not unbeaten:
        return ""
    best = max(unbeaten, key=lambda baseline: baseline.accuracy)
    low, high = (100 * bound for bound in best.difference_ci)
    points = f"{100 * best.difference:+.2f} points (95%: {low:+.2f} to {high:+.2f})"
    if best.is_better:
        return f"worse than the {best.name}, which takes {math.ceil(best.seconds)} s: {points}"
    return f"not shown to be better than the {best.name}: {points}"
