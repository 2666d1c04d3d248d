"""Out-of-distribution detection: whether a model's scores separate its data from other samples."""

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
    """The separation of both sources by one score; fractions of 0 to 1."""

    auroc: float
    """Probability that a sample of the split scores higher than one of the other source; 0.5 is guessing."""
    fpr95: float
    """Fraction of the other source's samples above the threshold that 95% of the split's exceed."""


@dataclass(frozen=True)
class Outliers:
    """A split against samples of another source, of classes that the model does not have."""

    source: str
    split: str
    """Split of the other source: test, or all where it has none of its own."""
    n: int
    """Number of samples of the other source."""
    unreadable: int
    max_probability: Separation
    """Separation by the highest probability (Hendrycks and Gimpel, 2017)."""
    energy: Separation
    """Separation by the energy of the network's outputs, before any temperature (Liu et al., 2020)."""


def separate_outliers(
    answers: SplitLogits, artifact: Artifact, dataset: Dataset, source: str | Path, data_root: str | Path | None
) -> Outliers:
    """Score the predicted samples, which are of `dataset`, against those of another source of the same kind.

    The other source's classes are ignored. Its samples that are in the split too are left out. Raises
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
    """Return the samples of a split that are not in another one."""
    return split.take(np.flatnonzero(~np.isin(split.hashes, known.hashes)))


def _separate(scores: Float64[np.ndarray, " samples"], others: Float64[np.ndarray, " others"]) -> Separation:
    """Return the separation by a score that should be higher for the first."""
    curve = metrics.roc_curve(np.concatenate([scores, others]), np.arange(len(scores) + len(others)) < len(scores))
    assert curve is not None
    return Separation(curve.area, metrics.fpr_at_tpr(scores, others))
