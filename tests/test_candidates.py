"""A run without a named network: candidates are compared, and the best is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from falconet.artifact import load_artifact
from falconet.errors import InterruptedRunError
from falconet.leaderboard import choose_best_row
from falconet.model import train
from falconet.planning import LEADERBOARD_FILE, plan_run
from falconet.report import LeaderboardRow
from falconet.runs import RunResult, execute
from falconet.training import Callback


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Gray images of two classes, which a linear model tells apart and LeNet does not in one epoch."""
    generator = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = generator.integers(0, 100, (80, 12, 12)).astype(np.uint8)
    images[labels == 1, :2] += 40
    path = tmp_path / "rows.npz"
    np.savez(path, images=images, labels=labels)
    return path


SLOW = {"training": {"learning_rate": 1e-6}}
"""So that LeNet learns nothing."""


class Notes(Callback):
    """Keeps what a run tells."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def on_note(self, line: str) -> None:
        self.lines.append(line)


def run(images: Path, out: Path, **more: object) -> RunResult:
    return train(images, epochs=1, settings=SLOW, out=out, **more)  # type: ignore[arg-type]


def test_the_candidate_that_is_better_is_kept(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    notes: list[str] = []
    result = run(images, out, callbacks=[Notes(notes)])
    assert result.architecture == "linear"
    assert result.test.accuracy > 0.8
    assert load_artifact(out).config.architecture == "linear"
    assert yaml.safe_load((out / "config.yaml").read_text())["model"]["name"] == "linear"
    rows = result.report.log.leaderboard
    assert [row.model for row in rows] == ["linear", "lenet_relu"]
    assert [row.kept for row in rows] == [True, False]
    assert rows[0].cross_validated is not None
    assert rows[0].val_accuracy == result.val.accuracy
    assert rows[1].cross_validated is None
    facts = json.loads((out / "metrics.json").read_text())
    assert [row["model"] for row in facts["leaderboard"]] == ["linear", "lenet_relu"]
    history = (out / "metrics.csv").read_text().splitlines()
    assert len(history) == 2
    assert float(history[1].split(",")[5]) == result.val.accuracy
    assert "Networks that were tried" in (out / "report.html").read_text()
    assert notes[-1] == "kept: linear"


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        # Two solved ones: 90 of 100 left out and 8 of 10 are fewer than 91 of 100 and 8 of 10.
        ([("linear", 0.90, 0.8, 100, 10), ("minilm", 0.91, 0.8, 100, 10)], 1),
        # Cross-validation over many samples stands against ten validation samples.
        ([("linear", 0.90, 0.9, 1000, 10), ("minilm", 0.95, 0.8, 1000, 10)], 1),
        ([("linear", 0.90, 0.9, 100, 10), ("minilm", 0.90, 0.9, 100, 10)], 0),
        # One standard error of 0.8 over 400 samples is 0.02; these are enough to tell alone.
        ([("linear", 0.70, 0.785, 500, 400), ("lenet_relu", None, 0.80, 0, 400)], 0),
        ([("linear", 0.99, 0.775, 500, 400), ("lenet_relu", None, 0.80, 0, 400)], 1),
        # Over 100 samples it is 0.04, and they are few, so that those left out are heard.
        ([("linear", 0.70, 0.75, 500, 100), ("lenet_relu", None, 0.80, 0, 100)], 1),
        ([("linear", 0.80, 0.75, 500, 100), ("lenet_relu", None, 0.80, 0, 100)], 0),
        # All of five are right, which may be luck.
        ([("linear", 0.95, 0.8, 4000, 5), ("lenet_relu", None, 1.0, 0, 5)], 0),
        ([("linear", None, 0.5, 0, 4), ("lenet_relu", None, 0.75, 0, 4)], 1),
        ([("linear", None, 0.5, 0, 4), ("lenet_relu", None, 0.5, 0, 4)], 0),
    ],
)
def test_which_network_is_kept(rows: list[tuple[str, float | None, float, int, int]], kept: int) -> None:
    found = [
        LeaderboardRow(model, left_out_accuracy, accuracy, 1.0, left_out, validated)
        for model, left_out_accuracy, accuracy, left_out, validated in rows
    ]
    assert choose_best_row(found) == kept


def test_candidates_share_what_suits_any_network(images: Path, tmp_path: Path) -> None:
    asked = {"training": {"seed": 7, "device": "cpu", "class_weights": "effective", "learning_rate": 0.5}}
    plan = plan_run(images, settings=asked, out=tmp_path / "run")
    (candidate,) = plan.probe_candidates
    assert (candidate.training.seed, candidate.training.device, candidate.training.class_weights) == (
        7,
        "cpu",
        "effective",
    )
    assert candidate.training.learning_rate != 0.5


@pytest.mark.slow
def test_a_finished_run_goes_on_to_the_same_files(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(images, out)
    before = (out / "model.safetensors").read_bytes()
    again = run(images, out, if_exists="resume")
    assert again.architecture == "linear"
    rows = again.report.log.leaderboard
    assert [(row.model, row.kept) for row in rows] == [("linear", True), ("lenet_relu", False)]
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_run_with_a_named_network_leaves_no_candidates_of_the_one_before(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(images, out)
    assert (out / LEADERBOARD_FILE).is_file()
    run(images, out, model="lenet_relu", if_exists="overwrite")
    assert not (out / LEADERBOARD_FILE).exists()


@pytest.mark.slow
def test_an_interrupted_run_still_knows_its_candidates(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    class Stop(Callback):
        def on_step(self, step: int, loss: float) -> None:
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        run(images, out, callbacks=[Stop()])
    assert json.loads((out / LEADERBOARD_FILE).read_text())["candidates"][0]["model"] == "linear"
    result = run(images, out, if_exists="resume")
    assert result.architecture == "linear"
    assert result.report.log.leaderboard[0].kept


def test_a_named_network_has_no_candidates(images: Path, tmp_path: Path) -> None:
    plan = plan_run(images, model="lenet_relu", out=tmp_path / "run")
    assert plan.probe_candidates == ()
    assert plan.seconds is None
    assert plan.autotune == frozenset()


def test_a_time_shortens_a_run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of 56 samples takes a quarter of a second, so that an epoch takes 1.25 times 14 s.
    monkeypatch.setattr("falconet.training.autotuning.measure_training_throughput", lambda *_: 4.0)
    plan = plan_run(
        images, model="lenet_relu", out=tmp_path / "run", seconds=60, settings={"training": {"patience": 9}}
    )
    assert plan.autotune == {"epochs"}
    result = execute(plan)
    assert result.epochs == 3
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["epochs"] == 3


def test_a_run_that_is_too_short_says_so(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.training.autotuning.measure_training_throughput", lambda *_: 0.1)
    lines: list[str] = []
    result = train(
        images, model="lenet_relu", settings=SLOW, seconds=60, out=tmp_path / "run", callbacks=[Notes(lines)]
    )
    assert result.epochs == 1
    assert any("time: one epoch alone takes about 700 s, longer than the" in line for line in lines)


def test_a_candidate_that_would_take_too_long_is_left_out(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Features of 64 training and validation samples would take more than half of a minute.
    monkeypatch.setattr("falconet.runs.measure_inference_throughput", lambda *_: 2.0)
    lines: list[str] = []
    result = run(images, tmp_path / "run", seconds=60, callbacks=[Notes(lines)])
    assert result.architecture == "lenet_relu"
    assert result.report.log.leaderboard == ()
    assert any(line.startswith("candidate linear is left out: its features of") for line in lines)


@pytest.mark.slow
def test_a_run_that_goes_on_tries_what_it_tried_before(images: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "run", list[str]()

    class Stop(Callback):
        def on_step(self, step: int, loss: float) -> None:
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        run(images, out, callbacks=[Stop()])
    # There is no time left for any candidate, and yet it is tried, as it was when the run began.
    result = run(images, out, if_exists="resume", seconds=1e-9, callbacks=[Notes(lines)])
    assert [row.model for row in result.report.log.leaderboard] == ["linear", "lenet_relu"]
    leaderboard = json.loads((out / LEADERBOARD_FILE).read_text())
    (out / LEADERBOARD_FILE).write_text(json.dumps({"candidates": []}))
    assert plan_run(images, out=out, if_exists="resume").probe_candidates == ()
    (out / LEADERBOARD_FILE).write_text(json.dumps(leaderboard))


def test_without_any_time_no_candidate_is_begun(images: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = run(images, tmp_path / "run", seconds=1e-9, callbacks=[Notes(lines)])
    assert result.architecture == "lenet_relu"
    assert "candidate linear is left out: no time is left; --time changes it" in lines


def test_epochs_that_are_asked_for_are_not_measured(images: Path, tmp_path: Path) -> None:
    plan = plan_run(images, model="lenet_relu", epochs=2, out=tmp_path / "run", seconds=60)
    assert plan.autotune == frozenset()


def test_a_loss_without_a_linear_probe_still_has_defaults(images: Path, tmp_path: Path) -> None:
    plan = plan_run(images, settings={"training": {"loss": "brier"}}, out=tmp_path / "run")
    assert plan.config.training.linear_probe is None
    assert plan.config.training.loss == "brier"
