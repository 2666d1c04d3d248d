"""find_label_errors(): what is planted is found again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from falconet import DataConfig, cli, load_dataset
from falconet.auditing import (
    _FOLDS,
    _check_finite,
    _Prepared,
    choose_trusted,
    count_errors,
    find_contradictions,
    find_label_errors,
    part,
    warn_unlearnable,
)
from falconet.data import Split
from falconet.data.splits import complete_splits, hash_with_seed, unite_split
from falconet.errors import DataError
from tests.data.builders import make_dataset, make_split

Capture = pytest.CaptureFixture[str]
DIGITS = load_dataset("digits").split("all")


def write_digits(path: Path, wrong: np.ndarray, count: int) -> np.ndarray:
    """Write digits with labels of which those at `wrong` are one too high; return the true labels."""
    images = np.stack([DIGITS.samples.read(index) for index in range(count)])
    labels = DIGITS.labels[:count].copy()
    labels[wrong] = (labels[wrong] + 1) % 10
    np.savez(path, images=images, labels=labels)
    return DIGITS.labels[:count]


def position(name: str) -> int:
    return int(name.rpartition("[")[2].removesuffix("]"))


@pytest.mark.slow
def test_wrong_labels_are_found(tmp_path: Path) -> None:
    wrong = np.random.default_rng(0).choice(600, size=20, replace=False)
    truth = write_digits(tmp_path / "digits.npz", wrong, 600)
    dataset = load_dataset(tmp_path / "digits.npz")
    errors = find_label_errors(dataset).errors
    found = {position(error.name): error for error in errors}
    hits = found.keys() & set(wrong.tolist())
    assert len(hits) >= 0.8 * len(wrong), "recall"
    assert len(hits) >= 0.7 * len(found), "precision"
    named_right = [index for index in hits if found[index].suggested == str(truth[index])]
    assert len(named_right) >= 0.9 * len(hits)
    for index in hits:
        split = dataset.splits[found[index].split]
        assert found[index].name in {split.samples.name(place) for place in range(len(split))}


def test_wrong_labels_of_series_are_found_without_training(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    steps = np.arange(60) + generator.uniform(0, 60, (120, 1))
    series = np.sin(steps * (0.2 + 0.1 * labels[:, None])) + generator.normal(0, 0.1, (120, 60))
    wrong = generator.choice(120, 6, replace=False)
    said = labels.copy()
    said[wrong] = 1 - said[wrong]
    np.savez(tmp_path / "waves.npz", series=series.astype(np.float32), labels=said)
    dataset = load_dataset(tmp_path / "waves.npz")
    found = find_label_errors(dataset).errors
    assert {position(error.name) for error in found} == set(wrong.tolist())


@pytest.mark.slow
def test_labels_that_teach_nothing_are_told_and_none_is_called_wrong(tmp_path: Path, capsys: Capture) -> None:
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "dice.npz", series=generator.normal(size=(200, 20)), labels=generator.integers(0, 2, 200))
    audit = find_label_errors(load_dataset(tmp_path / "dice.npz"))
    assert audit.errors == ()
    assert audit.caution is not None
    assert audit.caution.startswith("nothing was shown to be learned from these labels: of 200 samples")
    assert cli.run(["data", str(tmp_path / "dice.npz"), "--label-errors"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"caution: {audit.caution}"
    assert cli.run(["data", str(tmp_path / "dice.npz"), "--label-errors", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["label_errors"], report["label_caution"]) == ([], audit.caution)


def test_answers_must_agree_with_labels_by_more_than_chance() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    constant = np.tile([0.9, 0.1], (100, 1))
    warning = warn_unlearnable(constant, labels)
    assert warning is not None
    assert "takes 90.0% for what they are labeled, no more than labels dealt out at random may come to" in warning
    assert warn_unlearnable(np.eye(2)[labels], labels) is None
    # No significant lead over a constant answer, and yet no chance.
    answers = np.concatenate([np.repeat([0, 1], [88, 2]), np.repeat([0, 1], [3, 7])])
    assert warn_unlearnable(np.eye(2)[answers], labels) is None


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    write_digits(tmp_path / "few.npz", np.array([], dtype=np.int64), 30)
    with pytest.raises(DataError, match=r"label_errors: wanted enough different samples of each class"):
        find_label_errors(load_dataset(tmp_path / "few.npz"))


def test_folds_of_samples_without_groups_follow_from_content() -> None:
    split = make_split([0, 1] * 50, content=[*range(60), *range(40)])
    folds = part(split, 2)
    assert set(folds.tolist()) == set(range(_FOLDS))
    assert folds.tolist() == (hash_with_seed(split.hashes, 0) % np.uint64(_FOLDS)).tolist()


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(0, 200)), min_size=60, max_size=90),
    order=st.randoms(use_true_random=False),
)
def test_folds_tear_neither_groups_nor_equal_samples_apart(rows: list[tuple[int, int, int]], order: Random) -> None:
    whole = [(index % 2, index % 30 + 1, 1000 + index) for index in range(120)]
    split = group([*rows, *whole])
    try:
        folds = part(split, 2)
    except DataError:  # Equal samples may bring all groups together.
        assume(False)
    assert split.groups is not None
    for keys in (split.hashes, split.groups[split.groups != 0]):
        chosen = folds if len(keys) == len(folds) else folds[split.groups != 0]
        for key in np.unique(keys):
            assert len(np.unique(chosen[keys == key])) == 1
    mixed = np.array(order.sample(range(len(split)), len(split)))
    assert part(split.take(mixed), 2).tolist() == folds[mixed].tolist()


def group(rows: list[tuple[int, int, int]]) -> Split:
    """Samples of (label, group, content); group 0 is none."""
    split = make_split([label for label, _, _ in rows], content=[content for _, _, content in rows])
    return dataclasses.replace(split, groups=np.array([7919 * name for _, name, _ in rows], dtype=np.uint64))


def test_equal_samples_bring_groups_together() -> None:
    # Person 1 shares a sample with 2, and 2 another one with 3; a sample of nobody is equal to one of 4.
    rows = [(0, 1, 1), (0, 1, 2), (1, 2, 2), (1, 2, 3), (0, 3, 3), (1, 4, 4), (1, 0, 4), (0, 0, 5), (0, 5, 6)]
    names = unite_split(group(rows))
    assert [names.tolist().index(name) for name in names.tolist()] == [0, 0, 0, 0, 0, 5, 5, 7, 8]


def test_few_groups_are_dealt_evenly() -> None:
    # Eight persons with ten samples of either class: no fold is empty, none has more than two of them.
    split = group([(index % 2, 1 + index // 20, index) for index in range(160)])
    folds = part(split, 2)
    assert sorted(np.bincount(folds, minlength=_FOLDS).tolist()) == [20, 20, 40, 40, 40]


def test_too_few_groups_are_refused() -> None:
    split = group([(index % 2, 1 + index % 4, index) for index in range(400)])
    with pytest.raises(DataError, match=r"samples and groups of each class for 5 folds, found 200 in 2 groups"):
        part(split, 2)


def test_no_network_evaluates_a_person_whom_it_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(index % 2, 1 + index % 12, index) for index in range(96)]
    split = group(rows)
    dataset = dataclasses.replace(make_dataset(train=split), kind="image")
    seen: list[tuple[set[int], set[int]]] = []

    def evaluate(prepared: _Prepared, folds: np.ndarray, number: int, *_: object) -> np.ndarray:
        groups = prepared.loaded.split.groups
        assert groups is not None
        seen.append((set(groups[folds == number].tolist()), set(groups[folds != number].tolist())))
        return np.full((int((folds == number).sum()), 2), 0.5)

    monkeypatch.setattr("falconet.auditing.predict_fold", evaluate)
    find_label_errors(complete_splits(dataset, DataConfig()))
    assert len(seen) == _FOLDS
    assert all(evaluated and not evaluated & trained for evaluated, trained in seen)


def test_a_confident_contradiction_is_suspected() -> None:
    sure = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]]
    probabilities = np.array([*sure, [0.05, 0.95], [0.45, 0.55]])
    # The fifth sample is surely of the other class. The last leans to it, less than that class's own samples do: of the
    # three of its class that are sure of anything one is wrong, and so of four one and a third.
    labels = np.array([0, 0, 1, 1, 0, 0])
    assert count_errors(probabilities, labels) == 1
    assert find_contradictions(probabilities, labels) == [(4, 1)]


def test_unsure_samples_are_wrong_as_often_as_sure_ones() -> None:
    # Of class 0 ten are sure of it, and ten of class 1; of twenty that are sure of nothing, half are counted as wrong.
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10 + [[0.45, 0.55]] * 20 + [[0.2, 0.8]] * 20)
    labels = np.array([0] * 40 + [1] * 20)
    assert count_errors(probabilities, labels) == 20
    assert [index for index, _ in find_contradictions(probabilities, labels)] == list(range(10, 30))[:20]


def test_the_least_probable_label_comes_first() -> None:
    probabilities = np.array([[0.7, 0.3], [0.3, 0.7], [0.2, 0.8], [0.0, 1.0]])
    assert find_contradictions(probabilities, np.array([0, 1, 0, 0])) == [(3, 1), (2, 1)]


def test_suspected_labels_teach_nothing_unless_they_are_most_of_a_class() -> None:
    labels = np.array([0] * 6 + [1] * 4)
    probabilities = np.eye(2)[labels]
    probabilities[0] = probabilities[0, ::-1]
    assert choose_trusted(probabilities, labels).tolist() == [False] + [True] * 9
    probabilities[6:9] = probabilities[6:9, ::-1]
    assert choose_trusted(probabilities, labels).tolist() == [False] + [True] * 9


@settings(deadline=None, max_examples=60)
@given(
    scores=arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(2, 5)), elements=st.floats(0.01, 1)),
    seed=st.integers(0, 99),
)
def test_suspects_differ_from_their_labels(scores: np.ndarray, seed: int) -> None:
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    labels = np.random.default_rng(seed).integers(0, scores.shape[1], len(scores))
    suspects = find_contradictions(probabilities, labels)
    assert len({index for index, _ in suspects}) == len(suspects)
    for index, answer in suspects:
        assert answer != labels[index]
        assert probabilities[index, answer] > probabilities[index, labels[index]]
    perfect = np.eye(scores.shape[1])[labels]
    assert find_contradictions(perfect, labels) == []


def test_values_that_no_network_can_take_are_told(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images, labels = generator.normal(size=(60, 1, 20)).astype("f4"), np.arange(60) % 2
    np.savez(tmp_path / "waves.npz", series=images, labels=labels)
    split = load_dataset(tmp_path / "waves.npz").split("all")
    probabilities = np.full((60, 2), 0.5)
    _check_finite(probabilities, split)
    probabilities[7] = np.nan
    with pytest.raises(DataError, match=r"found none that is a number for 1 samples, the first .*waves\.npz"):
        _check_finite(probabilities, split)
