"""The verb label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from falconet.cli.app import (
    Assignments,
    DataRoot,
    Debug,
    Follow,
    Groups,
    Json,
    Source,
    Strict,
    app,
    ask_data,
    name_settings,
)


@app.command()
def label(
    source: Source,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A trained model for uncertainty sampling; default: features that suit the samples.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the page; runs/<source>-labels by default.")] = None,
    count: Annotated[int, typer.Option(metavar="N", help="Most samples of each list on the page.", min=1)] = 100,
    groups: Groups = None,
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a page to label samples on: likely label errors first, then the most informative samples."""
    from falconet.catalog import check_source
    from falconet.model_files import check_artifact

    check_source(source)
    if model is not None:
        check_artifact(model)
    asked = ask_data(settings, groups, follow, strict)["data"]
    from falconet import labeling, terminal
    from falconet.schema import to_mapping

    done = labeling.label(
        source,
        model=model,
        out=out,
        count=count,
        data_root=data_root,
        settings=asked,
        callbacks=terminal.watch("label errors"),
    )
    if json:
        terminal.print_json(to_mapping(done))
        return
    for note in done.notes:
        terminal.print_note(name_settings(note))
    if done.skipped:
        first = done.skipped[0]
        terminal.print_note(f"skipped {len(done.skipped):,}, the first: {first.file}: {name_settings(first.reason)}")
    terminal.print_line(
        f"{done.labeled:,} samples with labels, {len(done.label_errors):,} likely wrong ones on the page; "
        f"{done.unlabeled:,} without, {len(done.next):,} to label next"
    )
    terminal.print_line(f"page: {done.page}")
    terminal.print_line(f"tasks for Label Studio: {done.tasks}")
