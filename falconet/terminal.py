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
    from falconet.budget import Compression
    from falconet.budget.search import Trial
    from falconet.data import Dataset
    from falconet.data.checks import DataReport
    from falconet.evaluation import Costs, Evaluation, Robustness
    from falconet.evaluation.confidence import Abstention, Answered
    from falconet.evaluation.contests import Contest
    from falconet.evaluation.outliers import Outliers
    from falconet.evaluation.slices import Slices
    from falconet.exporters.exporting import Export
    from falconet.exporters.parity import Parity

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


def print_evaluation(result: Evaluation) -> None:
    """Print the headline figures with their intervals, the classes, then whatever else was asked for."""
    print_line(f"{result.split} split, {result.n:,} samples")
    if result.unreadable:
        print_line(f"skipped {len(result.unreadable)} unreadable files")
    print_table(("figure", "value", "95% from", "to"), list_figures(result))
    print_line("")
    rows = [
        (
            row.name,
            *(format_share(part) for part in (row.precision, row.recall, row.f1, row.average_precision, row.roc_auc)),
            f"{row.support:,}",
        )
        for row in result.per_class
    ]
    print_table(("class", "precision", "recall", "F1", "average precision", "ROC area", "samples"), rows)
    if result.abstention:
        print_abstention(result.abstention)
    if result.against:
        print_contest(result.against)
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
    shares = {
        "accuracy": result.accuracy,
        "macro_precision": result.macro_precision,
        "macro_recall": result.macro_recall,
        "macro_f1": result.macro_f1,
    }
    losses = {"log_loss": result.log_loss, "brier": result.brier}
    titles = {"macro_f1": "macro F1", "log_loss": "log-loss in nats", "brier": "Brier score (0 to 2)"}
    rows: list[tuple[str, ...]] = []
    for name, value in {**shares, **losses}.items():
        style = ".2%" if name in shares else ".4f"
        interval = result.intervals[name]
        ends = [format(end, style) for end in interval] if interval else ["-", "-"]
        rows.append((titles.get(name, name.replace("_", " ")), format(value, style), *ends))
    rows.append(("expected calibration error", f"{result.ece:.2%}", "", ""))
    rows.append(("area of error over coverage", f"{result.aurc:.2%}", "", ""))
    return rows


def format_share(share: float | None) -> str:
    """Return a fraction in percent; a dash where there is none."""
    return "-" if share is None else f"{share:.2%}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """Return the ends of an interval of shares; a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:.2%} – {interval[1]:.2%}"


def print_abstention(found: Abstention) -> None:
    """Print from which confidence on a model is as often right as was wanted, and what that costs."""
    print_line("")
    if found.threshold is None or found.chosen is None or found.judged is None:
        print_line(f"precision {found.precision:.2%}: no confidence gives it; ask for less")
        return
    print_line(f"precision {found.precision:.2%} wanted: answers from a confidence of {found.threshold:.4f} on")
    rows = [("chosen", *list_answered(found.chosen)), ("judged", *list_answered(found.judged))]
    print_table(("", "split", "answered", "coverage", "accuracy", "95%"), rows)
    if found.chosen.split == found.judged.split:
        print_line("chosen and judged on the same samples, which flatters it: expect less elsewhere")


def list_answered(found: Answered) -> tuple[str, ...]:
    """Return the row of a split of which a model answers a part."""
    accuracy, interval = format_share(found.accuracy), format_interval(found.accuracy_ci)
    return found.split, f"{found.n:,}", f"{found.coverage:.2%}", accuracy, interval


def print_contest(contest: Contest) -> None:
    """Print two models' answers side by side, and whether their difference may be chance."""
    print_line("")
    print_line(f"against {contest.other}: {contest.accuracy:.2%} to {contest.other_accuracy:.2%}, n = {contest.n:,}")
    ends = contest.difference_ci
    interval = f" (95%: {100 * ends[0]:+.2f} – {100 * ends[1]:+.2f})" if ends else ""
    print_line(
        f"difference {100 * contest.difference:+.2f} points{interval}, p = {contest.p_value:.2g} (McNemar, exact)"
    )
    print_table(
        ("", "the other right", "the other wrong"),
        [
            ("this one right", f"{contest.both:,}", f"{contest.only_this:,}"),
            ("this one wrong", f"{contest.only_other:,}", f"{contest.neither:,}"),
        ],
    )


def print_slices(found: Slices) -> None:
    """Print the worst parts of a split."""
    print_line("")
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
    print_line("")
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


