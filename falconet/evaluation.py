"""predict() and evaluate(): what a trained model answers, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from falconet import metrics
from falconet.artifact import Artifact, load_artifact
from falconet.data import DataConfig, Dataset, Samples, Split, Unreadable, load_dataset
from falconet.data.images import list_images, read_image
from falconet.data.preprocessing import Preprocess, iterate_scaled, scale_image
from falconet.errors import DataError, PathError, UsageError

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


@dataclass(frozen=True, eq=False)
class NamedImage:
    """A decoded file, scaled but not normalized."""

    file: str
    pixels: Float32[torch.Tensor, "1 channels height width"]


@dataclass(frozen=True)
class Predictions:
    """The answers for several files."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Unreadable, ...]


def evaluate(
    model: str | Path | Artifact,
    source: str | Path,
    *,
    split: str = "test",
    data_root: str | Path | None = None,
    strict: bool = False,
) -> Evaluation:
    """Judge a trained model on a split of a source, from raw pixels.

    Classes are matched by name. A split that was made for training is found again by its seed; where the source is not
    the one that the model was trained on, such a split would mix training samples in and is refused. `split="all"`
    judges on every sample. Raises DataError for that and for classes that the model does not know.
    """
    artifact = model if isinstance(model, Artifact) else load_artifact(model)
    origin = artifact.config.provenance.data
    seed = 0 if origin.split_seed is None else origin.split_seed
    config = DataConfig(seed, origin.val_fraction, origin.test_fraction, strict)
    dataset = load_dataset(source, data_root=data_root, config=config)
    chosen = dataset.split(split)
    if (split in dataset.made or split == "train") and dataset.fingerprint != origin.fingerprint:
        raise DataError(
            f"{source} is not the data that the model was trained on ({origin.source}: "
            f"fingerprint {origin.fingerprint}, found {dataset.fingerprint}), so its {split} split cannot be found "
            "again; judge on --split all instead"
        )
    evaluation, _ = evaluate_split(artifact, chosen, split, dataset)
    return evaluation


def evaluate_split(
    artifact: Artifact, split: Split, name: str, dataset: Dataset
) -> tuple[Evaluation, Float32[np.ndarray, "samples classes"]]:
    """Return the evaluation of a split, and the logits that it rests on."""
    if not len(split):
        raise DataError(f"{dataset.source}: its {name} split holds no samples")
    labels = match_labels(split, dataset.classes, artifact.config.input.labels)
    logits = predict_logits(artifact, split.samples)
    return judge(logits, labels, artifact.config.input.labels, name, dataset.unreadable), logits


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


@torch.inference_mode()
def predict_logits(artifact: Artifact, samples: Samples) -> Float32[np.ndarray, "samples classes"]:
    """Return the model's raw outputs for all samples in order."""
    preprocess = Preprocess(artifact.config.input)
    batches = iterate_scaled(samples, preprocess, BATCH_SIZE)
    return torch.cat([artifact.model(preprocess.normalize(batch)) for batch in batches]).numpy()


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
    """Classify image files, and all images below folders.

    Files that cannot be read are skipped and listed. Raises PathError for a path that does not exist or a folder
    without images, DataError where not one file can be read.
    """
    if top < 1:
        raise UsageError(f"--top: wanted 1 or more, found {top}")
    artifact = model if isinstance(model, Artifact) else load_artifact(model)
    files = [file for path in paths for file in expand(Path(path))]
    preprocess = Preprocess(artifact.config.input)
    answers: list[Prediction] = []
    skipped: list[Unreadable] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), BATCH_SIZE):
            read = list(pool.map(lambda file: try_reading(file, preprocess), files[start : start + BATCH_SIZE]))
            skipped += [item for item in read if isinstance(item, Unreadable)]
            answers += classify(artifact, preprocess, [item for item in read if isinstance(item, NamedImage)], top)
    if not answers:
        raise DataError(f"none of {len(files)} files can be read; the first: {skipped[0].file} ({skipped[0].reason})")
    return Predictions(tuple(answers), tuple(skipped))


def expand(path: Path) -> list[str]:
    """Return a file itself, or the images below a folder."""
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise PathError(f"no such file or folder: {path}")
    found = list_images(path)
    if not found:
        raise PathError(f"{path}: wanted images, found none in this folder")
    return [str(file) for file in found]


def try_reading(file: str, preprocess: Preprocess) -> NamedImage | Unreadable:
    """Decode and scale a file, or say why not."""
    try:
        return NamedImage(file, scale_image(read_image(Path(file)), preprocess))
    except DataError as error:
        return Unreadable(file, str(error).removeprefix(f"{file}: "))


@torch.inference_mode()
def classify(artifact: Artifact, preprocess: Preprocess, images: Sequence[NamedImage], top: int) -> list[Prediction]:
    """Answer for a batch of decoded images."""
    if not images:
        return []
    inputs = preprocess.normalize(torch.cat([image.pixels for image in images]))
    probabilities = metrics.softmax(artifact.model(inputs).numpy())
    names = artifact.config.input.labels
    return [rank(image.file, row, names, top) for image, row in zip(images, probabilities, strict=True)]


def rank(file: str, probabilities: np.ndarray, names: Sequence[str], top: int) -> Prediction:
    """Return the `top` most probable classes."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    candidates = tuple(Ranked(names[index], float(probabilities[index])) for index in order)
    return Prediction(file, candidates[0].label, candidates[0].probability, candidates)
