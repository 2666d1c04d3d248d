"""The picture of a network's shape and cost, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from falconet.complexity import Complexity, LayerCost
from falconet.report.pictures import BLUE, GREEN, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 60
"""Up to so many layers, each is named under the picture."""


def draw_structure(cost: Complexity) -> Figure:
    """Return a figure over the layers that cost something, in order: sizes of outputs, MACs, parameters."""
    from matplotlib.figure import Figure

    layers = [layer for layer in cost.layers if layer.output_shape and (layer.params or layer.macs)]
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    sizes, macs, params = figure.subplots(3, 1, sharex=True)
    shape = "x".join(map(str, cost.input))
    figure.suptitle(f"{cost.model}, input {shape}: {cost.params:,} parameters, {cost.macs:,} MACs")
    draw_sizes(sizes, layers)
    draw_bars(macs, "MACs", [layer.macs for layer in layers], ORANGE)
    draw_bars(params, "parameters", [layer.params for layer in layers], GREEN)
    if len(layers) <= NAMED:
        params.set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=90, size=7)
    else:
        params.set_xlabel("layer")
    return figure


def draw_sizes(axes: Axes, layers: list[LayerCost]) -> None:
    """Draw how many channels each layer puts out, and of how many positions."""
    channels = [layer.output_shape[0] if len(layer.output_shape) != 2 else layer.output_shape[-1] for layer in layers]
    positions = [math.prod(layer.output_shape) / count for layer, count in zip(layers, channels, strict=True)]
    axes.step(range(len(layers)), channels, where="mid", color=BLUE, label="channels")
    axes.step(range(len(layers)), positions, where="mid", color=ORANGE, linestyle="--", label="positions")
    axes.set(yscale="log", ylabel="output")
    axes.legend(frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def draw_bars(axes: Axes, label: str, values: list[int], color: str) -> None:
    """Draw what each layer costs."""
    from matplotlib.ticker import EngFormatter

    axes.bar(range(len(values)), values, color=color)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
