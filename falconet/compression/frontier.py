"""Results of a search as tables and pictures: the Pareto front of all trials, and layers' sensitivity."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from falconet.compression.budget import Budget
from falconet.compression.search import Trial, find_frontier
from falconet.compression.steps import Sensitivity
from falconet.data.drawing import COLORS, write_figure
from falconet.report.pictures import BLUE, ORANGE
from falconet.storage import write_text
from falconet.units import format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = (
    "trial",
    "bytes",
    "val_accuracy",
    "drop",
    "macs",
    "latency_ms",
    "kept",
    "bits",
    "epochs",
    "seconds",
    "front",
)


FRONTIER_FILES = ("frontier.csv", "frontier.png")
SENSITIVITY_FILES = ("sensitivity.csv", "sensitivity.png")


def write_frontier(trials: Sequence[Trial], budget: Budget, out: Path) -> None:
    """Write `frontier.csv`, with all trials for any budget, and `frontier.png`. Raises StorageError."""
    front = {trial.number for trial in find_frontier(trials)}
    rows = [
        {
            "trial": trial.number,
            "bytes": trial.bytes,
            "val_accuracy": f"{trial.accuracy:.6f}",
            "drop": f"{trial.drop:.4f}",
            "macs": trial.macs,
            "latency_ms": "" if trial.latency_ms is None else f"{trial.latency_ms:.4f}",
            "kept": f"{trial.spec.density:.6g}",
            "bits": trial.spec.bits,
            "epochs": trial.spec.epochs,
            "seconds": f"{trial.seconds:.1f}",
            "front": int(trial.number in front),
        }
        for trial in sorted(trials, key=lambda trial: trial.bytes)
    ]
    table, picture = FRONTIER_FILES
    _write_table(rows, _COLUMNS, out / table)
    write_figure(_draw_frontier(trials, budget), out / picture)


def _write_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str], path: Path) -> None:
    """Write rows as CSV."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def _draw_frontier(trials: Sequence[Trial], budget: Budget) -> Figure:
    """Draw the validation accuracy of all trials over the bytes of their files, with the front and the limits."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    front = find_frontier(trials)
    others = [trial for trial in trials if trial not in front]
    axes.plot([trial.bytes for trial in front], [100 * trial.accuracy for trial in front], "o--", color=BLUE,
              linewidth=1, label="front: none is both smaller and more accurate")  # fmt: skip
    if others:
        axes.plot([trial.bytes for trial in others], [100 * trial.accuracy for trial in others], "D", color=ORANGE,
                  markerfacecolor="none", label="other trials")  # fmt: skip
    for trial in trials:
        axes.annotate(str(trial.number), (trial.bytes, 100 * trial.accuracy), (4, 4), textcoords="offset points")
    _mark_limits(axes, trials, budget)
    axes.set(xscale="log", xlabel="size of the file", ylabel="validation accuracy (%)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="both", linewidth=0.3)
    axes.legend(loc="best")
    return figure


def _mark_limits(axes: Axes, trials: Sequence[Trial], budget: Budget) -> None:
    """Draw lines where the budget ends, as far as they are near."""
    if budget.max_bytes is not None:
        axes.axvline(budget.max_bytes, color="black", linewidth=0.8, linestyle=":", label="budget")
    if budget.allowed_drop < 100:
        dense = 100 * trials[0].accuracy + trials[0].drop
        label = None if budget.max_bytes is not None else "budget"
        axes.axhline(dense - budget.allowed_drop, color="black", linewidth=0.8, linestyle=":", label=label)


def describe_miss(best: Trial, trials: Sequence[Trial], budget: Budget, file: Path) -> str:
    """Return a line about a budget that no trial keeps within, and the nearest trial."""
    latency = "" if best.latency_ms is None else f", {best.latency_ms:.3f} ms"
    size = f"{format_size(best.bytes)} at {best.drop:.2f} points lost on validation, {best.macs:,} MACs{latency}"
    return (
        f"none of {len(trials)} trials keeps within the budget, {budget.describe()}; the nearest is trial "
        f"{best.number}: {size} ({file}). Allow more, or give trials more epochs, in another folder"
    )


def write_sensitivity(found: Sensitivity, out: Path) -> None:
    """Write `sensitivity.csv` and `sensitivity.png`. Raises StorageError."""
    rows = [
        {"parameter": row.name, "change": change, "setting": row.setting, "accuracy": f"{row.score:.6f}"}
        for change, part in (("sparsity", found.sparsities), ("bits", found.bits))
        for row in part
    ]
    table, picture = SENSITIVITY_FILES
    _write_table(rows, ("parameter", "change", "setting", "accuracy"), out / table)
    write_figure(_draw_sensitivity(found), out / picture)


_STYLES = ("-", "--", "-.", ":")
"""Styles of lines, which tell them apart where there are more than colors."""


def _draw_sensitivity(found: Sensitivity) -> Figure:
    """Draw accuracy against the fraction of zeros and against bits, a line for each parameter that is changed alone."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.name for row in found.sparsities))
    figure = Figure(figsize=(9, 3.6 + 0.08 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, name in enumerate(names):
        style = {"color": COLORS[index % len(COLORS)], "linestyle": _STYLES[index // len(COLORS) % len(_STYLES)]}
        zeros = [(100 * row.setting, 100 * row.score) for row in found.sparsities if row.name == name]
        bits = [(2 if row.setting == "ternary" else row.setting, 100 * row.score) for row in found.bits
                if row.name == name]  # fmt: skip
        left.plot(*zip(*zeros, strict=True), marker="o", markersize=3, label=name, **style)
        right.plot(*zip(*bits, strict=True), marker="o", markersize=3, **style)
    for axes, label in ((left, "zeros in this layer alone (%)"), (right, "bits of this layer alone")):
        axes.axhline(100 * found.score, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel=label)
        axes.grid(linewidth=0.3)
    right.invert_xaxis()
    left.set(ylabel="validation accuracy (%)")
    if left.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=7)
    return figure
