"""Diagnoses of a training run, from its history and its layers' statistics. Importing it does not import torch.

Healthy runs differ widely, so that nearly each diagnosis asks for two independent signs: one in the layers and one in
what was learned, or one in training and one in validation. Where they do not agree, nothing is said.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from falconet.errors import DataError
from falconet.renames import accept_renamed
from falconet.storage import write_text
from falconet.training.callbacks import EpochRow

_CHANCE_MARGIN = 0.05
"""Accuracy above chance that still counts as chance: two standard deviations of 144 guesses among ten classes."""
_LEARNED = 0.9
"""Training accuracy from which on a network counts as having learned."""
_VANISHED = 1e-4
"""Fraction of a later layer's gradient below which a layer's has vanished. In networks that learn, it is a few
hundredths or more: initial weights are chosen for that (Glorot and Bengio, AISTATS 2010; He et al., ICCV 2015)."""
_STANDSTILL = 1e-5
"""Update of a layer, as a fraction of its weights, below which it stands still: 10,000 such steps add up to a tenth."""
TINY_UPDATE = 1e-4
"""Update of the median layer, as a fraction of its weights, below which it is tiny: a healthy one is about 1e-3."""
_SMALL_FALL = 0.1
"""Fraction of the first training loss by which it must fall over all epochs to count as falling."""
LARGE_UPDATE = 0.1
"""Update of the median layer, as a fraction of its weights, above which it is large: a hundred times the usual 1e-3."""
_EXPLODED = 1e3
"""Norm of the gradient over that of the weights above which it has exploded: mostly 1e-3 to 1, up to 40 in first
epochs of EfficientNets."""
_SPIKE_LOSS, _SPIKE_ACCURACY = 2.0, 0.2
"""A spike: more than this multiple of the lowest training loss before, and this much below the highest accuracy."""
DEAD = 0.5
"""Fraction of a layer's units above which they are too many dead ones. ReLU leaves a few dead in every network."""
_DEAD_SAMPLES = 32
"""Samples that show that a unit is dead: one that is active for a tenth of them is zero for so many in 3 % of cases."""
_DEAD_EPOCHS = 3
"""Last epochs in which units must be dead: many that die in the first epochs recover."""
_RISEN, _RISEN_EPOCHS = 1.2, 3
"""Validation loss over its lowest, and epochs since then, from which on it has risen: noise is smaller and shorter."""
_GAP = 0.1
"""Gap of training and validation accuracy in overfitting; loss alone rises in good, overconfident classifiers too."""
_SAME_ACCURACY = 0.02
"""Gain of validation accuracy that counts as none: with a few hundred samples, the noise is larger."""
_MEMORIZED = 0.3
"""Training accuracy above chance that is no luck: labels were learned, by memorizing or not."""
_TRANSFERRED = 0.25
"""Fraction of the gain over chance in training that validation has at least where labels can be learned."""
_WORSE, WORSE_EPOCHS, _WORSE_LOSS = 1.1, 10, 0.02
"""Validation loss over its lowest, epochs since then, and rise in nats (near 0, a tenth is nothing): it got worse.

Prechelt (Early stopping, but when? 1998) stops at rises of 1 to 5 %; one of 10 % that lasts is no noise.
"""
_PATIENT_EPOCHS = 10
"""Epochs before which nothing is said of a network at chance: it may be on a plateau, or the statistics of batch
normalization may lag behind the weights."""

DiagnosisName = Literal[
    "exploding_gradients", "learning_rate_too_high", "unstable_loss", "dead_units", "vanishing_gradients",
    "learning_rate_too_low", "unlearnable_labels", "overfitting", "validation_loss_rises", "class_without_recall",
    "low_recall", "no_better_than_majority", "no_better_than_linear", "imbalanced", "shrunk_images",
]  # fmt: skip


