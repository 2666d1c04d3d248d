"""The verb data."""

from __future__ import annotations

from dataclasses import replace
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
    check_picture,
)


@app.command()
def data(
    source: Source,
    preview: Annotated[Path | None, typer.Option(help="Write a PNG of originals above augmented samples.")] = None,
    suspects: Annotated[Path | None, typer.Option(help="Write a PNG of the samples that look wrong.")] = None,
    label_errors: Annotated[
        bool, typer.Option("--label-errors", help="Train small models to find labels that are likely wrong.")
    ] = False,
    groups: Groups = None,
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check and describe a data set."""
    from falconet.catalog import check_source

    check_source(source)
    check_picture("--preview", preview)
    check_picture("--suspects", suspects)
    from falconet import terminal
    from falconet.data import DataConfig, load_dataset
    from falconet.data.augmentation import default_policy
    from falconet.data.checks import describe_data
    from falconet.schema import from_mapping, to_mapping

    asked = ask_data(settings, groups, follow, strict)
    dataset = load_dataset(source, data_root=data_root, config=from_mapping(DataConfig, asked["data"], "data"))
    report = describe_data(dataset)
    if label_errors:
        from falconet.auditing import find_label_errors

        audit = find_label_errors(dataset, terminal.watch("label errors"))
        report = replace(report, label_errors=audit.errors, label_caution=audit.caution)
    if preview:
        from falconet.data.preview import write_preview

        write_preview(dataset, preview, default_policy(dataset.source, dataset.kind))
        terminal.print_note(f"preview: {preview}")
    if suspects:
        from falconet.data.preview import write_suspects

        write_suspects(dataset, report, suspects)
        terminal.print_note(f"suspects: {suspects}")
    if json:
        terminal.print_json(to_mapping(report))
        return
    terminal.print_data_report(report)
