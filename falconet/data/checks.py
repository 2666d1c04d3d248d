"""check_data(): what a source holds and what is wrong with it. Imports no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from falconet.data.dataset import Dataset, Unreadable
from falconet.data.sources import load_dataset
from falconet.data.splits import DataConfig
from falconet.data.survey import DatasetStats, SamplePosition, find_near, list_places, list_unreadable, survey, to_name
from falconet.escaping import escape_line
from falconet.modalities import MODALITIES
from falconet.spec import ModalityName

_SHAPES = 20
"""Most image sizes that are listed one by one."""

_MIN_SAMPLES = 8
"""Fewest samples among which outliers are looked for; fewer do not show what is usual."""

_RARE = 0.1
"""Fraction of the samples up to which unusual ones are outliers; more are a part of the data set like any other."""


@dataclass(frozen=True)
class ClassCount:
    """Readable samples of one class, all splits together."""

    name: str
    count: int


@dataclass(frozen=True)
class ShapeCount:
    """How many images are of one size and either gray or color."""

    kind: str
    """`gray` or `color`; or `other` for all images whose size is not listed."""
    size: tuple[int, ...]
    """Height and width in pixels; empty for `other`."""
    count: int


@dataclass(frozen=True)
class Lengths:
    """Steps of series, or characters of texts."""

    min: int
    lower_quartile: float
    median: float
    upper_quartile: float
    max: int


@dataclass(frozen=True)
class NearDuplicate:
    """Two samples that are nearly equal; equal ones are duplicates instead."""

    names: tuple[str, str]
    splits: tuple[str, str]
    """Splits of the two samples: a model that is trained on one of them has seen the other."""
    distance: float
    """Root mean square of the difference of two images, scaled to 16x16 pixels, in 0..1; 0 for other samples."""


@dataclass(frozen=True)
class Outlier:
    """A sample whose size or length is far from that of the others."""

    name: str
    reason: str


@dataclass(frozen=True)
class LabelError:
    """A sample whose label is probably wrong."""

    name: str
    split: str
    label: str
    suggested: str
    probability: float
    """Probability of the suggested class."""


@dataclass(frozen=True)
class DataReport:
    """The report of `falconet data`."""

    source: str
    kind: ModalityName
    channels: int
    size: tuple[int, ...]
    """Median size: height and width of an image in pixels, steps of a series, characters of a text."""
    rate: int | None
    """Sampling rate of recordings in Hz; None for other samples."""
    classes: tuple[ClassCount, ...]
    splits: Mapping[str, int]
    """Readable samples by split."""
    made: tuple[str, ...]
    """Names of the splits that the source lacks and that Falconet made."""
    fingerprint: str
    columns: Mapping[str, str]
    """Column that each role was read from, where the source is a table."""
    ignored: Mapping[str, int]
    """Files of a folder that were no samples, counted by extension."""
    unreadable: tuple[Unreadable, ...]
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of samples with equal content."""
    leaks: tuple[tuple[str, ...], ...]
    """Groups of samples with equal content in more than one split."""
    near_duplicates: tuple[NearDuplicate, ...]
    """Nearly equal pairs, first those across splits, nearest first; m - 1 pairs connect a cluster of m samples."""
    imbalance: float | None
    """Ratio of the sizes of the largest and the smallest class; None where the smallest is empty."""
    absent_classes: Mapping[str, tuple[str, ...]]
    """Classes without a sample in a split, by split."""
    shapes: tuple[ShapeCount, ...]
    """Image sizes: the 20 most frequent, then all others as one."""
    lengths: Lengths | None
    """Lengths of series or texts; None for images."""
    missing: float | None
    """Fraction of missing values of series; None for other samples."""
    constant: tuple[str, ...]
    """Samples in which nothing changes: one color, the same value at all times, an empty text or one character."""
    outliers: tuple[Outlier, ...]
    value_range: tuple[float, float] | None = None
    """Black and white of images with more than 8 bits per value; None: there are none."""
    notes: tuple[str, ...] = ()
    """Guesses that were needed to read the source."""
    label_errors: tuple[LabelError, ...] = ()
    """Probable label errors, found by a trained model; only on request."""
    label_caution: str | None = None
    """Reason for not reporting any label error on request; None: there is no such reason."""

    def __repr__(self) -> str:
        counts = (f"{name} {count:,}" for name, count in self.splits.items())
        parts = (escape_line(self.source), self.kind, f"{len(self.classes):,} classes", *counts)
        return f"DataReport({', '.join(parts)}, unreadable {len(self.unreadable):,})"


