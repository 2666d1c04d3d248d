"""predict(): predictions of a trained model for samples without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from falconet import metrics
from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.data import Samples
from falconet.data.files import adapt_samples
from falconet.data.unlabeled import iterate_inputs
from falconet.errors import ConfigError, DataError, UsageError
from falconet.evaluation.adapters import ADAPTERS
from falconet.evaluation.logits import iterate_logits
from falconet.predictions import Predictions, answer_inputs, check_top, collect, resolve_data_config
from falconet.schema import parse_yaml, to_mapping
from falconet.storage import open_regular

_RUN_FILE = "config.yaml"
"""File in a run's folder with all its settings, among them the augmentation of training samples."""
_RUN_BYTES = 1 << 20


def predict(
    model: AnyModel,
    inputs: object,
    *,
    top: int = 3,
    probabilities: bool = False,
    tta: bool = False,
    settings: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
) -> Predictions:
    """Return a model's predictions for samples of the kind that it takes.

    `inputs` is one of these, or a list of several: a path of a file that holds a sample (an image, a `.wav`, a `.txt`)
    or many (`.csv`, `.tsv`, `.jsonl`, `.parquet`, `.ts`, `.npz`), with labels or without; a folder of these; an address
    that begins with http:// or https://; the name of a source that `train` takes; an open binary file of lines. Or
    samples at hand: PIL images, arrays `(height, width[, channels])` or `([channels,] steps)`, tensors; an array alone
    holds many along its first axis, and so does a `falconet.Dataset` or one of its splits. For a text model, a string
    in a list is a text, as in a column of a DataFrame or an array; one alone is a path.

    `top` candidates of each are returned, with `probabilities` those of all classes; `tta` averages the probabilities
    of an image and its mirror image, for models that were trained on both. `settings`, such as `{"columns": {"text":
    "note"}}`, say how tables are read; by default as the model's own was.

    What cannot be read is skipped and listed. Raises PathError for a path that does not exist or a folder without
    samples, UsageError for what names none and for `tta` of another model, DataError where not one sample can be read,
    or an answer is no number.
    """
    parts = iterate_predictions(
        model, inputs, top=top, probabilities=probabilities, tta=tta, settings=settings, data_root=data_root
    )
    return collect(parts)


def iterate_predictions(
    model: AnyModel,
    inputs: object,
    *,
    top: int = 3,
    probabilities: bool = False,
    tta: bool = False,
    settings: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
) -> Iterator[Predictions]:
    """Yield what `predict` returns, some samples at a time, so that tables of any size take little memory."""
    check_top(top)
    artifact = open_artifact(model)
    if tta:
        _check_mirrored(artifact)
    config = resolve_data_config(settings, _restore_reading(artifact))

    def answer(samples: Samples) -> tuple[Float[np.ndarray, "readable classes"], Mapping[int, str]]:
        return _predict_probabilities(artifact, adapt_samples(samples, artifact.config.input), mirrored=tta)

    spec, labels = artifact.config.input, artifact.config.output.labels
    parts = iterate_inputs(inputs, spec, config, data_root=data_root, labels=labels)
    yield from answer_inputs(parts, answer, labels, top=top, probabilities=probabilities)


@torch.inference_mode()
def _predict_probabilities(
    artifact: Artifact, samples: Samples, *, mirrored: bool = False
) -> tuple[Float[np.ndarray, "readable classes"], dict[int, str]]:
    """Return the probabilities for all readable samples in order, and the positions of the others with reasons.

    Where `mirrored`, they are means over the image and its mirror image.
    """
    answers = [np.empty((0, len(artifact.config.output.labels)))]
    unreadable: dict[int, str] = {}
    for views, reasons in iterate_logits(artifact, samples, mirrored=mirrored):
        unreadable |= reasons
        if not all(np.isfinite(logits).all() for logits in views):
            raise DataError("wanted numbers, found NaN or infinity in the network's answers: its weights are of no use")
        answers += [np.mean([metrics.softmax(logits) for logits in views], axis=0)] if views else []
    return np.concatenate(answers), unreadable


def _restore_reading(artifact: Artifact) -> dict[str, Any]:
    """Return the configuration for reading tables like the one that a model was trained on: the roles of their columns.

    Whether paths may lead out of a table's folder is up to the caller, not the model.
    """
    return {"columns": to_mapping(artifact.config.provenance.data.columns)}


def _check_mirrored(artifact: Artifact) -> None:
    """Raise UsageError unless a model takes images and was trained with mirrored ones too.

    Else a mirrored image may be one of another class, as with letters and arrows.
    """
    kind = artifact.config.input.kind
    if ADAPTERS[kind].mirror is None:
        raise UsageError(f"tta: wanted a model of images, which are mirrored, found one of {kind}")
    flips = 0.0 if artifact.path is None else _find_flips(artifact.path)
    if not flips:
        raise UsageError(
            f"tta: wanted a run whose {_RUN_FILE} has augmentation.flip_horizontal above 0, found none: a model that "
            "never saw mirrored images may take them for others; leave tta out"
        )


def _find_flips(folder: Path) -> float:
    """Return the probability with which a run mirrored its training images; 0 where it is unknown."""
    try:
        with open_regular(folder / _RUN_FILE) as file:
            settings = parse_yaml(file.read(_RUN_BYTES).decode(errors="replace"))
        found = settings["augmentation"]["flip_horizontal"]
    except (OSError, ConfigError, KeyError, TypeError):
        return 0.0
    return float(found) if isinstance(found, int | float) else 0.0