def print_robustness(robustness: Robustness) -> None:
    """Print accuracies under corruptions, a row each, and under attacks."""
    from falconet.evaluation.robustness import tabulate_corruptions

    print_line(
        f"\ncorrupted (n = {robustness.n:,} each): mean accuracy {robustness.mean_corruption_accuracy:.2%}, "
        f"as they are {robustness.clean_accuracy:.2%}"
    )
    rows = [
        (name, *(f"{row.accuracy:.2%}" for row in found), f"{sum(row.accuracy for row in found) / len(found):.2%}")
        for name, found in tabulate_corruptions(robustness).items()
    ]
    print_table(("corruption", *(f"severity {number}" for number in range(1, 6)), "mean"), rows)
    print_line(f"\nattacked: {robustness.attacks_note}")
    attacks = list(dict.fromkeys(row.attack for row in robustness.attacks))
    if attacks:
        epsilons = list(dict.fromkeys(row.epsilon for row in robustness.attacks))
        found = {(row.attack, row.epsilon): f"{row.accuracy:.2%}" for row in robustness.attacks}
        rows = [(f"{epsilon:.4f}", *(found[attack, epsilon] for attack in attacks)) for epsilon in epsilons]
        print_table(("epsilon (of pixels in 0..1)", *attacks), rows)


def print_costs(costs: Costs) -> None:
    """Print what answers cost."""
    print_line(f"\ncosts of answers, from raw samples in memory to logits (threads of torch: {costs.threads})")
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
    print_line(describe_parity(result.parity))
    times = f"{result.latency_ms:.3f} ms in {result.runtime}, {result.model_latency_ms:.3f} ms by the model itself"
    threads = "threads of its own choice" if result.runtime == "executorch" else "one thread"
    how = f"median of one sample, from raw to probabilities, {threads}"
    print_line(f"latency: {times}: {describe_speed(result.speedup)} ({how})")
    if result.baseline_latency_ms is not None:
        own = f"in single precision {result.baseline_latency_ms:.3f} ms"
        ratio = result.baseline_latency_ms / result.latency_ms
        advice = "" if ratio > 1 else ": on this machine, --to onnx answers sooner"
        print_line(f"{own}: integers are {describe_speed(ratio)}{advice}")


def describe_speed(ratio: float) -> str:
    """Return how fast something is beside another thing."""
    return f"{ratio:.2f}x as fast" if ratio > 1 else f"{1 / ratio:.2f}x SLOWER"


def describe_parity(parity: Parity) -> str:
    """Return how an export answers beside the model."""
    text = (
        f"parity: largest difference of a probability {parity.max_abs_difference:.2g}, {parity.agreement:.2%} equal "
        f"answers on {parity.n:,} {parity.samples}"
    )
    if parity.accuracy_before is None or parity.accuracy_drop is None:
        return text
    interval = parity.accuracy_drop_ci
    bounds = f" (95%: {100 * interval[0]:.2f} to {100 * interval[1]:.2f})" if interval else ""
    lost = f"{100 * parity.accuracy_drop:.2f} points lost{bounds}"
    return f"{text}\naccuracy: {parity.accuracy_before:.2%} before, {parity.accuracy_after:.2%} after: {lost}"


def print_trial(trial: Trial, best: Trial) -> None:
    """Print a line about a trial of a search on standard error."""
    scheme = trial.scheme
    what = f"{scheme.kept:.3%} of the weights, {scheme.bits} bits"
    channels = f", {trial.macs:,} MACs" if scheme.macs < 1 else ""
    latency = "" if trial.latency_ms is None else f", {trial.latency_ms:.3f} ms"
    judged = f"val {trial.accuracy:.2%} ({trial.drop:.2f} points lost)"
    found = f"{trial.bytes:,} bytes, {judged}{latency}, {trial.seconds:.0f} s"
    print_note(f"trial {trial.number}: {what}{channels}: {found}{'  best' if trial == best else ''}")


def print_compression(result: Compression) -> None:
    """Print what a search came to."""
    found = result.shrinking
    columns = ("", "before", "after", "")
    rows = [
        ("bytes", f"{found.bytes_before:,}", f"{found.bytes_after:,}", f"{found.ratio:.1f}x smaller"),
        (
            f"test accuracy (n = {found.contest.n:,})",
            f"{found.contest.other_accuracy:.2%}",
            f"{found.contest.accuracy:.2%}",
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
