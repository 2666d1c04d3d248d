"""ModelReport: all that a report says about one model, gathered before anything is drawn."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from falconet import metrics
from falconet.artifact import Artifact, ArtifactConfig, current_versions, redact_config
from falconet.complexity import Complexity, count_complexity
from falconet.data.families import CAUTION
from falconet.errors import DataError
from falconet.evaluation import Calibration, Evaluation, SplitLogits
from falconet.evaluation.baselines import LINEAR, Baseline, describe_verdict
from falconet.evaluation.paired import PairedComparison
from falconet.explanation.reasons import Reasons
from falconet.exporters.targets import Runtime
from falconet.exporters.timing import find_fastest, time_torch
from falconet.latency import Latency, SpeedRatio, compare_latencies
from falconet.model_files import redact_settings
from falconet.training import EpochRow
from falconet.training.diagnoses import Diagnosis, LayerStats
from falconet.training.energy import Energy, describe_energy
from falconet.units import format_size

if TYPE_CHECKING:
    from falconet.exporters.exporting import Export

_MISTAKES = 24


@dataclass(frozen=True, eq=False)
class Mistake:
    """A sample that the model predicts as another class."""

    name: str
    """Path of the sample, or its position in an array."""
    sample: Any = field(repr=False)
    """An image, a series or a text, as `falconet.data.Samples` reads it."""
    label: str
    predicted: str
    probability: float
    """Probability of the class that was predicted, wrongly."""


@dataclass(frozen=True)
class LeaderboardRow:
    """Results of one of several networks that were compared on the same data."""

    model: str
    cross_validated: float | None
    """Accuracy on left-out training samples; None for a network whose output layer was not solved."""
    val_accuracy: float
    seconds: float
    """Seconds from the network's first sample to its last weight."""
    left_out: int = 0
    """Number of training samples that `cross_validated` is computed on."""
    validated: int = 0
    """Number of validation samples."""
    kept: bool = False
    """Whether the run kept this network."""

    @property
    def accuracy(self) -> float:
        """Accuracy on all samples that the network did not learn from: validation and left-out training samples."""
        if self.cross_validated is None or not self.left_out + self.validated:
            return self.val_accuracy
        right = self.cross_validated * self.left_out + self.val_accuracy * self.validated
        return right / (self.left_out + self.validated)


@dataclass(frozen=True)
class TrainingLog:
    """Records of a network's training."""

    layer_stats: Sequence[LayerStats] = ()
    diagnoses: Sequence[Diagnosis] = ()
    energy: Energy | None = None
    """Energy of the training; None where nothing recorded it."""
    baselines: Sequence[Baseline] = ()
    """Results of a constant prediction and of a linear model on the test split."""
    leaderboard: Sequence[LeaderboardRow] = ()
    """Networks that were compared; empty where one was asked for."""

    def __repr__(self) -> str:
        lists = (self.layer_stats, self.diagnoses, self.baselines, self.leaderboard)
        names = ("layer stats", "diagnoses", "baselines", "leaderboard rows")
        return f"TrainingLog({', '.join(f'{name} {len(rows):,}' for name, rows in zip(names, lists, strict=True))})"


