from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from falconet.catalog import DOWNLOADABLE, check_source
from falconet.data import DataConfig, ImageFiles, load_dataset
from falconet.data.sources import find_data_root, read_source, sort_classes
from falconet.errors import DataError, PathError, UnknownNameError
from tests.conftest import FolderMaker
from tests.data.builders import encode, write_mnist

PHOTO = encode(Image.effect_noise((20, 16), 50).convert("RGB"))
JPEG = encode(Image.effect_noise((20, 16), 50), "JPEG")


def test_digits_are_those_of_scikit_learn() -> None:
    judge = load_digits()
    dataset = load_dataset("digits")
    everything = dataset.split("all")
    names = [everything.samples.name(index) for index in range(len(everything))]
    places = [int(name.removeprefix("digits[").removesuffix("]")) for name in names]
    assert sorted(places) == list(range(1797))
    assert np.array_equal(everything.labels, judge.target[places])
    images = np.stack([everything.samples.read(index)[..., 0] for index in range(len(everything))])
    assert np.array_equal(np.round(images / (255 / 16)), judge.images[places])
    assert images.max() == 255
    assert dataset.classes == tuple("0123456789")
    assert (dataset.channels, dataset.size, dataset.augmentation) == (1, (8, 8), "digits")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digts", r"unknown source 'digts': did you mean digits\?"),
        ("fashion_mnist", r"did you mean fashion-mnist\b"),
        ("photographs", r"known: digits, fashion-mnist, mnist \(nor is there a file or folder of this name\)"),
    ],
)
def test_a_mistyped_name_offers_the_nearest(source: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_dataset(source)


@pytest.mark.parametrize("source", ["no/such/folder", "missing.npz"])
def test_a_path_that_is_not_there_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(PathError, match=f"no such file or folder: .*{source}"):
        load_dataset(tmp_path / source)


@pytest.mark.parametrize(("name", "found"), [("table.xlsx", r"a file \.xlsx"), ("README", "a file without extension")])
def test_a_file_of_another_kind_is_refused(name: str, found: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(PathError, match=rf"wanted a folder or a \.npz file, found {found}"):
        check_source(tmp_path / name)


@pytest.mark.parametrize("source", ["digits", "mnist", "."])
def test_a_good_source_passes_unread(source: str) -> None:
    check_source(source)


def test_a_folder_of_classes_is_read(make_folder: FolderMaker) -> None:
    root = make_folder(classes=("dark", "gray", "light"), count=10)
    dataset = load_dataset(root)
    assert dataset.classes == ("dark", "gray", "light")
    assert (dataset.channels, dataset.size, dataset.unreadable) == (3, (16, 20), ())
    assert dataset.made == {"val", "test"}
    everything = dataset.split("all")
    assert isinstance(everything.samples, ImageFiles)
    assert sorted(everything.samples.paths) == sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    for index in range(len(everything)):
        assert everything.samples.name(index).split("/")[0] == dataset.classes[everything.labels[index]]


def test_gray_images_have_one_channel_and_one_color_image_makes_three(make_folder: FolderMaker) -> None:
    root = make_folder(mode="L")
    assert load_dataset(root).channels == 1
    (root / "dark" / "new.png").write_bytes(PHOTO)
    assert load_dataset(root).channels == 3


def test_the_size_is_the_median(make_folder: FolderMaker) -> None:
    root = make_folder(count=3)
    Image.new("RGB", (500, 400)).save(root / "dark" / "huge.png")
    assert load_dataset(root).size == (16, 20)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("train", "test"), {"train", "test"}),
        (("Train", "Valid"), {"train", "val"}),
        (("training", "validation", "test"), {"train", "val", "test"}),
        (("Training", "Testing"), {"train", "test"}),
    ],
)
def test_split_folders_are_known_by_name(folders: tuple[str, ...], names: set[str], make_folder: FolderMaker) -> None:
    dataset = load_dataset(make_folder(count=10, splits=folders))
    assert list(dataset.splits) == ["train", "val", "test"]
    assert set(dataset.splits) - dataset.made == names
    assert sum(len(split) for split in dataset.splits.values()) == 20 * len(folders)
    given = names - {"train"}
    assert all(len(dataset.splits[name]) == 20 for name in given)


