from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data import Columns, DataConfig, Dataset, ImageArray, Split
from falconet.data.dataset import hash_arrays
from falconet.data.families import DuplicateClusters
from falconet.data.splits import (
    _choose_stratified,
    _unite,
    choose_families,
    choose_groups,
    complete_splits,
    hash_with_seed,
)
from falconet.errors import ConfigError, DataError
from tests.data.builders import make_dataset, make_split

quick = settings(deadline=None, max_examples=30)
sizes = st.lists(st.integers(1, 30), min_size=2, max_size=4)
configs = st.sampled_from(
    # Made beforehand: what checks types draws random numbers, which hypothesis does not want within a strategy.
    [
        DataConfig(split_seed=seed, val_fraction=val, test_fraction=test)
        for seed in (0, 1, 7, 2**31 - 1)
        for val in (0.01, 0.1, 1 / 3, 0.49)
        for test in (0.01, 0.2, 0.37, 0.49)
    ]
)


def of_sizes(counts: list[int]) -> Split:
    """Samples that all differ: so many of class 0, of class 1, ..."""
    return make_split([label for label, count in enumerate(counts) for _ in range(count)])


def complete(dataset: Dataset, config: DataConfig) -> Dataset:
    """Complete the splits of images of noise, of which none nearly equals another: no need to look."""
    hashes = np.unique(np.concatenate([split.hashes for split in dataset.splits.values()]))
    return complete_splits(dataset, config, DuplicateClusters(hashes, np.empty((0, 2), dtype=np.int64)))


def contents(dataset: Dataset) -> dict[str, list[int]]:
    return {name: sorted(split.hashes.tolist()) for name, split in dataset.splits.items()}


@quick
@given(counts=sizes, config=configs)
def test_splits_are_disjoint_and_cover_everything(counts: list[int], config: DataConfig) -> None:
    split = of_sizes(counts)
    dataset = complete(make_dataset(train=split), config)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert dataset.made_splits == {"val", "test"}
    assert sorted(chain(*contents(dataset).values())) == sorted(split.hashes.tolist())
    label_of = dict(zip(split.hashes.tolist(), split.labels.tolist(), strict=True))
    for part in dataset.splits.values():
        assert [label_of[value] for value in part.hashes.tolist()] == part.labels.tolist()


@quick
@given(counts=sizes, config=configs)
def test_every_class_has_its_share(counts: list[int], config: DataConfig) -> None:
    dataset = complete(make_dataset(train=of_sizes(counts)), config)
    for label, count in enumerate(counts):
        found = {name: int((split.labels == label).sum()) for name, split in dataset.splits.items()}
        assert found["train"] >= 1
        if count >= 3:
            assert min(found.values()) >= 1
        assert abs(found["test"] - config.test_fraction * count) <= 1
        # What remains after the test samples is not exactly the share that remains overall: one sample more of slack.
        assert abs(found["val"] - config.val_fraction * count) <= 2 + 0.05 * count


def test_large_classes_have_the_share_asked() -> None:
    dataset = complete(make_dataset(train=of_sizes([100, 200])), DataConfig())
    found = {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()}
    assert found == {"train": [70, 140], "val": [10, 20], "test": [20, 40]}


@quick
@given(data=st.data(), counts=sizes, config=configs)
def test_splits_do_not_see_order(data: st.DataObject, counts: list[int], config: DataConfig) -> None:
    split = of_sizes(counts)
    order = data.draw(st.permutations(range(len(split))))
    shuffled = split.take(np.array(order))
    first, second = (complete(make_dataset(train=samples), config) for samples in (split, shuffled))
    assert contents(first) == contents(second)


@quick
@given(labels=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=4, max_size=60), config=configs)
def test_equal_samples_of_a_class_stay_together(labels: list[tuple[int, int]], config: DataConfig) -> None:
    rows = [(0, 0), (1, 1), *labels]
    split = make_split([label for label, _ in rows], content=[10 * label + number for label, number in rows])
    dataset = complete(make_dataset(train=split), config)
    parts = {name: set(part.hashes.tolist()) for name, part in dataset.splits.items()}
    assert not parts["train"] & parts["val"]
    assert not parts["train"] & parts["test"]
    assert not parts["val"] & parts["test"]
    assert set(dataset.splits["train"].labels.tolist()) == {0, 1}


