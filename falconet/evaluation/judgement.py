"""evaluate(): how good a trained model's answers are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from falconet import metrics
from falconet.artifact import Artifact, DataOrigin, load_artifact
from falconet.data import DataConfig, Dataset, Split, Unreadable, load_dataset
from falconet.errors import DataError
from falconet.evaluation.answers import Answers, answer_split
from falconet.schema import from_mapping, merge, to_mapping


@dataclass(frozen=True)
class ClassReport:
    """One class of an Evaluation; fractions of 0 to 1."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """How good a model's answers on one split are; fractions of 0 to 1."""

    split: str
    n: int
    """Samples."""
    accuracy: float
    accuracy_ci: tuple[float, float]
    """95% score interval."""
    top_k: dict[str, float]
    """k -> fraction of samples whose class is among the k most probable."""
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    log_loss: float
    """In nats."""
    ece: float
    """Expected calibration error over 15 bins."""
    per_class: tuple[ClassReport, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows are true classes, columns predicted ones."""
    unreadable: tuple[Unreadable, ...] = ()
    """Files of the source that were skipped."""


def evaluate(
    model: str | Path | Artifact,
    source: str | Path,
    *,
    split: str = "test",
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Judge a trained model on a split of a source, from raw samples.

    Classes are matched by name. `settings`, such as `{"strict": True}` or `{"columns": {"label": "intent"}}`, are those
    of `DataConfig`; what they leave out is as it was in training. A split that was made for training is found again by
    its seed; where the source is not the one that the model was trained on, such a split would mix training samples in
    and is refused. `split="all"` judges on every sample. Raises DataError for that and for classes that the model does
    not know.
    """
    artifact = model if isinstance(model, Artifact) else load_artifact(model)
    dataset, chosen = find_split(artifact, source, split, data_root=data_root, settings=settings)
    evaluation, _ = evaluate_split(artifact, chosen, split, dataset)
    return evaluation


def find_split(
    artifact: Artifact,
    source: str | Path,
    split: str,
    *,
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Dataset, Split]:
    """Return a source, read as the model's own data were, and one split of it; see `evaluate` for what is refused."""
    origin = artifact.config.provenance.data
    config = from_mapping(DataConfig, merge(to_mapping(recall(origin, source)), settings or {}), "data")
    dataset = load_dataset(source, data_root=data_root, config=config)
    if dataset.kind != artifact.config.input.kind:
        raise DataError(
            f"wanted {artifact.config.input.kind} data, as the model eats, found {dataset.kind} in {source}"
        )
    chosen = dataset.split(split)
    if split in dataset.made or split == "train":
        check_found_again(dataset, config, origin, split)
    return dataset, chosen


def recall(origin: DataOrigin, source: str | Path) -> DataConfig:
    """Return how a model's data were read, for reading a source alike; columns that only split it are its own."""
    if str(source) == origin.source:
        return origin.config
    columns = dataclasses.replace(origin.columns, group=None, split=None)
    return dataclasses.replace(origin.config, columns=columns)


def check_found_again(dataset: Dataset, config: DataConfig, origin: DataOrigin, split: str) -> None:
    """Raise DataError unless a split that training made, or trained on, is the same one now."""
    if dataset.fingerprint != origin.fingerprint:
        raise DataError(
            f"{dataset.source} is not the data that the model was trained on ({origin.source}: "
            f"fingerprint {origin.fingerprint}, found {dataset.fingerprint}), so its {split} split cannot be found "
            "again; judge on --split all instead"
        )
    for key in ("split_seed", "val_fraction", "test_fraction"):
        before, after = getattr(origin.config, key), getattr(config, key)
        if before != after:
            raise DataError(
                f"the model was trained with data.{key}={before}, not {after}, so training samples would stand in the "
                f"{split} split; leave that setting out"
            )


def evaluate_split(artifact: Artifact, split: Split, name: str, dataset: Dataset) -> tuple[Evaluation, Answers]:
    """Return the evaluation of a split, and the answers that it rests on."""
    if not len(split):
        raise DataError(f"{dataset.source}: its {name} split holds no samples")
    known = artifact.config.input.labels
    matched = dataclasses.replace(split, labels=match_labels(split, dataset.classes, known))
    answers = answer_split(artifact, matched)
    unreadable = (*dataset.unreadable, *answers.unreadable)
    return judge(answers.logits, answers.split.labels, known, name, unreadable), answers


def match_labels(split: Split, classes: Sequence[str], known: Sequence[str]) -> Int64[np.ndarray, " samples"]:
    """Return a split's labels as positions in `known`. Raises DataError for a class that occurs but is not known."""
    present = [classes[label] for label in np.unique(split.labels)]
    strange = [name for name in present if name not in known]
    if strange:
        raise DataError(f"the model does not know the classes {', '.join(strange)}; it knows {', '.join(known)}")
    position = {name: index for index, name in enumerate(known)}
    lookup = np.array([position.get(name, -1) for name in classes], dtype=np.int64)
    matched: Int64[np.ndarray, " samples"] = lookup[split.labels]
    return matched


def judge(
    logits: Float32[np.ndarray, "samples classes"],
    labels: Int64[np.ndarray, " samples"],
    names: Sequence[str],
    split: str,
    unreadable: tuple[Unreadable, ...] = (),
) -> Evaluation:
    """Return all figures of merit of logits against labels."""
    confusion = metrics.count_confusion(logits.argmax(axis=1), labels, len(names))
    macro, weighted = (metrics.average_scores(confusion, how) for how in ("macro", "weighted"))
    hits, count = int(np.trace(confusion)), len(labels)
    scores = zip(names, metrics.score_classes(confusion), strict=True)
    return Evaluation(
        split=split,
        n=count,
        accuracy=metrics.compute_accuracy(confusion),
        accuracy_ci=metrics.wilson_interval(hits, count),
        top_k={str(k): metrics.top_k_accuracy(logits, labels, k) for k in (2, 3, 5) if k < len(names)},
        macro_precision=macro.precision,
        macro_recall=macro.recall,
        macro_f1=macro.f1,
        weighted_precision=weighted.precision,
        weighted_recall=weighted.recall,
        weighted_f1=weighted.f1,
        log_loss=metrics.compute_log_loss(logits, labels),
        ece=metrics.expected_calibration_error(logits, labels),
        per_class=tuple(ClassReport(name, s.precision, s.recall, s.f1, s.support) for name, s in scores),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        unreadable=unreadable,
    )
