"""Tables as sources: which column holds what, and what becomes of the rows."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from falconet.data.cells import head
from falconet.data.dataset import Dataset, Unreadable, hash_bytes
from falconet.data.manifests import find_metadata, find_split_tables, read_manifest, read_table_folder
from falconet.data.sources import load_dataset, read_dataset
from falconet.data.splits import Columns, DataConfig, complete_splits
from falconet.errors import ConfigError, DataError
from tests.data.builders import encode

INTENTS = ["card_arrival", "exchange_rate", "lost_card"]
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)


def write(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write columns as a table of the format that the name says."""
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8", newline="")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([list(columns), *rows])
    return path


def read(path: Path, kind: Any = None, follow: bool = False, **columns: str) -> Dataset:
    config = DataConfig(kind=kind, follow=follow, columns=Columns(**columns))
    return read_table_folder(path, config) if path.is_dir() else read_manifest(path, config)


def list_samples(dataset: Dataset, split: str = "train") -> list[tuple[Any, str]]:
    """Return samples and class names of a split."""
    found = dataset.splits[split]
    return [(found.samples.read(index), dataset.classes[label]) for index, label in enumerate(found.labels)]


def write_banking(folder: Path, suffix: str = ".csv") -> Path:
    """Write questions and intents as BANKING77 has them."""
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 9), ("test", 6)):
        texts = [f"{split} question {index}, isn't it?" for index in range(count)]
        write(folder / f"{split}{suffix}", {"text": texts, "category": [INTENTS[index % 3] for index in range(count)]})
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_folder_of_split_tables(tmp_path: Path, suffix: str) -> None:
    folder = write_banking(tmp_path / "banking", suffix)
    (folder / "README.md").write_text("questions")
    (folder / "categories.json").write_text("[]")
    (folder / ".hidden").write_text("")
    dataset = read(folder)
    assert dataset.kind == "text"
    assert dataset.classes == tuple(INTENTS)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 9, "test": 6}
    assert list_samples(dataset, "test")[4] == ("test question 4, isn't it?", "exchange_rate")
    first = 2 if suffix in {".csv", ".tsv"} else 1
    assert dataset.splits["test"].samples.name(4) == f"test{suffix}:{first + 4}"
    assert dataset.columns == {"label": "category", "text": "text"}
    assert dataset.ignored == {".json": 1, ".md": 1}
    assert (dataset.source, dataset.channels, dataset.size) == (str(folder), 1, (27,))
    completed = complete_splits(dataset, DataConfig())
    assert completed.made_splits == {"val"}


@pytest.mark.slow
@settings(deadline=None)
@given(texts=st.lists(WORDS, min_size=2, max_size=6), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_texts_of_any_alphabet_are_kept(texts: list[str], suffix: str) -> None:
    with TemporaryDirectory() as folder:
        labels = ["é", "日本"] * len(texts)
        path = write(Path(folder) / f"t{suffix}", {"text": texts, "label": labels[: len(texts)]})
        dataset = read(path, text="text")
    assert list_samples(dataset) == list(zip(texts, labels, strict=False))
    hashes = dataset.splits["train"].hashes
    assert hashes.tolist() == [hash_bytes(text.encode()) for text in texts]


def test_windows_file_with_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufefftext;label\r\n"größer; schöner";a\r\nzwei;b\r\n'.encode())
    assert list_samples(read(path)) == [("größer; schöner", "a"), ("zwei", "b")]


def test_rows_that_cannot_be_used_are_listed_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'text,label\nfine,a\n" ",a\nno label,\nna\x81ve,a\nshort\nfine too,b\n')
    dataset = read(path)
    assert list_samples(dataset) == [("fine", "a"), ("fine too", "b")]
    assert dataset.unreadable == (
        Unreadable("t.csv:3", "empty text"),
        Unreadable("t.csv:4", "no label"),
        Unreadable("t.csv:5", "invalid UTF-8"),
        Unreadable("t.csv:6", "wanted 2 cells, found 1"),
    )
    assert dataset.splits["train"].samples.name(1) == "t.csv:7"


