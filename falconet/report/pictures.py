"""Pictures for reports, as text that stands inside the page: SVG curves and PNG thumbnails."""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from falconet.training import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
"""Of the palette of Okabe and Ito, told apart by the color-blind too; on white and on dark."""

TEXT = "#010203"
"""Stands for the page's own text color, by which it is replaced."""


def draw_learning_curves(history: Sequence[EpochRow], best_epoch: int) -> str:
    """Return loss and accuracy by epoch, for training and validation, as an SVG element in the page's colors."""

    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_curves(left, "loss", history, best_epoch)
        draw_curves(right, "accuracy", history, best_epoch)
        return figure

    return to_svg(draw, f"Learning curves: loss and accuracy over {len(history)} epochs")


def to_svg(draw: Callable[[], Figure], title: str) -> str:
    """Return a figure as an SVG element in the page's colors; `title` is what a screen reader says."""
    from matplotlib import rc_context

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "falconet", "font.family": "sans-serif", "font.size": 10,
        "text.color": TEXT, "axes.labelcolor": TEXT, "axes.edgecolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    }  # fmt: skip
    with rc_context(style):
        buffer = io.StringIO()
        draw().savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def draw_curves(axes: Axes, figure: str, history: Sequence[EpochRow], best_epoch: int) -> None:
    """Draw one figure of the history for training and validation."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row.epoch for row in history]
    for part, color, line in (("train", BLUE, "--"), ("val", ORANGE, "-")):
        label = {"train": "training (augmented)", "val": "validation"}[part]
        values = [getattr(row, f"{part}_{figure}") for row in history]
        marker = "o" if len(history) == 1 else None
        axes.plot(epochs, values, color=color, linestyle=line, label=label, marker=marker)
    axes.axvline(best_epoch, color=GREEN, linestyle=":", label=f"kept: epoch {best_epoch}")
    axes.set_xlabel("epoch")
    axes.set_ylabel(figure)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def encode_picture(pixels: UInt8[np.ndarray, "height width channels"], side: int = 96) -> str:
    """Return an image as a PNG data URI, enlarged by whole pixels or shrunk so that its longer side is near `side`."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    longer = max(image.size)
    factor = max(side // longer, 1)
    size = [max(round(edge * (factor if longer <= side else side / longer)), 1) for edge in image.size]
    resampling = Image.Resampling.NEAREST if longer <= side else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    image.resize((size[0], size[1]), resampling).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_sparkline(series: Float32[np.ndarray, "channels steps"]) -> str:
    """Return a series as an SVG element of 120 by 60 pixels: a line a channel, with gaps where values are missing."""
    finite = np.isfinite(series)
    low, high = (float(series[finite].min()), float(series[finite].max())) if finite.any() else (0.0, 1.0)
    x = np.linspace(2, 118, series.shape[1])
    y = 58 - 56 * (series - low) / ((high - low) or 1.0)
    # A screen shows no more than a few points a pixel.
    kept = np.unique(np.linspace(0, len(x) - 1, 480).round().astype(int))
    lines = "".join(
        f'<path d="{draw_path(x[kept], channel[kept])}" fill="none" stroke="{color}"/>'
        for channel, color in zip(y, itertools.cycle((BLUE, ORANGE, GREEN)), strict=False)
    )
    return (
        f'<svg role="img" aria-label="series of {series.shape[1]} steps" viewBox="0 0 120 60" width="120">{lines}</svg>'
    )


def draw_path(x: np.ndarray, y: np.ndarray) -> str:
    """Return the commands of an SVG path through points, lifted over those that are missing."""
    commands, drawing = [], False
    for left, top in zip(x.tolist(), y.tolist(), strict=True):
        if math.isfinite(top):
            commands.append(f"{'L' if drawing else 'M'}{left:.1f} {top:.1f}")
        drawing = math.isfinite(top)
    return "".join(commands)
