"""Predictions: a model's answers about files, whoever computed them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
from jaxtyping import Float

from falconet.catalog import FILE_SUFFIXES, list_paths
from falconet.data import Unreadable
from falconet.data.files import KIND_WORDS, list_samples
from falconet.errors import DataError, PathError, UsageError
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


def list_files(paths: str | Path | Iterable[str | Path], kind: Kind) -> list[str]:
    """Return files themselves, and the samples of a kind below folders.

    Raises PathError where there are none, UsageError for what names no files.
    """
    return [file for path in list_paths(paths, "files or folders") for file in expand(path, kind)]


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


def check_top(top: object) -> None:
    """Raise UsageError unless at least one candidate is wanted."""
    if not isinstance(top, Integral) or top < 1:
        raise UsageError(f"--top: wanted 1 or more, found {top}")


def rank_files(
    files: Sequence[str],
    answers: Float[np.ndarray, "readable classes"],
    skipped: tuple[Unreadable, ...],
    labels: Sequence[str],
    top: int,
) -> Predictions:
    """Return the `top` most probable classes of each file that was not skipped; `answers` are probabilities in order.

    Raises DataError where not one file could be read.
    """
    if not len(answers):
        raise DataError(f"none of {len(files)} files can be read; the first: {skipped[0].file} ({skipped[0].reason})")
    lost = {item.file for item in skipped}
    rows = zip((file for file in files if file not in lost), answers, strict=True)
    return Predictions(tuple(rank(file, row, labels, top) for file, row in rows), skipped)


def rank(file: str, probabilities: Float[np.ndarray, " classes"], labels: Sequence[str], top: int) -> Prediction:
    """Return the `top` most probable classes of one file."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    candidates = tuple(Ranked(labels[index], float(probabilities[index])) for index in order)
    return Prediction(file, candidates[0].label, candidates[0].probability, candidates)
