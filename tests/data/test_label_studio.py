"""Label Studio's tasks as a source: what its exports hold is read, and what they lack is told."""

from __future__ import annotations

import base64
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from falconet.data import DataConfig, Dataset, Unreadable
from falconet.data.label_studio import (
    Control,
    find_control,
    find_place,
    format_labeling_config,
    name_file,
    read_tasks,
    tabulate,
)
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


def embed(level: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (5, 4), level).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


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


def test_the_ground_truth_of_one_tag_says_nothing_of_another(tmp_path: Path) -> None:
    tasks = [text_task(n, choose("ab"[n % 2], "tone"), choose("c", "genre", ground_truth=True)) for n in range(8)]
    assert list_labels(read(tmp_path / "export.json", tasks, columns=Columns(label="tone"))) == ["a", "b"] * 4


@pytest.mark.parametrize("more", [{"tags": ["a", "b"]}, {"box": [1, 2, 3, 4]}, {"scores": {"a": [1, 2], "b": [3, 4]}}])
@pytest.mark.parametrize("which", [0, 1])
def test_lists_beside_texts_are_no_series(tmp_path: Path, more: dict[str, Any], which: int) -> None:
    tasks = [text_task(n, choose("ab"[n % 2]), **(more if n >= 6 * which else {})) for n in range(8)]
    dataset = read(tmp_path / "export.json", tasks)
    assert (dataset.kind, list_labels(dataset)) == ("text", ["a", "b"] * 4)


def test_lists_beside_images_are_no_series(tmp_path: Path) -> None:
    tasks = [{"data": {"box": [1, 2, 3, 4], "image": embed(9 * n)}, "annotations": [choose("ab"[n % 2])]}
             for n in range(4)]  # fmt: skip
    dataset = read(tmp_path / "export.json", tasks)
    assert (dataset.kind, list_labels(dataset)) == ("image", ["a", "b"] * 2)


def test_words_are_times_and_no_values(tmp_path: Path) -> None:
    times = ["2024-01-01 10:00", "2024-01-01 11:00", "2024-01-01 12:00"]
    tasks = [
        {"data": {"ts": {"timestamp": times, "x": [n, 2, 3]}, "tags": ["u", "v"]}, "annotations": [choose("ab"[n % 2])]}
        for n in range(4)
    ]
    dataset = read(tmp_path / "export.json", tasks)
    assert (dataset.kind, dataset.channels) == ("series", 1)
    np.testing.assert_array_equal(dataset.split("all").samples.read(3), [[3, 2, 3]])


def test_channels_may_be_called_as_anything_else_is(tmp_path: Path) -> None:
    def make(number: int) -> dict[str, Any]:
        channels = {"sentiment": [1.5, number, 3], "series_id": [7, 8, 9], "split": [4, 5, 6]}
        data = {
            "ts": channels,
            "split": "test" if number > 3 else "train",
            "time": "noon",
            "series_id": f"who {number % 2}",
        }
        return {"data": data, "annotations": [choose("ab"[number % 2])]}

    dataset = read(tmp_path / "export.json", [make(number) for number in range(6)])
    assert (dataset.kind, dataset.channels, list_labels(dataset)) == ("series", 3, ["a", "b"] * 3)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "test": 2}
    np.testing.assert_array_equal(dataset.splits["train"].samples.read(2), [[1.5, 2, 3], [7, 8, 9], [4, 5, 6]])


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


def test_images_may_stand_in_their_addresses(tmp_path: Path) -> None:
    tasks = [{"data": {"image": embed(10 * n)}, "annotations": [choose("ab"[n % 2])]} for n in range(5)]
    tasks[4]["data"] = {"image": "data:image/png;base64,AAAA"}
    path = tmp_path / "export.json"
    dataset = read(path, tasks)
    assert (dataset.size, dataset.channels, list_labels(dataset)) == ((4, 5), 1, ["a", "b"] * 2)
    assert [item.file for item in dataset.unreadable] == ["export.json:5"]
    assert dataset.split("all").samples.read(3)[0, 0, 0] == 30
    spec = ImageSpec((1, 4, 5), (0.0,), (1.0,))
    (samples,) = [part.samples for part in iterate_inputs(path, spec) if part.samples is not None]
    assert [samples.read(n)[0, 0, 0] for n in range(4)] == [0, 10, 20, 30]


