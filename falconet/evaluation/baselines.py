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
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from falconet import metrics
from falconet.data.cache import PixelCache
from falconet.data.loader import load_inputs
from falconet.data.preprocessing import to_unit
from falconet.evaluation.answers import Answers
from falconet.models.linear import HashedTfidf
from falconet.spec import InputSpec, Kind
from falconet.training.linear_probe import solve, stack_rows, sum_columns

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
AT_ONCE = 256
"""Texts of which TF-IDF is computed in one call."""

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


def measure_baselines(
    train: Prepared, answers: Answers, spec: InputSpec, tokenizer: str | None = None
) -> tuple[Baseline, ...]:
    """Return the majority class and the linear model, fitted to `train` and judged beside the model's `answers`.

    At most JUDGED test samples are asked about, drawn at random. Raises DataError where none can be read any more.
    """
    split, hits = answers.split, answers.logits.argmax(axis=1) == answers.split.labels
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:JUDGED])
    loaded = load_inputs(split.take(rows), spec, tokenizer)
    test = Prepared(loaded.inputs, torch.from_numpy(loaded.split.labels))
    return compare_baselines(train, test, spec.kind, len(spec.labels), hits[rows][loaded.kept])


def compare_baselines(
    train: Prepared, test: Prepared, kind: Kind, num_classes: int, hits: Bool[np.ndarray, " samples"]
) -> tuple[Baseline, ...]:
    """Return the baselines; `hits` says of each test sample whether the model answers it right."""
    labels = test.labels.numpy()
    started = time.perf_counter()
    majority = int(torch.bincount(train.labels, minlength=num_classes).argmax())
    constant = np.full(len(labels), majority)
    found = [judge(MAJORITY, constant, labels, num_classes, hits, started, len(train.labels))]
    if len(torch.unique(train.labels)) > 1:
        started = time.perf_counter()
        fitted = train.thin(FITTED)
        answers = answer_linear(fitted, test, kind, num_classes)
        found.append(judge(LINEAR[kind], answers, labels, num_classes, hits, started, len(fitted.labels)))
    return tuple(found)


def answer_linear(train: Prepared, test: Prepared, kind: Kind, num_classes: int) -> Int64[np.ndarray, " samples"]:
    """Return what logistic regression on `train` answers about `test`."""
    if kind == "text":
        known, asked = weigh_tokens(to_tensor(train.inputs), to_tensor(test.inputs))
    else:
        flatten = flatten_images if kind == "image" else flatten_series
        known, asked = flatten(train.inputs), flatten(test.inputs)
        mean = known.mean(dim=0)
        known, asked = known - mean, asked - mean
    solution = solve(known, train.labels, num_classes, judged=CHOOSING)
    answers: Int64[np.ndarray, " samples"] = solution.apply(asked).argmax(dim=1).numpy()
    return answers


def to_tensor(inputs: Tensor | PixelCache) -> Tensor:
    """Return all samples in memory."""
    return inputs if isinstance(inputs, Tensor) else inputs.take(torch.arange(len(inputs)))


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
    known: Int[Tensor, "samples tokens"], asked: Int[Tensor, "others tokens"]
) -> tuple[Float[Tensor, "samples columns"], Float[Tensor, "others columns"]]:
    """Return the TF-IDF of known texts and of those that are asked about, as the model `linear` sees it, sparse."""
    tokens = 1 + max(int(texts.max()) if texts.numel() else 0 for texts in (known, asked))
    tfidf = HashedTfidf(tokens)
    tfidf.fit_statistics(torch.split(known, AT_ONCE))
    first, second = (
        stack_rows([sum_columns(tfidf(part), len(tfidf.idf)) for part in torch.split(texts, AT_ONCE)])
        for texts in (known, asked)
    )
    return first, second


def judge(
    name: str,
    answers: Int64[np.ndarray, " samples"],
    labels: Int64[np.ndarray, " samples"],
    num_classes: int,
    hits: Bool[np.ndarray, " samples"],
    started: float,
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
        time.perf_counter() - started,
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
