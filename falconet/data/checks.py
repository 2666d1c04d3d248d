"""check_data(): what a source holds and what is wrong with it. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from falconet.data.dataset import Dataset, Unreadable
from falconet.data.sources import load_dataset
from falconet.data.splits import DataConfig


@dataclass(frozen=True)
class ClassCount:
    """Readable samples of one class, all splits together."""

    name: str
    count: int


@dataclass(frozen=True)
class DataReport:
    """What `falconet data` says."""

    source: str
    kind: str
    channels: int
    size: tuple[int, int]
    """Median height and width in pixels."""
    classes: tuple[ClassCount, ...]
    splits: dict[str, int]
    """Samples by split."""
    made: tuple[str, ...]
    """Splits that the source lacks and that Falconet made."""
    fingerprint: str
    unreadable: tuple[Unreadable, ...]
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of samples with equal content."""
    leaks: tuple[tuple[str, ...], ...]
    """The groups among them that stand in more than one split."""


def check_data(
    source: str | Path, *, data_root: str | Path | None = None, config: DataConfig | None = None
) -> DataReport:
    """Read a source and describe it. Raises what `load_dataset` raises."""
    return describe_data(load_dataset(source, data_root=data_root, config=config))


def describe_data(dataset: Dataset) -> DataReport:
    """Describe a data set that has been read."""
    labels = np.concatenate([split.labels for split in dataset.splits.values()])
    counts = np.bincount(labels, minlength=len(dataset.classes)).tolist()
    groups = find_equal(dataset)
    return DataReport(
        source=dataset.source,
        kind="image",
        channels=dataset.channels,
        size=dataset.size,
        classes=tuple(ClassCount(name, count) for name, count in zip(dataset.classes, counts, strict=True)),
        splits={name: len(split) for name, split in dataset.splits.items()},
        made=tuple(sorted(dataset.made)),
        fingerprint=dataset.fingerprint,
        unreadable=dataset.unreadable,
        duplicates=tuple(tuple(name for _, name in group) for group in groups),
        leaks=find_leaks(dataset),
    )


def find_leaks(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    """Return groups of names of equal samples that stand in more than one split."""
    groups = find_equal(dataset)
    return tuple(tuple(name for _, name in group) for group in groups if len({split for split, _ in group}) > 1)


def find_equal(dataset: Dataset) -> list[list[tuple[str, str]]]:
    """Return groups of (split, sample name) with equal content."""
    members: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for name, split in dataset.splits.items():
        for index, value in enumerate(split.hashes.tolist()):
            members[value].append((name, index))
    return [
        [(name, dataset.splits[name].samples.name(index)) for name, index in group]
        for group in members.values()
        if len(group) > 1
    ]
