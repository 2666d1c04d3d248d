"""Explanations for a report: a few mistakes and hits, without files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from falconet import metrics
from falconet.artifact import Artifact
from falconet.data.files import adapt_samples
from falconet.errors import DataError
from falconet.evaluation.logits import SplitLogits
from falconet.explanation.explaining import (
    BASELINE,
    ExplainedSample,
    Explainer,
    Item,
    average,
    beats_chance,
    plan,
    predict_sample,
    read_subject,
    show_relevance,
)
from falconet.explanation.faithfulness import Score
from falconet.explanation.methods import attribute
from falconet.explanation.pictures import Shown, to_shades
from falconet.models.registry import EXTERNAL

CASES = 3
"""Number of mistakes that are explained, and of hits; more hits where there are fewer mistakes.

With fewer than five samples in all, no method can be significantly better than a random order.
"""
_POINTS = 10
"""Steps of the deletion and insertion curves: a fifth of those of `explain`, since every training run computes them."""


@dataclass(frozen=True, eq=False)
class ClassAttribution:
    """The relevance of a sample's parts for one class."""

    label: str
    probability: float
    shown: Shown = field(repr=False)
    shades: Float[np.ndarray, "*positions"] = field(repr=False)
    """Relevance from -1, fully against the class, to 1, fully for it; that of a text, by its parts."""


@dataclass(frozen=True, eq=False)
class ExplainedPrediction:
    """A sample with attributions for the predicted class, and for the true or the second most probable one."""

    name: str
    label: str
    answer: ClassAttribution
    other: ClassAttribution
    """Attribution for the true class where the prediction is wrong, else for the second most probable one."""


@dataclass(frozen=True, eq=False)
class Reasons:
    """Samples explained by one method, with its faithfulness."""

    method: str
    accounts: tuple[ExplainedPrediction, ...] = field(default=(), repr=False)
    """Explained mistakes, the most confident first, then hits, the least confident first."""
    scores: tuple[Score, ...] = field(default=(), repr=False)
    """Scores of the method and of a random order on these samples; empty where nothing was explained."""
    note: str = ""
    """Why nothing was explained; else empty."""
    believable: bool = False
    """Whether the method is significantly better than a random order."""


def find_reasons(artifact: Artifact, answers: SplitLogits, count: int = CASES) -> Reasons:
    """Explain the most confident mistakes and the least confident hits among a split's predictions, `count` of each.

    Hits stand in for missing mistakes. The method is the default of `explain`. Samples whose files have gone since are
    skipped. A network of another library that cannot be explained gives no accounts, and a note.
    """
    probabilities, samples = (
        metrics.softmax(answers.logits),
        adapt_samples(answers.split.samples, artifact.config.input),
    )
    mistakes, doubts = choose_cases(probabilities, answers.split.labels, 2 * count)
    mistakes = mistakes[:count]
    doubts = doubts[: 2 * count - len(mistakes)]
    explainer = dataclasses.replace(plan(artifact, None, Path(), classes=1), points=_POINTS)
    (method,) = explainer.methods
    found: list[tuple[ExplainedPrediction, list[Item]]] = []
    for index in mistakes + doubts:
        try:
            found.append(
                _account_for(explainer, read_subject(artifact, samples, index), int(answers.split.labels[index]))
            )
        except DataError:
            continue
        except RuntimeError as error:
            if artifact.config.architecture.partition(":")[0] not in EXTERNAL:
                raise
            # Torch's, of networks whose steps write over what gradients need.
            return Reasons(method, note=" ".join(str(error).split()))
    if not found:
        return Reasons(method, note="no sample of the test split can be read any more")
    items = [item for _, pair in found for item in pair]
    groups = {name: [item for item in items if item.method == name] for name in (method, BASELINE)}
    scores = tuple(average(name, group) for name, group in groups.items())
    believable = beats_chance(groups[method], groups[BASELINE])
    return Reasons(method, tuple(account for account, _ in found), scores, believable=believable)


def choose_cases(
    probabilities: Float[np.ndarray, "samples classes"], truths: Sequence[int] | np.ndarray, count: int
) -> tuple[list[int], list[int]]:
    """Return positions of the most confident mistakes, and of the least confident hits."""
    order = np.argsort(probabilities.max(axis=1), kind="stable")
    wrong = probabilities.argmax(axis=1)[order] != np.asarray(truths)[order]
    return order[wrong][::-1][:count].tolist(), order[~wrong][:count].tolist()


def _account_for(explainer: Explainer, subject: ExplainedSample, label: int) -> tuple[ExplainedPrediction, list[Item]]:
    """Return the explained sample, and the figures of its explanation and of a random order."""
    labels, (method,) = explainer.artifact.config.output.labels, explainer.methods
    probabilities = predict_sample(explainer.artifact, subject.inputs)
    answer, second = probabilities.topk(2).indices.tolist()
    item, panel = explainer.evaluate(subject, method, answer, probabilities)
    baseline, _ = explainer.evaluate(subject, BASELINE, answer, probabilities)
    reason = ClassAttribution(labels[answer], item.probability, panel.shown, to_shades(panel.relevance))
    other = _explain_class(explainer, subject, second if label == answer else label, probabilities)
    return ExplainedPrediction(subject.name, labels[label], reason, other), [item, baseline]


def _explain_class(
    explainer: Explainer, subject: ExplainedSample, target: int, probabilities: Float[Tensor, " classes"]
) -> ClassAttribution:
    """Return the attribution for a class, without its faithfulness."""
    artifact, (method,) = explainer.artifact, explainer.methods
    relevance = attribute(artifact, subject.inputs, method, torch.tensor([target]))
    shown, drawn = show_relevance(artifact, subject, relevance[0].numpy())
    return ClassAttribution(
        artifact.config.output.labels[target], float(probabilities[target]), shown, to_shades(drawn)
    )
