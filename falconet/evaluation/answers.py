"""What a trained model says about samples, before anybody judges it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from falconet.artifact import Artifact
from falconet.data import Samples, Split, Unreadable
from falconet.data.preprocessing import iterate_prepared
from falconet.data.series import WavFiles
from falconet.errors import DataError
from falconet.memory import kept_memory
from falconet.spec import InputSpec, SeriesSpec

BATCH_SIZE = 256


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says about the samples of a split that can be read."""

    split: Split
    """Those samples; labels are positions in the model's own."""
    logits: Float32[np.ndarray, "samples classes"]
    unreadable: tuple[Unreadable, ...]
    """The other samples of the split."""


def answer_split(artifact: Artifact, split: Split) -> Answers:
    """Return the model's raw outputs for a split. Raises DataError where nothing of it can be read."""
    with kept_memory():
        logits, reasons = predict_logits(artifact, fit_recordings(split.samples, artifact.config.input))
    if not len(logits):
        index, reason = next(iter(reasons.items()))
        raise DataError(f"none of {len(split)} samples can be read; the first: {split.samples.name(index)} ({reason})")
    unreadable = tuple(Unreadable(split.samples.name(index), reason) for index, reason in reasons.items())
    kept = np.setdiff1d(np.arange(len(split)), list(reasons)).astype(np.int64)
    return Answers(split.take(kept) if reasons else split, logits, unreadable)


def fit_recordings(samples: Samples, spec: InputSpec) -> Samples:
    """Return recordings at the model's rate and number of channels, whatever those of their source; others as is."""
    if isinstance(samples, WavFiles) and isinstance(spec, SeriesSpec) and spec.rate is not None:
        return dataclasses.replace(samples, rate=spec.rate, channels=spec.raw_shape[0])
    return samples


@torch.inference_mode()
def predict_logits(
    artifact: Artifact, samples: Samples
) -> tuple[Float32[np.ndarray, "readable classes"], dict[int, str]]:
    """Return the raw outputs for all readable samples in order, and the positions of the others with reasons."""
    logits = [torch.empty(0, len(artifact.config.input.labels))]
    unreadable: dict[int, str] = {}
    for batch in iterate_prepared(samples, artifact.preprocess, BATCH_SIZE):
        unreadable |= batch.unreadable
        if len(batch.inputs):
            logits.append(artifact.model(artifact.preprocess.normalize(batch.inputs)).float())
    return torch.cat(logits).numpy(), unreadable
