"""A picture of a run: losses and layer statistics over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from falconet.data.drawing import COLORS, FRAME, draw_nothing, label_powers, shorten
from falconet.training import EpochRow
from falconet.training.diagnoses import DEAD, LARGE_UPDATE, TINY_UPDATE, LayerStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = 24
"""Most layers that are all named beside a heat map; of more, every second or third one is."""
_LINES = 6
"""Most layers whose dead units are drawn: those with the most."""
_FLOOR, _CEILING = 1e-12, 1e12
"""Limits of drawn values, which clip others: axes of more decades could not be read."""


def draw_layer_stats(history: Sequence[EpochRow], layer_stats: Sequence[LayerStats]) -> Figure:
    """Return four pictures over epochs: losses; each layer's gradient; layers' updates; dead units."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 7), layout="constrained")
    (losses, gradients), (updates, dead) = figure.subplots(2, 2)
    _draw_losses(losses, history)
    _draw_gradients(gradients, layer_stats)
    _draw_updates(updates, layer_stats)
    _draw_dead(dead, layer_stats)
    for axes in (losses, gradients, updates, dead):
        if axes.get_xlabel():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_rates(rates: Sequence[float], losses: Sequence[float], chosen: float) -> Figure:
    """Return the losses at rising learning rates, with the one that was chosen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=COLORS[0], marker=".")
    axes.axvline(chosen, color=COLORS[2], linestyle=":", label=f"chosen: {chosen:g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _draw_losses(axes: Axes, history: Sequence[EpochRow]) -> None:
    """Draw training and validation loss."""
    axes.set_title("loss")
    if not history:
        draw_nothing(axes, "no epoch was completed")
        return
    epochs = [row.epoch for row in history]
    for part, name, color, line in (("train", "training", COLORS[0], "--"), ("val", "validation", COLORS[1], "-")):
        values = [getattr(row, f"{part}_loss") for row in history]
        axes.plot(epochs, values, color=color, linestyle=line, marker=".", label=name)
    axes.set_xlabel("epoch")
    axes.legend(frameon=False)


def _draw_gradients(axes: Axes, layer_stats: Sequence[LayerStats]) -> None:
    """Draw a map of gradients over weights, a row a layer, the first one at the top."""
    from matplotlib.colors import LogNorm

    axes.set_title("gradient / weights")
    layers, epochs, values = _tabulate(layer_stats, "gradient")
    known = values[np.isfinite(values)]
    if not known.size:
        draw_nothing(axes, "no gradients were seen")
        return
    top = min(max(float(known.max()), 10 * _FLOOR), _CEILING)
    low = min(max(float(known.min()), _FLOOR), top / 10)
    filled = np.where(np.isnan(values), np.nan, np.clip(values, low, top))
    extent = (epochs[0] - 0.5, epochs[-1] + 0.5, len(layers) - 0.5, -0.5)
    # Cividis looks the same to the color-blind (Nuñez, Anderton, Renslow, PLoS ONE 2018).
    image = axes.imshow(
        filled, norm=LogNorm(low, top), cmap="cividis", aspect="auto", extent=extent, interpolation="nearest"
    )
    every = math.ceil(len(layers) / _NAMES)
    axes.set_yticks(range(0, len(layers), every), [shorten(name, 24) for name in layers[::every]], size=7)
    axes.set_xlabel("epoch")
    figure = axes.get_figure(root=True)
    assert figure is not None
    label_powers(figure.colorbar(image, ax=axes).ax.yaxis)


def _draw_updates(axes: Axes, layer_stats: Sequence[LayerStats]) -> None:
    """Draw the median layer's update, within the range of all, and between what is too small and too large."""
    axes.set_title("change a step / weights")
    _, epochs, values = _tabulate(layer_stats, "update")
    values = np.where(np.isfinite(values) & (values > 0), np.clip(values, _FLOOR, _CEILING), np.nan)
    seen = ~np.isnan(values).all(axis=0)
    if not seen.any():
        draw_nothing(axes, "no steps were seen")
        return
    epochs, values = epochs[seen], values[:, seen]
    axes.fill_between(
        epochs, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=COLORS[5], alpha=0.35, label="all layers"
    )
    axes.plot(epochs, np.nanmedian(values, axis=0), color=COLORS[0], marker=".", label="median layer")
    for limit in (TINY_UPDATE, LARGE_UPDATE):
        axes.axhline(limit, color=FRAME, linestyle=":")
    axes.set_yscale("log")
    label_powers(axes.yaxis)
    axes.set_xlabel("epoch")
    axes.legend(frameon=False)


def _draw_dead(axes: Axes, layer_stats: Sequence[LayerStats]) -> None:
    """Draw the fraction of dead units before the layers that have most of them."""
    axes.set_title("dead units before a layer")
    layers, epochs, values = _tabulate(layer_stats, "dead")
    most = {index: np.nanmax(row) for index, row in enumerate(values) if not np.isnan(row).all()}
    if not any(fraction > 0 for fraction in most.values()):
        draw_nothing(axes, "none" if most else "no units could be evaluated")
        return
    shown = sorted(sorted(most, key=most.__getitem__, reverse=True)[:_LINES])
    for index, color in zip(shown, COLORS, strict=False):
        axes.plot(epochs, values[index], color=color, marker=".", label=shorten(layers[index], 24))
    axes.axhline(DEAD, color=FRAME, linestyle=":")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("epoch")
    axes.legend(frameon=False, fontsize=7)


def _tabulate(
    layer_stats: Sequence[LayerStats], figure: str
) -> tuple[list[str], Float64[np.ndarray, " epochs"], Float64[np.ndarray, "layers epochs"]]:
    """Return layers, all epochs from the first to the last, and one of the statistics for each; NaN where none is."""
    layers = list(dict.fromkeys(row.layer for row in layer_stats))
    first, last = min((row.epoch for row in layer_stats), default=1), max((row.epoch for row in layer_stats), default=0)
    values = np.full((len(layers), last - first + 1), np.nan)
    for row in layer_stats:
        values[layers.index(row.layer), row.epoch - first] = getattr(row, figure)
    return layers, np.arange(first, last + 1, dtype=np.float64), values
