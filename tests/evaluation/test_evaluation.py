"""predict() and evaluate()."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from falconet import RunResult, cli, evaluate, load_artifact, load_dataset, predict
from falconet.artifact import Artifact, DataOrigin
from falconet.data import Dataset, Split
from falconet.data.dataset import match_labels
from falconet.errors import DataError, PathError, UnknownNameError, UsageError
from falconet.evaluation import evaluate_logits, predict_logits

FolderMaker = Callable[..., Path]


@pytest.fixture
def digit_files(tmp_path: Path) -> Path:
    """The first digits of the test split as PNG files."""
    folder = tmp_path / "digits"
    folder.mkdir()
    split = load_dataset("digits").splits["test"]
    for index in range(8):
        Image.fromarray(split.samples.read(index)[..., 0]).save(folder / f"{index}-is-{split.labels[index]}.png")
    return folder


def test_files_get_the_answers_of_their_arrays(trained: RunResult, digit_files: Path) -> None:
    artifact = load_artifact(trained.out)
    split = load_dataset("digits").splits["test"]
    logits, unreadable = predict_logits(artifact, split.samples)
    answers = logits[:8].argmax(axis=1)
    assert not unreadable
    predictions = predict(artifact, [digit_files]).predictions
    assert [row.label for row in predictions] == [str(answer) for answer in answers]


def test_evaluating_leaves_the_model_fit_for_gradients(trained: RunResult) -> None:
    artifact = load_artifact(trained.out)
    evaluate(artifact, "digits")
    artifact.model(torch.zeros(1, 1, 28, 28)).sum().backward()
    assert all(parameter.grad is not None for parameter in artifact.model.parameters())


def test_no_more_raw_images_are_held_than_there_are_workers(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(60):
        Image.new("L", (40, 40), index).save(tmp_path / f"{index}.png")
    alive, most, lock = 0, 0, threading.Lock()

    def read(path: Path, *_: object) -> np.ndarray:
        nonlocal alive, most
        image = np.zeros((40, 40, 1), dtype=np.uint8)
        with lock:
            alive += 1
            most = max(most, alive)
        weakref.finalize(image, forget)
        return image

    def forget() -> None:
        nonlocal alive
        alive -= 1

    monkeypatch.setattr("falconet.data.dataset.read_image", read)
    assert len(predict(trained.out, [tmp_path]).predictions) == 60
    assert most <= 2 * ((os.cpu_count() or 1) + 4)


@pytest.mark.parametrize("make", [str, Path, np.str_, lambda path: (path,), lambda path: iter([str(path)])])
def test_one_path_is_one_file(trained: RunResult, digit_files: Path, make: Callable[[Path], Any]) -> None:
    path = min(digit_files.iterdir())
    predictions = predict(trained.out, make(path), top=2)
    assert [(row.file, len(row.top)) for row in predictions.predictions] == [(str(path), 2)]


def test_no_files_are_refused(trained: RunResult) -> None:
    with pytest.raises(UsageError, match=r"wanted paths, addresses or images .*, found none"):
        predict(trained.out, [])


def test_predictions_are_ranked_probabilities(trained: RunResult, digit_files: Path) -> None:
    for row in predict(trained.out, sorted(digit_files.iterdir()), top=10).predictions:
        probabilities = [candidate.probability for candidate in row.top]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert (row.label, row.probability) == (row.top[0].label, row.top[0].probability)


def test_unreadable_files_are_skipped_and_listed(trained: RunResult, digit_files: Path) -> None:
    (digit_files / "empty.png").write_bytes(b"")
    (digit_files / "text.png").write_text("no picture")
    result = predict(trained.out, [digit_files])
    assert len(result.predictions) == 8
    assert [(Path(item.file).name, item.reason.split()[0]) for item in result.skipped] == [
        ("empty.png", "empty"),
        ("text.png", "not"),
    ]


def test_nothing_readable_is_an_error(trained: RunResult, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"the sample cannot be read: .*empty file"):
        predict(trained.out, [tmp_path])


def test_missing_paths_and_empty_folders(trained: RunResult, tmp_path: Path) -> None:
    with pytest.raises(PathError, match="no such file"):
        predict(trained.out, [tmp_path / "nowhere.png"])
    with pytest.raises(PathError, match="found none"):
        predict(trained.out, [tmp_path])
    with pytest.raises(UsageError, match="wanted 1 or more"):
        predict(trained.out, [tmp_path], top=0)


def test_another_data_set_cannot_stand_in_for_the_test_split(trained: RunResult, make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match=r"not the data that the model was trained on.*split='all'"):
        evaluate(trained.out, make_folder(classes=("3", "7")), split="test")


@pytest.mark.parametrize(("split", "notes"), [("all", []), (None, ["no test split: all of it is evaluated"])])
def test_another_data_set_is_evaluated_as_a_whole(
    trained: RunResult, make_folder: FolderMaker, split: str | None, notes: list[str]
) -> None:
    folder = make_folder(classes=("3", "7"))
    result = evaluate(trained.out, folder, split=split)
    assert (result.split, result.n) == ("all", 24)
    assert [note.rpartition("has ")[2] for note in result.notes] == notes
    assert [row.support for row in result.per_class] == [0, 0, 0, 12, 0, 0, 0, 12, 0, 0]


def test_a_test_split_of_its_own_can_be_evaluated(trained: RunResult, make_folder: FolderMaker) -> None:
    folder = make_folder(classes=("3", "7"), splits=("train", "test"))
    assert evaluate(trained.out, folder).n == 24
    with pytest.raises(DataError, match="its val split"):
        evaluate(trained.out, folder, split="val")


@pytest.mark.parametrize("split", ["test", "all"])
def test_what_is_there_is_evaluated(trained: RunResult, make_folder: FolderMaker, split: str) -> None:
    # A test split alone, of two of the model's ten classes.
    evaluation = evaluate(trained.out, make_folder(classes=("7", "3"), splits=("test",), count=4), split=split)
    assert evaluation.n == 8
    assert [row.support for row in evaluation.per_class] == [0, 0, 0, 4, 0, 0, 0, 4, 0, 0]


def test_one_class_is_enough_to_be_evaluated(trained: RunResult, make_folder: FolderMaker) -> None:
    evaluation = evaluate(trained.out, make_folder(classes=("5",), count=3), split="all")
    assert (evaluation.n, evaluation.accuracy) == (3, evaluation.per_class[5].recall)
    assert evaluation.per_class[5].average_precision is None


def test_an_empty_class_folder_does_not_keep_others_from_being_evaluated(
    trained: RunResult, make_folder: FolderMaker
) -> None:
    root = make_folder(classes=("1", "2"), count=3)
    (root / "unheard-of").mkdir()
    assert (evaluate(trained.out, root, split="all").n, evaluate(trained.out, root).n) == (6, 6)


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_split_that_another_source_lacks_is_refused(trained: RunResult, make_folder: FolderMaker, name: str) -> None:
    root = make_folder(classes=("1", "2"), splits=("test",), count=3)
    with pytest.raises(DataError, match=f"its {name} split cannot be found again; evaluate on split='all' instead"):
        evaluate(trained.out, root, split=name)


@pytest.fixture
def taught(trained: RunResult, make_folder: FolderMaker) -> tuple[Artifact, Path]:
    """A model that says that it was trained on a folder, and that folder: 24 pictures, of them 4 for testing."""
    folder = make_folder("taught", classes=("3", "7"))
    artifact, dataset = load_artifact(trained.out), load_dataset(folder)
    origin = dataclasses.replace(
        artifact.config.provenance.data, source=str(folder), fingerprint=dataset.fingerprint, split_seed=0
    )
    assert len(dataset.splits["test"]) == 4
    return with_origin(artifact, origin), folder


def with_origin(artifact: Artifact, origin: DataOrigin) -> Artifact:
    provenance = dataclasses.replace(artifact.config.provenance, data=origin)
    return dataclasses.replace(artifact, config=dataclasses.replace(artifact.config, provenance=provenance))


def test_splits_that_came_out_otherwise_are_refused(trained: RunResult) -> None:
    artifact = load_artifact(trained.out)
    origin = artifact.config.provenance.data
    assert origin.near_duplicates == "together"
    assert evaluate(artifact, "digits", split="val").n > 0
    other = with_origin(artifact, dataclasses.replace(origin, splits_fingerprint="0" * 32))
    with pytest.raises(DataError, match="wanted the val split of training, found another"):
        evaluate(other, "digits", split="val")
    with pytest.raises(DataError, match=r"trained with data\.near_duplicates=together, not apart"):
        evaluate(artifact, "digits", split="val", settings={"near_duplicates": "apart"})


def copy_with_new_ones(folder: Path, copy: Path, count: int = 3) -> Path:
    """Copy a folder of class 3 under another name and with further pictures."""
    shutil.copytree(folder, copy)
    for index in range(count):
        Image.new("RGB", (9, 9), (index, 0, 0)).save(copy / "3" / f"new-{index}.png")
    return copy


def test_of_a_changed_copy_what_was_trained_on_is_left_out(taught: tuple[Artifact, Path], tmp_path: Path) -> None:
    artifact, folder = taught
    result = evaluate(artifact, copy_with_new_ones(folder, tmp_path / "copy"))
    assert (result.split, result.n, [row.support for row in result.per_class][3]) == ("all", 4 + 3, 2 + 3)
    assert "but for 20 of 27 samples that stand in its training or validation data" in result.notes[-1]
    assert "cannot be told" not in result.notes[-1]


def test_a_copy_of_nothing_but_training_samples_is_refused(taught: tuple[Artifact, Path], tmp_path: Path) -> None:
    artifact, folder = taught
    learned = load_dataset(folder).splits["train"].samples
    (tmp_path / "copy" / "3").mkdir(parents=True)
    for index in range(len(learned)):
        if learned.name(index).startswith("3/"):
            shutil.copy(folder / learned.name(index), tmp_path / "copy" / "3")
    with pytest.raises(DataError, match="found all 9 of them in its training or validation data"):
        evaluate(artifact, tmp_path / "copy")


def test_what_the_other_model_learned_from_is_left_out_too(trained: RunResult, taught: tuple[Artifact, Path]) -> None:
    result = evaluate(trained.out, taught[1], against=taught[0])
    assert (result.n, result.split) == (4, "all")
    assert "but for 20 of 24 samples" in result.notes[-1]


def test_training_data_that_are_gone_or_changed_are_told(taught: tuple[Artifact, Path], tmp_path: Path) -> None:
    artifact, folder = taught
    copy = copy_with_new_ones(folder, tmp_path / "copy")
    Image.new("RGB", (9, 9), "green").save(folder / "3" / "later.png")
    result = evaluate(
        artifact, copy
    )  # Which of the changed folder's were learned from is not known: none is evaluated.
    assert result.n == 3
    assert result.notes[-1].endswith(f"of these 3 cannot be told: {folder} has changed since")
    with pytest.raises(DataError, match="its test split cannot be found again"):
        evaluate(artifact, folder)
    folder.rename(tmp_path / "elsewhere")
    result = evaluate(artifact, copy)
    assert (result.n, result.notes[-1].partition("of these ")[2]) == (
        27,
        f"27 cannot be told: {folder} cannot be read again here",
    )
    copy.rename(folder)  # As the model's own folder, changed since, would be found.
    with pytest.raises(DataError, match="its test split cannot be found again"):
        evaluate(artifact, folder)


def test_notes_of_reading_come_with_the_figures(trained: RunResult, make_folder: FolderMaker) -> None:
    folder = make_folder(classes=("3", "7"))
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    result = evaluate(trained.out, folder / "table.csv")
    assert (result.n, len(result.notes)) == (24, 2)
    assert "no header" in result.notes[0]


def test_no_splits_are_made_of_what_is_evaluated_whole(
    trained: RunResult, make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Dataset:
        raise AssertionError("splits were made")

    monkeypatch.setattr("falconet.evaluation.evaluation.complete_splits", refuse)
    assert evaluate(trained.out, make_folder(classes=("1", "2"), count=3), split="all", target_accuracy=0.5).n == 6


def test_classes_in_another_order_are_evaluated_alike(trained: RunResult, tmp_path: Path) -> None:
    digits = load_dataset("digits").splits["test"]
    known = [index for index in range(60) if digits.labels[index] in (3, 7)]
    images = np.stack([digits.samples.read(index) for index in known])
    labels = (digits.labels[known] == 3).astype(np.int64)
    np.savez(tmp_path / "two.npz", x_test=images, y_test=labels, classes=np.array(["7", "3"]))
    logits, _ = predict_logits(load_artifact(trained.out), digits.samples.take(np.array(known)))
    hits = int((logits.argmax(axis=1) == digits.labels[known]).sum())
    evaluation = evaluate(trained.out, tmp_path / "two.npz")
    assert (evaluation.n, round(evaluation.accuracy * len(known))) == (len(known), hits)
    assert hits > 0


def test_unknown_classes_are_named(trained: RunResult, make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match="does not know the classes cat, dog; it knows 0, 1"):
        evaluate(trained.out, make_folder(classes=("cat", "dog")), split="all")


def test_unknown_splits_are_named(trained: RunResult) -> None:
    with pytest.raises(UnknownNameError, match="unknown split 'tset': did you mean test"):
        evaluate(trained.out, "digits", split="tset")


def test_strict_refuses_unreadable_files(trained: RunResult, make_folder: FolderMaker) -> None:
    folder = make_folder(classes=("3", "7"))
    (folder / "3" / "bad.png").write_bytes(b"")
    assert len(evaluate(trained.out, folder, split="all").unreadable) == 1
    with pytest.raises(DataError, match=r"1 unreadable files.*leave out strict"):
        evaluate(trained.out, folder, split="all", settings={"strict": True})


def test_labels_are_matched_by_name() -> None:
    samples = load_dataset("digits").splits["val"].samples
    split = Split(samples=samples, labels=np.array([0, 1, 1]), hashes=np.zeros(3, dtype=np.uint64))
    assert match_labels(split, ("b", "a"), ("a", "b", "c")).tolist() == [1, 0, 0]


def test_evaluating_logits() -> None:
    logits = np.array([[2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2]], dtype=np.float32)
    result = evaluate_logits(logits, np.array([0, 1, 2, 2]), ("a", "b", "c"), "test")
    assert result.accuracy == 0.75
    assert result.accuracy_ci[0] < 0.75 < result.accuracy_ci[1]
    assert result.confusion == ((1, 0, 0), (0, 1, 0), (0, 1, 1))
    assert result.macro_recall == pytest.approx((1 + 1 + 0.5) / 3)
    assert result.macro_precision == pytest.approx((1 + 0.5 + 1) / 3)
    assert result.top_k == {"2": 0.75}


def test_an_empty_split_is_an_error(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def emptied(self: Dataset, name: str) -> Split:
        return self.splits["test"].take(np.zeros(0, dtype=np.int64))

    monkeypatch.setattr(Dataset, "split", emptied)
    with pytest.raises(DataError, match="holds no samples"):
        evaluate(trained.out, "digits")


def test_files_that_turn_out_damaged_are_left_out_and_listed(trained: RunResult, make_folder: FolderMaker) -> None:
    folder = make_folder(classes=("3", "7"))
    whole = evaluate(trained.out, folder, split="all")
    damaged = folder / "7" / "000.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    result = evaluate(trained.out, folder, split="all")
    assert result.n == whole.n - 1
    assert [item.file for item in result.unreadable] == ["7/000.png"]
    assert sum(row.support for row in result.per_class if row.name == "7") == 11


def test_data_of_another_kind_are_refused(trained: RunResult, tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text,label\n" + "".join(f"number {n},{n % 2}\n" for n in range(20)), encoding="utf-8")
    with pytest.raises(DataError, match="wanted image data, as the model takes, found text"):
        evaluate(trained.out, table, split="all")


def test_a_network_that_answers_no_numbers_is_refused(trained: RunResult) -> None:
    artifact = load_artifact(trained.out)
    weights = {name: torch.full_like(weight, math.nan) for name, weight in artifact.weights.items()}
    broken = dataclasses.replace(artifact, weights=weights)
    with pytest.raises(DataError, match="found NaN or infinity in the network's answers to 359 of 359 samples"):
        evaluate(broken, "digits")


@pytest.fixture(scope="module")
def overflowing(trained: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network whose weights are numbers, and whose answers are none."""
    artifact, out = load_artifact(trained.out), tmp_path_factory.mktemp("overflowing")
    weights = {name: weight * 1e30 if weight.ndim > 1 else weight for name, weight in artifact.weights.items()}
    dataclasses.replace(artifact, weights=weights).save(out)
    return out


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "MODEL", "digits"),
        ("evaluate", "MODEL", "digits", "--json"),
        ("predict", "MODEL", "PICTURE"),
        ("predict", "MODEL", "PICTURE", "--json"),
        ("explain", "MODEL", "PICTURE", "--out", "OUT"),
        ("explain", "MODEL", "digits", "--out", "OUT", "--json"),
        ("explain", "MODEL", "digits", "--out", "OUT", "--report", "--json"),
        ("export", "MODEL", "--to", "torch", "--out", "FILE"),
    ],
    ids=" ".join,
)
def test_answers_that_are_no_numbers_are_one_line(
    arguments: tuple[str, ...], overflowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (28, 28), 99).save(tmp_path / "picture.png")
    places = {"MODEL": overflowing, "PICTURE": tmp_path / "picture.png", "OUT": tmp_path / "out"}
    places["FILE"] = tmp_path / "model.pt2"
    assert cli.run([str(places.get(argument, argument)) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "NaN or infinity" in err
    assert "unexpected" not in err
    assert err.count("\n") == 1
    assert not (tmp_path / "model.pt2").exists()
