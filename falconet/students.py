"""A small network that learns from a large one: the candidate that a run kept is the teacher of a student.

Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. 2015. Of texts, the teacher also answers made ones,
each the beginning of a text and the end of another, as Tang et al. (Distilling task-specific knowledge from BERT into
simple neural networks. 2019, section 3.2) make them by editing words: so that the student sees more of what the teacher
knows than the few texts with labels say. No made text needs a label of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from falconet.artifact import load_artifact
from falconet.data import Dataset
from falconet.data.dataset import Texts
from falconet.data.preprocessing import TextPreprocess
from falconet.defaults import CANDIDATES, SMALL_SIDE, TINY_SIDE, default_settings, describe_data
from falconet.errors import UsageError
from falconet.evaluation.answers import predict_logits
from falconet.planning import Plan, check_model, configure
from falconet.runs import Added, RunResult, execute, find_weights, prepare
from falconet.schema import merge, to_mapping
from falconet.training import Callback
from falconet.training.loop import tell

STUDENT_FOLDER = "student"
"""Within the folder of the teacher's run: that of its student."""
DISTILLATION: Mapping[str, Any] = MappingProxyType({"teacher_share": 0.9, "temperature": 2.0})
SMALL_BAG: Mapping[str, Any] = MappingProxyType(
    {"vocab_size": 2000, "options": MappingProxyType({"buckets": 8192, "dropout": 0.3})}
)
"""Of the student `ngrams`; both chosen on a validation split of banking77."""
LONGER = 1.5
"""Times as many epochs as the student has by default, where it sees made texts too."""


@dataclass(frozen=True, eq=False)
class Distillation:
    """A run and its student's."""

    teacher: RunResult
    student: RunResult


def choose_student(dataset: Dataset) -> str:
    """Return the name of a small network for such data."""
    data = describe_data(dataset)
    if data.kind == "text":
        return "ngrams"
    if data.kind == "series":
        return "gru"
    if data.gray and data.side <= TINY_SIDE:
        return "lenet_relu"
    return "resnet20" if data.side <= SMALL_SIDE else "squeezenet1_1"


def train_with_student(
    plan: Plan, model: str | None = None, *, callbacks: Sequence[Callback] = (), refit: bool = False
) -> Distillation:
    """Carry out a plan; then train a student, `model` or one that suits the data, to answer as what was kept.

    The student's run is in the folder `student` within the plan's. It has the settings that its network has by default,
    the plan's seed and its way to read data; `refit` is for the teacher. Raises what `execute` does, UsageError for a
    network that does not take such data and for several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--student: wanted one process, found several; leave out torchrun")
    name = model or choose_student(plan.dataset)
    check_model(name, plan.dataset)
    first = execute(plan, callbacks=callbacks, refit=refit)
    taught = plan_student(plan, name)
    added = make_texts(taught) if plan.dataset.kind == "text" else None
    extra = f", of {len(added.labels):,} made texts too" if added else ""
    tell(callbacks, f"student: {name} learns the answers of {first.model}{extra}")
    return Distillation(first, execute(taught, callbacks=callbacks, added=added))


def plan_student(plan: Plan, name: str) -> Plan:
    """Return the plan of a student's run."""
    dataset, training = plan.dataset, plan.config.training
    known = [
        candidate for candidate in CANDIDATES if candidate.model == name and candidate.suits(describe_data(dataset))
    ]
    settings = default_settings(dataset, known[-1] if known else None)
    settings["training"].pop("linear_probe", None)  # Solved for labels, it would not learn from a teacher.
    if dataset.kind == "text":
        settings["training"]["epochs"] = round(LONGER * settings["training"]["epochs"])
    asked = {
        "model": {"name": name, "teacher": str(plan.out), **(SMALL_BAG if name == "ngrams" else {})},
        "data": to_mapping(plan.config.data),
        "training": {**DISTILLATION, "seed": training.seed, "device": training.device},
    }
    config = configure(dataset, merge(settings, asked))
    return replace(
        plan,
        config=config,
        out=plan.out / STUDENT_FOLDER,
        chosen=(),
        measured=frozenset(),
        solved=(),
        seconds=None,
    )


def make_texts(plan: Plan) -> Added:
    """Return as many made texts as training has, as a student sees them, with its teacher's answers.

    The likeliest class stands as label, since there is no other.
    """
    assert plan.config.model.teacher is not None
    samples = plan.dataset.splits["train"].samples
    texts = [samples.read(index) for index in range(len(samples))]
    made = join_texts(texts, np.random.default_rng(plan.config.training.seed))
    logits, _ = predict_logits(load_artifact(Path(plan.config.model.teacher)), Texts(made, np.arange(len(made))))
    weighted, weights = find_weights(plan)
    preprocess = prepare(weighted, weights).train.preprocess
    assert isinstance(preprocess, TextPreprocess)
    answers = torch.from_numpy(logits)
    return Added(preprocess.prepare(made).int(), answers.argmax(dim=1), answers)


def join_texts(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return for each text its beginning, 3 to 8 tenths of its words, and the end of another, as much of it.

    Where no blanks part words, they are parted at characters.
    """
    made = []
    for text in texts:
        other = texts[int(rng.integers(len(texts)))]
        blank = " " if " " in text.strip() else ""
        words, more = ((part.split() if blank else list(part)) for part in (text, other))
        first, last = rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.7)
        made.append(blank.join(words[: max(int(first * len(words)), 1)] + more[int(last * len(more)) :]))
    return made
