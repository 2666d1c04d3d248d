"""One network of a comparison: trained where it must be, evaluated on the common test split, and measured."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from falconet import metrics
from falconet.artifact import Artifact, list_stale, load_artifact, read_config
from falconet.comparison.compared_models import ComparedModel, ComparisonContext, check_recipes
from falconet.complexity import count_complexity
from falconet.data import DataConfig, Dataset
from falconet.errors import ArtifactError, DataError, FalconetError, InterruptedRunError, StorageError
from falconet.evaluation import evaluate_split
from falconet.evaluation.evaluation import check_found_again, find_changed_setting
from falconet.evaluation.logits import predict_split
from falconet.exporters.targets import Runtime
from falconet.exporters.timing import find_fastest
from falconet.latency import Latency
from falconet.model_files import CONFIG_FILE
from falconet.planning import Plan, plan_run
from falconet.runs import execute, try_network
from falconet.storage import read_json, write_bytes, write_json

_SPLIT = "test"


@dataclass(frozen=True, eq=False)
class ModelRun:
    """Results of one network."""

    folder: Path
    answers: Int64[np.ndarray, " samples"]
    """Indices of the predicted classes, for the samples that can be read."""
    labels: Int64[np.ndarray, " samples"]
    hashes: UInt64[np.ndarray, " samples"]
    """Hashes of the samples' content, by which the samples of two runs are known to be the same."""
    num_classes: int
    val_accuracy: float | None = None
    """Accuracy on the validation split; None where it is not known to be held out from training."""

    @property
    def right(self) -> Bool[np.ndarray, " samples"]:
        """Whether each sample is predicted correctly."""
        return np.asarray(self.answers == self.labels)

    @property
    def accuracy(self) -> float:
        """Fraction of the samples that are predicted correctly."""
        return float(self.right.mean())

    @property
    def scores(self) -> metrics.ClassScores:
        """Precision, recall and F1, as means over classes."""
        return metrics.average_scores(metrics.count_confusion(self.answers, self.labels, self.num_classes))

    @property
    def seconds(self) -> float | None:
        """Seconds of the epochs of training; None where the folder does not state them."""
        return _read_number(_read_metrics(self.folder).get("training_seconds"))

    @property
    def energy_wh(self) -> float | None:
        """Watt-hours of the training; None where nothing recorded them."""
        energy = _read_metrics(self.folder).get("energy")
        return _read_number(energy.get("wh")) if isinstance(energy, dict) else None


def _read_metrics(folder: Path) -> dict[str, Any]:
    """Return the figures in a trained network's folder; nothing where there are none, or they are of other weights."""
    try:
        return {} if "metrics.json" in list_stale(folder) else read_json(folder / "metrics.json")
    except ArtifactError:
        return {}


def _read_number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Cost:
    """Costs of one network; the same for all seeds."""

    params: int
    macs: int
    bytes: int
    """Bytes of the weights' file."""
    latency_ms: float
    """Median milliseconds of one sample, on one thread, without preprocessing, in torch."""
    fastest: Runtime
    """Installed runtime with the least median latency."""
    fastest_ms: float


def plan_trial(compared: ComparedModel, seed: int, study: ComparisonContext) -> Plan:
    """Return the plan of a run, which goes on where it stopped. Raises UsageError and DataError and their kin."""
    terms = study.terms
    # Hours may lie between the first run and this one.
    check_recipes(study.out, terms, [compared])
    recipe, settings = terms.settings_for(compared)
    return plan_run(
        study.source,
        model=compared.model,
        recipe=recipe,
        epochs=terms.epochs,
        seed=seed,
        settings=settings,
        out=_run_folder(compared, seed, study.out),
        if_exists="resume",
        data_root=study.data_root,
    )


def _run_folder(compared: ComparedModel, seed: int, out: Path) -> Path:
    """Return the folder of a model's run, or that of the trained model itself."""
    return compared.folder or out / "runs" / f"{compared.slug}-{seed}"


def _answers_file(compared: ComparedModel, seed: int, out: Path) -> Path:
    return out / "answers" / f"{compared.slug}-{seed}.npz"


def check_not_trained_on_test(compared: ComparedModel, dataset: Dataset, config: DataConfig) -> str | None:
    """Raise DataError where a trained model has seen samples of the test split; return what else should be known."""
    assert compared.folder is not None
    described, _ = read_config(compared.folder / CONFIG_FILE)
    origin = described.provenance.data
    if described.input.kind != dataset.kind:
        raise DataError(
            f"{compared.folder}: wanted a model of {dataset.kind} data, found one of {described.input.kind}; leave it "
            "out"
        )
    if _SPLIT in dataset.made_splits:
        try:
            check_found_again(dataset, config, origin, _SPLIT)
        except DataError as error:
            raise DataError(f"{compared.folder}: {error}, or leave it out of the comparison") from error
    if origin.fingerprint == dataset.fingerprint:
        return None
    return f"{compared.name} was trained on other data, {origin.source}; whether test samples were there is not known"


