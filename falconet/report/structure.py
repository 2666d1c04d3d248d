"""The picture of a network's shape and cost, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from falconet.complexity import Complexity, LayerCost
from falconet.report.pictures import BLUE, GREEN, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 60
"""Most layers that are all named under the picture; of more, every second, third and so on is."""


def draw_structure(cost: Complexity) -> Figure:
    """Return a figure over dense layers, convolutions and their kin, in order: sizes of outputs, MACs, parameters.

    Layers of squeeze-and-excitation, which see single positions beside the network's way, count but are not drawn.
    """
    from matplotlib.figure import Figure

    drawn = [layer for layer in cost.layers if layer.output_shape and (layer.macs or layer.type == "Embedding")]
    layers = _list_main(drawn)
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    sizes, macs, params = figure.subplots(3, 1, sharex=True)
    shape = "x".join(map(str, cost.input))
    figure.suptitle(f"{cost.model}, input {shape}: {cost.params:,} parameters, {cost.macs:,} MACs")
    _draw_sizes(sizes, layers)
    _draw_bars(macs, "MACs", [layer.macs for layer in layers], ORANGE)
    _draw_bars(params, "parameters", [layer.params for layer in layers], GREEN)
    marks = range(0, len(layers), math.ceil(len(layers) / _NAMED))
    params.set_xticks(marks, [layers[mark].name for mark in marks], rotation=90, size=7)
    return figure


def _list_main(layers: list[LayerCost]) -> list[LayerCost]:
    """Return the layers but those that put out a single position before others put out more again."""
    wide = [index for index, layer in enumerate(layers) if _count_positions(layer) > 1]
    return [layer for index, layer in enumerate(layers) if not wide or index in wide or index > wide[-1]]


def _count_positions(layer: LayerCost) -> int:
    """Return how many pixels or steps a layer's output has."""
    return math.prod(layer.output_shape) // _count_channels(layer)


def _count_channels(layer: LayerCost) -> int:
    """Return the channels of a layer's output: first in feature maps, last after dense layers and recurrence."""
    first = len(layer.output_shape) == 3 or layer.type == "Conv1d"
    return layer.output_shape[0 if first else -1]


def _draw_sizes(axes: Axes, layers: list[LayerCost]) -> None:
    """Draw how many channels each layer puts out, and of how many positions."""
    axes.step(range(len(layers)), [*map(_count_channels, layers)], where="mid", color=BLUE, label="channels")
    axes.step(
        range(len(layers)),
        [*map(_count_positions, layers)],
        where="mid",
        color=ORANGE,
        linestyle="--",
        label="positions",
    )
    axes.set(yscale="log", ylabel="output")
    axes.legend(frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_bars(axes: Axes, label: str, values: list[int], color: str) -> None:
    """Draw what each layer costs."""
    from matplotlib.ticker import EngFormatter

    axes.bar(range(len(values)), values, color=color)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
