"""A student that learns from what a run kept."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from falconet import cli, evaluate, preparation
from falconet.artifact import load_artifact
from falconet.data import load_dataset
from falconet.errors import ConfigError, UsageError
from falconet.evaluation.logits import predict_logits
from falconet.model import train
from falconet.planning import Plan, plan_run
from falconet.preparation import (
    DataBundle,
    ExtraSamples,
    add_samples,
    build,
    check_synthetic,
    find_teacher,
    fit_statistics,
    keep_samples,
    prepare,
    uncalibrate,
)
from falconet.runs import read_teacher
from falconet.students import (
    _make_texts,
    choose_student,
    join_texts,
    list_students,
    measure_student,
    plan_student,
    train_with_student,
)
from falconet.training import Callback
from falconet.training.loop import fit_linear_probe, without_augmentation

WORDS = {"money": ("euro", "cash", "bill", "coin"), "animals": ("cat", "dog", "owl", "fox")}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of two classes, told by a word of four."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "texts.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for index in range(120):
            label = list(WORDS)[index % 2]
            word = WORDS[label][int(rng.integers(4))]
            writer.writerow((f"number {rng.integers(900)} has a {word} in it {rng.integers(900)}", label))
    return path


@pytest.fixture(scope="module")
def teacher(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "teacher"
    settings = {"training": {"linear_probe": "logistic"}, "augmentation": {"policy": "none"}}
    train(texts, model="linear", epochs=1, settings=settings, out=out)
    return out


@pytest.mark.slow
def test_a_teacher_with_another_tokenizer_is_asked_beforehand(texts: Path, teacher: Path, tmp_path: Path) -> None:
    artifact = load_artifact(teacher)
    replace(artifact, config=replace(artifact.config, calibration_temperature=3.0)).save(tmp_path / "teacher")
    plan, bundle = ask_ngrams(texts, tmp_path / "teacher", tmp_path / "run")
    found, bundle = find_teacher(plan, bundle)
    assert found is None
    assert bundle.train.teacher_logits is not None
    # What a teacher answers batch by batch has no temperature either.
    wanted, _ = predict_logits(artifact, plan.dataset.splits["train"].samples)
    student = replace(plan, config=replace(plan.config, training=replace(plan.config.training, seed=3)))
    np.testing.assert_array_equal(answer_made(student), answer_made(retaught(student, teacher)))
    np.testing.assert_array_equal(bundle.train.teacher_logits.numpy(), wanted)
    for inputs, labels, answers in bundle.train.epoch(1):
        rows = (bundle.train.inputs[:, None] == inputs.int()).all(dim=2).int().argmax(dim=0)  # type: ignore[index]
        assert torch.equal(labels, bundle.train.labels[rows])
        np.testing.assert_array_equal(answers.numpy(), wanted[rows])


def test_a_teacher_with_the_same_tokenizer_answers_each_batch(texts: Path, teacher: Path, tmp_path: Path) -> None:
    settings = {"model": {"teacher": str(teacher)}}
    plan = plan_run(texts, model="linear", epochs=1, settings=settings, out=tmp_path / "run")
    found, bundle = find_teacher(plan, prepare(plan))
    assert found is not None
    assert bundle.train.teacher_logits is None


def test_what_a_teacher_of_another_input_cannot_do(texts: Path, teacher: Path, tmp_path: Path) -> None:
    settings = {"model": {"teacher": str(teacher)}, "training": {"feature_weight": 1.0}}
    plan = plan_run(texts, model="ngrams", epochs=1, settings=settings, out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^training\.feature_weight: wanted 0 with a teacher of another input"):
        find_teacher(plan, prepare(plan))


def test_made_texts_are_a_beginning_and_an_end() -> None:
    known = ["one two three four"] * 20 + ["five six seven"] * 20
    made = join_texts(known, np.random.default_rng(0))
    assert made == join_texts(known, np.random.default_rng(0))
    assert len(made) == 40
    for text, begun in zip(made, known, strict=True):
        words = text.split()
        assert words[0] == begun.split()[0]
        assert words[-1] in {"four", "seven"}
    assert len(set(made)) > 5
    assert set("".join(join_texts(["一二三四"] * 9, np.random.default_rng(0)))) <= set("一二三四")
    assert join_texts(["a"], np.random.default_rng(0))


def test_made_texts_have_the_teachers_answers(texts: Path, teacher: Path) -> None:
    plan = plan_run(texts, model="linear", out=teacher, if_exists="overwrite")
    student = plan_student(plan, {"name": "ngrams"})
    assert student.config.model.teacher == str(teacher)
    assert student.config.training.linear_probe is None
    added = _make_texts(student)
    assert added.teacher_logits is not None
    assert torch.equal(added.labels, added.teacher_logits.argmax(dim=1))
    assert len(added.inputs) == len(added.labels) == len(plan.dataset.splits["train"])


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_knows(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    settings = ["--set", "training.linear_probe=logistic", "--set", "augmentation.policy=none", "--json"]
    code = cli.run(["train", str(texts), "--model", "linear", "--student", "auto", "--out", str(out), *settings])
    assert not code
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["teacher"]["model"]) == ("ngrams", "linear")
    assert facts["out"] == str(out / "student")
    assert facts["test"]["accuracy"] > 0.9
    assert facts["bytes"] < facts["teacher"]["bytes"]
    # The linear baseline has learned from training texts, not from made ones.
    linear = next(row for row in facts["baselines"] if row["name"].startswith("linear"))
    assert linear["fitted"] == len(load_dataset(texts).splits["train"])
    assert load_artifact(out / "student").config.architecture == "ngrams"
    assert load_artifact(out).config.architecture == "linear"


def test_what_excludes_a_student(texts: Path, tmp_path: Path) -> None:
    plan = plan_run(texts, out=tmp_path / "run")
    with pytest.raises(UsageError, match="resnet20 takes image"):
        train_with_student(plan, "resnet20")
    for source, name in ((texts, "ngrams"), ("digits", "lenet_relu")):
        assert {network["name"] for network in list_students(load_dataset(source))} == {name}


LINEAR = {"training": {"linear_probe": "logistic"}, "augmentation": "none"}


class Lines(Callback):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_note(self, line: str) -> None:
        self.lines.append(line)


def plan_linear(texts: Path, out: Path, if_exists: str = "refuse", **settings: object) -> Plan:
    return plan_run(
        texts,
        model="linear",
        epochs=1,
        settings={**LINEAR, **settings},
        out=out,
        if_exists=if_exists,  # type: ignore[arg-type]
    )


def answer_made(plan: Plan) -> np.ndarray:
    """Return the teacher's answers about synthetic texts."""
    answers = _make_texts(plan).teacher_logits
    assert answers is not None
    return answers.numpy()


