"""Paired comparison of two models on the same samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from falconet import metrics
from falconet.artifact import Artifact
from falconet.data.dataset import match_labels
from falconet.data.files import adapt_samples
from falconet.errors import DataError
from falconet.evaluation.logits import SplitLogits, predict_logits


@dataclass(frozen=True)
class PairedComparison:
    """A model compared with another one on the samples that both can read; fractions of 0 to 1."""

    other: str
    """Architecture of the other model."""
    n: int
    both: int
    """Number of samples that both predict correctly."""
    only_this: int
    only_other: int
    neither: int
    p_value: float
    """p-value of McNemar's exact test: the probability that equally good models differ as much or more."""
    accuracy: float
    other_accuracy: float
    difference: float
    """Accuracy of this model minus that of the other."""
    difference_ci: tuple[float, float] | None
    """95% interval of the difference, by bootstrap over pairs of predictions.

    None where that says nothing: both are correct on the same samples, or one on all and the other on none.
    """


def compare_answers(answers: SplitLogits, artifact: Artifact, other: Artifact) -> PairedComparison:
    """Compare a model's predictions with another's on the same samples, classes matched by name.

    Raises DataError for classes that the other does not know, and where it can read none of the samples.
    """
    split = answers.split
    labels = match_labels(split, artifact.config.output.labels, other.config.output.labels)
    logits, unreadable = predict_logits(other, adapt_samples(split.samples, other.config.input))
    if not len(logits):
        raise DataError(f"the other model, {other.config.architecture}, can read none of {len(split)} samples")
    kept = np.setdiff1d(np.arange(len(split)), list(unreadable)).astype(np.int64)
    first = (answers.logits.argmax(axis=1) == split.labels)[kept]
    second = logits.argmax(axis=1) == labels[kept]
    both, only_this, only_other, neither = metrics.count_pairs(first, second)
    return PairedComparison(
        other=other.config.architecture,
        n=len(kept),
        both=both,
        only_this=only_this,
        only_other=only_other,
        neither=neither,
        p_value=metrics.mcnemar_p_value(only_this, only_other),
        accuracy=float(first.mean()),
        other_accuracy=float(second.mean()),
        difference=(only_this - only_other) / len(kept),
        difference_ci=metrics.bootstrap_difference(first, second),
    )
