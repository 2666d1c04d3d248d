"""Diagnoses of a model's usefulness, from validation predictions and data. Importing this does not import torch.

A run may go well in every layer and end with a model that nobody should use: one that never names a class, or that is
right no more often than a guess. Overall accuracy hides both where classes are uneven, so they are looked for here.
The test split is never looked at: what is read here may lead to another run, which it is to evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from falconet import metrics
from falconet.training.diagnoses import WORSE_EPOCHS, Diagnosis, DiagnosisName

_Baseline = Literal["majority", "linear"]
_BASELINES: dict[_Baseline, str] = {
    "majority": "always answering {subject}, the most frequent class in training",
    "linear": "a linear model of the same inputs",
}
"""Baselines that a useful model must beat, in words, by name."""


@dataclass(frozen=True)
class Threshold:
    """A threshold of a diagnosis."""

    value: float
    meaning: str
    source: str


THRESHOLDS: dict[DiagnosisName, Threshold] = {
    "class_without_recall": Threshold(
        5,
        "validation samples of a class of which none is found",
        "A class of which half is found is missed five times in a row in 0.5^5 = 3 % of cases (Hanley and "
        "Lippman-Hand: If nothing goes wrong, is everything all right? JAMA 249, 1983)",
    ),
    "low_recall": Threshold(
        0.2,
        "by which a class's recall is below that of the other classes, with score intervals that do not meet",
        "Wilson: Probable inference, the law of succession, and statistical inference. JASA 22, 1927; at 95 % for all "
        "classes together (Bonferroni). A fifth is what is worth acting on",
    ),
    "no_better_than_majority": Threshold(
        0.05,
        "p-value, one-sided, from which on a difference may be chance",
        "McNemar: Note on the sampling error of the difference between correlated proportions or percentages. "
        "Psychometrika 12, 1947; the exact binomial form",
    ),
    "no_better_than_linear": Threshold(
        0.05,
        "p-value, one-sided, from which on a difference may be chance",
        "The same test; that simple baselines belong beside every result: Dacrema, Cremonesi, Jannach: Are we really "
        "making much progress? RecSys, 2019",
    ),
    "imbalanced": Threshold(
        10,
        "training samples of the largest class for one of the smallest",
        "The ratio of Buda, Maki, Mazurowski: A systematic study of the class imbalance problem in convolutional "
        "neural networks. Neural Networks 106, 2018, which begins at 10 for its larger data sets",
    ),
    "validation_loss_rises": Threshold(
        WORSE_EPOCHS,
        "epochs after its minimum, with a validation loss that is a tenth higher",
        "`diagnose` looks for it. Prechelt: Early stopping, but when? Neural Networks: Tricks of the Trade, 1998, "
        "stops at rises of 1 to 5 %; one of 10 % that lasts is no scatter",
    ),
    "shrunk_images": Threshold(
        4,
        "times the network's input, of the images' longer side",
        "Sampled at a fourth, what repeats in fewer than 8 pixels is gone (Shannon: Communication in the presence of "
        "noise. Proceedings of the IRE 37, 1949)",
    ),
}
"""Thresholds of the diagnoses of a model's usefulness, with their sources."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of a finished run, from which usefulness is diagnosed."""

    classes: Sequence[str]
    train_counts: Int64[np.ndarray, " classes"]
    """Training samples of each class."""
    labels: Int64[np.ndarray, " samples"]
    """Labels of the validation samples, as positions in `classes`, as `predicted` are."""
    predicted: Int64[np.ndarray, " samples"]
    epoch: int
    """Epoch whose weights are kept, counted from 1."""
    balanced: bool = False
    """Whether training corrected imbalance, by class weights or by a balanced sampler."""
    image_side: int | None = None
    """Pixels of the training images' longer side, by their median height and width; None: no images."""
    input_side: int | None = None
    """Pixels of the longer side of the network's input."""

    @property
    def majority(self) -> int:
        """The class that is most frequent in training, as a position in `classes`."""
        return int(self.train_counts.argmax())


