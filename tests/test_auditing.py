"""find_label_errors(): what is planted is found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from falconet import load_dataset
from falconet.auditing import find_contradictions, find_label_errors
from falconet.errors import DataError

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
    errors = find_label_errors(dataset)
    found = {position(error.name): error for error in errors}
    hits = found.keys() & set(wrong.tolist())
    assert len(hits) >= 0.8 * len(wrong), "recall"
    assert len(hits) >= 0.7 * len(found), "precision"
    named_right = [index for index in hits if found[index].suggested == str(truth[index])]
    assert len(named_right) >= 0.9 * len(hits)
    for index in hits:
        split = dataset.splits[found[index].split]
        assert found[index].name in {split.samples.name(place) for place in range(len(split))}


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    write_digits(tmp_path / "few.npz", np.array([], dtype=np.int64), 30)
    with pytest.raises(DataError, match=r"--label-errors: wanted enough different samples of each class"):
        find_label_errors(load_dataset(tmp_path / "few.npz"))


def test_a_confident_contradiction_is_suspected() -> None:
    sure = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]]
    probabilities = np.array([*sure, [0.05, 0.95], [0.45, 0.55]])
    # The fifth sample is surely of the other class; the last leans to it, but less than that class's own samples do.
    assert find_contradictions(probabilities, np.array([0, 0, 1, 1, 0, 0])) == [(4, 1)]


def test_the_largest_lead_comes_first() -> None:
    probabilities = np.array([[0.7, 0.3], [0.3, 0.7], [0.2, 0.8], [0.0, 1.0]])
    assert find_contradictions(probabilities, np.array([0, 1, 0, 0])) == [(3, 1), (2, 1)]


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
