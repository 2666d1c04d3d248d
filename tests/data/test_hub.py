from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow
import pytest
from datasets import ClassLabel, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from falconet.data import Columns, DataConfig, Dataset
from falconet.data.columns import NAMES
from falconet.data.dataset import concatenate, hash_bytes
from falconet.data.hub import HubImages, find_known, parse_source, read_hub
from falconet.data.sources import load_dataset
from falconet.data.splits import complete_splits
from falconet.errors import ConfigError, DataError, MissingExtraError, PathError
from tests.data.builders import encode

PICTURES = Features({"image": datasets.Image(), "label": ClassLabel(names=["zebra", "ant"])})


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what `datasets` writes out of the user's home, and the tests off the network."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    return folder


def write(folder: Path, columns: Mapping[str, Any], features: Features | None = None, split: str = "train") -> str:
    """Write one Parquet file as `datasets` does, so that other tools read the same features."""
    folder.mkdir(exist_ok=True)
    table = datasets.Dataset.from_dict(dict(columns), features=features).data.table
    parquet.write_table(table, folder / f"{split}.parquet")
    return f"hf:{folder}"


def picture(level: int, size: tuple[int, int] = (5, 4), mode: str = "L") -> bytes:
    deep = mode == "I;16"
    return encode(Image.new(mode, size, level) if deep else Image.new("L", size, level).convert(mode))


def write_pictures(folder: Path, levels: Sequence[int], labels: Sequence[int], split: str = "train") -> str:
    images = [{"bytes": picture(level), "path": None} for level in levels]
    return write(folder, {"image": images, "label": labels}, PICTURES, split)


def read(source: str, **config: Any) -> Dataset:
    return read_hub(source, DataConfig(**config))


def list_classes(dataset: Dataset, split: str = "train") -> list[str]:
    return [dataset.classes[label] for label in dataset.splits[split].labels]


def test_images_in_parquet_are_decoded_when_wanted(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "a", [10, 20, 30], [1, 0, 1])
    dataset = read(source)
    assert (dataset.kind, dataset.channels, dataset.size) == ("image", 1, (4, 5))
    assert dataset.columns == {"path": "image", "label": "label"}
    assert dataset.classes == ("zebra", "ant")
    split = dataset.splits["train"]
    assert split.labels.tolist() == [1, 0, 1]
    assert isinstance(split.samples, HubImages)
    assert [split.samples.name(index) for index in range(3)] == [f"{source}:train[{index}]" for index in range(3)]
    assert [split.samples.read(index).tolist() for index in range(3)] == [[[[level]] * 5] * 4 for level in (10, 20, 30)]
    assert split.hashes.tolist() == [hash_bytes(picture(level)) for level in (10, 20, 30)]


def test_deep_images_have_one_range_of_training(tmp_path: Path) -> None:
    for split, levels in (("train", [4000, 100, 2000]), ("test", [100, 5000, 50])):
        images = [{"bytes": picture(level, mode="I;16"), "path": None} for level in levels]
        source = write(tmp_path / "a", {"image": images, "label": [0, 1, 0]}, PICTURES, split)
    for white, asked in ((4095, None), (8190, (0, 8190))):
        dataset = read(source, value_range=asked)
        assert dataset.value_range == (0.0, float(white))
        found = {name: [int(split.samples.read(i).max()) for i in range(3)] for name, split in dataset.splits.items()}
        scaled = {level: min(round(level / white * 65535), 65535) for level in (50, 100, 2000, 4000, 5000)}
        assert found["train"] == [scaled[4000], scaled[100], scaled[2000]]
        assert found["test"] == [scaled[100], scaled[5000], scaled[50]]
    samples = dataset.split("all").samples
    assert isinstance(samples, HubImages)
    assert int(samples.scale((0, 4095), "uint8").read(1).max()) == round(100 / 4095 * 255)
    assert int(samples.scale(None, "uint8").read(0).max()) == round(4000 / 257)
    assert read(write_pictures(tmp_path / "b", [10, 20], [1, 0]), value_range=(0, 9)).value_range is None


