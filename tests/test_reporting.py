"""update_report(): what takes long is added to a run's report when it is asked for, and stays."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import falconet
from falconet import Latency, RunResult, cli, reporting
from falconet.artifact import Artifact, load_artifact
from falconet.data.loader import load_inputs
from falconet.errors import DataError, UsageError
from falconet.evaluation import evaluate_split
from falconet.evaluation.baselines import Prepared
from falconet.exporters import timing
from falconet.report import ModelReport, TrainingLog
from falconet.reporting import add_baselines, load_history, update_report
from falconet.schema import to_mapping
from tests.conftest import FolderMaker

LATENCIES = {"torch": Latency(2.0, 3.0, 4.0, 10), "onnxruntime": Latency(0.5, 0.6, 0.7, 10)}
COSTS, REASONS = "<code>falconet report DIR --costs</code>", "<code>falconet report DIR --reasons</code>"


@pytest.fixture
def run(trained: RunResult, tmp_path: Path) -> Path:
    """A copy of a run that may be written to."""
    return Path(shutil.copytree(trained.out, tmp_path / "run"))


def read(folder: Path) -> tuple[dict[str, Any], str]:
    facts: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return facts, (folder / "report.html").read_text(encoding="utf-8")


def test_the_first_report_says_which_commands_add_the_rest(trained: RunResult) -> None:
    facts, page = read(trained.out)
    assert COSTS in page
    assert REASONS in page
    assert "fastest runtime" not in page
    assert facts["latencies_ms"] == {"torch": facts["latency_ms"]}
    assert not {"runtimes", "reasons"} & facts.keys()
    assert trained.report.reasons is None


def test_what_is_on_disk_gives_the_same_report_again(run: Path, trained: RunResult) -> None:
    before, _ = read(run)
    report = update_report(run)
    after, page = read(run)
    for facts in (before, after):
        assert facts.pop("latency_ms") > 0
        assert facts.pop("latencies_ms").keys() == {"torch"}
    assert after == before
    assert tuple(report.history) == tuple(trained.report.history)
    # Vitals that could not be measured are NaN, which equals nothing; YAML has lists where settings have tuples.
    assert repr(vars(report.log)) == repr(vars(trained.report.log))
    assert json.dumps(report.settings) == json.dumps(trained.report.settings)
    assert COSTS in page
    assert (run / "model.safetensors").read_bytes() == (trained.out / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_samples_that_cross_splits_are_told_first(make_folder: FolderMaker, tmp_path: Path) -> None:
    root = make_folder(splits=("train", "test"))
    for number in range(3):
        shutil.copy(root / "train" / "dark" / f"00{number}.png", root / "test" / "dark" / f"copy{number}.png")
    run = falconet.train(root, model="linear", epochs=1, out=tmp_path / "run")
    for _ in range(2):
        head = (run.out / "report.html").read_text(encoding="utf-8").partition("</header>")[0]
        assert "<strong>Caution: 3 groups of equal samples" in head
        assert "3 of 27 test samples equal or nearly equal others" in head
        card = (run.out / "README.md").read_text(encoding="utf-8")
        assert card.index("**Caution: 3 groups of equal samples") < card.index("test accuracy")
        update_report(run.out)


@pytest.mark.slow
def test_a_network_that_is_no_better_than_a_linear_model_is_told(trained: RunResult) -> None:
    artifact = load_artifact(trained.out)
    # It answers one class, and is neither clearly better nor clearly worse than the most frequent one.
    dataset = falconet.load_dataset("digits")
    untrained = dataclasses.replace(artifact, weights={name: value * 0 for name, value in artifact.weights.items()})
    (_, val), (_, test) = (evaluate_split(untrained, dataset.splits[name], name, dataset) for name in ("val", "test"))
    train = load_inputs(dataset.splits["train"], artifact.config.input)
    learned = Prepared(train.inputs, torch.from_numpy(train.split.labels))
    log = add_baselines(TrainingLog(), untrained, learned, val, test)
    (diagnosis,) = log.diagnoses
    assert diagnosis.name == "no_better_than_linear"
    assert diagnosis.epoch == artifact.config.provenance.best_epoch
    assert [baseline.is_better for baseline in log.baselines] == [False, True]
    # It is nothing that a linear model itself could be told.
    config = dataclasses.replace(artifact.config, architecture="linear")
    assert not add_baselines(TrainingLog(), dataclasses.replace(untrained, config=config), learned, val, test).diagnoses


@pytest.mark.slow
def test_costs_and_reasons_add_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "time_runtimes", lambda artifact: LATENCIES)
    told: list[str] = []
    assert update_report(run, costs=True, notify=told.append).latencies == LATENCIES
    facts, page = read(run)
    assert facts["latency_ms"] == 2.0
    assert facts["latencies_ms"] == {"torch": 2.0, "onnxruntime": 0.5}
    assert facts["runtimes"]["onnxruntime"] == {"p50": 0.5, "p95": 0.6, "p99": 0.7, "calls": 10}
    assert COSTS not in page
    assert REASONS in page
    assert len(told) == 1

    def fail(artifact: Artifact) -> None:
        raise AssertionError("timed again")

    monkeypatch.setattr(timing, "time_runtimes", fail)
    report = update_report(run, reasons=True, notify=told.append)
    facts, page = read(run)
    assert report.latencies == LATENCIES
    assert facts["latencies_ms"] == {"torch": 2.0, "onnxruntime": 0.5}
    assert facts["reasons"]["method"] == "gradcam"
    assert [score["method"] for score in facts["reasons"]["scores"]] == ["gradcam", "random"]
    assert COSTS not in page
    assert REASONS not in page
    assert len(told) == 2
    assert "explaining 6 answers" in told[1]


@pytest.mark.slow
def test_explanations_stay(explained: tuple[Path, ModelReport], tmp_path: Path) -> None:
    run = Path(shutil.copytree(explained[0], tmp_path / "run"))
    report = update_report(run)
    assert report.reasons is not None
    assert explained[1].reasons is not None
    assert report.reasons.scores == explained[1].reasons.scores
    assert REASONS not in read(run)[1]


@pytest.mark.slow
def test_figures_of_other_weights_are_not_taken_over(run: Path) -> None:
    facts, _ = read(run)
    stale = {
        **facts,
        "weights_sha256": "0" * 64,
        "runtimes": {name: to_mapping(one) for name, one in LATENCIES.items()},
    }
    (run / "metrics.json").write_text(json.dumps(stale))
    assert list(update_report(run).latencies) == ["torch"]
    (run / "metrics.json").write_text("{")
    assert list(update_report(run).latencies) == ["torch"]


@pytest.mark.parametrize(
    "runtimes", [None, [], {"torch": 3}, {"onnxruntime": {"p50": 1, "p95": 1, "p99": 1, "calls": 1}}]
)
def test_damaged_latencies_are_none(runtimes: Any) -> None:
    assert reporting.read_latencies({"runtimes": runtimes}) is None


def test_only_runs_have_reports_to_write_anew(trained: RunResult, tmp_path: Path, run: Path) -> None:
    falconet.load_artifact(trained.out).save(tmp_path / "alone")
    with pytest.raises(UsageError, match="wanted the folder of a run that falconet train has finished, found none"):
        update_report(tmp_path / "alone")
    (run / "config.yaml").unlink()
    (run / "model.fnet").write_bytes(b"")
    with pytest.raises(UsageError, match="found a compressed model, whose report is complete"):
        update_report(run)


@pytest.mark.parametrize("content", ["", "epoch\n1\n", "epoch,learning_rate\nx,y\n"])
def test_a_damaged_history_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    if not content:
        assert load_history(path) == ()
        return
    with pytest.raises(DataError, match="wanted a row for each epoch"):
        load_history(path)


@pytest.mark.slow
def test_the_verb_tells_what_it_does(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "time_runtimes", lambda artifact: LATENCIES)
    assert cli.run(["report", str(run), "--costs"]) == 0
    out, err = capsys.readouterr()
    assert "latency of one sample: 2.000 ms in torch, 0.500 ms in onnxruntime" in out
    assert "timing torch, onnxruntime" in err
    assert cli.run(["report", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"out": str(run), **read(run)[0]}
