"""evaluate_exported(): evaluation of an exported file on samples fit to evaluate its model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from falconet.data import DataConfig, Dataset, Split, Unreadable
from falconet.data.dataset import match_labels
from falconet.data.files import adapt_samples
from falconet.data.sources import read_dataset
from falconet.errors import DataError, ExportError
from falconet.evaluation.evaluation import Evaluation, evaluate_logits
from falconet.evaluation.logits import SplitLogits, adapt_config
from falconet.exporters.inference import infer_samples, make_preprocess, read_tokenizer
from falconet.exporters.metadata import Metadata
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import Runtime
from falconet.schema import from_mapping

_LEAST = float(np.finfo(np.float32).tiny)
"""Least probability, which stands for 0, so that its logarithm is finite."""


def evaluate_exported(
    runtime: Runtime,
    path: str | Path,
    source: str | Path,
    *,
    split: str | None = None,
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Evaluate an exported file on a split of a source, from raw samples, as `falconet.evaluate` evaluates a model.

    Classes are matched by name; `settings` are those of `DataConfig`. A file does not state how training split its
    data, so that only splits which a source has of its own are evaluated, or all samples (`split="all"`). None is the
    source's test split, or of another source than that of training, without one of its own, all samples.

    Raises PathError for what does not exist, ExportError for a file that holds a bare network or is none of falconet's,
    DataError for a split that only the model's own folder records, and for classes that the file does not know.
    """
    session = open_session(runtime, Path(path))
    metadata = session.metadata
    if not metadata.preprocessing:
        raise ExportError(
            f"{path}: wanted a file that takes raw samples, found a bare network; export without --no-preprocessing"
        )
    config = adapt_config(from_mapping(DataConfig, settings or {}, "data"), metadata.input)
    dataset = read_dataset(source, data_root=data_root, config=config)
    if dataset.kind != metadata.input.kind:
        raise DataError(f"wanted {metadata.input.kind} data, as the file takes, found {dataset.kind} in {source}")
    name = _find_own_split(dataset, metadata, split)
    notes = dataset.notes
    if split is None and name == "all":
        notes = (*notes, f"{dataset.source} has no test split: all of it is evaluated")
    answers = _answer_split(session, Path(path), dataset, dataset.split(name))
    unreadable = (*dataset.unreadable, *answers.unreadable)
    found = evaluate_logits(answers.logits, answers.split.labels, metadata.output_spec.labels, name, unreadable)
    return dataclasses.replace(found, ignored=dataset.ignored, notes=notes)


def _find_own_split(dataset: Dataset, metadata: Metadata, split: str | None) -> str:
    """Return which split of a source is evaluated. Raises DataError for one that only training made."""
    # The one split of such a source holds what training made into validation and test samples.
    parted = [*dataset.splits] == ["train"] and dataset.fingerprint == metadata.data
    if split == "all" or (split in dataset.splits and not parted):
        assert split is not None
        return split
    if split is None and "test" in dataset.splits:
        return "test"
    if split is None and dataset.fingerprint != metadata.data:
        return "all"
    raise DataError(
        f"{dataset.source}: wanted a {split or 'test'} split of its own, found none: an exported file does not tell "
        "which one training made. Evaluate the model's folder, or evaluate on split='all', training samples among them"
    )


def _answer_split(session: Session, path: Path, dataset: Dataset, split: Split) -> SplitLogits:
    """Return an exported file's predictions on a split; logits are the logarithms of its probabilities.

    Raises DataError where nothing of it can be read.
    """
    spec = session.metadata.input
    labels = match_labels(split, dataset.classes, session.metadata.output_spec.labels)
    samples = adapt_samples(split.samples, spec)
    prepare = make_preprocess(session.metadata, read_tokenizer(path, session.metadata))
    probabilities, reasons = infer_samples(session, samples, prepare, path)
    if not len(probabilities):
        first = next(iter(reasons.values()), "there are none")
        raise DataError(f"{dataset.source}: none of {len(split)} samples can be read; the first: {first}")
    kept = np.setdiff1d(np.arange(len(split)), list(reasons)).astype(np.int64)
    unreadable = tuple(Unreadable(samples.name(index), reason) for index, reason in reasons.items())
    logits = np.log(np.maximum(probabilities, _LEAST)).astype(np.float32)
    return SplitLogits(dataclasses.replace(split, labels=labels).take(kept), logits, unreadable)