@dataclass(frozen=True, eq=False)
class CompressionSummary:
    """A compressed network beside the original one."""

    bytes_before: int
    """Bytes of the dense network's parameters in single precision."""
    bytes_after: int
    """Bytes of the whole coded file."""
    macs_before: int
    macs_after: int
    comparison: PairedComparison
    """The compressed network compared with the original one on the test split."""
    before: Mapping[Runtime, Latency]
    """Latencies of the dense network by runtime, torch and all others installed: one sample, without preprocessing, on
    one thread of this machine."""
    after: Mapping[Runtime, Latency]
    integers: Export | None
    """Export of the compressed network in 8-bit integers; None where that is not possible."""
    kept: float
    """Fraction of the compressed network's own weights that are not zero."""
    bits: int
    """Bits of each nonzero weight, or more in layers that need it."""
    trials: int
    untouched: Mapping[str, str]
    """Parameter or layer -> why a step left it as it is."""
    epochs: int = 0
    """Epochs of training during compression, those of the trials that it continues from included."""

    def __repr__(self) -> str:
        before, after = format_size(self.bytes_before), format_size(self.bytes_after)
        return f"CompressionSummary({before} before, {after} after, test accuracy drop {self.drop:.2f} points)"

    @property
    def ratio(self) -> float:
        """Bytes of the dense network as a multiple of the compressed one's."""
        return self.bytes_before / self.bytes_after

    @property
    def drop(self) -> float:
        """Points of test accuracy lost."""
        return -100 * self.comparison.difference

    @property
    def drop_ci(self) -> tuple[float, float] | None:
        """95% interval of the drop, by bootstrap over pairs; None where `comparison` has none."""
        interval = self.comparison.difference_ci
        return None if interval is None else (-100 * interval[1], -100 * interval[0])

    @property
    def runtimes(self) -> tuple[Runtime, Runtime]:
        """The fastest runtime of the dense network, and of the compressed one."""
        return find_fastest(self.before), find_fastest(self.after)

    @property
    def latency_before(self) -> float:
        """Median milliseconds of the dense network in its fastest runtime."""
        return self.before[self.runtimes[0]].p50

    @property
    def latency_after(self) -> float:
        """Median milliseconds of the compressed network in its fastest runtime."""
        return self.after[self.runtimes[1]].p50

    def describe_drop(self) -> str:
        """Return what was lost, or gained, with the interval, in words."""
        return describe_change(self.drop, self.drop_ci)

    @property
    def speed(self) -> SpeedRatio | None:
        """Speed of the compressed network as a multiple of the dense one's, each in its fastest runtime.

        None for one that lost no channel, which is the same to a runtime (zeros and coarse values take as long as any),
        and where the two were not timed in turns.
        """
        if self.macs_before == self.macs_after:
            return None
        first, second = self.runtimes
        return compare_latencies(self.before[first], self.after[second])

    def describe_latency(self) -> str:
        """Return in words which of the two is faster, and by how much; neither where the interval does not show it."""
        if self.macs_before == self.macs_after:
            return "the same structure as the dense network, so as fast to a runtime"
        return self.speed.describe("the dense network") if self.speed else "not timed in turns: no ratio"

    def describe_int8(self) -> str:
        """Return whether 8-bit integers are faster than single precision, in words."""
        if self.integers is None or self.integers.baseline_latency_ms is None:
            return "not exported to 8-bit integers here"
        speed = self.integers.baseline_speed
        drop = round(100 * (self.integers.parity.accuracy_drop or 0), 2)
        lost = f"{abs(drop):.2f} points more {'gained' if drop < 0 else 'lost'}"
        verdict = speed.describe("single precision") if speed else "not timed in turns"
        return f"8-bit integers in onnxruntime: {verdict}; {lost}"


def describe_change(points: float, interval: tuple[float, float] | None) -> str:
    """Return points that were lost, or below zero gained, with their 95% interval, each end in its own words."""
    ends = [points, *(interval or ())]
    # Rounded first, as a -0.001 would be nothing gained.
    words = [(abs(round(end, 2)), "gained" if round(end, 2) < 0 else "lost") for end in ends]
    (size, word), *bounds = words
    text = f"{size:.2f} points {word}"
    if not bounds:
        return text
    (low, first), (high, last) = bounds
    if first == last == "lost":
        return f"{text} (95%: {low:.2f} to {high:.2f} lost)"
    if first == last:
        return f"{text} (95%: {high:.2f} to {low:.2f} gained)"
    return f"{text} (95%: {low:.2f} gained to {high:.2f} lost)"


