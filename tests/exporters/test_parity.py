"""The gate: an export that answers otherwise is not written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from falconet import RunResult, load_artifact, load_dataset, storage
from falconet.artifact import UNKNOWN, Artifact
from falconet.data import ImageArray, Texts
from falconet.data.texts import train_tokenizer
from falconet.errors import DataError, ExportError, StorageError
from falconet.exporters import exporting
from falconet.exporters.asking import Prepare
from falconet.exporters.exporting import Export, choose_prepare, export
from falconet.exporters.metadata import Metadata
from falconet.exporters.parity import (
    CALIBRATED,
    JUDGED,
    Kept,
    Parity,
    Thinned,
    bound_drop,
    check_parity,
    check_tokens,
    compare_answers,
    find_kept,
    part_kept,
)
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import TARGETS
from falconet.storage import write_together
from tests.exporters.builders import TOKENIZER, WORDS, make_artifact, make_spec

Doctor = Callable[[Callable[[np.ndarray], np.ndarray]], None]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Return a function that lets every export's answers be changed."""

    def install(change: Callable[[np.ndarray], np.ndarray]) -> None:
        def open_doctored(*args: object, **named: object) -> Session:
            session = open_session(*args, **named)  # type: ignore[arg-type]
            return replace(session, ask=lambda batch: change(session.ask(batch)))

        monkeypatch.setattr(exporting, "open_session", open_doctored)

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
    change: Callable[[np.ndarray], np.ndarray], message: str, trained: RunResult, doctor: Doctor, tmp_path: Path
) -> None:
    doctor(change)
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
def test_a_difference_for_one_sample_alone_is_found(trained: RunResult, doctor: Doctor, tmp_path: Path) -> None:
    doctor(lambda answers: off(answers) if len(answers) == 1 else answers)
    with pytest.raises(ExportError, match=r"difference of 0\.001"):
        export(trained.out, "torch", tmp_path / "model.pt2")


def mislead(answers: np.ndarray) -> np.ndarray:
    answers[::10] = np.roll(answers[::10], 1, axis=1)
    return answers


@pytest.mark.slow
def test_integers_that_lose_too_much_are_refused(trained: RunResult, doctor: Doctor, tmp_path: Path) -> None:
    doctor(mislead)
    out = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"wanted at most 0\.5 points of accuracy lost, found .* --max-drop allows"):
        export(trained.out, "onnx-int8", out)
    assert list(tmp_path.iterdir()) == []
    result = export(trained.out, "onnx-int8", out, max_drop=100)
    assert result.parity.accuracy_drop is not None
    assert result.parity.accuracy_drop > 0.005
    assert out.is_file()


@pytest.mark.parametrize(("drop", "passes"), [(-0.02, True), (0.0, True), (0.005, True), (0.0051, False)])
def test_the_bound_is_in_points(drop: float, passes: bool) -> None:
    parity = Parity(1000, "samples", 0.3, 0.99, 0.9, 0.9 - drop, drop, (drop - 0.01, drop + 0.01))
    if passes:
        check_parity(parity, TARGETS["onnx-int8"], 0.5)
        return
    with pytest.raises(
        ExportError, match=r"at most 0\.5 points of accuracy lost, found 0\.51 \(95%: -0\.49 to 1\.51\)"
    ):
        check_parity(parity, TARGETS["onnx-int8"], 0.5)


