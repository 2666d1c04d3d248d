"""One pass over all samples of a data set: each is decoded once, and only a few numbers of it are kept.

100,000 images leave 80 MB behind, nearly all of it their thumbnails. Importing this imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt, UInt8, UInt64

from falconet.data.dataset import Dataset, Encoded, Samples, Unreadable, to_text
from falconet.data.duplicates import (
    SIDE,
    find_alike,
    find_equal,
    hash_copies,
    hash_series,
    hash_text,
    make_thumbnails,
    shrink,
)
from falconet.data.series import count_steps
from falconet.errors import DataError
from falconet.spec import ModalityName

_LARGE = 1 << 14
"""Values of a sample of median size from which on threads save time."""

SPAN = 32
"""Samples that a worker processes at a time."""


SamplePosition = tuple[str, int]
"""A split's name, and a position in it."""


@dataclass(frozen=True, eq=False)
class SampleStats:
    """Statistics of one sample."""

    size: tuple[int, int] = (0, 0)
    """Height and width in pixels; or 1 and the steps of a series, or the characters of a text."""
    color: bool = False
    constant: bool = False
    values: int = 0
    """Number of values of a series, channels times steps."""
    missing: int = 0
    """Number of NaN among the values of series."""
    key: int = 0
    copy: UInt8[np.ndarray, "32 32 3"] | None = None


@dataclass(frozen=True, eq=False)
class DatasetStats:
    """Statistics of samples, in the order of the data set's splits; zeros for those that cannot be read."""

    reasons: Mapping[int, str]
    """Why samples cannot be read, by position."""
    sizes: Int64[np.ndarray, "samples 2"]
    """Height and width in pixels; or 1 and the steps of a series, or the characters of a text."""
    color: Bool[np.ndarray, " samples"]
    constant: Bool[np.ndarray, " samples"]
    """Whether nothing changes within a sample: over an image, over time, from character to character."""
    values: int
    """Number of values of all series, channels times steps."""
    missing: int
    """Number of NaN among the values of series."""
    keys: UInt64[np.ndarray, " samples"]
    """Perceptual hash of an image; for other samples, 64 bits that nearly equal ones have in common, 0 for none."""
    thumbnails: UInt8[np.ndarray, "images 16 16 3"]
    """Thumbnails of images; empty for other samples."""

    @property
    def readable(self) -> Bool[np.ndarray, " samples"]:
        """Whether samples can be read."""
        mask = np.ones(len(self.keys), dtype=bool)
        mask[list(self.reasons)] = False
        return mask


def survey(dataset: Dataset) -> DatasetStats:
    """Decode every sample, in parallel where most of the time is decoding."""

    def look(span: tuple[Samples, range]) -> DatasetStats:
        return _survey_span(*span, dataset.kind)

    if math.prod(dataset.size) < _LARGE or not any(isinstance(s.samples, Encoded) for s in dataset.splits.values()):
        # What is small or in memory leaves nearly all to Python, where threads take twice as long as none.
        parts = list(map(look, _cut_spans(dataset)))
    else:
        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(look, _cut_spans(dataset)))
    offsets = np.cumsum([0, *(len(part.keys) for part in parts)]).tolist()
    return DatasetStats(
        reasons={
            offset + index: reason
            for offset, part in zip(offsets, parts, strict=False)
            for index, reason in part.reasons.items()
        },
        sizes=np.concatenate([part.sizes for part in parts]),
        color=np.concatenate([part.color for part in parts]),
        constant=np.concatenate([part.constant for part in parts]),
        values=sum(part.values for part in parts),
        missing=sum(part.missing for part in parts),
        keys=np.concatenate([part.keys for part in parts]),
        thumbnails=np.concatenate([part.thumbnails for part in parts]),
    )


def find_near(
    dataset: Dataset, found: DatasetStats
) -> tuple[Int64[np.ndarray, "pairs 2"], Float64[np.ndarray, " pairs"]]:
    """Return the positions of nearly equal samples in pairs, and the distances of images in 0..1, of others 0.

    Images are compared as `falconet.data.duplicates` says, texts without case, punctuation and spaces, series without
    offset and scale. Of equal samples only the first is looked at; samples in which nothing changes are all alike and
    left out. Which contents are paired does not depend on the order of the samples.
    """
    hashes = np.concatenate([split.hashes for split in dataset.splits.values()])
    wanted = np.flatnonzero(found.readable & ~found.constant)
    wanted = wanted[np.unique(hashes[wanted], return_index=True)[1]]
    pairs, distances = SURVEYORS[dataset.kind].pair(found, wanted)
    return np.sort(wanted[pairs], axis=1), distances


def find_unreadable(dataset: Dataset) -> tuple[Unreadable, ...]:
    """Decode every sample and return those that fail, without those that were skipped when the source was read."""
    return list_unreadable(dataset, survey(dataset))


def list_unreadable(dataset: Dataset, found: DatasetStats) -> tuple[Unreadable, ...]:
    places = list_places(dataset)
    return tuple(Unreadable(to_name(dataset, places[index]), reason) for index, reason in found.reasons.items())


def list_places(dataset: Dataset) -> list[SamplePosition]:
    """Return where each sample of a survey stands."""
    return [(name, index) for name, split in dataset.splits.items() for index in range(len(split))]


