"""What the command line shows: progress on standard error, tables on standard output. Imports no torch."""

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
from falconet.units import show_loss

if TYPE_CHECKING:
    from falconet.compression import Compression
    from falconet.compression.search import Trial
    from falconet.data import Dataset, Unreadable
    from falconet.data.checks import DataReport
    from falconet.evaluation import Costs, Evaluation, Robustness
    from falconet.evaluation.confidence import Abstention, Answered
    from falconet.evaluation.outliers import Outliers
    from falconet.evaluation.paired import PairedComparison
    from falconet.evaluation.slices import Slices
    from falconet.exporters.exporting import Export
    from falconet.exporters.parity import Parity

PIPE_WIDTH = 10_000
PATHS = ("file", "picture")
"""Columns whose cells may lose their middle where there is no room."""
SHORTEST = 16
"""Letters of a path that stay in any case."""
GAP = "  "
"""Between columns, and before what belongs to the line above."""
GONE = (errno.EPIPE, errno.EBADF, errno.EIO)
"""What writing fails with once nobody reads any more: a closed pipe, a closed stream, a terminal that has gone."""
SHAPES = 6
"""Sizes of images that are named."""


class Stream(io.TextIOBase):
    """Standard output or error as long as somebody reads it; after that, what is written is lost, and nothing else.

    A training that has taken hours must not fail because the terminal that watched it was closed.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def stream(self) -> Any:
        """What Python has for it now; None where the process was started without."""
        found = getattr(sys, self.name)
        return None if found is None or found.closed else found

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream; what it cannot hold is escaped by the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a person is looking."""
        return self.stream is not None and bool(self.stream.isatty())

    def fileno(self) -> int:
        """Return the stream's descriptor."""
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.stream.fileno())

    def write(self, text: str) -> int:
        """Write at once. Raises StorageError where a file that output goes to is full."""
        try:
            if self.stream is not None:
                self.stream.write(text)
                self.stream.flush()
        except OSError as error:
            if error.errno not in GONE:
                raise StorageError(f"cannot write to {self.name}: {error.strerror}; make room") from error
        return len(text)


OUT: Any = Stream("stdout")  # What rich asks of a file is less than all that `IO[str]` names.
ERR: Any = Stream("stderr")


