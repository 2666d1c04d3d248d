"""From what a user wrote to a Dataset; each reader's own tests are elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from falconet.data import Columns, DataConfig, Dataset, ImageArray, load_dataset, sources
from falconet.data.dataset import sort_classes
from falconet.data.sources import find_data_root, read_dataset, read_source
from falconet.data.ts import read_ts
from falconet.errors import DataError, PathError, UnknownNameError
from falconet.spec import ModalityName
from tests.conftest import FolderMaker
from tests.data.builders import encode, make_dataset, make_split, write_mnist

JPEG = encode(Image.effect_noise((60, 50), 50), "JPEG")


def write_ts(path: Path, labels: str = "ababab") -> None:
    lines = [f"{index},{index + 1},2:{label}" for index, label in enumerate(labels)]
    header = ["@problemName made", "@timeStamps false", "@univariate true", "@classLabel true a b", "@data"]
    path.write_text("\n".join([*header, *lines]) + "\n")


def write_table(path: Path, rows: int = 12) -> None:
    lines = [f"{'ab'[row % 2]},some words and number {row}" for row in range(rows)]
    path.write_text("\n".join(["label,text", *lines]) + "\n")


def make_npz(root: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 4), dtype=np.uint8)
    np.savez(root / "mine.npz", images=images, labels=np.arange(40) % 4)
    return root / "mine.npz"


def make_ts(root: Path) -> Path:
    write_ts(root / "one.ts")
    return root / "one.ts"


def make_ts_folder(root: Path) -> Path:
    write_ts(root / "made_TRAIN.ts")
    write_ts(root / "made_TEST.ts", "ab")
    return root


def make_table(root: Path) -> Path:
    write_table(root / "reviews.csv")
    return root / "reviews.csv"


def make_table_folder(root: Path) -> Path:
    write_table(root / "train.csv")
    write_table(root / "test.csv", rows=4)
    return root


def make_cifar(root: Path) -> Path:
    records = np.zeros((20, 1 + 3072), dtype=np.uint8)
    records[:, 0], records[:, 1] = np.arange(20) % 10, np.arange(20)
    records.tofile(root / "data_batch_1.bin")
    return root


def make_recordings(root: Path) -> Path:
    for index in range(8):
        path = root / "ab"[index % 2] / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 30, "NONE", ""))
            file.writeframes(bytes([index]) * 60)
    return root


def make_texts(root: Path) -> Path:
    for index in range(8):
        path = root / "ab"[index % 2] / f"{index}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"number {index}")
    return root


@pytest.mark.parametrize(
    ("make", "kind", "own", "count"),
    [
        (make_npz, "image", {"train"}, 40),
        (write_mnist, "image", {"train", "test"}, 60),
        (make_cifar, "image", {"train"}, 20),
        (make_ts, "series", {"train"}, 6),
        (make_ts_folder, "series", {"train", "test"}, 8),
        (make_recordings, "series", {"train"}, 8),
        (make_table, "text", {"train"}, 12),
        (make_table_folder, "text", {"train", "test"}, 16),
        (make_texts, "text", {"train"}, 8),
    ],
)
def test_every_kind_of_source_is_read_and_split(
    make: object, kind: ModalityName, own: set[str], count: int, tmp_path: Path
) -> None:
    assert callable(make)
    source = make(tmp_path)
    dataset = load_dataset(source)
    assert (dataset.source, dataset.kind) == (str(source), kind)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert set(dataset.splits) - dataset.made_splits == own
    assert len(dataset.split("all")) == count
    assert len({dataset.split("all").samples.name(index) for index in range(count)}) == count
    assert set(read_source(str(source), tmp_path, DataConfig()).splits) == own


def test_digits_come_with_the_package() -> None:
    dataset = load_dataset("digits")
    assert (len(dataset.split("all")), dataset.classes, dataset.size) == (1797, tuple("0123456789"), (8, 8))
    assert dataset.made_splits == {"train", "val", "test"} - {"train"}


def test_a_folder_is_a_source(make_folder: FolderMaker) -> None:
    dataset = load_dataset(make_folder(count=10, splits=("train", "dev")))
    assert dataset.made_splits == {"test"}
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 16, "val": 20, "test": 4}


def test_the_hub_is_known_by_its_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: str, config: DataConfig) -> Dataset:
        assert (source, config.split_seed) == ("hf:owner/name", 7)
        return make_dataset(train=make_split([0, 1] * 10))

    monkeypatch.setattr(sources, "read_hub", read)
    assert len(load_dataset("hf:owner/name", config=DataConfig(split_seed=7)).split("all")) == 20


def test_a_name_comes_before_a_folder_of_that_name(
    make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder("digits")
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("digits").split("all")) == 1797
    assert len(load_dataset("./digits").split("all")) == 24


def test_a_named_set_is_looked_for_below_the_data_root(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    assert load_dataset("mnist", data_root=tmp_path).splits["test"].samples.name(3) == "mnist:test[3]"


def test_what_is_meant_can_be_said(tmp_path: Path, make_folder: FolderMaker) -> None:
    (tmp_path / "table.csv").write_text("kind,text,note\n" + "".join(f"{'xy'[k % 2]},{k},{k % 3}\n" for k in range(12)))
    config = DataConfig(kind="text", columns=Columns(label="note", text="kind"))
    dataset = load_dataset(tmp_path / "table.csv", config=config)
    assert dataset.classes == ("0", "1", "2")
    root = make_texts(make_folder(classes=("a", "b"), count=20))
    assert [load_dataset(root, config=DataConfig(kind=kind)).kind for kind in (None, "text")] == ["image", "text"]


def test_the_settings_reach_the_splits(make_folder: FolderMaker) -> None:
    root = make_folder(count=20)
    large, other = (load_dataset(root, config=DataConfig(test_fraction=0.4, split_seed=seed)) for seed in (0, 1))
    assert len(large.splits["test"]) == 16
    assert (large.split_seed, other.split_seed) == (0, 1)
    assert set(large.splits["test"].hashes.tolist()) != set(other.splits["test"].hashes.tolist())


def test_several_problems_in_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("one.ts", "two_TRAIN.ts", "two_TEST.ts"):
        write_ts(tmp_path / name)
    with pytest.raises(DataError, match=r"wanted one problem of series, found one\.ts, two_TRAIN\.ts: name one"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("digts", UnknownNameError, r"unknown source 'digts': did you mean digits\?"),
        ("no/such/folder", PathError, "no such file or folder: no/such/folder"),
        ("missing.npz", PathError, "no such file or folder: missing.npz"),
    ],
)
def test_what_is_not_there_is_told(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_dataset(source)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.xlsx").touch()
    with pytest.raises(PathError, match=r"found a file \.xlsx"):
        load_dataset(tmp_path / "table.xlsx")


def test_one_class_is_not_enough(make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match="wanted at least two classes, found one, 'dark'"):
        load_dataset(make_folder(classes=("dark",)))


def test_one_class_of_arrays_is_not_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=np.zeros((3, 4, 4)), labels=np.full(3, 7))
    with pytest.raises(DataError, match="wanted at least two classes, found one, '7'"):
        load_dataset(tmp_path / "mine.npz")


def test_a_class_missing_from_training_is_named(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("train", "test"))
    (root / "test" / "dim").mkdir()
    (root / "test" / "dim" / "a.jpg").write_bytes(JPEG)
    with pytest.raises(DataError, match="no training samples of class dim; add some, or remove the class"):
        load_dataset(root)


def test_a_class_without_readable_images_is_named(make_folder: FolderMaker) -> None:
    root = make_folder()
    (root / "dim").mkdir()
    (root / "dim" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no training samples of class dim; 1 skipped, the first: dim/"):
        load_dataset(root)


@pytest.fixture
def damaged(make_folder: FolderMaker) -> Path:
    """A folder with a file that is empty and one whose header alone is whole."""
    root = make_folder(mode="L")
    (root / "dark" / "cut.jpg").write_bytes(JPEG[:-200])
    (root / "light" / "empty.png").write_bytes(b"")
    return root


def test_a_file_with_a_good_header_is_kept_until_it_is_decoded(damaged: Path) -> None:
    dataset = load_dataset(damaged)
    assert [(entry.file, entry.reason) for entry in dataset.unreadable] == [("light/empty.png", "empty file (0 bytes)")]
    assert len(dataset.split("all")) == 25


def test_strict_reading_decodes_everything_and_refuses_unreadable_files(damaged: Path) -> None:
    with pytest.raises(
        DataError, match=r"2 unreadable files, the first light/empty\.png \(empty file.*leave out strict"
    ):
        load_dataset(damaged, config=DataConfig(strict=True))
    (damaged / "light" / "empty.png").unlink()
    with pytest.raises(DataError, match=r"1 unreadable files, the first dark/cut\.jpg \(damaged image"):
        load_dataset(damaged, config=DataConfig(strict=True))


def test_strict_reading_accepts_whole_files(make_folder: FolderMaker) -> None:
    assert len(load_dataset(make_folder(), config=DataConfig(strict=True)).split("all")) == 24


def test_arrays_are_read_from_source_to_splits(tmp_path: Path) -> None:
    dataset = load_dataset(make_npz(tmp_path))
    assert (dataset.classes, dataset.channels, dataset.size) == (("0", "1", "2", "3"), 1, (5, 4))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 28, "val": 4, "test": 8}
    assert isinstance(dataset.splits["val"].samples, ImageArray)


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


LARGE = ("torch", "torchvision", "pyarrow", "datasets", "tokenizers", "PIL", "scipy")


def list_large_imports(code: str, *arguments: object) -> set[str]:
    """Run Python and return which large packages it has imported in the end."""
    code += f"\nimport sys; print(*[name for name in {LARGE!r} if name in sys.modules])"
    root = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **root},
    )
    return set(done.stdout.split())


def test_importing_the_readers_imports_nothing_large() -> None:
    modules = ("falconet.data", "falconet.data.checks", "falconet.data.augmentation", "falconet.data.files")
    assert list_large_imports(f"import {', '.join(modules)}") == set()


def test_checking_a_folder_does_not_import_torch(make_folder: FolderMaker) -> None:
    code = "import sys; from falconet.data.checks import check_data; check_data(sys.argv[1])"
    assert "torch" not in list_large_imports(code, make_folder())


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "valid"), ("",)])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_pictures_with_a_table_beside_them_are_read(splits: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    for split in splits:
        (tmp_path / split).mkdir(exist_ok=True)
        for index in range(12):
            Image.new("L", (4, 3), 20 * index).save(tmp_path / split / f"{index}.png")
        rows = [(f"{index}.png", "cat" if index % 2 else "dog") for index in range(12)]
        lines = [f'{{"file_name": "{name}", "label": "{label}"}}' for name, label in rows]
        if suffix == "csv":
            lines = ["file_name,label", *(",".join(row) for row in rows)]
        (tmp_path / split / f"metadata.{suffix}").write_text("\n".join(lines) + "\n")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert sum(len(split) for split in dataset.splits.values()) == 12 * len(splits)
    assert not dataset.unreadable
    samples = dataset.splits["train"].samples
    for index in range(len(samples)):
        assert samples.read(index)[0, 0, 0] == 20 * int(Path(samples.name(index)).stem)


@pytest.mark.parametrize("name", ["TEXTS.CSV", "Texts.Tsv", "T.JSONL"])
def test_names_in_capitals_are_tables_too(name: str, tmp_path: Path) -> None:
    rows = [(f"good tea number {index}", "ab"[index % 2]) for index in range(12)]
    mark = "\t" if name.endswith("Tsv") else ","
    lines = ["text" + mark + "label", *(mark.join(row) for row in rows)]
    if name.endswith("JSONL"):
        lines = [f'{{"text": "{text}", "label": "{label}"}}' for text, label in rows]
    (tmp_path / name).write_text("\n".join(lines))
    assert load_dataset(tmp_path / name).classes == ("a", "b")


def test_a_npz_in_capitals_is_read(tmp_path: Path) -> None:
    with (tmp_path / "X.NPZ").open("wb") as file:
        np.savez(file, images=np.zeros((12, 4, 4), np.uint8), labels=np.arange(12) % 2)
    assert len(load_dataset(tmp_path / "X.NPZ").classes) == 2


def test_classes_that_look_alike_are_reported(tmp_path: Path) -> None:
    labels = ["Cat", "cat", "hot dog", "Hot_Dog", "A", "a", "dog", "\uff44\uff4f\uff47"]
    rows = [f"a picture of number {number},{labels[number % 8]}\n" for number in range(80)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    assert load_dataset(tmp_path / "t.csv").notes == (
        "classes that look alike: 'Cat', 'cat'; where they are one, give them one name",
        "classes that look alike: 'Hot_Dog', 'hot dog'; where they are one, give them one name",
        "classes that look alike: 'dog', '\uff44\uff4f\uff47'; where they are one, give them one name",
    )


def test_a_class_of_files_that_are_not_read_says_which(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.avif", "b/2.avif", "b/3.avif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(Image.new("L", (4, 4), 9)))
    with pytest.raises(
        DataError, match=r"samples of class b; found in the folder of b: 3 \.avif \(not read: convert them to \.jpg"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["x_TRAIN.ts", "x.ts"])
def test_a_pipe_beside_series_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="not a regular file"):
        read_ts(tmp_path / name)


def test_names_of_skipped_files_can_be_written_anywhere(tmp_path: Path) -> None:
    for name in (b"a/1.png", b"a/caf\xe9.png", b"b/1.png", b"b/caf\xc3\xa9.png"):
        path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118 - no Path is made of bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(encode(Image.new("L", (4, 4), 9)) if b"1" in name else b"")
    dataset = read_dataset(tmp_path, config=DataConfig())
    assert [item.file for item in dataset.unreadable] == ["a/caf\\xe9.png", "b/caf\u00e9.png"]
