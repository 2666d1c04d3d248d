"""predict() and evaluate(): what a trained model answers, and how good that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

from falconet import metrics
from falconet.artifact import Artifact, DataOrigin, load_artifact
from falconet.catalog import FILE_SUFFIXES
from falconet.data import DataConfig, Dataset, Samples, Split, Unreadable, load_dataset
from falconet.data.files import KIND_WORDS, list_samples, open_files
from falconet.data.preprocessing import iterate_prepared
from falconet.data.series import WavFiles
from falconet.errors import DataError, PathError, UsageError
from falconet.schema import from_mapping, merge, to_mapping
from falconet.spec import InputSpec, Kind, SeriesSpec

BATCH_SIZE = 256


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


@dataclass(frozen=True)
class Ranked:
    """One candidate of a prediction."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one file."""

    file: str
    label: str
    probability: float
    top: tuple[Ranked, ...]


@dataclass(frozen=True)
class Predictions:
    """The answers for several files."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Unreadable, ...]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says about the samples of a split that can be read."""

    split: Split
    """Those samples; labels are positions in the model's own."""
    logits: Float32[np.ndarray, "samples classes"]
    unreadable: tuple[Unreadable, ...]
    """The other samples of the split."""


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
    evaluation, _ = evaluate_split(artifact, chosen, split, dataset)
    return evaluation


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


def answer_split(artifact: Artifact, split: Split) -> Answers:
    """Return the model's raw outputs for a split. Raises DataError where nothing of it can be read."""
    logits, reasons = predict_logits(artifact, fit_recordings(split.samples, artifact.config.input))
    if not len(logits):
        index, reason = next(iter(reasons.items()))
        raise DataError(f"none of {len(split)} samples can be read; the first: {split.samples.name(index)} ({reason})")
    unreadable = tuple(Unreadable(split.samples.name(index), reason) for index, reason in reasons.items())
    kept = np.setdiff1d(np.arange(len(split)), list(reasons)).astype(np.int64)
    return Answers(split.take(kept) if reasons else split, logits, unreadable)


def fit_recordings(samples: Samples, spec: InputSpec) -> Samples:
    """Return recordings at the model's rate and number of channels, whatever those of their source; others as is."""
    if isinstance(samples, WavFiles) and isinstance(spec, SeriesSpec) and spec.rate is not None:
        return dataclasses.replace(samples, rate=spec.rate, channels=spec.raw_shape[0])
    return samples


@torch.inference_mode()
def predict_logits(
    artifact: Artifact, samples: Samples
) -> tuple[Float32[np.ndarray, "readable classes"], dict[int, str]]:
    """Return the raw outputs for all readable samples in order, and the positions of the others with reasons."""
    logits = [torch.empty(0, len(artifact.config.input.labels))]
    unreadable: dict[int, str] = {}
    for batch in iterate_prepared(samples, artifact.preprocess, BATCH_SIZE):
        unreadable |= batch.unreadable
        if len(batch.inputs):
            logits.append(artifact.model(artifact.preprocess.normalize(batch.inputs)))
    return torch.cat(logits).numpy(), unreadable


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


def predict(model: str | Path | Artifact, paths: Sequence[str | Path], *, top: int = 3) -> Predictions:
    """Classify files of the kind that the model eats, and all such files below folders.

    Files that cannot be read are skipped and listed. Raises PathError for a path that does not exist or a folder
    without such files, DataError where not one file can be read.
    """
    if top < 1:
        raise UsageError(f"--top: wanted 1 or more, found {top}")
    artifact = model if isinstance(model, Artifact) else load_artifact(model)
    spec = artifact.config.input
    files = [file for path in paths for file in expand(Path(path), spec.kind)]
    logits, reasons = predict_logits(artifact, open_files(files, spec))
    skipped = tuple(Unreadable(files[index], reason) for index, reason in reasons.items())
    if not len(logits):
        raise DataError(f"none of {len(files)} files can be read; the first: {skipped[0].file} ({skipped[0].reason})")
    read = [file for index, file in enumerate(files) if index not in reasons]
    rows = zip(read, metrics.softmax(logits), strict=True)
    return Predictions(tuple(rank(file, row, spec.labels, top) for file, row in rows), skipped)


def expand(path: Path, kind: Kind) -> list[str]:
    """Return a file itself, or the samples below a folder."""
    if path.is_file():
        if kind == "text" and path.suffix.lower() in FILE_SUFFIXES:
            wanted = "wanted texts in files of their own (.txt), found a table"
            raise PathError(f"{path}: {wanted}; `falconet evaluate` reads tables")
        return [str(path)]
    if not path.is_dir():
        raise PathError(f"no such file or folder: {path}")
    found = list_samples(path, kind)
    if not found:
        raise PathError(f"{path}: wanted {KIND_WORDS[kind]}, found none in this folder")
    return [str(file) for file in found]


def rank(file: str, probabilities: np.ndarray, names: Sequence[str], top: int) -> Prediction:
    """Return the `top` most probable classes."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    candidates = tuple(Ranked(names[index], float(probabilities[index])) for index in order)
    return Prediction(file, candidates[0].label, candidates[0].probability, candidates)
