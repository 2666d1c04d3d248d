"""The gate: an export that answers otherwise is not written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from falconet import RunResult, load_artifact, load_dataset, storage
from falconet.artifact import UNKNOWN, Artifact
from falconet.data import ImageArray, Texts
from falconet.data.texts import train_tokenizer
from falconet.errors import DataError, ExportError, StorageError
from falconet.exporters import exporting
from falconet.exporters.adapters import Prepare, ThinnedSamples
from falconet.exporters.exporting import Export, choose_preprocess, export
from falconet.exporters.metadata import Metadata
from falconet.exporters.parity import (
    _EVALUATED,
    CALIBRATED,
    HeldOut,
    Parity,
    bound_drop,
    check_parity,
    check_tokens,
    compare_with_export,
    count_wanted,
    find_held_out,
    measure_parity,
    split_held_out,
)
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import TARGETS
from falconet.metrics import paired_interval
from falconet.storage import swap
from tests.exporters.builders import TOKENIZER, WORDS, make_artifact, make_spec

Tamper = Callable[[Callable[[np.ndarray], np.ndarray]], None]


@pytest.fixture
def tamper(monkeypatch: pytest.MonkeyPatch) -> Tamper:
    """Return a function that lets every export's answers be changed."""

    def install(change: Callable[[np.ndarray], np.ndarray]) -> None:
        def open_tampered(*args: object, **named: object) -> Session:
            session = open_session(*args, **named)  # type: ignore[arg-type]
            return replace(session, run=lambda batch: change(session.run(batch)))

        monkeypatch.setattr(exporting, "open_session", open_tampered)

    return install


def off(answers: np.ndarray) -> np.ndarray:
    answers[-1, 0] += 1e-3
    return answers


def lost(answers: np.ndarray) -> np.ndarray:
    answers[-1, -1] = np.nan
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(("change", "message"), [(off, "found a difference of 0.001"), (lost, "found NaN in the exp")])
def test_other_answers_are_refused_and_nothing_is_written(
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
    trained: RunResult,
    tamper: Tamper,
    tmp_path: Path,
) -> None:
    tamper(change)
    new, old = tmp_path / "new" / "model.pt2", tmp_path / "old.pt2"
    old.write_bytes(b"earlier")
    for out in (new, old):
        with pytest.raises(ExportError, match=message):
            export(trained.out, "torch", out)
    assert list(tmp_path.rglob("*")) == [old]
    assert old.read_bytes() == b"earlier"


@pytest.mark.slow
def test_an_export_that_passes_replaces_the_earlier_file(trained: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    out.write_bytes(b"earlier")
    result = export(trained.out, "torch", out)
    assert list(tmp_path.rglob("*")) == [out]
    assert result.bytes == out.stat().st_size > 100_000
    assert result.parity.max_abs_difference < 1e-5
    assert result.parity.samples == "validation samples of digits"
    assert result.parity.accuracy_before == result.parity.accuracy_after


@pytest.mark.slow
def test_a_difference_for_one_sample_alone_is_found(trained: RunResult, tamper: Tamper, tmp_path: Path) -> None:
    tamper(lambda answers: off(answers) if len(answers) == 1 else answers)
    with pytest.raises(ExportError, match=r"difference of 0\.001"):
        export(trained.out, "torch", tmp_path / "model.pt2")


def mislead(answers: np.ndarray) -> np.ndarray:
    answers[::10] = np.roll(answers[::10], 1, axis=1)
    return answers


@pytest.mark.slow
def test_integers_that_lose_too_much_are_refused(trained: RunResult, tamper: Tamper, tmp_path: Path) -> None:
    tamper(mislead)
    out = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"wanted the model's own answers to 90% of 90 .* nothing is written"):
        export(trained.out, "onnx-int8", out, max_drop=10)
    assert list(tmp_path.iterdir()) == []
    result = export(trained.out, "onnx-int8", out, max_drop=100)
    assert result.parity.accuracy_drop is not None
    assert result.parity.accuracy_drop > 0.005
    assert out.is_file()


def compare_integers(count: int, lost: int, gained: int, both_wrong: int = 0) -> Parity:
    """Return what is found where two models' answers to so many samples differ, of which all others are right."""
    labels, before, after = (np.zeros(count, dtype=np.int64) for _ in range(3))
    after[:lost] = 1
    before[lost : lost + gained] = 1
    before[lost + gained : lost + gained + both_wrong], after[lost + gained : lost + gained + both_wrong] = 1, 2
    return measure_parity(np.eye(3)[after], np.eye(3)[before], labels, 0.3, "samples")


