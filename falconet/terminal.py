"""Terminal output: progress on standard error, tables on standard output. Importing this does not import torch."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from falconet.errors import StorageError
from falconet.escaping import escape_line, escape_lines
from falconet.modalities import MODALITIES
from falconet.training import Callback, EpochRow
from falconet.units import format_loss

if TYPE_CHECKING:
    from falconet.compression.search import Trial
    from falconet.data import Dataset, Unreadable
    from falconet.data.checks import DataReport

_PIPE_WIDTH = 10_000
_PATHS = ("file", "picture")
"""Columns of paths, which may be shortened in the middle where there is no room."""
_SHORTEST = 16
"""Characters of a path that are kept in any case."""
_GAP = "  "
"""Gap between columns, and indentation of lines that continue a row."""
_GONE = (errno.EPIPE, errno.EBADF, errno.EIO)
"""Error numbers of writing to a closed pipe, a closed stream, or a terminal that has gone."""


class Stream(io.TextIOBase):
    """Standard output or error that discards output, without an error, once its reader has gone.

    Training for hours must not fail because a terminal was closed.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def stream(self) -> Any:
        """Python's current stream; None where the process has none."""
        found = getattr(sys, self.name)
        return None if found is None or found.closed else found

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream, which escapes other characters."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.stream is not None and bool(self.stream.isatty())

    def fileno(self) -> int:
        """Return the stream's descriptor."""
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.stream.fileno())

    def write(self, text: str) -> int:
        """Write and flush. Raises StorageError where the output is a file on a full disk."""
        try:
            if self.stream is not None:
                self.stream.write(text)
                self.stream.flush()
        except OSError as error:
            if error.errno not in _GONE:
                raise StorageError(f"cannot write to {self.name}: {error.strerror}; make room") from error
        return len(text)


OUT: Any = Stream("stdout")  # What rich asks of a file is less than all that `IO[str]` names.
_ERR: Any = Stream("stderr")


class ProgressBar(Callback):
    """A progress bar on a terminal or in a notebook with widgets, else a line per epoch; both on standard error."""

    def __init__(self, title: str) -> None:
        self.title = escape_line(title)
        self.epochs, self.length = 0, 0
        # Names are text, whatever brackets and colons they hold.
        self.console = Console(file=_ERR, highlight=False, markup=False, emoji=False)
        texts = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        columns = (*texts, TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
        self.progress = Progress(*columns, console=self.console) if _can_redraw(self.console) else None
        self.task = self.progress.add_task(self.title, total=None, note="") if self.progress else None

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        self.epochs, self.length = epochs, steps_per_epoch
        if self.progress:
            self.progress.start()
        if history:
            self.on_note(f"{self.title}: goes on after epoch {len(history)} of {epochs}")
        if self.progress and self.task is not None:
            self.progress.update(self.task, total=epochs * steps_per_epoch, completed=len(history) * steps_per_epoch)

    def on_note(self, line: str) -> None:
        self.console.print(escape_line(line), soft_wrap=True)

    def on_step(self, step: int, loss: float) -> None:
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=step)

    def on_end(self) -> None:
        if self.progress:
            self.progress.stop()

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        figures = f"loss {format_loss(row.train_loss)}  val {row.val_accuracy:.2%}"
        note = f"epoch {row.epoch}/{self.epochs}  {figures}{'  best' if best else ''}"
        if self.progress and self.task is not None:
            self.progress.update(self.task, note=note, completed=row.epoch * self.length)
        else:
            self.console.print(f"{self.title}: {note}", soft_wrap=True)


def _can_redraw(console: Console) -> bool:
    """Whether output can be redrawn: on a terminal, and in a notebook with widgets."""
    return console.is_terminal and (not console.is_jupyter or find_spec("ipywidgets") is not None)


def print_json(content: Any) -> None:
    """Print one JSON object on standard output."""
    OUT.write(json.dumps(content, allow_nan=False) + "\n")


def print_line(text: str = "") -> None:
    """Print a line of results on standard output; line breaks and control characters in names are escaped."""
    OUT.write(escape_line(text) + "\n")


def print_some(lines: Sequence[str], limit: int = 10) -> None:
    """Print the first lines of a list, indented, and the number of others."""
    for line in lines[:limit]:
        print_line(f"  {line}")
    if len(lines) > limit:
        print_line(f"  and {len(lines) - limit} more; --json lists all")


def print_note(text: str) -> None:
    """Print a line about the work on standard error."""
    _ERR.write(escape_line(text) + "\n")