@quick
@given(labels=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=60), config=configs)
def test_equal_samples_stay_together_whatever_their_labels(labels: list[tuple[int, int]], config: DataConfig) -> None:
    # Class 2 has no sample but those that are equal to some of the others.
    rows = [(0, 0), (1, 1), (2, 0), (2, 1), *labels]
    split = make_split([label for label, _ in rows], content=[number for _, number in rows])
    dataset = complete(make_dataset(train=split), config)
    parts = [set(part.hashes.tolist()) for part in dataset.splits.values()]
    assert sum(map(len, parts)) == len(set(split.hashes.tolist()))
    assert sorted(chain(*contents(dataset).values())) == sorted(split.hashes.tolist())
    assert set(dataset.splits["train"].labels.tolist()) == {0, 1, 2}


def test_many_contradicting_labels_leave_shares_as_asked() -> None:
    # Each content stands in both classes: a fifth of them is tested, both samples of each.
    split = make_split([0] * 100 + [1] * 100, content=[*range(100), *range(100)])
    dataset = complete(make_dataset(train=split), DataConfig())
    found = {name: np.bincount(part.labels, minlength=2).tolist() for name, part in dataset.splits.items()}
    assert found == {"train": [70, 70], "val": [10, 10], "test": [20, 20]}


def test_splits_without_near_duplicates_are_those_of_earlier_versions() -> None:
    # Models of before keep the seed alone: with it, later versions must find the same samples again.
    content = [0, 0, 0, *range(1, 10), *range(20, 27), 27, 27, 31, 32, 33]
    images = np.zeros((len(content), 4, 4, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = content
    names = np.array([f"made[{index}]" for index in range(len(content))])
    split = Split(ImageArray(images, names), np.repeat([0, 1, 2], [12, 9, 3]), hash_arrays(images))
    last = {key: index for index, key in enumerate(split.hashes.tolist())}
    found = {
        seed: {
            name: [last[key] for key in part.hashes.tolist()]
            for name, part in complete_splits(
                make_dataset(train=split), DataConfig(split_seed=seed, near_duplicates="apart")
            ).splits.items()
            if name != "train"
        }
        for seed in (0, 3)
    }
    assert found == {
        0: {"val": [10, 17, 23], "test": [6, 9, 14, 18, 21]},
        3: {"val": [7, 12, 21], "test": [9, 11, 14, 17, 23]},
    }


def test_a_large_group_of_equal_samples_leaves_room_for_the_others() -> None:
    # Of six equal samples and two others, whatever their order, test and training both have something.
    for seed in range(20):
        split = make_split([0] * 8 + [1] * 8, content=[1, 2, *[3] * 6, *range(10, 18)])
        dataset = complete(make_dataset(train=split), DataConfig(split_seed=seed, test_fraction=0.3))
        assert set(dataset.splits["test"].labels.tolist()) == {0, 1}


def test_a_large_group_of_equal_samples_in_the_test_split_leaves_room_for_training() -> None:
    split = make_split([0, 1, *[0] * 6], content=[0, 11, *[0] * 5, 1])
    config = DataConfig(split_seed=1, val_fraction=0.375, test_fraction=0.25, near_duplicates="apart")
    dataset = complete(make_dataset(train=split), config)
    assert {name: len(part) for name, part in dataset.splits.items()} == {"train": 2, "val": 0, "test": 6}


def test_large_fractions_leave_samples_for_validation_and_training() -> None:
    config = DataConfig(val_fraction=0.49, test_fraction=0.49)
    dataset = complete(make_dataset(train=of_sizes([10, 10])), config)
    found = {name: np.bincount(split.labels, minlength=2).tolist() for name, split in dataset.splits.items()}
    assert found == {"train": [1, 1], "val": [4, 4], "test": [5, 5]}


@quick
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=80), share=st.floats(0.01, 0.49), seed=st.integers(0, 99)
)
def test_samples_without_duplicates_are_placed_as_in_earlier_versions(
    labels: list[int], share: float, seed: int
) -> None:
    split = make_split(labels)
    before = _choose_stratified(split.hashes, split.labels, share, seed)
    assert choose_families(split.hashes, split.labels, share, seed, left=2).tolist() == before.tolist()


