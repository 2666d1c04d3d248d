"""Panels: an explanation of one sample, with the prediction and the faithfulness of the explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from falconet.data.drawing import COLORS, clean, cut, measure, shorten
from falconet.explanation.adapters import ADAPTERS
from falconet.explanation.faithfulness import Faithfulness
from falconet.explanation.pictures import AGAINST, EXPLANATION_DPI, FOR, Shown, to_shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = 36
"""Characters that fit above an image."""


@dataclass(frozen=True, eq=False)
class Panel:
    """The content of one picture."""

    shown: Shown
    relevance: Float[np.ndarray, "*positions"]
    title: str
    candidates: Sequence[tuple[str, float]]
    """Predicted classes and their probabilities, the most probable first."""
    faithfulness: Faithfulness


def draw_panel(panel: Panel) -> Figure:
    """Draw the input, its explanation, the prediction, and the faithfulness curves."""
    from matplotlib.figure import Figure

    adapter = ADAPTERS[panel.shown.kind]
    widths = (1, 1, 0.8, 1) if adapter.draw_sample else (2.2, 0.8, 1)
    figure = Figure(figsize=(10, 2.8), layout="constrained", dpi=EXPLANATION_DPI)
    axes = figure.subplots(1, len(widths), width_ratios=widths)
    if adapter.draw_sample:
        adapter.draw_sample(axes[0], panel.shown)
        axes[0].set_title("input", size=9)
    adapter.draw_relevance(axes[-3], panel.shown, to_shades(panel.relevance))
    axes[-3].set_title(fit_title(panel.title, _TITLE if adapter.draw_sample else 2 * _TITLE), size=9, parse_math=False)
    _draw_candidates(axes[-2], panel.candidates)
    _draw_curves(axes[-1], panel.faithfulness)
    return figure


def fit_title(title: str, columns: int) -> str:
    """Return a method and a class as a title, broken into two lines and cut where it would overlap its neighbors."""
    shown = clean(title)
    lines = [shown] if measure(shown) <= columns else shown.split(": ", 1)
    return "\n".join(cut(line, columns) for line in lines)


def _draw_candidates(axes: Axes, candidates: Sequence[tuple[str, float]]) -> None:
    """Draw the most probable classes as bars."""
    names = [shorten(name, 14) for name, _ in candidates]
    values = [probability for _, probability in candidates]
    bars = axes.barh(range(len(names)), values, color=COLORS[5])
    axes.bar_label(bars, [f"{value:.1%}" for value in values], padding=2, size=7)
    axes.set_yticks(range(len(names)), names, size=8, parse_math=False)
    axes.set(xlim=(0, 1.35), xticks=[])
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title("answer", size=9)


def _draw_curves(axes: Axes, faithfulness: Faithfulness) -> None:
    """Draw the deletion and insertion curves."""
    for name, curve, color, line in (
        ("deletion", faithfulness.deletion, AGAINST, "--"),
        ("insertion", faithfulness.insertion, FOR, "-"),
    ):
        axes.plot(curve.fractions, curve.probabilities, line, color=color, label=f"{name}: area {curve.area:.2f}")
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.03))
    axes.set_xlabel("fraction removed or brought", size=8)
    axes.set_title("probability of the class", size=9)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