def to_name(dataset: Dataset, place: SamplePosition) -> str:
    split, index = place
    return to_text(dataset.splits[split].samples.name(index))


def _cut_spans(dataset: Dataset) -> Iterator[tuple[Samples, range]]:
    """Yield all samples as SPAN or fewer at a time."""
    for split in dataset.splits.values():
        for start in range(0, len(split), SPAN):
            yield split.samples, range(start, min(start + SPAN, len(split)))


def _survey_span(samples: Samples, span: range, kind: ModalityName) -> DatasetStats:
    """Decode some samples, one after the other, so that a worker holds no more than one."""
    surveyor = SURVEYORS[kind]
    facts, reasons = [], {}
    for position, index in enumerate(span):
        try:
            facts.append(surveyor.measure(samples.read(index)))
        except DataError as error:
            # The reader names the whole path, the report the sample.
            reasons[position] = str(error).rpartition(f"{samples.name(index)}: ")[2]
            facts.append(SampleStats())
    keys, thumbnails = surveyor.condense(facts)
    return DatasetStats(
        reasons,
        sizes=np.array([fact.size for fact in facts], dtype=np.int64),
        color=np.array([fact.color for fact in facts]),
        constant=np.array([fact.constant for fact in facts]),
        values=sum(fact.values for fact in facts),
        missing=sum(fact.missing for fact in facts),
        keys=keys,
        thumbnails=thumbnails,
    )


def _measure_image(image: UInt[np.ndarray, "height width channels"]) -> SampleStats:
    """Return the facts of an image; its hash is computed later, together with others."""
    height, width, channels = image.shape
    copy = shrink(image)
    # Where the copy varies, the image does; a large image is then not compared pixel by pixel.
    constant = height * width > 1 and bool((copy == copy[0, 0]).all()) and bool((image == image[0, 0]).all())
    return SampleStats((height, width), channels == 3, constant, copy=copy)


def _measure_series(series: Float32[np.ndarray, "channels steps"]) -> SampleStats:
    """Return the facts of a series up to its last step that is there."""
    series = series[:, : int(count_steps(series))]
    missing = np.isnan(series)
    first = np.take_along_axis(series, missing.argmin(axis=1)[:, None], axis=1) if series.size else series
    constant = series.shape[1] != 1 and bool((missing | (series == first)).all())
    return SampleStats((1, series.shape[1]), False, constant, series.size, int(missing.sum()), hash_series(series))


def _measure_text(text: str) -> SampleStats:
    """Return the facts of a text."""
    marks = text.split()
    constant = not marks or (len(text) > 1 and len(set("".join(marks))) == 1)
    return SampleStats((1, len(text)), False, constant, key=hash_text(text))


def _condense_copies(
    facts: Sequence[SampleStats],
) -> tuple[UInt64[np.ndarray, " samples"], UInt8[np.ndarray, "_ _ _ 3"]]:
    """Return hashes and thumbnails of images, black ones for those that cannot be read."""
    blank = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    copies = np.array([blank if fact.copy is None else fact.copy for fact in facts], dtype=np.uint8)
    return hash_copies(copies), make_thumbnails(copies)


def _list_keys(facts: Sequence[SampleStats]) -> tuple[UInt64[np.ndarray, " samples"], UInt8[np.ndarray, "0 _ _ 3"]]:
    """Return keys, and no thumbnails."""
    keys = np.array([fact.key for fact in facts], dtype=np.uint64)
    return keys, make_thumbnails(np.zeros((0, SIDE, SIDE, 3), dtype=np.uint8))


def _pair_alike(
    found: DatasetStats, wanted: Int64[np.ndarray, " some"]
) -> tuple[Int64[np.ndarray, "pairs 2"], Float64[np.ndarray, " pairs"]]:
    """Return pairs of images that look the same, and how far they are from each other."""
    return find_alike(found.keys[wanted], found.thumbnails[wanted])


def _pair_equal(
    found: DatasetStats, wanted: Int64[np.ndarray, " some"]
) -> tuple[Int64[np.ndarray, "pairs 2"], Float64[np.ndarray, " pairs"]]:
    """Return pairs of samples of equal keys, at no distance."""
    pairs = find_equal(found.keys[wanted])
    return pairs, np.zeros(len(pairs))


@dataclass(frozen=True)
class StatsAdapter:
    """How samples of one modality are measured, and how nearly equal ones are found."""

    measure: Callable[[Any], SampleStats]
    """Computes the statistics of a sample."""
    condense: Callable[[Sequence[SampleStats]], tuple[np.ndarray, np.ndarray]]
    """Returns the keys and thumbnails of samples from their statistics."""
    pair: Callable[[DatasetStats, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """Returns pairs of nearly equal samples among some positions, as indices into these, and their distances."""
    has_distances: bool
    """Whether pairs have distances; else all distances are 0."""


SURVEYORS: Mapping[ModalityName, StatsAdapter] = MappingProxyType(
    {
        "image": StatsAdapter(_measure_image, _condense_copies, _pair_alike, has_distances=True),
        "series": StatsAdapter(_measure_series, _list_keys, _pair_equal, has_distances=False),
        "text": StatsAdapter(_measure_text, _list_keys, _pair_equal, has_distances=False),
    }
)
