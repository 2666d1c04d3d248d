from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from falconet.data import DataConfig, load_dataset
from falconet.data.checks import (
    _SHAPES,
    ClassCount,
    Lengths,
    NearDuplicate,
    ShapeCount,
    check_data,
    describe_data,
    is_far,
)
from falconet.data.dataset import Dataset, ImageFiles, Split
from falconet.data.survey import find_unreadable
from falconet.errors import DataError, PathError
from falconet.schema import to_mapping
from tests.conftest import FolderMaker
from tests.data.builders import (
    encode,
    make_dataset,
    make_series_dataset,
    make_series_split,
    make_split,
    make_text_dataset,
)


def test_a_folder_is_described(make_folder: FolderMaker) -> None:
    root = make_folder(classes=("dark", "light", "dim"), count=10)
    (root / "dim" / "broken.png").write_bytes(b"")
    report = check_data(root)
    assert report.source == str(root)
    assert (report.kind, report.channels, report.size) == ("image", 3, (16, 20))
    assert report.classes == (ClassCount("dark", 10), ClassCount("dim", 10), ClassCount("light", 10))
    assert report.splits == {"train": 21, "val": 3, "test": 6}
    assert report.made == ("test", "val")
    assert [(entry.file, entry.reason) for entry in report.unreadable] == [("dim/broken.png", "empty file (0 bytes)")]
    assert (report.duplicates, report.leaks) == ((), ())
    assert report.fingerprint == load_dataset(root).fingerprint


def test_digits_have_no_leaks() -> None:
    report = check_data("digits")
    assert sum(entry.count for entry in report.classes) == sum(report.splits.values()) == 1797
    assert report.leaks == ()


def test_duplicates_in_a_split_are_no_leaks() -> None:
    report = describe_data(
        make_dataset(train=make_split([0, 1, 1, 0], content=[1, 2, 2, 2]), test=make_split([0], [5]))
    )
    assert report.duplicates == (("made[1]", "made[2]", "made[3]"),)
    assert report.leaks == ()


def test_duplicates_across_splits_are_leaks(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("train", "test"))
    shutil.copy(root / "train" / "dark" / "003.png", root / "test" / "dark" / "copy.png")
    shutil.copy(root / "test" / "light" / "001.png", root / "test" / "light" / "again.png")
    report = check_data(root)
    groups = {frozenset(group) for group in report.duplicates}
    leak = frozenset({"train/dark/003.png", "test/dark/copy.png"})
    assert groups == {leak, frozenset({"test/light/001.png", "test/light/again.png"})}
    assert {frozenset(group) for group in report.leaks} == {leak}


def test_made_splits_do_not_leak(make_folder: FolderMaker) -> None:
    root = make_folder()
    for path in list(root.rglob("*.png")):
        shutil.copy(path, path.with_stem(f"{path.stem}-copy"))
    report = check_data(root)
    assert len(report.duplicates) == 24
    assert report.leaks == ()


def test_a_class_absent_from_a_split_is_counted_once() -> None:
    report = describe_data(make_dataset(train=make_split([0, 1, 2]), test=make_split([0], content=[9])))
    assert [entry.count for entry in report.classes] == [2, 1, 1]


def test_checking_raises_what_reading_raises(make_folder: FolderMaker) -> None:
    root = make_folder()
    (root / "dark" / "broken.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 unreadable files"):
        check_data(root, config=DataConfig(strict=True))
    with pytest.raises(PathError, match="no such file or folder"):
        check_data(root / "nothing")


