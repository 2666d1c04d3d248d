"""evaluate(): figures of merit of a trained model on a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt64

from falconet import metrics
from falconet.artifact import AnyModel, Artifact, DataOrigin, open_artifact
from falconet.catalog import check_source
from falconet.data import DataConfig, Dataset, Split, Unreadable
from falconet.data.dataset import SPLIT_NAMES, find_owner
from falconet.data.sources import read_dataset, require_source
from falconet.data.splits import complete_splits, undo_splits
from falconet.errors import ConfigError, DataError, FalconetError
from falconet.evaluation.confidence import Abstention, abstain, check_target_accuracy
from falconet.evaluation.costs import Costs, measure_costs
from falconet.evaluation.logits import SplitLogits, adapt_config, predict_split
from falconet.evaluation.outliers import Outliers, separate_outliers
from falconet.evaluation.paired import PairedComparison, compare_answers
from falconet.evaluation.precision import compute_in
from falconet.evaluation.robustness import Robustness, measure_robustness
from falconet.evaluation.slices import Slices, check_column, slice_answers
from falconet.renames import accept_renamed
from falconet.schema import from_mapping, merge, to_mapping


@dataclass(frozen=True)
class ClassReport:
    """The figures of one class; fractions of 0 to 1, and 0 where the denominator is 0, as in scikit-learn."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    average_precision: float | None
    """Average precision, the area under the class's precision-recall curve; None without positives or negatives."""
    roc_auc: float | None
    """Area under the ROC curve of the class's probability; None without positives or negatives."""

    @property
    def scores(self) -> tuple[float | None, float | None, float | None]:
        """Precision, recall and F1 for display: None without samples, where a 0 would look like a failure."""
        return (self.precision, self.recall, self.f1) if self.support else (None, None, None)