@pytest.mark.parametrize("embedded", [1, 3, 5])
def test_images_may_stand_in_addresses_and_in_files(tmp_path: Path, embedded: int) -> None:
    for number in range(6):
        Image.new("L", (5, 4), 10 * number).save(tmp_path / f"{number}.png")
    images = [embed(10 * n) if n < embedded else f"{n}.png" for n in range(6)]
    tasks = [{"data": {"image": image}, "annotations": [choose("ab"[n % 2])]} for n, image in enumerate(images)]
    tasks += [{"data": {"image": "none.png"}, "annotations": [choose("a")]}]
    path = tmp_path / "export.json"
    dataset = read(path, tasks)
    assert [item.file for item in dataset.unreadable] == ["export.json:7"]
    assert [dataset.split("all").samples.read(n)[0, 0, 0] for n in range(6)] == [0, 10, 20, 30, 40, 50]
    spec = ImageSpec((1, 4, 5), (0.0,), (1.0,))
    (samples,) = [part.samples for part in iterate_inputs(path, spec) if part.samples is not None]
    assert [samples.read(n)[0, 0, 0] for n in range(6)] == [0, 10, 20, 30, 40, 50]


def test_files_need_no_names_that_are_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    Image.new("L", (5, 4)).save(tmp_path / "plain.png")
    try:
        (tmp_path / "plain.png").rename(tmp_path / name)
    except OSError:
        pytest.skip("a file system of Unicode")
    address = name_file(Path("above") / name)
    assert address == "/data/local-files/?d=above/%FF.png"
    assert find_place(tmp_path / "export.json", address) == name


def test_models_answer_about_tasks_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps([text_task(n, *([choose("a")] if n else [])) for n in range(3)]))
    spec: InputSpec = TextSpec((4,), 300)
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


@pytest.mark.parametrize(
    "task",
    [
        {"data": {"series": [0] * 5_000}},
        {"data": {"series": {"a": [0.5] * 2_000, "b": [0.25] * 2_000}}},
        {"data": {"text": "words and more words " * 500}},
        {"data": {"image": embed(3) + "A" * 100_000}},
        {"data": {"rows": [{}] * 2_000}},
        {"a": 1},
    ],
)  # fmt: skip
def test_memory_is_foreseen(tmp_path: Path, task: dict[str, Any]) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps([task] * (3 if "data" in task else 3_000), separators=(",", ":")))
    tracemalloc.start()
    tabulate(path, read_tasks(path), lambda _: False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with pytest.raises(DataError, match="bytes in memory"):
        read_tasks(path, max_bytes=int(0.8 * peak))
    read_tasks(path, max_bytes=8 * peak)


def test_steps_that_repeat_much_are_refused(tmp_path: Path) -> None:
    task = {"data": {"series": [0] * 5_000, **{f"key {number}": "x" for number in range(50)}}}
    with pytest.raises(DataError, match=r"or set data\.max_bytes="):
        tabulate(tmp_path / "wide.json", [task], lambda _: False, max_bytes=1_000_000)


def test_large_files_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps([text_task(1)] * 100))
    with pytest.raises(DataError, match=r"or set data\.max_bytes="):
        read_tasks(path, max_bytes=10_000)


def test_the_tag_of_choices_is_found() -> None:
    assert find_control([text_task(1), text_task(2, choose("a"))]) == Control("sentiment", "text")
    several = [text_task(1, choose("a"), choose("b", "tone"))]
    with pytest.raises(DataError, match="wanted one tag Choices, found several in the annotations: sentiment, tone"):
        find_control(several)
    assert find_control(several, "tone") == Control("tone", "text")
    assert find_control(several, "other") is None
    torn = [text_task(1, choose("a")), text_task(2, choose("b"))]
    torn[1]["annotations"][0]["result"][0]["to_name"] = "image"
    with pytest.raises(DataError, match="about one thing, found sentiment about image, text"):
        find_control(torn)
    assert find_control([{"data": {}, "annotations": None, "predictions": "odd"}]) is None


def test_names_are_escaped_in_the_labeling_interface() -> None:
    from xml.etree import ElementTree

    names = ('a "b" & <c>', "d'e", "tab\tand line\n", "\U0001f600")
    root = ElementTree.fromstring(format_labeling_config("series", Control("label", "series"), names, ("x", "y")))
    assert [choice.get("value") for choice in root.iter("Choice")] == list(names)
    assert [channel.get("column") for channel in root.iter("Channel")] == ["x", "y"]
    series = root.find("TimeSeries")
    assert series is not None
    assert (series.get("value"), series.get("valueType")) == ("$series", "json")


def test_what_xml_cannot_hold_is_replaced_in_the_labeling_interface() -> None:
    from xml.etree import ElementTree

    root = ElementTree.fromstring(format_labeling_config("text", Control("label", "text"), ("a\x0bb", "c\ud800", "\0")))
    assert [choice.get("value") for choice in root.iter("Choice")] == ["a\ufffdb", "c\ufffd", "\ufffd"]
