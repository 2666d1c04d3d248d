"""Pareto plots: accuracy against what it costs, with the front marked. Imports matplotlib where it draws."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from falconet.comparison.results import ComparisonRow
from falconet.data.drawing import shorten
from falconet.report.pictures import BLUE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

AXES = {"bytes": ("size of the weights", "B", 1.0), "macs": ("multiply-accumulates", "", 1.0)} | {
    "latency_ms": ("latency of one sample, one thread", "s", 1e-3)
}
"""Cost -> its title, the unit of its axis, and the factor into that unit."""
_NAME_LENGTH = 24
_MARKER = 7.0
"""Size of markers in points; labels keep that far from them."""
_LEADER = "#808080"
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Sides of a marker where its label may be, as (right, up), the best first."""
_ACROSS: dict[int, Literal["left", "center", "right"]] = {1: "left", 0: "center", -1: "right"}
_ALONG: dict[int, Literal["bottom", "center", "top"]] = {1: "bottom", 0: "center", -1: "top"}
"""Vertical alignment of a label below (-1), beside (0) or above (1) its marker."""
_DISTANCES = (1.0, 2.2, 3.6, 5.0)
"""Distances of a label from its marker, in marker sizes."""


def draw_front(rows: Sequence[ComparisonRow], cost: str) -> Figure:
    """Draw the validation accuracy of the models that have one over a cost: bars are stds between runs."""
    from matplotlib.figure import Figure

    evaluated = [row for row in rows if row.val_accuracy is not None]
    what, _, scale = AXES[cost]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    front = sorted((row for row in evaluated if cost in row.front), key=lambda row: float(getattr(row, cost)))
    others = [row for row in evaluated if cost not in row.front]
    points = {row.model: (getattr(row, cost) * scale, 100 * (row.val_accuracy or 0)) for row in evaluated}
    line = [points[row.model] for row in front]
    axes.plot(*zip(*line, strict=True), color=BLUE, linewidth=1, linestyle="--")
    for chosen, color, marker, label in (
        (front, BLUE, "o", "front: nothing is cheaper and better"),
        (others, ORANGE, "D", "others"),
    ):
        if chosen:
            x, y = zip(*(points[row.model] for row in chosen), strict=True)
            bars = list(zip(*(_measure_bar(row) for row in chosen), strict=True))
            axes.errorbar(
                x, y, yerr=bars, fmt=marker, color=color, markersize=_MARKER, capsize=3, elinewidth=1, label=label,
                markerfacecolor=color if chosen is front else "none",
            )  # fmt: skip
    _scale_axes(axes, cost)
    axes.set(xlabel=what, ylabel="validation accuracy (%)")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    figure.draw_without_rendering()
    spans = [(x, y, 100 * (row.val_accuracy_std or 0)) for row in evaluated for x, y in [points[row.model]]]
    names = [(shorten(name, _NAME_LENGTH), point) for name, point in points.items()]
    _place_labels(axes, names, _marker_boxes(axes, line, spans))
    return figure


def _measure_bar(row: ComparisonRow) -> tuple[float, float]:
    """Return the lengths of a bar below and above its point, in percent; no accuracy is above 100."""
    std = 100 * (row.val_accuracy_std or 0)
    return std, min(std, 100 - 100 * (row.val_accuracy or 0))


def _scale_axes(axes: Axes, cost: str) -> None:
    """Make the cost's axis logarithmic, with numbers that are read easily, and leave room for labels."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set_xscale("log")
    axes.margins(x=0.18, y=0.15)
    low, high = axes.get_xlim()
    # Over less than two powers of ten, those alone would leave the axis almost without numbers.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    if high < 4 * low:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if value <= 100 else "")
    axes.xaxis.set_major_formatter(EngFormatter(unit=AXES[cost][1]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25, linewidth=0.6)


def _marker_boxes(
    axes: Axes, line: Sequence[tuple[float, float]], bars: Sequence[tuple[float, float, float]]
) -> list[Bbox]:
    """Return the pixels that lines between points, and markers with the lengths of their bars, take up."""
    from matplotlib.transforms import Bbox

    half = _MARKER * axes.figure.dpi / 72 / 2
    boxes = []
    for x, y, bar in bars:
        ((left, low), (_, high)) = axes.transData.transform([(x, y - bar), (x, y + bar)])
        boxes.append(Bbox.from_extents(left - half, low - half, left + half, high + half))
    pixels = axes.transData.transform(line)
    for start, end in itertools.pairwise(pixels):
        steps = np.linspace(0, 1, max(int(np.abs(end - start).max() / half), 2))[:, None]
        boxes += [Bbox.from_bounds(x, y, 1, 1) for x, y in start + steps * (end - start)]
    return boxes


def _place_labels(axes: Axes, points: Sequence[tuple[str, tuple[float, float]]], standing: Sequence[Bbox]) -> None:
    """Write names beside their points, each where it hides least of what stands there already."""
    taken = list(standing)
    for name, point in points:
        label = axes.annotate(
            name, point, xytext=(0, 0), textcoords="offset points", size=9, zorder=5, parse_math=False
        )
        # The layout is settled; a label must not change it.
        label.set_in_layout(False)
        places = [(side, distance) for distance in _DISTANCES for side in _SIDES]
        boxes = [move(label, side, distance * _MARKER) for side, distance in places]
        costs = [_count_hidden(box, taken, axes.bbox) for box in boxes]
        best = costs.index(min(costs))
        side, distance = places[best]
        taken.append(move(label, side, distance * _MARKER))
        if distance > _DISTANCES[0]:
            _draw_leader(axes, point, taken[-1])


def _draw_leader(axes: Axes, point: tuple[float, float], box: Bbox) -> None:
    """Draw a thin line from a point to the nearest place of its label."""
    x, y = axes.transData.transform(point)
    nearest = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
    ends = axes.transData.inverted().transform(np.array([(x, y), nearest]))
    axes.plot(*ends.T, color=_LEADER, linewidth=0.6, alpha=0.6, scalex=False, scaley=False)


def move(label: Annotation, side: tuple[int, int], distance: float) -> Bbox:
    """Put a label on one side of its point; return the pixels that it covers then."""
    label.set_position((side[0] * distance, side[1] * distance))
    label.set_horizontalalignment(_ACROSS[side[0]])
    label.set_verticalalignment(_ALONG[side[1]])
    return label.get_window_extent()


def _count_hidden(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Return the pixels of a label that lie on others or outside the frame."""
    from matplotlib.transforms import Bbox

    overlaps = [Bbox.intersection(box, other) for other in taken]
    inside = Bbox.intersection(box, frame)
    area = box.width * box.height
    outside = area - (inside.width * inside.height if inside else 0)
    return outside + sum(overlap.width * overlap.height for overlap in overlaps if overlap)
