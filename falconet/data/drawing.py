"""Raw samples of any kind drawn into axes of matplotlib, which is imported where something is drawn."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from falconet.spec import Kind
from falconet.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""The palette of Okabe and Ito, told apart by the color-blind too."""

FRAME = "#b0b0b0"
DPI = 130
PIXELS = 256
"""Longest side of a picture on a sheet."""
POINTS = 2000
"""Of a curve; longer ones are drawn as their lowest and highest values."""
TEXT_COLUMNS, TEXT_LINES = 26, 10
"""Of a text that is drawn."""


def draw_sample(axes: Axes, sample: Any, kind: Kind) -> None:
    """Draw a small picture of one sample, without numbers on its axes."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FRAME, linewidth=0.6)
    if kind == "image":
        draw_image(axes, sample)
    elif kind == "series" and not np.isnan(sample).all():
        draw_series(axes, sample)
    elif kind == "series":
        draw_nothing(axes, "no values")
    elif not sample.strip():
        draw_nothing(axes, "empty")
    else:
        draw_text(axes, sample)


def draw_nothing(axes: Axes, reason: str) -> None:
    """Say in the middle of the axes why there is no picture."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FRAME, linewidth=0.6)
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", size=7, color=FRAME)


def draw_image(axes: Axes, image: UInt8[np.ndarray, "height width channels"]) -> None:
    """Draw an image whole; small ones show their pixels."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture.thumbnail((PIXELS, PIXELS))
    small = max(image.shape[:2]) <= PIXELS // 4
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest" if small else "antialiased")


def draw_series(axes: Axes, series: Float32[np.ndarray, "channels steps"], rate: int | None = None) -> None:
    """Draw each channel in its color, over seconds where there is a rate, else over steps."""
    for channel, color in zip(series, choose_colors(len(series)), strict=True):
        where, values = thin(channel)
        axes.plot(where / (rate or 1), values, color=color, linewidth=0.9, marker="." if len(channel) == 1 else "")
    axes.margins(x=0.02, y=0.08)


def draw_text(axes: Axes, text: str) -> None:
    """Write the beginning of a text."""
    axes.set_facecolor("white")
    lines = textwrap.wrap(clean(" ".join(text[:2000].split())), TEXT_COLUMNS, max_lines=TEXT_LINES, placeholder=" …")
    # Without parse_math, two dollar signs would begin and end a formula.
    axes.text(
        0.04, 0.95, "\n".join(lines), transform=axes.transAxes, va="top", parse_math=False, family="monospace", size=6
    )  # fmt: skip


def choose_colors(count: int) -> Sequence[Any]:
    """Return colors for `count` channels that can be told apart, in order of the rainbow where there are many."""
    from matplotlib import colormaps

    return COLORS[:count] if count <= len(COLORS) else list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def thin(values: Float32[np.ndarray, " steps"]) -> tuple[Float64[np.ndarray, " kept"], Float32[np.ndarray, " kept"]]:
    """Return positions and values of a curve of at most POINTS points that looks the same: lows and highs of blocks."""
    where = np.arange(len(values), dtype=np.float64)
    if len(values) <= POINTS:
        return where, values
    starts = np.linspace(0, len(values), POINTS // 2, endpoint=False).astype(np.int64)
    ends = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    return np.repeat(where[starts], 2), ends.ravel()


def shorten(name: str, limit: int) -> str:
    """Return a name of at most `limit` characters, its middle left out; more of the end stays than of the beginning."""
    name = clean(name)
    if len(name) <= limit:
        return name
    head = (limit - 1) // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def clean(text: str) -> str:
    """Return a text with a question mark for each character that has no picture."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG. Raises StorageError where that fails."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names and texts may be in a script that matplotlib's own font lacks; it draws boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI)
    write_bytes(path, buffer.getvalue())