@dataclass(frozen=True)
class CoveragePoint:
    """A point of the coverage curve, where predictions below a confidence are withheld; fractions of 0 to 1."""

    threshold: float
    """Confidence, the highest probability of a sample, from which on its prediction counts."""
    coverage: float
    """Fraction of the samples with such a confidence."""
    accuracy: float
    """Accuracy on these samples."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of a model on one split; fractions of 0 to 1."""

    split: str
    n: int
    """Number of samples."""
    accuracy: float
    accuracy_ci: tuple[float, float]
    """95% Wilson score interval of the accuracy."""
    top_k: dict[str, float]
    """Top-k accuracies by k: fraction of samples whose class is among the k most probable."""
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    log_loss: float
    """Mean log loss in nats."""
    ece: float
    """Expected calibration error over 15 bins. It has no interval; `falconet.metrics.intervals` says why."""
    brier: float
    """Mean squared distance of the probabilities from the one-hot label, from 0 to 2."""
    intervals: Mapping[str, metrics.Interval | None]
    """95% intervals by headline figure: Wilson's of `accuracy`, BCa bootstrap of `macro_precision`, `macro_recall`,
    `macro_f1`, `log_loss` and `brier`. None: resampling says nothing, since all predictions are correct."""
    per_class: tuple[ClassReport, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Confusion matrix: rows are true classes, columns predicted ones."""
    reliability: tuple[metrics.ReliabilityBin, ...]
    """Reliability diagram: mean confidence and accuracy in bins of confidence, without empty ones."""
    coverage: tuple[CoveragePoint, ...]
    """Coverage curve at falling thresholds, at most 100 points."""
    aurc: float
    """Area under the risk-coverage curve: error at or above each sample's confidence, averaged; 0 is best."""
    unreadable: tuple[Unreadable, ...] = ()
    """Files of the source that were skipped."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of the source that were no samples, counted by extension."""
    notes: tuple[str, ...] = ()
    """Notes on guesses in reading the source, and on the evaluated samples where it has no test split."""
    against: PairedComparison | None = None
    """Comparison with another model on the same samples; None: none was named."""
    slices: Slices | None = None
    """Accuracy by value of a column; None: none was named."""
    ood: Outliers | None = None
    """Out-of-distribution detection on another source; None: none was named."""
    abstention: Abstention | None = None
    """Threshold for a wanted accuracy of the answered samples; None: none was given."""
    robustness: Robustness | None = None
    """Accuracy under corruptions and attacks; None: not asked for."""
    costs: Costs | None = None
    """Costs of inference; None: not asked for."""

    def __repr__(self) -> str:
        low, high = self.accuracy_ci
        return f"Evaluation({self.split} accuracy {self.accuracy:.1%} (95%: {low:.1%} – {high:.1%}, n = {self.n:,}))"


AnySource = str | Path | Dataset | Split
"""Data that functions such as `evaluate` take: a name or a path, or a data set or split that is read already."""


@accept_renamed(precision=lambda value: {"target_accuracy": value})
def evaluate(  # noqa: PLR0913 - one for each thing that may be asked
    model: AnyModel,
    source: AnySource,
    *,
    split: str | None = None,
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    against: AnyModel | None = None,
    by: str | None = None,
    ood: str | Path | None = None,
    target_accuracy: float | None = None,
    corruptions: bool = False,
    costs: bool = False,
    number_format: str = "fp32",
) -> Evaluation:
    """Evaluate a trained model on a split of a source, from raw samples.

    Classes are matched by name. `settings`, such as `{"strict": True}` or `{"columns": {"label": "intent"}}`, are those
    of `DataConfig`; what they leave out is as it was in training. A split that was made for training is found again by
    its seed; where the source is not the one that the model was trained on, such a split would mix training samples in
    and is refused. `split="all"` evaluates on every sample. None is the test split, or of another source that has none
    of its own all samples but those that the model learned from, which are left out and counted in a note.

    `source` may also be a `falconet.Dataset`, for which all of this holds, or one of its splits, such as
    `dataset.test`; of a split that was made of other data than the model's own, samples that the model learned from are
    left out as well.

    `against` is another model for the same samples; `by` a column of the source's table whose values part the split;
    `ood` a source of other things, on which the model should be less confident; `target_accuracy` the wanted accuracy
    where the model may abstain: the confidence for that is chosen on the validation split where it
    can be found again, else on the evaluated one. `corruptions` and `costs` add the results of `measure_robustness` and
    `measure_costs`; `number_format="bf16"` lets the network compute in bfloat16 for the evaluation itself.

    Raises DataError for a split that cannot be found again and for classes that a model does not know, UsageError for
    what does not exist.
    """
    check_target_accuracy(target_accuracy)
    if ood is not None:
        check_source(ood)
    artifact, other = open_artifact(model), None if against is None else open_artifact(against)
    settings = settings or {}
    if by is not None and not isinstance(source, Dataset | Split):
        settings = {**settings, "extra": [*settings.get("extra", ()), by]}
    dataset, config = _read_alike(artifact, source, data_root=data_root, settings=settings)
    models = [artifact] if other is None else [artifact, other]
    chosen, notes = _choose_evaluated(models, source, dataset, config, split, data_root)
    split = chosen.name
    if by is not None:
        check_column(chosen, by)
    with compute_in(number_format):
        evaluation, answers = evaluate_split(artifact, chosen, split, dataset)
        right = answers.logits.argmax(axis=1) == answers.split.labels
        evaluation = dataclasses.replace(
            evaluation,
            against=None if other is None else compare_answers(answers, artifact, other),
            slices=None if by is None else slice_answers(answers.split, right, by),
            ood=None if ood is None else separate_outliers(answers, artifact, dataset, ood, data_root),
            abstention=None
            if target_accuracy is None
            else _limit_answers(target_accuracy, artifact, dataset, config, split, answers),
        )
    return dataclasses.replace(
        evaluation,
        notes=notes,
        # Its labels are the model's already.
        robustness=measure_robustness(artifact, replace(answers.split, owner=None)) if corruptions else None,
        costs=measure_costs(artifact, answers.split.samples) if costs else None,
    )


def _choose_evaluated(
    models: Sequence[Artifact],
    source: AnySource,
    dataset: Dataset,
    config: DataConfig,
    split: str | None,
    data_root: str | Path | None,
) -> tuple[Split, tuple[str, ...]]:
    """Return the samples that models are evaluated on, and notes about them; see `evaluate`."""
    first, notes, allowed = models[0], dataset.notes, ""
    if isinstance(source, Split) and _is_mixed(first, dataset, source.name):
        # What is left of it may be evaluated, whatever it is called.
        allowed = "all"
        chosen, told = _leave_out_learned(source, dataset, models, data_root)
        notes = (*notes, f"{dataset.source} is not what the model was trained on{told}")
    elif isinstance(source, Split):
        chosen = source
    elif split is None and _is_new(first, source, dataset):
        everything = replace(dataset.split("all"), name="all")
        chosen, told = _leave_out_learned(everything, dataset, models, data_root)
        strange = "is not what the model was trained on and has no test split: all of it is evaluated"
        notes = (*notes, f"{dataset.source} {strange}{told}")
    else:
        split = split or "test"
        chosen = replace(_take_split(first, dataset, config, split), name=split)
    if chosen.name == "val" and first.config.provenance.refit:
        notes = (*notes, "the model was refit on its validation samples too, so that they flatter it")
    if chosen.name == "val" and first.config.provenance.refit_teacher:
        notes = (*notes, "the model's teacher had learned from these samples, so that they flatter it")
    for model in models:
        check_evaluable(model, dataset, config, allowed or chosen.name)
    return chosen, notes


def find_split(
    artifact: Artifact,
    source: AnySource,
    split: str,
    *,
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Dataset, Split, DataConfig]:
    """Return a source, read as the model's own data were, one split of it, and the configuration of reading.

    See `evaluate` for sources that are refused.
    """
    dataset, config = _read_alike(artifact, source, data_root=data_root, settings=settings)
    chosen = source if isinstance(source, Split) else _take_split(artifact, dataset, config, split)
    check_evaluable(artifact, dataset, config, source.name if isinstance(source, Split) else split)
    return dataset, chosen, config


def _read_alike(
    artifact: Artifact,
    source: AnySource,
    *,
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Dataset, DataConfig]:
    """Return a source, read as the model's own data were, and the configuration of reading.

    Missing splits are only made for the model's own data; another source may have a single class.
    """
    require_source(source, splits=True)
    origin = artifact.config.provenance.data
    if isinstance(source, Dataset | Split):
        _check_unset(settings)
        dataset = source if isinstance(source, Dataset) else find_owner(source)
        own = isinstance(source, Split) or dataset.fingerprint == origin.fingerprint
        return dataset if own else undo_splits(dataset), dataset.config or DataConfig()
    config = from_mapping(DataConfig, merge(to_mapping(restore_data_config(origin, source)), settings or {}), "data")
    config = adapt_config(config, artifact.config.input)
    dataset = read_dataset(source, data_root=data_root, config=config)
    if dataset.fingerprint == origin.fingerprint:
        dataset = complete_splits(dataset, config)
    return dataset, config


def _take_split(artifact: Artifact, dataset: Dataset, config: DataConfig, split: str) -> Split:
    """Return a split of this name. Raises DataError for one that training made and that cannot be found again."""
    if split in SPLIT_NAMES and split not in dataset.splits:
        check_found_again(dataset, config, artifact.config.provenance.data, split)
    return dataset.split(split)


def _check_unset(settings: Mapping[str, Any] | None) -> None:
    """Raise ConfigError for settings of reading where data are read already."""
    for key in settings or {}:
        raise ConfigError(f"data.{key}: wanted none for a Dataset, which is read already; read it so")


def _is_mixed(artifact: Artifact, dataset: Dataset, split: str) -> bool:
    """Return whether a split of data other than a model's own may hold samples that the model learned from."""
    made = split == "train" or split in dataset.made_splits
    return made and dataset.fingerprint != artifact.config.provenance.data.fingerprint


def _is_new(artifact: Artifact, source: str | Path | Dataset, dataset: Dataset) -> bool:
    """Return whether a source without a test split is another one than the model's own, which may have changed since.

    False for a coded file, which does not tell. For a model from elsewhere, or whose data are gone, the last part of
    the path must differ.
    """
    origin = artifact.config.provenance.data
    if "test" in dataset.splits or not origin.source:
        return False
    if isinstance(source, Dataset):
        return dataset.fingerprint != origin.fingerprint
    if str(source) == origin.source:
        return False
    path, own = Path(source).resolve(), Path(origin.source).resolve()
    return path != own if own.exists() else path.name != own.name


def _leave_out_learned(
    everything: Split, dataset: Dataset, models: Sequence[Artifact], data_root: str | Path | None
) -> tuple[Split, str]:
    """Return the samples that no model learned from, as far as that is known, and a note about it.

    Raises DataError where none is left.
    """
    learned, doubts = zip(*(_find_learned(model.config.provenance.data, data_root) for model in models), strict=True)
    new = np.flatnonzero(~np.isin(everything.hashes, np.concatenate(learned)))
    left_out = len(everything) - len(new)
    if left_out == len(everything):
        raise DataError(
            f"{dataset.source}: wanted samples that the model was not trained on, found all {left_out} of them in its "
            "training or validation data; evaluate on split='all' nevertheless, or on other samples"
        )
    note = ""
    if left_out:
        note += f", but for {left_out} of {len(everything)} samples that stand in its training or validation data"
    unknown = dict.fromkeys(filter(None, doubts))
    if unknown:
        note += f"; whether it was trained on some of these {len(new)} cannot be told: {', '.join(unknown)}"
    return everything.take(new), note


def _find_learned(
    origin: DataOrigin, data_root: str | Path | None
) -> tuple[UInt64[np.ndarray, " samples"], str | None]:
    """Return hashes of the samples that a model was trained or validated on, and why some may be missing.

    Only what lies on this machine is read again, and nothing is downloaded.
    """
    none = np.zeros(0, dtype=np.uint64)
    if origin.source != "digits" and not (origin.source and Path(origin.source).exists()):
        return none, f"{origin.source or 'its data'} cannot be read again here"
    try:
        dataset = read_dataset(origin.source, data_root=data_root, config=origin.config)
        changed = dataset.fingerprint != origin.fingerprint
        dataset = dataset if changed else complete_splits(dataset, origin.config)
    except FalconetError as error:
        return none, str(error)
    # Of data that have changed, what was learned from is not known: all that can have been.
    parts = [split.hashes for name, split in dataset.splits.items() if name != "test"]
    return np.concatenate([none, *parts]), f"{origin.source} has changed since" if changed else None


def check_evaluable(artifact: Artifact, dataset: Dataset, config: DataConfig, split: str) -> None:
    """Raise DataError for samples that a model does not take, or may have been trained on."""
    wanted = artifact.config.input.kind
    if dataset.kind != wanted:
        raise DataError(f"wanted {wanted} data, as the model takes, found {dataset.kind} in {dataset.source}")
    if split in dataset.made_splits or split == "train":
        check_found_again(dataset, config, artifact.config.provenance.data, split)


def _limit_answers(
    target_accuracy: float, artifact: Artifact, dataset: Dataset, config: DataConfig, split: str, answers: SplitLogits
) -> Abstention:
    """Return the threshold for a wanted accuracy, chosen on other samples than the evaluated ones where possible."""
    origin, refit = artifact.config.provenance.data, artifact.config.provenance.refit
    name = split if refit else _find_choosing_split(dataset, config, origin, split)
    choosing = answers if name == split else predict_split(artifact, dataset, name)
    return abstain(target_accuracy, (name, choosing), (split, answers))


def _find_choosing_split(dataset: Dataset, config: DataConfig, origin: DataOrigin, split: str) -> str:
    """Return "val" where it shares no samples with a split or with training, else that split."""
    if split in {"val", "all"} or not len(dataset.splits.get("val", ())):
        return split
    found_again = dataset.fingerprint == origin.fingerprint and find_changed_setting(config, origin) is None
    return "val" if found_again or "val" not in dataset.made_splits else split


def restore_data_config(origin: DataOrigin, source: str | Path) -> DataConfig:
    """Return the configuration for reading a source as a model's data were; another source has no columns of splits."""
    path = Path(source).absolute()
    # Of a model from elsewhere, the last part of the path is all that is known.
    if str(source) == origin.source or path == Path(origin.source).absolute() or path.name == origin.source:
        return origin.config
    columns = dataclasses.replace(origin.columns, group=None, split=None)
    return dataclasses.replace(origin.config, columns=columns)


def check_found_again(dataset: Dataset, config: DataConfig, origin: DataOrigin, split: str) -> None:
    """Raise DataError unless a split that training made, or trained on, is still the same."""
    if not origin.source:
        raise DataError(
            f"the model's file alone does not tell which {split} split training made of {dataset.source}: name the "
            "folder that it was written to"
        )
    if dataset.fingerprint != origin.fingerprint:
        raise DataError(
            f"{dataset.source} is not the data that the model was trained on ({origin.source}: "
            f"fingerprint {origin.fingerprint}, found {dataset.fingerprint}), so its {split} split cannot be found "
            "again; evaluate on split='all' instead"
        )
    key = find_changed_setting(config, origin)
    if key:
        before, after = getattr(origin.config, key), getattr(config, key)
        raise DataError(
            f"the model was trained with data.{key}={before}, not {after}, so training samples would stand in the "
            f"{split} split; leave that setting out"
        )
    if origin.splits_fingerprint not in (None, dataset.splits_fingerprint):
        raise DataError(
            f"{dataset.source}: wanted the {split} split of training, found another, as near duplicates look otherwise "
            "where images are decoded or computed with otherwise: evaluate where it was trained, or on split='all'"
        )


def find_changed_setting(config: DataConfig, origin: DataOrigin) -> str | None:
    """Return a setting of splits that differs from training; None where there is none."""
    keys = ("split_seed", "val_fraction", "test_fraction", "near_duplicates")
    return next((key for key in keys if getattr(origin.config, key) != getattr(config, key)), None)


def evaluate_split(artifact: Artifact, split: Split, name: str, dataset: Dataset) -> tuple[Evaluation, SplitLogits]:
    """Return the evaluation of a split, and the logits that it is computed from."""
    answers = predict_split(artifact, dataset, name, split)
    return evaluate_answers(artifact, answers, name, dataset), answers


def evaluate_answers(artifact: Artifact, answers: SplitLogits, name: str, dataset: Dataset) -> Evaluation:
    """Return the evaluation of a model's logits on the split of this name."""
    unreadable = (*dataset.unreadable, *answers.unreadable)
    result = evaluate_logits(answers.logits, answers.split.labels, artifact.config.output.labels, name, unreadable)
    return replace(result, ignored=dataset.ignored)


def evaluate_logits(
    logits: Float32[np.ndarray, "samples classes"],
    labels: Int64[np.ndarray, " samples"],
    names: Sequence[str],
    split: str,
    unreadable: tuple[Unreadable, ...] = (),
) -> Evaluation:
    """Return all figures of merit from logits and labels."""
    confusion = metrics.count_confusion(logits.argmax(axis=1), labels, len(names))
    macro, weighted = (metrics.average_scores(confusion, how) for how in ("macro", "weighted"))
    hits, count = int(np.trace(confusion)), len(labels)
    curve = metrics.coverage_curve(logits, labels)
    losses = {
        "log_loss": metrics.list_log_losses(logits, labels),
        "brier": metrics.list_brier_scores(logits, labels),
    }
    bins = metrics.bin_reliability(logits, labels)
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
        log_loss=float(losses["log_loss"].mean()),
        ece=metrics.average_gaps(bins),
        brier=float(losses["brier"].mean()),
        intervals=_find_intervals(confusion, losses),
        per_class=_report_classes(confusion, logits, labels, names),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        reliability=tuple(bins),
        coverage=_list_coverage(curve),
        aurc=curve.area,
        unreadable=unreadable,
    )


