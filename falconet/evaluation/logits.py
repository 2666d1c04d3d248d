"""Logits of a trained model for samples, before their evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from falconet.artifact import Artifact
from falconet.data import DataConfig, Dataset, Samples, Split, Unreadable
from falconet.data.dataset import match_labels
from falconet.data.files import adapt_samples
from falconet.data.preprocessing import iterate_prepared
from falconet.errors import DataError
from falconet.evaluation.adapters import ADAPTERS
from falconet.memory import kept_memory
from falconet.modalities import modality_of
from falconet.spec import InputSpec


@dataclass(frozen=True, eq=False)
class SplitLogits:
    """A model's logits for the readable samples of a split."""

    split: Split
    """The readable samples; labels are positions in the model's labels."""
    logits: Float32[np.ndarray, "samples classes"]
    """The network's outputs divided by the model's temperature: their softmax is the model's probabilities."""
    unreadable: tuple[Unreadable, ...] = ()
    """The other samples of the split."""


def predict_split(artifact: Artifact, dataset: Dataset, name: str, split: Split | None = None) -> SplitLogits:
    """Return the model's logits for a split of a data set, labels matched to its own; `split`: the split, if at hand.

    Raises DataError for an empty one, for classes that the model does not know, and as `predict_matched` does.
    """
    split = dataset.split(name) if split is None else split
    if not len(split):
        raise DataError(f"{dataset.source}: its {name} split holds no samples")
    labels = match_labels(split, dataset.classes, artifact.config.output.labels)
    return predict_matched(artifact, dataclasses.replace(split, labels=labels))


def predict_matched(artifact: Artifact, split: Split) -> SplitLogits:
    """Return the model's logits for a split. Raises DataError where nothing of it can be read."""
    with kept_memory():
        logits, reasons = predict_logits(artifact, adapt_samples(split.samples, artifact.config.input))
    if not len(logits):
        index, reason = next(iter(reasons.items()))
        raise DataError(f"none of {len(split)} samples can be read; the first: {split.samples.name(index)} ({reason})")
    lost = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(lost):
        raise DataError(
            f"wanted numbers, found NaN or infinity in the network's answers to {len(lost)} of {len(logits)} samples: "
            "its weights are of no use; train it again, at a lower training.learning_rate"
        )
    unreadable = tuple(Unreadable(split.samples.name(index), reason) for index, reason in reasons.items())
    kept = np.setdiff1d(np.arange(len(split)), list(reasons)).astype(np.int64)
    return SplitLogits(split.take(kept) if reasons else split, logits, unreadable)


def adapt_config(config: DataConfig, spec: InputSpec) -> DataConfig:
    """Return the configuration of reading adapted to a model's input: images in its value range."""
    return ADAPTERS[spec.kind].adapt_config(config, spec)


@torch.inference_mode()
def predict_logits(
    artifact: Artifact, samples: Samples
) -> tuple[Float32[np.ndarray, "readable classes"], dict[int, str]]:
    """Return the logits for all readable samples in order, and the positions of the others with reasons.

    All predictions come from here, so that the model's temperature always applies.
    """
    logits = [np.empty((0, len(artifact.config.output.labels)), dtype=np.float32)]
    unreadable: dict[int, str] = {}
    for views, reasons in iterate_logits(artifact, samples):
        logits += views
        unreadable |= reasons
    return np.concatenate(logits), unreadable


def iterate_logits(
    artifact: Artifact, samples: Samples, *, mirrored: bool = False
) -> Iterator[tuple[list[Float32[np.ndarray, "readable classes"]], dict[int, str]]]:
    """Yield, batch by batch, the logits of the readable samples, and why others cannot be read, by position.

    Where `mirrored`, the logits of the mirrored images follow as a second view; without readable samples there are
    none. To be consumed in inference mode.
    """
    mirror = ADAPTERS[artifact.config.input.kind].mirror if mirrored else None
    for batch in iterate_prepared(samples, artifact.preprocess, artifact.batch_size):
        inputs = [batch.inputs] if len(batch.inputs) else []
        inputs += [mirror(view) for view in inputs] if mirror else []
        outputs = [_answer_batch(artifact, view).numpy() for view in inputs]
        yield [scale_logits(logits, artifact.config.calibration_temperature) for logits in outputs], batch.unreadable


_ALIKE = 32
"""Texts in a batch, at most."""


def _answer_batch(artifact: Artifact, prepared: Tensor) -> Float32[Tensor, "samples classes"]:
    """Return the network's outputs for prepared samples; texts are batched by length, as padding takes time."""
    inputs = artifact.preprocess.normalize(prepared)
    if not modality_of(artifact.config.input).has_tokens:
        outputs: Tensor = artifact.model(inputs).float()
        return outputs
    order = torch.argsort((inputs != 0).sum(dim=1), stable=True)
    sorted_outputs = torch.cat([artifact.model(part).float() for part in torch.split(inputs[order], _ALIKE)])
    return torch.empty_like(sorted_outputs).index_copy_(0, order, sorted_outputs)


def scale_logits(
    logits: Float32[np.ndarray, "samples classes"], temperature: float
) -> Float32[np.ndarray, "samples classes"]:
    """Return logits divided by a temperature, which changes no predicted class."""
    scaled: Float32[np.ndarray, "samples classes"] = logits / np.float32(temperature)
    return scaled
