"""label(): what is worth a label comes first, and tasks lose nothing on their way through the page."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import os
import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from falconet import RunResult, defaults, label, load_dataset, train
from falconet.artifact import load_artifact
from falconet.auditing import LabelAudit
from falconet.cli import run
from falconet.data import DataConfig, Dataset
from falconet.data.label_studio import list_choices
from falconet.data.sources import read_dataset
from falconet.data.splits import Columns
from falconet.errors import ConfigError, DataError, PathError
from falconet.labeling.adapters import thin_out
from falconet.labeling.pool import iterate_named, read_pool
from falconet.labeling.ranking import PoolPredictions, ask_model, choose_next
from falconet.labeling.selection import choose_samples, measure_uncertainty, reduce_features
from falconet.labeling.tasks import cut_task, format_task
from falconet.training.linear_probe import find_linear_classifier, make_sparse
from tests.conftest import FolderMaker

# Which samples


def make_clusters(count: int = 5, size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points in far clusters, and the cluster of each."""
    generator = torch.Generator().manual_seed(0)
    places = torch.arange(count).repeat_interleave(size)
    centers = 100 * torch.randn(count, 8, generator=generator)
    return centers[places] + torch.randn(count * size, 8, generator=generator), places


def test_each_cluster_has_its_sample_where_nothing_is_known() -> None:
    features, places = make_clusters()
    chosen = choose_samples(features, 5)
    assert sorted(places[chosen].tolist()) == list(range(5))


def test_the_largest_cluster_comes_first_where_nothing_is_known() -> None:
    features, places = make_clusters()
    kept = torch.cat([(places == 3).nonzero().flatten(), (places == 1).nonzero().flatten()[:9]])
    chosen = kept[choose_samples(features[kept], 2)]
    assert places[chosen].tolist() == [3, 1]


def test_uncertain_samples_are_taken_from_different_places() -> None:
    features, places = make_clusters()
    uncertainty = torch.full((len(features),), 0.1, dtype=torch.float64)
    uncertainty[places < 3] = 0.9
    uncertainty[places == 0] = 1.0
    chosen = choose_samples(features, 3, uncertainty)
    # The 40 most uncertain ones are all in one place: alone they would say the same thing three times.
    assert set(places[chosen].tolist()) == {0} or len(set(places[chosen].tolist())) > 1
    assert set(places[choose_samples(features, 10, uncertainty)].tolist()) == {0, 1, 2}
    assert uncertainty[chosen].tolist() == sorted(uncertainty[chosen].tolist(), reverse=True)


def test_margins_are_those_of_the_two_highest() -> None:
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert measure_uncertainty(probabilities).tolist() == pytest.approx([1.0, 0.3, 0.0])


@given(st.integers(1, 12), st.integers(1, 12), st.booleans(), st.booleans())
def test_any_number_of_samples_is_chosen_once_each(samples: int, count: int, equal: bool, certain: bool) -> None:
    generator = torch.Generator().manual_seed(samples)
    features = torch.ones(samples, 3) if equal else torch.randn(samples, 3, generator=generator)
    uncertainty = torch.zeros(samples, dtype=torch.float64) if certain else None
    chosen = choose_samples(features, count, uncertainty).tolist()
    assert len(set(chosen)) == len(chosen) == min(samples, count)
    assert choose_samples(features, count, uncertainty).tolist() == chosen


def test_sparse_features_are_compared_by_their_main_directions() -> None:
    features, places = make_clusters()
    # Rows of few values among many columns, as of TF-IDF: each cluster has its own.
    columns = (places[:, None] * 1000 + torch.arange(8)).flatten()
    values = 5 + torch.rand(len(columns), generator=torch.Generator().manual_seed(0))
    sparse = make_sparse(torch.arange(0, len(columns) + 1, 8), columns, values, (len(features), 5_000))
    wide = sparse.to_dense()
    chosen = choose_samples(sparse, 5)
    assert sorted(places[chosen].tolist()) == list(range(5))
    # The distances are those of the rows themselves.
    reduced = reduce_features(sparse, seed=0)
    assert reduced.shape == (200, 64)
    far = torch.cdist(wide, wide)
    assert torch.corrcoef(torch.stack([far.flatten(), torch.cdist(reduced, reduced).flatten()]))[0, 1] > 0.99


