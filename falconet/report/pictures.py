"""Pictures for reports, as text that stands inside the page: SVG curves and PNG thumbnails."""

from __future__ import annotations

import base64
import html
import io
import itertools
import math
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt

from falconet.data.drawing import FRAME
from falconet.data.images import to_bytes
from falconet.escaping import escape_line
from falconet.training import EpochRow
from falconet.units import format_epochs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
"""Colors of Okabe and Ito's palette, distinct for the color-blind too; on white and on dark."""

_PEN = "#010203"
"""Placeholder for the page's own text color."""

THEME = {_PEN: "currentColor", FRAME: "var(--soft)", BLUE: "var(--blue)", ORANGE: "var(--orange)"}
"""Color of a drawing -> the page's own color, which differs in dark mode."""


_DRAWING = RLock()
"""Lock held while matplotlib's settings are those of a page."""


@dataclass(frozen=True)
class Picture:
    """A drawing as it stands in the page."""

    svg: str
    caption: str
    """Caption below the picture; `svg` has a description for screen readers."""

    def within(self, part: str) -> Picture:
        """Return the picture for a named part of a page, where others may have an equal one."""
        return Picture(scope_ids(self.svg, part), self.caption)


def show_learning_curves(history: Sequence[EpochRow], best_epoch: int) -> tuple[Picture, Picture]:
    """Return the loss, and the accuracy, of training and validation by epoch."""

    def show(figure: str, caption: str) -> Picture:
        last = (
            f"{figure} {getattr(history[-1], f'val_{figure}'):.4g} on validation in the last one" if history else "none"
        )
        description = f"Learning curves: {figure} over {format_epochs(len(history))}; {last}"
        return Picture(to_svg(lambda: _draw_learning(figure, history, best_epoch), description), caption)

    return show("loss", "Loss by epoch"), show("accuracy", "Accuracy by epoch")


def _draw_learning(figure: str, history: Sequence[EpochRow], best_epoch: int) -> Figure:
    """Return one figure of the history, `loss` or `accuracy`, for training and validation."""
    from matplotlib.ticker import MaxNLocator

    canvas, axes = create_axes()
    epochs = [row.epoch for row in history]
    for part, color, line in (("train", BLUE, "--"), ("val", ORANGE, "-")):
        label = {"train": "training (augmented)", "val": "validation"}[part]
        values = [getattr(row, f"{part}_{figure}") for row in history]
        axes.plot(epochs, values, color=color, linestyle=line, label=label, marker="o" if len(history) == 1 else None)
    axes.axvline(best_epoch, color=GREEN, linestyle=":", label=f"kept: epoch {best_epoch}")
    axes.set(xlabel="epoch", ylabel=figure)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    canvas.legend(loc="outside upper left", ncols=3, fontsize=9, handlelength=1.6, columnspacing=1.2)
    return canvas


def create_axes(width: float = 4.4, height: float = 3.1) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches, by default one whose letters can be read on a phone, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def to_svg(draw: Callable[[], Figure], description: str) -> str:
    """Return a figure as an SVG element in the page's colors; `description` is what a screen reader says."""
    from matplotlib import rc_context

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "falconet", "font.family": "sans-serif", "font.size": 10,
        "text.color": _PEN, "axes.labelcolor": _PEN, "axes.edgecolor": _PEN, "xtick.color": _PEN, "ytick.color": _PEN,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    }  # fmt: skip
    # These settings are the whole process's: of two threads at once, one would keep the other's for good.
    with _DRAWING, rc_context(style), warnings.catch_warnings():
        # The page's reader draws the letters, whatever matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        buffer = io.StringIO()
        draw().savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for drawn, shown in THEME.items():
        svg = svg.replace(drawn, shown)
    return scope_ids(svg).replace("<svg", f'<svg role="img" aria-label="{html.escape(escape_line(description))}"', 1)


def scope_ids(svg: str, part: str = "") -> str:
    """Return an SVG without the ids that nothing in it refers to; the others begin with a hash of drawing and part.

    matplotlib numbers alike what different figures hold, and an id may occur only once in a page.
    """
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    prefix = f"s{zlib.crc32((part + svg).encode()):08x}-"

    def rename(match: re.Match[str]) -> str:
        return f' id="{prefix}{match[1]}"' if match[1] in used else ""

    svg = re.sub(r' id="([^"]*)"', rename, svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}", svg)


def encode_picture(pixels: UInt[np.ndarray, "height width channels"], side: int = 96) -> str:
    """Return an image as a PNG data URI, enlarged by whole pixels or shrunk so that its longer side is near `side`."""
    from PIL import Image

    shown = to_bytes(pixels)
    image = Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)
    longer = max(image.size)
    factor = max(side // longer, 1)
    size = [max(round(edge * (factor if longer <= side else side / longer)), 1) for edge in image.size]
    resampling = Image.Resampling.NEAREST if longer <= side else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    image.resize((size[0], size[1]), resampling).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_sparkline(series: Float32[np.ndarray, "channels steps"], ground: str = "", said: str = "") -> str:
    """Return a series as an SVG element of 120 by 60 pixels: a line a channel, with gaps where values are missing.

    `ground`: SVG elements that the lines stand on; `said`, escaped: what a screen reader says instead of its length.
    """
    finite = np.isfinite(series)
    low, high = (float(series[finite].min()), float(series[finite].max())) if finite.any() else (0.0, 1.0)
    x = np.linspace(2, 118, series.shape[1])
    y = 58 - 56 * (series - low) / ((high - low) or 1.0)
    # A screen shows no more than a few points a pixel.
    kept = np.unique(np.linspace(0, len(x) - 1, 480).round().astype(int))
    lines = "".join(
        f'<path d="{draw_path(x[kept], channel[kept])}" fill="none" style="stroke: {THEME.get(color, color)}"/>'
        for channel, color in zip(y, itertools.cycle((BLUE, ORANGE, GREEN)), strict=False)
    )
    said = said or f"series of {series.shape[1]} steps"
    return f'<svg role="img" aria-label="{said}" viewBox="0 0 120 60" width="120">{ground}{lines}</svg>'


def draw_path(x: np.ndarray, y: np.ndarray) -> str:
    """Return the commands of an SVG path through points, lifted over those that are missing."""
    commands, drawing = [], False
    for left, top in zip(x.tolist(), y.tolist(), strict=True):
        if math.isfinite(top):
            commands.append(f"{'L' if drawing else 'M'}{left:.1f} {top:.1f}")
        drawing = math.isfinite(top)
    return "".join(commands)
