"""find_reasons(): which samples are explained, for which classes, and what becomes of networks that cannot be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falconet import RunResult, load_artifact, load_dataset
from falconet.artifact import Artifact
from falconet.data import Samples
from falconet.errors import DataError
from falconet.evaluation import SplitLogits
from falconet.evaluation.evaluation import evaluate_split
from falconet.explanation import reasons
from falconet.explanation.explaining import ExplainedSample, Item, beats_chance, read_subject
from falconet.explanation.faithfulness import Score
from falconet.explanation.reasons import Reasons, choose_cases, find_reasons


@pytest.fixture(scope="module")
def answered(trained: RunResult) -> tuple[Artifact, SplitLogits]:
    artifact, dataset = load_artifact(trained.out), load_dataset("digits")
    return artifact, evaluate_split(artifact, dataset.splits["test"], "test", dataset)[1]


def test_the_surest_mistakes_and_the_least_sure_hits_are_chosen() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45], [0.3, 0.7]])
    assert choose_cases(probabilities, [1, 1, 1, 0, 0], 2) == ([0, 4], [3, 2])
    assert choose_cases(probabilities, [0, 0, 1, 0, 1], 9) == ([], [3, 1, 4, 2, 0])


def test_answers_are_explained_with_the_class_that_they_should_have_been(
    answered: tuple[Artifact, SplitLogits],
) -> None:
    artifact, answers = answered
    found = find_reasons(artifact, answers, count=2)
    probabilities = torch.tensor(answers.logits).softmax(dim=1)
    assert [account.label == account.answer.label for account in found.accounts] == [False, False, True, True]
    for account in found.accounts:
        index = [answers.split.samples.name(i) for i in range(len(answers.split))].index(account.name)
        assert account.answer.probability == pytest.approx(float(probabilities[index].max()), abs=1e-4)
        assert account.answer.probability >= account.other.probability
        assert account.other.label != account.answer.label
        assert account.label in (account.answer.label, account.other.label)
        assert account.answer.shades.shape == artifact.config.input.shape[1:]
        assert np.abs(account.answer.shades).max() == 1
    assert [(score.method, score.n) for score in found.scores] == [("gradcam", 4), ("random", 4)]


def test_samples_that_have_gone_are_passed_over(
    answered: tuple[Artifact, SplitLogits], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, answers = answered
    read = read_subject
    gone: list[int] = []

    def lose_first(artifact: Artifact, samples: Samples, index: int) -> ExplainedSample:
        if not gone or index in gone:
            gone.append(index)
            raise DataError("no such file")
        return read(artifact, samples, index)

    monkeypatch.setattr(reasons, "read_subject", lose_first)
    assert len(find_reasons(artifact, answers, count=1).accounts) == 1

    def lose_all(artifact: Artifact, samples: Samples, index: int) -> ExplainedSample:
        raise DataError("no such file")

    monkeypatch.setattr(reasons, "read_subject", lose_all)
    found = find_reasons(artifact, answers)
    assert not found.accounts
    assert found.note == "no sample of the test split can be read any more"


def test_a_network_that_cannot_be_looked_into_has_a_note(answered: tuple[Artifact, SplitLogits]) -> None:
    artifact, answers = dataclasses.replace(answered[0]), answered[1]

    def overwrite(module: nn.Module, inputs: object, logits: Tensor) -> Tensor:
        powers = logits.exp()
        result = powers * 1
        powers.mul_(2)  # The gradient of exp() needs what it returned.
        return result

    artifact.model.register_forward_hook(overwrite)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        find_reasons(artifact, answers)
    # Those of other libraries may do as they like.
    config = dataclasses.replace(artifact.config, architecture="timm:lenet")
    external = dataclasses.replace(artifact, config=config)
    vars(external)["model"] = artifact.model
    found = find_reasons(external, answers)
    assert not found.accounts
    assert "modified by an inplace operation" in found.note


@pytest.mark.parametrize(
    ("gains", "chances", "believable"),
    [
        ([0.3] * 6, [0.1] * 6, True),
        ([0.1] * 6, [0.3] * 6, False),
        ([-0.1] * 6, [-0.2] * 6, False),
        ([0.0] * 6, [-0.1] * 6, False),
        # The mean is far above, and two of six are below: so it is in 7 of 64 ways of turning signs, at the least.
        ([0.9, 0.9, 0.1, 0.1, -0.2, -0.2], [0.0] * 6, False),
        # Four samples show nothing, however far above they are.
        ([0.9] * 4, [0.0] * 4, False),
    ],
)
def test_what_is_no_better_than_chance_is_not_believed(
    gains: list[float], chances: list[float], believable: bool
) -> None:
    assert beats_chance(make_items("cam", gains), make_items("random", chances)) is believable
    assert not Reasons("cam", note="none").believable


def test_of_several_methods_none_is_believed_by_mistake() -> None:
    # One of 64 ways of turning signs is as high.
    better, nothing = make_items("cam", [0.3] * 6), make_items("random", [0.0] * 6)
    assert beats_chance(better, nothing, methods=3)
    assert not beats_chance(better, nothing, methods=4)


def make_items(method: str, gains: list[float]) -> list[Item]:
    return [Item("f", "l", 0.5, method, "p", 0.2, 0.2 + gain, 0.0) for gain in gains]


def test_hits_stand_in_for_mistakes_that_are_not_made(answered: tuple[Artifact, SplitLogits]) -> None:
    artifact, answers = answered
    logits = answers.logits.copy()
    logits[np.arange(len(logits)), answers.split.labels] = logits.max() + 1
    found = find_reasons(artifact, dataclasses.replace(answers, logits=logits), count=3)
    assert len(found.accounts) == 6
    assert [score.n for score in found.scores] == [6, 6]


def test_backward_explanations_are_never_the_most_trusted() -> None:
    backward, floor = Score("occlusion", 4, 0.5, 0.2, 0.99), Score("random", 4, 0.4, 0.2, 1.0)
    assert backward.trust == pytest.approx(-0.3)
    assert not backward.beats(floor)
    assert Score("gradcam", 4, 0.2, 0.5, 0.5).trust == pytest.approx(0.15)
