"""A student that learns from what a run kept."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from falconet import cli
from falconet.artifact import load_artifact
from falconet.data import load_dataset
from falconet.errors import ConfigError, UsageError
from falconet.evaluation.answers import predict_logits
from falconet.planning import plan_run
from falconet.runs import find_teacher, prepare, train
from falconet.students import choose_student, join_texts, make_texts, plan_student, train_with_student

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


def test_a_teacher_with_another_tokenizer_is_asked_beforehand(texts: Path, teacher: Path, tmp_path: Path) -> None:
    settings = {"model": {"teacher": str(teacher)}, "augmentation": "none"}
    plan = plan_run(texts, model="ngrams", epochs=1, settings=settings, out=tmp_path / "run")
    found, feed = find_teacher(plan, prepare(plan))
    assert found is None
    assert feed.train.answers is not None
    wanted, _ = predict_logits(load_artifact(teacher), plan.dataset.splits["train"].samples)
    np.testing.assert_array_equal(feed.train.answers.numpy(), wanted)
    for inputs, labels, answers in feed.train.epoch(1):
        rows = (feed.train.inputs[:, None] == inputs.int()).all(dim=2).int().argmax(dim=0)  # type: ignore[index]
        assert torch.equal(labels, feed.train.labels[rows])
        np.testing.assert_array_equal(answers.numpy(), wanted[rows])


def test_a_teacher_with_the_same_tokenizer_answers_each_batch(texts: Path, teacher: Path, tmp_path: Path) -> None:
    settings = {"model": {"teacher": str(teacher)}}
    plan = plan_run(texts, model="linear", epochs=1, settings=settings, out=tmp_path / "run")
    found, feed = find_teacher(plan, prepare(plan))
    assert found is not None
    assert feed.train.answers is None


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
    plan = plan_run(texts, model="linear", out=teacher, existing="overwrite")
    student = plan_student(plan, "ngrams")
    assert student.config.model.teacher == str(teacher)
    assert student.config.training.linear_probe is None
    added = make_texts(student)
    assert added.answers is not None
    assert torch.equal(added.labels, added.answers.argmax(dim=1))
    assert len(added.inputs) == len(added.labels) == len(plan.dataset.splits["train"])


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
    assert load_artifact(out / "student").config.architecture == "ngrams"
    assert load_artifact(out).config.architecture == "linear"


def test_what_excludes_a_student(texts: Path, tmp_path: Path) -> None:
    plan = plan_run(texts, out=tmp_path / "run")
    with pytest.raises(UsageError, match="resnet20 takes image"):
        train_with_student(plan, "resnet20")
    assert choose_student(load_dataset(texts)) == "ngrams"
    assert choose_student(load_dataset("digits")) == "lenet_relu"
