"""Splits that a source lacks: stratified, made from content, whatever the order and names of the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from falconet.data.dataset import SPLIT_NAMES, Dataset, Split, concatenate, describe_skipped
from falconet.data.duplicates import find_roots
from falconet.data.families import DuplicateClusters, find_duplicate_clusters
from falconet.data.images import PIXEL_LIMIT
from falconet.errors import ConfigError, DataError
from falconet.schema import SPARSE, check_fields
from falconet.spec import ModalityName, check_value_range
from falconet.tables import MAX_BYTES


@dataclass(frozen=True)
class Columns:
    """The column of each role in a table; None: guessed from names and content."""

    label: str | None = None
    """Column of the label."""

    path: str | None = None
    """Column of an image file's path, relative to the table's folder."""

    text: str | None = None

    split: str | None = None
    """Column of the split: `train`, `val` or `test`."""

    group: str | None = None
    """Column of the group that splits keep together, such as a person, a device or a page. Never guessed."""

    series: str | None = None
    """Column of the series that a row of a long table belongs to."""

    time: str | None = None
    """Column that orders a long table's rows within a series."""

    def __post_init__(self) -> None:
        check_fields(self)
        chosen = [value for entry in fields(self) if (value := getattr(self, entry.name)) is not None]
        if len(set(chosen)) != len(chosen):
            raise ConfigError(f"columns: wanted a column of its own for each role, found {', '.join(chosen)}")


Nearness = Literal["together", "apart"]
"""How near duplicates are placed where splits are made: all in one split, or each by itself."""