def test_equal_numbers_are_one_class_however_they_are_written(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"text": list("abcdef"), "label": [1, "1", 1.0, "1.0", None, 2]})
    dataset = read(path)
    assert dataset.classes == ("1", "2")
    assert dataset.splits["train"].labels.tolist() == [0, 0, 0, 0, 1]
    assert dataset.unreadable == (Unreadable("t.jsonl:5", "no label"),)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([True, False, True], ("False", "True")),
        (["007", "7", "10.0"], ("007", "7", "10")),
        (["1.0", "1.5", "1"], ("1", "1.5")),
        ([10, 9, 2.0], ("2", "9", "10")),
        ([["a"], "b", "c"], ("b", "c")),
        ([" b", "b ", "c"], ("b", "c")),
    ],
)
def test_class_names(tmp_path: Path, labels: list[Any], classes: tuple[str, ...]) -> None:
    assert read(write(tmp_path / "t.jsonl", {"text": ["x", "y", "z"], "label": labels})).classes == classes


def test_numbers_are_spelled_alike_over_all_tables(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["x", "y"], "label": ["1", "2"]})
    write(tmp_path / "test.csv", {"text": ["x", "y"], "label": ["1.0", ""]})
    dataset = read(tmp_path)
    assert dataset.classes == ("1", "2")
    assert dataset.splits["test"].labels.tolist() == [0]


def test_class_that_only_the_test_split_has(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["x", "y"], "label": ["a", "b"]})
    write(tmp_path / "dev.csv", {"text": ["x", "y"], "label": ["a", "c"]})
    dataset = read(tmp_path)
    assert dataset.classes == ("a", "b", "c")
    assert list_samples(dataset, "val") == [("x", "a"), ("y", "c")]


def test_column_of_splits(tmp_path: Path) -> None:
    columns = {
        "text": ["p", "q", "r", "s", "t"],
        "label": ["a", "b", "a", "b", "a"],
        "Split": ["train", "TRAIN", "dev", "test", ""],
    }
    dataset = read(write(tmp_path / "t.csv", columns))
    assert {name: list_samples(dataset, name) for name in dataset.splits} == {
        "train": [("p", "a"), ("q", "b")],
        "val": [("r", "a")],
        "test": [("s", "b")],
    }
    assert dataset.columns == {"label": "label", "split": "Split", "text": "text"}
    assert dataset.unreadable == (Unreadable("t.csv:6", "no split"),)


def test_column_that_is_only_called_like_splits_is_none(tmp_path: Path) -> None:
    columns = {"text": ["p", "q"], "label": ["a", "b"], "fold": ["1", "2"]}
    path = write(tmp_path / "t.csv", columns)
    assert set(read(path).splits) == {"train"}
    with pytest.raises(DataError, match="column fold: wanted train, val or test, found 1, 2; rename them"):
        read(path, split="fold")


def test_column_of_splits_without_training(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"text": ["p", "q"], "label": ["a", "b"], "split": ["test", "val"]})
    assert {name: len(split) for name, split in read(path).splits.items()} == {"val": 1, "test": 1}
    with pytest.raises(DataError, match="no training split; found val, test"):
        load_dataset(path)


def test_a_table_of_one_split_has_no_other(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["p", "q"], "label": ["a", "b"], "split": ["test", "val"]})
    dataset = read(tmp_path)
    assert set(dataset.splits) == {"train"}
    assert dataset.columns == {"label": "label", "text": "text"}


def test_groups(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "text": list("pqrst"),
        "label": list("abaab"),
        "person": ["ann", "bob", "ann", None, None],
    }
    groups = read(write(tmp_path / "t.parquet", columns), group="person").splits["train"].group_names
    assert groups is not None
    assert groups[0] == groups[2] == hash_bytes(b"ann")
    assert len(set(groups.tolist())) == 4
    assert read(tmp_path / "t.parquet").splits["train"].groups is None