@quick
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=12), min_size=1, max_size=4),
    share=st.floats(0.01, 0.49),
    seed=st.integers(0, 99),
    left=st.sampled_from([1, 2]),
)
def test_whole_families_are_chosen_near_the_share_of_each_class(
    sizes: list[list[int]], share: float, seed: int, left: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), [sum(counts) for counts in sizes])
    families = np.repeat(np.arange(sum(map(len, sizes)), dtype=np.uint64), [n for counts in sizes for n in counts])
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.empty(len(labels), dtype=bool)
    chosen[order] = choose_families(families[order], labels[order], share, seed, left)
    assert chosen.tolist() == choose_families(families, labels, share, seed, left).tolist()
    assert not set(families[chosen].tolist()) & set(families[~chosen].tolist())
    for label, counts in enumerate(sizes):
        taken, own = int(chosen[labels == label].sum()), np.unique(families[(labels == label) & ~chosen])
        assert (taken > 0) == (len(counts) >= 2)
        assert len(own) >= min(left, max(len(counts) - 1, 1))
        # One that is half too large is not taken, unless all are; too few are left where they run out.
        assert taken <= max(share * sum(counts) + max(counts) / 2 + 0.5, min(counts))


def test_a_large_family_stays_in_training_where_others_can_be_tested() -> None:
    families = np.array([7] * 60 + list(range(100, 140)), dtype=np.uint64)
    for seed in range(20):
        chosen = choose_families(families, np.zeros(100, dtype=np.int64), 0.2, seed)
        assert chosen.sum() == 20
        assert not chosen[:60].any()


def test_a_class_whose_samples_all_have_near_duplicates_in_others_is_tested_too() -> None:
    # Class 1 has three samples, each nearly equal to one of class 0.
    families = np.array([1, 2, 3, *range(10, 40), 1, 2, 3], dtype=np.uint64)
    labels = np.array([0] * 33 + [1] * 3)
    for seed in range(20):
        chosen = choose_families(families, labels, 0.1, seed, left=2)
        assert chosen[33:].any()
        assert not chosen[33:].all()
        assert not set(families[chosen].tolist()) & set(families[~chosen].tolist())


def test_groups_and_families_are_brought_together() -> None:
    # 1 and 2 by family 20, 2 and 3 by family 30; 4 by itself.
    groups = np.array([1, 2, 2, 3, 4], dtype=np.uint64)
    families = np.array([20, 20, 30, 30, 40], dtype=np.uint64)
    assert _unite(groups, families).tolist() == [1, 1, 1, 1, 4]
    assert _unite(groups[::-1].copy(), families[::-1].copy()).tolist() == [4, 1, 1, 1, 1]


def test_another_seed_makes_other_splits() -> None:
    split = of_sizes([50, 50])
    made = [contents(complete(make_dataset(train=split), DataConfig(split_seed=seed))) for seed in (0, 0, 1, 2)]
    assert made[0] == made[1]
    assert len({tuple(parts["test"]) for parts in made}) == 3
    assert len({tuple(parts["val"]) for parts in made}) == 3


def test_new_samples_move_few_old_ones() -> None:
    before, after = (complete(make_dataset(train=of_sizes([count, 5])), DataConfig()) for count in (100, 105))
    kept = set(contents(before)["test"]) & set(contents(after)["test"])
    assert len(kept) >= 15


@pytest.mark.parametrize("given", [("val",), ("test",), ("val", "test")])
def test_splits_that_are_there_stay_as_they_are(given: tuple[str, ...]) -> None:
    own = {name: make_split([0, 1, 1], content=[900 + len(name), 901 + len(name), 902 + len(name)]) for name in given}
    dataset = complete(make_dataset(train=of_sizes([20, 20]), **own), DataConfig(split_seed=3))
    assert all(dataset.splits[name] is own[name] for name in given)
    assert dataset.made_splits == {"val", "test"} - set(given)
    assert dataset.split_seed == (3 if dataset.made_splits else None)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert len(dataset.splits["train"]) == 40 - sum(len(dataset.splits[name]) for name in dataset.made_splits)


@pytest.mark.parametrize(("count", "expected"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (4, [2, 1, 1])])
def test_three_samples_of_a_class_are_enough_for_all_splits(count: int, expected: list[int]) -> None:
    dataset = complete(make_dataset(train=of_sizes([count, 40])), DataConfig())
    assert [int((split.labels == 0).sum()) for split in dataset.splits.values()] == expected


def test_a_class_without_training_samples_is_named() -> None:
    with pytest.raises(DataError, match="made: no training samples of class b; add some, or remove the class"):
        complete(make_dataset(train=make_split([0, 2]), test=make_split([1])), DataConfig())


