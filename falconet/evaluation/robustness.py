"""measure_robustness(): accuracy of a model on corrupted and attacked inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.data import Split
from falconet.data.dataset import match_labels
from falconet.data.files import adapt_samples
from falconet.data.preprocessing import iterate_prepared
from falconet.errors import DataError
from falconet.evaluation.adapters import ADAPTERS
from falconet.evaluation.attacks import ATTACKS, EPSILONS
from falconet.evaluation.corruptions import CorruptedSamples
from falconet.evaluation.logits import predict_matched
from falconet.modalities import modality_of
from falconet.renames import accept_renamed

_SEED = 0
ATTACKED = 256
"""Samples that are attacked, at most: PGD takes a thousand times the work of a prediction."""


@dataclass(frozen=True)
class Corrupted:
    """Accuracy of a model under one corruption at one severity."""

    corruption: str
    severity: int
    """Severity, 1 to 5."""
    amount: float
    """Amount of the corruption at this severity; see `falconet.evaluation.corruptions`."""
    n: int
    """Number of samples."""
    accuracy: float


@dataclass(frozen=True)
class Attacked:
    """Accuracy of a model under one attack."""

    attack: str
    epsilon: float
    """Largest change of a pixel, in the range 0..1; 0: no attack."""
    n: int
    accuracy: float


@dataclass(frozen=True)
class Robustness:
    """Accuracy of a model on corrupted and attacked inputs; fractions of 0 to 1."""

    n: int
    """Number of readable samples."""
    clean_accuracy: float
    mean_corruption_accuracy: float
    """Mean accuracy over all corruptions and severities."""
    corruptions: tuple[Corrupted, ...]
    attacks: tuple[Attacked, ...]
    """Accuracy under attacks on a stratified sample of the split; epsilon 0: without an attack."""
    attacks_note: str
    """The samples that were attacked, or why there are no attacks, in words."""

    def __repr__(self) -> str:
        clean, corrupted = self.clean_accuracy, self.mean_corruption_accuracy
        return f"Robustness(accuracy {clean:.1%} clean, {corrupted:.1%} corrupted, n = {self.n:,})"


@accept_renamed(artifact=lambda value: {"model": value})
def measure_robustness(model: AnyModel, split: Split, *, attacks: bool = True) -> Robustness:
    """Evaluate a model on a split under each corruption and attack.

    Classes of a split that knows its data set are matched by name; labels of another one are positions in the model's
    own. Raises DataError where no sample can be read, and for classes that the model does not know.
    """
    artifact = open_artifact(model)
    if split.owner is not None:
        split = replace(split, labels=match_labels(split, split.owner.classes, artifact.config.output.labels))
    evaluate = _evaluate_prepared if modality_of(artifact.config.input).bounded else _evaluate_raw
    count, clean, rows = evaluate(artifact, split)
    attacked, note = _attack_split(artifact, split) if attacks else ((), "not asked for")
    mean = float(np.mean([row.accuracy for row in rows]))
    return Robustness(count, clean, mean, rows, attacked, note)


def _evaluate_prepared(artifact: Artifact, split: Split) -> tuple[int, float, tuple[Corrupted, ...]]:
    """Corrupt images as the network sees them, but before normalization, so that each is decoded only once."""
    corrupt, levels = ADAPTERS[artifact.config.input.kind].corrupt, list(_iterate_levels(artifact))
    clean, count = 0, 0
    hits = dict.fromkeys(levels, 0)
    for start, pixels, labels in _iterate_pixels(artifact, split):
        count += len(labels)
        clean += _count_hits(artifact, pixels, labels)
        for level in levels:
            name, _, amount = level
            # The same draws at each severity, which then differ by nothing else.
            generator = torch.Generator().manual_seed(_SEED + start)
            hits[level] += _count_hits(artifact, corrupt(pixels, name, amount, generator), labels)
    _check_count(count, split)
    rows = [Corrupted(*level, count, found / count) for level, found in hits.items()]
    return count, clean / count, tuple(rows)


def _evaluate_raw(artifact: Artifact, split: Split) -> tuple[int, float, tuple[Corrupted, ...]]:
    """Corrupt series and texts before anything else is done to them."""
    spec = artifact.config.input
    samples, corrupt = adapt_samples(split.samples, spec), ADAPTERS[spec.kind].corrupt
    count, clean = _evaluate_samples(artifact, split)
    rows, places = [], np.arange(len(samples))
    for name, severity, amount in _iterate_levels(artifact):
        corrupted = replace(split, samples=CorruptedSamples(samples, corrupt, name, amount, _SEED, places))
        rows.append(Corrupted(name, severity, amount, *_evaluate_samples(artifact, corrupted)))
    return count, clean, tuple(rows)


def _iterate_levels(artifact: Artifact) -> Iterator[tuple[str, int, float]]:
    """Yield the corruptions for a model's input, with each severity and its amount."""
    spec = artifact.config.input
    for name, amounts in ADAPTERS[spec.kind].list_amounts(spec).items():
        for severity, amount in enumerate(amounts, start=1):
            yield name, severity, float(amount)