def _find_intervals(
    confusion: metrics.Confusion, losses: Mapping[str, Float64[np.ndarray, " samples"]]
) -> dict[str, metrics.Interval | None]:
    """Return the 95% intervals of the headline figures."""
    accuracy = metrics.wilson_interval(int(np.trace(confusion)), int(confusion.sum()))
    macro = zip(("macro_precision", "macro_recall", "macro_f1"), metrics.bootstrap_macro(confusion), strict=True)
    means = metrics.bootstrap_means(np.stack([*losses.values()], axis=1))
    return {"accuracy": accuracy, **dict(macro), **dict(zip(losses, means, strict=True))}


def _report_classes(
    confusion: metrics.Confusion,
    logits: Float32[np.ndarray, "samples classes"],
    labels: Int64[np.ndarray, " samples"],
    names: Sequence[str],
) -> tuple[ClassReport, ...]:
    """Return the figures of each class; curves are those of its probability."""
    rows = []
    columns = zip(names, metrics.score_classes(confusion), metrics.softmax(logits).T, strict=True)
    for number, (name, scores, probability) in enumerate(columns):
        curves = [make(probability, labels == number) for make in (metrics.precision_recall_curve, metrics.roc_curve)]
        areas = [curve.area if curve else None for curve in curves]
        rows.append(ClassReport(name, scores.precision, scores.recall, scores.f1, scores.support, *areas))
    return tuple(rows)


def _list_coverage(curve: metrics.Curve) -> tuple[CoveragePoint, ...]:
    """Return at most 100 points of a coverage curve."""
    thin = metrics.thin_curve(curve)
    points = zip(thin.thresholds.tolist(), thin.x.tolist(), thin.y.tolist(), strict=True)
    return tuple(CoveragePoint(*point) for point in points)