def test_classes_may_be_named_like_splits(make_folder: FolderMaker) -> None:
    dataset = load_dataset(make_folder(classes=("train", "test", "bus")))
    assert dataset.classes == ("bus", "test", "train")
    assert len(dataset.split("all")) == 36


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"10", "9", "1"}, ("1", "9", "10")),
        ({"b", "a10", "a9"}, ("a10", "a9", "b")),
        ({"10", "9", "x"}, ("10", "9", "x")),
        ({"01", "1", "001", "2", "02", "002", "3", "03"}, ("001", "01", "1", "002", "02", "2", "03", "3")),
    ],
)
def test_classes_are_sorted_by_value_or_as_text(names: set[str], expected: tuple[str, ...]) -> None:
    assert sort_classes(names) == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found 0 subfolders and no images in them"),
        (["a.png", "b.png"], "found 2 images directly in it and no subfolders"),
        (["one/notes.txt", "two/notes.txt"], "found 2 subfolders and no images in them"),
    ],
    ids=["empty", "no classes", "no images"],
)
def test_a_folder_without_classes_says_what_it_holds(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PHOTO)
    with pytest.raises(DataError, match=f"wanted one subfolder of images for each class, {message}"):
        load_dataset(tmp_path)


def test_one_class_is_not_enough(make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match="wanted at least two classes, found only dark"):
        load_dataset(make_folder(classes=("dark",)))


def test_one_class_of_arrays_is_not_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=np.zeros((3, 4, 4)), labels=np.full(3, 7))
    with pytest.raises(DataError, match="wanted at least two classes, found only 7"):
        load_dataset(tmp_path / "mine.npz")


def test_a_class_missing_from_training_is_named(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("train", "test"))
    (root / "test" / "dim").mkdir()
    (root / "test" / "dim" / "a.png").write_bytes(PHOTO)
    with pytest.raises(DataError, match="no training samples of class dim; add some, or remove the class"):
        load_dataset(root)


def test_a_class_without_readable_images_is_named(make_folder: FolderMaker) -> None:
    root = make_folder()
    (root / "dim").mkdir()
    (root / "dim" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="no training samples of class dim"):
        load_dataset(root)


def test_a_split_without_readable_images_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("train", "test"), count=3)
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no readable images in test; add some, or remove the folder"):
        load_dataset(root)


def test_a_layout_without_training_is_refused(make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match=r"no training split; found test, val"):
        load_dataset(make_folder(splits=("test", "val"), count=2))


BAD_FILES = {
    "empty.png": (b"", "empty file (0 bytes)"),
    "cut.png": (PHOTO[: len(PHOTO) // 2], "damaged image"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "damaged image"),
    "text.png": (b"a shopping list", "not an image"),
}


@pytest.fixture
def damaged(make_folder: FolderMaker) -> Path:
    root = make_folder()
    for name, (content, _) in BAD_FILES.items():
        (root / "dark" / name).write_bytes(content)
    return root


def test_unreadable_files_are_skipped_and_listed(damaged: Path) -> None:
    dataset = load_dataset(damaged)
    reasons = {entry.file: entry.reason for entry in dataset.unreadable}
    assert set(reasons) == {f"dark/{name}" for name in BAD_FILES}
    assert all(reasons[f"dark/{name}"].startswith(reason) for name, (_, reason) in BAD_FILES.items())
    assert len(dataset.split("all")) == 24


def test_strict_reading_refuses_unreadable_files(damaged: Path) -> None:
    with pytest.raises(DataError, match=r"4 unreadable files, the first dark/cut\.jpg \(damaged.*leave out --strict"):
        load_dataset(damaged, config=DataConfig(strict=True))


def test_strict_reading_accepts_whole_files(make_folder: FolderMaker) -> None:
    assert len(load_dataset(make_folder(), config=DataConfig(strict=True)).split("all")) == 24


def test_a_folder_of_damaged_images_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder(count=2)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 4 images can be read; the first: dark/000\.png \(empty file"):
        load_dataset(root)


def test_npz_files_are_read_from_source_to_splits(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 4), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(40) % 4)
    dataset = load_dataset(tmp_path / "mine.npz")
    assert dataset.classes == ("0", "1", "2", "3")
    assert (dataset.channels, dataset.size, dataset.augmentation) == (1, (5, 4), "light")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 28, "val": 4, "test": 8}


def test_arrays_without_training_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x_test=np.zeros((3, 4, 4)), y_test=np.arange(3))
    with pytest.raises(DataError, match="no training split; found test"):
        load_dataset(tmp_path / "mine.npz")