def _evaluate_samples(artifact: Artifact, split: Split) -> tuple[int, float]:
    """Return how many samples can be read, and the accuracy on them."""
    answers = predict_matched(artifact, split)
    right = answers.logits.argmax(axis=1) == answers.split.labels
    return len(right), float(right.mean())


def _iterate_pixels(artifact: Artifact, split: Split) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield batches of readable images in 0..1 as the network sees them, with their first position and the labels."""
    start = 0
    for batch in iterate_prepared(split.samples, artifact.preprocess, artifact.batch_size):
        size = len(batch.inputs) + len(batch.unreadable)
        read = [index for index in range(start, start + size) if index not in batch.unreadable]
        if read:
            # Interpolation may leave 0..1 by a rounding error.
            yield start, batch.inputs.clamp(0, 1), torch.from_numpy(split.labels[read])
        start += size


@torch.inference_mode()
def _count_hits(artifact: Artifact, pixels: Tensor, labels: Tensor) -> int:
    """Return how many images in 0..1 are classified correctly."""
    return int((_answer_pixels(artifact, pixels).argmax(dim=1) == labels).sum())


def _answer_pixels(artifact: Artifact, pixels: Tensor) -> Tensor:
    """Return the logits for images in 0..1; normalization is part of the attacked network."""
    logits: Tensor = artifact.model(artifact.preprocess.normalize(pixels))
    return logits


def _attack_split(artifact: Artifact, split: Split) -> tuple[tuple[Attacked, ...], str]:
    """Attack a stratified sample of a split's images; return a note on it, or for other kinds on why not."""
    modality = modality_of(artifact.config.input)
    if not modality.bounded:
        return (), f"none: epsilon is a fraction of the range of pixels, which {modality.name} data do not have"
    chosen = _choose_stratified(split.labels, ATTACKED)
    batches = [(pixels, labels) for _, pixels, labels in _iterate_pixels(artifact, split.take(chosen))]
    count = sum(len(labels) for _, labels in batches)
    _check_count(count, split)
    clean = sum(_count_hits(artifact, *batch) for batch in batches) / count
    rows = []
    for name, attack in ATTACKS.items():
        rows.append(Attacked(name, 0.0, count, clean))
        for epsilon in EPSILONS:
            hits = 0
            for pixels, labels in batches:
                found = attack(partial(_answer_pixels, artifact), pixels, labels, epsilon)
                hits += _count_hits(artifact, found, labels)
            rows.append(Attacked(name, epsilon, count, hits / count))
    return tuple(rows), f"{count:,} of {len(split):,} samples, stratified by class, drawn with seed {_SEED}"


def _choose_stratified(labels: Int64[np.ndarray, " samples"], most: int) -> Int64[np.ndarray, " chosen"]:
    """Return up to `most` positions, ascending, stratified by class; the same on each call."""
    order = np.random.default_rng(_SEED).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        # Evenly spread over 0..1, so that any beginning has of each class its fraction.
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen: Int64[np.ndarray, " chosen"] = np.sort(np.argsort(place, kind="stable")[:most]).astype(np.int64)
    return chosen


def _check_count(count: int, split: Split) -> None:
    """Raise DataError where nothing can be read."""
    if not count:
        raise DataError(f"none of {len(split)} samples can be read; the first: {split.samples.name(0)}")


def tabulate_corruptions(robustness: Robustness) -> dict[str, list[Corrupted]]:
    """Return the rows of each corruption, from severity 1 to 5."""
    table: dict[str, list[Corrupted]] = {}
    for row in robustness.corruptions:
        table.setdefault(row.corruption, []).append(row)
    return table