@quick
@given(st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=2, max_size=50), st.integers(0, 2**31 - 1))
def test_mixing_keeps_different_hashes_different(values: list[int], seed: int) -> None:
    mixed = hash_with_seed(np.array(values, dtype=np.uint64), seed)
    assert len(set(mixed.tolist())) == len(values)


def test_mixing_is_splitmix64() -> None:
    # The first outputs of the reference generator, started at 1234567 (Vigna, prng.di.unimi.it/splitmix64.c).
    found = [int(hash_with_seed(np.array([1234567], dtype=np.uint64), step)[0]) for step in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_mixing_spreads_small_hashes_evenly() -> None:
    chosen = _choose_stratified(np.arange(2000, dtype=np.uint64), np.zeros(2000, dtype=np.int64), 0.25, seed=0)
    assert chosen.sum() == 500
    counts = Counter((np.flatnonzero(chosen) // 500).tolist())
    assert all(90 <= counts[quarter] <= 160 for quarter in range(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split_seed": -1}, "split_seed: wanted 0 to 2147483647, found -1"),
        ({"split_seed": 2**31}, "split_seed: .* found 2147483648"),
        ({"val_fraction": 0.0}, "val_fraction: wanted a fraction above 0 and below 0.5, found 0.0"),
        ({"test_fraction": 0.5}, "test_fraction: .* found 0.5"),
        ({"test_fraction": float("nan")}, "test_fraction: .* found nan"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**settings)  # type: ignore[arg-type]


def test_every_role_has_a_column_of_its_own() -> None:
    assert Columns(label="class", text="review", group="author").path is None
    with pytest.raises(ConfigError, match="columns: wanted a column of its own for each role, found review, review"):
        Columns(label="review", text="review")


rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), max_size=60).map(lambda rows: [(0, 0), (1, 1), *rows])
"""Class and group of each sample."""


def of_groups(pairs: list[tuple[int, int]]) -> Split:
    """Samples that all differ, with groups as hashes of names would be; classes are numbered without gaps."""
    present = sorted({label for label, _ in pairs})
    split = make_split([present.index(label) for label, _ in pairs])
    names = np.random.default_rng(0).integers(0, 2**63, 1000, dtype=np.uint64) * np.uint64(2)
    return replace(split, groups=names[[group for _, group in pairs]])


def groups_of(split: Split) -> set[int]:
    assert split.groups is not None
    return set(split.groups.tolist())


def test_own_splits_that_tear_groups_apart_are_refused() -> None:
    train, test = of_groups([(0, 1), (1, 2), (0, 3), (1, 4)]), of_groups([(0, 4), (1, 5), (0, 1)])
    with pytest.raises(DataError, match=r"wanted each group in one split, but 2 of 5 stand in several.*\(train\)"):
        complete(make_dataset(train=train, test=test), DataConfig())


def test_samples_by_themselves_and_whole_groups_are_welcome_in_own_splits() -> None:
    train, test = of_groups([(0, 1), (1, 2), (0, 3), (1, 4)]), of_groups([(0, 6), (1, 6)])
    assert train.groups is not None
    assert test.groups is not None
    alone = replace(train, groups=np.where(train.groups == train.groups[3], np.uint64(0), train.groups))
    other = replace(test, groups=np.array([0, test.groups[1]], dtype=np.uint64))
    dataset = complete(make_dataset(train=alone, test=other), DataConfig())
    assert len(dataset.splits["test"]) == 2


def zip_groups(split: Split) -> list[tuple[int, int]]:
    """Class and group of each sample."""
    assert split.groups is not None
    return list(zip(split.labels.tolist(), split.groups.tolist(), strict=True))


@quick
@given(pairs=rows, config=configs)
def test_groups_stay_on_one_side(pairs: list[tuple[int, int]], config: DataConfig) -> None:
    split = of_groups(pairs)
    dataset = complete(make_dataset(train=split), config)
    parts = list(dataset.splits.values())
    assert sorted(chain(*contents(dataset).values())) == sorted(split.hashes.tolist())
    assert sum(len(groups_of(part)) for part in parts) == len(groups_of(split))
    assert set(dataset.splits["train"].labels.tolist()) == set(split.labels.tolist())
    before = dict(zip(split.hashes.tolist(), zip_groups(split), strict=True))
    for part in parts:
        assert [before[key] for key in part.hashes.tolist()] == zip_groups(part)


@quick
@given(data=st.data(), pairs=rows, config=configs)
def test_groups_do_not_see_order_or_content(
    data: st.DataObject, pairs: list[tuple[int, int]], config: DataConfig
) -> None:
    split = of_groups(pairs)
    order = data.draw(st.permutations(range(len(split))))
    shuffled = split.take(np.array(order))
    altered = replace(split, hashes=split.hashes[::-1].copy())
    made = [complete(make_dataset(train=samples), config).splits for samples in (split, shuffled, altered)]
    assert len({str([sorted(groups_of(part)) for part in splits.values()]) for splits in made}) == 1
    assert contents(complete(make_dataset(train=split), config)) == contents(
        complete(make_dataset(train=shuffled), config)
    )


@quick
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=12), min_size=1, max_size=3),
    share=st.floats(0.01, 0.49),
    seed=st.integers(0, 2**31 - 1),
)
def test_groups_of_one_class_come_within_half_a_group_of_its_share(
    sizes: list[list[int]], share: float, seed: int
) -> None:
    """A group is taken if less than half of it is too much, else left: either way, half a group is the error."""
    counts_of = [(label, count) for label, counts in enumerate(sizes) for count in counts]
    labels = np.repeat([label for label, _ in counts_of], [count for _, count in counts_of])
    groups = np.repeat(np.arange(len(counts_of), dtype=np.uint64), [count for _, count in counts_of])
    chosen = choose_groups(groups, labels, share, seed)
    taken = np.bincount(labels[chosen], minlength=len(sizes))
    several = len(np.unique(groups[chosen])) > 1
    for count, counts in zip(taken, sizes, strict=True):
        assert abs(count - share * sum(counts)) <= (max(counts) / 2 if several else max(counts)) + 1e-9


