"""A picture of how accuracy falls when inputs are corrupted, or attacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from falconet.data.drawing import COLORS, FRAME
from falconet.evaluation.robustness import Attacked, Robustness, tabulate_corruptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Markers that tell lines apart in gray, too."""


def draw_robustness(robustness: Robustness) -> Figure:
    """Return accuracy over severity, a line each corruption, and over epsilon, a line each attack."""
    from matplotlib.figure import Figure

    attacked = bool(robustness.attacks)
    figure = Figure(figsize=(11 if attacked else 6.5, 4.2), layout="constrained")
    first, *others = figure.subplots(1, 1 + attacked, sharey=True, squeeze=False)[0]
    _draw_corruptions(first, robustness)
    for axes in others:
        _draw_attacks(axes, robustness.attacks)
    for axes in (first, *others):
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.grid(axis="y", color=FRAME, linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower left", fontsize=8)
    first.set_ylabel("accuracy")
    return figure


def _draw_corruptions(axes: Axes, robustness: Robustness) -> None:
    """Draw a line for each corruption; all begin at the clean samples."""
    lines = tabulate_corruptions(robustness).items()
    for (name, rows), color, marker in zip(lines, COLORS, _MARKERS, strict=False):
        severities = [0, *(row.severity for row in rows)]
        accuracies = [robustness.clean_accuracy, *(row.accuracy for row in rows)]
        axes.plot(severities, accuracies, color=color, marker=marker, markersize=4, label=name.replace("_", " "))
    axes.set(xlabel="severity (0: as it is)", title=f"corrupted (n = {robustness.n:,})")


def _draw_attacks(axes: Axes, rows: Sequence[Attacked]) -> None:
    """Draw a line for each attack, at evenly spaced epsilons: they span two decades, and 0."""
    names = list(dict.fromkeys(row.attack for row in rows))
    for name, color, marker in zip(names, COLORS, _MARKERS, strict=False):
        values = [row for row in rows if row.attack == name]
        accuracies = [row.accuracy for row in values]
        axes.plot(range(len(values)), accuracies, color=color, marker=marker, markersize=4, label=name.upper())
        axes.set_xticks(range(len(values)), [format_epsilon(row.epsilon) for row in values])
    axes.set(xlabel="epsilon, of pixels in 0..1", title=f"attacked (n = {rows[0].n:,})")


def format_epsilon(epsilon: float) -> str:
    """Return an epsilon as the literature writes it: in gray levels of 255 where it is a few of them."""
    levels = 255 * epsilon
    return f"{levels:.0f}/255" if epsilon and abs(levels - round(levels)) < 1e-6 and levels < 16 else f"{epsilon:g}"