@dataclass(frozen=True)
class DataConfig:
    """How a source is read and split."""

    kind: ModalityName | None = None
    """Kind of the samples, where the source leaves room for doubt; None: guessed."""

    columns: Columns = field(default_factory=Columns)
    """Roles of a table's columns."""

    extra: tuple[str, ...] = ()
    """Further columns of a table that are kept beside the samples, such as those that metrics are sliced by."""

    header: bool | None = None
    """Whether the first row of a CSV or similar table is a header; None: guessed from the rows."""

    max_bytes: int = MAX_BYTES
    """Most bytes in memory of one file of arrays or one table: a small compressed file can hold a great deal."""

    follow: bool = False
    """Whether to read files outside the source's folder that links, `..` or absolute paths lead to."""

    max_pixels: int = PIXEL_LIMIT
    """Most pixels of an image, up to 80,000,000; larger images are skipped and listed."""

    split_seed: int = 0
    """Seed that chooses the samples of missing splits; independent of the seed of a training run."""

    val_fraction: float = 0.1
    """Fraction of each class's training samples for validation, where the source has no validation split."""

    test_fraction: float = 0.2
    """Fraction of each class's training samples for testing, where the source has no test split."""

    near_duplicates: Nearness = "together"
    """Whether nearly equal samples stay on one side of splits that are made, as equal ones do.

    `apart`: each is placed by itself and none is looked for, as in earlier versions.
    """

    value_range: tuple[float, float] | None = field(default=None, metadata={SPARSE: True})
    """Black and white of images with more than 8 bits per value; None: chosen from the training samples."""

    strict: bool = False
    """Whether to refuse a source with unreadable files instead of skipping and listing them."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.max_pixels <= PIXEL_LIMIT:
            raise ConfigError(f"max_pixels: wanted 1 to {PIXEL_LIMIT}, found {self.max_pixels}")
        check_value_range(self.value_range)
        if not 0 <= self.split_seed < 2**31:
            raise ConfigError(f"split_seed: wanted 0 to 2147483647, found {self.split_seed}")
        if self.max_bytes < 1:
            raise ConfigError(f"max_bytes: wanted 1 or more, found {self.max_bytes}")
        for name, value in (("val_fraction", self.val_fraction), ("test_fraction", self.test_fraction)):
            if not 0 < value < 0.5:
                raise ConfigError(f"{name}: wanted a fraction above 0 and below 0.5, found {value}")


def complete_splits(dataset: Dataset, config: DataConfig, families: DuplicateClusters | None = None) -> Dataset:
    """Return the data set with train, val and test, the missing ones carved out of train.

    A sample's place follows from the contents of the source and `config.split_seed` alone; equal samples stay together,
    whatever their labels, and so do nearly equal ones unless `config.near_duplicates` says otherwise (`families`: which
    ones, where that is known already). Where the samples belong to groups, whole groups are placed, by their names
    instead of their content. A class keeps at least one training sample, so that one with fewer than three samples, or
    families of them, may be missing elsewhere. Raises DataError where there is no training split, or a class has no
    training samples, or where the source's own splits tear a group apart.
    """
    if "train" not in dataset.splits:
        raise DataError(f"{dataset.source}: no training split; found {', '.join(dataset.splits)}")
    rest = dataset.splits["train"]
    check_training_classes(dataset, rest)
    _check_groups_apart(dataset)
    made: dict[str, Split] = {}
    missing = {name: fraction for name, fraction in _list_fractions(config).items() if name not in dataset.splits}
    names = None
    if missing and config.near_duplicates == "together":
        names = (families or find_duplicate_clusters(dataset)).name(rest.hashes)
    for place, (name, wanted) in enumerate(missing.items()):
        # At most all: a large group of equal samples in the test split may leave less than the fraction of the whole.
        fraction = min(wanted * len(dataset.splits["train"]) / len(rest), 1.0)
        chosen = _choose(rest, names, fraction, config.split_seed, len(missing) - place)
        made[name], rest = rest.take(np.flatnonzero(chosen)), rest.take(np.flatnonzero(~chosen))
        names = None if names is None else names[~chosen]
    parts: Mapping[str, Split] = {**dataset.splits, **made, "train": rest}
    ordered = {name: parts[name] for name in SPLIT_NAMES}
    if not made:  # One that was completed before stays what it is.
        return replace(dataset, splits=ordered)
    return replace(dataset, splits=ordered, made_splits=frozenset(made), split_seed=config.split_seed)


def describe_small_splits(dataset: Dataset, config: DataConfig) -> list[str]:
    """Say which splits that were made have less than half of their samples, as near duplicates stay together.

    Nothing is said of samples in groups, which stay together first of all.
    """
    if any(split.groups is not None for split in dataset.splits.values()):
        return []
    # Those that a source has itself give nothing to the others.
    count = sum(len(dataset.splits[name]) for name in {"train", *dataset.made_splits})
    wanted = {name: round(fraction * count) for name, fraction in _list_fractions(config).items()}
    return [
        f"{name} has {len(dataset.splits[name]):,} samples instead of about {wanted[name]:,}: near duplicates stay on "
        "one side of a split (near_duplicates=apart in the settings of data places each by itself)"
        for name in wanted
        if name in dataset.made_splits and 2 * len(dataset.splits[name]) < wanted[name]
    ]


def undo_splits(dataset: Dataset) -> Dataset:
    """Return a data set with no other splits than the source's own."""
    if not dataset.made_splits:
        return dataset
    train = concatenate([dataset.splits[name] for name in ("train", *sorted(dataset.made_splits))])
    own = {name: split for name, split in dataset.splits.items() if name not in dataset.made_splits}
    return replace(dataset, splits={**own, "train": train}, made_splits=frozenset(), split_seed=None)


def _list_fractions(config: DataConfig) -> dict[str, float]:
    """Return the fractions of the splits that may be made, in the order in which they are."""
    return {"test": config.test_fraction, "val": config.val_fraction}


