"""predict(): what a trained model answers about files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from falconet import metrics
from falconet.artifact import Artifact, load_artifact
from falconet.catalog import FILE_SUFFIXES
from falconet.data import Unreadable
from falconet.data.files import KIND_WORDS, list_samples, open_files
from falconet.errors import DataError, PathError, UsageError
from falconet.evaluation.answers import predict_logits
from falconet.spec import Kind


@dataclass(frozen=True)
class Ranked:
    """One candidate of a prediction."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one file."""

    file: str
    label: str
    probability: float
    top: tuple[Ranked, ...]


@dataclass(frozen=True)
class Predictions:
    """The answers for several files."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Unreadable, ...]


def predict(model: str | Path | Artifact, paths: Sequence[str | Path], *, top: int = 3) -> Predictions:
    """Classify files of the kind that the model eats, and all such files below folders.

    Files that cannot be read are skipped and listed. Raises PathError for a path that does not exist or a folder
    without such files, DataError where not one file can be read.
    """
    if top < 1:
        raise UsageError(f"--top: wanted 1 or more, found {top}")
    artifact = model if isinstance(model, Artifact) else load_artifact(model)
    spec = artifact.config.input
    files = [file for path in paths for file in expand(Path(path), spec.kind)]
    logits, reasons = predict_logits(artifact, open_files(files, spec))
    skipped = tuple(Unreadable(files[index], reason) for index, reason in reasons.items())
    if not len(logits):
        raise DataError(f"none of {len(files)} files can be read; the first: {skipped[0].file} ({skipped[0].reason})")
    read = [file for index, file in enumerate(files) if index not in reasons]
    rows = zip(read, metrics.softmax(logits), strict=True)
    return Predictions(tuple(rank(file, row, spec.labels, top) for file, row in rows), skipped)


def expand(path: Path, kind: Kind) -> list[str]:
    """Return a file itself, or the samples below a folder."""
    if path.is_file():
        if kind == "text" and path.suffix.lower() in FILE_SUFFIXES:
            wanted = "wanted texts in files of their own (.txt), found a table"
            raise PathError(f"{path}: {wanted}; `falconet evaluate` reads tables")
        return [str(path)]
    if not path.is_dir():
        raise PathError(f"no such file or folder: {path}")
    found = list_samples(path, kind)
    if not found:
        raise PathError(f"{path}: wanted {KIND_WORDS[kind]}, found none in this folder")
    return [str(file) for file in found]


def rank(file: str, probabilities: np.ndarray, names: Sequence[str], top: int) -> Prediction:
    """Return the `top` most probable classes."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    candidates = tuple(Ranked(names[index], float(probabilities[index])) for index in order)
    return Prediction(file, candidates[0].label, candidates[0].probability, candidates)
