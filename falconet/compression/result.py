"""The end of a search: the chosen network is evaluated on the test split, once, beside the one it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from falconet.artifact import Artifact, build_model, current_versions
from falconet.compression.budget import Budget
from falconet.compression.search import Trial
from falconet.compression.trial import SearchContext, count_macs, find_untouched, read_trial
from falconet.data import Dataset
from falconet.errors import FalconetError, StorageError
from falconet.evaluation import Evaluation, evaluate_split, measure_calibration
from falconet.evaluation.evaluation import evaluate_answers
from falconet.evaluation.logits import predict_split
from falconet.evaluation.paired import compare_answers
from falconet.explanation.reasons import find_reasons
from falconet.exporters.exporting import Export, export
from falconet.exporters.timing import time_together
from falconet.model_files import CODED_FILE, redact_settings
from falconet.report import CompressionSummary, ModelReport, TrainingLog, build_report, render_card, render_html
from falconet.schema import to_mapping
from falconet.storage import format_json, scratch


@dataclass(frozen=True, eq=False)
class Compression:
    """A finished search."""

    out: Path
    budget: Budget
    trials: tuple[Trial, ...]
    chosen: Trial
    shrinking: CompressionSummary
    """Summary of the chosen network beside the original one."""
    val: Evaluation
    test: Evaluation

    def facts(self) -> dict[str, Any]:
        """Return the results as plain data."""
        found = self.shrinking
        return {
            "out": str(self.out),
            "file": str(self.out / CODED_FILE),
            "bytes_before": found.bytes_before,
            "bytes_after": found.bytes_after,
            "ratio": found.ratio,
            "accuracy_before": found.comparison.other_accuracy,
            "accuracy_after": found.comparison.accuracy,
            "drop": found.drop,
            "drop_ci": found.drop_ci,
            "latency_ms_before": found.latency_before,
            "latency_ms_after": found.latency_after,
            "latencies_ms_before": {name: latency.p50 for name, latency in found.before.items()},
            "latencies_ms_after": {name: latency.p50 for name, latency in found.after.items()},
            "speedup": found.speed and found.speed.times,
            "speedup_ci": found.speed and [found.speed.low, found.speed.high],
            "macs_before": found.macs_before,
            "macs_after": found.macs_after,
            "chosen": to_mapping(self.chosen),
            "trials": [to_mapping(trial) for trial in self.trials],
            "untouched": dict(found.untouched),
        }


def finish(
    context: SearchContext,
    dataset: Dataset,
    out: Path,
    budget: Budget,
    trials: Sequence[Trial],
    chosen: Trial,
    data_root: str | Path | None,
) -> Compression:
    """Write the chosen network with its report, evaluated on the test split beside the one it came from."""
    dense, found = context.artifact, read_trial(chosen.number, context)
    described = replace(found.config, provenance=dense.config.provenance, versions=current_versions())
    artifact = replace(found, config=described)
    val_answers = predict_split(artifact, dataset, "val")
    val = evaluate_answers(artifact, val_answers, "val", dataset)
    test, answers = evaluate_split(artifact, dataset.splits["test"], "test", dataset)
    test = replace(test, notes=dataset.notes)
    before, after = time_together([dense, artifact])
    shrinking = CompressionSummary(
        bytes_before=_measure_dense(dense),
        bytes_after=len(artifact.serialize()),
        macs_before=count_macs(dense),
        macs_after=count_macs(artifact),
        comparison=compare_answers(answers, artifact, dense),
        before=before,
        after=after,
        integers=_time_integers(artifact, dataset, data_root),
        kept=_measure_density(artifact),
        bits=chosen.spec.bits,
        trials=len(trials),
        untouched=find_untouched(chosen.spec, context),
        epochs=_count_epochs(chosen, trials),
    )
    report = build_report(
        artifact,
        (),
        val,
        test,
        answers=answers,
        calibration=measure_calibration(artifact, val_answers, answers),
        log=TrainingLog(),
        settings=to_mapping(context.config),
        latencies=after,
        reasons=find_reasons(artifact, answers),
        shrinking=shrinking,
    )
    compression = Compression(out, budget, tuple(trials), chosen, shrinking, val, test)
    artifact.save(out, _render_report(report, compression, dataset))
    return compression


def _count_epochs(chosen: Trial, trials: Sequence[Trial]) -> int:
    """Return for how many epochs a trial's weights learned, from the dense network on."""
    numbered, found = {trial.number: trial for trial in trials}, chosen
    count = found.spec.epochs
    while (start := found.spec.start) is not None and start in numbered and start != found.number:
        found = numbered[start]
        count += found.spec.epochs
    return count


def _measure_density(artifact: Artifact) -> float:
    """Return the fraction of a network's weights that are not zero."""
    weights = [weight for weight in artifact.model.parameters() if weight.ndim > 1]
    return sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)


def _measure_dense(artifact: Artifact) -> int:
    """Return the bytes of all parameters of the architecture as it was before any compression, in single precision."""
    dense = build_model(replace(artifact.config, widths=None))
    return 4 * sum(parameter.numel() for parameter in dense.parameters())


def _time_integers(artifact: Artifact, source: Dataset, data_root: str | Path | None) -> Export | None:
    """Return an export in 8-bit integers, with its latency and drop; None without the extra, or where it fails."""
    try:
        with scratch() as folder:
            return export(
                artifact, "onnx-int8", folder / "model.onnx", max_drop=100, source=source, data_root=data_root
            )
    except StorageError:
        raise
    except FalconetError:
        return None


def _render_report(report: ModelReport, compression: Compression, dataset: Dataset) -> dict[str, str]:
    """Return `metrics.json`, the page and the model card, by their names."""
    evaluated = {"val": to_mapping(compression.val), "test": to_mapping(compression.test)}
    costs = {"params": report.params, "macs": report.macs, "bytes": report.bytes, "latency_ms": report.latency.p50}
    facts = {"weights_sha256": report.digest, **costs, **evaluated, "compression": redact_settings(compression.facts())}
    title = f"{report.name}, compressed, on {Path(dataset.source).name}"
    return {
        "metrics.json": format_json(facts),
        "report.html": render_html([report], title),
        "README.md": render_card(report),
    }