class ProgressBar(Callback):
    """A bar on a terminal or in a notebook with widgets, a plain line an epoch elsewhere; both on standard error."""

    def __init__(self, title: str) -> None:
        self.title = escape_line(title)
        self.epochs, self.length = 0, 0
        # Names are text, whatever brackets and colons they hold.
        self.console = Console(file=ERR, highlight=False, markup=False, emoji=False)
        texts = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        columns = (*texts, TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
        self.progress = Progress(*columns, console=self.console) if can_redraw(self.console) else None
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
        figures = f"loss {show_loss(row.train_loss)}  val {row.val_accuracy:.2%}"
        note = f"epoch {row.epoch}/{self.epochs}  {figures}{'  best' if best else ''}"
        if self.progress and self.task is not None:
            self.progress.update(self.task, note=note, completed=row.epoch * self.length)
        else:
            self.console.print(f"{self.title}: {note}", soft_wrap=True)


def can_redraw(console: Console) -> bool:
    """Whether what was drawn can be drawn over: on a terminal, and in a notebook where it has widgets."""
    return console.is_terminal and (not console.is_jupyter or find_spec("ipywidgets") is not None)


def print_json(content: Any) -> None:
    """Print one JSON object on standard output."""
    OUT.write(json.dumps(content, allow_nan=False) + "\n")


def print_line(text: str = "") -> None:
    """Print a line of results on standard output; names in it cannot break it, nor command the terminal."""
    OUT.write(escape_line(text) + "\n")


def print_some(lines: Sequence[str], limit: int = 10) -> None:
    """Print the first lines of a list, indented, and how many there are besides."""
    for line in lines[:limit]:
        print_line(f"  {line}")
    if len(lines) > limit:
        print_line(f"  and {len(lines) - limit} more; --json lists all")


def print_note(text: str) -> None:
    """Print a line about the work on standard error."""
    ERR.write(escape_line(text) + "\n")


def watch(model: str) -> tuple[ProgressBar]:
    """Return the callbacks that show one model's training."""
    return (ProgressBar(model),)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: numbers to the right; nothing is wrapped where it is piped.

    On a terminal, labels and figures stay whole however narrow it is; see `lay_out`.
    """
    width = find_width()
    console = Console(file=OUT, highlight=False, markup=False, emoji=False, width=width)
    title, *lines = lay_out([escape_line(name) for name in columns], [[*map(escape_line, row)] for row in rows], width)
    console.print(Text(title, style="bold"), soft_wrap=True)
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def find_width() -> int:
    """Return the columns of the terminal; so many that nothing is wrapped where there is none."""
    return Console(file=OUT).width if OUT.isatty() else PIPE_WIDTH


def lay_out(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table's lines, of `width` at most: the first one, which names the columns, and those of the rows.

    Where there is no room, paths lose their middle and texts are folded between words. Where that is not enough, each
    row's first cell has a line of its own above the others; and where not even these fit, each cell has.
    """
    # A dash stands for a number that there is none of.
    numeric = [
        bool(place) and all(row[place] == "-" or row[place][:1] in "0123456789" for row in rows)
        for place in range(len(columns))
    ]
    cells = [columns, *rows]
    widths = divide_width(cells, numeric, width)
    if widths is not None:
        named = [[*zip(columns, row, widths, strict=True)] for row in cells]
        cut = [[abridge(cell, size) if name in PATHS else cell for name, cell, size in row] for row in named]
        return [line for row in cut for line in format_row(row, widths, numeric)]
    widths = divide_width([row[1:] for row in cells], numeric[1:], width - len(GAP))
    lines: list[str] = []
    for row in cells if widths is not None else rows:
        lines += fold(row[0], width)
        if widths is not None:
            lines += [GAP + line for line in format_row(row[1:], widths, numeric[1:])]
        else:
            pairs = [(name, cell) for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
            texts = [f"{name}: {cell}" if name else cell for name, cell in pairs]
            lines += [GAP + line for text in texts for line in fold(text, width - len(GAP))]
    return lines if widths is not None else [columns[0], *lines]


def divide_width(cells: Sequence[Sequence[str]], numeric: Sequence[bool], width: int) -> list[int] | None:
    """Return the width of each column, `cells` beginning with their names; None where they do not fit."""
    wanted, least = [], []
    for place, (name, *found) in enumerate(zip(*cells, strict=True)):
        whole = max(map(cell_len, found), default=0)
        longest = max((cell_len(word) for cell in found for word in cell.split()), default=0)
        if name in PATHS:
            longest = min(longest, SHORTEST)
        title = max(map(cell_len, name.split()), default=0)
        wanted.append(max(whole, cell_len(name)))
        least.append(max(whole if numeric[place] else longest, title))
    spare = width - sum(least) - len(GAP) * (len(least) - 1)
    if spare < 0:
        return None
    # What must not be cut comes before paths.
    for place in sorted(range(len(least)), key=lambda place: cells[0][place] in PATHS):
        more = min(wanted[place] - least[place], spare)
        least[place] += more
        spare -= more
    return least


def format_row(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> Iterator[str]:
    """Yield the lines of a row, whose cells are folded to these widths."""
    columns = [fold(cell, size) for cell, size in zip(row, widths, strict=True)]
    for number in range(max(map(len, columns))):
        parts = [column[number] if number < len(column) else "" for column in columns]
        padding = [" " * (size - cell_len(part)) for part, size in zip(parts, widths, strict=True)]
        placed = [
            blank + part if right else part + blank for part, blank, right in zip(parts, padding, numeric, strict=True)
        ]
        yield GAP.join(placed).rstrip()


def abridge(path: str, width: int) -> str:
    """Return a path in `width` columns at most, its middle left out; more of the end stays than of the beginning."""
    if cell_len(path) <= width:
        return path
    head, tail = chop_cells(path, (width - 1) // 3)[0], path
    while cell_len(head) + 1 + cell_len(tail) > width:
        tail = tail[1:]
    return f"{head}…{tail}"


def fold(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, broken between words as far as that goes."""
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
    """Print a text whose parts stand on colors: orange from 0 to 1, blue from 0 to -1; plain where it is piped."""
    line = Text(escape_line(lead))
    for part, shade in parts:
        # Half the color at most, so that letters stay legible on it.
        strength = min(abs(shade), 1.0) / 2
        full = (213, 94, 0) if shade > 0 else (0, 114, 178)
        red, green, blue = (round(255 + strength * (value - 255)) for value in full)
        line.append(escape_lines(part), style=f"black on #{red:02x}{green:02x}{blue:02x}")
    Console(file=OUT, highlight=False, markup=False, emoji=False, width=find_width()).print(line)


def print_data_report(report: DataReport) -> None:
    """Print what a data set holds, then each kind of thing that may be wrong with it."""
    count = sum(report.splits.values())
    print_line(f"{report.source}: {count:,} {describe_kind(report)}, {len(report.classes)} classes")
    print_facts(report)
    print_table(("class", "samples"), [(row.name, f"{row.count:,}") for row in report.classes])
    print_line()
    for title, lines in list_findings(report):
        print_line(f"{title}: {len(lines):,}")
        print_some(lines)
    if report.label_caution:
        print_line(f"caution: {report.label_caution}")


def print_facts(report: DataReport) -> None:
    """Print how a data set is split, read and made up."""
    if report.columns:
        print_line(describe_columns(report.columns))
    for note in report.notes:
        print_line(note)
    splits = [f"{name} {n:,}{' (made)' if name in report.made else ''}" for name, n in report.splits.items()]
    imbalance = f"; largest class {report.imbalance:.1f} times the smallest" if report.imbalance else ""
    print_line(f"splits: {', '.join(splits)}{imbalance}")
    if report.shapes:
        shapes = [f"{row.count:,} {row.kind} {'x'.join(map(str, row.size))}".strip() for row in report.shapes]
        print_line(f"sizes: {', '.join(shapes[:SHAPES])}{' ...' if len(shapes) > SHAPES else ''}")
    if report.lengths:
        found = report.lengths
        unit = MODALITIES[report.kind].raw_unit
        quartiles = f"quartiles {found.lower_quartile:,.0f}, {found.median:,.0f}, {found.upper_quartile:,.0f}"
        print_line(f"lengths: {found.min:,} to {found.max:,} {unit}, {quartiles}")
    if report.missing:
        print_line(f"missing values: {report.missing:.2%}")
    if report.ignored:
        from falconet.data.files import describe_ignored

        print_line(f"ignored: {describe_ignored(report.ignored)}")


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


def print_left_out(ignored: Mapping[str, int], unreadable: Sequence[Unreadable]) -> None:
    """Say which files of a source were no samples, and how many that should be could not be read."""
    if ignored:
        from falconet.data.files import describe_ignored

        print_note(f"ignored: {describe_ignored(ignored)}")
    if unreadable:
        first = unreadable[0]
        print_note(f"skipped {len(unreadable):,} unreadable samples, the first: {first.file} ({first.reason})")


def print_evaluation(result: Evaluation) -> None:
    """Print the headline figures with their intervals, the classes, then whatever else was asked for."""
    print_line(f"{result.split} split, {result.n:,} samples")
    print_table(("figure", "value", "95% from", "to"), list_figures(result))
    print_line()
    rows = [
        (
            row.name,
            *(format_fraction(part) for part in (*row.scores, row.average_precision, row.roc_auc)),
            f"{row.support:,}",
        )
        for row in result.per_class
    ]
    print_table(("class", "precision", "recall", "F1", "average precision", "ROC AUC", "samples"), rows)
    if result.abstention:
        print_abstention(result.abstention)
    if result.against:
        print_paired(result.against)
    if result.slices:
        print_slices(result.slices)
    if result.ood:
        print_outliers(result.ood)
    if result.robustness:
        print_robustness(result.robustness)
    if result.costs:
        print_costs(result.costs)


def list_figures(result: Evaluation) -> list[tuple[str, ...]]:
    """Return headline figures as rows of text: name, value and interval."""
    fractions = {
        "accuracy": result.accuracy,
        "macro_precision": result.macro_precision,
        "macro_recall": result.macro_recall,
        "macro_f1": result.macro_f1,
    }
    losses = {"log_loss": result.log_loss, "brier": result.brier}
    titles = {"macro_f1": "macro F1", "log_loss": "log-loss in nats", "brier": "Brier score (0 to 2)"}
    rows: list[tuple[str, ...]] = []
    for name, value in {**fractions, **losses}.items():
        style = ".2%" if name in fractions else ".4f"
        interval = result.intervals[name]
        ends = [format(end, style) for end in interval] if interval else ["-", "-"]
        rows.append((titles.get(name, name.replace("_", " ")), format(value, style), *ends))
    rows.append(("expected calibration error", f"{result.ece:.2%}", "", ""))
    rows.append(("area under the risk–coverage curve", f"{result.aurc:.2%}", "", ""))
    return rows


def format_fraction(fraction: float | None) -> str:
    """Return a fraction in percent; a dash where there is none."""
    return "-" if fraction is None else f"{fraction:.2%}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """Return the ends of an interval of fractions; a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:.2%} – {interval[1]:.2%}"


def print_abstention(found: Abstention) -> None:
    """Print from which confidence on a model is as often right as was wanted, and what that costs."""
    print_line()
    if found.threshold is None or found.chosen is None or found.judged is None:
        print_line(f"precision {found.precision:.2%}: no confidence gives it; ask for less")
        return
    print_line(f"precision {found.precision:.2%} wanted: answers from a confidence of {found.threshold:.4f} on")
    rows = [("chosen", *list_answered(found.chosen)), ("evaluated", *list_answered(found.judged))]
    print_table(("", "split", "answered", "coverage", "accuracy", "95%"), rows)
    if found.chosen.split == found.judged.split:
        print_line("chosen and evaluated on the same samples, which flatters it: expect less elsewhere")


def list_answered(found: Answered) -> tuple[str, ...]:
    """Return the row of a split of which a model answers a part."""
    accuracy, interval = format_fraction(found.accuracy), format_interval(found.accuracy_ci)
    return found.split, f"{found.n:,}", f"{found.coverage:.2%}", accuracy, interval


def print_paired(paired: PairedComparison) -> None:
    """Print two models' answers side by side, and whether their difference may be chance."""
    print_line()
    print_line(f"against {paired.other}: {paired.accuracy:.2%} to {paired.other_accuracy:.2%}, n = {paired.n:,}")
    ends = paired.difference_ci
    interval = f" (95%: {100 * ends[0]:+.2f} – {100 * ends[1]:+.2f})" if ends else ""
    print_line(f"difference {100 * paired.difference:+.2f} points{interval}, p = {paired.p_value:.2g} (McNemar, exact)")
    print_table(
        ("", "the other right", "the other wrong"),
        [
            ("this one right", f"{paired.both:,}", f"{paired.only_this:,}"),
            ("this one wrong", f"{paired.only_other:,}", f"{paired.neither:,}"),
        ],
    )


def print_slices(found: Slices) -> None:
    """Print the worst parts of a split."""
    print_line()
    rows = [
        (part.value or "(nothing)", f"{part.accuracy:.2%}", format_interval(part.accuracy_ci), f"{part.n:,}")
        for part in found.slices
    ]
    few = ["few" if part.few else "" for part in found.slices]
    shown = [(*row, mark) for row, mark in zip(rows, few, strict=True)][:SLICES]
    print_table((found.column, "accuracy", "95%", "samples", ""), shown)
    if len(rows) > SLICES:
        print_line(f"and {len(rows) - SLICES} more; --json lists all")


SLICES = 20
"""Parts of a split that are shown, the worst ones."""


def print_outliers(found: Outliers) -> None:
    """Print how well scores tell a model's own samples from those of another source."""
    print_line()
    skipped = f", {found.unreadable} unreadable" if found.unreadable else ""
    print_line(f"out of distribution: {found.source} ({found.split}, {found.n:,} samples{skipped})")
    rows = [
        (name, f"{score.auroc:.2%}", f"{score.fpr95:.2%}")
        for name, score in (("highest probability", found.max_probability), ("energy", found.energy))
    ]
    print_table(("score", "AUROC", "passes where 95% of the split do"), rows)


def describe_dataset(dataset: Dataset) -> str:
    """Return a line about a data set."""
    count = sum(len(split) for split in dataset.splits.values())
    return f"{dataset.source}: {count:,} {describe_kind(dataset)}, {len(dataset.classes)} classes"


def describe_kind(data: Dataset | DataReport) -> str:
    """Return what the samples are and how large."""
    return MODALITIES[data.kind].describe_samples(data)


def describe_columns(columns: Mapping[str, str]) -> str:
    """Return which columns of a table are read as what, and how to choose others."""
    roles = ", ".join(f"{role} from {column!r}" for role, column in columns.items())
    return f"columns: {roles} (--set data.columns.ROLE=NAME chooses others)"


def print_robustness(robustness: Robustness) -> None:
    """Print accuracies under corruptions, a row each, and under attacks."""
    from falconet.evaluation.robustness import tabulate_corruptions

    print_line()
    print_line(
        f"corrupted (n = {robustness.n:,} each): mean accuracy {robustness.mean_corruption_accuracy:.2%}, "
        f"clean {robustness.clean_accuracy:.2%}"
    )
    rows = [
        (name, *(f"{row.accuracy:.2%}" for row in found), f"{sum(row.accuracy for row in found) / len(found):.2%}")
        for name, found in tabulate_corruptions(robustness).items()
    ]
    print_table(("corruption", *(f"severity {number}" for number in range(1, 6)), "mean"), rows)
    print_line()
    print_line(f"attacked: {robustness.attacks_note}")
    attacks = list(dict.fromkeys(row.attack for row in robustness.attacks))
    if attacks:
        epsilons = list(dict.fromkeys(row.epsilon for row in robustness.attacks))
        found = {(row.attack, row.epsilon): f"{row.accuracy:.2%}" for row in robustness.attacks}
        rows = [(f"{epsilon:.4f}", *(found[attack, epsilon] for attack in attacks)) for epsilon in epsilons]
        print_table(("epsilon (of pixels in 0..1)", *attacks), rows)


def print_costs(costs: Costs) -> None:
    """Print what answers cost."""
    print_line()
    print_line(f"costs of answers, from raw samples in memory to logits (threads of torch: {costs.threads})")
    latencies = (("1", costs.latency_ms), (f"{costs.batch}", costs.batch_latency_ms))
    rows = [
        (f"batch of {size}", f"{value.p50:.3f} ms", f"{value.p95:.3f} ms", f"{value.p99:.3f} ms", f"{value.calls:,}")
        for size, value in latencies
    ]
    print_table(("latency", "p50", "p95", "p99", "calls"), rows)
    print_line(
        f"cold start {costs.cold_start_seconds:.2f} s from the start of a process to its first answer "
        f"(median of {len(costs.cold_starts)})"
    )
    if costs.peak_bytes is not None and costs.import_bytes is not None:
        print_line(
            f"peak memory {costs.peak_bytes / 1e6:.0f} MB with a batch of {costs.batch}, of which "
            f"{costs.import_bytes / 1e6:.0f} MB are there once torch is imported"
        )
    if costs.energy is None:
        print_line("energy: not known; codecarbon (pip install 'falconet[energy]') is missing or gave no figures")
    else:
        parts = "; ".join(costs.energy.sources)
        wh = costs.energy.wh_per_1000
        print_line(f"energy {wh:.3g} Wh for 1,000 answers, of the whole machine, {costs.energy.basis} ({parts})")


def print_export(result: Export) -> None:
    """Print what was written, how alike it answers, and how fast."""
    print_line(f"{result.path}: {result.target}, {result.bytes:,} bytes")
    if len(result.files) > 1:
        print_some([f"{name}: {size:,} bytes" for name, size in result.files.items()])
    if result.grown:
        print_line(result.grown)
    for line in describe_parity(result.parity):
        print_line(line)
    times = f"{result.latency_ms:.3f} ms in {result.runtime}, {result.model_latency_ms:.3f} ms by the model itself"
    threads = "threads of its own choice" if result.runtime == "executorch" else "one thread"
    how = f"median of one sample, from raw to probabilities, {threads}"
    print_line(f"latency: {times} ({how})")
    if result.speed is not None:
        print_line(f"speed: {result.speed.describe('the model itself')}")
    if result.baseline_latency_ms is not None and result.baseline_speed is not None:
        own = f"in single precision {result.baseline_latency_ms:.3f} ms"
        slower = result.baseline_speed.measurable and result.baseline_speed.times < 1
        advice = ": on this machine, --to onnx answers sooner" if slower else ""
        print_line(f"{own}; integers: {result.baseline_speed.describe()}{advice}")


def describe_parity(parity: Parity) -> list[str]:
    """Return lines about how an export answers beside the model."""
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


def print_trial(trial: Trial, best: Trial) -> None:
    """Print a line about a trial of a search on standard error."""
    spec = trial.spec
    what = f"{spec.density:.3%} of the weights, {spec.bits} bits"
    channels = f", {trial.macs:,} MACs" if spec.macs_fraction < 1 else ""
    latency = "" if trial.latency_ms is None else f", {trial.latency_ms:.3f} ms"
    evaluated = f"val {trial.accuracy:.2%} ({trial.drop:.2f} points lost)"
    found = f"{trial.bytes:,} bytes, {evaluated}{latency}, {trial.seconds:.0f} s"
    print_note(f"trial {trial.number}: {what}{channels}: {found}{'  best' if trial == best else ''}")


def print_compression(result: Compression) -> None:
    """Print what a search came to."""
    found = result.shrinking
    columns = ("", "before", "after", "")
    rows = [
        ("bytes", f"{found.bytes_before:,}", f"{found.bytes_after:,}", f"{found.ratio:.1f}x smaller"),
        (
            f"test accuracy (n = {found.comparison.n:,})",
            f"{found.comparison.other_accuracy:.2%}",
            f"{found.comparison.accuracy:.2%}",
            found.name_drop(),
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
            found.name_fastest(),
        ),
    ]
    print_table(columns, rows)
    print_line(found.name_integers())
    if found.untouched:
        print_some([f"left as it was: {name}: {reason}" for name, reason in found.untouched.items()])
    print_line(f"{result.out}: model.fnet, report.html; all trials: frontier.csv, frontier.png")
