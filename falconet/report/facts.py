"""ModelReport: all that a report says about one model, gathered before anything is drawn."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falconet import metrics
from falconet.artifact import Artifact, ArtifactConfig, current_versions
from falconet.complexity import Complexity, count_complexity
from falconet.errors import DataError
from falconet.evaluation import Answers, Calibration, Evaluation
from falconet.explanation.reasons import Reasons, find_reasons
from falconet.exporters.targets import Runtime
from falconet.exporters.timing import find_fastest, time_runtimes
from falconet.latency import Latency
from falconet.training import EpochRow
from falconet.training.diagnoses import Diagnosis, Vitals
from falconet.training.energy import Energy, describe_energy

MISTAKES = 24


@dataclass(frozen=True, eq=False)
class Mistake:
    """A sample that the model took for another class."""

    name: str
    """Where the sample is: a path, or a position in an array."""
    sample: Any
    """An image, a series or a text, as `falconet.data.Samples` reads it."""
    truth: str
    answer: str
    probability: float
    """Of the wrong answer."""


@dataclass(frozen=True)
class Course:
    """What was seen while a network was trained."""

    vitals: Sequence[Vitals] = ()
    diagnoses: Sequence[Diagnosis] = ()
    energy: Energy | None = None
    """What training took; None where nothing recorded it."""


@dataclass(frozen=True, eq=False)
class ModelReport:
    """The facts of one trained model."""

    config: ArtifactConfig
    history: Sequence[EpochRow]
    val: Evaluation
    test: Evaluation
    calibration: Calibration
    """What the model's temperature changed."""
    mistakes: Sequence[Mistake]
    """The most confident ones on the test split, most confident first."""
    precision_recall: Mapping[str, metrics.Curve]
    """Of each class that the test split has samples of and without, by name; so are the next."""
    roc: Mapping[str, metrics.Curve]
    complexity: Complexity
    bytes: int
    """Size of the weights' file."""
    latencies: Mapping[Runtime, Latency]
    """Of one sample on one thread of this machine, without preprocessing, in torch and all runtimes installed."""
    reasons: Reasons
    """Of some mistakes and hits on the test split."""
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    course: Course

    @property
    def name(self) -> str:
        """The architecture."""
        return self.config.architecture

    @property
    def energy(self) -> str:
        """What training took, in words; empty where nothing recorded it."""
        energy = self.course.energy
        return describe_energy(energy, sum(row.seconds for row in self.history)) if energy else ""

    @property
    def latency(self) -> Latency:
        """In torch."""
        return self.latencies["torch"]

    @property
    def fastest(self) -> Runtime:
        """The runtime with the least median latency."""
        return find_fastest(self.latencies)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return self.complexity.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return self.complexity.macs


def describe_model(
    artifact: Artifact,
    history: Sequence[EpochRow],
    val: Evaluation,
    test: Evaluation,
    *,
    answers: Answers,
    calibration: Calibration,
    course: Course,
    settings: Mapping[str, Any],
) -> ModelReport:
    """Gather a report; `answers` are what `test` was computed from."""
    spec, model = artifact.config.input, artifact.model
    return ModelReport(
        config=artifact.config,
        history=tuple(history),
        val=val,
        test=test,
        calibration=calibration,
        mistakes=find_mistakes(answers, spec.labels),
        precision_recall=draw_up(metrics.precision_recall_curve, answers.logits, answers.split.labels, spec.labels),
        roc=draw_up(metrics.roc_curve, answers.logits, answers.split.labels, spec.labels),
        complexity=count_complexity(model, spec.shape, artifact.config.architecture, spec.kind),
        bytes=len(artifact.serialize()),
        latencies=time_runtimes(artifact),
        reasons=find_reasons(artifact, answers),
        settings=settings,
        environment=describe_environment(),
        course=course,
    )


def draw_up(
    curve: Callable[[Any, Any], metrics.Curve | None],
    logits: metrics.Logits,
    labels: metrics.Labels,
    names: Sequence[str],
) -> dict[str, metrics.Curve]:
    """Return a curve for each class against the rest, thinned to what a picture shows."""
    probabilities = metrics.softmax(logits)
    found = {name: curve(probabilities[:, index], labels == index) for index, name in enumerate(names)}
    return {name: metrics.thin_curve(one) for name, one in found.items() if one is not None}


def find_mistakes(answers: Answers, labels: Sequence[str]) -> tuple[Mistake, ...]:
    """Return the most confident wrong answers."""
    split, probabilities = answers.split, metrics.softmax(answers.logits)
    chosen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(chosen != split.labels)
    order = wrong[np.argsort(-probabilities[wrong, chosen[wrong]], kind="stable")]
    mistakes: list[Mistake] = []
    for index in order[:MISTAKES].tolist():
        try:
            sample = split.samples.read(index)
        except DataError:
            continue  # The file has gone since it was judged; the page does without its picture.
        truth, answer = labels[split.labels[index]], labels[chosen[index]]
        confidence = float(probabilities[index, chosen[index]])
        mistakes.append(Mistake(split.samples.name(index), sample, truth, answer, confidence))
    return tuple(mistakes)


def describe_environment() -> dict[str, str]:
    """Return hardware and versions, as results are published with."""
    return {
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        **current_versions(),
    }


def processor_name() -> str:
    """Return the processor's name as Linux gives it, elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
