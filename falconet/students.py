"""Distillation into a small network, the student, whose teacher is the candidate that a run kept.

Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. 2015. For texts, the teacher also labels synthetic
ones, each the beginning of a text and the end of another, as Tang et al. (Distilling task-specific knowledge from BERT
into simple neural networks. 2019, section 3.2) make them by editing words: so the student sees more of the teacher's
knowledge than the few texts with labels show.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from falconet.artifact import get_model_kwargs, load_artifact
from falconet.data import Dataset
from falconet.data.dataset import Texts
from falconet.data.preprocessing import TextPreprocess, create_preprocess
from falconet.defaults import CANDIDATES, SMALL_SIDE, TINY_SIDE, DataFacts, default_settings, find_data_facts
from falconet.errors import UsageError
from falconet.evaluation.logits import predict_logits
from falconet.inputs import draft_spec
from falconet.models.meta_model import create_meta_model
from falconet.planning import STUDENT_FOLDER, Plan, Settings, check_model, configure, holds_run
from falconet.preparation import ExtraSamples, find_weights, uncalibrate
from falconet.runs import RunResult, execute, read_teacher
from falconet.schema import merge, to_mapping
from falconet.spec import ModalityName
from falconet.tasks import TASKS
from falconet.training import Callback
from falconet.training.early_stopping import choose_early_stopping
from falconet.training.loop import notify

_DISTILLATION: Mapping[str, Any] = MappingProxyType({"distill_alpha": 0.9, "distill_temperature": 1.5})
"""Settings of distillation. With a temperature of 1, 1.5 and 2, students on banking77 reached a validation accuracy of
90.0, 90.1 and 89.9 %, the mean of three seeds, which differ by as much among themselves."""
_SMALL_BAG: Mapping[str, Any] = MappingProxyType(
    {"vocab_size": 2000, "options": MappingProxyType({"buckets": 8192, "dropout": 0.3})}
)
"""Settings of the student `ngrams`, chosen on a validation split of banking77."""
_LONGER = 1.5
"""Factor of the student's default number of epochs where it is trained on synthetic texts too."""


@dataclass(frozen=True, eq=False)
class Distillation:
    """A run and the run of its student."""

    teacher: RunResult
    student: RunResult


def list_students(dataset: Dataset) -> tuple[dict[str, Any], ...]:
    """Return small networks for such data, the largest first: settings of the section `model`."""
    return _STUDENTS[dataset.kind](find_data_facts(dataset))


def _list_image_students(data: DataFacts) -> tuple[dict[str, Any], ...]:
    """Return networks for images of a size and color."""
    if data.gray and data.side <= TINY_SIDE:
        return tuple({"name": "lenet_relu", "options": {"width": width}} for width in (32, 16, 8, 4))
    if data.side <= SMALL_SIDE:
        return tuple({"name": "resnet20", "options": {"width": width}} for width in (16, 8, 4))
    return ({"name": "squeezenet1_1"},)


def _list_series_students(data: DataFacts) -> tuple[dict[str, Any], ...]:
    """Return networks for any series."""
    sizes: tuple[dict[str, int], ...] = ({}, {"hidden": 64, "embedding": 32}, {"hidden": 32, "embedding": 16})
    return tuple({"name": "gru", "options": size} for size in sizes)


def _list_text_students(data: DataFacts) -> tuple[dict[str, Any], ...]:
    """Return networks for any texts."""
    bags: tuple[dict[str, int], ...] = ({}, {"buckets": 4096, "dimension": 32}, {"buckets": 2048, "dimension": 16})
    return tuple(merge({"name": "ngrams", **_SMALL_BAG}, {"options": bag}) for bag in bags)


_STUDENTS: Mapping[ModalityName, Callable[[DataFacts], tuple[dict[str, Any], ...]]] = MappingProxyType(
    {"image": _list_image_students, "series": _list_series_students, "text": _list_text_students}
)