@dataclass(frozen=True)
class LayerStats:
    """Statistics of one layer in one epoch: means over its sampled steps. NaN: there was nothing to measure.

    Rows of an epoch are in the order in which the network runs its layers.
    """

    epoch: int
    layer: str
    samples: int
    """Samples that went through the layer in the sampled steps."""
    gradient: float
    """Norm of the gradient over that of the weights; infinite where the gradient was not finite."""
    update: float
    """Norm of a step's weight update over that of the weights."""
    activation: float
    """Root mean square of the layer's output; infinite where the output was not finite."""
    dead: float
    """Fraction of the units before the layer, channels of its input, that were exactly zero for all these samples."""


@dataclass(frozen=True)
class Diagnosis:
    """One diagnosis of a run."""

    name: DiagnosisName
    subject: str
    """Layer or class with the problem; empty: the whole network, or several classes."""
    epoch: int
    """First epoch with the problem, counted from 1; 0: the data are the cause, not training."""
    evidence: str
    """A sentence with the numbers."""
    remedy: str
    """A sentence that says what to try."""

    @property
    def title(self) -> str:
        """The diagnosis in words, with its layer or class and its first epoch."""
        where = f" at {self.subject}" if self.subject else ""
        return f"{self.name.replace('_', ' ')}{where}{f', epoch {self.epoch}' if self.epoch else ''}"


@dataclass(frozen=True)
class _RunHistory:
    """A run's history and layer statistics, and figures that several diagnoses share."""

    history: Sequence[EpochRow]
    layer_stats: Sequence[LayerStats]
    chance: float
    diverged: bool

    @property
    def stalled(self) -> bool:
        """Whether accuracy is no better than chance, on training and validation samples."""
        limit = self.chance + _CHANCE_MARGIN
        return bool(self.history) and self.end("train_accuracy") <= limit and self.end("val_accuracy") <= limit

    @property
    def alone(self) -> bool:
        """Whether the network learned a little about training samples that does not hold for validation samples.

        Where it learned much, lagging batch normalization can be the cause; `_find_memorizing` needs more signs.
        """
        if not self.history:
            return False
        gain, val = (self.end(f"{part}_accuracy") - self.chance for part in ("train", "val"))
        return _CHANCE_MARGIN < gain < _MEMORIZED and val <= min(gain * _TRANSFERRED, _CHANCE_MARGIN)

    @property
    def layers(self) -> dict[str, list[LayerStats]]:
        """Statistics of each epoch by layer; layers in the order in which they run."""
        rows: dict[str, list[LayerStats]] = {}
        for row in self.layer_stats:
            rows.setdefault(row.layer, []).append(row)
        return rows

    @property
    def updates(self) -> dict[int, float]:
        """Update of the median layer, by epoch, where one was measured."""
        found: dict[int, list[float]] = {}
        for row in self.layer_stats:
            if math.isfinite(row.update):
                found.setdefault(row.epoch, []).append(row.update)
        return {epoch: median(values) for epoch, values in found.items()}

    def end(self, figure: str) -> float:
        """Return the final value of a figure of the history: the median of the last three epochs."""
        return float(median(getattr(row, figure) for row in self.history[-_RISEN_EPOCHS:]))

    def describe_answers(self) -> str:
        """Return the final accuracies in words."""
        train, val = self.end("train_accuracy"), self.end("val_accuracy")
        return f"accuracy is {train:.0%} in training and {val:.0%} in validation, by chance {self.chance:.0%}"


