"""Raw samples of any kind drawn into axes of matplotlib, which is imported where something is drawn."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64, UInt

from falconet.data.images import to_bytes
from falconet.escaping import escape_character
from falconet.spec import ModalityName
from falconet.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""The palette of Okabe and Ito, which the color-blind can tell apart too."""

FRAME = "#b0b0b0"
DPI = 130
_PIXELS = 256
"""Longest side in pixels of a picture on a sheet."""
_POINTS = 2000
"""Most points of a curve; longer ones are drawn as their lowest and highest values."""
_TEXT_COLUMNS, _TEXT_LINES = 26, 10
"""Most characters in a line, and most lines, of a text that is drawn."""


def draw_sample(axes: Axes, sample: Any, kind: ModalityName) -> None:
    """Draw a small picture of one sample, without numbers on its axes."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FRAME, linewidth=0.6)
    _DRAWERS[kind](axes, sample)


def draw_nothing(axes: Axes, reason: str) -> None:
    """Say in the middle of the axes why there is no picture."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FRAME, linewidth=0.6)
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", size=7, color=FRAME)


def draw_image(axes: Axes, image: UInt[np.ndarray, "height width channels"]) -> None:
    """Draw an image whole; small ones show their pixels."""
    from PIL import Image

    shown = to_bytes(image)
    picture = Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)
    picture.thumbnail((_PIXELS, _PIXELS))
    small = max(image.shape[:2]) <= _PIXELS // 4
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest" if small else "antialiased")


def draw_series(axes: Axes, series: Float32[np.ndarray, "channels steps"], rate: int | None = None) -> None:
    """Draw each channel in its color, over seconds where there is a rate, else over steps."""
    for channel, color in zip(series, choose_colors(len(series)), strict=True):
        where, values = _thin(channel)
        axes.plot(where / (rate or 1), values, color=color, linewidth=0.9, marker="." if len(channel) == 1 else "")
    axes.margins(x=0.02, y=0.08)


def _draw_text(axes: Axes, text: str) -> None:
    """Write the beginning of a text."""
    axes.set_facecolor("white")
    lines = _wrap(clean(" ".join(text[:2000].split())), _TEXT_COLUMNS)
    if len(lines) > _TEXT_LINES:
        lines = [*lines[: _TEXT_LINES - 1], "…"]
    # Without parse_math, two dollar signs would begin and end a formula.
    axes.text(
        0.04, 0.95, "\n".join(lines), transform=axes.transAxes, va="top", parse_math=False, family="monospace", size=6
    )  # fmt: skip


def _draw_any_series(axes: Axes, series: Float32[np.ndarray, "channels steps"]) -> None:
    """Draw a series, or say that it has no values."""
    if np.isnan(series).all():
        draw_nothing(axes, "no values")
    else:
        draw_series(axes, series)


def _draw_any_text(axes: Axes, text: str) -> None:
    """Write a text, or say that it is empty."""
    if text.strip():
        _draw_text(axes, text)
    else:
        draw_nothing(axes, "empty")


_DRAWERS: Mapping[ModalityName, Callable[[Axes, Any], None]] = MappingProxyType(
    {"image": draw_image, "series": _draw_any_series, "text": _draw_any_text}
)


