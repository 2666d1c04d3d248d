"""The verb export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from falconet.cli.app import DataRoot, Debug, Json, ModelFolder, app
from falconet.exporters.metadata import UNSTATED
from falconet.exporters.targets import MAX_DROP, check_out, find_target
from falconet.renames import note


@app.command()
def export(
    model: ModelFolder,
    to: Annotated[
        str, typer.Option(metavar="TARGET", help="onnx, onnx-int8, openvino, executorch, torch (.pt2) or triton.")
    ],
    out: Annotated[Path, typer.Option(metavar="PATH", help="The file; for triton the folder of the repository.")],
    no_preprocessing: Annotated[
        bool, typer.Option("--no-preprocessing", help="The bare network: normalized input to logits.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", hidden=True)] = False,
    max_drop: Annotated[
        float, typer.Option(metavar="POINTS", help="Of accuracy, that onnx-int8 may lose; more is refused.")
    ] = MAX_DROP,
    source: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Samples to compare on, if not the validation split of the model's data."),
    ] = None,
    license: Annotated[
        str, typer.Option(metavar="ID", help="What the file says of its license, such as apache-2.0.")
    ] = UNSTATED,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a trained model for another runtime, if it answers there as it does here."""
    from falconet.catalog import check_artifact, check_source

    if raw:
        note("--raw is now --no-preprocessing")
    find_target(to)
    check_out(to, out)
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
    terminal.print_export(result)