def train_with_student(
    plan: Plan, model: str | None = None, *, callbacks: Sequence[Callback] = (), refit: bool = False
) -> Distillation:
    """Run a plan; then distill the kept network into a student, `model` or one that suits the data.

    The student's run is in the folder `student` within the plan's, and may take as long as the teacher's. It has
    the defaults of its network, and the plan's seed and data settings; `refit` is for the teacher. The default
    student is the largest one of `list_students` with fewer bytes of weights than its teacher; a named one with
    as many or more is noted to callbacks. A resumed student is trained anew where its teacher has changed since
    it began. Raises what `execute` does, UsageError for a network that does
    not take such data, for several processes, and, with the teacher in its place, where there is no smaller
    student.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("student: wanted one process, found several; leave out torchrun")
    if model is not None:
        check_model(model, plan.dataset)
    first = execute(plan, callbacks=callbacks, refit=refit)
    teacher = load_artifact(first.out)
    most = _count_bytes(teacher.weights)
    if model is None:
        taught = choose_student(plan, first.architecture, most)
    else:
        taught = plan_student(plan, {"name": model, **(_SMALL_BAG if model == "ngrams" else {})})
        if (size := measure_student(taught)) >= most:
            found = f"{size:,} bytes of weights, its teacher, {first.architecture}, {most:,}"
            notify(callbacks, f"caution: the student, {model}, is no smaller than what teaches it: it has {found}")
    if taught.if_exists == "resume" and holds_run(taught.out) and read_teacher(taught.out) != teacher.digest:
        notify(callbacks, f"student: the run in {taught.out} had another teacher; training it anew")
        taught = replace(taught, if_exists="overwrite")
    make = _MADE_SAMPLES.get(plan.dataset.kind)
    added = None if make is None else make(taught)
    extra = f", of {len(added.labels):,} synthetic texts too" if added else ""
    notify(callbacks, f"student: {taught.config.model.name} learns the answers of {first.architecture}{extra}")
    return Distillation(first, execute(taught, callbacks=callbacks, added=added))


def choose_student(plan: Plan, teacher: str, most: int) -> Plan:
    """Return the plan of the largest student with fewer bytes of weights than `most`, those of its teacher.

    Raises UsageError where there is none.
    """
    for network in list_students(plan.dataset):
        taught = plan_student(plan, network)
        size = measure_student(taught)
        if size < most:
            return taught
    raise UsageError(
        f"student: wanted one smaller than its teacher, {teacher}, which has {most:,} bytes of weights, "
        f"found none (the least, {taught.config.model.name}, has {size:,}); the teacher is in {plan.out}: use it as it "
        "is, shrink it with falconet compress, or name a student"
    )


def measure_student(plan: Plan) -> int:
    """Return the bytes of a student's weights, without allocating them."""
    plan, weights = find_weights(plan)
    spec, _ = draft_spec(plan.dataset, plan.config.model, weights)
    model = plan.config.model
    return _count_bytes(
        create_meta_model(
            model.name, **get_model_kwargs(spec, TASKS["classification"].make_output(plan.dataset)), **model.options
        ).state_dict()
    )


def _count_bytes(weights: Mapping[str, torch.Tensor]) -> int:
    """Return the bytes of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def plan_student(plan: Plan, network: Settings) -> Plan:
    """Return the plan of a student's run; `network` are settings of the section `model`."""
    dataset, training = plan.dataset, plan.config.training
    settings = _default_student(dataset, network["name"])
    if dataset.kind in _MADE_SAMPLES:
        settings["training"]["epochs"] = round(_LONGER * settings["training"]["epochs"])
    # To the end of the schedule: on banking77, a run that stops early lost up to 0.8 points of validation accuracy.
    restored = choose_early_stopping(len(dataset.splits["val"]), settings["training"])["restore"]
    settings["training"]["restore"] = restored
    asked = {
        "model": {**network, "teacher": str(plan.out)},
        "data": to_mapping(plan.config.data),
        "training": {**_DISTILLATION, "seed": training.seed, "device": training.device},
    }
    config = configure(dataset, merge(settings, asked))
    return replace(
        plan,
        config=config,
        out=plan.out / STUDENT_FOLDER,
        recipe=None,
        chosen=(),
        autotune=frozenset() if plan.seconds is None else frozenset({"epochs"}),
        probe_candidates=(),
    )


def _default_student(dataset: Dataset, name: str) -> dict[str, Any]:
    """Return the default settings of a network that learns from a teacher.

    A candidate whose output layer is solved, without a teacher, is trained like any other network: its own settings,
    such as a single epoch, are meant for the linear probe.
    """
    data = find_data_facts(dataset)
    known = [candidate for candidate in CANDIDATES[dataset.kind] if candidate.model == name and candidate.suits(data)]
    if not known:
        return default_settings(dataset)
    candidate = known[-1]
    if "linear_probe" in candidate.settings.get("training", {}):
        others = {section: values for section, values in candidate.settings.items() if section != "training"}
        candidate = replace(candidate, settings=others)
    return default_settings(dataset, candidate, bool(candidate.settings.get("model", {}).get("pretrained")))


def _make_texts(plan: Plan) -> ExtraSamples:
    """Return as many synthetic texts as training has, prepared for a student, with its teacher's logits.

    The label is the teacher's most probable class.
    """
    assert plan.config.model.teacher is not None
    samples = plan.dataset.splits["train"].samples
    texts = [samples.read(index) for index in range(len(samples))]
    made = join_texts(texts, np.random.default_rng(plan.config.training.seed))
    teacher = uncalibrate(load_artifact(plan.config.model.teacher))
    logits, _ = predict_logits(teacher, Texts(made, np.arange(len(made))))
    weighted, weights = find_weights(plan)
    preprocess = create_preprocess(*draft_spec(weighted.dataset, weighted.config.model, weights))
    assert isinstance(preprocess, TextPreprocess)
    answers = torch.from_numpy(logits)
    return ExtraSamples(preprocess.prepare(made).int(), answers.argmax(dim=1), answers)


_MADE_SAMPLES: Mapping[ModalityName, Callable[[Plan], ExtraSamples]] = MappingProxyType({"text": _make_texts})
"""Functions that return synthetic samples labeled by the teacher, by modality; other modalities have none."""


def join_texts(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return for each text its beginning, 30 to 80% of its words, joined with the end of another, 30 to 80% of that.

    Texts without blanks are split into characters instead of words.
    """
    made = []
    for text in texts:
        other = texts[int(rng.integers(len(texts)))]
        blank = " " if " " in text.strip() else ""
        words, more = ((part.split() if blank else list(part)) for part in (text, other))
        first, last = rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.7)
        made.append(blank.join(words[: max(int(first * len(words)), 1)] + more[int(last * len(more)) :]))
    return made