def diagnose_outcome(outcome: Outcome) -> tuple[Diagnosis, ...]:
    """Return why a trained model may be of little use; nothing where there is no sign of it.

    `diagnose` looks at how it was trained instead. The thresholds are those of THRESHOLDS.
    """
    right = outcome.predicted == outcome.labels
    baseline = outcome.labels == outcome.majority
    majority = outcome.classes[outcome.majority]
    found = (
        no_better_than("majority", baseline, right, subject=majority, epoch=outcome.epoch),
        _find_missed_classes(outcome),
        _find_low_recall(outcome),
        _find_imbalance(outcome),
        _find_shrunk_images(outcome),
    )
    return tuple(diagnosis for diagnosis in found if diagnosis)


def no_better_than(
    baseline: _Baseline,
    baseline_right: Bool[np.ndarray, " samples"],
    right: Bool[np.ndarray, " samples"],
    *,
    subject: str = "",
    epoch: int = 1,
) -> Diagnosis | None:
    """Return a diagnosis where a model's predictions are not significantly better than a baseline's.

    `baseline_right` and `right` mark the correct predictions on the same validation samples. The test is McNemar's,
    exact and one-sided: of the samples that only one of both predicts correctly, the model would have as many or more
    in a fraction p of cases if both were equally good. None too where the model is ahead, but samples are so few that
    even a perfect one would not be significantly better.
    """
    name: DiagnosisName = f"no_better_than_{baseline}"  # type: ignore[assignment]
    wins, losses = int((right & ~baseline_right).sum()), int((baseline_right & ~right).sum())
    chance = metrics.mcnemar_p_value(wins, losses, "greater")
    faultless = metrics.mcnemar_p_value(int((~baseline_right).sum()), 0, "greater")
    if chance < THRESHOLDS[name].value or (wins >= losses and faultless >= THRESHOLDS[name].value):
        return None
    words = _BASELINES[baseline].format(subject=subject)
    evidence = (
        f"Of {len(right):,} validation samples the model answers {right.mean():.1%} right, and {words}, "
        f"{baseline_right.mean():.1%}: {wins} are right with the model alone and {losses} without it alone, which is "
        f"no more than chance (p = {chance:.2g}, one-sided)."
    )
    remedy = (
        "Do not use it yet: see whether samples show what is to be told apart, check the labels (`falconet data "
        "--label-errors`), train longer, or begin with published weights, or others (model.pretrained)"
    )
    if right.mean() > baseline_right.mean():
        remedy = "More validation samples (data.val_fraction) would tell whether it is better; more for training help"
    return Diagnosis(name, subject, epoch, evidence, f"{remedy}.")


def warn_useless(diagnoses: Sequence[Diagnosis]) -> str | None:
    """Return a sentence for a run whose model is not significantly better than the majority class, else None."""
    for diagnosis in diagnoses:
        if diagnosis.name == "no_better_than_majority":
            return (
                f"caution: on the validation samples this model is not better than always answering "
                f"{diagnosis.subject}, by more than chance: do not rely on it"
            )
    return None


_LISTED = 5
"""Classes that are named in one sentence."""


def _find_missed_classes(outcome: Outcome) -> Diagnosis | None:
    """Return the classes whose recall on validation samples is 0."""
    hits, counts = _count_hits(outcome)
    missed = np.flatnonzero((hits == 0) & (counts >= THRESHOLDS["class_without_recall"].value)).tolist()
    if not missed:
        return None
    listed = [f"{outcome.classes[label]} ({counts[label]})" for label in missed[:_LISTED]]
    more = f" and {len(missed) - _LISTED} more classes" if len(missed) > _LISTED else ""
    never = [label for label in missed if not (outcome.predicted == label).any()]
    answered = f"; {len(never)} of these {len(missed)} classes are never answered" if never else ""
    if len(missed) == 1 and never:
        answered = "; it is never answered"
    evidence = f"Not one validation sample was found of {', '.join(listed)}{more}{answered}."
    subject = outcome.classes[missed[0]] if len(missed) == 1 else ""
    return Diagnosis("class_without_recall", subject, outcome.epoch, evidence, _advise_balance(outcome))


