"""Predictions: a model's answers about files, whoever computed them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np
from jaxtyping import Float

from falconet.catalog import FILE_SUFFIXES, list_paths
from falconet.data import Unreadable
from falconet.data.dataset import to_text
from falconet.data.files import KIND_WORDS, KINDS, count_ignored, describe_ignored, suffix_of, walk
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
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of folders that were no samples, counted by extension."""


@dataclass(frozen=True)
class FoundFiles:
    """What lies where a user pointed to."""

    files: Sequence[str]
    """That should hold one sample each."""
    refused: tuple[Unreadable, ...] = ()
    """Links that lead out of a folder, pipes and the like."""
    ignored: Mapping[str, int] = field(default_factory=dict)


def find_files(paths: str | Path | Iterable[str | Path], kind: Kind) -> FoundFiles:
    """Return files themselves and, below folders, the samples of a kind and what is left out.

    Raises PathError where there are none, UsageError for what names no files.
    """
    found = [expand(path, kind) for path in list_paths(paths, "files or folders")]
    ignored: dict[str, int] = {}
    for item in found:
        for suffix, count in item.ignored.items():
            ignored[suffix] = ignored.get(suffix, 0) + count
    refused = tuple(entry for item in found for entry in item.refused)
    return FoundFiles([file for item in found for file in item.files], refused, ignored)


def expand(path: Path, kind: Kind) -> FoundFiles:
    """Return a file itself, or what lies below a folder."""
    if path.is_file():
        if kind == "text" and path.suffix.lower() in FILE_SUFFIXES:
            wanted = "wanted texts in files of their own (.txt), found a table"
            raise PathError(f"{path}: {wanted}; `falconet evaluate` reads tables")
        return FoundFiles([str(path)])
    if not path.is_dir():
        found = "no regular file" if path.exists() else "no such file or folder"
        raise PathError(f"{found}: {path}")
    listing = walk(path, path, follow=False)
    files = [name for name in listing.files if suffix_of(name) in KINDS[kind]]
    ignored = count_ignored(listing.files, set(files)) | ({"hidden": len(listing.hidden)} if listing.hidden else {})
    if not files:
        beside = f" but {describe_ignored(ignored)}" if ignored else ""
        first = f" ({listing.refused[0].file}: {listing.refused[0].reason})" if listing.refused else ""
        raise PathError(f"{path}: wanted {KIND_WORDS[kind]}, found none in this folder{beside}{first}")
    refused = tuple(Unreadable(str(path / item.file), item.reason) for item in listing.refused)
    return FoundFiles([str(path / name) for name in files], refused, ignored)


def check_top(top: object) -> None:
    """Raise UsageError unless at least one candidate is wanted."""
    if not isinstance(top, Integral) or top < 1:
        raise UsageError(f"--top: wanted 1 or more, found {top}")


def rank_files(
    found: FoundFiles,
    answers: Float[np.ndarray, "readable classes"],
    reasons: Mapping[int, str],
    labels: Sequence[str],
    top: int,
) -> Predictions:
    """Return the `top` most probable classes of each file that can be read; `answers` are probabilities in order.

    `reasons` say of the others, by position, why they cannot.

    Raises DataError where not one file could be read.
    """
    skipped = [Unreadable(found.files[index], reason) for index, reason in reasons.items()]
    if not len(answers):
        first = f"{skipped[0].file} ({skipped[0].reason})"
        raise DataError(f"none of {len(found.files)} files can be read; the first: {first}")
    read = [to_text(file) for index, file in enumerate(found.files) if index not in reasons]
    ranked = tuple(rank(file, row, labels, top) for file, row in zip(read, answers, strict=True))
    return Predictions(ranked, (*found.refused, *skipped), found.ignored)


def rank(file: str, probabilities: Float[np.ndarray, " classes"], labels: Sequence[str], top: int) -> Prediction:
    """Return the `top` most probable classes of one file."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    candidates = tuple(Ranked(labels[index], float(probabilities[index])) for index in order)
    return Prediction(file, candidates[0].label, candidates[0].probability, candidates)
