from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from falconet.data import Dataset, ImageArray, ImageFiles, Samples, Split, load_dataset
from falconet.data.dataset import hash_arrays, hash_bytes, normalize_label
from falconet.errors import DataError, UnknownNameError
from tests.conftest import FolderMaker
from tests.data.builders import make_dataset, make_split


def image_files(root: Path, count: int) -> ImageFiles:
    paths = [f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("L", (3, 2), 10 * index).save(root / path)
    return ImageFiles(root, paths)


def test_a_split_is_found_by_name() -> None:
    dataset = make_dataset(train=make_split([0, 1]), test=make_split([1]))
    found = dataset.split("test")
    assert found.samples is dataset.splits["test"].samples
    assert (found.name, found.owner) == ("test", dataset)


def test_all_splits_join_in_order() -> None:
    train, test = make_split([0, 1], content=[5, 6]), make_split([1], content=[7])
    everything = make_dataset(train=train, test=test).split("all")
    assert everything.labels.tolist() == [0, 1, 1]
    assert everything.hashes.tolist() == [*train.hashes, *test.hashes]
    single = [train.samples.read(0), train.samples.read(1), test.samples.read(0)]
    for index, sample in enumerate(single):
        np.testing.assert_array_equal(everything.samples.read(index), sample)


def test_all_splits_of_files_join(make_folder: FolderMaker) -> None:
    dataset = load_dataset(make_folder(count=6, splits=("train", "test")))
    everything = dataset.split("all")
    assert len(everything) == 24
    names = [everything.samples.name(index) for index in range(24)]
    assert len(set(names)) == 24
    assert all(everything.samples.read(index).shape == (16, 20, 3) for index in range(24))


def test_all_splits_of_unlike_sizes_do_not_join() -> None:
    dataset = make_dataset(train=make_split([0, 1]), test=make_split([1], size=(5, 4)))
    with pytest.raises(DataError, match=r"different sizes.*\(4, 4, 1\).*\(5, 4, 1\).*name one split"):
        dataset.split("all")


def test_an_unknown_split_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown split 'trian': did you mean train\?"):
        make_dataset(train=make_split([0, 1])).split("trian")


@pytest.mark.parametrize("kind", ["array", "files"])
def test_samples_are_taken_in_the_order_asked(kind: str, tmp_path: Path) -> None:
    samples: Samples = image_files(tmp_path, 4)
    if kind == "array":
        images = np.stack([samples.read(index) for index in range(4)])
        samples = ImageArray(images, np.array([samples.name(index) for index in range(4)]))
    taken = samples.take(np.array([3, 1, 1]))
    assert isinstance(taken, Samples)
    assert [taken.name(index) for index in range(len(taken))] == ["3.png", "1.png", "1.png"]
    assert [int(taken.read(index)[0, 0, 0]) for index in range(len(taken))] == [30, 10, 10]
    assert taken.read(0).shape == (2, 3, 1)


def test_a_split_takes_samples_labels_and_hashes_together() -> None:
    split = make_split([0, 1, 2], content=[7, 8, 9])
    taken = split.take(np.array([2, 0]))
    assert taken.labels.tolist() == [2, 0]
    assert taken.hashes.tolist() == [split.hashes[2], split.hashes[0]]
    np.testing.assert_array_equal(taken.samples.read(0), split.samples.read(2))


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    samples = image_files(tmp_path, 2)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: No such file"):
        samples.read(1)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(8)))
def test_the_fingerprint_does_not_see_order(order: list[int]) -> None:
    split = make_split([0, 0, 1, 1, 0, 1, 0, 1])
    assert make_dataset(train=split.take(np.array(order))).fingerprint == make_dataset(train=split).fingerprint


def test_the_fingerprint_does_not_see_made_splits() -> None:
    split = make_split([0, 0, 1, 1])
    parts = {"train": split.take(np.array([0, 3])), "val": split.take(np.array([1])), "test": split.take(np.array([2]))}
    made = replace(make_dataset(**parts), made_splits=frozenset({"val", "test"}))
    assert made.fingerprint == make_dataset(train=split).fingerprint
    assert make_dataset(**parts).fingerprint != made.fingerprint


@pytest.mark.parametrize(
    "alter",
    [
        lambda dataset: replace(dataset, classes=("a", "c")),
        lambda dataset: replace(dataset, splits={**dataset.splits, "train": make_split([0, 1, 0], content=[1, 2, 4])}),
        lambda dataset: replace(dataset, splits={**dataset.splits, "train": make_split([0, 1, 1], content=[1, 2, 3])}),
        lambda dataset: replace(dataset, splits={**dataset.splits, "train": make_split([0, 1], content=[1, 2])}),
        lambda dataset: replace(dataset, splits={"train": dataset.splits["train"], "val": dataset.splits["test"]}),
    ],
    ids=["class name", "sample", "label", "one less", "split name"],
)
def test_the_fingerprint_sees_every_change(alter: Callable[[Dataset], Dataset]) -> None:
    dataset = make_dataset(train=make_split([0, 1, 0], content=[1, 2, 3]), test=make_split([0, 1], content=[8, 9]))
    assert alter(dataset).fingerprint != dataset.fingerprint


def test_hashes_and_fingerprints_stay_the_same_from_version_to_version() -> None:
    # Artifacts record them: whoever changes one of these values orphans every trained model.
    assert hash_bytes(b"falconet") == 6490538716078740887
    assert load_dataset("digits").fingerprint == "fe1b2b3e4e550160eb4e5e525bf216f0"


def test_hashes_see_content_and_not_memory_layout() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 1), dtype=np.uint8)
    strided = np.asfortranarray(images)
    assert np.array_equal(hash_arrays(strided), hash_arrays(images))
    assert len(set(hash_arrays(images).tolist())) == 5
    assert hash_arrays(images)[0] == hash_bytes(images[0].tobytes())


def test_a_split_checks_its_types() -> None:
    split = make_split([0])
    with pytest.raises(Exception, match="labels"):
        Split(split.samples, np.array([0.5]), split.hashes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("tea ", "tea"),
        ("\u200b tea\u00a0\u200b", "tea"),
        ("te\u200ba", "tea"),
        ("\ufefftea\u3000\u2003", "tea"),
        ("tea\u200d \u200c", "tea"),
        ("green  tea", "green  tea"),
        ("\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",) * 2,  # Persian, with a joiner inside.
        ("\U0001f469\u200d\U0001f33e",) * 2,
        ("caf\udce9",) * 2,
        (" \u200b", ""),
    ],
)
def test_labels_that_look_alike_are_one(text: str, expected: str) -> None:
    assert normalize_label(text) == expected


@given(st.text())
def test_a_normalized_label_stays(text: str) -> None:
    once = normalize_label(text)
    assert normalize_label(once) == once
    assert once == once.strip()