@accept_renamed(vitals=lambda value: {"layer_stats": value})
def diagnose(
    history: Sequence[EpochRow], layer_stats: Sequence[LayerStats], chance: float, *, diverged: bool = False
) -> tuple[Diagnosis, ...]:
    """Return the diagnoses of a run, causes before their effects; none for a healthy one.

    `chance` is the accuracy of always answering the most frequent class, 0 to 1; `diverged` says that the loss was no
    longer finite. What another diagnosis explains is left out: a network that explodes is not called overfitted.
    """
    case = _RunHistory(history, layer_stats, chance, diverged)
    broken = _find_exploding(case) or _find_high_rate(case) or _find_spike(case)
    if broken:
        return (broken,)
    if not history:
        return ()
    blocked = _find_dead(case) or _find_vanishing(case) or _find_low_rate(case)
    learned = _find_memorizing(case) or _find_overfitting(case)
    if not learned and (case.alone or not blocked):
        learned = _find_unlearnable(case)
    return tuple(found for found in (blocked, learned or _find_rise(case)) if found)


def _find_exploding(case: _RunHistory) -> Diagnosis | None:
    """Return exploding gradients: far larger than the weights, in a run that failed."""
    rows = [row for row in case.layer_stats if row.gradient > _EXPLODED]
    if not rows or not (case.diverged or case.stalled):
        return None
    first = rows[0]
    evidence = (
        f"The gradient of layer {first.layer} was {first.gradient:.2g} times its weights in epoch {first.epoch}, "
        f"and its output {first.activation:.2g} in root mean square."
    )
    remedy = (
        "Set training.clip_norm, lower training.learning_rate, or take a network with normalization or smaller initial "
        "weights."
    )
    return Diagnosis("exploding_gradients", first.layer, first.epoch, evidence, remedy)


def _find_high_rate(case: _RunHistory) -> Diagnosis | None:
    """Return a learning rate that is too high: steps undo what earlier ones learned, or the loss is not finite."""
    updates = case.updates
    epoch = max(updates, key=updates.__getitem__, default=0)
    large = epoch > 0 and updates[epoch] > LARGE_UPDATE
    if not (case.diverged or (large and case.stalled)):
        return None
    size = f"a step changed the median layer by up to {updates[epoch]:.2g} of its weights" if epoch else ""
    result = "the loss was no longer finite" if case.diverged else case.describe_answers()
    evidence = "; ".join(filter(None, (size, result)))
    remedy = "Lower training.learning_rate to a tenth, or raise training.warmup."
    since = len(case.history) + 1 if case.diverged else epoch
    return Diagnosis("learning_rate_too_high", "", since, sentence(evidence), remedy)


def _find_spike(case: _RunHistory) -> Diagnosis | None:
    """Return a spike: an epoch that lost much of what was learned before."""
    for before, row in zip(case.history, case.history[1:], strict=False):
        if not before.learning_rate:
            continue  # Its output layer was solved on samples without augmentation, unlike later epochs.
        earlier = case.history[: before.epoch]
        loss, accuracy = min(past.train_loss for past in earlier), max(past.train_accuracy for past in earlier)
        if row.train_loss > _SPIKE_LOSS * loss and row.train_accuracy < accuracy - _SPIKE_ACCURACY:
            evidence = (
                f"In epoch {row.epoch}, training loss rose from {loss:.3g} to {row.train_loss:.3g} and accuracy fell "
                f"from {accuracy:.0%} to {row.train_accuracy:.0%}."
            )
            remedy = "Lower training.learning_rate, or set a smaller training.clip_norm."
            return Diagnosis("unstable_loss", "", row.epoch, evidence, remedy)
    return None


def _find_dead(case: _RunHistory) -> Diagnosis | None:
    """Return dead units, zero for all samples, before the first layer that has too many."""
    found = {layer: since for layer, rows in case.layers.items() if (since := _find_death(rows))}
    if not found:
        return None
    layer, since = next(iter(found.items()))
    last = case.layers[layer][-1]
    others = f"; so were most before {len(found) - 1} more, from {list(found)[1]} on" if len(found) > 1 else ""
    evidence = (
        f"{last.dead:.0%} of the units before layer {layer} were zero for all of {last.samples} samples in each epoch "
        f"from {since} on{others}."
    )
    remedy = "Lower training.learning_rate, raise training.warmup, or look at the initial biases of the layers below."
    return Diagnosis("dead_units", layer, since, evidence, remedy)


