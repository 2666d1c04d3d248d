"""train(refit=True): what the second fit learns from, what it is evaluated on, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from falconet import Callback, RunResult, evaluate, load_artifact, load_dataset, runs, train
from falconet.compression.session import read_data
from falconet.errors import DataError, InterruptedRunError
from falconet.training import TrainConfig
from falconet.training.loop import FitResult, fit

SETTINGS = {"training": {"restore": "best", "patience": None, "class_weights": "balanced"}, "augmentation": "none"}


class Notes(Callback):
    """Keeps what it is told, and presses Ctrl-C at a line."""

    def __init__(self, stop_at: str = "nothing") -> None:
        self.lines: list[str] = []
        self.stop_at = stop_at

    def on_note(self, line: str) -> None:
        self.lines.append(line)
        if self.stop_at in line:
            raise KeyboardInterrupt


def run(out: Path, callbacks: Sequence[Callback] = (), **asked: Any) -> RunResult:
    return train("digits", model="lenet300_100", epochs=3, settings=SETTINGS, out=out, callbacks=callbacks, **asked)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(tmp_path_factory.mktemp("refitted") / "run", refit=True)


def read_metrics(result: RunResult) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((result.out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


@pytest.mark.slow
def test_the_second_fit_learns_from_both_splits_for_as_many_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[int, torch.Tensor, TrainConfig, torch.Tensor | None, FitResult]] = []

    def watch(model: Any, training: Any, val: Any, config: TrainConfig, **others: Any) -> FitResult:
        result = fit(model, training, val, config, **others)
        labels = training.labels
        fits.append((len(training.inputs), labels, config, others["class_weights"], result))
        return result

    monkeypatch.setattr(runs, "fit", watch)
    notes = Notes()
    result = run(tmp_path / "run", [notes], refit=True)
    dataset = load_dataset("digits")
    train_count, val_count = (len(dataset.splits[name]) for name in ("train", "val"))
    (first, second) = fits
    assert (first[0], second[0]) == (train_count, train_count + val_count)
    both = [*dataset.splits["train"].labels, *dataset.splits["val"].labels]
    assert second[1].tolist() == both
    shorter = {"epochs": result.best_epoch, "restore": "last", "patience": None}
    assert second[2] == TrainConfig(**{**vars(first[2]), **shorter})
    weights = len(both) / (10 * torch.bincount(torch.tensor(both)))
    assert second[3] is not None
    torch.testing.assert_close(second[3], weights.float())
    assert len(second[4].history) == result.best_epoch
    assert f"refit: {len(both):,} training and validation samples, {result.best_epoch} epochs" in notes.lines
    assert sum(line.startswith("refit: epoch") for line in notes.lines) == result.best_epoch


@pytest.mark.slow
def test_the_first_fit_keeps_its_word_on_validation(plain: RunResult, refitted: RunResult) -> None:
    before, after = load_artifact(plain.out), load_artifact(refitted.out)
    assert after.config.provenance.refit is True
    assert before.config.provenance.refit is None
    assert '"refit"' not in (plain.out / "config.json").read_text(encoding="utf-8")
    assert before.digest != after.digest
    assert after.config.calibration_temperature == before.config.calibration_temperature
    assert (refitted.val, refitted.best_epoch) == (plain.val, plain.best_epoch)
    facts, known = read_metrics(refitted), read_metrics(plain)
    assert (facts["val"], facts["weights_sha256"]) == (known["val"], after.digest)
    assert (refitted.out / "metrics.csv").read_text().count("\n") == 4
    # The test split evaluates what is kept.
    assert evaluate(refitted.out, "digits").accuracy == refitted.test.accuracy
    for name in ("report.html", "README.md"):
        assert "first fit" in (refitted.out / name).read_text(encoding="utf-8")
        assert "first fit" not in (plain.out / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_validation_samples_no_longer_evaluate_it(plain: RunResult, refitted: RunResult) -> None:
    told = evaluate(refitted.out, "digits", split="val").notes
    assert any("refit on its validation samples too" in note for note in told)
    assert not any("refit" in note for note in evaluate(plain.out, "digits", split="val").notes)
    chosen = [evaluate(one.out, "digits", target_accuracy=0.5).abstention for one in (plain, refitted)]
    assert [one.chosen.split for one in chosen if one and one.chosen] == ["val", "test"]
    with pytest.raises(DataError, match="found one trained with --refit: train it without"):
        read_data(load_artifact(refitted.out), "digits", None)


@pytest.mark.slow
def test_a_refit_that_was_stopped_goes_on_to_the_same_end(refitted: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InterruptedRunError, match=r"stopped after 1 of \d epochs of the refit; the model of the run"):
        run(out, [Notes("refit: epoch 1")], refit=True)
    assert load_artifact(out).config.provenance.refit is None, "the first fit's model is there meanwhile"
    resumed = run(out, if_exists="resume")
    assert load_artifact(out).digest == load_artifact(refitted.out).digest
    assert resumed.test == refitted.test


@pytest.mark.slow
def test_a_run_that_has_ended_can_be_refit_and_a_new_one_in_its_place_is_none(
    refitted: RunResult, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(out)
    run(out, if_exists="resume", refit=True)
    assert load_artifact(out).digest == load_artifact(refitted.out).digest
    run(out, if_exists="overwrite")
    assert load_artifact(out).config.provenance.refit is None
    run(out, if_exists="resume")
    assert load_artifact(out).config.provenance.refit is None
