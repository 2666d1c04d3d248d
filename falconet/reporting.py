"""The reports in a run's folder: `metrics.json`, `report.html` and `README.md`, written and rewritten."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from falconet.artifact import Artifact, load_artifact
from falconet.data import Dataset
from falconet.errors import ArtifactError, DataError, UsageError
from falconet.evaluation import SplitLogits, evaluate_answers, evaluate_split, measure_calibration
from falconet.evaluation.baselines import Baseline, Prepared, fit_linear, measure_baselines, prepare_baseline_inputs
from falconet.evaluation.evaluation import find_split
from falconet.evaluation.logits import predict_split
from falconet.exporters.targets import Runtime
from falconet.latency import Latency
from falconet.modalities import modality_of
from falconet.planning import RUN_CONFIG_FILE, holds_run, read_settings, short_name
from falconet.report import LeaderboardRow, ModelReport, TrainingLog, build_report, render_card, render_html
from falconet.schema import from_mapping, to_mapping
from falconet.storage import format_json, hold, read_json
from falconet.training import EpochRow
from falconet.training.diagnoses import Diagnosis, LayerStats, diagnose, load_layer_stats
from falconet.training.energy import energy_facts, load_energy
from falconet.training.usefulness import no_better_than

HISTORY_FILE, LAYER_STATS_FILE, _METRICS_FILE = "metrics.csv", "vitals.csv", "metrics.json"
Notify = Callable[[str], object]
"""Function that is called with a line before anything that takes long."""


@dataclass(frozen=True)
class Extras:
    """Optional parts of a report: each takes a while and is added when asked for."""

    costs: bool = False
    """Whether to add the latencies in all installed runtimes."""
    reasons: bool = False
    """Whether to add explanations of a few predictions."""


def update_report(
    folder: str | Path,
    *,
    costs: bool = False,
    reasons: bool = False,
    data_root: str | Path | None = None,
    notify: Notify = lambda line: None,
) -> ModelReport:
    """Rewrite the report, the model card and the figures of a run from the files on disk, and return the report.

    `costs` adds the latencies in all installed runtimes, `reasons` explanations of a few errors and hits; what either
    added to the same weights before stays. `notify` is called with a line before anything that takes long.
    Nothing but these three files changes. Raises UsageError for a folder that is not a finished run's, DataError where
    the data are not those any more that the model was trained on, and RunExistsError where another process is at work
    in the folder.
    """
    out = Path(folder)
    _check_run(out)
    with hold(out):
        artifact = load_artifact(out)
        known = _read_facts(out, artifact)
        source = artifact.config.provenance.data.source
        dataset, _, _ = find_split(artifact, source, "test", data_root=data_root)
        dataset = dataclasses.replace(dataset, notes=_read_notes(known, dataset.notes))
        history, layer_stats = load_history(out / HISTORY_FILE), load_layer_stats(out / LAYER_STATS_FILE)
        log = _read_log(known, TrainingLog(layer_stats, diagnose_run(history, layer_stats, dataset), load_energy(out)))
        report, _ = report_on(
            artifact,
            dataset,
            predict_split(artifact, dataset, "val"),
            history=history,
            log=log,
            settings=read_settings(out / RUN_CONFIG_FILE),
            extras=Extras(costs, reasons or "reasons" in known),
            latencies=read_latencies(known),
            notify=notify,
        )
        save_report(artifact, report, out, dataset)
    return report


def _check_run(folder: Path) -> None:
    """Raise UsageError for a folder whose report cannot be written anew: one that no finished training has written."""
    if not holds_run(folder) or not (folder / HISTORY_FILE).is_file():
        found = "a compressed model, whose report is complete" if (folder / "model.fnet").is_file() else "none"
        raise UsageError(f"{folder}: wanted the folder of a run that falconet train has finished, found {found}")


def report_on(
    artifact: Artifact,
    dataset: Dataset,
    val_answers: SplitLogits,
    *,
    history: Sequence[EpochRow],
    log: TrainingLog,
    settings: Mapping[str, Any],
    extras: Extras = Extras(),
    latencies: Mapping[Runtime, Latency] | None = None,
    learned: Prepared | None = None,
    notify: Notify = lambda line: None,
) -> tuple[ModelReport, SplitLogits]:
    """Evaluate a trained network from raw samples; return its report, and its logits on the test split.

    `val_answers` are those on the validation split; `latencies` those that are known already. Baselines are fitted to
    `learned`, the training samples; without them they are those of the `log`.
    """
    val = evaluate_answers(artifact, val_answers, "val", dataset)
    test, answers = evaluate_split(artifact, dataset.splits["test"], "test", dataset)
    test = dataclasses.replace(test, notes=dataset.notes)
    if learned is not None:
        log = add_baselines(log, artifact, learned, val_answers, answers)
    if extras.costs:
        latencies = _time_all(artifact, notify)
    report = build_report(
        artifact,
        history,
        val,
        test,
        answers=answers,
        calibration=measure_calibration(artifact, val_answers, answers),
        log=log,
        settings=settings,
        latencies=latencies,
        reasons=_explain_some(artifact, answers, notify) if extras.reasons else None,
    )
    return report, answers


def add_baselines(
    log: TrainingLog, artifact: Artifact, learned: Prepared, val_answers: SplitLogits, answers: SplitLogits
) -> TrainingLog:
    """Return the training log with the baselines on the test split, fitted to `learned`.

    Where the linear model is as good on the validation split, that is a diagnosis of a network.
    """
    spec, tokenizer, classes = artifact.config.input, artifact.tokenizer, artifact.config.output.num_outputs
    linear = fit_linear(learned, spec.kind, classes, modality_of(spec).in_channels(spec))
    baselines = measure_baselines(learned, linear, prepare_baseline_inputs(answers, spec, tokenizer), classes)
    log = dataclasses.replace(log, baselines=baselines)
    if linear is None or artifact.config.architecture == "linear":
        return log
    asked = prepare_baseline_inputs(val_answers, spec, tokenizer)
    right = linear.answer(asked.samples) == asked.samples.labels.numpy()
    epoch = artifact.config.provenance.best_epoch
    found = no_better_than("linear", right, asked.hits, epoch=epoch)
    return dataclasses.replace(log, diagnoses=(*log.diagnoses, found)) if found else log


def _time_all(artifact: Artifact, notify: Notify) -> Mapping[Runtime, Latency]:
    """Return the latencies in all runtimes that are installed."""
    from falconet.exporters.timing import describe_plan, time_runtimes

    notify(describe_plan())
    return time_runtimes(artifact)


def _explain_some(artifact: Artifact, answers: SplitLogits, notify: Notify) -> Any:
    """Return explanations of a few predictions."""
    from falconet.explanation.reasons import CASES, find_reasons

    notify(f"explaining {2 * CASES} answers of the test split: some seconds, longer for large networks")
    return find_reasons(artifact, answers)


def save_report(artifact: Artifact, report: ModelReport, out: Path, dataset: Dataset) -> None:
    """Write a model with its three reports, in one step."""
    title = f"{report.name} on {short_name(dataset.source)}"
    texts = {
        _METRICS_FILE: format_json(list_facts(report)),
        "report.html": render_html([report], title),
        "README.md": render_card(report),
    }
    artifact.save(out, texts)


def list_facts(report: ModelReport) -> dict[str, Any]:
    """Return the content of `metrics.json`: `runtimes` and `reasons` only where they were asked for."""
    facts: dict[str, Any] = {
        "weights_sha256": report.digest,
        "params": report.params,
        "macs": report.macs,
        "bytes": report.bytes,
        "latency_ms": report.latency.p50,
        "latencies_ms": {runtime: latency.p50 for runtime, latency in report.latencies.items()},
        "val": to_mapping(report.val),
        "test": to_mapping(report.test),
        "calibration": to_mapping(report.calibration),
        "diagnoses": [to_mapping(diagnosis) for diagnosis in report.log.diagnoses],
        "leaderboard": [to_mapping(row) for row in report.log.leaderboard],
        "baselines": [to_mapping(baseline) for baseline in report.log.baselines],
        "training_seconds": sum(row.seconds for row in report.history),
    }
    if report.timed:
        facts["runtimes"] = {runtime: to_mapping(latency) for runtime, latency in report.latencies.items()}
    if report.reasons is not None:
        scores = [to_mapping(score) for score in report.reasons.scores]
        found = {"method": report.reasons.method, "believable": report.reasons.believable, "note": report.reasons.note}
        facts["reasons"] = {**found, "scores": scores}
    if report.log.energy:
        facts["energy"] = energy_facts(report.log.energy)
    return facts


def _read_facts(out: Path, artifact: Artifact) -> dict[str, Any]:
    """Return the content of `metrics.json`; nothing where it is missing, damaged or of other weights."""
    try:
        found = read_json(out / _METRICS_FILE)
    except ArtifactError:
        return {}
    return found if found.get("weights_sha256") == artifact.digest else {}


def _read_log(facts: Mapping[str, Any], log: TrainingLog) -> TrainingLog:
    """Return the training log with what only `metrics.json` holds of it, where that can be read."""
    try:
        diagnoses = tuple(from_mapping(Diagnosis, row) for row in facts["diagnoses"])
        leaderboard = tuple(from_mapping(LeaderboardRow, row) for row in facts["leaderboard"])
        baselines = tuple(from_mapping(Baseline, row) for row in facts["baselines"])
    except (KeyError, TypeError, AttributeError, UsageError):
        return log
    return dataclasses.replace(log, diagnoses=diagnoses, leaderboard=leaderboard, baselines=baselines)


def _read_notes(facts: Mapping[str, Any], notes: tuple[str, ...]) -> tuple[str, ...]:
    """Return training's notes on the data, such as on leaks between splits, which reading alone does not give."""
    try:
        known = [str(note) for note in facts["test"]["notes"]]
    except (KeyError, TypeError):
        known = []
    return tuple(dict.fromkeys([*known, *notes]))


def read_latencies(facts: Mapping[str, Any]) -> dict[Runtime, Latency] | None:
    """Return the latencies in all runtimes that an earlier report had; None where it had none."""
    try:
        found = {name: from_mapping(Latency, values) for name, values in facts.get("runtimes", {}).items()}
    except (AttributeError, UsageError):
        return None
    return found if "torch" in found else None


def load_history(path: Path) -> tuple[EpochRow, ...]:
    """Return the epochs of `metrics.csv`. Raises DataError for a damaged one."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(
                EpochRow(int(row["epoch"]), *(float(row[field.name]) for field in dataclasses.fields(EpochRow)[1:]))
                for row in csv.DictReader(file, strict=True)
            )
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: wanted a row for each epoch, found other values ({error})") from error


def diagnose_run(
    history: Sequence[EpochRow], layer_stats: Sequence[LayerStats], dataset: Dataset, *, diverged: bool = False
) -> list[Diagnosis]:
    """Return the diagnoses of a run, relative to always predicting the validation split's most frequent class."""
    labels = dataset.splits["val"].labels
    return list(diagnose(history, layer_stats, float(np.bincount(labels).max() / len(labels)), diverged=diverged))
