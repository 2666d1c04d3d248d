"""The verb export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from falconet.cli.app import DataRoot, Debug, Json, ModelFolder, app
from falconet.exporters.metadata import UNSTATED
from falconet.exporters.targets import MAX_DROP, check_export_path, find_target
from falconet.renames import note

if TYPE_CHECKING:
    from falconet.exporters.exporting import Export
    from falconet.exporters.parity import Parity


@app.command()
def export(
    model: ModelFolder,
    to: Annotated[
        str, typer.Option(metavar="TARGET", help="onnx, onnx-int8, openvino, executorch, torch (.pt2) or triton.")
    ],
    out: Annotated[Path, typer.Option(metavar="PATH", help="File to write; for triton, folder of the repository.")],
    no_preprocessing: Annotated[
        bool, typer.Option("--no-preprocessing", help="Export the bare network: normalized input to logits.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", hidden=True)] = False,
    max_drop: Annotated[
        float, typer.Option(metavar="POINTS", help="Points of accuracy that onnx-int8 may lose; more is refused.")
    ] = MAX_DROP,
    source: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Samples to compare on, if not the validation split of the model's data."),
    ] = None,
    license: Annotated[
        str, typer.Option(metavar="ID", help="License that the file states, such as apache-2.0.")
    ] = UNSTATED,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Export a trained model for another runtime, if it predicts there as it does here."""
    from falconet.catalog import check_source
    from falconet.model_files import check_artifact

    if raw:
        note("--raw is now --no-preprocessing")
    find_target(to)
    check_export_path(to, out)
    check_artifact(model)
    if source:
        check_source(source)
    from falconet import terminal
    from falconet.exporters.exporting import export as write_export

    result = write_export(
        model,
        to,
        out,
        preprocessing=not (no_preprocessing or raw),
        max_drop=max_drop,
        source=source,
        data_root=data_root,
        license=license,
    )
    if json:
        terminal.print_json(result.facts())
        return
    print_export(result)


def print_export(result: Export) -> None:
    """Print what was written, its parity with the model, and its latency."""
    from falconet import terminal

    terminal.print_line(f"{result.path}: {result.target}, {result.bytes:,} bytes")
    if len(result.files) > 1:
        terminal.print_some([f"{name}: {size:,} bytes" for name, size in result.files.items()])
    if result.grown:
        terminal.print_line(result.grown)
    for line in _describe_parity(result.parity):
        terminal.print_line(line)
    times = f"{result.latency_ms:.3f} ms in {result.runtime}, {result.model_latency_ms:.3f} ms by the model itself"
    threads = "threads of its own choice" if result.runtime == "executorch" else "one thread"
    how = f"median of one sample, from raw to probabilities, {threads}"
    terminal.print_line(f"latency: {times} ({how})")
    if result.speed is not None:
        terminal.print_line(f"speed: {result.speed.describe('the model itself')}")
    if result.baseline_latency_ms is not None and result.baseline_speed is not None:
        own = f"fp32 {result.baseline_latency_ms:.3f} ms"
        slower = result.baseline_speed.measurable and result.baseline_speed.times < 1
        advice = ": on this machine, --to onnx answers sooner" if slower else ""
        terminal.print_line(f"{own}; int8: {result.baseline_speed.describe()}{advice}")


def _describe_parity(parity: Parity) -> list[str]:
    """Return lines about an export's parity with the model."""
    text = (
        f"parity: largest difference of a probability {parity.max_abs_difference:.2g}, {parity.agreement:.2%} equal "
        f"answers on {parity.n:,} {parity.samples}"
    )
    if parity.logit_difference is not None:
        text += f"; of a logit {parity.logit_difference:.2g} of the largest"
        text += f", {parity.logit_noise or 0:.2g} of them on average (root mean square)"
    if parity.accuracy_before is None or parity.accuracy_drop is None:
        return [text]
    from falconet.report.facts import describe_change

    interval = parity.accuracy_drop_ci
    lost = describe_change(100 * parity.accuracy_drop, interval and (100 * interval[0], 100 * interval[1]))
    return [text, f"accuracy: {parity.accuracy_before:.2%} before, {parity.accuracy_after:.2%} after: {lost}"]
