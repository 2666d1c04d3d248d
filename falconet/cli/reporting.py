"""The verb report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from falconet.cli.app import DataRoot, Debug, Json, app, describe_evaluation


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run that falconet train has finished.")],
    costs: Annotated[
        bool, typer.Option("--costs", help="Add latencies in all installed runtimes: an export, some ten seconds.")
    ] = False,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Add explanations of a few errors and correct predictions: some seconds.")
    ] = False,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rewrite report, model card and figures of a run, with slower parts where asked for."""
    from falconet.model_files import check_artifact

    check_artifact(run)
    from falconet import reporting, terminal

    made = reporting.update_report(run, costs=costs, reasons=reasons, data_root=data_root, notify=terminal.print_note)
    if json:
        terminal.print_json({"out": str(run), **reporting.list_facts(made)})
        return
    terminal.print_line(describe_evaluation(made.test))
    latencies = ", ".join(f"{latency.p50:.3f} ms in {runtime}" for runtime, latency in made.latencies.items())
    terminal.print_line(f"latency of one sample: {latencies}")
    terminal.print_line(f"report: {run / 'report.html'}")
