"""Whether a model tells samples like those of training from samples of something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from falconet import metrics
from falconet.artifact import Artifact
from falconet.data import DataConfig, Dataset, Split
from falconet.data.files import adapt_samples
from falconet.data.sources import find_data_root, read_source
from falconet.errors import DataError
from falconet.evaluation.logits import SplitLogits, predict_logits, scale_logits


@dataclass(frozen=True)
class Separation:
    """How well one score tells samples apart; fractions of 0 to 1."""

    auroc: float
    """The chance that a sample of the split scores higher than one of the other source; 0.5 is guessing."""
    fpr95: float
    """Fraction of the other source's samples that pass where 95% of the split's do."""


@dataclass(frozen=True)
class Outliers:
    """A split against samples of another source, to whose classes the model's do not extend."""

    source: str
    split: str
    """Of the other source: its own test split, or all of it where it has none."""
    n: int
    """Samples of the other source."""
    unreadable: int
    max_probability: Separation
    """By the highest probability (Hendrycks and Gimpel, 2017)."""
    energy: Separation
    """By the energy of the network's outputs, before any temperature (Liu et al., 2020)."""


def separate_outliers(
    answers: SplitLogits, artifact: Artifact, dataset: Dataset, source: str | Path, data_root: str | Path | None
) -> Outliers:
    """Score the answered samples, which are of `dataset`, against those of another source of the same kind.

    Classes of the other source do not count, and may be one. Samples that stand in the split too are left out. Raises
    DataError for samples of another kind and where nothing is left, and as `load_dataset` does.
    """
    config = DataConfig(kind=artifact.config.input.kind)
    other = read_source(str(source), find_data_root(data_root), config)
    if other.kind != dataset.kind:
        raise DataError(f"ood: wanted {dataset.kind} data, as the model takes, found {other.kind} in {source}")
    if other.fingerprint == dataset.fingerprint:
        raise DataError(f"ood: wanted another source than {dataset.source}, found the same samples in {source}")
    name = "test" if "test" in other.splits else "all"
    split = drop_shared(other.split(name), answers.split)
    logits, unreadable = predict_logits(artifact, adapt_samples(split.samples, artifact.config.input))
    if not len(logits):
        reason = f" ({next(iter(unreadable.values()))})" if unreadable else ": all stand in the evaluated split too"
        raise DataError(f"ood: wanted samples of something else, found none that can be used in {source}{reason}")
    temperature = artifact.config.calibration_temperature
    raw = [scale_logits(part, 1 / temperature) for part in (answers.logits, logits)]
    return Outliers(
        source=str(source),
        split=name,
        n=len(logits),
        unreadable=len(unreadable),
        max_probability=_separate(metrics.score_by_probability(answers.logits), metrics.score_by_probability(logits)),
        energy=_separate(metrics.score_by_energy(raw[0]), metrics.score_by_energy(raw[1])),
    )


def drop_shared(split: Split, known: Split) -> Split:
    """Return the samples of a split that do not stand in another one."""
    return split.take(np.flatnonzero(~np.isin(split.hashes, known.hashes)))


def _separate(scores: Float64[np.ndarray, " samples"], others: Float64[np.ndarray, " others"]) -> Separation:
    """Return how well a score that should be higher for the first tells both apart."""
    curve = metrics.roc_curve(np.concatenate([scores, others]), np.arange(len(scores) + len(others)) < len(scores))
    assert curve is not None
    return Separation(curve.area, metrics.fpr_at_tpr(scores, others))
