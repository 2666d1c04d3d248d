"""The model card: Markdown with the YAML front matter that the Hugging Face Hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from falconet.escaping import escape_line, escape_markdown
from falconet.evaluation import Evaluation
from falconet.evaluation.baselines import Baseline
from falconet.modalities import modality_of
from falconet.report.facts import ModelReport
from falconet.report.html import format_bytes, format_percent
from falconet.units import format_epochs


def render_card(report: ModelReport) -> str:
    """Return `README.md` of an artifact: the facts of its report in a few lines."""
    front = yaml.safe_dump(_front_matter(report), sort_keys=False, allow_unicode=True)
    config, test, origin = report.config, report.test, report.config.provenance
    low, high = test.accuracy_ci
    rows = [
        (
            "test accuracy",
            f"{format_percent(test.accuracy)} (95%: {format_percent(low)} to {format_percent(high)}, n = {test.n})",
        ),
        *((name, _describe_metric(test, name.replace(" ", "_"))) for name in ("macro precision", "macro recall")),
        ("macro F1", _describe_metric(test, "macro_f1")),
        *((f"{row.name}, a baseline", _describe_baseline(row)) for row in report.log.baselines),
        ("log-loss", f"{test.log_loss:.4f} nats"),
        ("Brier score", f"{test.brier:.4f}"),
        (
            "expected calibration error",
            f"{format_percent(test.ece)}, at temperature {config.calibration_temperature:g}",
        ),
        ("parameters", f"{report.params:,}"),
        ("multiply-accumulates", f"{report.macs:,}"),
        ("weights", format_bytes(report.bytes)),
        ("latency", f"{_describe_latencies(report)} for one sample, median, on {report.environment['processor']}"),
        ("input", modality_of(config.input).describe_input(config.input)),
    ]
    if report.shrinking:
        found = report.shrinking
        small = f"{found.ratio:.1f} times smaller than its architecture in single precision, {found.describe_drop()}"
        rows.append(("compressed", f"{small} on the test split"))
    if report.energy:
        rows.append(("energy of training", report.energy))
    table = "\n".join(f"| {name} | {escape_markdown(value)} |" for name, value in rows)
    labels = ", ".join(map(escape_markdown, config.output.labels))
    cautions = "".join(f"\n**Caution: {escape_markdown(caution)}.**\n" for caution in report.cautions)
    title = escape_markdown(f"{config.architecture} on {Path(origin.data.source).name}")
    return f"""---
{front}---

# {title}

A classifier of {len(config.output.labels)} classes, trained with Falconet {config.versions.get("falconet", "")}.
`report.html` beside this file has the curves, the confusion matrix and the mistakes.
{cautions}
| | |
| --- | --- |
{table}

Classes: {labels}.

```console
$ falconet predict . {modality_of(config.input).example}
```

{_describe_training(report)} Data fingerprint: `{origin.data.fingerprint}`.
"""


def _describe_training(report: ModelReport) -> str:
    """Return where the weights come from."""
    origin = report.config.provenance
    if report.shrinking:
        more = f", and trained for {report.shrinking.epochs} more while it was compressed"
        trained = f"trained for {format_epochs(origin.epochs)} with seed {origin.seed}"
        return f"Compressed from a network that had {trained}{more}."
    if report.linear_probe:
        fitted = f"the output layer is fitted by {report.linear_probe} on frozen features"
        solved = f"A linear probe: {fitted}, with seed {origin.seed}"
        if origin.refit:
            again = "and then anew, on training and\nvalidation samples together"
            return f"{solved}, {again}; validation figures are those of the first solution."
        return f"{solved}; nothing else was trained."
    last = report.settings["training"]["restore"] == "last"
    chosen = "the last one" if last else "the best on the validation split"
    trained = f"Trained for {format_epochs(origin.epochs)} with seed {origin.seed}"
    if origin.refit:
        return (
            f"{trained}, and then anew for {origin.best_epoch}, on training and\nvalidation samples together; "
            "validation figures are those of the first fit."
        )
    flattered = " Its teacher had learned from the\nvalidation samples, so that they flatter it."
    taught = flattered if origin.refit_teacher else ""
    return f"{trained}; the weights are those of epoch {origin.best_epoch},\n{chosen}.{taught}"


def _describe_latencies(report: ModelReport) -> str:
    """Return the median of each runtime, the fastest first."""
    ranked = sorted(report.latencies.items(), key=lambda item: item[1].p50)
    return ", ".join(f"{latency.p50:.2f} ms in {runtime}" for runtime, latency in ranked)


def _describe_baseline(row: Baseline) -> str:
    """Return a baseline's accuracy, and how far ahead the model is."""
    low, high = (100 * bound for bound in row.difference_ci)
    ahead = f"the model is ahead by {100 * row.difference:+.2f} points (95%: {low:+.2f} to {high:+.2f})"
    return f"{format_percent(row.accuracy)}; {ahead}"


def _describe_metric(test: Evaluation, figure: str) -> str:
    """Return a figure of the test split with its interval, where it has one."""
    interval = test.intervals[figure]
    bounds = f" (95%: {' to '.join(map(format_percent, interval))})" if interval else ""
    return f"{format_percent(getattr(test, figure))}{bounds}"


def _front_matter(report: ModelReport) -> dict[str, Any]:
    """Return the metadata, `model-index` included."""
    task = modality_of(report.config.input).name_task(report.config.input)
    source, test = escape_line(Path(report.config.provenance.data.source).name), report.test
    metrics = [
        {"type": "accuracy", "value": test.accuracy},
        {"type": "recall", "value": test.macro_recall, "args": {"average": "macro"}},
        {"type": "f1", "value": test.macro_f1, "args": {"average": "macro"}},
    ]
    result = {
        "task": {"type": task},
        "dataset": {"name": source, "type": source, "split": "test"},
        "metrics": metrics,
    }
    energy = report.log.energy
    emitted = {"co2_eq_emissions": {"emissions": energy.co2_g, "source": "codecarbon"}} if energy and energy.wh else {}
    return {
        "library_name": "falconet",
        "pipeline_tag": task,
        "tags": ["falconet", report.name],
        "weights_sha256": report.digest,
        **emitted,
        "model-index": [{"name": report.name, "results": [result]}],
    }
