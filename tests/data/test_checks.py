from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from falconet.data import DataConfig, load_dataset
from falconet.data.checks import ClassCount, check_data, describe_data
from falconet.data.preview import GAP, TILE, VARIANTS, write_preview
from falconet.errors import DataError, PathError, StorageError
from tests.conftest import FolderMaker
from tests.data.builders import make_dataset, make_split

STEP = TILE + GAP


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


@pytest.mark.parametrize(("mode", "classes"), [("RGB", 2), ("L", 3), ("RGB", 12)])
def test_a_preview_shows_each_class_above_its_variants(
    mode: str, classes: int, make_folder: FolderMaker, tmp_path: Path
) -> None:
    names = tuple(f"class {index:02d}" for index in range(classes))
    dataset = load_dataset(make_folder(classes=names, count=4, mode=mode))
    path = tmp_path / "new" / "preview.png"
    write_preview(dataset, path)
    columns = min(classes, 10)
    with Image.open(path) as image:
        sheet = np.asarray(image).astype(float)
    assert sheet.shape == ((VARIANTS + 1) * STEP + GAP, columns * STEP + GAP, 3)
    assert (sheet[:GAP] == 128).all()
    for row in range(VARIANTS + 1):
        tiles = [sheet[row * STEP + GAP :, column * STEP + GAP :][:TILE, :TILE] for column in range(columns)]
        levels = [tile.mean() for tile in tiles]
        wanted = [255 * (column + 1) / (classes + 1) for column in range(columns)]
        assert levels == pytest.approx(wanted, abs=6)
    first = sheet[GAP : GAP + TILE, GAP : GAP + TILE]
    assert not np.array_equal(first, sheet[STEP + GAP : STEP + GAP + TILE, GAP : GAP + TILE])


def test_a_preview_of_the_same_data_is_the_same(make_folder: FolderMaker, tmp_path: Path) -> None:
    dataset = load_dataset(make_folder(count=3))
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        write_preview(dataset, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["file/preview.png", "folder.png"])
def test_a_preview_that_cannot_be_written_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(StorageError, match=f"cannot write .*{name}: "):
        write_preview(load_dataset("digits"), tmp_path / name)