def test_images_are_taken_and_joined_by_their_places(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", [10, 20, 30], [0, 1, 0])
    dataset = read(write_pictures(tmp_path / "a", [40, 50], [0, 1], split="test"))
    kept = dataset.splits["train"].take(np.array([2, 0]))
    joined = concatenate([kept, dataset.splits["test"], kept.take(np.array([1]))])
    assert [int(joined.samples.read(index)[0, 0, 0]) for index in range(5)] == [30, 10, 40, 50, 10]
    names = [joined.samples.name(index).partition(f"{tmp_path}/a:")[2] for index in range(5)]
    assert names == ["train[2]", "train[0]", "test[0]", "test[1]", "train[0]"]


def test_splits_that_are_lacking_can_be_made(tmp_path: Path) -> None:
    whole = complete_splits(read(write_pictures(tmp_path / "a", range(40), [0, 1] * 20)), DataConfig())
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 28, "val": 4, "test": 8}
    levels = [int(whole.split("all").samples.read(index)[0, 0, 0]) for index in range(40)]
    assert sorted(levels) == list(range(40))


def test_one_image_in_color_makes_three_channels_and_sizes_their_median(tmp_path: Path) -> None:
    files = [picture(0, (9, 3)), picture(0, (7, 30), "RGB"), picture(9, (8, 4))]
    images = [{"bytes": file, "path": None} for file in files]
    dataset = read(write(tmp_path / "a", {"image": images, "label": [0, 1, 0]}, PICTURES))
    assert (dataset.channels, dataset.size) == (3, (4, 8))


def test_a_folder_of_image_files_is_read(tmp_path: Path) -> None:
    for split, label in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")):
        path = tmp_path / "a" / split / label / "1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(picture(len(split) + len(label) + ord(label[0])))
    dataset = read(f"hf:{tmp_path / 'a'}")
    assert list_classes(dataset) == list_classes(dataset, "test") == ["cat", "dog"]
    assert int(dataset.splits["train"].samples.read(1)[0, 0, 0]) == 8 + ord("d")
    assert dataset.splits["test"].hashes[0] == hash_bytes(picture(7 + ord("c")))


def test_an_image_file_that_vanishes_is_named(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "a" / label).mkdir(parents=True)
        (tmp_path / "a" / label / "1.png").write_bytes(picture(3))
    dataset = read(f"hf:{tmp_path / 'a'}")
    (tmp_path / "a" / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match=r"a:train\[0\]: No such file"):
        dataset.splits["train"].samples.read(0)


@pytest.mark.parametrize("follow", [False, True])
def test_images_outside_the_source_are_read_only_when_allowed(follow: bool, tmp_path: Path) -> None:
    (tmp_path / "private.png").write_bytes(picture(3))
    inside = tmp_path / "a" / "files" / "x.png"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(picture(4))
    images = [{"bytes": None, "path": str(path)} for path in (tmp_path / "private.png", inside)]
    dataset = read(write(tmp_path / "a", {"image": images, "label": [0, 1]}, PICTURES), follow=follow)
    assert len(dataset.splits["train"]) == 1 + follow
    assert [item.reason for item in dataset.unreadable] == ["leads out of the source's folder; --follow allows it"] * (
        not follow
    )


def test_damaged_images_and_missing_labels_are_listed(tmp_path: Path) -> None:
    images = [
        {"bytes": picture(1), "path": None},
        {"bytes": b"a list", "path": "x.png"},
        None,
        {"bytes": picture(2), "path": None},
        {"bytes": picture(3), "path": None},
        {"bytes": None, "path": str(tmp_path / "a" / "none.png")},
    ]
    source = write(tmp_path / "a", {"image": images, "label": [0, 1, 1, -1, None, 0]}, PICTURES)
    write_pictures(tmp_path / "a", [7], [1], split="test")
    dataset = read(source)
    reasons = {item.file: item.reason for item in dataset.unreadable}
    assert reasons == {
        f"{source}:train[1]": "not an image, or of an unknown format",
        f"{source}:train[2]": "no image",
        f"{source}:train[3]": "no label",
        f"{source}:train[4]": "no label",
        f"{source}:train[5]": "No such file or directory",
    }
    assert list_classes(dataset) == ["zebra"]
    assert dataset.classes == ("zebra", "ant")


def test_a_split_of_nothing_usable_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", [1, 2], [0, 1])
    source = write(tmp_path / "a", {"image": [{"bytes": b"", "path": None}], "label": [0]}, PICTURES, "test")
    with pytest.raises(DataError, match=r"none of 1 rows of test can be used; the first: .*test\[0\] \(empty file"):
        read(source)