@pytest.mark.parametrize(
    ("count", "lost", "gained"),
    [(2000, 2, 0), (2000, 0, 20), (2000, 10, 10), (766, 0, 0), (1000, 0, 1)],
)
def test_integers_pass_where_little_can_be_lost(count: int, lost: int, gained: int) -> None:
    check_parity(compare_integers(count, lost, gained), TARGETS["onnx-int8"], 0.5)


@pytest.mark.parametrize(
    ("count", "lost", "gained", "message"),
    [
        # As good as the model on few samples, which leave room for more; so does a sample gained.
        (764, 0, 0, r"found 0\.00 \(95%: -0\.50 to 0\.50\) on 764 samples; .* 1 samples more would do"),
        (
            90,
            0,
            0,
            r"found 0\.00 \(95%: -4\.09 to 4\.09\) .* 675 samples more would do: add some, name others with",
        ),
        (90, 0, 1, r"found -1\.11 \(95%: .*\) on 90 samples; .* more"),
        (2000, 60, 60, r"but 2,000 at most are evaluated: --max-drop allows more"),
        # Lost beyond doubt: no number of samples helps.
        (
            2000,
            20,
            0,
            r"at most 0\.5 points of accuracy lost, found 1\.00 .* is written; --max-drop allows more",
        ),
        (1, 0, 0, r"^wanted 30 samples or more to evaluate integers by, found 1: add 29 or more"),
        # Hits that cancel out.
        (2000, 1000, 1000, r"wanted the model's own answers to 90% of 2000 samples, found 0\.00%; .* --to onnx"),
        (2000, 100, 101, r"wanted the model's own answers to 90% of 2000 samples, found 89\.95%"),
    ],
)
def test_integers_are_refused_where_more_may_be_lost(count: int, lost: int, gained: int, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_parity(compare_integers(count, lost, gained), TARGETS["onnx-int8"], 0.5)


def test_answers_that_are_wrong_in_another_way_count_as_others() -> None:
    with pytest.raises(ExportError, match=r"wanted the model's own answers to 90% of 1000 samples, found 85\.00%"):
        check_parity(compare_integers(1000, 0, 0, both_wrong=150), TARGETS["onnx-int8"], 0.5)


def test_who_allows_more_to_be_lost_allows_other_answers() -> None:
    check_parity(compare_integers(1000, 150, 50), TARGETS["onnx-int8"], 20)
    with pytest.raises(ExportError, match=r"wanted the model's own answers to 88% of 1000 samples, found 80\.00%"):
        check_parity(compare_integers(1000, 150, 50), TARGETS["onnx-int8"], 12)
    with pytest.raises(ExportError, match=r"wanted at most 10 points of accuracy lost, found 10\.00"):
        check_parity(compare_integers(1000, 100, 0), TARGETS["onnx-int8"], 10)
    check_parity(compare_integers(1, 1, 0), TARGETS["onnx-int8"], 100)


def test_as_many_samples_as_are_asked_for_are_enough() -> None:
    found = compare_integers(400, 1, 0)
    wanted = count_wanted(found, 0.01)
    assert wanted is not None
    share = 1 / 400
    bounds = [paired_interval(share * count, 0, count)[1] for count in (wanted - 1, wanted)]
    assert bounds[0] > 0.01 >= bounds[1]


@pytest.mark.slow
@pytest.mark.parametrize("shift", [100.0, -0.01, lambda answers: answers.mean(axis=1, keepdims=True)])
def test_logits_are_compared_as_they_are(
    shift: float | Callable[[np.ndarray], np.ndarray], trained: RunResult, tamper: Tamper, tmp_path: Path
) -> None:
    tamper(lambda answers: answers + (shift(answers) if callable(shift) else shift))
    with pytest.raises(ExportError, match=r"wanted the model's own logits within 0\.0001 of the largest on 179 valid"):
        export(trained.out, "torch", tmp_path / "model.pt2", preprocessing=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_logits_that_are_the_models_own_pass(trained: RunResult, tmp_path: Path) -> None:
    parity = export(trained.out, "torch", tmp_path / "model.pt2", preprocessing=False).parity
    assert parity.logit_difference is not None
    assert parity.logit_difference < 1e-5


@pytest.mark.parametrize(
    ("change", "noise"),
    [
        (lambda logits: logits, 0.0),
        (lambda logits: logits * 1.2, 0.2),
        (lambda logits: logits * 1.3, 0.3),
        (lambda logits: logits / 10, 0.9),
        (lambda logits: logits + 100, None),
    ],
)
def test_shifted_and_scaled_logits_of_integers_are_refused(
    change: Callable[[np.ndarray], np.ndarray], noise: float | None, trained: RunResult
) -> None:
    artifact = load_artifact(trained.out)
    metadata = replace(make_metadata(artifact), output="logits")
    session = Session(metadata, lambda batch: change(artifact.model(torch.from_numpy(batch)).detach().numpy()))
    kept = find_held_out(artifact, None, None, exact=False)
    parity = compare_with_export(artifact, session, choose_preprocess(artifact, metadata, None), kept)
    assert parity.agreement == 1.0
    assert parity.accuracy_drop == 0.0
    assert parity.logit_noise is not None
    if noise is not None:
        assert parity.logit_noise == pytest.approx(noise, abs=1e-4)
    if parity.logit_noise < 0.25:
        check_parity(parity, TARGETS["onnx-int8"], 5)
        return
    check_parity(parity, TARGETS["onnx-int8"], 100)
    with pytest.raises(ExportError, match=r"differ from the model's own by 25% .* \(root mean square\) on 179"):
        check_parity(parity, TARGETS["onnx-int8"], 5)


def make_metadata(artifact: Artifact) -> Metadata:
    return Metadata(
        artifact.config.architecture,
        artifact.config.input,
        artifact.config.output,
        "probabilities",
        {"falconet": "0"},
        "00",
    )


@pytest.mark.slow
def test_ranges_are_chosen_on_other_samples_than_those_evaluated(
    trained: RunResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, list[str]] = {}
    write = exporting.write

    def note_calibrating(draft, artifact, target, path, calibrating):  # type: ignore[no-untyped-def]
        seen["calibrating"] = [calibrating.name(index) for index in range(len(calibrating))]
        return write(draft, artifact, target, path, calibrating)

    def note_evaluating(artifact: Artifact, session: Session, prepare: Prepare, kept: HeldOut) -> Parity:
        seen["evaluating"] = [kept.samples.name(index) for index in range(len(kept.samples))]
        return compare_with_export(artifact, session, prepare, kept)

    monkeypatch.setattr(exporting, "write", note_calibrating)
    monkeypatch.setattr(exporting, "compare_with_export", note_evaluating)
    export(trained.out, "onnx-int8", tmp_path / "model.onnx", max_drop=100)
    assert seen["calibrating"]
    assert seen["evaluating"]
    assert not set(seen["calibrating"]) & set(seen["evaluating"])
    split = load_artifact(trained.out).config.provenance.data
    val = load_dataset("digits", config=split.config).splits["val"].samples
    assert {*seen["calibrating"], *seen["evaluating"]} == {val.name(index) for index in range(len(val))}


@pytest.mark.parametrize("count", [2, 3, 150, CALIBRATED + _EVALUATED + 50])
def test_samples_are_parted(count: int, trained: RunResult) -> None:
    kept = find_held_out(load_artifact(trained.out), None, None, exact=True)
    kept = kept.part(np.arange(count) % len(kept.samples))
    kept = replace(kept, labels=np.arange(count))
    calibrating, evaluating = split_held_out(kept, exact=False)
    assert calibrating.labels is not None
    assert evaluating.labels is not None
    assert not set(calibrating.labels) & set(evaluating.labels)
    assert 1 <= len(calibrating.samples) <= CALIBRATED
    assert 1 <= len(evaluating.samples) <= _EVALUATED
    none, evaluating = split_held_out(kept, exact=True)
    assert len(none.samples) == 0
    assert len(evaluating.samples) >= 2


def test_one_sample_is_too_few_for_integers(trained: RunResult) -> None:
    kept = find_held_out(load_artifact(trained.out), None, None, exact=False).part(np.arange(1))
    with pytest.raises(DataError, match=r"wanted 2 samples or more, .* found 1"):
        split_held_out(kept, exact=False)


@pytest.mark.slow
def test_other_tokens_are_refused(text_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = train_tokenizer(["quite other words, of quite another sort"] * 3, 270)
    kept = HeldOut(Texts(WORDS, np.array([f"note {index}" for index in range(len(WORDS))])), None, "notes")
    metadata = Metadata(
        "transformer", text_artifact.config.input, text_artifact.config.output, "probabilities", {"falconet": "0"}, "00"
    )
    check_tokens(text_artifact, choose_preprocess(text_artifact, metadata, TOKENIZER), kept.samples)
    with pytest.raises(ExportError, match=r"the exported tokenizer makes other tokens than the model's own of '"):
        check_tokens(text_artifact, choose_preprocess(text_artifact, metadata, other), kept.samples)
    monkeypatch.setattr(exporting, "find_held_out", lambda *args, **named: kept)
    monkeypatch.setattr(exporting, "read_tokenizer", lambda path, metadata: other)
    with pytest.raises(ExportError, match="other tokens than the model's own"):
        export(text_artifact, "torch", tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["image", pytest.param("series", marks=pytest.mark.slow), pytest.param("text", marks=pytest.mark.slow)]
)
def test_without_data_samples_are_made_up(kind: str, tmp_path: Path) -> None:
    name = {"image": "lenet_relu", "series": "transformer", "text": "transformer"}[kind]
    artifact = make_artifact(name, make_spec(name, kind))  # type: ignore[arg-type]
    result: Export = export(artifact, "torch", tmp_path / "model.pt2")
    assert "made-up samples, as the model's own cannot be read" in result.parity.samples
    assert "no/such/folder" in result.parity.samples
    assert result.parity.n == 32
    assert result.parity.accuracy_drop is None
    assert result.parity.max_abs_difference <= 1e-4


def test_integers_need_data(tmp_path: Path) -> None:
    artifact = make_artifact("lenet_relu", make_spec("lenet_relu", "image"))
    with pytest.raises(DataError, match=r"wanted validation samples of no/such/folder, .*; or --source"):
        export(artifact, "onnx-int8", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_working_folder_is_not_taken_for_what_a_lone_file_learned_from(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_folder(classes=("0", "1"), count=5))
    artifact = make_artifact("lenet_relu", make_spec("lenet_relu", "image"))
    lone = replace(artifact, config=replace(artifact.config, provenance=UNKNOWN))
    kept = find_held_out(lone, None, None, exact=True)
    assert kept.description.startswith(
        "made-up samples, as the model's own cannot be read (a coded file alone does not"
    )
    with pytest.raises(DataError, match=r"wanted validation samples of its data, .* alone does not tell"):
        find_held_out(lone, None, None, exact=False)


@pytest.mark.slow
def test_another_source_is_compared_on(trained: RunResult, make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(classes=("3", "7"), count=5)
    result = export(trained.out, "torch", tmp_path / "model.pt2", source=folder)
    assert str(folder) in result.parity.samples
    with pytest.raises(DataError, match="does not know the classes"):
        export(trained.out, "torch", tmp_path / "model.pt2", source=make_folder("other", classes=("cat", "dog")))


def test_answers_that_are_right_alike_bound_the_drop() -> None:
    right = np.ones(90, dtype=bool)
    low, high = bound_drop(right, right)
    # No difference among 90: the score interval of a share ends at z² / (n + z²).
    assert high == -low == pytest.approx(1.96**2 / (90 + 1.96**2), rel=1e-3)
    low, high = bound_drop(right, ~right)
    assert high == pytest.approx(1.0)
    assert 0.9 < low < 1


@pytest.mark.slow
def test_files_that_cannot_be_read_are_passed_over(
    trained: RunResult, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(classes=("0", "1"))
    for path in sorted(folder.rglob("*.png"))[::2]:
        path.write_bytes(path.read_bytes()[:-40])  # Its header can still be read.
    result = export(trained.out, "torch", tmp_path / "model.pt2", source=folder)
    assert 0 < result.parity.n < 24


def test_large_images_are_thinned_for_formats_with_a_limit() -> None:
    images = np.arange(2 * 50 * 90 * 3, dtype=np.uint8).reshape(2, 50, 90, 3)
    samples = ThinnedSamples(ImageArray(images, np.array(["a", "b"])), 40)
    assert samples.read(1).shape == (17, 30, 3)
    np.testing.assert_array_equal(samples.take(np.array([1])).read(0), images[1, ::3, ::3])
    assert ThinnedSamples(samples.samples, 90).read(0).shape == (50, 90, 3)


def test_a_write_that_fails_leaves_the_earlier_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = {"model.bin": b"earlier weights", "model.xml": b"earlier graph"}
    swap(tmp_path, kept, name="model.xml")
    write = storage.write_synced

    def fail_late(path: Path, content: bytes) -> None:
        if path.suffix == ".xml":
            raise OSError(errno.ENOSPC, "disk full")
        write(path, content)

    monkeypatch.setattr(storage, "write_synced", fail_late)
    with pytest.raises(StorageError, match="disk full"):
        swap(tmp_path, dict.fromkeys(kept, b"newer"), name="model.xml")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