def test_many_groups_of_mixed_classes_give_the_shares_that_are_wanted() -> None:
    generator = np.random.default_rng(0)
    pairs = [(int(label), group) for group in range(200) for label in generator.choice(3, 10, p=[0.6, 0.3, 0.1])]
    for seed in range(5):
        dataset = complete(make_dataset(train=of_groups(pairs)), DataConfig(split_seed=seed))
        total = np.bincount([label for label, _ in pairs])
        for name, share in (("test", 0.2), ("val", 0.1)):
            found = np.bincount(dataset.splits[name].labels, minlength=3)
            assert np.abs(found - share * total).max() <= 20
            assert abs(found.sum() - share * total.sum()) <= 20


def test_another_seed_places_other_groups() -> None:
    split = of_groups([(k % 2, k // 2) for k in range(100)])
    made = [complete(make_dataset(train=split), DataConfig(split_seed=seed)).splits for seed in (0, 0, 1, 2)]
    assert contents_of(made[0]) == contents_of(made[1])
    assert len({str(contents_of(splits)) for splits in made}) == 3


def contents_of(splits: Mapping[str, Split]) -> list[list[int]]:
    return [sorted(groups_of(part)) for part in splits.values()]


def test_where_every_group_is_large_the_smallest_that_may_go_is_tested() -> None:
    pairs = [(label, group) for group, count in enumerate((30, 20, 25)) for label in (0, 1) for _ in range(count)]
    for seed in range(10):
        dataset = complete(make_dataset(train=of_groups(pairs)), DataConfig(split_seed=seed, test_fraction=0.1))
        assert [len(part) for part in dataset.splits.values()] == [60, 50, 40]


def test_a_group_that_is_all_of_a_class_stays_in_training() -> None:
    pairs = [(0, 0)] * 4 + [(1, group) for group in range(1, 30)]
    for seed in range(10):
        dataset = complete(make_dataset(train=of_groups(pairs)), DataConfig(split_seed=seed, test_fraction=0.4))
        assert (dataset.splits["train"].labels == 0).sum() == 4
        assert len(dataset.splits["test"]) > 0


def test_a_number_that_no_sample_has_holds_nothing_back() -> None:
    groups, labels = np.arange(20, dtype=np.uint64), np.arange(20) % 2 * 2
    assert choose_groups(groups, labels, 0.2, seed=0).sum() == 4


def test_a_single_group_cannot_be_split() -> None:
    dataset = complete(make_dataset(train=of_groups([(0, 1), (1, 1)] * 5)), DataConfig())
    assert [len(part) for part in dataset.splits.values()] == [10, 0, 0]