def retaught(plan: Plan, teacher: Path) -> Plan:
    """Return the same plan with another teacher."""
    model = replace(plan.config.model, teacher=str(teacher))
    return replace(plan, config=replace(plan.config, model=model))


def ask_ngrams(texts: Path, teacher: Path, out: Path) -> tuple[Plan, DataBundle]:
    settings = {"model": {"teacher": str(teacher)}, "augmentation": "none"}
    plan = plan_run(texts, model="ngrams", epochs=1, settings=settings, out=out)
    return plan, prepare(plan)


@pytest.mark.parametrize(("source", "name"), [("digits", "linear"), ("texts", "linear"), ("texts", "minilm")])
def test_a_network_that_is_solved_otherwise_learns_for_as_many_epochs_as_any(
    source: str, name: str, texts: Path, tmp_path: Path
) -> None:
    plan = plan_run(texts if source == "texts" else source, out=tmp_path / "run")
    found = plan_student(plan, {"name": name}).config
    other = plan_student(plan, {"name": "rnn"}).config
    assert found.training.linear_probe is None
    assert (found.training.epochs, found.training.batch_size) == (other.training.epochs, other.training.batch_size)
    assert found.training.epochs >= 10
    assert found.training.freeze is None
    # With few validation samples, the last epoch is kept; none ends the schedule early.
    assert (found.training.restore, found.training.patience) == ("last", None)


