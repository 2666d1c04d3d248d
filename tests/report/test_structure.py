"""The picture of a network's shape and cost."""

from __future__ import annotations

import numpy as np
import pytest

from falconet.complexity import summarize
from falconet.report.structure import NAMED, draw_structure


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "resnet1d18", "gru"])
def test_bars_are_the_costs_of_the_layers(name: str) -> None:
    cost = summarize(name)
    sizes, macs, params = draw_structure(cost).axes
    assert sum(bar.get_height() for bar in macs.containers[0]) == cost.macs
    assert sum(bar.get_height() for bar in params.containers[0]) == cost.params
    assert [line.get_label() for line in sizes.lines] == ["channels", "positions"]


def test_channels_and_positions_are_those_of_the_outputs() -> None:
    cost = summarize("lenet_relu")
    channels, positions = draw_structure(cost).axes[0].lines
    assert np.asarray(channels.get_ydata()).tolist() == [32, 64, 128, 10]
    assert np.asarray(positions.get_ydata()).tolist() == [24 * 24, 8 * 8, 1, 1]


@pytest.mark.parametrize(("name", "named"), [("lenet_relu", True), ("resnet50", False)])
def test_few_layers_are_named(name: str, named: bool) -> None:
    figure = draw_structure(summarize(name))
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert ("conv1" in labels) is named
    assert (len(figure.axes[2].patches) <= NAMED) is named
