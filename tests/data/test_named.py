from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from falconet.catalog import DOWNLOADABLE
from falconet.data import ImageArray
from falconet.data.dataset import hash_arrays
from falconet.data.named import find_cifar_binaries, from_arrays, read_cifar_binaries, read_named
from falconet.data.splits import DataConfig, complete_splits
from falconet.errors import DataError, MissingExtraError
from tests.data.builders import make_split, write_idx, write_mnist

IDX_SETS = ("mnist", "fashion-mnist", "kmnist")
FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}


def make_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def write_records(path: Path, images: np.ndarray, *labels: np.ndarray) -> None:
    """Write CIFAR's binary version: label bytes, then the red, green and blue plane, each row by row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for image, *numbers in zip(images, *labels, strict=True):
            file.write(bytes(int(number) for number in numbers))
            for channel in range(3):
                file.write(image[..., channel].tobytes())


def write_cifar10(folder: Path, count: int = 20) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a small CIFAR-10 in five files and one; return images and labels by split."""
    train, test = make_images(5 * count), make_images(count, seed=1)
    labels, test_labels = np.arange(5 * count) * 3 % 10, np.arange(count) % 10
    for number in range(5):
        part = slice(number * count, (number + 1) * count)
        write_records(folder / f"data_batch_{number + 1}.bin", train[part], labels[part])
    write_records(folder / "test_batch.bin", test, test_labels)
    return {"train": (train, labels), "test": (test, test_labels)}


