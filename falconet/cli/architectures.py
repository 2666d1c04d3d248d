"""Verbs about architectures: demo, models, summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from falconet.cli.app import Assignments, Debug, Json, app, check_picture
from falconet.errors import ConfigError, UnknownNameError, UsageError
from falconet.modalities import MODALITIES


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/demo"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier demonstration in the folder.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train, evaluate and report models of the embedded digits, in under a minute."""
    from falconet import terminal
    from falconet.demonstration import demonstrate

    result = demonstrate(out, terminal.watch, "overwrite" if overwrite else "refuse")
    if json:
        terminal.print_json({"report": str(result.report), "rows": [_to_row(run) for run in result.runs]})
        return
    columns = (
        "model",
        "accuracy",
        "95% interval",
        "macro recall",
        "macro F1",
        "parameters",
        "MACs",
        "bytes",
        "latency",
    )
    terminal.print_table(columns, [_format_row(_to_row(run)) for run in result.runs])
    terminal.print_line()
    terminal.print_line(f"report: {result.report}")
    terminal.print_line(f"next:   falconet predict {result.runs[0].out} YOUR_IMAGE.png")


def _to_row(run: Any) -> dict[str, Any]:
    """Return the figures by which models are compared."""
    test, report = run.test, run.report
    return {
        "model": run.architecture,
        "out": str(run.out),
        "accuracy": test.accuracy,
        "accuracy_ci": list(test.accuracy_ci),
        "macro_recall": test.macro_recall,
        "macro_f1": test.macro_f1,
        "params": report.params,
        "macs": report.macs,
        "bytes": report.bytes,
        "latency_ms": report.latency.p50,
        "seconds": run.seconds,
    }


def _format_row(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["accuracy_ci"]
    return (
        row["model"],
        f"{row['accuracy']:.2%}",
        f"{low:.2%} – {high:.2%}",
        f"{row['macro_recall']:.2%}",
        f"{row['macro_f1']:.2%}",
        f"{row['params']:,}",
        f"{row['macs']:,}",
        f"{row['bytes']:,}",
        f"{row['latency_ms']:.2f} ms",
    )


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern.")] = "*",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="List published weights that load offline: license, size, source.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List architectures: parameters, MACs, input, paper."""
    from falconet.models import MODELS, list_models

    names = list_models(pattern)
    if not names:
        raise UsageError(f"no model matches {pattern!r}; `falconet models` lists all {len(MODELS)}")
    if pretrained:
        _list_weights(pattern, names, json)
        return
    entries = [(name, MODELS[name]) for name in names]
    from falconet import terminal

    if json:
        rows = [
            {
                "name": name,
                "params": entry.params,
                "macs": entry.macs,
                "input": list(entry.input),
                "kinds": list(entry.kinds),
                "paper": entry.paper,
            }
            for name, entry in entries
        ]
        terminal.print_json({"models": rows})
        return
    table = [
        (
            name,
            "/".join(entry.kinds),
            f"{entry.params:,}",
            f"{entry.macs:,}",
            "x".join(map(str, entry.input)),
            entry.paper,
        )
        for name, entry in entries
    ]
    terminal.print_table(("model", "modality", "parameters", "MACs", "input", "paper"), table)


def _list_weights(pattern: str, names: Sequence[str], json: bool) -> None:
    """Print the published weights of architectures. Raises UsageError where there are none."""
    from falconet import terminal
    from falconet.models.weights.published import PUBLISHED

    entries = [entry for entry in PUBLISHED if entry.architecture in names]
    if not entries:
        known = ", ".join(dict.fromkeys(entry.architecture for entry in PUBLISHED))
        raise UsageError(f"no published weights match {pattern!r}; there are some of {known}")
    if json:
        terminal.print_json({"weights": [dataclasses.asdict(entry) for entry in entries]})
        return
    table = [
        (entry.architecture, entry.origin, f"{entry.bytes:,}", entry.license, entry.distribution, entry.source)
        for entry in entries
    ]
    terminal.print_table(("model", "--pretrained", "bytes", "license", "package", "source"), table)


@app.command()
def summary(
    model: Annotated[str, typer.Argument(help="A name that `falconet models` lists.")],
    shape: Annotated[str | None, typer.Option("--input", help="Shape of a sample, such as 3x224x224.")] = None,
    kind: Annotated[str | None, typer.Option(help="image, series or text, for a model that takes several.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.", min=2)] = None,
    settings: Assignments = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the network's shape and cost into a PNG.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a model layer by layer: output shape, parameters, MACs, activations, receptive field."""
    from falconet.models import find_model

    find_model(model)
    known = next((name for name in MODALITIES if name == kind), None)
    if kind is not None and known is None:
        raise UnknownNameError("kind", kind, MODALITIES)
    check_picture("--plot", plot)
    input_shape = _parse_shape(shape) if shape else None
    options = _parse_options(settings or [])
    from falconet import terminal
    from falconet.complexity import summarize

    cost = summarize(model, input_shape=input_shape, kind=known, num_classes=classes, **options)
    if plot:
        from falconet.data.drawing import write_figure
        from falconet.report.structure import draw_structure

        write_figure(draw_structure(cost), plot)
        terminal.print_note(f"plot: {plot}")
    if json:
        from falconet.schema import to_mapping

        terminal.print_json({**to_mapping(cost), "activation_bytes": cost.activation_bytes})
        return
    rows = [
        (
            layer.name,
            layer.type,
            "x".join(map(str, layer.output_shape)),
            f"{layer.params:,}",
            f"{layer.macs:,}",
            f"{layer.activation_bytes:,}",
            "x".join(map(str, layer.receptive_field)),
        )
        for layer in cost.layers
    ]
    total = ("total", "", "", f"{cost.params:,}", f"{cost.macs:,}", f"{cost.activation_bytes:,}", "")
    terminal.print_line(f"{model}, input {'x'.join(map(str, cost.input))}")
    columns = ("layer", "type", "output", "parameters", "MACs", "activation bytes", "receptive field")
    terminal.print_table(columns, [*rows, total])
    terminal.print_line(
        "A MAC is a multiplication with its addition, in convolutions, dense layers, recurrence and attention; "
        "pooling, activations, normalization and biases are not counted. Activations are float32."
    )


def _parse_options(settings: list[str]) -> dict[str, Any]:
    """Return a model's options from assignments as `train` takes them. Raises ConfigError for other settings."""
    from falconet.planning import parse_assignments

    asked = parse_assignments(settings)
    found = asked.pop("model", {})
    options = found.pop("options", {}) if isinstance(found, dict) else {}
    if asked or found or not isinstance(options, dict):
        raise ConfigError("--set: wanted model.options.NAME=VALUE; a summary has no other settings")
    return options


def _parse_shape(text: str) -> tuple[int, ...]:
    """Read "3x224x224" or "1x150". Raises ConfigError."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(
            "--input: wanted channels, height and width as 3x224x224, channels and steps as 1x150, or vocabulary and "
            f"tokens as 8000x64, found {text!r}"
        )
    return tuple(int(part) for part in parts)