@pytest.mark.parametrize(
    ("columns", "roles"),
    [
        ({"Sentence": ["p q", "r s"], "LABEL": [0, 1]}, {"label": "LABEL", "text": "Sentence"}),
        (
            {"Class Index": [1, 2], "Title": ["p", "q"], "Story": ["long p", "long q"]},
            {"label": "Class Index", "text": "Story"},
        ),
        ({"utterance": ["p", "q"], "intent": ["a", "b"], "label": [3, 4]}, {"label": "label", "text": "utterance"}),
        ({"file": ["1.txt", "2.txt"], "text": ["p", "q"], "y": ["a", "b"]}, {"label": "y", "text": "text"}),
        ({"text": [1, 2], "words": ["p q", "r s"], "target": [1, 2]}, {"label": "target", "text": "words"}),
        (
            {"words": [f"some text {i}" for i in range(6)], "sort": list("ababab"), "n": list(range(6))},
            {"label": "sort", "text": "words"},
        ),
    ],
)
def test_roles_of_text_tables(tmp_path: Path, columns: dict[str, list[Any]], roles: dict[str, str]) -> None:
    for suffix in (".csv", ".jsonl"):
        dataset = read(write(tmp_path / f"t{suffix}", columns))
        assert (dataset.kind, dataset.columns) == ("text", roles)


def test_y_is_a_label_only_with_few_values(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"x": [1.5, 2.5, 3.5, 4.5], "y": [0.1, 0.2, 0.3, 0.4], "gesture": list("abab")}
    assert read(write(tmp_path / "t.csv", columns)).columns == {"label": "gesture"}
    columns["y"] = [0, 1, 0, 1]
    assert read(write(tmp_path / "t.csv", {**columns, "gesture": [1, 2, 3, 4]})).columns == {"label": "y"}


def test_configured_columns_go_before_guessed_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"text": ["p", "q"], "label": ["a", "b"], "title": ["r", "s"], "sort": ["c", "d"]})
    dataset = read(path, text="title", label="sort")
    assert dataset.columns == {"label": "sort", "text": "title"}
    assert list_samples(dataset) == [("r", "c"), ("s", "d")]


def test_configured_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"text": ["p", "q"], "label": ["a", "b"]})
    with pytest.raises(
        ConfigError, match=r"data\.columns\.label: t\.csv: unknown column 'lable': did you mean label\?"
    ):
        read(path, label="lable")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": ["p", "q", "r"], "title": ["s", "t", "u"]},
            "wanted a column of labels, found text, title; name it: set data.columns.label=NAME",
        ),
        (
            {"text": list("pqrs"), "one": list("abab"), "two": list("aabb")},
            "several that could be: one, two; name it: set data.columns.label=NAME",
        ),
        ({"label": ["a", "b"], "number": [1, 2]}, "wanted texts, paths or series in its columns, found label, number"),
    ],
)
def test_tables_without_labels_or_samples(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path / "t.csv", columns))
    assert "set data.columns." in str(caught.value)


def test_only_unusable_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"text": ["", " "], "label": ["a", "b"]})
    with pytest.raises(DataError, match=r"found none; 2 skipped, the first: t\.csv:2 \(empty text\)"):
        read(path, text="text")


def test_test_table_without_labels_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["p", "q"], "label": ["a", "b"]})
    write(tmp_path / "test.csv", {"text": ["p", "q"]})
    dataset = read(tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2}
    assert dataset.notes == ("test.csv: left out: it has no column 'label'",)


