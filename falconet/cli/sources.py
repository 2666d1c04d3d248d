"""The verb data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    name_settings,
)

if TYPE_CHECKING:
    from falconet.data.checks import DataReport

_SHAPES = 6
"""Most sizes of images that are listed."""


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
    _print_data_report(report)


def _print_data_report(report: DataReport) -> None:
    """Print what a data set holds, then each kind of thing that may be wrong with it."""
    from falconet import terminal

    count = sum(report.splits.values())
    terminal.print_line(f"{report.source}: {count:,} {terminal.describe_kind(report)}, {len(report.classes)} classes")
    _print_facts(report)
    terminal.print_table(("class", "samples"), [(row.name, f"{row.count:,}") for row in report.classes])
    terminal.print_line()
    for title, lines in _list_findings(report):
        terminal.print_line(f"{title}: {len(lines):,}")
        terminal.print_some(lines)
    if report.label_caution:
        terminal.print_line(f"caution: {report.label_caution}")


def _print_facts(report: DataReport) -> None:
    """Print how a data set is split, read and made up."""
    from falconet import terminal
    from falconet.modalities import MODALITIES

    if report.columns:
        terminal.print_line(terminal.describe_columns(report.columns))
    for note in report.notes:
        terminal.print_line(name_settings(note))
    splits = [f"{name} {n:,}{' (random split)' if name in report.made else ''}" for name, n in report.splits.items()]
    imbalance = f"; largest class {report.imbalance:.1f} times the smallest" if report.imbalance else ""
    terminal.print_line(f"splits: {', '.join(splits)}{imbalance}")
    if report.shapes:
        shapes = [f"{row.count:,} {row.kind} {'x'.join(map(str, row.size))}".strip() for row in report.shapes]
        terminal.print_line(f"sizes: {', '.join(shapes[:_SHAPES])}{' ...' if len(shapes) > _SHAPES else ''}")
    if report.lengths:
        found = report.lengths
        unit = MODALITIES[report.kind].raw_unit
        quartiles = f"quartiles {found.lower_quartile:,.0f}, {found.median:,.0f}, {found.upper_quartile:,.0f}"
        terminal.print_line(f"lengths: {found.min:,} to {found.max:,} {unit}, {quartiles}")
    if report.missing:
        terminal.print_line(f"missing values: {report.missing:.2%}")
    if report.ignored:
        from falconet.data.files import describe_ignored

        terminal.print_line(f"ignored: {describe_ignored(report.ignored)}")


def _list_findings(report: DataReport) -> list[tuple[str, list[str]]]:
    """Return what may be wrong: titles, each with a line for every case."""
    near = [f"{' ~ '.join(pair.names)}{' (leak)' * (len(set(pair.splits)) > 1)}" for pair in report.near_duplicates]
    absent = [f"{split}: {', '.join(names)}" for split, names in report.absent_classes.items()]
    findings = [
        ("unreadable", [f"{item.file}: {item.reason}" for item in report.unreadable]),
        ("groups of equal samples", [" = ".join(group) for group in report.duplicates]),
        ("leaks (equal samples in several splits)", [" = ".join(group) for group in report.leaks]),
        ("near duplicates", near),
        ("splits that lack classes", absent),
        ("constant", list(report.constant)),
        ("outliers", [f"{item.name}: {item.reason}" for item in report.outliers]),
    ]
    errors = [
        f"{row.name} ({row.split}): {row.label}, perhaps {row.suggested} ({row.probability:.0%})"
        for row in report.label_errors
    ]
    return [*findings, ("likely label errors", errors)] if errors else findings
