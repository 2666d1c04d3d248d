"""Predictions of a model, whoever computed them. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float

from falconet.catalog import FILE_SUFFIXES, list_paths
from falconet.data import DataConfig, Samples, Unreadable
from falconet.data.adapters import SampleBlock
from falconet.data.dataset import to_text
from falconet.data.unlabeled import FoundFiles, find_below
from falconet.errors import ConfigError, DataError, PathError, UsageError
from falconet.modalities import MODALITIES
from falconet.schema import SPARSE, from_mapping, merge
from falconet.spec import ModalityName


@dataclass(frozen=True)
class Ranked:
    """One candidate of a prediction."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one sample."""

    file: str
    """Name of the sample: a path or a URL; where a file holds many, with a line, a series' name or a position."""
    label: str
    probability: float
    top: tuple[Ranked, ...] = field(repr=False)
    probabilities: Mapping[str, float] | None = field(default=None, repr=False, metadata={SPARSE: True})
    """Probabilities of all classes; None where they were not asked for."""


@dataclass(frozen=True)
class Predictions:
    """The predictions for several samples: a sequence of them, and what was skipped."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Unreadable, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of folders that were no samples, counted by extension."""
    notes: tuple[str, ...] = ()
    """Guesses that were needed to read the samples."""

    def __repr__(self) -> str:
        skipped = f", skipped {len(self.skipped):,}" if self.skipped else ""
        return f"Predictions(samples {len(self):,}{skipped})"

    def __len__(self) -> int:
        return len(self.predictions)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Prediction, ...]: ...

    def __getitem__(self, index: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.predictions[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)


Answer = Callable[[Samples], tuple[Float[np.ndarray, "readable classes"], Mapping[int, str]]]
"""Function that returns probabilities of the readable samples, in order, and why others cannot be read, by position."""


def answer_inputs(
    parts: Iterable[SampleBlock], answer: Answer, labels: Sequence[str], *, top: int = 3, probabilities: bool = False
) -> Iterator[Predictions]:
    """Yield a model's predictions, some at a time; `top` candidates of each sample, all with `probabilities`.

    Raises DataError in the end where there was not one sample that can be read.
    """
    read, lost = False, 0
    first: Unreadable | None = None
    for inputs in parts:
        found = Predictions((), inputs.skipped, inputs.ignored, inputs.notes)
        if inputs.samples is not None and len(inputs.samples):
            answers, reasons = answer(inputs.samples)
            found = rank_samples(inputs.samples, answers, reasons, labels, top, probabilities=probabilities)
            found = replace(
                found, skipped=(*inputs.skipped, *found.skipped), ignored=inputs.ignored, notes=inputs.notes
            )
        read |= bool(found.predictions)
        lost += len(found.skipped)
        first = first or next(iter(found.skipped), None)
        yield found
    if not read and first is not None:
        what = "the sample cannot be read" if lost == 1 else f"none of {lost:,} samples can be read; the first"
        raise DataError(f"{what}: {first.file} ({first.reason})")
    if not read:
        raise DataError("wanted samples, found none")


def collect(parts: Iterable[Predictions]) -> Predictions:
    """Return several parts as one."""
    predictions: list[Prediction] = []
    skipped: list[Unreadable] = []
    ignored: dict[str, int] = {}
    notes: dict[str, None] = {}
    for part in parts:
        predictions += part.predictions
        skipped += part.skipped
        notes |= dict.fromkeys(part.notes)
        for suffix, count in part.ignored.items():
            ignored[suffix] = ignored.get(suffix, 0) + count
    return Predictions(tuple(predictions), tuple(skipped), ignored, tuple(notes))


_READ_BY = ("columns", "header", "follow", "max_bytes")
"""Settings of `data` that say how samples without labels are read."""


def resolve_data_config(settings: Mapping[str, Any] | None, known: Mapping[str, Any] | None = None) -> DataConfig:
    """Return how samples are read: as the model's own data were, where that is `known`, but for what settings say.

    Raises ConfigError for settings that do not exist, or that say nothing of samples without labels.
    """
    for key in settings or {}:
        if key not in _READ_BY:
            raise ConfigError(
                f"data.{key}: wanted one of {', '.join(_READ_BY)}: no other tells how to read what to answer"
            )
    return from_mapping(DataConfig, merge(known or {}, settings or {}), "data")


def find_files(paths: str | Path | Iterable[str | Path], kind: ModalityName) -> FoundFiles:
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


def expand(path: Path, kind: ModalityName) -> FoundFiles:
    """Return a file itself, or what lies below a folder."""
    if path.is_file():
        modality = MODALITIES[kind]
        if not modality.has_format and path.suffix.lower() in FILE_SUFFIXES:
            endings = ", ".join(sorted(modality.extensions))
            wanted = f"wanted {modality.files} in files of their own ({endings}), found a table"
            raise PathError(f"{path}: {wanted}; name it alone, or let `falconet predict` read it")
        return FoundFiles([str(path)])
    if not path.is_dir():
        found = "no regular file" if path.exists() else "no such file or folder"
        raise PathError(f"{found}: {path}")
    files = find_below(path, kind)
    assert files is not None
    return files


def check_top(top: object) -> None:
    """Raise UsageError unless at least one candidate is wanted."""
    if not isinstance(top, Integral) or top < 1:
        raise UsageError(f"top: wanted 1 or more, found {top}")


def rank_samples(
    samples: Samples,
    answers: Float[np.ndarray, "readable classes"],
    reasons: Mapping[int, str],
    labels: Sequence[str],
    top: int,
    *,
    probabilities: bool = False,
) -> Predictions:
    """Return the `top` most probable classes of each sample that can be read; `answers` are probabilities in order.

    `reasons` say of the others, by position, why they cannot.
    """
    skipped = tuple(Unreadable(samples.name(index), reason) for index, reason in reasons.items())
    read = [to_text(samples.name(index)) for index in range(len(samples)) if index not in reasons]
    ranked = tuple(_rank(name, row, labels, top, whole=probabilities) for name, row in zip(read, answers, strict=True))
    return Predictions(ranked, skipped)


def _rank(
    name: str, probabilities: Float[np.ndarray, " classes"], labels: Sequence[str], top: int, *, whole: bool = False
) -> Prediction:
    """Return the `top` most probable classes of one sample, and with `whole` the probabilities of all."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    candidates = tuple(Ranked(labels[index], float(probabilities[index])) for index in order)
    every = dict(zip(labels, map(float, probabilities), strict=True)) if whole else None
    return Prediction(name, candidates[0].label, candidates[0].probability, candidates, every)