def _find_low_recall(outcome: Outcome) -> Diagnosis | None:
    """Return the class with the least recall of those with a far lower one than the others."""
    hits, counts = _count_hits(outcome)
    present = np.flatnonzero(counts).tolist()
    if len(present) < 2:
        return None
    confidence, total_hits, total = 1 - 0.05 / len(present), int(hits.sum()), int(counts.sum())
    low: list[tuple[float, int, float]] = []
    for label in present:
        own_hits, own = int(hits[label]), int(counts[label])
        recall, others = own_hits / own, (total_hits - own_hits) / (total - own)
        upper = metrics.wilson_interval(own_hits, own, confidence)[1]
        lower = metrics.wilson_interval(total_hits - own_hits, total - own, confidence)[0]
        if own_hits and upper < lower and others - recall >= THRESHOLDS["low_recall"].value:
            low.append((recall, label, others))
    if not low:
        return None
    recall, label, others = min(low)
    start, end = metrics.wilson_interval(int(hits[label]), int(counts[label]))
    more = f"; {len(low) - 1} more classes are far below the others too" if len(low) > 1 else ""
    evidence = (
        f"Of {counts[label]} validation samples of {outcome.classes[label]}, {recall:.1%} are found (95 %: {start:.1%} "
        f"to {end:.1%}), of all other classes {others:.1%}{more}."
    )
    return Diagnosis("low_recall", outcome.classes[label], outcome.epoch, evidence, _advise_balance(outcome))


def _find_imbalance(outcome: Outcome) -> Diagnosis | None:
    """Return classes of very different sizes, where training did not correct that."""
    smallest, largest = int(outcome.train_counts.argmin()), outcome.majority
    few, many = int(outcome.train_counts[smallest]), int(outcome.train_counts[largest])
    if outcome.balanced or not few or many < THRESHOLDS["imbalanced"].value * few:
        return None
    hits, counts = _count_hits(outcome)
    seen = (
        f"{hits[smallest]} of {counts[smallest]} validation samples of {outcome.classes[smallest]} are found"
        if counts[smallest]
        else f"no validation sample is of {outcome.classes[smallest]}"
    )
    evidence = (
        f"{outcome.classes[largest]} has {many:,} training samples and {outcome.classes[smallest]} {few:,}, "
        f"{many / few:.0f} : 1; {seen}."
    )
    remedy = "Set training.class_weights=balanced, and read macro recall rather than accuracy."
    return Diagnosis("imbalanced", outcome.classes[smallest], 0, evidence, remedy)


def _find_shrunk_images(outcome: Outcome) -> Diagnosis | None:
    """Return photographs that the network sees far smaller than they are."""
    side, seen = outcome.image_side, outcome.input_side
    if side is None or not seen or side < THRESHOLDS["shrunk_images"].value * seen:
        return None
    evidence = (
        f"Training images are {side} pixels long (by their medians) and the network sees {seen}, 1 of "
        f"{(side / seen) ** 2:.0f} pixels: what is smaller than {2 * side / seen:.0f} pixels of an image is lost."
    )
    remedy = f"Set model.input_size={2 * seen}, or begin with published weights (model.pretrained) at their size."
    return Diagnosis("shrunk_images", "", 0, evidence, remedy)


def _count_hits(outcome: Outcome) -> tuple[Int64[np.ndarray, " classes"], Int64[np.ndarray, " classes"]]:
    """Return the numbers of correctly predicted validation samples and of all of them, by class."""
    size, right = len(outcome.classes), outcome.predicted == outcome.labels
    return np.bincount(outcome.labels[right], minlength=size), np.bincount(outcome.labels, minlength=size)


def _advise_balance(outcome: Outcome) -> str:
    """Return remedies for a class with low recall that were not used yet."""
    if outcome.balanced:
        return "Get more samples of it, and look at what is predicted instead: `falconet evaluate` lists confusions."
    return "Set training.class_weights=balanced, get more samples of it, and look at what is predicted instead."