@pytest.mark.slow
def test_a_linear_student_learns_what_its_teacher_knows(texts: Path, tmp_path: Path) -> None:
    watcher = Lines()
    taught = train_with_student(plan_linear(texts, tmp_path / "run"), "linear", callbacks=[watcher])
    assert taught.student.test.accuracy > 0.9
    # A teacher of the same input is asked once too, about synthetic texts as about the others.
    assert any("no smaller than what teaches it" in line for line in watcher.lines)


def test_the_largest_student_that_is_smaller_than_its_teacher_is_chosen(texts: Path, tmp_path: Path) -> None:
    for plan in (plan_linear(texts, tmp_path / "run"), plan_run("digits", out=tmp_path / "digits")):
        sizes = [measure_student(plan_student(plan, network)) for network in list_students(plan.dataset)]
        assert sizes == sorted(sizes, reverse=True)
        for size, smaller in pairwise(sizes):
            assert measure_student(choose_student(plan, "linear", size)) == smaller
        with pytest.raises(UsageError, match="smaller than its teacher, linear, which has 7,000 bytes of weights"):
            choose_student(plan, "linear", 7000)


def test_a_students_size_is_that_of_its_file(texts: Path, teacher: Path, tmp_path: Path) -> None:
    plan = plan_linear(texts, tmp_path / "run")
    found = measure_student(plan_student(plan, {"name": "linear"}))
    assert 0 <= len(load_artifact(teacher).serialize()) - found < 1000


