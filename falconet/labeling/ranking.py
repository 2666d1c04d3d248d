"""Ranking of samples for labeling: the uncertain and diverse ones first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from falconet import metrics
from falconet.artifact import Artifact
from falconet.auditing import choose_fixed, embed_split, prepare_candidate
from falconet.data import Dataset, Samples, Unreadable
from falconet.data.files import adapt_samples
from falconet.data.loader import load_inputs
from falconet.data.preprocessing import iterate_prepared
from falconet.errors import ConfigError, DataError
from falconet.evaluation.logits import scale_logits
from falconet.labeling.pool import PLACEHOLDERS, Pool
from falconet.labeling.selection import choose_samples, measure_uncertainty
from falconet.training.linear_probe import Features, find_linear_classifier, join_features, solve, take_features


@dataclass(frozen=True, eq=False)
class PoolPredictions:
    """A model's features and probabilities for the readable samples without labels."""

    kept: np.ndarray
    """Positions of the readable samples among all."""
    features: Features
    """Input of the output layer."""
    probabilities: Float64[np.ndarray, "samples classes"] | None
    """Class probabilities; None: no classes are known."""
    classes: tuple[str, ...]
    version: str
    """Name of the model."""
    unreadable: tuple[Unreadable, ...] = ()
    """Samples that cannot be read."""


@dataclass(frozen=True)
class Choice:
    """A sample that is chosen to be labeled."""

    index: int
    """Position among the samples without labels."""
    suggested: str | None
    """The most probable class; None: it is unknown."""
    probability: float | None


@dataclass(frozen=True)
class Choices:
    """The samples to label next."""

    items: tuple[Choice, ...] = ()
    """Chosen samples, by priority."""
    version: str = ""
    """Name of the model that predicted."""
    unreadable: tuple[Unreadable, ...] = ()


def choose_next(pool: Pool, artifact: Artifact | None, count: int) -> Choices:
    """Return the samples to label next."""
    if pool.unlabeled is None:
        return Choices()
    believed = ask_model(artifact, pool.unlabeled) if artifact else ask_candidate(pool.unlabeled, pool.labeled)
    answers, features = believed.probabilities, believed.features
    # Of what a network has no number for, nothing is known.
    lost = np.zeros(len(features), bool) if answers is None else ~np.isfinite(answers).all(axis=1)
    if features.layout != torch.sparse_csr:
        features = features.nan_to_num(0.0, 0.0, 0.0)
    uncertainty = None
    if answers is not None:
        uncertainty = measure_uncertainty(torch.from_numpy(answers)).masked_fill(torch.from_numpy(lost), 1.0)
    chosen = choose_samples(features, count, uncertainty)
    found = []
    for place in chosen.tolist():
        index = int(believed.kept[place])
        if answers is None or lost[place]:
            found.append(Choice(index, None, None))
            continue
        best = int(answers[place].argmax())
        found.append(Choice(index, believed.classes[best], float(answers[place, best])))
    return Choices(tuple(found), believed.version, believed.unreadable)


def ask_model(artifact: Artifact, dataset: Dataset) -> PoolPredictions:
    """Return a trained model's features and probabilities; where it has no linear output layer, features are logits."""
    samples = adapt_samples(dataset.splits["train"].samples, artifact.config.input)
    features, logits, reasons = _extract(artifact, samples)
    kept = np.setdiff1d(np.arange(len(samples)), list(reasons)).astype(np.int64)
    unreadable = tuple(Unreadable(samples.name(index), reason) for index, reason in reasons.items())
    scaled = scale_logits(logits.numpy(), artifact.config.calibration_temperature)
    probabilities = metrics.softmax(scaled).astype(np.float64)
    return PoolPredictions(
        kept, features, probabilities, artifact.config.output.labels, artifact.config.architecture, unreadable
    )


@torch.inference_mode()
def _extract(artifact: Artifact, samples: Samples) -> tuple[Features, Float[Tensor, "samples classes"], dict[int, str]]:
    """Return the input of the output layer, the logits, and why samples cannot be read, by their positions.

    Raises DataError where none can be read.
    """
    # Measured on a blank sample, which is none of these.
    batch_size = artifact.batch_size
    seen: list[Tensor] = []
    try:
        layer = find_linear_classifier(artifact.model)
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(take_features(layer, inputs)))
    except ConfigError:  # The network ends in a convolution, or in codes as LeNet-5 does.
        hook = None
    logits: list[Tensor] = []
    reasons: dict[int, str] = {}
    try:
        for batch in iterate_prepared(samples, artifact.preprocess, batch_size):
            reasons |= batch.unreadable
            if len(batch.inputs):
                logits.append(artifact.model(artifact.preprocess.normalize(batch.inputs)).float())
    finally:
        if hook is not None:
            hook.remove()
    if not logits:
        raise DataError(f"none of {len(samples)} samples can be read; the first: {next(iter(reasons.values()))}")
    answers = torch.cat(logits)
    return (join_features(seen) if seen else answers), answers, reasons


def ask_candidate(unlabeled: Dataset, labeled: Dataset | None) -> PoolPredictions:
    """Return the features of a network that needs no training, and the probabilities of an output layer on top of it.

    The layer is fitted to the labeled samples; without two classes among them, there are features alone.
    """
    if labeled is not None:
        channels = max(unlabeled.channels, labeled.channels)
        unlabeled = dataclasses.replace(
            unlabeled, channels=channels, rate=labeled.rate, value_range=labeled.value_range
        )
    candidate = choose_fixed(unlabeled, raw=True)
    prepared = prepare_candidate(unlabeled, unlabeled.splits["train"], candidate)
    features, kept = embed_split(prepared), prepared.loaded.kept
    probabilities = None
    if labeled is not None and len(labeled.classes) > 1:
        known = load_inputs(labeled.split("all"), prepared.preprocess.spec, prepared.tokenizer)
        solver = prepared.config.training.linear_probe or "logistic"
        labels = torch.from_numpy(known.split.labels)
        solution = solve(embed_split(prepared, known), labels, len(labeled.classes), solver)
        probabilities = metrics.softmax(solution.apply(features).numpy()).astype(np.float64)
    classes = labeled.classes if labeled is not None else PLACEHOLDERS
    return PoolPredictions(kept, features, probabilities, classes, candidate.model, prepared.loaded.unreadable)