def test_test_table_without_samples(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["p", "q"], "label": ["a", "b"]})
    write(tmp_path / "test.csv", {"label": ["a", "b"]})
    with pytest.raises(DataError, match=r"test\.csv: wanted the columns of train\.csv, found no text; add"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train.csv", "test.jsonl", "valid.tsv"], {"train": "train.csv", "test": "test.jsonl", "val": "valid.tsv"}),
        (["Train.CSV", "Validation.parquet"], {"train": "Train.CSV", "val": "Validation.parquet"}),
        (["GunPoint_TRAIN.tsv", "GunPoint_TEST.tsv"], {"train": "GunPoint_TRAIN.tsv", "test": "GunPoint_TEST.tsv"}),
        (["train.csv", "x_train.csv"], {"train": "train.csv"}),
        (["x_train.csv", "y_train.csv"], {}),
        (["train.txt", "all.csv", ".train.csv"], {}),
    ],
)
def test_tables_named_for_splits(tmp_path: Path, names: list[str], found: dict[str, str]) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / "val").mkdir()
    assert {split: path.name for split, path in find_split_tables(tmp_path).items()} == found


def test_a_test_table_alone_is_a_test_split_where_no_folders_may_be_classes(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", {"text": ["p", "q"], "label": ["a", "b"]})
    assert {name: len(split) for name, split in read(tmp_path).splits.items()} == {"test": 2}
    (tmp_path / "cat").mkdir()
    assert find_split_tables(tmp_path) == {}


def test_two_tables_of_one_split(tmp_path: Path) -> None:
    for name in ("train.csv", "val.csv", "dev.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=r"wanted one table for val, found dev\.csv and val\.csv"):
        find_split_tables(tmp_path)


def test_folder_without_training_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wanted a table of training samples, such as train\.csv, found none"):
        read(tmp_path)


def write_images(folder: Path, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(Image.new("RGB", (6, 4), (index, 0, 0))))


def test_image_manifest(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["images/1.png", "images/2.png", "odd\\name.png", "images/3.png"])
    write_images(tmp_path, ["outside.png"])
    paths = [
        "images/1.png", "images\\2.png", str(root / "images" / "3.png"), "odd\\name.png",
        "../outside.png", "images/missing.png", "", "nul\0.png", "x" * 300 + ".png",
    ]  # fmt: skip
    columns = {"image": paths, "kind": list("ababababa"), "who": [*"ppqqrrsst"]}
    path = write(root / "all.jsonl", columns)
    dataset = read(path, label="kind", group="who")
    assert (dataset.kind, dataset.channels, dataset.size) == ("image", 3, (4, 6))
    assert dataset.columns == {"label": "kind", "path": "image", "group": "who"}
    samples = dataset.splits["train"].samples
    assert [samples.name(index) for index in range(4)] == [
        "images/1.png", "images/2.png", "images/3.png", "odd\\name.png"
    ]  # fmt: skip
    assert [label for _, label in list_samples(dataset)] == ["a", "b", "a", "b"]
    assert [int(image[0, 0, 0]) for image, _ in list_samples(dataset)] == [0, 1, 3, 2]
    groups = dataset.splits["train"].groups
    assert groups is not None
    assert groups[0] == groups[1] != groups[2]
    reasons = {item.file: item.reason for item in dataset.unreadable}
    assert set(reasons) == {"all.jsonl:5", "images/missing.png", "all.jsonl:7", "all.jsonl:8", paths[-1]}
    assert "leads out" in reasons["all.jsonl:5"]
    assert reasons["all.jsonl:7"] == "no path"


@pytest.mark.parametrize("spelling", ["{}", "{}.png", "pictures/{}", "pictures\\{}.png"])
def test_files_are_found_by_names_without_folder_or_extension(tmp_path: Path, spelling: str) -> None:
    write_images(tmp_path, [f"set/pictures/{index}.png" for index in range(4)])
    write_images(tmp_path, ["beside/0.png", "beside/9.png", "set/pictures/7.jpg"])
    names = [spelling.format(index) for index in (2, 0, 3, 1)]
    dataset = read(write(tmp_path / "labels.csv", {"image": names, "label": list("abab")}))
    paths = [dataset.splits["train"].samples.name(index) for index in range(4)]
    assert paths == [f"set/pictures/{index}.png" for index in (2, 0, 3, 1)]


def test_tables_of_splits_find_equal_names_each_in_its_own_folder(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{split}/{index}.png" for split in ("test", "train") for index in range(4)])
    for split in ("train", "test"):
        write(tmp_path / f"{split}.csv", {"id": list(range(4)), "label": list("abab")})
    dataset = read(tmp_path)
    for split in ("train", "test"):
        samples = dataset.splits[split].samples
        assert [samples.name(index) for index in range(len(samples))] == [f"{split}/{index}.png" for index in range(4)]


def test_web_addresses_are_no_paths(tmp_path: Path) -> None:
    paths = ["https://example.org/1.png", "s3://bucket/2.png", "3.png"]
    write_images(tmp_path, ["3.png"])
    dataset = read(write(tmp_path / "t.csv", {"image": paths, "label": list("aba")}))
    reason = "a web address; download the files, and name these"
    assert dataset.unreadable == (Unreadable("t.csv:2", reason), Unreadable("t.csv:3", reason))


def test_words_for_missing_numbers_are_missing_values(tmp_path: Path) -> None:
    columns = {"x": ["1", "NA", "3", "null"], "y": ["2"] * 4, "z": ["?"] * 4, "label": list("abab")}
    dataset = read(write(tmp_path / "t.csv", columns))
    assert (dataset.kind, dataset.unreadable) == ("series", ())
    assert [series.tolist() for series, _ in list_samples(dataset)[::2]] == [[[1, 2]], [[3, 2]]]
    assert np.isnan(list_samples(dataset)[1][0][0, 0])


def test_numbers_with_units_are_no_texts(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "weight": [f"{index} kg" for index in range(8)],
        "price": list(range(8)),
        "label": list("abababab"),
    }
    with pytest.raises(DataError, match="wanted texts, paths or series in its columns, found weight, price, label"):
        read(write(tmp_path / "t.csv", columns))


def test_only_a_test_split_of_pictures_with_metadata(tmp_path: Path) -> None:
    write_images(tmp_path, ["test/1.png", "test/2.png"])
    write(tmp_path / "test" / "metadata.csv", {"file_name": ["1.png", "2.png"], "label": ["a", "b"]})
    dataset = read_dataset(tmp_path, config=DataConfig())
    assert {name: len(split) for name, split in dataset.splits.items()} == {"test": 2}
    write_images(tmp_path, ["cat/1.png"])
    assert find_metadata(tmp_path) == {}


def test_paths_outside_may_be_followed(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["1.png", "2.png"])
    write_images(tmp_path, ["outside.png"])
    path = write(root / "all.csv", {"path": ["1.png", "2.png", "../outside.png"], "label": list("aba")})
    assert len(read(path).splits["train"]) == 2
    assert len(read(path, follow=True).splits["train"]) == 3


def test_folder_of_image_tables_does_not_call_its_images_ignored(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png", "3.png", "other.png"])
    write(tmp_path / "train.csv", {"file_name": ["1.png", "2.png"], "label": list("ab")})
    write(tmp_path / "test.csv", {"file_name": ["3.png"], "label": ["a"]})
    dataset = read(tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "test": 1}
    assert dataset.ignored == {".png": 1}


def test_paths_are_found_by_content(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    columns = {"where": ["1.png", "2.png", "3.png", "4.png"], "what": list("abab"), "note": ["long text"] * 4}
    dataset = read(write(tmp_path / "t.csv", columns))
    assert dataset.columns == {"path": "where", "label": "what"}


def test_manifest_of_recordings(tmp_path: Path) -> None:
    for name in ("1.wav", "2.wav"):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(np.arange(40, dtype="<i2").tobytes())
    dataset = read(write(tmp_path / "t.csv", {"file": ["1.wav", "2.wav"], "label": list("ab")}))
    assert (dataset.kind, dataset.rate, dataset.size) == ("series", 8000, (40,))


def test_manifest_of_text_files(tmp_path: Path) -> None:
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    dataset = read(write(tmp_path / "t.csv", {"file": ["1.txt", "2.txt"], "label": list("ab")}))
    assert list_samples(dataset) == [("text of 1.txt", "a"), ("text of 2.txt", "b")]


def test_each_of_many_columns_is_looked_at_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Counter[int]()

    def count(cells: Sequence[Any]) -> list[Any]:
        looks[id(cells)] += 1
        return head(cells)

    for module in ("cells", "columns"):
        monkeypatch.setattr(f"falconet.data.{module}.head", count)
    width = 3000
    columns: dict[str, list[Any]] = {
        **{f"c{index}": [0.5, 1.5, 2.5, 3.5] for index in range(width)},
        "label": list("abab"),
    }
    assert read(write(tmp_path / "t.csv", columns)).size == (width,)
    assert len(looks) >= width
    assert sum(looks.values()) < 12 * width


def test_wide_series(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "id": [1, 2, 3],
        "t0": [1, 2, 3],
        "t1": [1.5, "bad", 3.5],
        "t2": [2, 3, ""],
        "species": ["a", "b", "b"],
    }
    dataset = read(write(tmp_path / "t.csv", columns), kind="series")
    assert (dataset.kind, dataset.channels, dataset.columns) == ("series", 1, {"label": "species"})
    (first, label), (second, _) = list_samples(dataset)
    assert (first.dtype, first.tolist(), label) == (np.float32, [[1, 1.5, 2]], "a")
    assert second.tolist() == [[3, 3.5]]
    assert [item.file for item in dataset.unreadable] == ["t.csv:3"]
    hashes = dataset.splits["train"].hashes
    assert hashes[0] == hash_bytes(np.array([1, 1.5, 2], dtype=np.float32).tobytes())


def test_wide_series_are_guessed_where_all_else_is_numbers(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "sort": list("xyxy")}
    dataset = read(write(tmp_path / "t.csv", columns))
    assert (dataset.kind, dataset.columns) == ("series", {"label": "sort"})
    assert list_samples(dataset)[1][0].tolist() == [[2, 2]]


def test_tables_of_the_ucr_archive(tmp_path: Path) -> None:
    (tmp_path / "Gun_TRAIN.tsv").write_text("1\t0.5\t0.25\tNaN\n2\t-1\t1\t1\n1\t0\t0\t1\n")
    (tmp_path / "Gun_TEST.tsv").write_text("1.0000000e+00\t3\t4\t5\n2.0000000e+00\t3\t4\t5\n")
    dataset = read(tmp_path)
    assert (dataset.kind, dataset.classes, dataset.columns) == ("series", ("1", "2"), {"label": "1"})
    assert list_samples(dataset)[0][0].tolist() == [[0.5, 0.25]]
    assert dataset.splits["train"].samples.name(0) == "Gun_TRAIN.tsv:1"
    assert dataset.splits["test"].labels.tolist() == [0, 1]


def test_long_series(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "series_id": ["p", "q", "p", "q", "p", "r", "r"],
        "time": [2, 0, 1, 1, 0, 0, 1],
        "x": [12, 20, 11, 21, 10, 30, 31],
        "y": [2, 0, 1, 0, 0, 5, 5],
        "activity": ["walk", "sit", "walk", "sit", "walk", None, None],
        "split": ["train", "test", "train", "test", "train", "train", "train"],
    }
    dataset = read(write(tmp_path / "t.parquet", columns))
    assert (dataset.kind, dataset.channels) == ("series", 2)
    assert dataset.columns == {"label": "activity", "split": "split", "series": "series_id", "time": "time"}
    (series, label), *others = list_samples(dataset)
    assert (series.tolist(), label, others) == ([[10, 11, 12], [0, 1, 2]], "walk", [])
    assert dataset.splits["train"].samples.name(0) == "t.parquet:1"
    assert list_samples(dataset, "test")[0][1] == "sit"
    assert dataset.unreadable == (Unreadable("t.parquet:6", "no label"),)


def test_long_series_without_time(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"run": list("ppqq"), "value": [1, 2, 3, 4], "label": list("aabb")})
    dataset = read(path, series="run")
    assert [series.tolist() for series, _ in list_samples(dataset)] == [[[1, 2]], [[3, 4]]]


def test_names_that_do_not_repeat_make_no_long_series(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", {"id": [1, 2, 3], "date": [1, 2, 3], "note": ["p q", "q r", "r s"], "label": list("aab")}
    )
    assert read(path).columns == {"label": "label", "text": "note"}


def test_kind_may_be_forced(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "image": ["1.png", "2.png"],
        "caption": ["one", "two"],
        "label": ["a", "b"],
        "n": [1, 2],
        "m": [3, 4],
    }
    path = write(tmp_path / "t.csv", columns)
    write_images(tmp_path, ["1.png", "2.png"])
    assert read(path).kind == "image"
    assert list_samples(read(path, kind="text", text="caption")) == [("one", "a"), ("two", "b")]
    assert [series.tolist() for series, _ in list_samples(read(path, kind="series"))] == [[[1, 3]], [[2, 4]]]


@pytest.mark.parametrize("kind", ["image", "series"])
def test_forced_kind_that_a_table_does_not_hold(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "t.csv", {"text": ["p", "q"], "label": ["a", "b"]})
    with pytest.raises(
        DataError, match=r"wanted (paths of images|series) in its columns, found text, label.*; name them"
    ):
        read(path, kind=kind)


@pytest.mark.slow
def test_a_million_texts_take_seconds(tmp_path: Path) -> None:
    rows = "".join(f'{index},"this is, the text number {index}",class{index % 77}\n' for index in range(1_000_000))
    (tmp_path / "t.csv").write_text(f"id,text,label\n{rows}")
    # In a process of its own, since the checks of types in tests take longer than the reading.
    script = """if True:
        import pathlib, sys, time
        from falconet.data.manifests import read_manifest
        from falconet.data.splits import DataConfig
        begin = time.process_time()
        dataset = read_manifest(pathlib.Path(sys.argv[1]), DataConfig())
        print(time.process_time() - begin, len(dataset.splits["train"]), len(dataset.classes))
    """
    command = [sys.executable, "-c", script, str(tmp_path / "t.csv")]
    seconds, *found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert float(seconds) < 15
    assert found == ["1000000", "77"]


def test_groups_do_not_depend_on_order_or_file_names(tmp_path: Path) -> None:
    rows = [(f"text {index}", "ab"[index % 2], f"p{index // 3}" if index < 60 else None) for index in range(120)]
    found = []
    for name, ordered in (("one.csv", rows), ("two.csv", rows[::-1])):
        text, label, person = (list(column) for column in zip(*ordered, strict=True))
        path = write(
            tmp_path / name, {"text": text, "label": label, "person": ["" if p is None else p for p in person]}
        )
        dataset = complete_splits(read(path, group="person"), DataConfig())
        found.append((set(dataset.splits["test"].hashes.tolist()), dataset.fingerprint))
    assert found[0] == found[1]


def test_the_fingerprint_knows_the_groups(tmp_path: Path) -> None:
    columns = {"text": list("pqrs"), "label": list("abab"), "person": list("uuvv")}
    grouped = read(write(tmp_path / "a.csv", columns), group="person").fingerprint
    others = read(write(tmp_path / "b.csv", {**columns, "person": list("uvuv")}), group="person").fingerprint
    assert len({grouped, others, read(tmp_path / "a.csv").fingerprint}) == 3


def test_a_series_of_which_rows_disagree_is_named(tmp_path: Path) -> None:
    lines = [f"{name},{time},{time * 0.5},{label}" for name, labels in (("x", "aab"), ("y", "bbb"), ("z", "aaa"))
             for time, label in enumerate(labels)]  # fmt: skip
    (tmp_path / "long.csv").write_text("series_id,time,value,label\n" + "\n".join(lines), encoding="utf-8")
    dataset = read(tmp_path / "long.csv")
    assert len(dataset.splits["train"]) == 2
    assert [item.reason for item in dataset.unreadable] == ["its label changes from 'a' to 'b'"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1_10", "11_0", "1e1", "0x10"], ("0x10", "11_0", "1_10", "1e1")),
        (["1", "1.0", "2", "2.0", "other"], ("1", "2", "other")),
        (["1", "nan", "2.0", "NaN"], ("1", "2")),
        (["nan", "deu", "NaN", " deu\u200b"], ("deu", "nan")),
        (["e\u0301", "é", "x"], ("x", "é")),
    ],
)
def test_labels_are_texts(tmp_path: Path, labels: list[str], classes: tuple[str, ...]) -> None:
    texts = [f"text {index}" for index in range(len(labels))]
    assert read(write(tmp_path / "t.csv", {"text": texts, "label": labels})).classes == classes


def test_numbers_as_other_languages_write_them(tmp_path: Path) -> None:
    for cells, wanted in (
        (["1,5", "0,066"], [1.5, 0.066]),
        (["4,159", "1,000.5"], [4159, 1000.5]),
        (["1 234", "2"], [1234, 2]),
    ):
        path = write(tmp_path / "t.csv", {"a": cells * 2, "b": cells * 2, "class": list("xyxy")})
        dataset = read(path)
        assert dataset.kind == "series"
        assert dataset.splits["train"].samples.read(0)[0].tolist() == pytest.approx([wanted[0]] * 2)
        assert dataset.splits["train"].samples.read(1)[0].tolist() == pytest.approx([wanted[1]] * 2)


def test_categories_are_no_texts_and_ids_name_files(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"id": ["b1", "c2", "d3", "e4"], "sex": list("FMFM"), "breed": list("xyxy")})
    with pytest.raises(DataError, match=r"set data\.columns\.text=NAME"):
        read(path, label="breed")
    write_images(tmp_path, ["train/b1.png", "train/c2.png", "train/d3.png", "train/e4.png"])
    dataset = read(path, label="breed")
    assert (dataset.kind, dataset.columns) == ("image", {"label": "breed", "path": "id"})
    assert len(dataset.splits["train"]) == 4


@pytest.mark.parametrize("cell", ["n/a", "na", ".", "-", "--", "#N/A", "#DIV/0!", "null", "None", "missing", "NaN"])
def test_what_stands_for_missing_numbers(cell: str, tmp_path: Path) -> None:
    rows = "".join(f"{number},{cell},{number}.5,{label}\n" for number, label in enumerate("ppqq"))
    (tmp_path / "t.csv").write_text(f"a,b,c,label\n{rows}8,9,9.5,p\n")
    dataset = read(tmp_path / "t.csv")
    assert dataset.unreadable == ()
    first = dataset.splits["train"].samples.read(0)
    np.testing.assert_array_equal(first, [[0, np.nan, 0.5]])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("12.5%", "found '12.5%' (a percent sign)"),
        ("$3", "found '$3' (a sign of a currency)"),
        ("True", "found 'True' (a truth value; write 1 and 0)"),
        ("2024-01-05", "found '2024-01-05' (a date)"),
        ("ok so", "found 'ok so')"),
    ],
)
def test_a_refusal_names_the_first_cell_that_is_no_number(cell: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,label\n1,2,p\n" + f"1,{cell},q\n" * 3)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "t.csv", kind=None)
    assert f"(column b, line 3: wanted a number, {message}" in str(caught.value)