def _find_death(rows: Sequence[LayerStats]) -> int:
    """Return the epoch since which most units before a layer are dead, to the end; 0 where they are not."""
    since, count = 0, 0
    for row in reversed(rows):
        if not (row.dead > DEAD and row.samples >= _DEAD_SAMPLES):
            break
        since, count = row.epoch, count + 1
    return since if count >= _DEAD_EPOCHS else 0


def _find_vanishing(case: _RunHistory) -> Diagnosis | None:
    """Return the layer whose gradient vanishes, in a network that does not learn."""
    gradients = {}
    for layer, rows in case.layers.items():
        values = [row.gradient for row in rows if math.isfinite(row.gradient)]
        if values:
            gradients[layer] = median(values)
    names = list(gradients)
    fractions = {
        layer: gradients[layer] / later
        for index, layer in enumerate(names[:-1])
        if (later := max(gradients[name] for name in names[index + 1 :])) > 0
    }
    layer = min(fractions, key=fractions.__getitem__, default="")
    if not layer or fractions[layer] >= _VANISHED or not (case.stalled or _stands_still(case, layer)):
        return None
    small = sum(fraction < _VANISHED for fraction in fractions.values())
    evidence = (
        f"The gradient of layer {layer}, over its weights, is {fractions[layer]:.1g} times that of a later one, so it "
        f"is with {small} of {len(names)} layers (below {_VANISHED:g}); {case.describe_answers()}."
    )
    remedy = "Take a network with shortcuts or normalization, ReLU instead of sigmoid or tanh, or fewer layers."
    return Diagnosis("vanishing_gradients", layer, case.layers[layer][0].epoch, evidence, remedy)


def _stands_still(case: _RunHistory, layer: str) -> bool:
    """Whether a layer hardly ever changed, in a network that has something left to learn."""
    updates = [row.update for row in case.layers[layer] if math.isfinite(row.update)]
    return bool(updates) and max(updates) < _STANDSTILL and case.end("train_accuracy") < _LEARNED


def _find_low_rate(case: _RunHistory) -> Diagnosis | None:
    """Return a learning rate that is too low: steps so small that nothing is learned."""
    first, last = case.history[0].train_loss, case.end("train_loss")
    largest = max(case.updates.values(), default=math.inf)
    learned = case.end("train_accuracy") >= _LEARNED or last < (1 - _SMALL_FALL) * first
    if largest >= TINY_UPDATE or learned or len(case.history) < _RISEN_EPOCHS:
        return None
    evidence = (
        f"A step changes the median layer by {largest:.1g} of its weights at most, and training loss went from "
        f"{first:.3g} to {last:.3g} in {len(case.history)} epochs."
    )
    remedy = "Raise training.learning_rate tenfold."
    return Diagnosis("learning_rate_too_low", "", case.history[0].epoch, evidence, remedy)


_LABEL_REMEDY = (
    "Check that labels belong to their samples, and that training and validation samples are of one kind: "
    "`falconet data --preview` shows some of each class."
)


def _find_memorizing(case: _RunHistory) -> Diagnosis | None:
    """Return labels that cannot be learned: training samples are memorized, without effect on validation."""
    train, val = case.end("train_accuracy"), case.end("val_accuracy")
    lowest, highest = min(row.val_loss for row in case.history), case.end("val_loss")
    early = len(case.history) < _PATIENT_EPOCHS or highest < _RISEN * lowest
    if early or train < case.chance + _MEMORIZED or val > case.chance + _CHANCE_MARGIN:
        return None
    since = next(row.epoch for row in case.history if row.train_accuracy >= case.chance + _MEMORIZED)
    evidence = f"{case.describe_answers()}, and validation loss rose from {lowest:.3g} to {highest:.3g}"
    return Diagnosis("unlearnable_labels", "", since, sentence(evidence), _LABEL_REMEDY)


