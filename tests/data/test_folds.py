"""Folds of training and validation samples, for cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.model_selection

from falconet import load_dataset
from falconet.data.splits import assign_group_folds, fold_dataset
from falconet.errors import DataError


def test_folds_hold_each_sample_once_and_leave_the_test_split_alone() -> None:
    dataset = load_dataset("digits")
    parts = fold_dataset(dataset, 5)
    pool = np.concatenate([dataset.splits[name].hashes for name in ("train", "val")])
    held_out = np.concatenate([part.splits["val"].hashes for part in parts])
    assert sorted(held_out) == sorted(pool)
    for part in parts:
        val, train = (part.splits[name].hashes for name in ("val", "train"))
        assert not np.isin(val, train).any()
        assert len(val) + len(train) == len(pool)
        assert part.splits["test"] is dataset.splits["test"]


def test_folds_are_stratified_as_those_of_scikit_learn() -> None:
    dataset = load_dataset("digits")
    labels = np.concatenate([dataset.splits[name].labels for name in ("train", "val")])
    splitter = sklearn.model_selection.StratifiedKFold(5)
    expected = [np.bincount(labels[test]) for _, test in splitter.split(labels, labels)]
    found = [np.bincount(part.splits["val"].labels) for part in fold_dataset(dataset, 5)]
    # Which fold gets the remainder is up to each; equal samples, which share a fold, may move one more.
    for counts in (np.stack(expected), np.stack(found)):
        assert np.ptp(counts, axis=0).max() <= 2


def test_groups_stay_in_one_fold() -> None:
    groups = np.repeat(np.arange(12, dtype=np.uint64), 5)
    labels = np.tile(np.array([0, 1, 1, 0, 1]), 12)
    folds = assign_group_folds(groups, labels, 3)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in range(12))
    assert np.bincount(folds).tolist() == [20, 20, 20]


def test_more_folds_than_samples_are_refused() -> None:
    with pytest.raises(DataError, match=r"wanted enough different samples or groups .* name fewer --folds"):
        fold_dataset(load_dataset("digits"), 2000)
