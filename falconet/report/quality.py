"""Pictures of how good a model is: functions of plain arrays, each as a figure and as a picture for the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from falconet.data.drawing import FRAME, cut, label_powers
from falconet.escaping import escape_line
from falconet.metrics import wilson_interval
from falconet.report.pictures import BLUE, Picture, create_axes, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Curve = tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]
"""Points of a curve: horizontal values, then vertical ones."""

_COLUMNS = 5
"""Most small pictures side by side."""
PANELS = 20
"""Most classes that have a small picture: those of the smallest areas."""
_NAME_LENGTH = 14
"""Most letters of a name above a small picture."""
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.6, 0.1, 0.55, 0.3
"""Inches around the small pictures, for numbers and names."""
_GAPS = 0.12, 0.25
"""Gaps between small pictures, as fractions of their width and height."""


def show_reliability(
    lower: Float64[np.ndarray, " bins"],
    upper: Float64[np.ndarray, " bins"],
    confidence: Float64[np.ndarray, " bins"],
    accuracy: Float64[np.ndarray, " bins"],
    count: Int64[np.ndarray, " bins"],
) -> Picture:
    """Return the reliability diagram (see `draw_reliability`) with its widest gap in words."""
    filled = np.flatnonzero(count)
    gaps = np.abs(confidence - accuracy)[filled]
    widest = int(filled[gaps.argmax()])
    description = (
        f"Reliability diagram of {count.sum():,} samples. At the highest confidence (above {lower[filled[-1]]:.0%}): "
        f"confidence {confidence[filled[-1]]:.1%}, accuracy {accuracy[filled[-1]]:.1%}, {count[filled[-1]]:,} samples. "
        f"Widest gap: confidence {confidence[widest]:.1%}, accuracy {accuracy[widest]:.1%}, {count[widest]:,} samples."
    )
    caption = (
        "Reliability diagram: accuracy over confidence, with 95% intervals; on the dashed line both agree. "
        "Below, the samples in each bin."
    )
    return Picture(to_svg(lambda: draw_reliability(lower, upper, confidence, accuracy, count), description), caption)


def draw_reliability(
    lower: Float64[np.ndarray, " bins"],
    upper: Float64[np.ndarray, " bins"],
    confidence: Float64[np.ndarray, " bins"],
    accuracy: Float64[np.ndarray, " bins"],
    count: Int64[np.ndarray, " bins"],
) -> Figure:
    """Return accuracy over confidence in bins from `lower` to `upper`, above the samples in each (log scale).

    Guo and others, "On Calibration of Modern Neural Networks", 2017, figure 1; each mark stands at its bin's mean
    confidence and has the 95% score interval of its accuracy. Bins without samples have no mark.
    """
    from matplotlib.figure import Figure

    filled = count > 0
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    accuracies, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    accuracies.plot([0, 1], [0, 1], color=FRAME, linestyle="--", label="perfectly calibrated")
    hits = np.rint(accuracy * np.where(filled, count, 0)).astype(np.int64)[filled]
    bounds = np.array([wilson_interval(int(h), int(n)) for h, n in zip(hits, count[filled], strict=True)]).reshape(
        -1, 2
    )
    # Rounding may leave a bound a hair on the wrong side.
    errors = np.abs(bounds - accuracy[filled, None]).T
    accuracies.errorbar(
        confidence[filled], accuracy[filled], errors, color=BLUE, marker="o", markersize=4, linestyle="-", capsize=2
    )
    accuracies.set(ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    figure.legend(loc="outside upper left", fontsize=9)
    counts.bar(
        lower[filled], count[filled], (upper - lower)[filled], align="edge", color=BLUE, edgecolor="none", alpha=0.6
    )
    counts.set(xlabel="confidence", ylabel="samples", yscale="log", ylim=(0.5, 2 * max(int(count.max(initial=1)), 1)))
    label_powers(counts.yaxis)
    return figure


def show_coverage(coverage: Float64[np.ndarray, " points"], accuracy: Float64[np.ndarray, " points"]) -> Picture:
    """Return the coverage–accuracy curve (see `draw_coverage`) with three of its points in words."""
    points = [int(np.abs(coverage - fraction).argmin()) for fraction in (1.0, 0.9, 0.5)]
    words = ", ".join(f"{accuracy[point]:.2%} right when it answers {coverage[point]:.0%}" for point in points)
    caption = "With abstention: accuracy over coverage, the fraction of samples that it still predicts."
    return Picture(
        to_svg(lambda: draw_coverage(coverage, accuracy), f"Coverage and accuracy: {words}."),
        caption,
    )


def draw_coverage(coverage: Float64[np.ndarray, " points"], accuracy: Float64[np.ndarray, " points"]) -> Figure:
    """Return accuracy of the predictions kept over their fraction (coverage); no point where none is kept."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = create_axes()
    given = coverage > 0
    axes.plot(coverage[given], accuracy[given], color=BLUE)
    axes.set(xlabel="coverage", ylabel="accuracy", xlim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1))
    return figure


def show_precision_recall(
    curves: Mapping[str, _Curve], areas: Mapping[str, float], prevalence: Mapping[str, float]
) -> Picture:
    """Return precision over recall for each class (see `draw_precision_recall`), with the areas in words."""
    caption = f"Precision over recall, one class against the rest; dotted: chance level. {_mention_limit(curves)}"
    description = f"Precision–recall curves. Average precision: {_list_areas(areas)}."
    return Picture(to_svg(lambda: draw_precision_recall(curves, areas, prevalence), description), caption.strip())