def check_training_classes(dataset: Dataset, train: Split) -> None:
    counts = np.bincount(train.labels, minlength=len(dataset.classes))
    missing = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 0]
    if missing:
        skipped = describe_skipped(dataset.unreadable)
        found = [
            f"{name}: {dataset.empty_class_contents[name]}" for name in missing if name in dataset.empty_class_contents
        ]
        instead = f"; found in the folder of {'; of '.join(found)}" if found else ""
        raise DataError(
            f"{dataset.source}: no training samples of class {', '.join(missing)}{skipped}{instead}; add some, "
            "or remove the class everywhere"
        )


def _check_groups_apart(dataset: Dataset) -> None:
    """Raise DataError where samples of one group stand in more than one of a source's own splits."""
    grouped = {name: split.groups for name, split in dataset.splits.items() if split.groups is not None}
    members = [np.unique(groups[groups != 0]) for groups in grouped.values()]
    if len(members) < 2:
        return
    names, counts = np.unique(np.concatenate(members), return_counts=True)
    torn = names[counts > 1]
    if len(torn):
        split, groups = next((name, groups) for name, groups in grouped.items() if (groups == torn[0]).any())
        sample = dataset.splits[split].samples.name(int(np.flatnonzero(groups == torn[0])[0]))
        raise DataError(
            f"{dataset.source}: wanted each group in one split, but {len(torn)} of {len(names)} stand in several of "
            f"the source's own, such as that of {sample} ({split}): mend its splits, or leave out --groups"
        )


def _choose(
    split: Split, families: UInt64[np.ndarray, " samples"] | None, fraction: float, seed: int, left: int
) -> Bool[np.ndarray, " samples"]:
    """Mark a `fraction` of a split: of each class, or of groups so that each class comes close.

    `families` are the names of what stays together besides; None: only equal samples do. `left` families of each class
    stay behind where it has more, for training and for splits that are yet to be made.
    """
    groups = split.group_names
    if families is None:
        if groups is None:
            return _choose_stratified(split.hashes, split.labels, fraction, seed)
        return choose_groups(groups, split.labels, fraction, seed)
    if groups is None:
        return choose_families(families, split.labels, fraction, seed, left)
    return choose_groups(_unite(groups, families), split.labels, fraction, seed)


def _unite(
    names: UInt64[np.ndarray, " samples"], others: UInt64[np.ndarray, " samples"]
) -> UInt64[np.ndarray, " samples"]:
    """Return a name for each sample that it shares with all that either name connects it with, over others or directly.

    It is the lowest of `names` that are brought together so, whatever the order of the samples.
    """
    values, members = np.unique(names, return_inverse=True)
    order = np.argsort(others, kind="stable")
    same = others[order[1:]] == others[order[:-1]]
    pairs = np.stack([members[order[:-1]][same], members[order[1:]][same]], axis=1)
    united: UInt64[np.ndarray, " samples"] = values[find_roots(pairs, len(values))][members]
    return united


def choose_families(
    families: UInt64[np.ndarray, " samples"],
    labels: Int64[np.ndarray, " samples"],
    fraction: float,
    seed: int,
    left: int = 1,
) -> Bool[np.ndarray, " samples"]:
    """Mark whole families that hold about a `fraction` of each class, at least one where a class has two.

    Families of a class are tried in the order of their mixed names; one is taken where that brings the class's count
    nearer to what is wanted, until `left` of them are left. Where all are too large, the smallest is taken. Families of
    one sample each are taken as `_choose_stratified` takes them. One of several classes counts for the first of these;
    the others then get one of theirs where that leaves something of each class behind.
    """
    names, members = np.unique(families, return_inverse=True)
    sizes = np.bincount(members)
    strata = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(strata, members, labels)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[np.argsort(hash_with_seed(names, seed), kind="stable")] = np.arange(len(names))
    order = np.lexsort((ranks, strata))
    chosen = np.zeros(len(names), dtype=bool)
    for stratum in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        chosen[_take_fraction(stratum, sizes[stratum], fraction, left)] = True
    _mend_classes(chosen, np.unique(np.stack([labels, members], axis=1), axis=0), np.lexsort((ranks, sizes)))
    marked: Bool[np.ndarray, " samples"] = chosen[members]
    return marked


