"""What the command line shows: progress on standard error, tables on standard output. Imports no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from falconet.training import Callback, EpochRow

if TYPE_CHECKING:
    from falconet.data import Dataset
    from falconet.data.checks import DataReport

PIPE_WIDTH = 10_000
SHAPES = 6
"""Sizes of images that are named."""


class ProgressBar(Callback):
    """A bar on a terminal, a plain line an epoch elsewhere; both on standard error."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.epochs = 0
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        texts = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        columns = (*texts, TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
        self.progress = Progress(*columns, console=self.console) if self.console.is_terminal else None
        self.task = self.progress.add_task(title, total=None, note="") if self.progress else None

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        self.epochs = epochs
        if self.progress:
            self.progress.start()
        if history:
            self.console.print(f"{self.title}: goes on after epoch {len(history)} of {epochs}")
        if self.progress and self.task is not None:
            self.progress.update(self.task, total=epochs * steps_per_epoch, completed=len(history) * steps_per_epoch)

    def on_note(self, line: str) -> None:
        self.console.print(line)

    def on_step(self, step: int, loss: float) -> None:
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=step)

    def on_end(self) -> None:
        if self.progress:
            self.progress.stop()

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        figures = f"loss {row.train_loss:.4f}  val {row.val_accuracy:.2%}"
        note = f"epoch {row.epoch}/{self.epochs}  {figures}{'  best' if best else ''}"
        if self.progress and self.task is not None:
            self.progress.update(self.task, note=note)
        else:
            self.console.print(f"{self.title}: {note}", soft_wrap=True)


def print_json(content: Any) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")


def print_line(text: str) -> None:
    """Print a line of results on standard output."""
    sys.stdout.write(text + "\n")


def print_some(lines: Sequence[str], limit: int = 10) -> None:
    """Print the first lines of a list, indented, and how many there are besides."""
    for line in lines[:limit]:
        print_line(f"  {line}")
    if len(lines) > limit:
        print_line(f"  and {len(lines) - limit} more; --json lists all")


def print_note(text: str) -> None:
    """Print a line about the work on standard error."""
    sys.stderr.write(text + "\n")


def watch(model: str) -> tuple[ProgressBar]:
    """Return the callbacks that show one model's training."""
    return (ProgressBar(model),)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: numbers to the right; nothing is wrapped where it is piped."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    # File and class names are text, whatever brackets and colons they hold.
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    table = Table(*columns, box=None, pad_edge=False)
    for position, column in enumerate(table.columns):
        numeric = position and all(row[position][:1] in "0123456789" for row in rows)
        column.justify = "right" if numeric else "left"
        column.no_wrap = bool(numeric) or position == 0
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def print_shades(lead: str, parts: Sequence[tuple[str, float]]) -> None:
    """Print a text whose parts stand on colors: orange from 0 to 1, blue from 0 to -1; plain where it is piped."""
    line = Text(lead)
    for part, shade in parts:
        # Half the color at most, so that letters stay legible on it.
        strength = min(abs(shade), 1.0) / 2
        full = (213, 94, 0) if shade > 0 else (0, 114, 178)
        red, green, blue = (round(255 + strength * (value - 255)) for value in full)
        line.append(part, style=f"black on #{red:02x}{green:02x}{blue:02x}")
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(highlight=False, markup=False, emoji=False, width=width).print(line)


def print_data_report(report: DataReport) -> None:
    """Print what a data set holds, then each kind of thing that may be wrong with it."""
    count = sum(report.splits.values())
    print_line(f"{report.source}: {count:,} {describe_kind(report)}, {len(report.classes)} classes")
    print_facts(report)
    print_table(("class", "samples"), [(row.name, f"{row.count:,}") for row in report.classes])
    print_line("")
    for title, lines in list_findings(report):
        print_line(f"{title}: {len(lines):,}")
        print_some(lines)


def print_facts(report: DataReport) -> None:
    """Print how a data set is split, read and made up."""
    if report.columns:
        print_line(describe_columns(report.columns))
    splits = [f"{name} {n:,}{' (made)' if name in report.made else ''}" for name, n in report.splits.items()]
    imbalance = f"; largest class {report.imbalance:.1f} times the smallest" if report.imbalance else ""
    print_line(f"splits: {', '.join(splits)}{imbalance}")
    if report.shapes:
        shapes = [f"{row.count:,} {row.kind} {'x'.join(map(str, row.size))}".strip() for row in report.shapes]
        print_line(f"sizes: {', '.join(shapes[:SHAPES])}{' ...' if len(shapes) > SHAPES else ''}")
    if report.lengths:
        found = report.lengths
        unit = "steps" if report.kind == "series" else "characters"
        quartiles = f"quartiles {found.lower_quartile:,.0f}, {found.median:,.0f}, {found.upper_quartile:,.0f}"
        print_line(f"lengths: {found.min:,} to {found.max:,} {unit}, {quartiles}")
    if report.missing:
        print_line(f"missing values: {report.missing:.2%}")
    if report.ignored:
        print_line(f"ignored: {', '.join(f'{n:,} {suffix}' for suffix, n in report.ignored.items())}")


def list_findings(report: DataReport) -> list[tuple[str, list[str]]]:
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


def describe_dataset(dataset: Dataset) -> str:
    """Return a line about a data set."""
    count = sum(len(split) for split in dataset.splits.values())
    return f"{dataset.source}: {count:,} {describe_kind(dataset)}, {len(dataset.classes)} classes"


def describe_kind(data: Dataset | DataReport) -> str:
    """Return what the samples are and how large."""
    if data.kind == "image":
        color = "gray" if data.channels == 1 else "color"
        return f"{color} images of {data.size[0]}x{data.size[1]} (median)"
    if data.kind == "series":
        rate = f" at {data.rate:,} Hz" if data.rate else ""
        return f"series of {data.channels} channel{'s' * (data.channels > 1)} and {data.size[0]:,} steps (median){rate}"
    return f"texts of {data.size[0]:,} characters (median)"


def describe_columns(columns: Mapping[str, str]) -> str:
    """Return which columns of a table are read as what, and how to choose others."""
    roles = ", ".join(f"{role} from {column!r}" for role, column in columns.items())
    return f"columns: {roles} (--set data.columns.ROLE=NAME chooses others)"