@pytest.mark.slow
def test_ranges_are_chosen_on_other_samples_than_those_judged(
    trained: RunResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, list[str]] = {}
    write = exporting.write

    def note_calibrating(draft, artifact, target, path, calibrating):  # type: ignore[no-untyped-def]
        seen["calibrating"] = [calibrating.name(index) for index in range(len(calibrating))]
        return write(draft, artifact, target, path, calibrating)

    def note_judging(artifact: Artifact, session: Session, prepare: Prepare, kept: Kept) -> Parity:
        seen["judging"] = [kept.samples.name(index) for index in range(len(kept.samples))]
        return compare_answers(artifact, session, prepare, kept)

    monkeypatch.setattr(exporting, "write", note_calibrating)
    monkeypatch.setattr(exporting, "compare_answers", note_judging)
    export(trained.out, "onnx-int8", tmp_path / "model.onnx", max_drop=100)
    assert seen["calibrating"]
    assert seen["judging"]
    assert not set(seen["calibrating"]) & set(seen["judging"])
    split = load_artifact(trained.out).config.provenance.data
    val = load_dataset("digits", config=split.config).splits["val"].samples
    assert {*seen["calibrating"], *seen["judging"]} == {val.name(index) for index in range(len(val))}


@pytest.mark.parametrize("count", [2, 3, 150, CALIBRATED + JUDGED + 50])
def test_samples_are_parted(count: int, trained: RunResult) -> None:
    kept = find_kept(load_artifact(trained.out), None, None, exact=True)
    kept = kept.part(np.arange(count) % len(kept.samples))
    kept = replace(kept, labels=np.arange(count))
    calibrating, judging = part_kept(kept, exact=False)
    assert calibrating.labels is not None
    assert judging.labels is not None
    assert not set(calibrating.labels) & set(judging.labels)
    assert 1 <= len(calibrating.samples) <= CALIBRATED
    assert 1 <= len(judging.samples) <= JUDGED
    none, judging = part_kept(kept, exact=True)
    assert len(none.samples) == 0
    assert len(judging.samples) >= 2


def test_one_sample_is_too_few_for_integers(trained: RunResult) -> None:
    kept = find_kept(load_artifact(trained.out), None, None, exact=False).part(np.arange(1))
    with pytest.raises(DataError, match=r"wanted 2 samples or more, .* found 1"):
        part_kept(kept, exact=False)


@pytest.mark.slow
def test_other_tokens_are_refused(text_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = train_tokenizer(["quite other words, of quite another sort"] * 3, 270)
    kept = Kept(Texts(WORDS, np.array([f"note {index}" for index in range(len(WORDS))])), None, "notes")
    metadata = Metadata("transformer", text_artifact.config.input, "probabilities", {"falconet": "0"}, "00")
    check_tokens(text_artifact, choose_prepare(text_artifact, metadata, TOKENIZER), kept.samples)
    with pytest.raises(ExportError, match=r"the exported tokenizer makes other tokens than the model's own of '"):
        check_tokens(text_artifact, choose_prepare(text_artifact, metadata, other), kept.samples)
    monkeypatch.setattr(exporting, "find_kept", lambda *args, **named: kept)
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
    kept = find_kept(lone, None, None, exact=True)
    assert kept.description.startswith(
        "made-up samples, as the model's own cannot be read (a coded file alone does not"
    )
    with pytest.raises(DataError, match=r"wanted validation samples of its data, .* alone does not tell"):
        find_kept(lone, None, None, exact=False)


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
    assert bound_drop(right, ~right) == (1.0, 1.0)


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
    samples = Thinned(ImageArray(images, np.array(["a", "b"])), 40)
    assert samples.read(1).shape == (17, 30, 3)
    np.testing.assert_array_equal(samples.take(np.array([1])).read(0), images[1, ::3, ::3])
    assert Thinned(samples.samples, 90).read(0).shape == (50, 90, 3)


def test_a_write_that_fails_leaves_the_earlier_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = {tmp_path / "model.bin": b"earlier weights", tmp_path / "model.xml": b"earlier graph"}
    write_together(kept)
    stage = storage.stage

    def fail_late(path: Path, content: bytes) -> object:
        if path.suffix == ".xml":
            raise StorageError("disk full")
        return stage(path, content)

    monkeypatch.setattr(storage, "stage", fail_late)
    with pytest.raises(StorageError):
        write_together(dict.fromkeys(kept, b"newer"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept
