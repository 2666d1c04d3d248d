"""compress() on the embedded digits, as its users call it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from falconet import Budget, RunResult, compress, evaluate, load_artifact
from falconet.cli import run
from falconet.complexity import count_complexity
from falconet.compression import Compression, Trial, Watcher, session
from falconet.compression import result as result_module
from falconet.compression.frontier import FRONTIER_FILES, SENSITIVITY_FILES
from falconet.compression.session import clear_search, is_coarse
from falconet.compression.steps import channels
from falconet.compression.steps.channels import PruneChannels
from falconet.errors import BudgetError, ConfigError, DataError, PathError, RunExistsError, UsageError
from falconet.exporters.exporting import export
from falconet.model_files import ARTIFACT_FILES
from falconet.storage import hold, read_json, write_json

QUICK: dict[str, Any] = {"compression": {"epochs": 1, "refinements": 1, "sensitivity": False}}

SMALL: dict[str, Any] = {"compression": {**QUICK["compression"], "sensitivity": True, "polish": 1}}


def list_trials(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "search" / "search.json").read_text())["trials"]
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in found]


@pytest.fixture(scope="module")
def small(trained: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Compression:
    """The session's network, within 30 kB, and exported in integers for its report as users have it."""
    out = tmp_path_factory.mktemp("compressed") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_module, "export", export)
        return compress(trained.out, "digits", out, budget=Budget(max_bytes=30_000), settings=SMALL)


@pytest.mark.slow
def test_the_file_keeps_within_its_size_and_answers(small: Compression, trained: RunResult) -> None:
    file = small.out / "model.fnet"
    assert file.stat().st_size == small.shrinking.bytes_after <= 30_000
    dense = 4 * sum(value.numel() for value in load_artifact(trained.out).model.parameters())
    assert small.shrinking.bytes_before == dense
    assert small.facts()["ratio"] == pytest.approx(dense / file.stat().st_size)
    evaluated = evaluate(small.out, "digits")
    assert evaluated.accuracy == small.test.accuracy > 0.8
    assert small.shrinking.comparison.other_accuracy == trained.test.accuracy
    assert small.shrinking.drop == pytest.approx(100 * (trained.test.accuracy - evaluated.accuracy))


@pytest.mark.slow
def test_the_file_alone_predicts(small: Compression, tmp_path: Path) -> None:
    alone = tmp_path / "tiny.fnet"
    shutil.copy(small.out / "model.fnet", alone)
    one, other = load_artifact(alone), load_artifact(small.out)
    sample = torch.rand(3, 1, 28, 28)
    assert torch.equal(one.model(sample), other.model(sample))
    assert one.config.input == other.config.input
    assert one.config.calibration_temperature == other.config.calibration_temperature


@pytest.mark.slow
def test_an_ordinary_network_comes_back_that_learns_again(small: Compression) -> None:
    network = load_artifact(small.out).model.train()
    loss = torch.nn.functional.cross_entropy(network(torch.rand(4, 1, 28, 28)), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.slow
def test_all_trials_are_in_table_and_plot(small: Compression) -> None:
    rows = list(csv.DictReader((small.out / "frontier.csv").read_text().splitlines()))
    assert {int(row["trial"]) for row in rows} == {trial.number for trial in small.trials}
    assert [int(row["bytes"]) for row in rows] == sorted(int(row["bytes"]) for row in rows)
    for row in rows:
        file = small.out / "search" / f"trial-{int(row['trial']):02}.fnet"
        assert file.stat().st_size == int(row["bytes"])
    for name in ("frontier.png", "sensitivity.png"):
        assert (small.out / name).read_bytes().startswith(b"\x89PNG")
    layers = {row["parameter"] for row in csv.DictReader((small.out / "sensitivity.csv").read_text().splitlines())}
    assert layers == {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}


@pytest.mark.slow
def test_the_report_says_what_was_lost_and_which_is_faster(small: Compression) -> None:
    page = (small.out / "report.html").read_text()
    assert "Metrics per epoch" not in page
    assert "had trained for 2 epochs" in page
    assert "Compressed from a network that had trained for 2 epochs" in (small.out / "README.md").read_text()
    assert f"{small.shrinking.ratio:.1f}× smaller" in page
    assert small.shrinking.describe_latency() in page
    assert small.shrinking.integers is not None
    assert small.shrinking.describe_drop() in page
    facts = json.loads((small.out / "metrics.json").read_text())
    assert facts["compression"]["bytes_after"] == facts["bytes"] == small.shrinking.bytes_after


@pytest.mark.slow
def test_a_compressed_model_is_compressed_further(small: Compression, tmp_path: Path) -> None:
    again = compress(small.out, "digits", tmp_path / "again", budget=Budget(max_bytes=15_000), settings=QUICK)
    assert again.shrinking.bytes_after <= 15_000
    assert again.shrinking.bytes_before == small.shrinking.bytes_before


@pytest.mark.slow
def test_a_stopped_search_goes_on_to_the_same_files(trained: RunResult, tmp_path: Path) -> None:
    budget = Budget(max_bytes=60_000)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    compress(trained.out, "digits", whole, budget=budget, settings=QUICK)

    def stop(trial: Trial, best: Trial) -> None:
        if trial.number == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        compress(trained.out, "digits", stopped, budget=budget, settings=QUICK, watcher=Watcher(on_trial=stop))
    with pytest.raises(RunExistsError, match="resume"):
        compress(trained.out, "digits", stopped, budget=budget, settings=QUICK)
    compress(trained.out, "digits", stopped, budget=budget, settings=QUICK, if_exists="resume")
    assert list_trials(whole) == list_trials(stopped)
    assert (whole / "model.fnet").read_bytes() == (stopped / "model.fnet").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.full)])
def test_killed_in_the_middle_of_a_trial_it_goes_on(trained: RunResult, tmp_path: Path, end: signal.Signals) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.plain", "compress", str(trained.out), "digits", "--out", str(out)]
    command += ["--max-size", "60kB", "--epochs", "3"]
    command += ["--set", "compression.sensitivity=false", "--set", "compression.refinements=0"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 2/3" in line:
                break
        process.send_signal(end)
        told = process.stderr.read()
    assert process.returncode in {-signal.SIGKILL, 1}
    assert "Traceback" not in told
    assert ("--resume goes on" in told) is (end == signal.SIGINT)
    done = subprocess.run([*command, "--resume", "--json"], cwd=root, capture_output=True, text=True, check=True)
    assert "goes on after epoch 2 of 3" in done.stderr
    assert json.loads(done.stdout)["bytes_after"] <= 60_000


@pytest.mark.slow
def test_fewer_macs(trained: RunResult, tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    dense = load_artifact(trained.out)
    result = compress(
        trained.out, "digits", tmp_path / "out", budget=Budget(max_macs=2_000_000, max_bytes=10**6), settings={
            "compression": {"epochs": 2, "refinements": 0, "sensitivity": False}, "training": {"learning_rate": 2e-3}
        },
    )  # fmt: skip
    assert result.shrinking.macs_after <= 2_000_000 < result.shrinking.macs_before
    network = load_artifact(tmp_path / "out").model
    assert sum(map(torch.numel, network.parameters())) < sum(map(torch.numel, dense.model.parameters()))


@pytest.mark.slow
def test_what_cannot_be_met_is_said_with_the_nearest(
    trained: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--epochs", "1", "--set", "compression.sensitivity=false", "--set", "compression.refinements=0"]
    out = tmp_path / "out"
    command = ["compress", str(trained.out), "digits", "--out", str(out), "--max-size", "20kB", "--max-drop", "0"]
    assert run([*command, *quick, "--time", "0.001s"]) == 1  # Which any first trial takes, so that there is no second.
    line = capsys.readouterr().err.splitlines()[-1]
    assert "none of 1 trials keeps within the budget, at most 20.0 kB, 0 points lost, 0.001 s of search; the" in line
    assert "the nearest is trial 1: " in line
    assert "trial-01.fnet" in line
    assert (out / "frontier.csv").is_file()
    assert not (out / "model.fnet").exists()


@pytest.mark.slow
def test_a_latency_out_of_reach_is_said_with_the_least(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_pruning")
    monkeypatch.setattr("falconet.compression.trial.time_fastest", lambda artifact: 0.25)
    told = r"channels; with \d+% of the MACs it takes 0.250 ms: about [\d,]+ MACs are left at least, [\d,]+ with"
    with pytest.raises(BudgetError, match=told):
        compress(trained.out, "digits", tmp_path / "out", budget=Budget(max_latency_ms=0.01), settings=QUICK)


@pytest.mark.slow
def test_a_report_that_fails_leaves_what_was_found_before(
    small: Compression, trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(result_module, "build_report", fail)
    out = tmp_path / "small"
    shutil.copytree(small.out, out)
    with pytest.raises(KeyboardInterrupt):
        compress(trained.out, "digits", out, budget=Budget(max_bytes=400_000), settings=SMALL, if_exists="resume")
    for name in ARTIFACT_FILES:
        assert not (small.out / name).exists() or (out / name).read_bytes() == (small.out / name).read_bytes()


@pytest.mark.parametrize(
    "file",
    ["frontier.csv", "frontier.png", "sensitivity.png", "search/trial-03.fnet", "search/checkpoint/epoch-1.json"],
)
def test_a_new_search_begins_without_trials_and_keeps_what_was_chosen(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    for name in (file, "model.fnet", "report.html", "letter.txt"):
        (tmp_path / name).write_text("old")
    clear_search(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"model.fnet", "report.html", "letter.txt"}
    assert not (tmp_path / file).exists()


def make_old(out: Path) -> dict[Path, bytes]:
    """Make a folder that looks like that of a search that has ended; return what its files hold."""
    names = [*ARTIFACT_FILES, *FRONTIER_FILES, *SENSITIVITY_FILES, "config.yaml", "letter.txt"]
    for name in (*names, "search/search.json", "search/trial-01.fnet", "search/checkpoint/epoch-1.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"old {name}")
    return read_files(out)


def read_files(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


IMPOSSIBLE: list[tuple[Budget, dict[str, Any], str]] = [
    (Budget(max_macs=100), {}, "100 MACs: out of reach by removing channels"),
    (Budget(), {"training": {"device": "mps"}}, "device: wanted"),
    (Budget(), {"training": {"initial_scale": 0.5}}, "initial_scale"),
    (Budget(), {"training": {"learning_rate": 0.0}}, "training.learning_rate: wanted above 0"),
    (Budget(), {"compression": {"bits": 9}}, "compression.bits: wanted 2 to 8, found 9"),
    (Budget(), {"augmentation": {"rotate": 999}}, "augmentation.rotate: wanted 0 to 180, found 999"),
    (Budget(), {"model": {"name": "lenet5"}}, "model"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "settings", "message"), IMPOSSIBLE, ids=[message for *_, message in IMPOSSIBLE])
def test_what_cannot_be_costs_nothing_of_the_search_before(
    budget: Budget,
    settings: dict[str, Any],
    message: str,
    trained: RunResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch_pruning")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    before = make_old(tmp_path)
    with pytest.raises((BudgetError, UsageError), match=message):
        compress(trained.out, "digits", tmp_path, budget=budget, settings=settings, if_exists="overwrite")
    assert read_files(tmp_path) == before


def test_what_can_be_begins_anew_and_keeps_the_model_until_another_takes_its_place(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run_trials", stop)
    before = make_old(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compress(trained.out, "digits", tmp_path, settings=QUICK, if_exists="overwrite")
    after = read_files(tmp_path)
    gone = {Path("search") / name for name in ("trial-01.fnet", "checkpoint/epoch-1.json")}
    gone |= {Path(name) for name in (*FRONTIER_FILES, *SENSITIVITY_FILES)}
    assert before.keys() - after.keys() == gone
    assert json.loads(after.pop(Path("search/search.json")))["trials"] == []
    assert {path: after[path] for path in before.keys() & after.keys()} == {
        path: content for path, content in before.items() if path in after
    }


def test_channels_that_cannot_be_followed_are_the_reason(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_pruning")

    def refuse(*arguments: object) -> None:
        raise ConfigError("wanted a network whose channels can be followed")

    monkeypatch.setattr(channels, "check_removal", refuse)
    with pytest.raises(BudgetError, match="out of reach by removing channels: wanted a network whose channels"):
        compress(trained.out, "digits", tmp_path / "out", budget=Budget(max_macs=2_000_000), settings=QUICK)


def test_macs_out_of_reach_are_said_before_anything_is_measured(trained: RunResult, tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    out = tmp_path / "out"
    with pytest.raises(BudgetError, match=r"100 MACs: out of reach .*: about ([\d,]+) MACs are left at least") as told:
        compress(trained.out, "digits", out, budget=Budget(max_macs=100))
    least = int(re.findall(r"about ([\d,]+) MACs", str(told.value))[0].replace(",", ""))
    assert not (out / "sensitivity.csv").exists()
    step = PruneChannels(macs=0.5, multiple=8)
    network = load_artifact(trained.out).model
    sample = torch.zeros(1, 1, 28, 28)
    whole = count_complexity(network, sample.shape[1:]).macs
    assert least == pytest.approx(step.find_least(network) * whole, abs=1)
    smallest = replace(step, macs=step.find_least(network) + 1e-6)(network)
    assert count_complexity(smallest, sample.shape[1:]).macs == pytest.approx(least, rel=0.02)


@pytest.mark.slow
def test_what_another_budget_found_stays_where_nothing_is_found(
    small: Compression, trained: RunResult, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    shutil.copytree(small.out, out)
    budget = Budget(max_bytes=30_000, max_drop=0, seconds=0.01)
    told: list[str] = []
    with pytest.raises(BudgetError, match="keeps within the budget"):
        compress(
            trained.out, "digits", out, budget=budget, settings=SMALL, if_exists="resume", watcher=Watcher(told.append)
        )
    assert f"{out / 'model.fnet'} stays what was found before, until this search ends with another" in told
    for name in ARTIFACT_FILES:
        assert not (small.out / name).exists() or (out / name).read_bytes() == (small.out / name).read_bytes()


def test_a_small_validation_split_is_told_of(trained: RunResult, tmp_path: Path) -> None:
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if "luck" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(trained.out, "digits", tmp_path / "out", settings=QUICK, watcher=Watcher(notify=stop))
    assert lines[-1].startswith("so few samples tell small losses from luck badly")


def test_from_two_hundred_samples_on_nothing_is_told() -> None:
    assert [is_coarse(count) for count in (21, 199, 200, 10_000)] == [True, True, False, False]


def test_a_search_that_is_going_on_is_left_alone(trained: RunResult, tmp_path: Path) -> None:
    write_json(tmp_path / "search" / "search.json", {})
    with hold(tmp_path), pytest.raises(RunExistsError, match="another process is at work there"):
        compress(trained.out, "digits", tmp_path, settings=QUICK, if_exists="overwrite")
    assert read_json(tmp_path / "search" / "search.json") == {}


WRONG: list[tuple[list[str], str]] = [
    (["--max-size", "4 parsecs"], "--max-size: wanted a size such as 40kB or 1.5MB, found '4 parsecs'"),
    (["--max-drop", "-1"], "--max-drop: wanted 0 to 100 points of accuracy, found -1"),
    (["--max-macs", "0"], "--max-macs: wanted a number such as 1.5M or 300k, 1 or more, found '0'"),
    (["--set", "compression.bits=9"], "compression.bits: wanted 2 to 8, found 9"),
    (["--set", "compression.bitz=3"], "unknown setting 'compression.bitz': did you mean compression.bits"),
    (["--set", "training.epochs=3"], "training.epochs: is compression.epochs; leave it out"),
    (["--recipe", "no-such"], "unknown recipe 'no-such'"),
    (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG, ids=[" ".join(flags) for flags, _ in WRONG])
def test_wrong_options_are_one_line(
    flags: list[str], message: str, trained: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compress", str(trained.out), "digits", "--out", str(tmp_path / "out"), *flags]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert len(told.err.splitlines()) == 1
    assert not told.out
    assert not (tmp_path / "out").exists()


def test_other_data_are_refused(trained: RunResult, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=images, labels=np.arange(60) % 3)
    with pytest.raises(DataError, match="wanted the model's classes, found a difference in"):
        compress(trained.out, tmp_path / "other.npz", tmp_path / "out")
    with pytest.raises(PathError, match="no such file or folder"):
        compress(trained.out, tmp_path / "none.npz", tmp_path / "out")


def test_other_folders_are_left_alone(trained: RunResult, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunExistsError, match="holds files that are no search"):
        compress(trained.out, "digits", tmp_path / "mine", if_exists="overwrite")
    with pytest.raises(UsageError, match="lies in the folder of the model that is to be compressed"):
        compress(trained.out, "digits", trained.out, if_exists="overwrite")
    with pytest.raises(PathError, match="wanted a trained model"):
        compress(tmp_path / "mine", "digits", tmp_path / "out")