def test_texts_are_read(tmp_path: Path) -> None:
    source = write(tmp_path / "a", {"text": ["Grün", " ", "blau", None], "label": ["g", "b", "b", "g"]})
    dataset = read(source)
    assert (dataset.kind, dataset.channels, dataset.size) == ("text", 1, (4,))
    assert dataset.columns == {"text": "text", "label": "label"}
    split = dataset.splits["train"]
    assert [split.samples.read(index) for index in range(2)] == ["Grün", "blau"]
    assert list_classes(dataset) == ["g", "b"]
    assert split.samples.name(1) == f"{source}:train[2]"
    assert split.hashes.tolist() == [hash_bytes("Grün".encode()), hash_bytes(b"blau")]
    assert [(item.file[-8:], item.reason) for item in dataset.unreadable] == [
        ("train[1]", "empty text"),
        ("train[3]", "empty text"),
    ]


@pytest.mark.parametrize("kind", ["float32", "float64", "int64"])
@pytest.mark.parametrize("length", [-1, 3])
def test_lists_of_numbers_are_series(kind: str, length: int, tmp_path: Path) -> None:
    lists = [[1, 2, 3], [4, None, 5], [7, 8, 9]] if length == 3 else [[1, 2, 3, 4], [4, None], [7, 8, 9]]
    features = Features({"signal": List(Value(kind), length=length), "label": Value("int32")})
    dataset = read(write(tmp_path / "a", {"signal": lists, "label": [10, 9, 10]}, features))
    assert (dataset.kind, dataset.channels, dataset.size) == ("series", 1, (3,))
    assert dataset.columns == {"series": "signal", "label": "label"}
    assert dataset.classes == ("9", "10")
    assert list_classes(dataset) == ["10", "9", "10"]
    for index, values in enumerate(lists):
        expected = np.array([values], dtype=np.float32)
        assert np.array_equal(dataset.splits["train"].samples.read(index), expected, equal_nan=True)


def test_series_without_finite_values_are_skipped(tmp_path: Path) -> None:
    lists = [[1.0, 2.0], [], None, [float("nan")], [float("inf"), 1.0], [3.0]]
    dataset = read(write(tmp_path / "a", {"signal": lists, "label": list("ababab")}))
    assert [dataset.splits["train"].samples.read(index).tolist() for index in range(2)] == [[[1, 2]], [[3]]]
    assert [item.reason for item in dataset.unreadable] == [*["no values"] * 3, "infinite values"]


@given(st.lists(st.lists(st.none() | st.floats(width=32, allow_infinity=False), max_size=4) | st.none(), min_size=1))
@settings(deadline=None, max_examples=50)
def test_series_come_out_as_they_were_written(lists: list[list[float | None] | None]) -> None:
    from falconet.data.hub import scan_series

    column = pyarrow.chunked_array([lists[:3], lists[3:]], pyarrow.list_(pyarrow.float32()))
    samples, rows = scan_series(column, np.array([str(index) for index in range(len(lists))]))
    for index, values in enumerate(lists):
        expected = np.array([values or []], dtype=np.float32)
        assert np.array_equal(samples.read(index), expected, equal_nan=True)
        assert bool(rows[index].reason) == bool(np.isnan(expected).all())


def test_class_labels_keep_their_order_and_lose_unused_names(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "never", "a"])})
    dataset = read(write(tmp_path / "a", {"text": ["x", "y"], "label": [2, 0]}, features))
    assert dataset.classes == ("z", "a")
    assert list_classes(dataset) == ["a", "z"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["b", "a", "b"], ("a", "b")), ([10, 9, 9], ("9", "10")), ([True, False, True], ("False", "True"))],
    ids=["strings", "numbers", "truth values"],
)
def test_labels_may_be_plain_values(labels: list[Any], classes: tuple[str, ...], tmp_path: Path) -> None:
    dataset = read(write(tmp_path / "a", {"text": ["x", "y", "z"], "label": labels}))
    assert dataset.classes == classes
    assert list_classes(dataset) == [str(label) for label in labels]