# What becomes of tasks

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.lists(st.dictionaries(st.text(), VALUES), max_size=3))
def test_tasks_are_cut_without_loss(rest: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
    task = {"id": 2**60 + 1, "annotations": annotations, **rest}
    head, tail = cut_task(task)
    wanted = task if isinstance(task["annotations"], list) else {**task, "annotations": []}
    assert json.loads(head + tail) == wanted
    assert list(json.loads(head + tail)) == list(task)
    added = head + ("" if head.endswith("[") else ", ") + '{"new": 1}' + tail
    assert json.loads(added) == {**wanted, "annotations": [*wanted["annotations"], {"new": 1}]}


def test_drawings_keep_extremes() -> None:
    values = np.zeros(100_000, dtype=np.float32)
    values[[7, 77_777]] = 5, -5
    kept = thin_out(values)
    assert len(kept) <= 600
    assert {7, 77_777} <= set(kept.tolist())


# Sources


def read_tasks(out: Path | str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = json.loads((Path(out) / "tasks.json").read_text(encoding="utf-8"))
    return tasks


def read_page(out: Path | str) -> tuple[str, dict[str, Any]]:
    """Return the page, and what its script knows."""
    page = (Path(out) / "label.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*)</script>', page)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return page, data


def list_samples(dataset: Dataset) -> dict[bytes, str]:
    split = dataset.split("all")
    samples = [split.samples.read(index) for index in range(len(split))]
    contents = [sample.encode() if isinstance(sample, str) else sample.tobytes() for sample in samples]
    return {content: dataset.classes[name] for content, name in zip(contents, split.labels, strict=True)}


@pytest.mark.slow
def test_wrong_labels_of_a_folder_come_first_and_all_go_on(make_folder: FolderMaker, tmp_path: Path) -> None:
    source = make_folder(count=14)
    bright = np.random.default_rng(1).normal(170, 12, (16, 20, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(bright).save(source / "dark" / "bright.png")
    done = label(source, out=tmp_path / "labels")
    assert [error.name for error in done.label_errors] == ["dark/bright.png"]
    assert (done.labeled, done.unlabeled, done.next, done.classes) == (29, 0, (), ("dark", "light"))
    tasks = read_tasks(done.out)
    assert len(tasks) == 29
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/dark/bright.png"
    assert tasks[0]["predictions"][0]["result"][0]["value"] == {"choices": ["light"]}
    # Beside the folder, the file is a source.
    moved = tmp_path / "labels.json"
    moved.write_text((Path(done.out) / "tasks.json").read_text())
    assert list_samples(load_dataset(moved)) == list_samples(load_dataset(source))


@pytest.mark.slow
def test_files_beside_the_classes_are_to_be_labeled(make_folder: FolderMaker, tmp_path: Path) -> None:
    source = make_folder(count=12)
    generator = np.random.default_rng(1)
    for number in range(6):
        noise = generator.normal(85 + 85 * (number % 2), 12, (16, 20, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(source / f"new{number}.png")
    done = label(source, out=tmp_path / "labels", count=4)
    assert (done.labeled, done.unlabeled, len(done.next)) == (24, 6, 4)
    assert set(done.next) <= {f"new{number}.png" for number in range(6)}
    first = read_tasks(done.out)[0]
    assert first["data"]["name"] == done.next[0]
    number = int(done.next[0][3])
    assert first["predictions"][0]["result"][0]["value"]["choices"] == [("dark", "light")[number % 2]]


def test_a_folder_without_classes_is_covered(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(12):
        level = (40, 120, 220)[number % 3]
        Image.fromarray(generator.normal(level, 4, (12, 12)).clip(0, 255).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
    (folder / "broken.png").write_bytes(b"nothing")
    done = label(folder, out=tmp_path / "labels", count=3)
    assert (done.labeled, done.unlabeled, done.classes) == (0, 12, ())
    assert {int(Path(name).stem) % 3 for name in done.next} == {0, 1, 2}
    assert [Path(item.file).name for item in done.skipped] == ["broken.png"]
    assert len(read_tasks(done.out)) == 3
    assert not (Path(done.out) / "labeling-config.xml").exists()


@pytest.mark.slow
def test_a_model_says_what_it_is_unsure_of(trained: RunResult, tmp_path: Path) -> None:
    digits = load_dataset("digits").split("all").samples
    images = np.stack([digits.read(index)[..., 0] for index in range(60)])
    # Half of one and half of another.
    images[:20, 4:] = images[20:40, 4:]
    np.savez(tmp_path / "new.npz", images=images)
    done = label(tmp_path / "new.npz", model=trained.out, out=tmp_path / "labels", count=10)
    places = [int(name.rpartition("[")[2].removesuffix("]")) for name in done.next]
    assert sum(place < 20 for place in places) >= 6
    task = read_tasks(done.out)[0]
    assert task["predictions"][0]["model_version"] == "lenet_relu"
    content = base64.b64decode(task["data"]["image"].removeprefix("data:image/png;base64,"))
    (tmp_path / "one.png").write_bytes(content)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.png")), images[places[0]])


def write_notes(path: Path, labeled: int, count: int = 60) -> list[str]:
    """Write a table of notes about two things, of which the first `labeled` say which; return the texts."""
    generator = np.random.default_rng(0)
    words = (("apple", "pear", "plum", "cherry"), ("iron", "zinc", "copper", "lead"))
    texts = [" ".join(generator.choice(words[n % 2], 4)) + f" lot {n}" for n in range(count)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "topic"])
        writer.writerows((text, ("fruit", "metal")[n % 2] if n < labeled else "") for n, text in enumerate(texts))
    return texts


@pytest.mark.slow
def test_rows_without_labels_are_labeled_next(tmp_path: Path) -> None:
    texts = write_notes(tmp_path / "notes.csv", labeled=40)
    done = label(tmp_path / "notes.csv", out=tmp_path / "labels", count=5)
    assert (done.labeled, done.unlabeled, len(done.next), done.skipped) == (40, 20, 5, ())
    tasks = read_tasks(done.out)
    assert len(tasks) == len(done.label_errors) + 5 + 40 - len(done.label_errors)
    named = {task["data"]["name"]: task["data"]["text"] for task in tasks}
    assert all(named[name] == texts[int(name.rpartition(":")[2]) - 2] for name in done.next)
    assert list_samples(load_dataset(Path(done.out) / "tasks.json")) == list_samples(
        load_dataset(tmp_path / "notes.csv")
    )


def test_series_keep_their_values_and_splits(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("TRAIN", 40), ("TEST", 10)):
        waves = [np.sin(np.arange(30) * (0.2 + 0.5 * (n % 2))) + generator.normal(0, 0.1, 30) for n in range(count)]
        lines = [",".join(f"{value:.7g}" for value in wave) + f":{'ab'[n % 2]}" for n, wave in enumerate(waves)]
        head = "@problemName w\n@timestamps false\n@univariate true\n@equalLength true\n@classLabel true a b\n@data\n"
        (tmp_path / f"W_{part}.ts").write_text(head + "\n".join(lines) + "\n")
    done = label(tmp_path / "W_TRAIN.ts", out=tmp_path / "labels")
    before, after = load_dataset(tmp_path / "W_TRAIN.ts"), load_dataset(Path(done.out) / "tasks.json")
    assert list_samples(after) == list_samples(before)
    assert len(after.splits["test"]) == 10


def test_recordings_without_labels_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(5):
        tone = np.sin(np.arange(4000) * 0.05 * (1 + number)) * 8000
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(tone.astype("<i2").tobytes())
    done = label(folder, out=tmp_path / "labels", count=2)
    assert done.unlabeled == 5
    assert read_tasks(done.out)[0]["data"]["audio"] == f"/data/local-files/?d=sounds/{done.next[0]}"
    _, data = read_page(done.out)
    assert data["items"][0]["view"]["paths"][0].startswith("M2.0")


def make_tasks(labeled: int, count: int) -> list[dict[str, Any]]:
    """Return tasks as Label Studio exports them, with all that it adds."""
    tasks = []
    for number in range(count):
        topic = number % 2
        result = {"id": f"r{number}", "from_name": "topic", "to_name": "note", "type": "choices", "origin": "manual",
                  "value": {"choices": [("fruit", "metal")[topic]]}}  # fmt: skip
        annotation = {"id": 2**60 + number, "completed_by": 1, "result": [result], "was_cancelled": False,
                      "reviews": [], "lead_time": 3.5, "parent_annotation": None}  # fmt: skip
        words = (("apple", "pear", "plum"), ("iron", "zinc", "lead"))[topic]
        text = f"{words[number % 3]} {words[number // 3 % 3]} 鉄 lot {number}"
        tasks.append(
            {
                "id": 2**55 + number,
                "file_upload": "a-1.json",
                "annotations": [annotation] if number < labeled else [],
                "drafts": [{"odd": True}],
                "predictions": [],
                "data": {"text": text, "weight": 1e-7},
                "meta": {"nested": [1, {"deep": None}]},
                "project": 3,
            }
        )
    return tasks


@pytest.mark.slow
def test_tasks_of_label_studio_keep_all_that_they_hold(tmp_path: Path) -> None:
    tasks = make_tasks(labeled=30, count=50)
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    done = label(tmp_path / "export.json", out=tmp_path / "labels", count=6)
    assert (done.labeled, done.unlabeled, len(done.next)) == (30, 20, 6)
    found = {task["id"]: task for task in read_tasks(done.out)}
    assert len(found) == 50
    shown = 0
    for task in tasks:
        kept = found[task["id"]]
        shown += len(kept["predictions"])
        assert {**kept, "predictions": []} == task
        assert list(kept) == list(task)
    assert shown == 6 + len(done.label_errors)
    _, data = read_page(done.out)
    assert data["control"] == {"name": "topic", "target": "note"}


def label_all(out: str, target: Path, choice: str, control: str, only: int | None = None) -> None:
    """Write the tasks of a page with annotations as its script writes them, on those that have none by a tag."""
    tasks = read_tasks(out)
    for task in tasks:
        if not list_choices(task, control) and only in {None, task.get("id")}:
            result = {"from_name": control, "to_name": "text", "type": "choices", "value": {"choices": [choice]}}
            task["annotations"].append({"result": [result], "was_cancelled": False, "ground_truth": False})
    target.write_text(json.dumps(tasks))


def write_parts(path: Path, labeled: int, **columns: Callable[[int], str]) -> None:
    """Write a table of notes with further columns."""
    write_notes(path, labeled)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*rows[0], *columns])
        writer.writerows([*row, *(make(number) for make in columns.values())] for number, row in enumerate(rows[1:]))


@pytest.mark.usefixtures("few_words")
def test_what_is_labeled_in_future_keeps_its_split_and_group(tmp_path: Path) -> None:
    part, who = (lambda number: ("Train", "test", "dev")[number % 3]), (lambda number: f"p{number % 20}")
    write_parts(tmp_path / "notes.csv", labeled=48, set=part, who=who)
    columns = {"columns": {"group": "who"}}
    with pytest.raises(DataError, match="group"):  # Groups that splits of its own tear apart.
        load_dataset(tmp_path / "notes.csv", config=DataConfig(columns=Columns(group="who")))
    done = label(tmp_path / "notes.csv", out=tmp_path / "labels", count=40, settings=columns)
    assert (len(done.next), done.skipped) == (12, ())
    for task in read_tasks(done.out):
        number = int(task["data"]["name"].rpartition(":")[2]) - 2
        assert task["data"]["split"] == ("train", "test", "val")[number % 3]
        assert task["data"]["who"] == f"p{number % 20}"
    label_all(done.out, tmp_path / "labels.json", "metal", "label")
    dataset = load_dataset(tmp_path / "labels.json")
    assert dataset.unreadable == ()
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 20, "test": 20, "val": 20}


@pytest.mark.usefixtures("few_words")
def test_groups_stand_in_the_tasks(tmp_path: Path) -> None:
    write_parts(tmp_path / "notes.csv", labeled=50, who=lambda number: f"p{number // 4}", where=lambda number: "here")
    settings = {"columns": {"group": "who"}, "extra": ["where"]}
    done = label(tmp_path / "notes.csv", out=tmp_path / "labels", count=40, settings=settings)
    config = DataConfig(columns=Columns(group="who"))
    label_all(done.out, tmp_path / "labels.json", "metal", "label")
    groups = load_dataset(tmp_path / "labels.json", config=config).split("all").groups
    assert groups is not None
    assert (len(groups), len(set(groups.tolist())), 0 in groups) == (60, 15, False)
    assert {task["data"]["where"] for task in read_tasks(done.out)} == {"here"}
    assert not any("split" in task["data"] for task in read_tasks(done.out))


@pytest.mark.usefixtures("few_words")
@pytest.mark.parametrize("form", ["long", "wide", "tasks"])
def test_series_without_labels_beside_those_with_them(tmp_path: Path, form: str) -> None:
    series = np.random.default_rng(0).normal(size=(36, 6)).round(3)
    names = ["ab"[number % 2] if number < 30 else "" for number in range(36)]
    source = tmp_path / ("export.json" if form == "tasks" else "series.csv")
    if form == "tasks":
        result = {"from_name": "state", "to_name": "ts", "type": "choices"}
        source.write_text(json.dumps([
            {"id": n, "data": {"ts": {"x": row.tolist()}, "who": f"p{n // 3}"},
             "annotations": [{"result": [{**result, "value": {"choices": [name]}}]}] if name else []}
            for n, (row, name) in enumerate(zip(series, names, strict=True))
        ]))  # fmt: skip
    elif form == "long":
        lines = [
            f"s{n},{step},{value},{names[n]},p{n // 3}"
            for n, row in enumerate(series)
            for step, value in enumerate(row)
        ]
        source.write_text("\n".join(["series_id,time,x,state,who", *lines]))
    else:
        lines = [",".join([*map(str, row), names[n], f"p{n // 3}"]) for n, row in enumerate(series)]
        source.write_text("\n".join([",".join([*(f"v{step}" for step in range(6)), "state", "who"]), *lines]))
    settings = {"columns": {"group": "who", "label": "state"}}
    done = label(source, out=tmp_path / "labels", count=40, settings=settings)
    assert (done.labeled, done.unlabeled, len(done.next)) == (30, 6, 6)
    label_all(done.out, tmp_path / "labels.json", "a", "state" if form == "tasks" else "label")
    config = DataConfig(columns=Columns(group="who"))
    found = load_dataset(tmp_path / "labels.json", config=config).split("all")
    assert found.groups is not None
    assert (len(found), len(set(found.groups.tolist()))) == (36, 12)
    samples = {found.samples.read(index).astype(np.float32).tobytes() for index in range(36)}
    assert samples == {row.astype(np.float32)[None].tobytes() for row in series}


def test_files_beside_the_classes_of_a_split_are_of_that_split(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for part, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b"), ("new", ""), ("test", "")):
        (source / part / name).mkdir(parents=True, exist_ok=True)
        for number in range(6 if name else 2):
            image = generator.integers(0, 255, (12, 12), dtype=np.uint8)
            Image.fromarray(image).save(source / part / name / f"{number}.png")
    done = label(source, out=tmp_path / "labels", count=9)
    found = {task["data"]["name"]: task["data"]["split"] for task in read_tasks(done.out) if not task["annotations"]}
    assert found == {"new/0.png": "train", "new/1.png": "train", "test/0.png": "test", "test/1.png": "test"}


@pytest.mark.usefixtures("few_words")
def test_of_several_tags_the_named_one_is_labeled(tmp_path: Path) -> None:
    tasks = make_tasks(labeled=30, count=40)
    for number, task in enumerate(tasks[:30]):
        tone = ("low", "high")[number // 2 % 2]
        more = {"from_name": "tone", "to_name": "note", "type": "choices", "value": {"choices": [tone]}}
        task["annotations"].append({"result": [more], "was_cancelled": False, "ground_truth": number % 3 == 0})
    source = tmp_path / "export.json"
    source.write_text(json.dumps(tasks), encoding="utf-8")
    (tmp_path / "unclear.json").write_text(json.dumps(tasks).replace('"topic"', '"subject"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"found several in the annotations: subject, tone; name one: set data"):
        label(tmp_path / "unclear.json", out=tmp_path / "none")
    settings = {"columns": {"label": "topic"}}
    done = label(source, out=tmp_path / "labels", count=6, settings=settings)
    assert (done.labeled, len(done.next), done.classes) == (30, 6, ("fruit", "metal"))
    assert read_page(done.out)[1]["control"] == {"name": "topic", "target": "note"}
    config = DataConfig(columns=Columns(label="topic"))
    before = load_dataset(source, config=config)
    assert list_samples(load_dataset(Path(done.out) / "tasks.json", config=config)) == list_samples(before)
    label_all(done.out, tmp_path / "labels.json", "metal", "topic")
    assert len(load_dataset(tmp_path / "labels.json", config=config).split("all")) == 40


@pytest.mark.usefixtures("few_words")
def test_a_tag_of_predictions_can_be_named(tmp_path: Path) -> None:
    tasks = make_tasks(labeled=20, count=20)
    for task in tasks:
        other = {"from_name": "tone", "to_name": "note", "type": "choices", "value": {"choices": ["low"]}}
        task["predictions"] = [{"result": [*task["annotations"][0]["result"], other]}]
        task["annotations"] = []
    source = tmp_path / "export.json"
    source.write_text(json.dumps(tasks), encoding="utf-8")
    with pytest.raises(DataError, match=r"found several in the predictions: topic, tone; name one: set data"):
        label(source, out=tmp_path / "none")
    done = label(source, out=tmp_path / "labels", count=3, settings={"columns": {"label": "topic"}})
    assert (done.labeled, len(done.next)) == (0, 3)
    assert read_page(done.out)[1]["control"] == {"name": "topic", "target": "note"}


@pytest.mark.usefixtures("few_words")
def test_labels_in_the_data_survive_the_first_annotation(tmp_path: Path) -> None:
    tasks = make_tasks(labeled=0, count=40)
    for number, task in enumerate(tasks[:36]):
        task["data"]["topic"] = ("fruit", "metal")[number % 2]
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    before = load_dataset(tmp_path / "export.json")
    done = label(tmp_path / "export.json", out=tmp_path / "labels", count=2)
    assert (done.labeled, len(done.next)) == (36, 2)
    label_all(done.out, tmp_path / "labels.json", "metal", "topic", only=read_tasks(done.out)[-1]["id"])
    after = list_samples(load_dataset(tmp_path / "labels.json"))
    assert {key: after[key] for key in list_samples(before)} == list_samples(before)


def test_tasks_that_share_a_file_stay_apart(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(generator.integers(0, 255, (12, 12), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    result = {"from_name": "l", "to_name": "i", "type": "choices", "value": {"choices": ["a"]}}
    tasks = [{"id": n, "data": {"image": f"{n % 12}.png"}, "annotations": []} for n in range(30)]
    for task in tasks[:6]:
        task["annotations"] = [{"result": [result]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    done = label(tmp_path / "export.json", out=tmp_path / "labels", count=40)
    assert (done.labeled, done.unlabeled, len(done.next)) == (6, 24, 24)
    written = read_tasks(done.out)
    assert sorted(task["id"] for task in written) == list(range(30))
    assert all(f"{task['id'] % 12}.png" == name for task, name in zip(written, done.next, strict=False))


def test_labels_of_tasks_that_share_a_file_stay_with_their_tasks(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(generator.integers(0, 255, (12, 12), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    tasks = [{"id": n, "data": {"image": f"{n % 20}.png", "kind": "ab"[n // 20]}, "annotations": []} for n in range(40)]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    pool = read_pool(tmp_path / "export.json", None, None, DataConfig(columns=Columns(label="kind")))
    assert pool.labeled is not None
    for split, _, part, index in iterate_named(pool.labeled):
        row = pool.find_row(split, index)
        assert row is not None
        assert row.task is not None
        assert row.task["data"]["kind"] == pool.labeled.classes[part.labels[index]]
        assert row.task["data"]["image"] == part.samples.name(index)


def nest(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = {"a": inner}
    return inner


@pytest.mark.usefixtures("few_words")
def test_what_is_nested_deeply_is_carried_on(tmp_path: Path) -> None:
    tasks = [{**task, "meta": nest(300)} for task in make_tasks(labeled=0, count=6)]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    done = label(tmp_path / "export.json", out=tmp_path / "labels", count=2)
    assert read_tasks(done.out)[0]["meta"] == nest(300)


def test_what_json_cannot_hold_is_refused() -> None:
    for value in (float("nan"), {"x": [float("inf")]}):
        with pytest.raises(DataError, match="found NaN or an infinite one"):
            format_task(value)
    with pytest.raises(DataError, match="nested less deeply"):
        format_task(nest(100_000))


def test_of_what_a_network_has_no_number_for_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for number in range(6):
        Image.new("L", (12, 12), 40 * number).save(folder / f"{number}.png")
    answers = np.full((6, 2), 0.5)
    answers[2] = np.nan
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    features[2, 0] = torch.nan
    beliefs = PoolPredictions(np.arange(6), features, answers, ("a", "b"), "network")
    monkeypatch.setattr("falconet.labeling.ranking.ask_candidate", lambda *_: beliefs)
    done = label(folder, out=tmp_path / "labels", count=6)
    known = {item["name"]: item["probability"] for item in read_page(done.out)[1]["items"]}
    assert known == {f"{number}.png": None if number == 2 else 0.5 for number in range(6)}


def test_files_need_no_names_that_are_text(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    Image.new("L", (12, 12)).save(folder / "0.png")
    try:
        (folder / "0.png").rename(folder / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("a file system of Unicode")
    done = label(folder, out=tmp_path / "labels")
    label_all(done.out, tmp_path / "labels.json", "a", "label")
    dataset = read_dataset(tmp_path / "labels.json", config=DataConfig())
    assert len(dataset.split("all")) == 1


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which network compares texts does not count, nor which labels are suspected."""
    generator = torch.Generator().manual_seed(0)

    def ask(unlabeled: Dataset, _: Dataset | None) -> PoolPredictions:
        count = len(unlabeled.splits["train"])
        features = torch.randn(count, 3, generator=generator)
        return PoolPredictions(np.arange(count), features, None, ("0", "1"), "none")

    monkeypatch.setattr("falconet.labeling.ranking.ask_candidate", ask)
    monkeypatch.setattr("falconet.labeling.find_label_errors", lambda *_: LabelAudit(()))


@pytest.fixture
def without_minilm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that lacks the package of its weights."""
    candidates = {
        kind: tuple(dataclasses.replace(one, needs="no_such_package") if one.needs else one for one in tried)
        for kind, tried in defaults.CANDIDATES.items()
    }
    monkeypatch.setattr(defaults, "CANDIDATES", candidates)


@pytest.mark.usefixtures("without_minilm")
@pytest.mark.parametrize("labeled", [0, 40])
def test_texts_are_chosen_without_published_weights(tmp_path: Path, labeled: int) -> None:
    write_notes(tmp_path / "notes.csv", labeled=labeled)
    if not labeled:
        rows = (tmp_path / "notes.csv").read_text().splitlines()
        (tmp_path / "notes.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    dataset = read_pool(tmp_path / "notes.csv", None, None, DataConfig())
    choices = choose_next(dataset, None, 4)
    assert choices.version == "linear"
    assert len({choice.index for choice in choices.items}) == 4
    if labeled:  # Every second one is a fruit, in the labeled rows as in these.
        assert [choice.suggested for choice in choices.items] == [
            ("fruit", "metal")[choice.index % 2] for choice in choices.items
        ]


@pytest.mark.slow
def test_a_model_of_words_is_asked_by_its_terms(tmp_path: Path) -> None:
    write_notes(tmp_path / "notes.csv", labeled=48)
    settings = {"training": {"linear_probe": "logistic"}, "augmentation": {"policy": "none"}}
    trained = train(tmp_path / "notes.csv", model="linear", epochs=1, settings=settings, out=tmp_path / "run")
    artifact = load_artifact(trained.out)
    pool = read_pool(tmp_path / "notes.csv", artifact.config.input, None, DataConfig())
    assert pool.labeled is not None
    beliefs = ask_model(artifact, pool.labeled)
    # As many as the output layer has, of norm 1 in each row.
    assert beliefs.features.shape == (
        len(pool.labeled.splits["train"]),
        find_linear_classifier(artifact.model).in_features,
    )
    norms = beliefs.features.clone().to_dense().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(len(norms)))
    assert len(label(tmp_path / "notes.csv", model=trained.out, out=tmp_path / "labels", count=3).next) == 3


@pytest.mark.slow
def test_too_few_labels_are_told(tmp_path: Path) -> None:
    write_notes(tmp_path / "notes.csv", labeled=4)
    done = label(tmp_path / "notes.csv", out=tmp_path / "labels", count=5)
    assert done.label_errors == ()
    assert done.notes[0].startswith("labels were not checked: wanted enough different samples of each class")
    assert len(done.next) == 5


@pytest.mark.slow
def test_the_page_asks_no_network_and_runs_nothing_but_its_script(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>\u202e<img src=x onerror=alert(1)>"
    with (tmp_path / "notes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((f"{hostile} number {n}", hostile if n % 2 else "plain") for n in range(12))
    done = label(tmp_path / "notes.csv", out=tmp_path / "labels", count=2)
    page, data = read_page(done.out)
    assert page.count("<script") == 2
    assert hostile not in page
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert hostile in {entry["value"] for entry in data["classes"]}
    assert all("\u202e" not in entry["shown"] for entry in data["classes"])


@pytest.mark.slow
def test_mistakes_are_told(tmp_path: Path, trained: RunResult) -> None:
    write_notes(tmp_path / "notes.csv", labeled=4)
    with pytest.raises(ConfigError, match="count: wanted 1 or more, found 0"):
        label(tmp_path / "notes.csv", count=0)
    with pytest.raises(DataError, match="wanted image data, as the model takes, found text"):
        label(tmp_path / "notes.csv", model=trained.out, out=tmp_path / "labels")
    with pytest.raises(PathError):
        label(tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="wanted images, recordings, texts or a table, found none"):
        label(tmp_path / "empty", out=tmp_path / "labels")


@pytest.mark.slow
def test_the_command_line_says_what_is_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_notes(tmp_path / "notes.csv", labeled=4)
    out = tmp_path / "labels"
    assert run(["label", str(tmp_path / "notes.csv"), "--out", str(out), "--count", "5"]) == 0
    said = capsys.readouterr()
    assert "4 samples with labels, 0 likely wrong ones on the page; 56 without, 5 to label next" in said.out
    assert f"page: {out / 'label.html'}" in said.out
    assert "labels were not checked" in said.err
    assert run(["label", str(tmp_path / "notes.csv"), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unlabeled"] == 56