def write_cifar100(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    train, test, fine = make_images(100), make_images(100, seed=1), np.arange(100)
    write_records(folder / "train.bin", train, fine // 5, fine)
    write_records(folder / "test.bin", test, fine // 5, fine[::-1])
    return {"train": (train, fine), "test": (test, fine[::-1])}


def forbid_download(name: str, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, DOWNLOADABLE[name].name, fail)


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    reference = load_digits()
    dataset = read_named("digits", tmp_path)
    assert list(dataset.splits) == ["train"]
    split = dataset.splits["train"]
    assert np.array_equal(split.labels, reference.target)
    assert isinstance(split.samples, ImageArray)
    assert np.array_equal(np.round(split.samples.images[..., 0] / (255 / 16)), reference.images)
    assert split.samples.images.max() == 255
    assert split.samples.name(12) == "digits[12]"
    assert dataset.classes == tuple("0123456789")
    assert (dataset.kind, dataset.channels, dataset.size) == ("image", 1, (8, 8))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", IDX_SETS)
def test_sets_of_idx_files_are_found_below_the_data_root(
    name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_download(name, monkeypatch, AssertionError("downloaded again"))
    write_mnist(tmp_path / DOWNLOADABLE[name].name / "raw", suffix=suffix)
    dataset = read_named(name, tmp_path)
    assert dataset.source == name
    assert dataset.classes == DOWNLOADABLE[name].classes
    assert (dataset.kind, dataset.channels, dataset.size) == ("image", 1, (6, 5))
    assert dataset.splits["test"].samples.name(3) == f"{name}:test[3]"
    assert dataset.splits["test"].labels.tolist() == [*range(10), *range(10)]


def write_emnist(folder: Path, suffix: str = "", count: int = 94) -> np.ndarray:
    """Write upright images as EMNIST stores them, beside another of its six splits; return them."""
    upright = np.random.default_rng(0).integers(0, 256, (count, 6, 5), dtype=np.uint8)
    for part in ("balanced-train", "balanced-test", "letters-train"):
        write_idx(folder / f"emnist-{part}-images-idx3-ubyte{suffix}", upright.transpose(0, 2, 1))
        write_idx(folder / f"emnist-{part}-labels-idx1-ubyte{suffix}", np.arange(count) % 47)
    return upright


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_letters_are_turned_upright(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_download("emnist", monkeypatch, AssertionError("downloaded again"))
    upright = write_emnist(tmp_path / "EMNIST" / "raw", suffix)
    dataset = read_named("emnist", tmp_path)
    assert set(dataset.splits) == {"train", "test"}
    for split in dataset.splits.values():
        images = np.stack([split.samples.read(index)[..., 0] for index in range(len(split))])
        assert np.array_equal(images, upright)
        assert split.hashes.tolist() == hash_arrays(upright).tolist()
    assert dataset.size == (6, 5)
    assert [dataset.classes[index] for index in (9, 10, 35, 36, 46)] == ["9", "A", "Z", "a", "t"]


@pytest.mark.parametrize("error", [RuntimeError("Error downloading\nTried ..."), URLError("no network")])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mnist", "put its IDX files into {root}/MNIST/raw, or"),
        ("fashion-mnist", "put its IDX files into {root}/FashionMNIST/raw, or"),
        ("kmnist", "put its IDX files into {root}/KMNIST/raw, or"),
        ("emnist", "put its IDX files into {root}/EMNIST/raw, or"),
        ("cifar10", "unpack its binary or Python version into {root}, which gives cifar-10-batches-bin there, or"),
        ("cifar100", "unpack its binary or Python version into {root}, which gives cifar-100-binary there, or"),
        ("svhn", r"put train_32x32\.mat and test_32x32\.mat into {root}, or"),
    ],
)
def test_without_files_and_network_the_remedy_is_named(
    name: str, remedy: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_download(name, monkeypatch, error)
    message = f"{name} is not in {tmp_path} and could not be downloaded; {remedy.format(root=tmp_path)}"
    with pytest.raises(DataError, match=message) as caught:
        read_named(name, tmp_path)
    assert "--data-root or FALCONET_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("mnist", lambda root: write_mnist(root / "MNIST" / "raw")),
        ("emnist", lambda root: write_emnist(root / "EMNIST" / "raw")),
    ],
)
def test_a_missing_set_is_downloaded_into_the_data_root(
    name: str, write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def fetch(root: str, **options: Any) -> None:
        asked.append(options)
        write(Path(root))

    monkeypatch.setattr(torchvision.datasets, DOWNLOADABLE[name].name, fetch)
    assert set(read_named(name, tmp_path / "new").splits) == {"train", "test"}
    assert asked == [{"download": True} | ({"split": "balanced"} if name == "emnist" else {})]


def test_an_incomplete_set_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_download("mnist", monkeypatch, RuntimeError("asked"))
    (write_mnist(tmp_path / "MNIST" / "raw") / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"\(asked\)"):
        read_named("mnist", tmp_path)


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", classes=11)
    with pytest.raises(DataError, match="mnist: labels out of range: found 10, wanted 0 to 9"):
        read_named("mnist", tmp_path)


def test_a_set_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    labels = write_mnist(tmp_path / "MNIST" / "raw") / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-3])
    with pytest.raises(
        DataError, match=r"train-labels-idx1-ubyte: wanted 40 values for shape \(40,\), found 37: truncated"
    ):
        read_named("mnist", tmp_path)


@pytest.mark.parametrize(("name", "write"), [("cifar10", write_cifar10), ("cifar100", write_cifar100)])
def test_the_binary_version_of_cifar_is_read_by_name_and_by_path(
    name: str,
    write: Callable[[Path], dict[str, tuple[np.ndarray, np.ndarray]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbid_download(name, monkeypatch, AssertionError("downloaded again"))
    folder = tmp_path / FOLDERS[name]
    written = write(folder)
    assert find_cifar_binaries(folder)
    for source, dataset in ((name, read_named(name, tmp_path)), ("mine", read_cifar_binaries(folder, "mine"))):
        assert dataset.source == source
        assert dataset.classes == DOWNLOADABLE[name].classes
        assert (dataset.kind, dataset.channels, dataset.size) == ("image", 3, (32, 32))
        for split, (images, labels) in written.items():
            samples = dataset.splits[split].samples
            assert isinstance(samples, ImageArray)
            assert np.array_equal(samples.images, images)
            assert np.array_equal(dataset.splits[split].labels, labels)
            assert samples.name(12) == f"{source}:{split}[12]"
            assert np.array_equal(dataset.splits[split].hashes, hash_arrays(images))


def test_records_are_what_torchvision_reads_of_the_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python version holds the same planes in rows of 3,072; torchvision turns them into images."""
    written = write_cifar10(tmp_path / "bin")
    parts = {
        name: (images.transpose(0, 3, 1, 2).reshape(-1, 3072), labels) for name, (images, labels) in written.items()
    }
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", make_pickled_cifar(tmp_path / "py", parts))
    ours, theirs = read_cifar_binaries(tmp_path / "bin", "cifar10"), read_named("cifar10", tmp_path / "py")
    assert ours.fingerprint == theirs.fingerprint
    assert theirs.classes == ours.classes
    assert theirs.splits["test"].samples.name(3) == "cifar10:test[3]"


def make_pickled_cifar(root: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> type:
    """Write the Python version of one file a split, and return torchvision's class with the checksums of these."""
    import hashlib
    import pickle

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    contents = {
        split: pickle.dumps({"data": rows, "labels": labels.tolist()}) for split, (rows, labels) in parts.items()
    }
    contents["batches.meta"] = pickle.dumps({"label_names": list(DOWNLOADABLE["cifar10"].classes)})
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    sums = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}

    class Small(torchvision.datasets.CIFAR10):  # type: ignore[misc]
        train_list = (["train", sums["train"]],)
        test_list = (["test", sums["test"]],)
        meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}  # noqa: RUF012

        def download(self) -> None:
            if not self._check_integrity():
                raise RuntimeError("no network")

    return Small


def test_altered_pickles_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {split: (np.zeros((10, 3072), dtype=np.uint8), np.arange(10)) for split in ("train", "test")}
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", make_pickled_cifar(tmp_path, parts))
    assert len(read_named("cifar10", tmp_path).splits["train"]) == 10
    # Protocol 0: a call of os.getpid, were it read.
    (tmp_path / "cifar-10-batches-py" / "train").write_bytes(b"cos\ngetpid\n(tR.")
    with pytest.raises(DataError, match=r"cifar10 is not in .* \(no network\)"):
        read_named("cifar10", tmp_path)


def test_a_named_cifar_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_download("cifar10", monkeypatch, RuntimeError("asked"))
    folder = tmp_path / FOLDERS["cifar10"]
    write_cifar10(folder)
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"\(asked\)"):
        read_named("cifar10", tmp_path)
    assert len(read_cifar_binaries(folder, "part").splits["train"]) == 80


def test_a_folder_of_records_needs_no_test_file_and_no_more_than_one_batch(tmp_path: Path) -> None:
    write_records(tmp_path / "data_batch_7.bin", make_images(10), np.arange(10))
    assert find_cifar_binaries(tmp_path)
    dataset = read_cifar_binaries(tmp_path, "mine")
    assert list(dataset.splits) == ["train"]
    assert dataset.splits["train"].samples.name(3) == "mine[3]"


def test_batches_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        write_records(tmp_path / f"data_batch_{number}.bin", make_images(1), np.array([number % 10]))
    assert read_cifar_binaries(tmp_path, "mine").splits["train"].labels.tolist() == [2, 9, 0]


def test_pipes_called_like_records_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data_batch_1.bin")
    with pytest.raises(DataError, match=r"data_batch_1\.bin: not a regular file"):
        read_cifar_binaries(tmp_path, "mine")


def test_records_are_read_up_to_a_limit(tmp_path: Path) -> None:
    write_records(tmp_path / "data_batch_1.bin", make_images(2), np.array([1, 0]))
    write_records(tmp_path / "test_batch.bin", make_images(1), np.array([1]))
    assert len(read_cifar_binaries(tmp_path, "mine", 3 * 3073).splits["train"]) == 2
    with pytest.raises(DataError, match=r"wanted at most 9,218 bytes in memory, found 9,219 .* data\.max_bytes="):
        read_cifar_binaries(tmp_path, "mine", 3 * 3073 - 1)


@pytest.mark.parametrize("ending", ["\n\n", ""])
def test_class_names_are_those_beside_the_records(ending: str, tmp_path: Path) -> None:
    write_records(tmp_path / "data_batch_1.bin", make_images(2), np.array([1, 0]))
    (tmp_path / "batches.meta.txt").write_text(f"left\r\nright{ending}")
    assert read_cifar_binaries(tmp_path, "mine").classes == ("left", "right")
    write_records(tmp_path / "data_batch_1.bin", make_images(2), np.array([2, 0]))
    with pytest.raises(DataError, match="mine: labels out of range: found 2, wanted 0 to 1"):
        read_cifar_binaries(tmp_path, "mine")


def test_fine_class_names_are_those_beside_the_records(tmp_path: Path) -> None:
    write_records(tmp_path / "train.bin", make_images(2), np.array([9, 9]), np.array([1, 0]))
    assert not find_cifar_binaries(tmp_path)
    (tmp_path / "fine_label_names.txt").write_text("left\nright\n")
    assert find_cifar_binaries(tmp_path)
    assert read_cifar_binaries(tmp_path, "mine").classes == ("left", "right")


@pytest.mark.parametrize("files", [[], ["data_batch_1"], ["data_batch_x.bin"], ["test.bin"], ["xdata_batch_1.bin"]])
def test_other_folders_are_no_cifar(files: list[str], tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).touch()
    assert not find_cifar_binaries(tmp_path)


@given(st.integers(0, 3) | st.integers(3072, 3075) | st.integers(6145, 6149), st.booleans())
@settings(deadline=None, max_examples=25)
def test_files_of_other_sizes_than_whole_records_are_refused(
    tmp_path_factory: pytest.TempPathFactory, size: int, hundred: bool
) -> None:
    folder = tmp_path_factory.mktemp("records")
    (folder / ("train.bin" if hundred else "data_batch_1.bin")).write_bytes(bytes(size))
    record = 3074 if hundred else 3073
    if size and size % record == 0:
        assert len(read_cifar_binaries(folder, "mine").splits["train"]) == size // record
    else:
        with pytest.raises(DataError, match=f"wanted records of {record:,} bytes, found {size:,}: truncated"):
            read_cifar_binaries(folder, "mine")


class FakeSvhn:
    """Stands for torchvision's SVHN, with its parameters and attributes."""

    def __init__(self, root: str, split: str, download: bool) -> None:
        assert download
        assert Path(root).name == "data"
        count = {"train": 20, "test": 10}[split]
        self.data = make_images(count, seed=count).transpose(0, 3, 1, 2)
        self.labels = np.arange(count) % 10


def test_house_numbers_come_from_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "SVHN", FakeSvhn)
    dataset = read_named("svhn", tmp_path / "data")
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 20, "test": 10}
    assert dataset.classes == tuple("0123456789")
    assert np.array_equal(dataset.splits["test"].samples.read(3), make_images(10, seed=10)[3])
    assert dataset.splits["test"].labels.tolist() == list(range(10))
    assert dataset.splits["test"].samples.name(3) == "svhn:test[3]"


