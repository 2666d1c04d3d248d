"""measure_robustness()."""

from __future__ import annotations

import dataclasses
import itertools
import wave
from pathlib import Path

import numpy as np
import pytest

from falconet import RunResult, evaluate, load_artifact, load_dataset
from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, build_model
from falconet.errors import UnknownNameError
from falconet.evaluation import measure_robustness, predict_logits, robustness
from falconet.evaluation.corruptions import SMALL_IMAGE_AMOUNTS
from falconet.evaluation.precision import compute_in
from falconet.evaluation.robustness import Attacked, Corrupted, Robustness, _choose_stratified
from falconet.report.robustness import draw_robustness, format_epsilon
from falconet.spec import ClassificationSpec, SeriesSpec


@pytest.mark.slow
def test_a_network_answers_worse_when_corrupted_or_attacked(
    trained: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "ATTACKED", 30)
    monkeypatch.setattr(robustness, "EPSILONS", (0.1,))
    artifact = load_artifact(trained.out)
    split = load_dataset("digits").splits["test"]
    split = split.take(np.arange(90))
    found = measure_robustness(artifact, split)
    logits, _ = predict_logits(artifact, split.samples)
    assert found.clean_accuracy == pytest.approx((logits.argmax(axis=1) == split.labels).mean())
    assert len(found.corruptions) == 5 * len(SMALL_IMAGE_AMOUNTS)
    assert {row.n for row in found.corruptions} == {90}
    assert found.mean_corruption_accuracy == pytest.approx(np.mean([row.accuracy for row in found.corruptions]))
    assert found.mean_corruption_accuracy < found.clean_accuracy
    under = {(row.attack, row.epsilon): row.accuracy for row in found.attacks}
    assert under["pgd", 0.1] <= under["fgsm", 0.1] < under["fgsm", 0.0] == under["pgd", 0.0]
    assert found.attacks_note == "30 of 90 samples, stratified by class, drawn with seed 0"
    assert found.corruptions == measure_robustness(artifact, split, attacks=False).corruptions


@pytest.mark.slow
def test_recordings_that_cannot_be_read_are_left_out_at_each_severity(tmp_path: Path) -> None:
    for seed, (part, index) in enumerate(itertools.product(("train", "test"), range(6))):
        folder = tmp_path / part / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_wave(folder / f"{index}.wav", seed)
    dataset = load_dataset(tmp_path)
    (tmp_path / "test" / "a" / "2.wav").write_bytes(b"RIFF")
    spec = SeriesSpec((1, 400), (0.0,), (1.0,), rate=8000)
    origin = Provenance(DataOrigin("waves", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    config = ArtifactConfig("gru", spec, ClassificationSpec(("a", "b")), origin)
    artifact = Artifact(config, build_model(config).state_dict())
    found = measure_robustness(artifact, dataset.splits["test"])
    assert found.n == 5
    assert {row.n for row in found.corruptions} == {5}
    assert found.attacks == ()
    assert found.attacks_note.startswith("none: epsilon")


def write_wave(path: Path, seed: int) -> None:
    """Write noise of a twentieth of a second."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.random.default_rng(seed).integers(-999, 999, 400, dtype=np.int16).tobytes())


def test_samples_that_are_attacked_are_stratified() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    chosen = _choose_stratified(labels, 100)
    np.testing.assert_allclose(np.bincount(labels[chosen]), [60, 30, 10], atol=1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert _choose_stratified(labels, 5000).tolist() == list(range(1000))


def test_the_picture_has_a_line_for_each() -> None:
    rows = tuple(Corrupted(name, level, 1.0, 9, 0.5) for name in ("noise", "gain") for level in range(1, 6))
    found = Robustness(9, 1.0, 0.5, rows, (Attacked("fgsm", 0.0, 9, 1.0), Attacked("fgsm", 0.1, 9, 0.2)), "")
    first, second = draw_robustness(found).axes
    assert [line.get_ydata()[0] for line in first.lines] == [1.0, 1.0]  # type: ignore[index]
    assert len(second.lines) == 1
    assert len(draw_robustness(dataclasses.replace(found, attacks=())).axes) == 1


def test_epsilons_are_written_as_in_the_literature() -> None:
    assert [format_epsilon(value) for value in (0.0, 1 / 255, 8 / 255, 0.1)] == ["0", "1/255", "8/255", "0.1"]


def test_number_formats_are_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown number format 'bf61': did you mean bf16"), compute_in("bf61"):
        pass


@pytest.mark.slow
def test_all_that_evaluate_in_bfloat16_do_so_alike(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.evaluation.precision.check_bfloat16", lambda: None)
    found = evaluate(trained.out, "digits", split="all", number_format="bf16", against=trained.out)
    assert found.against is not None
    assert (found.against.only_this, found.against.only_other) == (0, 0)


@pytest.mark.slow
def test_corruptions_and_attacks_are_asked_for_with_a_evaluation(
    trained: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "ATTACKED", 20)
    found = evaluate(trained.out, "digits", corruptions=True)
    assert found.robustness is not None
    assert found.robustness.attacks[0].n == 20


def test_bfloat16_answers_almost_alike(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.evaluation.precision.check_bfloat16", lambda: None)
    plain = evaluate(trained.out, "digits")
    short = evaluate(trained.out, "digits", number_format="bf16")
    assert short.accuracy == pytest.approx(plain.accuracy, abs=0.02)
    assert short.log_loss != plain.log_loss