def check_data(
    source: str | Path, *, data_root: str | Path | None = None, config: DataConfig | None = None
) -> DataReport:
    """Read a source, decode every sample and describe what was found. Raises what `load_dataset` raises."""
    return describe_data(load_dataset(source, data_root=data_root, config=config))


def describe_data(dataset: Dataset) -> DataReport:
    """Decode every sample of a data set and describe it."""
    found = survey(dataset)
    counts = _count_classes(dataset, found)
    totals = sum(counts.values(), np.zeros(len(dataset.classes), dtype=np.int64)).tolist()
    groups = _find_groups(dataset)
    modality = MODALITIES[dataset.kind]
    flat = modality.axes > 1  # Of a size that is no length.
    return DataReport(
        source=dataset.source,
        kind=dataset.kind,
        channels=dataset.channels,
        size=dataset.size,
        rate=dataset.rate,
        value_range=dataset.value_range,
        classes=tuple(ClassCount(name, count) for name, count in zip(dataset.classes, totals, strict=True)),
        splits={name: int(count.sum()) for name, count in counts.items()},
        made=tuple(sorted(dataset.made_splits)),
        fingerprint=dataset.fingerprint,
        columns=dict(dataset.columns),
        notes=dataset.notes,
        ignored=dict(dataset.ignored),
        unreadable=(*dataset.unreadable, *list_unreadable(dataset, found)),
        duplicates=_to_names(dataset, groups),
        leaks=_to_names(dataset, [group for group in groups if _spans_splits(group)]),
        near_duplicates=_find_near_duplicates(dataset, found),
        imbalance=max(totals) / min(totals) if min(totals) else None,
        absent_classes=_find_absent(dataset, counts),
        shapes=_count_shapes(found) if flat else (),
        lengths=None if flat else _measure_lengths(found),
        missing=found.missing / max(found.values, 1) if modality.missing_is_nan else None,
        constant=_list_constant(dataset, found),
        outliers=_find_outliers(dataset, found),
    )


def _find_groups(dataset: Dataset) -> list[list[SamplePosition]]:
    """Return groups of samples with equal content."""
    members: dict[int, list[SamplePosition]] = defaultdict(list)
    for name, split in dataset.splits.items():
        for index, value in enumerate(split.hashes.tolist()):
            members[value].append((name, index))
    return [group for group in members.values() if len(group) > 1]


def _spans_splits(places: Sequence[SamplePosition]) -> bool:
    """Whether samples stand in more than one split."""
    return len({split for split, _ in places}) > 1