def test_a_folder_of_idx_files_is_a_source(tmp_path: Path) -> None:
    dataset = load_dataset(write_mnist(tmp_path))
    assert dataset.made == {"val"}
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 30, "val": 10, "test": 20}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_named_sets_are_found_below_the_data_root(
    name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_download(name, monkeypatch, AssertionError("downloaded again"))
    write_mnist(tmp_path / DOWNLOADABLE[name].name / "raw", suffix=suffix)
    dataset = load_dataset(name, data_root=tmp_path)
    assert dataset.source == name
    assert dataset.classes == DOWNLOADABLE[name].classes
    assert dataset.augmentation == DOWNLOADABLE[name].augmentation
    assert dataset.splits["test"].samples.name(3) == f"{name}:test[3]"
    assert dataset.splits["test"].labels.tolist() == [*range(10), *range(10)]


def forbid_download(name: str, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, DOWNLOADABLE[name].name, fail)


@pytest.mark.parametrize("error", [RuntimeError("Error downloading\nTried ..."), URLError("no network")])
@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_without_files_and_network_the_remedy_is_named(
    name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_download(name, monkeypatch, error)
    folder = tmp_path / DOWNLOADABLE[name].name / "raw"
    with pytest.raises(DataError, match=f"could not be downloaded; put its IDX files into {folder}, or") as caught:
        load_dataset(name, data_root=tmp_path)
    assert "--data-root or FALCONET_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_set_is_downloaded_into_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, download: bool) -> None:
        assert download
        write_mnist(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    assert len(load_dataset("mnist", data_root=tmp_path / "new").split("all")) == 60


def test_a_named_set_with_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", classes=11)
    with pytest.raises(DataError, match="mnist: labels out of range: found 10, wanted 0 to 9"):
        load_dataset("mnist", data_root=tmp_path)


def test_a_named_set_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path / "MNIST" / "raw")
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: wanted 48 bytes .* found 45: truncated"):
        load_dataset("mnist", data_root=tmp_path)


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("mine", {"FALCONET_DATA": "theirs"}, "mine"),
        (None, {"FALCONET_DATA": "theirs", "XDG_CACHE_HOME": "cache"}, "theirs"),
        (None, {"XDG_CACHE_HOME": "cache"}, "cache/falconet/data"),
        (None, {"HOME": "home"}, "home/.cache/falconet/data"),
    ],
)
def test_the_data_root_is_the_nearest_that_was_said(
    given: str | None, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FALCONET_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_data_root(given) == Path(expected)


def test_reading_a_source_makes_no_splits(make_folder: FolderMaker, tmp_path: Path) -> None:
    assert list(read_source(str(make_folder()), tmp_path).splits) == ["train"]


@pytest.mark.parametrize("module", ["falconet.data", "falconet.data.checks", "falconet.data.augmentation"])
def test_importing_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('torch', 'torchvision') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checking_a_folder_does_not_import_torch(make_folder: FolderMaker) -> None:
    code = (
        "import sys; from falconet.data.checks import check_data; check_data(sys.argv[1]);print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, make_folder()], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
