"""A second process in the folder of another is refused in one line, and touches nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from falconet import RunResult, demonstrate, demonstration, explain, runs, train
from falconet.cli import run
from falconet.explanation import explaining
from falconet.model_files import DERIVED_FILES, MODEL_FILES
from falconet.storage import hold
from falconet.training import EpochRow

VERBS = {
    "train": ["train", "digits", "--model", "lenet300_100", "--epochs", "1", "--out", "OUT"],
    "train --resume": ["train", "digits", "--model", "lenet300_100", "--epochs", "1", "--resume", "--out", "OUT"],
    "train --overwrite": ["train", "digits", "--model", "lenet300_100", "--epochs", "1", "--overwrite", "--out", "OUT"],
    "compare": ["compare", "digits", "--models", "lenet5,lenet300_100", "--epochs", "1", "--out", "OUT"],
    "compress": ["compress", "MODEL", "digits", "--out", "OUT"],
    "explain": ["explain", "MODEL", "digits", "--samples", "1", "--out", "OUT"],
    "export": ["export", "MODEL", "--to", "torch", "--out", "OUT/m.pt2"],
    "report": ["report", "OUT"],
    "demo": ["demo", "--out", "OUT"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_one_process_at_a_time_works_in_a_folder(
    verb: str, trained: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if verb == "report":
        shutil.copytree(trained.out, out)
    command = [part.replace("OUT", str(out)).replace("MODEL", str(trained.out)) for part in VERBS[verb]]
    with hold(out, name="m.pt2" if verb == "export" else ""):
        (out / ".theirs.0123.partial").write_bytes(b"half of it")
        before = sorted(out.rglob("*"))
        assert run(command) == 2
        assert sorted(out.rglob("*")) == before
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"falconet: {out}")
    assert line.endswith("another process is at work there; wait for it, or choose another --out")


@pytest.mark.parametrize("taken", ["lenet5/notes.txt", "report.html", "config.json"])
def test_a_demonstration_replaces_nothing_unasked(
    taken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / taken
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()] == [taken]
    assert path.read_text() == "mine"


def interrupt(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_that_is_gone_on_with_keeps_what_was_said_of_it(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained.out, out)
    before = {name: (out / name).read_bytes() for name in MODEL_FILES + DERIVED_FILES if (out / name).exists()}
    assert {"config.json", "metrics.json", "README.md", "report.html"} <= before.keys()
    monkeypatch.setattr(runs, "evaluate_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train("digits", model="lenet_relu", epochs=2, out=out, if_exists="resume")
    assert {name: (out / name).read_bytes() for name in before} == before


def test_an_interrupted_explanation_leaves_the_earlier_one_whole(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain(trained.out, "digits", method="gradcam", samples=1, out=tmp_path)
    before = read_files(tmp_path)
    assert len(before) == 3
    monkeypatch.setattr(explaining, "render_explanations", interrupt)
    with pytest.raises(KeyboardInterrupt):
        explain(trained.out, "digits", method="gradcam", samples=3, out=tmp_path)
    assert read_files(tmp_path) == before


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_demonstration_that_is_stopped_leaves_no_report_of_other_models(
    epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.html"
    report.write_text("of the models that were there")

    def train_some(*_: object, callbacks: Any, **__: object) -> NoReturn:
        assert report.exists()
        for epoch in range(epochs):
            for callback in callbacks:
                callback.on_epoch(EpochRow(epoch + 1, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0), True)
        raise KeyboardInterrupt

    monkeypatch.setattr(demonstration, "train", train_some)
    with pytest.raises(KeyboardInterrupt):
        demonstrate(tmp_path, if_exists="overwrite")
    assert report.exists() == (epochs == 0)
