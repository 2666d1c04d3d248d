"""The picture of a network's shape and cost."""

from __future__ import annotations

import numpy as np
import pytest

from falconet.complexity import summarize
from falconet.report.structure import _NAMED, draw_structure


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "resnet1d18", "gru", "resnet50"])
def test_bars_are_the_costs_of_the_layers_that_multiply(name: str) -> None:
    cost = summarize(name)
    sizes, macs, params = draw_structure(cost).axes
    assert sum(bar.get_height() for bar in macs.containers[0]) == cost.macs
    multiplying = [layer.params for layer in cost.layers if layer.macs or layer.type == "Embedding"]
    assert [bar.get_height() for bar in params.containers[0]] == multiplying
    assert [line.get_label() for line in sizes.lines] == ["channels", "positions"]


@pytest.mark.parametrize(
    ("name", "channels", "positions"),
    [
        ("lenet_relu", [32, 64, 128, 10], [24 * 24, 8 * 8, 1, 1]),
        ("lenet5", [6, 16, 120, 84, 10], [28 * 28, 100, 1, 1, 1]),
        ("gru", [64, 128, 2], [128, 128, 1]),
    ],
)
def test_channels_and_positions_are_those_of_the_outputs(name: str, channels: list[int], positions: list[int]) -> None:
    first, second = draw_structure(summarize(name)).axes[0].lines
    assert np.asarray(first.get_ydata()).tolist() == channels
    assert np.asarray(second.get_ydata()).tolist() == positions


def test_channels_of_convolutions_along_steps_come_first() -> None:
    channels, positions = draw_structure(summarize("resnet1d18")).axes[0].lines
    assert np.asarray(channels.get_ydata())[[0, -2, -1]].tolist() == [64, 512, 10]
    assert np.asarray(positions.get_ydata())[[0, -2, -1]].tolist() == [512, 32, 1]


def test_what_weighs_maps_is_not_drawn() -> None:
    positions = np.asarray(draw_structure(summarize("efficientnet_b0")).axes[0].lines[1].get_ydata())
    assert positions[-1] == 1
    assert (positions[:-1] >= 49).all()


@pytest.mark.parametrize(("name", "step"), [("lenet_relu", 1), ("resnet50", 1), ("resnet101", 2)])
def test_layers_are_named_as_far_as_there_is_room(name: str, step: int) -> None:
    figure = draw_structure(summarize(name))
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert len(labels) <= _NAMED
    assert len(labels) == -(-len(figure.axes[2].patches) // step)
    assert labels[0] == "conv1"