def draw_precision_recall(
    curves: Mapping[str, _Curve], areas: Mapping[str, float], prevalence: Mapping[str, float]
) -> Figure:
    """Return (recall, precision) of each class, with its average precision, and its fraction of all samples as chance.

    Lines are steps, since precision between two points is that of the higher recall (Davis and Goadrich, 2006: no
    straight line joins them); the average precision is the area below.
    """

    def draw(axes: Axes, name: str) -> None:
        recall, precision = curves[name]
        if recall[0] > recall[-1]:  # From the lowest threshold on, as scikit-learn gives it.
            recall, precision = recall[::-1], precision[::-1]
        axes.axhline(prevalence[name], color=FRAME, linestyle=":")
        axes.plot(recall, precision, color=BLUE, drawstyle="steps-pre")

    return _draw_classes(areas, draw, "recall", "precision")


def show_roc(curves: Mapping[str, _Curve], areas: Mapping[str, float]) -> Picture:
    """Return the ROC curve of each class (see `draw_roc`), with the areas in words."""
    rates = "ROC: true positive rate over false positive rate, one class against the rest; dotted: chance level."
    caption = f"{rates} {_mention_limit(curves)}"
    description = f"ROC curves. Areas: {_list_areas(areas)}."
    return Picture(to_svg(lambda: draw_roc(curves, areas), description), caption.strip())


def draw_roc(curves: Mapping[str, _Curve], areas: Mapping[str, float]) -> Figure:
    """Return (false positive rate, true positive rate) of each class, with the area below."""

    def draw(axes: Axes, name: str) -> None:
        axes.plot([0, 1], [0, 1], color=FRAME, linestyle=":")
        axes.plot(*curves[name], color=BLUE)

    return _draw_classes(areas, draw, "false positive rate", "true positive rate")


def show_confusion(confusion: Int64[np.ndarray, "classes classes"], names: Sequence[str]) -> Picture:
    """Return the confusion matrix of many classes (see `draw_confusion`), with the darkest confusion in words."""
    wrong = confusion - np.diag(np.diag(confusion))
    truth, answer = np.unravel_index(wrong.argmax(), wrong.shape)
    most = f"{wrong.max():,} of {names[truth]} predicted as {names[answer]}" if wrong.any() else "no errors"
    right = f"{np.trace(confusion):,} of {confusion.sum():,} are correct"
    description = f"Confusion matrix of {len(names)} classes; {right}. Most frequent confusion: {most}."
    caption = (
        f"Confusion matrix of {len(names)} classes in the order of the model's outputs: rows are labels, columns "
        "predictions, the color is the fraction of the row. Correct ones lie on the diagonal."
    )
    return Picture(to_svg(lambda: draw_confusion(confusion), description), caption)


def draw_confusion(confusion: Int64[np.ndarray, "classes classes"]) -> Figure:
    """Return each row's fractions as a map of colors; a class without samples has none."""
    figure, axes = create_axes(5.2, 4.4)
    total = confusion.sum(axis=1, keepdims=True)
    fractions = np.divide(confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)
    # Cividis looks the same to the color-blind (Nuñez, Anderton, Renslow, PLoS ONE 2018).
    image = axes.imshow(fractions, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="label")
    figure.colorbar(image, ax=axes, label="fraction of the label")
    return figure


def _draw_classes(areas: Mapping[str, float], draw: Callable[[Axes, str], None], across: str, up: str) -> Figure:
    """Return small pictures of the classes of smallest area, each with that number above."""

    def draw_one(axes: Axes, name: str) -> None:
        draw(axes, name)
        # The page's reader has other fonts than this machine.
        shown = cut(escape_line(name), _NAME_LENGTH)
        axes.set_title(f"{shown}  {areas[name]:.3f}", size=9, loc="left", parse_math=False)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")

    return _draw_grid(_rank_areas(areas)[:PANELS], draw_one, across, up)


def _draw_grid(names: Sequence[str], draw: Callable[[Axes, str], None], across: str, up: str) -> Figure:
    """Return small pictures beside and below each other, with one scale for all."""
    from matplotlib.figure import Figure

    columns = max(min(_COLUMNS, len(names)), 1)
    rows = max(math.ceil(len(names) / columns), 1)
    width, height = 1.75 * columns + 0.5, 2 * rows + 0.4
    figure = Figure(figsize=(width, height))
    # The same texts stand around each: nothing need be measured to make room for them.
    edges = {"left": _LEFT / width, "right": 1 - _RIGHT / width, "bottom": _BOTTOM / height, "top": 1 - _TOP / height}
    figure.subplots_adjust(**edges, wspace=_GAPS[0], hspace=_GAPS[1])
    grid: Iterator[Any] = iter(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for name, axes in zip(names, grid, strict=False):
        draw(axes, name)
    for axes in grid:
        axes.remove()
    figure.supxlabel(across, size=10, y=0.05 / height)
    figure.supylabel(up, size=10, x=0.05 / width)
    return figure


def _rank_areas(areas: Mapping[str, float]) -> list[str]:
    """Return the classes that have an area, the smallest first; one without samples has none (NaN)."""
    return sorted((name for name, area in areas.items() if not math.isnan(area)), key=areas.__getitem__)


def _list_areas(areas: Mapping[str, float]) -> str:
    """Return areas in words, the smallest first."""
    return ", ".join(f"{name} {areas[name]:.3f}" for name in _rank_areas(areas)[:PANELS]) or "none"


def _mention_limit(curves: Mapping[str, Any]) -> str:
    """Say that not all classes are shown where they are not."""
    return f"The {PANELS} of {len(curves)} classes with the smallest areas." if len(curves) > PANELS else ""
