"""The verb compare."""

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
    merge_data_flags,
    name_settings,
)


@app.command()
def compare(
    source: Source,
    models: Annotated[
        str,
        typer.Option(
            metavar="A,B,...", help="Names that `falconet models` lists, NAME@RECIPE, or trained models' folders."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the comparison; one begun there is resumed.")],
    seeds: Annotated[int, typer.Option(help="Runs of each model.")] = 3,
    folds: Annotated[
        int | None,
        typer.Option(metavar="K", help="Rank by K-fold cross-validation over training and validation samples."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of training of every run.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A named recipe, or a YAML file, for all.")] = None,
    settings: Assignments = None,
    groups: Groups = None,
    follow: Follow = False,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train and evaluate models alike: figures, costs, Pareto plots, and statistically significant differences."""
    from falconet import comparison, planning, terminal
    from falconet.comparison.tables import COMPARISON_COLUMNS, PAIR_COLUMNS, format_pair, format_row

    asked = planning.parse_assignments(settings or [])
    planning.check_sections(asked)
    result = comparison.compare(
        source,
        [name for name in models.split(",") if name.strip()],
        out=out,
        seeds=seeds,
        folds=folds,
        epochs=epochs,
        recipe=recipe,
        settings=merge_data_flags(asked, groups, follow, strict),
        data_root=data_root,
        notify=terminal.print_note,
    )
    if json:
        terminal.print_json(result.facts())
        return
    terminal.print_table(COMPARISON_COLUMNS, [format_row(row) for row in result.rows if not row.failed])
    for row in result.rows:
        if row.failed:
            terminal.print_line(f"{row.model} failed: {name_settings(row.failed)}")
    terminal.print_line()
    terminal.print_table(PAIR_COLUMNS, [format_pair(pair) for pair in result.pairs])
    for note in result.notes:
        terminal.print_line(name_settings(note))
    terminal.print_line()
    terminal.print_line(f"◆ on the Pareto front of validation accuracy and cost; all of it: {out / 'comparison.html'}")
