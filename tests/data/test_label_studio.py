"""Label Studio's tasks as a source: what its exports hold is read, and what they lack is told."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from falconet.data import DataConfig, Dataset, Unreadable
from falconet.data.label_studio import Control, find_control, format_labeling_config, read_tasks
from falconet.data.sources import read_dataset
from falconet.data.splits import Columns
from falconet.data.unlabeled import iterate_inputs
from falconet.errors import DataError
from falconet.spec import ImageSpec, InputSpec, TextSpec


def choose(label: str | list[str], name: str = "sentiment", **more: Any) -> dict[str, Any]:
    """Return an annotation as Label Studio exports one of the tag Choices."""
    choices = [label] if isinstance(label, str) else label
    result = {"id": "a1", "from_name": name, "to_name": "text", "type": "choices", "origin": "manual",
              "value": {"choices": choices}}  # fmt: skip
    return {"id": 7, "result": [result], "was_cancelled": False, "ground_truth": False, "lead_time": 4.2, **more}


def text_task(number: int, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    text = f"text number {number} of several"
    return {"id": number, "data": {"text": text, **data}, "annotations": list(annotations), "predictions": []}


def read(path: Path, tasks: Any, **config: Any) -> Dataset:
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return read_dataset(path, config=DataConfig(**config))


def list_labels(dataset: Dataset) -> list[str]:
    return [dataset.classes[label] for label in dataset.split("all").labels]


def test_choices_about_texts_are_labels(tmp_path: Path) -> None:
    tasks = [text_task(number, choose("good" if number % 2 else "bad")) for number in range(6)]
    dataset = read(tmp_path / "export.json", tasks)
    assert dataset.kind == "text"
    assert list_labels(dataset) == ["bad", "good"] * 3
    split = dataset.split("all")
    assert (split.samples.name(2), split.samples.read(2)) == ("export.json:3", "text number 2 of several")
    assert dataset.columns == {"label": "sentiment", "text": "text"}


def test_of_annotators_the_majority_counts_and_the_ground_truth_before_it(tmp_path: Path) -> None:
    tasks = [
        text_task(1, choose("good"), choose("bad"), choose("good")),
        text_task(2, choose("good"), choose("good"), choose("bad", ground_truth=True)),
        text_task(3, choose("good", ground_truth=True), choose("bad", ground_truth=True)),
        text_task(4, choose("good", was_cancelled=True), choose("bad")),
        text_task(5, choose("good"), choose("bad")),
        text_task(6),
        text_task(7, choose(["good", "bad"])),
    ]
    dataset = read(tmp_path / "export.json", tasks)
    assert list_labels(dataset) == ["good", "bad", "bad", "bad"]
    assert dataset.unreadable == tuple(Unreadable(f"export.json:{line}", "no label") for line in (5, 6, 7))


def test_choices_about_parts_of_a_task_are_no_labels(tmp_path: Path) -> None:
    part = choose("part")
    part["result"][0]["value"] |= {"start": 0, "end": 3}
    box = {"result": [{"from_name": "box", "to_name": "text", "type": "labels", "value": {"labels": ["x"]}}]}
    tasks = [text_task(number, part, box, choose("ab"[number % 2])) for number in range(4)]
    assert list_labels(read(tmp_path / "export.json", tasks)) == ["a", "b"] * 2


def test_of_several_tags_one_is_named(tmp_path: Path) -> None:
    tasks = [text_task(n, choose("ab"[n % 2], "tone"), choose("cd"[n % 2], "genre")) for n in range(8)]
    with pytest.raises(DataError, match="wanted a column of labels, found several that could be: tone, genre"):
        read(tmp_path / "export.json", tasks)
    assert list_labels(read(tmp_path / "export.json", tasks, columns=Columns(label="genre"))) == ["c", "d"] * 4


def test_splits_and_groups_stand_in_the_data(tmp_path: Path) -> None:
    tasks = [text_task(n, choose("ab"[n % 2]), split="test" if n > 3 else "train", who=n // 2) for n in range(8)]
    dataset = read(tmp_path / "export.json", tasks, columns=Columns(group="who"))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "test": 4}
    groups = dataset.splits["train"].groups
    assert groups is not None
    assert len(set(groups.tolist())) == 2


@pytest.mark.parametrize("lines", ["columns", "values"])
def test_series_stand_in_the_tasks(tmp_path: Path, lines: str) -> None:
    values = [1.5, None, 2.5, 4]

    def make(number: int) -> dict[str, Any]:
        series: Any = {"time": [3, 2, 1, 0], "x": values, "y": [number] * 4} if lines == "columns" else values
        return {"data": {"ts": series}, "annotations": [choose("ab"[number % 2])]}

    dataset = read(tmp_path / "export.json", [make(number) for number in range(4)])
    assert (dataset.kind, dataset.channels, list_labels(dataset)) == (
        "series",
        1 + (lines == "columns"),
        ["a", "b"] * 2,
    )
    found = dataset.split("all").samples.read(1)
    if lines == "columns":  # In the order of time.
        np.testing.assert_array_equal(found, [[4, 2.5, np.nan, 1.5], [1, 1, 1, 1]])
    else:
        np.testing.assert_array_equal(found, [[1.5, np.nan, 2.5, 4]])


@pytest.mark.parametrize(
    "address",
    [
        "photos/{}.png",
        "/data/local-files/?d=photos/{}.png",
        "/data/local-files/?d=above%20all/photos/{}.png",
        "/data/upload/12/0123abcd-{}.png",
    ],
)
def test_images_lie_where_label_studio_says(tmp_path: Path, address: str) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.new("L", (5, 4), 10 * number).save(tmp_path / "photos" / f"{number}.png")
    tasks = [{"data": {"image": address.format(n)}, "annotations": [choose("ab"[n % 2])]} for n in range(4)]
    dataset = read(tmp_path / "export.json", tasks)
    assert (dataset.kind, dataset.unreadable, list_labels(dataset)) == ("image", (), ["a", "b"] * 2)
    assert [dataset.split("all").samples.read(n)[0, 0, 0] for n in range(4)] == [0, 10, 20, 30]


def test_addresses_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("L", (5, 4)).save(tmp_path / "secret.png")
    tasks = [
        {"data": {"image": "/data/local-files/?d=../secret.png"}, "annotations": [choose(label)]} for label in "ab"
    ]
    with pytest.raises(DataError, match="leads out"):
        read(folder / "export.json", tasks)


def embed(level: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (5, 4), level).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_images_may_stand_in_their_addresses(tmp_path: Path) -> None:
    tasks = [{"data": {"image": embed(10 * n)}, "annotations": [choose("ab"[n % 2])]} for n in range(5)]
    tasks[4]["data"] = {"image": "data:image/png;base64,AAAA"}
    path = tmp_path / "export.json"
    dataset = read(path, tasks)
    assert (dataset.size, dataset.channels, list_labels(dataset)) == ((4, 5), 1, ["a", "b"] * 2)
    assert [item.file for item in dataset.unreadable] == ["export.json:5"]
    assert dataset.split("all").samples.read(3)[0, 0, 0] == 30
    spec = ImageSpec((1, 4, 5), ("a", "b"), (0.0,), (1.0,))
    (samples,) = [part.samples for part in iterate_inputs(path, spec) if part.samples is not None]
    assert [samples.read(n)[0, 0, 0] for n in range(4)] == [0, 10, 20, 30]


def test_models_answer_about_tasks_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps([text_task(n, *([choose("a")] if n else [])) for n in range(3)]))
    spec: InputSpec = TextSpec((4,), ("a", "b"), 300)
    (samples,) = [part.samples for part in iterate_inputs(path, spec) if part.samples is not None]
    assert [samples.name(n) for n in range(3)] == [f"{path}:{line}" for line in (1, 2, 3)]


def test_the_short_export_is_read_too(tmp_path: Path) -> None:
    rows = [{"text": f"some text {n}", "sentiment": "ab"[n % 2], "annotator": 1, "id": n} for n in range(6)]
    assert list_labels(read(tmp_path / "min.json", rows)) == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "found no JSON"),
        ("[" * 100_000, "found no JSON"),
        ('{"images": [], "categories": []}', "found an object with images, categories"),
        ("[1, 2]", "found a list of other things than objects"),
        ("[]", "found an empty list"),
        ("3", "found int"),
    ],
)
def test_other_json_is_told(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(DataError, match=rf"other\.json: wanted a list of tasks.*{found}"):
        read_dataset(tmp_path / "other.json", config=DataConfig())


def test_large_files_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps([text_task(1)] * 100))
    with pytest.raises(DataError, match=r"--set data\.max_bytes="):
        read_tasks(path, max_bytes=10_000)


def test_the_tag_of_choices_is_found() -> None:
    assert find_control([text_task(1), text_task(2, choose("a"))]) == Control("sentiment", "text")
    assert find_control([text_task(1, choose("a"), choose("b", "tone"))]) is None
    assert find_control([{"data": {}, "annotations": None, "predictions": "odd"}]) is None


def test_names_are_escaped_in_the_labeling_interface() -> None:
    from xml.etree import ElementTree

    names = ('a "b" & <c>', "d'e")
    root = ElementTree.fromstring(format_labeling_config("series", Control("label", "series"), names, ("x", "y")))
    assert [choice.get("value") for choice in root.iter("Choice")] == list(names)
    assert [channel.get("column") for channel in root.iter("Channel")] == ["x", "y"]
    series = root.find("TimeSeries")
    assert series is not None
    assert (series.get("value"), series.get("valueType")) == ("$series", "json")
