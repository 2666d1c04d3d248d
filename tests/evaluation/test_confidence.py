"""The temperature of a model, and answers that are given only from some confidence on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from falconet import RunResult, evaluate, load_artifact, load_dataset, predict
from falconet.artifact import Artifact
from falconet.data import Split
from falconet.errors import ArtifactError, ConfigError
from falconet.evaluation import SplitLogits, calibrate, evaluate_split, measure_calibration, predict_logits
from falconet.evaluation.confidence import abstain
from falconet.metrics import choose_temperature, expected_calibration_error, softmax

FolderMaker = Callable[..., Path]


def change_temperature(artifact: Artifact, temperature: float) -> Artifact:
    config = dataclasses.replace(artifact.config, calibration_temperature=temperature)
    return dataclasses.replace(artifact, config=config)


def test_training_fits_a_temperature_and_says_what_it_changed(trained: RunResult) -> None:
    artifact, dataset = load_artifact(trained.out), load_dataset("digits")
    facts = json.loads((trained.out / "metrics.json").read_text(encoding="utf-8"))["calibration"]
    assert facts["temperature"] == artifact.config.calibration_temperature
    plain = change_temperature(artifact, 1.0)
    for name, found, evaluated in (("val", facts, trained.val), ("test", facts["test"], trained.test)):
        split = dataset.splits[name]
        logits, _ = predict_logits(plain, split.samples)
        assert found["n"] == len(split)
        assert found["ece_before"] == pytest.approx(expected_calibration_error(logits, split.labels), abs=1e-6)
        assert found["ece_after"] == pytest.approx(evaluated.ece, abs=1e-12)
        if name == "val":
            chosen = choose_temperature(logits, split.labels)
            assert chosen.temperature == pytest.approx(facts["temperature"], rel=1e-3)
            assert chosen.reason == facts["reason"]


def test_a_model_that_is_too_sure_gets_a_temperature(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, size=(400, 10)).astype(np.float32)
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    digits = load_dataset("digits")
    split = dataclasses.replace(digits.split("all").take(np.arange(400)), labels=labels)
    monkeypatch.setattr("falconet.evaluation.confidence.predict_split", lambda *_: SplitLogits(split, 3 * logits))
    artifact, answers = calibrate(load_artifact(trained.out), digits)
    assert artifact.config.calibration_temperature == pytest.approx(3.0, rel=0.15)
    np.testing.assert_allclose(answers.logits, 3 * logits / artifact.config.calibration_temperature, rtol=1e-5)
    assert measure_calibration(artifact, answers, answers).reason == ""


def test_a_temperature_that_few_samples_cannot_give_is_1_and_the_report_says_why(
    trained: RunResult, make_folder: FolderMaker
) -> None:
    dataset = load_dataset(make_folder(classes=("0", "1")))
    few = dataset.split("all")
    small = dataclasses.replace(dataset, splits={**dataset.splits, "val": few})
    artifact, answers = calibrate(change_temperature(load_artifact(trained.out), 3.0), small)
    assert artifact.config.calibration_temperature == 1.0
    found = measure_calibration(artifact, answers, answers)
    assert found.reason == f"{len(few)} validation samples are too few to fit a temperature; 100 are wanted."
    assert (found.ece_before, found.temperature) == (found.ece_after, 1.0)


def test_a_temperature_changes_how_sure_answers_are_and_no_answer(trained: RunResult, make_folder: FolderMaker) -> None:
    artifact, split = load_artifact(trained.out), load_dataset("digits").splits["test"]
    sure, unsure = change_temperature(artifact, 0.5), change_temperature(artifact, 2.0)
    first, second = (predict_logits(model, split.samples)[0] for model in (sure, unsure))
    np.testing.assert_allclose(first, 4 * second, rtol=1e-6)
    assert evaluate(sure, "digits").accuracy == evaluate(unsure, "digits").accuracy
    photos = make_folder()
    pairs = zip(predict(sure, [photos]).predictions, predict(unsure, [photos]).predictions, strict=True)
    assert all(one.label == other.label and one.probability > other.probability for one, other in pairs)


def test_calibrating_again_gives_the_same(trained: RunResult) -> None:
    artifact, dataset = load_artifact(trained.out), load_dataset("digits")
    again, answers = calibrate(change_temperature(artifact, 3.0), dataset)
    assert again.config == artifact.config
    logits, _ = predict_logits(artifact, dataset.splits["val"].samples)
    np.testing.assert_array_equal(answers.logits, logits)


def test_models_of_old_have_temperature_1(trained: RunResult, tmp_path: Path) -> None:
    load_artifact(trained.out).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["temperature"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load_artifact(tmp_path).config.calibration_temperature == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_temperatures_that_cannot_be_are_refused(trained: RunResult, tmp_path: Path, temperature: float) -> None:
    artifact = load_artifact(trained.out)
    with pytest.raises(ConfigError, match="temperature: wanted a positive, finite number, found"):
        change_temperature(artifact, temperature)
    artifact.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "temperature": temperature}), encoding="utf-8")
    with pytest.raises(
        ArtifactError, match=r"is damaged: (calibration_temperature: wanted a positive|temperature: wanted a finite)"
    ):
        load_artifact(tmp_path)


def make_answers(confidences: list[float], hits: list[bool]) -> SplitLogits:
    shares = np.array(confidences)
    logits = np.log(np.stack([shares, 1 - shares], axis=1)).astype(np.float32)
    labels = np.array([0 if hit else 1 for hit in hits], dtype=np.int64)
    samples = load_dataset("digits").splits["val"].samples
    return SplitLogits(Split(samples, labels, np.arange(len(hits), dtype=np.uint64)), logits)


def test_the_threshold_is_chosen_on_one_split_and_evaluated_on_another() -> None:
    val = make_answers([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    test = make_answers([0.95, 0.85, 0.75, 0.65, 0.55], [True, False, True, True, False])
    found = abstain(0.9, ("val", val), ("test", test))
    assert found.threshold == pytest.approx(0.8)
    assert found.chosen is not None
    assert found.judged is not None
    assert (found.chosen.split, found.chosen.n, found.chosen.coverage, found.chosen.accuracy) == ("val", 2, 0.5, 1.0)
    assert (found.judged.split, found.judged.n, found.judged.coverage, found.judged.accuracy) == ("test", 2, 0.4, 0.5)
    unsure = make_answers([0.6, 0.55], [True, True])
    evaluated = abstain(0.9, ("val", val), ("test", unsure)).judged
    assert evaluated is not None
    assert (evaluated.n, evaluated.accuracy, evaluated.accuracy_ci) == (0, None, None)


def test_a_precision_that_nothing_gives() -> None:
    answers = make_answers([0.9, 0.8], [False, True])
    found = abstain(0.9, ("val", answers), ("test", answers))
    assert (found.threshold, found.chosen, found.judged) == (None, None, None)


def test_precision_of_a_model(trained: RunResult, make_folder: FolderMaker) -> None:
    artifact, dataset = load_artifact(trained.out), load_dataset("digits")
    found = evaluate(artifact, "digits", target_accuracy=0.99).abstention
    assert found is not None
    assert found.chosen is not None
    assert found.judged is not None
    assert (found.chosen.split, found.judged.split) == ("val", "test")
    assert found.chosen.accuracy is not None
    assert found.chosen.accuracy >= 0.99
    _, answers = evaluate_split(artifact, dataset.splits["test"], "test", dataset)
    given = softmax(answers.logits).max(axis=1) >= found.threshold
    assert found.judged.coverage == pytest.approx(given.mean())
    whole = evaluate(artifact, make_folder(classes=("3", "7")), split="all", target_accuracy=0.01).abstention
    assert whole is not None
    assert whole.chosen == whole.judged


def test_a_made_validation_split_of_other_data_is_not_chosen_on(trained: RunResult, make_folder: FolderMaker) -> None:
    """It may hold samples of training."""
    folder = make_folder(classes=("3", "7"), splits=("train", "test"))
    found = evaluate(trained.out, folder, target_accuracy=0.01).abstention
    assert found is not None
    assert found.chosen is not None
    assert found.chosen.split == "test"
    own = make_folder("own", classes=("3", "7"), splits=("train", "val", "test"))
    found = evaluate(trained.out, own, target_accuracy=0.01).abstention
    assert found is not None
    assert found.chosen is not None
    assert found.chosen.split == "val"


@pytest.mark.parametrize("precision", [0.0, -0.5, 1.01, 99.0, float("nan")])
def test_precisions_that_cannot_be_are_refused(trained: RunResult, precision: float) -> None:
    with pytest.raises(ConfigError, match=r"target_accuracy: wanted a fraction above 0 and up to 1, such as 0.99"):
        evaluate(trained.out, "digits", target_accuracy=precision)