@dataclass(frozen=True, eq=False)
class ModelReport:
    """The facts of one trained model."""

    config: ArtifactConfig
    digest: str
    """SHA-256 of the weights' file."""
    history: Sequence[EpochRow]
    val: Evaluation
    test: Evaluation
    calibration: Calibration
    """Effect of the model's temperature on its calibration error."""
    mistakes: Sequence[Mistake]
    """Most confident errors on the test split, most confident first."""
    precision_recall: Mapping[str, metrics.Curve]
    """Precision–recall curve by class, as is the ROC curve, where the test split has samples of it and of others."""
    roc: Mapping[str, metrics.Curve]
    complexity: Complexity
    bytes: int
    """Size of the weights' file."""
    latencies: Mapping[Runtime, Latency]
    """Latencies by runtime, torch and others that were timed: one sample, without preprocessing, on one thread of this
    machine."""
    timed: bool
    """Whether all runtimes that are installed were timed, not torch alone."""
    reasons: Reasons | None
    """Explanations of some errors and correct predictions on the test split; None: not asked for."""
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    log: TrainingLog
    shrinking: CompressionSummary | None = None
    """Summary of the compression; None for a model that is not compressed."""

    def __repr__(self) -> str:
        figures = f"test accuracy {self.test.accuracy:.1%}, {self.params:,} parameters, {format_size(self.bytes)}"
        return f"ModelReport({self.name}, {figures})"

    @property
    def name(self) -> str:
        """Name of the architecture."""
        return self.config.architecture

    @property
    def linear_probe(self) -> str:
        """Solver of a linear probe, where nothing else was trained; empty where steps were taken."""
        solver = self.settings.get("training", {}).get("linear_probe")
        alone = self.config.provenance.epochs == 1 and self.shrinking is None
        return f"{solver} regression" if solver and alone else ""

    @property
    def energy(self) -> str:
        """Energy of the training, in words; empty where nothing recorded it."""
        energy = self.log.energy
        return describe_energy(energy, sum(row.seconds for row in self.history)) if energy else ""

    @property
    def verdict(self) -> str:
        """Statement that a baseline is as good; empty where none is, except for the linear model that it is itself."""
        itself = LINEAR.values() if self.config.architecture == "linear" else ()
        return describe_verdict([baseline for baseline in self.log.baselines if baseline.name not in itself])

    @property
    def cautions(self) -> tuple[str, ...]:
        """Reasons why the test accuracy is optimistic, in sentences without a full stop, from notes on the data."""
        return tuple(note.removeprefix(CAUTION) for note in self.test.notes if note.startswith(CAUTION))

    @property
    def latency(self) -> Latency:
        """Latency in torch."""
        return self.latencies["torch"]

    @property
    def fastest(self) -> Runtime:
        """Runtime with the least median latency."""
        return find_fastest(self.latencies)

    @property
    def params(self) -> int:
        """Number of trainable parameters."""
        return self.complexity.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return self.complexity.macs


def build_report(  # noqa: PLR0913 - one for each thing that a report says
    artifact: Artifact,
    history: Sequence[EpochRow],
    val: Evaluation,
    test: Evaluation,
    *,
    answers: SplitLogits,
    calibration: Calibration,
    log: TrainingLog,
    settings: Mapping[str, Any],
    latencies: Mapping[Runtime, Latency] | None = None,
    reasons: Reasons | None = None,
    shrinking: CompressionSummary | None = None,
) -> ModelReport:
    """Gather a report; `answers` are what `test` was computed from.

    `latencies`, of all runtimes, and `reasons` are optional, since they take a while; without the former, torch alone
    is timed, in half a second.
    """
    spec, names, model = artifact.config.input, artifact.config.output.labels, artifact.model
    return ModelReport(
        config=redact_config(artifact.config),
        digest=artifact.digest,
        history=tuple(history),
        val=val,
        test=test,
        calibration=calibration,
        mistakes=find_mistakes(answers, names),
        precision_recall=draw_up(metrics.precision_recall_curve, answers.logits, answers.split.labels, names),
        roc=draw_up(metrics.roc_curve, answers.logits, answers.split.labels, names),
        complexity=count_complexity(model, spec.shape, artifact.config.architecture, spec.kind),
        bytes=len(artifact.serialize()),
        latencies=latencies or {"torch": time_torch(artifact)},
        timed=latencies is not None,
        reasons=reasons,
        settings=redact_settings(settings),
        environment=get_environment(),
        log=log,
        shrinking=shrinking,
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


def find_mistakes(answers: SplitLogits, labels: Sequence[str]) -> tuple[Mistake, ...]:
    """Return the most confident wrong predictions."""
    split, probabilities = answers.split, metrics.softmax(answers.logits)
    chosen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(chosen != split.labels)
    order = wrong[np.argsort(-probabilities[wrong, chosen[wrong]], kind="stable")]
    mistakes: list[Mistake] = []
    for index in order[:_MISTAKES].tolist():
        try:
            sample = split.samples.read(index)
        except DataError:
            continue  # The file has gone since it was evaluated; the page does without its picture.
        label, predicted = labels[split.labels[index]], labels[chosen[index]]
        confidence = float(probabilities[index, chosen[index]])
        mistakes.append(Mistake(split.samples.name(index), sample, label, predicted, confidence))
    return tuple(mistakes)


def get_environment() -> dict[str, str]:
    """Return hardware and versions, as results are published with."""
    return {
        "processor": _processor_name(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        **current_versions(),
    }


def _processor_name() -> str:
    """Return the processor's name as Linux gives it, elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
