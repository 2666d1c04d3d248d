from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from falconet.data.dataset import Dataset, ImageArray, ImageFiles, Samples, Split
from falconet.data.duplicates import hash_copies, hash_text, make_thumbnails, shrink
from falconet.data.survey import SPAN, survey
from tests.data.builders import encode, make_dataset, make_series_dataset, make_series_split, make_text_dataset


def survey_images(images: list[np.ndarray], folder: Path) -> tuple[list[tuple[int, ...]], list[bool], list[bool]]:
    """Return sizes, colors and constancy of images in files of their own."""
    names = [f"{index}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        (folder / name).write_bytes(encode(Image.fromarray(image)))
    found = survey(wrap(ImageFiles(folder, names)))
    assert found.reasons == {}
    return list(map(tuple, found.sizes.tolist())), found.color.tolist(), found.constant.tolist()


def wrap(samples: Samples) -> Dataset:
    count = len(samples)
    return make_dataset(train=Split(samples, np.arange(count) % 2, np.arange(count, dtype=np.uint64)))


def test_images_are_described(tmp_path: Path) -> None:
    almost = np.full((300, 200), 9, dtype=np.uint8)
    almost[150, 100] = 10
    images = [
        np.full((5, 7, 3), (1, 2, 3), dtype=np.uint8),
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        almost,
        np.zeros((40, 1), dtype=np.uint8),
        np.zeros((1, 1), dtype=np.uint8),
    ]
    sizes, color, constant = survey_images(images, tmp_path)
    assert sizes == [(5, 7), (3, 4), (300, 200), (40, 1), (1, 1)]
    assert color == [True, False, False, False, False]
    assert constant == [True, False, False, True, False]


def test_facts_stand_in_the_order_of_the_samples() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3 * SPAN + 5, 9, 8, 1), dtype=np.uint8)
    whole = ImageArray(images, np.array([f"made[{index}]" for index in range(len(images))]))
    count = len(images)
    split = Split(whole, np.arange(count) % 2, np.arange(count, dtype=np.uint64))
    cut = SPAN + 3
    ranges = {"train": np.arange(cut), "val": np.arange(0), "test": np.arange(cut, count)}
    parts = {name: split.take(positions) for name, positions in ranges.items()}
    found = survey(replace(make_dataset(train=split), splits=parts))
    copies = np.stack([shrink(image) for image in images])
    assert np.array_equal(found.keys, hash_copies(copies))
    assert np.array_equal(found.thumbnails, make_thumbnails(copies))


def test_unreadable_samples_are_told_with_their_reasons(tmp_path: Path) -> None:
    names = [f"{index:03d}.png" for index in range(2 * SPAN)]
    content = encode(Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)))
    for name in names:
        (tmp_path / name).write_bytes(content)
    (tmp_path / names[3]).write_bytes(content[:-30])
    (tmp_path / names[SPAN + 1]).unlink()
    found = survey(wrap(ImageFiles(tmp_path, names)))
    assert sorted(found.reasons) == [3, SPAN + 1]
    assert found.reasons[3].startswith("damaged image: ")
    assert found.reasons[SPAN + 1] == "No such file or directory"
    assert np.flatnonzero(~found.readable).tolist() == [3, SPAN + 1]
    assert not found.constant[3]


def test_series_are_described() -> None:
    nan = np.nan
    series = [
        np.array([[1, 2, nan, 4], [1, nan, nan, 1]]),
        np.array([[nan, 5, 5, nan, nan], [2, 2, 2, nan, nan]]),
        np.array([[nan, nan], [nan, nan]]),
        np.array([[3.0], [3.0]]),
        np.array([[0.0, 0.0], [0.0, 1.0]]),
    ]
    found = survey(make_series_dataset(train=make_series_split(series, [0, 1, 0, 1, 0])))
    assert found.sizes[:, 1].tolist() == [4, 3, 0, 1, 2]
    assert found.constant.tolist() == [False, True, True, False, False]
    assert (found.values, found.missing) == (2 * (4 + 3 + 1 + 2), 4)
    assert len(found.thumbnails) == 0


@pytest.mark.parametrize(
    ("text", "constant"),
    [("", True), (" \n\t", True), ("!!!!", True), ("a a\na", True), ("a", False), ("ab", False), ("Aa", False)],
)
def test_texts_are_described(text: str, constant: bool) -> None:
    found = survey(make_text_dataset(train=[text, "something else"]))
    assert found.sizes[0, 1] == len(text)
    assert found.constant.tolist() == [constant, False]
    assert found.keys.tolist() == [hash_text(text), hash_text("something else")]