def _to_names(dataset: Dataset, groups: Sequence[Sequence[SamplePosition]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(to_name(dataset, place) for place in group) for group in groups)


def _list_constant(dataset: Dataset, found: DatasetStats) -> tuple[str, ...]:
    places = list_places(dataset)
    return tuple(to_name(dataset, places[index]) for index in np.flatnonzero(found.constant))


def _count_classes(dataset: Dataset, found: DatasetStats) -> dict[str, Int64[np.ndarray, " classes"]]:
    """Return the readable samples of each class, by split."""
    ends = np.cumsum([len(split) for split in dataset.splits.values()])
    masks = np.split(found.readable, ends[:-1])
    return {
        name: np.bincount(split.labels[mask], minlength=len(dataset.classes))
        for (name, split), mask in zip(dataset.splits.items(), masks, strict=True)
    }


def _find_absent(dataset: Dataset, counts: Mapping[str, Int64[np.ndarray, " classes"]]) -> dict[str, tuple[str, ...]]:
    """Return the classes of which a split has no readable sample, for splits that lack any."""
    return {
        name: tuple(dataset.classes[label] for label in np.flatnonzero(count == 0))
        for name, count in counts.items()
        if not count.all()
    }


def _find_near_duplicates(dataset: Dataset, found: DatasetStats) -> tuple[NearDuplicate, ...]:
    """Return pairs of samples that are nearly equal; see `find_near`."""
    places = list_places(dataset)
    pairs, distances = find_near(dataset, found)
    order = np.lexsort(pairs.T[::-1])
    pairs, distances = pairs[order], distances[order]
    ends = [(places[first], places[second]) for first, second in pairs.tolist()]
    near = [
        NearDuplicate((to_name(dataset, one), to_name(dataset, two)), (one[0], two[0]), round(distance, 4))
        for (one, two), distance in zip(ends, distances.tolist(), strict=True)
    ]
    return tuple(sorted(near, key=lambda pair: (pair.splits[0] == pair.splits[1], pair.distance)))


def _count_shapes(found: DatasetStats) -> tuple[ShapeCount, ...]:
    """Return how many images there are of each size, gray and color, the most frequent first."""
    readable = found.readable
    kinds = ["color" if color else "gray" for color in found.color[readable].tolist()]
    counts = Counter(zip(kinds, map(tuple, found.sizes[readable].tolist()), strict=True)).most_common()
    listed = tuple(ShapeCount(kind, size, count) for (kind, size), count in counts[:_SHAPES])
    rest = sum(count for _, count in counts[_SHAPES:])
    return (*listed, ShapeCount("other", (), rest)) if rest else listed


def _measure_lengths(found: DatasetStats) -> Lengths | None:
    """Return how long series or texts are; None where none can be read."""
    steps = found.sizes[found.readable, 1]
    if len(steps) == 0:
        return None
    lower, median, upper = np.percentile(steps, [25, 50, 75]).tolist()
    return Lengths(int(steps.min()), lower, median, upper, int(steps.max()))


def _find_outliers(dataset: Dataset, found: DatasetStats) -> tuple[Outlier, ...]:
    """Return samples far larger, smaller, longer or shorter than the others; of images also more elongated ones.

    See `is_far`. An image's size is the side of a square of the same area, its elongation the longer side by the
    shorter one.
    """
    places = list_places(dataset)
    rows = np.flatnonzero(found.readable)
    sizes = np.maximum(found.sizes[rows], 1)
    if MODALITIES[dataset.kind].axes > 1:
        far = is_far(np.sqrt(sizes.prod(axis=1))) | is_far(sizes.max(axis=1) / sizes.min(axis=1))
    else:
        far = is_far(sizes[:, 1].astype(np.float64))
    unit = MODALITIES[dataset.kind].raw_unit
    median = "x".join(f"{value:,}" for value in dataset.size)
    return tuple(
        Outlier(to_name(dataset, places[row]), f"{_describe_size(dataset, found, row)} {unit}, median {median}")
        for row in rows[far].tolist()
    )


def _describe_size(dataset: Dataset, found: DatasetStats, row: int) -> str:
    height, width = found.sizes[row].tolist()
    return "x".join(f"{side:,}" for side in (height, width)[-MODALITIES[dataset.kind].axes :])


def is_far(values: Float64[np.ndarray, " samples"]) -> Bool[np.ndarray, " samples"]:
    """Mark values that are more than four times the median or less than a quarter of it, and far out.

    Far out is what lies beyond three interquartile ranges from the quartiles (Tukey, "Exploratory Data Analysis",
    1977), here of logarithms, so that sets of many sizes have none. Nothing is marked among fewer than _MIN_SAMPLES
    values, nor where more than a tenth of them, and more than one, would be.
    """
    far = np.zeros(len(values), dtype=bool)
    if len(values) < _MIN_SAMPLES:
        return far
    logs = np.log2(values)
    low, median, high = np.percentile(logs, [25, 50, 75])
    fence = 3 * (high - low)
    beyond = (np.abs(logs - median) > 2) & ((logs < low - fence) | (logs > high + fence))
    return beyond if beyond.sum() <= max(1, _RARE * len(values)) else far