def label_powers(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as 10⁻³, in plain letters.

    matplotlib has the same as formulas, which it sets with a parser of TeX: a third of the time of a report's pictures.
    """
    from matplotlib.ticker import LogFormatter

    class Powers(LogFormatter):
        """Labels the ticks that matplotlib would, which are those with a text."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return _write_power(x) if super().__call__(x, pos) else ""

    axis.set_major_formatter(Powers())
    axis.set_minor_formatter(Powers())


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _write_power(value: float) -> str:
    """Return a number above 0 as a power of ten, times a digit where it is none."""
    digit, _, exponent = f"{value:.0e}".partition("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return power if digit == "1" else f"{digit}×{power}"


def choose_colors(count: int) -> Sequence[Any]:
    """Return colors for `count` channels that can be told apart, in order of the rainbow where there are many."""
    from matplotlib import colormaps

    return COLORS[:count] if count <= len(COLORS) else list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _thin(values: Float32[np.ndarray, " steps"]) -> tuple[Float64[np.ndarray, " kept"], Float32[np.ndarray, " kept"]]:
    """Return positions and values of a curve of at most _POINTS that looks the same: lows and highs of blocks."""
    where = np.arange(len(values), dtype=np.float64)
    if len(values) <= _POINTS:
        return where, values
    starts = np.linspace(0, len(values), _POINTS // 2, endpoint=False).astype(np.int64)
    ends = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    return np.repeat(where[starts], 2), ends.ravel()


def shorten(name: str, limit: int) -> str:
    """Return a name as it can be drawn, in at most `limit` characters; see `cut`."""
    return cut(clean(name), limit)


def cut(name: str, limit: int) -> str:
    """Return a name of at most `limit` characters, its middle left out; more of the end stays than of the beginning."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def clean(text: str) -> str:
    """Return a text as it can be drawn: a question mark for what is no picture, the number of what no font here has."""
    return "".join(mark if mark.isprintable() and _has_glyph(mark) else _name_mark(mark) for mark in text)


LACKING: set[str] = set()
"""Characters that were drawn as their numbers, for want of a font."""


def _name_mark(mark: str) -> str:
    """Return what stands for a character that cannot be drawn."""
    if not mark.isprintable():
        return "?"
    LACKING.add(mark)
    return escape_character(mark)


def describe_lacking() -> str:
    """Return why pictures have numbers instead of characters, and what to do; empty where they have none."""
    if not LACKING:
        return ""
    marks = "".join(sorted(LACKING)[:8])
    return f"no installed font has {marks!r}, so that pictures show numbers; install one, such as Noto Sans CJK"


def _wrap(text: str, columns: int) -> list[str]:
    """Return a text in lines of so many columns of a monospaced font, between words where there are any."""
    lines, line = [], ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if measure(joined) <= columns:
            line = joined
            continue
        lines += [line] if line else []
        line = ""
        # A clause of Chinese or Thai has no blanks to break it at.
        for mark in word:
            if measure(line + mark) > columns:
                lines.append(line)
                line = ""
            line += mark
    return [*lines, line]


def measure(text: str) -> int:
    """Return how many columns of a monospaced font a text takes: two for a Chinese character."""
    return sum(2 if unicodedata.east_asian_width(mark) in "WF" else 1 for mark in text)


def _has_glyph(mark: str) -> bool:
    """Whether an installed font has a picture of a character."""
    return mark.isascii() or find_font(mark) is not None


BASE = "DejaVu Sans"
"""The font that matplotlib brings along."""


@cache
def find_font(mark: str) -> str | None:
    """Return the name of a font that has a character, matplotlib's own where it does; None where none has."""
    from matplotlib.font_manager import fontManager, get_font

    entries = sorted(fontManager.ttflist, key=lambda entry: (entry.name != BASE, entry.name))
    for entry in entries:
        # The last resort has a box for each character.
        if "Last Resort" not in entry.name:
            with suppress(OSError, RuntimeError):  # A font that has gone, or of a kind that cannot be drawn.
                if get_font(entry.fname).get_char_index(ord(mark)):
                    return entry.name
    return None


def choose_fonts(figure: Figure) -> None:
    """Let each text of a figure have the fonts that its characters are in."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        found = {find_font(mark) for mark in text.get_text() if not mark.isascii() and mark.isprintable()}
        others = sorted(name for name in found if name is not None)
        if others:
            text.set_fontfamily([*text.get_fontfamily(), *others])


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG. Raises StorageError where that fails."""
    write_bytes(path, encode_figure(figure, DPI))


def encode_figure(figure: Figure, dpi: float = DPI) -> bytes:
    """Return a figure as PNG."""
    choose_fonts(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