def watch(model: str) -> tuple[ProgressBar]:
    """Return the callbacks that show one model's training."""
    return (ProgressBar(model),)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output, with numbers right-aligned; nothing is wrapped in a pipe.

    On a terminal, labels and figures are never cut, however narrow it is; see `_lay_out`.
    """
    width = _find_width()
    console = Console(file=OUT, highlight=False, markup=False, emoji=False, width=width)
    title, *lines = _lay_out([escape_line(name) for name in columns], [[*map(escape_line, row)] for row in rows], width)
    console.print(Text(title, style="bold"), soft_wrap=True)
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _find_width() -> int:
    """Return the width of the terminal in columns; without one, so many that nothing is wrapped."""
    return Console(file=OUT).width if OUT.isatty() else _PIPE_WIDTH


def _lay_out(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table's lines, of `width` columns at most: the header, and the lines of the rows.

    Where there is no room, paths lose their middle and texts are wrapped. Where that is not enough, each row's first
    cell has a line of its own above the others; and where these do not fit either, each cell has one.
    """
    # A dash stands for a number that there is none of.
    numeric = [
        bool(place) and all(row[place] == "-" or row[place][:1] in "0123456789" for row in rows)
        for place in range(len(columns))
    ]
    cells = [columns, *rows]
    widths = _divide_width(cells, numeric, width)
    if widths is not None:
        named = [[*zip(columns, row, widths, strict=True)] for row in cells]
        cut = [[_abridge(cell, size) if name in _PATHS else cell for name, cell, size in row] for row in named]
        return [line for row in cut for line in _format_row(row, widths, numeric)]
    widths = _divide_width([row[1:] for row in cells], numeric[1:], width - len(_GAP))
    lines: list[str] = []
    for row in cells if widths is not None else rows:
        lines += _fold(row[0], width)
        if widths is not None:
            lines += [_GAP + line for line in _format_row(row[1:], widths, numeric[1:])]
        else:
            pairs = [(name, cell) for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
            texts = [f"{name}: {cell}" if name else cell for name, cell in pairs]
            lines += [_GAP + line for text in texts for line in _fold(text, width - len(_GAP))]
    return lines if widths is not None else [columns[0], *lines]


def _divide_width(cells: Sequence[Sequence[str]], numeric: Sequence[bool], width: int) -> list[int] | None:
    """Return the width of each column, `cells` beginning with their names; None where they do not fit."""
    wanted, least = [], []
    for place, (name, *found) in enumerate(zip(*cells, strict=True)):
        whole = max(map(cell_len, found), default=0)
        longest = max((cell_len(word) for cell in found for word in cell.split()), default=0)
        if name in _PATHS:
            longest = min(longest, _SHORTEST)
        title = max(map(cell_len, name.split()), default=0)
        wanted.append(max(whole, cell_len(name)))
        least.append(max(whole if numeric[place] else longest, title))
    spare = width - sum(least) - len(_GAP) * (len(least) - 1)
    if spare < 0:
        return None
    # What must not be cut comes before paths.
    for place in sorted(range(len(least)), key=lambda place: cells[0][place] in _PATHS):
        more = min(wanted[place] - least[place], spare)
        least[place] += more
        spare -= more
    return least


def _format_row(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> Iterator[str]:
    """Yield the lines of a row, whose cells are folded to these widths."""
    columns = [_fold(cell, size) for cell, size in zip(row, widths, strict=True)]
    for number in range(max(map(len, columns))):
        parts = [column[number] if number < len(column) else "" for column in columns]
        padding = [" " * (size - cell_len(part)) for part, size in zip(parts, widths, strict=True)]
        placed = [
            blank + part if right else part + blank for part, blank, right in zip(parts, padding, numeric, strict=True)
        ]
        yield _GAP.join(placed).rstrip()


def _abridge(path: str, width: int) -> str:
    """Return a path in `width` columns at most, without its middle; more of its end is kept than of its beginning."""
    if cell_len(path) <= width:
        return path
    head, tail = chop_cells(path, (width - 1) // 3)[0], path
    while cell_len(head) + 1 + cell_len(tail) > width:
        tail = tail[1:]
    return f"{head}…{tail}"


def _fold(text: str, width: int) -> list[str]:
    """Return a text wrapped to at most `width` columns, between words where possible."""
    lines = [""]
    for word in text.split(" "):
        whole = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(whole) <= width:
            lines[-1] = whole
        elif cell_len(word) <= width:
            lines.append(word)
        else:
            lines += chop_cells(word, max(width, 2))
    return [line for line in lines if line] or [""]


def print_shades(lead: str, parts: Sequence[tuple[str, float]]) -> None:
    """Print a text with colored parts: orange from 0 to 1, blue from 0 to -1; plain in a pipe."""
    line = Text(escape_line(lead))
    for part, shade in parts:
        # Half the color at most, so that letters stay legible on it.
        strength = min(abs(shade), 1.0) / 2
        full = (213, 94, 0) if shade > 0 else (0, 114, 178)
        red, green, blue = (round(255 + strength * (value - 255)) for value in full)
        line.append(escape_lines(part), style=f"black on #{red:02x}{green:02x}{blue:02x}")
    Console(file=OUT, highlight=False, markup=False, emoji=False, width=_find_width()).print(line)


def print_left_out(ignored: Mapping[str, int], unreadable: Sequence[Unreadable]) -> None:
    """Print the numbers of a source's files that were no samples, and of samples that could not be read."""
    if ignored:
        from falconet.data.files import describe_ignored

        print_note(f"ignored: {describe_ignored(ignored)}")
    if unreadable:
        first = unreadable[0]
        print_note(f"skipped {len(unreadable):,} unreadable samples, the first: {first.file} ({first.reason})")


def describe_kind(data: Dataset | DataReport) -> str:
    """Return kind and size of the samples in words."""
    return MODALITIES[data.kind].describe_samples(data)


def describe_columns(columns: Mapping[str, str]) -> str:
    """Return the roles of a table's columns in words, and how to choose others."""
    roles = ", ".join(f"{role} from {column!r}" for role, column in columns.items())
    return f"columns: {roles} (--set data.columns.ROLE=NAME chooses others)"


def print_trial(trial: Trial, best: Trial) -> None:
    """Print a line about a trial of a search on standard error."""
    spec = trial.spec
    what = f"{spec.density:.3%} of the weights, {spec.bits} bits"
    channels = f", {trial.macs:,} MACs" if spec.macs_fraction < 1 else ""
    latency = "" if trial.latency_ms is None else f", {trial.latency_ms:.3f} ms"
    evaluated = f"val {trial.accuracy:.2%} ({trial.drop:.2f} points lost)"
    found = f"{trial.bytes:,} bytes, {evaluated}{latency}, {trial.seconds:.0f} s"
    print_note(f"trial {trial.number}: {what}{channels}: {found}{'  best' if trial == best else ''}")
