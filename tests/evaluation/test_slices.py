"""Accuracy in parts of a split."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from falconet import RunResult, evaluate, train
from falconet.data import Split, Texts
from falconet.errors import ConfigError, DataError
from falconet.evaluation.slices import slice_answers
from falconet.metrics import wilson_interval

FolderMaker = Callable[..., Path]


def make_split(cells: list[str]) -> Split:
    samples = Texts(cells, np.array([f"t.csv:{index}" for index in range(len(cells))]))
    zeros = np.zeros(len(cells), dtype=np.int64)
    return Split(samples, zeros, zeros.astype(np.uint64), extras={"place": np.array(cells, dtype=object)})


def test_surely_bad_slices_come_first() -> None:
    cells = ["lab"] * 100 + ["road"] * 100 + ["sea"] * 2 + [""] * 5
    right = np.array([True] * 95 + [False] * 5 + [True] * 60 + [False] * 40 + [True, False] + [True] * 5)
    found = slice_answers(make_split(cells), right, "place")
    assert found.column == "place"
    rows = [(part.value, part.n, part.accuracy, part.few) for part in found.slices]
    assert rows == [("road", 100, 0.6, False), ("sea", 2, 0.5, True), ("lab", 100, 0.95, False), ("", 5, 1.0, True)]
    assert found.slices[0].accuracy_ci == wilson_interval(60, 100)


def write_manifest(folder: Path) -> Path:
    """Write a table of the images in class folders, the camera of each beside it."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "camera"])
        writer.writerows((path, path.split("/")[0], f"cam {number % 3}") for number, path in enumerate(paths))
    return folder / "table.csv"


def test_files_of_a_table(trained: RunResult, make_folder: FolderMaker) -> None:
    table = write_manifest(make_folder(classes=("3", "7")))
    result = evaluate(trained.out, table, split="all", by="camera")
    assert result.slices is not None
    assert sorted((part.value, part.n) for part in result.slices.slices) == [("cam 0", 8), ("cam 1", 8), ("cam 2", 8)]
    assert sum(part.n * part.accuracy for part in result.slices.slices) == pytest.approx(24 * result.accuracy)
    by_label = evaluate(trained.out, table, split="all", by="label").slices
    assert by_label is not None
    recalls = {row.name: row.recall for row in result.per_class if row.support}
    assert {part.value: part.accuracy for part in by_label.slices} == pytest.approx(recalls)


@pytest.mark.slow
def test_texts_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    lines = [f"{'good' if n % 2 else 'bad'} thing {n},{n % 2},{'web' if n % 3 else 'phone'}" for n in range(60)]
    table.write_text("\n".join(["text,label,channel", *lines]) + "\n", encoding="utf-8")
    run = train(table, model="gru", epochs=1, out=tmp_path / "run")
    result = evaluate(run.out, table, by="channel")
    assert result.slices is not None
    assert {part.value for part in result.slices.slices} <= {"web", "phone"}
    assert sum(part.n for part in result.slices.slices) == result.n


def test_columns_that_are_not_there(trained: RunResult, make_folder: FolderMaker) -> None:
    table = write_manifest(make_folder(classes=("3", "7")))
    with pytest.raises(ConfigError, match=r"table.csv: unknown column 'camra': did you mean camera"):
        evaluate(trained.out, table, split="all", by="camra")
    with pytest.raises(DataError, match="by: wanted a table with the column camera, found a source that is no"):
        evaluate(trained.out, "digits", by="camera")