def _find_unlearnable(case: _RunHistory) -> Diagnosis | None:
    """Return labels that cannot be learned: steps of ordinary size learn nothing, or nothing that generalizes."""
    largest = max(case.updates.values(), default=0.0)
    if not (case.stalled or case.alone) or len(case.history) < _PATIENT_EPOCHS or largest < TINY_UPDATE:
        return None
    evidence = f"{case.describe_answers()}, after {len(case.history)} epochs of steps of up to {largest:.1g}"
    return Diagnosis("unlearnable_labels", "", case.history[0].epoch, sentence(evidence), _LABEL_REMEDY)


def _find_overfitting(case: _RunHistory) -> Diagnosis | None:
    """Return overfitting: validation gets worse while training gets better."""
    start = min(range(len(case.history)), key=lambda index: case.history[index].val_loss)
    lowest, since = case.history[start], case.history[start:]
    if len(case.history) < _PATIENT_EPOCHS or len(since) <= _RISEN_EPOCHS:
        return None
    train, val = case.end("train_accuracy"), case.end("val_accuracy")
    worse = case.end("val_loss") > _RISEN * lowest.val_loss and case.end("train_loss") < lowest.train_loss
    halfway = median(row.val_accuracy for row in since[len(since) // 2 - 1 :][:_RISEN_EPOCHS])
    if not worse or train - val < _GAP or val > halfway + _SAME_ACCURACY:
        return None
    evidence = (
        f"Since epoch {lowest.epoch}, validation loss rose from {lowest.val_loss:.3g} to {case.end('val_loss'):.3g} "
        f"while training loss fell to {case.end('train_loss'):.3g}; accuracy is {train:.0%} in training and {val:.0%} "
        "in validation."
    )
    remedy = "Get more samples, distort them more (augmentation), raise training.weight_decay, or take a smaller model."
    return Diagnosis("overfitting", "", lowest.epoch, evidence, remedy)


def _find_rise(case: _RunHistory) -> Diagnosis | None:
    """Return a validation loss that rose for long, whatever training did."""
    lowest = min(case.history, key=lambda row: row.val_loss)
    since, end = len(case.history) - lowest.epoch, case.end("val_loss")
    if since < WORSE_EPOCHS or end < max(_WORSE * lowest.val_loss, lowest.val_loss + _WORSE_LOSS):
        return None
    before, after = lowest.val_accuracy, case.end("val_accuracy")
    evidence = (
        f"Validation loss was lowest in epoch {lowest.epoch}, {lowest.val_loss:.3g}, and is {end:.3g} after {since} "
        f"more; validation accuracy went from {before:.1%} to {after:.1%}."
    )
    remedy = f"Set training.epochs={lowest.epoch}, or let it stop by itself: set training.patience=5."
    if after > before + _SAME_ACCURACY:
        remedy = (
            "Accuracy still rises, but confidence is too high: set training.label_smoothing=0.1, or get more samples."
        )
    return Diagnosis("validation_loss_rises", "", lowest.epoch, evidence, remedy)


def sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def save_layer_stats(path: Path, layer_stats: Iterable[LayerStats]) -> None:
    """Write layer statistics as CSV, a row an epoch and layer. Raises StorageError."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in dataclasses.fields(LayerStats)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in layer_stats)
    write_text(path, buffer.getvalue())


def load_layer_stats(path: Path) -> tuple[LayerStats, ...]:
    """Return what `save_layer_stats` wrote, exactly; nothing where there is no file. Raises DataError for another's."""
    if not path.exists():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(map(_read_row, csv.DictReader(file, strict=True)))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: wanted a table of layer statistics, found other values ({error}); remove it"
        ) from error


def _read_row(row: dict[str, str]) -> LayerStats:
    numbers = (float(row[name]) for name in ("gradient", "update", "activation", "dead"))
    return LayerStats(int(row["epoch"]), row["layer"], int(row["samples"]), *numbers)