def make_photo(seed: int, size: tuple[int, int] = (60, 80)) -> Image.Image:
    """Return a smooth picture in color that looks like no other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def write_photos(root: Path, count: int = 12) -> Path:
    """Write a folder of the classes a and b, with `count` photographs of each in each split."""
    for number, part in enumerate(("train/a", "train/b", "val/a", "val/b", "test/a", "test/b")):
        (root / part).mkdir(parents=True)
        for index in range(count):
            (root / part / f"{index}.png").write_bytes(encode(make_photo(100 * number + index)))
    return root


def test_a_file_with_a_good_header_and_damaged_pixels_is_unreadable(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    content = (root / "train/a/3.png").read_bytes()
    (root / "train/a/3.png").write_bytes(content[: len(content) // 2])
    report = check_data(root)
    assert [item.file for item in report.unreadable] == ["train/a/3.png"]
    assert str(root) not in report.unreadable[0].reason
    assert report.classes == (ClassCount("a", 35), ClassCount("b", 36))
    assert report.splits == {"train": 23, "val": 24, "test": 24}
    assert find_unreadable(load_dataset(root)) == report.unreadable


def test_a_data_set_of_which_nothing_can_be_read_is_described(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(10)]
    files = Split(ImageFiles(tmp_path, names), np.arange(10) % 2, np.arange(10, dtype=np.uint64))
    report = describe_data(make_dataset(train=files))
    assert [item.file for item in report.unreadable] == names
    assert report.splits == {"train": 0}
    assert (report.imbalance, report.shapes, report.near_duplicates, report.outliers) == (None, (), (), ())
    assert report.absent_classes == {"train": ("a", "b")}


def test_near_duplicates_are_found_and_flagged_across_splits(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    make_photo(0).save(root / "test/a/saved.jpg", quality=60)
    make_photo(5).resize((64, 48)).save(root / "train/b/smaller.png")
    shutil.copy(root / "train/b/2.png", root / "test/b/equal.png")
    report = check_data(root)
    assert len(report.near_duplicates) == 2
    first, second = report.near_duplicates
    assert (first.names, first.splits) == (("train/a/0.png", "test/a/saved.jpg"), ("train", "test"))
    assert (second.names, second.splits) == (("train/a/5.png", "train/b/smaller.png"), ("train", "train"))
    assert 0 < first.distance < 0.04
    assert [set(group) for group in report.leaks] == [{"train/b/2.png", "test/b/equal.png"}]


def test_a_picture_saved_without_loss_is_a_near_duplicate_at_no_distance(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", 4)
    make_photo(1).save(root / "train/a/copy.bmp")
    pairs = check_data(root).near_duplicates
    assert [(set(pair.names), pair.distance) for pair in pairs] == [({"train/a/1.png", "train/a/copy.bmp"}, 0.0)]


def test_samples_in_which_nothing_changes_are_listed_once(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", 4)
    Image.new("RGB", (30, 40), "red").save(root / "train/a/red.png")
    Image.new("RGB", (31, 40), "red").save(root / "train/b/also red.png")
    report = check_data(root)
    assert set(report.constant) == {"train/a/red.png", "train/b/also red.png"}
    assert report.near_duplicates == ()


def test_the_embedded_digits_are_faultless() -> None:
    report = check_data("digits")
    assert (report.near_duplicates, report.constant, report.outliers, report.unreadable) == ((), (), (), ())
    assert (report.absent_classes, report.label_errors) == ({}, ())
    assert report.imbalance == pytest.approx(183 / 174)
    assert report.shapes == (ShapeCount("gray", (8, 8), 1797),)


def test_sizes_are_counted_with_their_kind(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for index in range(_SHAPES + 2):
            make_photo(index, (20 + index, 30)).save(root / label / f"{index}.png")
        for index in range(3):
            make_photo(50 + index, (20, 30)).convert("L").save(root / label / f"gray {index}.png")
    shapes = check_data(root).shapes
    assert shapes[0] == ShapeCount("gray", (20, 30), 6)
    assert len(shapes) == _SHAPES + 1
    assert {(shape.kind, shape.count) for shape in shapes[1:-1]} == {("color", 2)}
    assert shapes[-1] == ShapeCount("other", (), 6)


def test_classes_that_a_split_lacks_are_listed() -> None:
    report = describe_data(make_dataset(train=make_split([0, 1, 2, 2, 2, 2]), test=make_split([1, 1], content=[9, 8])))
    assert report.absent_classes == {"test": ("a", "c")}
    assert report.imbalance == 4


def make_walks(count: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(2, 50 + index % 7)).cumsum(axis=1).astype(np.float32) for index in range(count)]


def test_series_are_described() -> None:
    walks = make_walks(30)
    walks[3][:, 10:20] = np.nan
    walks[5] = np.full((2, 50), 7, dtype=np.float32)
    walks[8] = np.tile(walks[8], 30)
    train, test = walks[:20], [*walks[20:], walks[4] * 8 + 16]
    parts = make_series_split(train, [0, 1] * 10), make_series_split(test, [0, 1] * 5 + [0], "test.ts")
    report = describe_data(make_series_dataset(rate=50, train=parts[0], test=parts[1]))
    assert (report.kind, report.rate, report.shapes) == ("series", 50, ())
    lengths = [len(walk[0]) for walk in [*train, *test]]
    lower, median, upper = np.percentile(lengths, [25, 50, 75])
    assert report.lengths == Lengths(min(lengths), lower, median, upper, max(lengths))
    assert report.missing == pytest.approx(20 / (2 * sum(lengths)))
    assert report.constant == ("made.ts:5",)
    assert report.near_duplicates == (NearDuplicate(("made.ts:4", "test.ts:10"), ("train", "test"), 0.0),)
    assert [(entry.name, entry.reason) for entry in report.outliers] == [("made.ts:8", "1,530 steps, median 50")]


def test_texts_are_described() -> None:
    train = [f"This is review number {index}." for index in range(20)]
    train[3] = "  "
    train[6] = "endless " * 100
    test = ["another one", "this is review NUMBER 7", "and one more"]
    report = describe_data(make_text_dataset(train=train, test=test))
    assert (report.kind, report.missing, report.shapes) == ("text", None, ())
    assert report.lengths is not None
    assert (report.lengths.min, report.lengths.max) == (2, 800)
    assert report.constant == ("train.csv:3",)
    assert report.near_duplicates == (NearDuplicate(("train.csv:7", "test.csv:1"), ("train", "test"), 0.0),)
    assert [entry.name for entry in report.outliers] == ["train.csv:3", "train.csv:6"]


def test_columns_and_ignored_files_are_passed_on() -> None:
    dataset = replace(make_dataset(train=make_split([0, 1])), columns={"label": "breed"}, ignored={".txt": 3})
    report = describe_data(dataset)
    assert (report.columns, report.ignored) == ({"label": "breed"}, {".txt": 3})


def make_kinds() -> list[Dataset]:
    return [
        make_dataset(train=make_split([0, 1, 1], content=[1, 1, 2])),
        make_series_dataset(train=make_series_split(make_walks(9), [0, 1, 1] * 3)),
        make_text_dataset(train=["one", "two", "One!"]),
    ]


@pytest.mark.parametrize("dataset", make_kinds(), ids=lambda dataset: dataset.kind)
def test_a_report_is_plain_data(dataset: Dataset) -> None:
    report = to_mapping(describe_data(dataset))
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_photographs_of_very_different_sizes_are_outliers(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    sizes = {"tiny": (6, 8), "huge": (700, 800), "strip": (16, 300), "usual": (100, 150)}
    for number, (name, size) in enumerate(sizes.items()):
        make_photo(900 + number, size).save(root / "train/a" / f"{name}.png")
    found = {entry.name: entry.reason for entry in check_data(root).outliers}
    assert found == {
        "train/a/tiny.png": "6x8 pixels, median 60x80",
        "train/a/huge.png": "700x800 pixels, median 60x80",
        "train/a/strip.png": "16x300 pixels, median 60x80",
    }


@pytest.mark.parametrize(
    "values",
    [
        [640.0] * 50,
        [320.0] * 20 + [640.0] * 20 + [1280.0] * 20 + [4000.0] * 5,
        [640.0] * 40 + [100.0] * 10,
        [100.0, 100.0, 900.0],
        list(2.0 ** np.random.default_rng(0).normal(9, 1.5, 1000)),
    ],
    ids=["one size", "mixed resolutions", "two groups", "too few", "log-normal"],
)
def test_ordinary_sizes_are_no_outliers(values: list[float]) -> None:
    assert not is_far(np.array(values)).any()


@given(st.lists(st.floats(10, 20), min_size=30, max_size=60), st.floats(0.01, 100), st.sampled_from([1, 1000]))
@settings(deadline=None)
def test_outliers_do_not_depend_on_the_unit(values: list[float], unit: float, factor: int) -> None:
    far = is_far(np.array([*values, 15 * factor]) * unit)
    assert far.tolist() == [False] * len(values) + [factor == 1000]