def _take_fraction(
    families: Int64[np.ndarray, " families"], sizes: Int64[np.ndarray, " families"], fraction: float, left: int
) -> list[int]:
    """Return the families of one class that are taken, of these in the order in which they are tried."""
    several = len(families) >= 2
    wanted, most = max(round(fraction * int(sizes.sum())), int(several)), max(len(families) - left, int(several))
    taken: list[int] = []
    count = 0
    for family, size in zip(families.tolist(), sizes.tolist(), strict=True):
        if len(taken) < most and abs(count + size - wanted) < abs(count - wanted):
            taken.append(family)
            count += size
    return taken if taken or not several else [int(families[sizes.argmin()])]


def _mend_classes(
    chosen: Bool[np.ndarray, " families"],
    present: Int64[np.ndarray, "entries 2"],
    order: Int64[np.ndarray, " families"],
) -> None:
    """Let each class have a chosen family where it can, and one that is left in any case; changes `chosen`.

    `present` are the classes with the families that have samples of them; `order` says which families are tried first.
    """
    classes, families = present.T
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    total = np.bincount(classes)

    def count(marked: Bool[np.ndarray, " families"]) -> Int64[np.ndarray, " classes"]:
        return np.bincount(classes[marked[families]], minlength=len(total))

    for label in np.flatnonzero((count(chosen) == 0) & (total >= 2)):
        own = families[classes == label]
        for family in own[np.argsort(places[own])]:
            if (count(~chosen)[classes[families == family]] >= 2).all():
                chosen[family] = True
                break
    for label in np.flatnonzero((count(~chosen) == 0) & (total > 0)):
        own = families[classes == label]
        chosen[own[places[own].argmin()]] = False


def _choose_stratified(
    hashes: UInt64[np.ndarray, " samples"], labels: Int64[np.ndarray, " samples"], fraction: float, seed: int
) -> Bool[np.ndarray, " samples"]:
    """Mark a `fraction` of each class: the samples whose mixed hash is lowest, at least one where a class has two.

    Equal samples of several classes count as samples of the first of these, so that they fall on one side.
    """
    order = hash_with_seed(hashes, seed)
    strata = _unite_equal(hashes, labels)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(strata):
        members = np.flatnonzero(strata == label)
        ranks = order[members]
        count = max(round(fraction * len(members)), 1 if len(members) >= 2 else 0)
        if count:
            # A threshold, not a count, so that equal samples fall on one side.
            threshold = np.sort(ranks)[count - 1]
            below = ranks <= threshold
            # Something must stay behind: at the least, the equal samples that rank highest.
            chosen[members] = ranks < threshold if below.all() else below
    for label in np.setdiff1d(labels, labels[~chosen]):
        # All samples of this class are chosen with equal ones of others: those that rank highest stay behind.
        chosen[order == order[labels == label].max()] = False
    return chosen


def _unite_equal(
    hashes: UInt64[np.ndarray, " samples"], labels: Int64[np.ndarray, " samples"]
) -> Int64[np.ndarray, " samples"]:
    """Return labels, equal samples of several classes having the lowest of theirs."""
    _, contents = np.unique(hashes, return_inverse=True)
    lowest = np.full(contents.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, contents, labels)
    united: Int64[np.ndarray, " samples"] = lowest[contents]
    return united