def test_house_numbers_need_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reading svhn needs .*falconet\[hub\]"):
        read_named("svhn", tmp_path)


def test_house_numbers_in_matlab_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    from scipy.io import savemat

    images, lists = make_images(10), {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        # As published: images last, and 10 for the digit 0.
        savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
        lists[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
    dataset = read_named("svhn", tmp_path)
    assert dataset.splits["train"].labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert np.array_equal(dataset.splits["train"].samples.read(4), images[4])


def test_arrays_without_training_are_refused_for_training() -> None:
    dataset = from_arrays("mine", "image", {"test": make_split([0, 1])}, ("a", "b"))
    with pytest.raises(DataError, match="mine: no training split; found test"):
        complete_splits(dataset, DataConfig())


def test_arrays_have_the_channels_of_the_most_colorful_split() -> None:
    splits = {"train": make_split([0, 1], size=(4, 5)), "test": make_split([0], channels=3)}
    dataset = from_arrays("mine", "image", splits, ("a", "b"))
    assert (dataset.source, dataset.classes, dataset.channels, dataset.size) == ("mine", ("a", "b"), 3, (4, 5))


def test_arrays_of_series_are_wrapped() -> None:
    from falconet.data.series import split_series

    series = [np.zeros((2, steps), dtype=np.float32) for steps in (5, 7, 30)]
    split = split_series(series, np.array(["x", "y", "z"]), np.array([0, 1, 0]))
    dataset = from_arrays("mine", "series", {"train": split}, ("a", "b"))
    assert (dataset.kind, dataset.channels, dataset.size) == ("series", 2, (7,))


def test_reading_files_imports_no_torch(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    code = (
        "import sys; from pathlib import Path; from falconet.data.named import read_named;"
        "read_named('mnist', Path(sys.argv[1])); print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
