"""The verb compress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from falconet.cli.app import Assignments, DataRoot, Debug, Json, ModelFolder, Source, app
from falconet.errors import UsageError

if TYPE_CHECKING:
    from falconet.compression import Compression


@app.command()
def compress(
    model: ModelFolder,
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for the compressed model.")],
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Size limit of model.fnet, such as 40kB; the most accurate model within it is looked for.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Limit of lost accuracy; the smallest file within it is looked for. Default without --max-size: 0.5.",
        ),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Latency limit for one sample on one thread of this machine, such as 1ms."),
    ] = None,
    max_macs: Annotated[str | None, typer.Option(metavar="COUNT", help="Limit of MACs a sample, such as 1.5M.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time limit of all trials, also before --resume, such as 10m: none begins that would end later.",
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A named recipe for compression, or a YAML file.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of training in each trial.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the search in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the search in the folder.")] = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compress a trained model: find its smallest file within a budget, or the most accurate one of a size."""
    from falconet.catalog import check_source
    from falconet.compression.budget import Budget
    from falconet.model_files import check_artifact
    from falconet.planning import parse_assignments
    from falconet.schema import merge
    from falconet.units import parse_count, parse_latency, parse_size, parse_time

    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    budget = Budget(
        max_bytes=None if max_size is None else parse_size(max_size, "--max-size"),
        max_drop=max_drop,
        max_latency_ms=None if max_latency is None else parse_latency(max_latency, "--max-latency"),
        max_macs=None if max_macs is None else parse_count(max_macs, "--max-macs"),
        seconds=None if time is None else parse_time(time, "--time"),
    )
    check_artifact(model)
    check_source(source)
    asked = parse_assignments(settings or [])
    if epochs is not None:
        asked = merge(asked, {"compression": {"epochs": epochs}})
    from falconet import compression, terminal

    result = compression.compress(
        model,
        source,
        out,
        budget=budget,
        recipe=recipe,
        settings=asked,
        if_exists="resume" if resume else "overwrite" if overwrite else "refuse",
        data_root=data_root,
        watcher=compression.Watcher(terminal.print_note, terminal.print_trial, terminal.watch),
    )
    if json:
        terminal.print_json(result.facts())
        return
    _print_compression(result)


def _print_compression(result: Compression) -> None:
    """Print the results of a search."""
    from falconet import terminal

    found = result.shrinking
    columns = ("", "before", "after", "")
    rows = [
        ("bytes", f"{found.bytes_before:,}", f"{found.bytes_after:,}", f"{found.ratio:.1f}x smaller"),
        (
            f"test accuracy (n = {found.comparison.n:,})",
            f"{found.comparison.other_accuracy:.2%}",
            f"{found.comparison.accuracy:.2%}",
            found.describe_drop(),
        ),
        (
            "MACs",
            f"{found.macs_before:,}",
            f"{found.macs_after:,}",
            "" if found.macs_before == found.macs_after else f"{found.macs_before / found.macs_after:.2f}x fewer",
        ),
        (
            f"latency ({', '.join(dict.fromkeys(found.runtimes))})",
            f"{found.latency_before:.3f} ms",
            f"{found.latency_after:.3f} ms",
            found.describe_latency(),
        ),
    ]
    terminal.print_table(columns, rows)
    terminal.print_line(found.describe_int8())
    if found.untouched:
        terminal.print_some([f"left as it was: {name}: {reason}" for name, reason in found.untouched.items()])
    terminal.print_line(f"{result.out}: model.fnet, report.html; all trials: frontier.csv, frontier.png")