def attempt(compared: ComparedModel, seed: int, study: ComparisonContext) -> ModelRun | str:
    """Train where that is to be done, and evaluate; return why it cannot be, where that is the network's own fault.

    Raises InterruptedRunError and StorageError, from which no other network would be spared.
    """
    try:
        if compared.folder is None:
            execute(plan_trial(compared, seed, study))
        return _evaluate_trial(compared, seed, study)
    except InterruptedRunError as error:
        raise InterruptedRunError(f"stopped at {compared.name}, seed {seed}; the same command goes on") from error
    except StorageError:
        raise
    except FalconetError as error:
        return " ".join(str(error).split())
    except Exception as error:  # Networks of other libraries raise what they like; hours of others must not be lost.
        return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


def _evaluate_trial(compared: ComparedModel, seed: int, study: ComparisonContext) -> ModelRun:
    """Evaluate a trained network on the test split and keep its answers, and its accuracy on the validation split."""
    out, dataset = study.out, study.dataset
    folder = _run_folder(compared, seed, out)
    artifact = load_artifact(folder)
    _, answers = evaluate_split(artifact, dataset.splits[_SPLIT], _SPLIT, dataset)
    val_accuracy = None
    if _holds_validation_out(artifact, study):
        val = predict_split(artifact, dataset, "val")
        val_accuracy = float((val.logits.argmax(axis=1) == val.split.labels).mean())
    trial = ModelRun(
        folder,
        answers.logits.argmax(axis=1).astype(np.int64),
        answers.split.labels,
        answers.split.hashes,
        len(artifact.config.output.labels),
        val_accuracy,
    )
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        answers=trial.answers,
        labels=trial.labels,
        hashes=trial.hashes,
        num_classes=trial.num_classes,
        val_accuracy=math.nan if val_accuracy is None else val_accuracy,
        digests=np.array(sorted(read_config(folder / CONFIG_FILE)[1].values())),
    )
    write_bytes(_answers_file(compared, seed, out), buffer.getvalue())
    return trial


def _holds_validation_out(artifact: Artifact, study: ComparisonContext) -> bool:
    """Whether a network never learned from the validation samples of a study, as far as its folder states."""
    origin = artifact.config.provenance.data
    alike = origin.fingerprint == study.dataset.fingerprint and not find_changed_setting(study.terms.data, origin)
    return alike and not artifact.config.provenance.refit


def validate_fold(compared: ComparedModel, fold: int, study: ComparisonContext, dataset: Dataset) -> float | str:
    """Train a model without one fold; return its accuracy there, or why it cannot be.

    `dataset` has the fold as its validation split. The result of a fold is kept in `folds/MODEL-K-FOLD.json`; the
    network is not, since nothing would record which samples it was trained without.
    """
    path = study.out / "folds" / f"{compared.slug}-{study.folds}-{fold}.json"
    try:
        if (kept := _load_fold(path)) is not None:
            return kept
        plan = replace(plan_trial(compared, 0, study), dataset=dataset, if_exists="refuse")
        best = try_network(plan).result.best
        assert best is not None
        write_json(
            path, {"model": compared.name, "fold": fold, "folds": study.folds, "val_accuracy": best.val_accuracy}
        )
        return best.val_accuracy
    except InterruptedRunError as error:
        raise InterruptedRunError(
            f"stopped at {compared.name}, fold {fold + 1} of {study.folds}; the same command goes on"
        ) from error
    except StorageError:
        raise
    except FalconetError as error:
        return " ".join(str(error).split())
    except Exception as error:  # As in `attempt`.
        return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


def _load_fold(path: Path) -> float | None:
    """Return the accuracy of a fold that has been kept; None where there is none."""
    try:
        return _read_number(read_json(path).get("val_accuracy")) if path.is_file() else None
    except ArtifactError:
        return None


def load_trial(compared: ComparedModel, seed: int, out: Path) -> ModelRun | None:
    """Return a trial that has been kept; None where there is none, or the weights are others now, or another run's.

    The answers are written when training has ended, so that they also tell a finished run from another one.
    """
    folder = _run_folder(compared, seed, out)
    try:
        described, found = read_config(folder / CONFIG_FILE)
        digests = sorted(found.values())
        # A folder may have been copied to another's name: one network, twice, would show no variance.
        if compared.folder is None and (described.architecture, described.provenance.seed) != (
            compared.model,
            seed,
        ):
            return None
        with np.load(_answers_file(compared, seed, out)) as kept:
            if kept["digests"].tolist() != digests:
                return None
            known = float(kept["val_accuracy"])
            val_accuracy = None if math.isnan(known) else known
            return ModelRun(
                folder, kept["answers"], kept["labels"], kept["hashes"], int(kept["num_classes"]), val_accuracy
            )
    except (FalconetError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def measure_cost(artifact: Artifact, latencies: Mapping[Runtime, Latency]) -> Cost:
    """Return what a network costs that was timed in several runtimes."""
    spec, fastest = artifact.config.input, find_fastest(latencies)
    cost = count_complexity(artifact.model, spec.shape, artifact.config.architecture, spec.kind)
    size = len(artifact.serialize())
    return Cost(cost.params, cost.macs, size, latencies["torch"].p50, fastest, latencies[fastest].p50)