def choose_groups(
    groups: UInt64[np.ndarray, " samples"], labels: Int64[np.ndarray, " samples"], fraction: float, seed: int
) -> Bool[np.ndarray, " samples"]:
    """Mark whole groups that hold about a `fraction` of each class, and at least one group where that is possible.

    Groups are tried in the order of their mixed hash; one is taken where that brings the counts of the classes nearer
    to what is wanted (in squared distance) and leaves at least one sample of each class behind.
    """
    names, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (members, labels), 1)
    total = counts.sum(axis=0)
    taken, chosen = np.zeros_like(total), np.zeros(len(names), dtype=bool)
    for index in np.argsort(hash_with_seed(names, seed), kind="stable"):
        after = taken + counts[index]
        if _leaves_some(after, total) and distance(after, total, fraction) < distance(taken, total, fraction):
            taken, chosen[index] = after, True
    if not chosen.any():
        # Few large groups: the one that overshoots least.
        possible = [index for index in range(len(names)) if _leaves_some(counts[index], total)]
        chosen[sorted(possible, key=lambda index: distance(counts[index], total, fraction))[:1]] = True
    marked: Bool[np.ndarray, " samples"] = chosen[members]
    return marked


def _leaves_some(taken: Int64[np.ndarray, " classes"], total: Int64[np.ndarray, " classes"]) -> bool:
    """Whether a sample of each class that occurs is left."""
    return bool((taken < total)[total > 0].all())


def distance(taken: Int64[np.ndarray, " classes"], total: Int64[np.ndarray, " classes"], fraction: float) -> float:
    """Return the squared distance of what is taken of each class to a fraction of it."""
    return float(np.square(taken - fraction * total).sum())


def hash_with_seed(hashes: UInt64[np.ndarray, " samples"], seed: int) -> UInt64[np.ndarray, " samples"]:
    """Return well-mixed 64-bit values of hashes and a seed (SplitMix64; Steele, Lea, Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = hashes + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unite_split(split: Split) -> UInt64[np.ndarray, " samples"]:
    """Return a name for each sample that it shares with those of its group, with equal ones, with the groups of these.

    The name is the lowest of the groups that are brought together so; whatever the order of the samples.
    """
    assert split.group_names is not None
    return _unite(split.group_names, split.hashes)


def assign_group_folds(
    groups: UInt64[np.ndarray, " samples"], labels: Int64[np.ndarray, " samples"], count: int
) -> Int64[np.ndarray, " samples"]:
    """Return `count` folds of whole groups: the largest first, each to the fold that has least of its classes.

    There may be few groups; drawn by chance, they would leave folds empty.
    """
    names, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max(initial=0)) + 1), dtype=np.int64)
    np.add.at(counts, (members, labels), 1)
    dealt, folds = np.zeros((count, counts.shape[1]), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    for group in np.lexsort((hash_with_seed(names, seed=0), -counts.sum(axis=1))):
        fold = np.lexsort((dealt.sum(axis=1), dealt @ counts[group]))[0]
        dealt[fold] += counts[group]
        folds[group] = fold
    chosen: Int64[np.ndarray, " samples"] = folds[members]
    return chosen


def fold_dataset(dataset: Dataset, count: int) -> tuple[Dataset, ...]:
    """Return a data set for each of `count` folds: the fold as validation split, all other samples as training split.

    Folds are parts of training and validation samples together, with as many of each class as can be; what belongs
    together, equal samples and groups, shares one. The test split stays as it is. Raises DataError where a class has
    too few different samples to be in training every time.
    """
    pool = concatenate([dataset.splits[name] for name in ("train", "val")])
    names = unite_split(pool) if pool.group_names is not None else pool.hashes
    folds = assign_group_folds(names, pool.labels, count)
    parts = []
    for number in range(count):
        held_out = folds == number
        train, val = pool.take(np.flatnonzero(~held_out)), pool.take(np.flatnonzero(held_out))
        missing = np.setdiff1d(pool.labels, train.labels)
        if len(missing) or not len(val):
            what = f"of class {dataset.classes[missing[0]]}" if len(missing) else "in all"
            raise DataError(
                f"{dataset.source}: wanted enough different samples or groups {what} for {count} folds, found too few; "
                "name fewer --folds"
            )
        parts.append(replace(dataset, splits={**dataset.splits, "train": train, "val": val}))
    return tuple(parts)