def test_a_sample_that_one_of_the_two_cannot_read_is_left_out(
    texts: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, bundle = ask_ngrams(texts, teacher, tmp_path / "run")
    samples = plan.dataset.splits["train"].samples
    wanted, _ = predict_logits(uncalibrate(load_artifact(teacher)), samples)
    count = len(wanted)

    def predict(artifact: object, given: object) -> tuple[np.ndarray, dict[int, str]]:
        logits, _ = predict_logits(artifact, given)  # type: ignore[arg-type]
        return np.delete(logits, 3, axis=0), {3: "damaged"}

    monkeypatch.setattr(preparation, "predict_logits", predict)
    # The student lacks the first one, and the teacher the fourth of the others.
    bundle = keep_samples(bundle, np.arange(1, count), plan.config.training)
    _, found = find_teacher(plan, bundle)
    left = np.delete(np.arange(count), [0, 4])
    assert found.train.teacher_logits is not None
    np.testing.assert_array_equal(found.train.teacher_logits.numpy(), wanted[left])
    np.testing.assert_array_equal(found.train.labels.numpy(), plan.dataset.splits["train"].labels[left])
    np.testing.assert_array_equal(found.rows, left)
    assert len(found.train.inputs) == count - 2
    assert found.groups is not None
    assert len(found.groups) == count - 2
    assert [(item.file, item.reason) for item in found.unreadable] == [(samples.name(4), "damaged")]


def test_made_samples_without_answers_are_refused(texts: Path, teacher: Path, tmp_path: Path) -> None:
    plan, bundle = ask_ngrams(texts, teacher, tmp_path / "run")
    with pytest.raises(ConfigError, match="synthetic: wanted a teacher that is given what its student is"):
        check_synthetic(plan, bundle)
    _, asked = find_teacher(plan, bundle)
    assert isinstance(bundle.train.inputs, torch.Tensor)
    made = ExtraSamples(bundle.train.inputs[:5], bundle.train.labels[:5])
    with pytest.raises(ConfigError, match="wanted logits of training and synthetic samples, found those of training"):
        add_samples(asked, made, plan.config.training)
    answered = ExtraSamples(made.inputs, made.labels, torch.zeros(5, 2))
    with pytest.raises(ConfigError, match="found those of synthetic ones"):
        add_samples(bundle, answered, plan.config.training)


def test_statistics_and_features_are_those_of_all_samples(texts: Path, tmp_path: Path) -> None:
    plan = plan_linear(texts, tmp_path / "run")
    bundle = prepare(plan)
    assert isinstance(bundle.train.inputs, torch.Tensor)
    count, tokens = bundle.train.inputs.shape
    made = ExtraSamples(torch.full((7, tokens), 5, dtype=bundle.train.inputs.dtype), torch.ones(7, dtype=torch.int64))
    more = add_samples(bundle, made, plan.config.training)

    def count_full(batches: object) -> tuple[int, int]:
        inputs = torch.cat([batch if isinstance(batch, torch.Tensor) else batch[0] for batch in batches])  # type: ignore[attr-defined]
        return len(inputs), int((inputs == 5).all(dim=1).sum())

    assert count_full(without_augmentation(more.train, 10_000).epoch(1)) == (count + 7, 7)
    # Of the longest, which come last in order of length, some are among a random part.
    longest = [count_full(without_augmentation(more.train, count - number).epoch(1)) for number in range(20)]
    assert [found for found, _ in longest] == [count - number for number in range(20)]
    assert sum(full for _, full in longest) > 20

    # An output layer is solved for all of them, too.
    network, _ = build(plan.config.model, bundle.spec, bundle.output, 0)
    assert fit_linear_probe(network, more.train, plan.config.training, groups=more.groups).left_out > 0

    class Fitted(torch.nn.Module):
        def fit_statistics(self, batches: object) -> None:
            self.seen = count_full(batches)

    fitted = Fitted()
    fit_statistics(fitted, more.train)
    assert fitted.seen == (count + 7, 7)


@pytest.mark.slow
def test_overwriting_a_run_removes_its_student(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_with_student(plan_linear(texts, out), "ngrams")
    assert read_teacher(out / "student") == load_artifact(out).digest
    train(texts, model="linear", epochs=1, settings=LINEAR, out=out, if_exists="overwrite")
    assert not (out / "student").exists()
    (out / "student").mkdir()
    (out / "student" / "notes.txt").write_text("mine")
    train(texts, model="linear", epochs=1, settings=LINEAR, out=out, if_exists="overwrite")
    assert (out / "student" / "notes.txt").exists()


@pytest.mark.slow
def test_a_student_of_another_teacher_is_trained_anew(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_with_student(plan_linear(texts, out), "ngrams")
    before = load_artifact(out / "student").digest
    watcher = Lines()
    train_with_student(plan_linear(texts, out, "resume"), "ngrams", callbacks=[watcher])
    assert load_artifact(out / "student").digest == before
    assert not any("had another teacher" in line for line in watcher.lines)
    train(texts, model="linear", epochs=1, settings=LINEAR, out=out, if_exists="resume", refit=True)
    assert load_artifact(out).digest != read_teacher(out / "student")
    train_with_student(plan_linear(texts, out, "resume"), "ngrams", callbacks=[watcher])
    assert any("had another teacher" in line for line in watcher.lines)
    assert load_artifact(out / "student").digest != before
    assert read_teacher(out / "student") == load_artifact(out).digest


@pytest.mark.slow
def test_a_run_goes_on_with_the_teacher_that_it_began_with(texts: Path, teacher: Path, tmp_path: Path) -> None:
    old, out = tmp_path / "teacher", tmp_path / "run"
    load_artifact(teacher).save(old)
    settings = {"model": {"teacher": str(old)}}
    train(texts, model="ngrams", epochs=1, settings=settings, out=out)
    train(texts, model="ngrams", epochs=1, settings=settings, out=out, if_exists="resume")
    artifact = load_artifact(teacher)
    other = {name: value * 1.5 for name, value in artifact.weights.items()}
    type(artifact)(artifact.config, other, artifact.tokenizer).save(old)
    with pytest.raises(UsageError, match="has other weights now: start anew with if_exists='overwrite'"):
        train(texts, model="ngrams", epochs=1, settings=settings, out=out, if_exists="resume")
    train(texts, model="ngrams", epochs=1, settings=settings, out=out, if_exists="overwrite")
    assert read_teacher(out) == load_artifact(old).digest


@pytest.mark.slow
def test_a_student_of_a_refit_teacher_says_that_validation_samples_flatter_it(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    taught = train_with_student(plan_linear(texts, out), "ngrams", refit=True)
    assert load_artifact(out).config.provenance.refit
    assert load_artifact(out / "student").config.provenance.refit_teacher
    for name in ("README.md", "report.html"):
        assert "flatter" in (taught.student.out / name).read_text()
    val, test = ("".join(evaluate(out / "student", texts, split=name).notes) for name in ("val", "test"))
    assert "the model's teacher had learned" in val
    assert "teacher" not in test