@pytest.mark.parametrize("plain", [True, False])
def test_a_split_without_labels_is_left_out(plain: bool, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": Value("int64") if plain else ClassLabel(names=["0", "1"])})
    write(tmp_path / "a", {"text": ["x", "y"], "label": [0, 1]}, features)
    dataset = read(write(tmp_path / "a", {"text": ["p", "q", "r"], "label": [-1] * 3}, features, "test"))
    assert list(dataset.splits) == ["train"]
    assert dataset.ignored == {"split test (no labels)": 3}
    assert dataset.unreadable == ()


def test_minus_one_is_a_class_where_training_samples_have_it(tmp_path: Path) -> None:
    write(tmp_path / "a", {"text": ["x", "y"], "label": [-1, 1]})
    dataset = read(write(tmp_path / "a", {"text": ["p"], "label": [-1]}, split="test"))
    assert list_classes(dataset, "test") == ["-1"]


def test_splits_are_known_by_name_and_others_left_out(tmp_path: Path) -> None:
    text = {"text": ["x", "y"], "label": ["a", "b"]}
    (tmp_path / "a").mkdir()
    entries = "".join(f"  - split: {name}\n    path: {name}.parquet\n" for name in ("train", "validation", "extra"))
    (tmp_path / "a" / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{entries}---\n")
    for split in ("train", "validation", "extra"):
        write(tmp_path / "a", text, split=split)
    dataset = read(f"hf:{tmp_path / 'a'}")
    assert list(dataset.splits) == ["train", "val"]
    assert dataset.ignored == {"split extra": 2}
    assert dataset.splits["val"].samples.name(0).endswith(":validation[0]")


def test_a_source_without_training_is_refused_for_training(tmp_path: Path) -> None:
    source = write(tmp_path / "a", {"text": ["x", "y"], "label": ["a", "b"]}, split="test")
    assert {name: len(split) for name, split in read(source).splits.items()} == {"test": 2}
    with pytest.raises(DataError, match="no training split; found test"):
        load_dataset(source)


def test_a_source_of_nothing_but_missing_labels_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a", {"text": ["x", "y"], "label": [-1, -1]}, split="test")
    with pytest.raises(DataError, match="wanted samples with labels, found none in test"):
        read(source)


def write_configurations(folder: Path) -> str:
    entries = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("left", "right"))
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True)
        write(folder / name, {"text": [f"{name} x", f"{name} y"], "label": ["a", "b"]})
    (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    return f"hf:{folder}"


def test_one_of_several_configurations_must_be_named(tmp_path: Path) -> None:
    source = write_configurations(tmp_path / "a")
    with pytest.raises(DataError, match=rf"one of its configurations, left, right: say {source}#left"):
        read(source)


def test_a_configuration_is_chosen_by_name(tmp_path: Path) -> None:
    source = write_configurations(tmp_path / "a")
    dataset = read(f"{source}#right")
    assert dataset.splits["train"].samples.read(0) == "right x"
    assert dataset.source == f"{source}#right"
    with pytest.raises(DataError, match=r"cannot be loaded \(.*'middle' not found") as caught:
        read(f"{source}#middle")
    assert "\n" not in str(caught.value)


TWO = {"sentence1": ["x", "y"], "sentence2": ["p", "q"], "topic": ["a", "b"], "mood": [0, 1], "who": ["u", None]}


def test_columns_are_chosen_by_configuration(tmp_path: Path) -> None:
    source = write(tmp_path / "a", TWO)
    dataset = read(source, columns=Columns(text="sentence2", label="mood", group="who"))
    assert dataset.columns == {"text": "sentence2", "label": "mood", "group": "who"}
    assert dataset.splits["train"].samples.read(1) == "q"
    assert dataset.classes == ("0", "1")


def test_groups_follow_from_their_values(tmp_path: Path) -> None:
    rows = {"text": list("abcde"), "label": list("xyxyx"), "who": ["u", "v", "u", None, None]}
    groups = read(write(tmp_path / "a", rows), columns=Columns(group="who")).splits["train"].group_names
    assert groups is not None
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 4


@pytest.mark.parametrize(
    ("columns", "config", "message"),
    [
        (TWO, {}, r"wanted one column of texts, found sentence1, sentence2, who: set data\.columns\.text=NAME"),
        (
            {"text": ["x"], "fine": ["a"], "coarse": ["b"]},
            {},
            r"wanted one column of class names or whole numbers, found fine, coarse: set data.columns.label=",
        ),
        ({"text": ["x"]}, {}, "wanted one column of class names or whole numbers, found none"),
        ({"text": ["x"], "label": ["a"]}, {"kind": "series"}, "wanted one column of lists of numbers, found none"),
        ({"text": ["x"], "label": ["a"]}, {"kind": "image"}, "wanted one column of images, found none"),
        (
            {"text": ["x"], "label": [0.5]},
            {"columns": Columns(label="label")},
            "column label does not hold class names",
        ),
        (
            {"note": [1.5], "body": ["x"], "label": ["a"]},
            {"columns": Columns(text="note")},
            "column note does not hold texts; such columns: body",
        ),
    ],
)
def test_columns_that_leave_doubt_are_named(
    columns: Mapping[str, Any], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "a", columns), **config)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(label="labl"), r"data\.columns\.label: hf:.*unknown column 'labl': did you mean label\?"),
        (Columns(time="text"), r"data\.columns\.time: hf: sources have no such column"),
        (Columns(split="text"), r"data\.columns\.split: hf: sources have no such column"),
    ],
)
def test_a_column_that_cannot_be_is_refused(columns: Columns, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / "a", {"text": ["x"], "label": ["a"]}), columns=columns)


def test_the_kind_follows_from_the_columns_or_from_configuration(tmp_path: Path) -> None:
    features = Features(
        {"image": datasets.Image(), "text": Value("string"), "signal": List(Value("float32")), "label": Value("string")}
    )
    row: dict[str, Any] = {
        "image": [{"bytes": picture(1), "path": None}],
        "text": ["x"],
        "signal": [[1.0]],
        "label": ["a"],
    }
    source = write(tmp_path / "a", row, features)
    assert read(source).kind == "image"
    assert [read(source, kind=kind).kind for kind in ("image", "text", "series")] == ["image", "text", "series"]
    assert read(source, columns=Columns(text="text")).kind == "text"
    assert read(source, columns=Columns(series="signal")).kind == "series"
    del row["image"]
    assert read(write(tmp_path / "b", row)).kind == "text"
    assert read(f"hf:{tmp_path / 'b'}", columns=Columns(label="text")).kind == "series"
    row["note"] = row.pop("text")
    assert read(write(tmp_path / "c", row)).kind == "series"


def test_lists_of_class_labels_are_no_series(tmp_path: Path) -> None:
    features = Features({"note": Value("string"), "tags": List(ClassLabel(names=["p", "q"])), "label": Value("string")})
    dataset = read(write(tmp_path / "a", {"note": ["x"], "tags": [[0, 1]], "label": ["a"]}, features))
    assert dataset.columns == {"text": "note", "label": "label"}


@given(st.sampled_from(NAMES["label"]), st.sampled_from([str.upper, str.title, str]), st.sampled_from("_- "))
def test_names_of_columns_are_known_in_any_spelling(name: str, spell: Any, space: str) -> None:
    spelled = spell(name).replace("_", space)
    assert find_known("label", ["other", spelled, "more"]) == spelled


def test_tables_of_csv_and_json_lines_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\nhello,a\nbye,b\n")
    assert list_classes(read(f"hf:{tmp_path}")) == ["a", "b"]


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    words = pyarrow.array([b"fine", b"\xff\xfe"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": words, "label": ["a", "b"]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="not valid UTF-8"):
        read(f"hf:{tmp_path}")


@pytest.mark.parametrize("content", [b"PAR1 cut", b""])
def test_a_damaged_file_is_refused_in_one_line(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=rf"hf:{tmp_path}: cannot be loaded \(.+\); a folder should hold") as caught:
        read(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be loaded \(.*\); a folder should hold"):
        read(f"hf:{tmp_path}")


def test_without_network_the_remedy_is_named() -> None:
    with pytest.raises(
        DataError, match=r"hf:owner/name: cannot be loaded \(.+\); check the name and the network"
    ) as caught:
        read("hf:owner/name")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["jane/m--n", "jane/..m", "jane/m.git", "a//b", "-/m", "jane/" + "a" * 120, "jane/m\n"]
)
def test_a_name_that_the_hub_cannot_have_is_one_line(name: str) -> None:
    with pytest.raises(DataError, match=r"cannot be loaded \(.+\); check the name and the network") as caught:
        read(f"hf:{name}")
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("name", ["/no/such/folder", "./no/such/folder", "~/no/such/folder"])
def test_a_folder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(PathError, match=f"hf:{name}: no such folder"):
        read(f"hf:{name}")


def test_a_single_file_is_pointed_to_its_own_reader(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    with pytest.raises(PathError, match="found a file: name it without hf:"):
        read(f"hf:{tmp_path / 'a.parquet'}")


@given(st.from_regex(r"\A[a-z][\w.-]{0,9}/[\w.-]{1,9}\Z"), st.none() | st.from_regex(r"\A[\w.-]{1,9}\Z"))
@settings(deadline=None)
def test_a_source_is_taken_apart_at_the_sign(name: str, configuration: str | None) -> None:
    source = f"hf:{name}" if configuration is None else f"hf:{name}#{configuration}"
    assert parse_source(source) == (name, configuration)


def test_a_folder_may_hold_the_sign_itself(tmp_path: Path) -> None:
    folder = tmp_path / "a#b"
    folder.mkdir()
    assert parse_source(f"hf:{folder}") == (str(folder), None)
    assert parse_source(f"hf:{folder}#c") == (str(folder), "c")


def test_home_is_understood_behind_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert parse_source("hf:~/mine") == (str(tmp_path / "mine"), None)


class Heard(logging.Handler):
    """Keeps the records of the hub's packages, whose own handlers write past pytest's capture."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Listen to both packages, which are told to say much."""
    handler = Heard()
    packages = (datasets.utils, huggingface_hub.utils)
    before = [package.logging.get_verbosity() for package in packages]
    for package in packages:
        package.logging.get_logger().addHandler(handler)
        package.logging.set_verbosity_info()
    yield handler
    for package, level in zip(packages, before, strict=True):
        package.enable_progress_bars()
        package.logging.set_verbosity(level)
        package.logging.get_logger().removeHandler(handler)


@pytest.mark.parametrize("disabled", [True, False])
def test_nothing_is_shown_and_what_was_set_is_set_again(
    disabled: bool, heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a", {"text": ["x"], "label": ["a"]})
    packages = (datasets.utils, huggingface_hub.utils)
    for package in packages:
        (package.disable_progress_bars if disabled else package.enable_progress_bars)()
    heard.records.clear()
    read(source)
    assert capfd.readouterr() == ("", "")
    assert heard.records == []
    assert [package.are_progress_bars_disabled() for package in packages] == [disabled] * 2
    assert [package.logging.get_verbosity() for package in packages] == [logging.INFO] * 2


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reading hf:owner/name needs .*falconet\[hub\]"):
        read("hf:owner/name")


def test_importing_it_imports_no_large_package() -> None:
    code = "import sys, falconet.data.hub; print(sorted({'torch', 'datasets', 'pyarrow', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("way", ["link", "data_files", "card"])
def test_tables_outside_the_folder_are_read_only_when_allowed(way: str, follow: bool, tmp_path: Path) -> None:
    folder, outside = tmp_path / "set", tmp_path / "private.csv"
    folder.mkdir()
    outside.write_text("text,label\n" + "".join(f"secret {index},{index % 2}\n" for index in range(8)))
    if way == "data_files":
        (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: ../private.csv\n---\n")
    elif way == "link":
        (folder / "train.csv").symlink_to(outside)
    else:
        (folder / "train.csv").write_text(outside.read_text())
        (tmp_path / "card.md").write_text("---\nlicense: mit\n---\n")
        (folder / "README.md").symlink_to(tmp_path / "card.md")
    if follow:
        assert len(read(f"hf:{folder}", follow=True).splits["train"]) == 8
    else:
        with pytest.raises(DataError, match="leads out of the source's folder; --follow allows it"):
            read(f"hf:{folder}")


@pytest.mark.parametrize("name", [".huggingface.yaml", "README.md"])
def test_a_pipe_in_the_folder_is_not_waited_for(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\ngood tea,a\nbad tea,b\n")
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: not a regular file"):
        read(f"hf:{tmp_path}")


@pytest.mark.parametrize("name", [".huggingface.yaml", "README.md"])
def test_a_card_that_unfolds_is_refused_before_it_is_read_in_full(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\ngood tea,a\nbad tea,b\n")
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    (tmp_path / name).write_text(bomb if name.endswith("yaml") else f"---\n{bomb}---\n# Tea\n")
    with pytest.raises(DataError, match=rf"{name}: not YAML: more than 10,000 values .*; mend it, or take it out"):
        read(f"hf:{tmp_path}")


def test_labels_that_differ_in_blanks_are_one_class(tmp_path: Path) -> None:
    labels = ["caf\u00e9", "cafe\u0301", "tea", " tea", "tea\u200b", " "]
    dataset = read(write(tmp_path, {"text": [f"a cup {number}" for number in range(6)], "label": labels}))
    assert dataset.classes == ("caf\u00e9", "tea")
    assert [item.reason for item in dataset.unreadable] == ["no label"]
