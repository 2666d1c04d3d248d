"""What is written for TensorBoard, read back as TensorBoard does; and another logger, as documented."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.event_file_writer import AtomicCounter

import falconet
from falconet import TensorBoardLogger
from falconet.errors import InterruptedRunError, MissingExtraError, StorageError, UnknownNameError
from falconet.training import Callback, EpochRow
from falconet.training.loggers import EVERY, check_logger, create_logger

STEPS = 7
Points = list[tuple[int, float]]


def read(folder: Path) -> dict[str, Points]:
    """Return each tag's steps and values, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    tags: list[str] = events.Tags()["scalars"]
    return {tag: [(point.step, round(point.value, 4)) for point in events.Scalars(tag)] for tag in tags}


def make_row(epoch: int, shift: float = 0.0) -> EpochRow:
    return EpochRow(epoch, 0.5 / epoch, 1.0 / epoch + shift, 0.25, 2.0 / epoch, 0.75, 3.0)


def play(logger: Callback, first: int, last: int, history: list[EpochRow] | None = None, shift: float = 0.0) -> None:
    """Tell a logger of the steps `first` to `last`, as the loop does; it ends there."""
    rows = history or []
    logger.on_start(9, STEPS, list(rows))
    steps(logger, first, last, shift)
    logger.on_end()


def steps(logger: Callback, first: int, last: int, shift: float = 0.0) -> None:
    for step in range(first, last + 1):
        logger.on_step(step, step + shift)
        if step % STEPS == 0:
            logger.on_epoch(make_row(step // STEPS, shift), best=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("falconet.training.loggers.EVERY", 2)
    # Files of one second are read in the order of this number as text: 10 comes before 9.
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid", AtomicCounter(100))
    return tmp_path / "tensorboard"


def test_scalars_of_epochs_stand_at_their_last_steps(folder: Path) -> None:
    play(TensorBoardLogger(folder), 1, 14)
    points = read(folder)
    assert points["loss/train"] == [(7, 1.0), (14, 0.5)]
    assert points["loss/val"] == [(7, 2.0), (14, 1.0)]
    assert points["accuracy/train"] == [(7, 0.25), (14, 0.25)]
    assert points["accuracy/val"] == [(7, 0.75), (14, 0.75)]
    assert points["learning_rate"] == [(7, 0.5), (14, 0.25)]
    assert points["seconds_per_epoch"] == [(7, 3.0), (14, 3.0)]
    assert points["loss/step"] == [(step, float(step)) for step in (2, 4, 6, 8, 10, 12)]


def test_losses_of_steps_are_written_now_and_then(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.on_start(1, 10 * EVERY, [])
    for step in range(1, 3 * EVERY + 1):
        logger.on_step(step, 0.0)
    logger.on_end()
    assert [step for step, _ in read(tmp_path)["loss/step"]] == [EVERY, 2 * EVERY, 3 * EVERY]


@pytest.mark.parametrize(("killed", "behind", "first"), [(14, 2, 15), (10, 1, 8), (12, 1, 11), (5, 0, 3), (5, 0, 1)])
def test_a_resumed_run_has_each_point_once(folder: Path, killed: int, behind: int, first: int) -> None:
    """Killed after step `killed`, it goes on with step `first`, from a checkpoint at or within an epoch."""
    play(TensorBoardLogger(folder), 1, killed)
    play(TensorBoardLogger(folder), first, 21, [make_row(epoch + 1) for epoch in range(behind)], shift=100.0)
    points = read(folder)
    assert points["loss/train"] == [(7 * n, round(1.0 / n + (100 if n > behind else 0), 4)) for n in (1, 2, 3)]
    expected = [step for step in range(2, 22, 2) if step % STEPS]
    assert points["loss/step"] == [(step, step + (100.0 if step >= first else 0.0)) for step in expected]


def test_an_epoch_that_was_kept_but_not_told_before_a_kill_is_told(folder: Path) -> None:
    logger = TensorBoardLogger(folder)
    logger.on_start(9, STEPS, [])
    for step in range(1, 8):
        logger.on_step(step, float(step))
    logger.on_end()
    play(TensorBoardLogger(folder), 8, 14, [make_row(1)])
    assert read(folder)["loss/train"] == [(7, 1.0), (14, 0.5)]


def test_epochs_before_the_first_log_are_told(folder: Path) -> None:
    play(TensorBoardLogger(folder), 15, 21, [make_row(1), make_row(2)])
    assert [step for step, _ in read(folder)["loss/val"]] == [7, 14, 21]


def test_an_epoch_that_is_gone_back_from_leaves_no_points(folder: Path) -> None:
    logger = TensorBoardLogger(folder)
    logger.on_start(9, STEPS, [])
    steps(logger, 1, 11)
    steps(logger, 8, 14, shift=100.0)
    logger.on_end()
    points = read(folder)
    assert [step for step, _ in points["loss/train"]] == [7, 14]
    assert points["loss/step"] == [(2, 2.0), (4, 4.0), (6, 6.0), (8, 108.0), (10, 110.0), (12, 112.0)]


def test_a_new_run_removes_the_events_of_the_one_before_and_nothing_else(folder: Path) -> None:
    play(TensorBoardLogger(folder), 1, 14)
    (folder / "notes.txt").write_text("mine")
    play(TensorBoardLogger(folder), 1, 7)
    assert [step for step, _ in read(folder)["loss/train"]] == [7]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert (folder / "notes.txt").exists()


def test_epochs_are_on_disk_when_they_end(folder: Path) -> None:
    logger = TensorBoardLogger(folder)
    logger.on_start(9, STEPS, [])
    steps(logger, 1, 7)
    assert read(folder)["loss/train"] == [(7, 1.0)]
    logger.on_end()


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    logger = TensorBoardLogger(tmp_path / "file" / "below")
    logger.on_start(9, STEPS, [])
    with pytest.raises(StorageError, match="cannot write"):
        logger.on_step(1, 0.0)
    logger.on_end()


def test_a_run_that_ends_before_its_first_step_writes_nothing(folder: Path) -> None:
    logger = TensorBoardLogger(folder)
    logger.on_start(9, STEPS, [])
    logger.on_end()
    assert not folder.exists()


def test_unknown_names_come_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown logger 'tensorbord': did you mean tensorboard\?"):
        create_logger("tensorbord", tmp_path)


def test_without_the_extra_a_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorboard" else real(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'falconet\[tensorboard\]'"):
        check_logger("tensorboard")


class Stop(Callback):
    """Presses Ctrl-C in a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, loss: float) -> None:
        if step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_that_is_stopped_and_resumed_has_each_epoch_once(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": {"name": "lenet300_100"}, "training": {"batch_size": 200, "epochs": 3}}
    logger = TensorBoardLogger(tmp_path / "tensorboard")
    with pytest.raises(InterruptedRunError):
        falconet.train("digits", settings=settings, out=tmp_path, callbacks=[logger, Stop(9)])
    logger = TensorBoardLogger(tmp_path / "tensorboard")
    run = falconet.train("digits", settings=settings, out=tmp_path, if_exists="resume", callbacks=[logger])
    points = read(tmp_path / "tensorboard")
    length = points["loss/val"][0][0]
    rows = run.report.history
    assert points["loss/val"] == [(row.epoch * length, round(np.float32(row.val_loss).item(), 4)) for row in rows]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.slow
def test_another_logger_as_documented(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- logger: begin -->\n```python\n(.*?)```", text, re.DOTALL)
    assert match is not None
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", match[1]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(0 < line["val_accuracy"] <= 1 for line in lines)
