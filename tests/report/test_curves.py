"""The picture of a run's losses and vital signs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data.drawing import write_figure
from falconet.report.curves import draw_layer_stats
from falconet.training import EpochRow
from falconet.training.diagnoses import LayerStats

HISTORY = [EpochRow(epoch, 0.1, 1 / epoch, 0.5, 2 / epoch, 0.5, 1.0) for epoch in (1, 2, 3)]


def make_layer_stats() -> list[LayerStats]:
    return [
        LayerStats(epoch, layer, 64, gradient * epoch, 0.001 * epoch, 1.0, dead)
        for epoch in (1, 2, 3)
        for layer, gradient, dead in (("conv1", 0.01, math.nan), ("conv2", 0.1, 0.25), ("fc", math.inf, 0.0))
    ]


def test_every_figure_is_drawn() -> None:
    losses, gradients, updates, dead, *_ = draw_layer_stats(HISTORY, make_layer_stats()).axes
    drawn: list[Any] = [line.get_ydata() for line in losses.lines]
    assert [list(line) for line in drawn] == [[1, 1 / 2, 1 / 3], [2, 1, 2 / 3]]
    colors = np.asarray(gradients.images[0].get_array())
    # What is infinite has the color of the largest gradient that is not.
    np.testing.assert_allclose(colors, [[0.01, 0.02, 0.03], [0.1, 0.2, 0.3], [0.3, 0.3, 0.3]])
    assert [label.get_text() for label in gradients.get_yticklabels()] == ["conv1", "conv2", "fc"]
    np.testing.assert_allclose(np.asarray(updates.lines[0].get_ydata(), dtype=float), [0.001, 0.002, 0.003])
    lines: list[Any] = [line.get_ydata() for line in dead.lines]
    assert [list(line) for line in lines] == [[0.25] * 3, [0] * 3, [0.5, 0.5]]


def test_what_is_missing_is_said() -> None:
    texts = [axes.texts[0].get_text() for axes in draw_layer_stats([], []).axes]
    assert texts == [
        "no epoch was completed",
        "no gradients were seen",
        "no steps were seen",
        "no units could be evaluated",
    ]


@pytest.mark.parametrize("count", [24, 110])
def test_names_of_many_layers_have_room(count: int) -> None:
    layer_stats = [LayerStats(1, f"layer{index}", 8, 0.1, 0.1, 1.0, 0.0) for index in range(count)]
    gradients = draw_layer_stats(HISTORY, layer_stats).axes[1]
    assert 20 <= len(gradients.get_yticklabels()) <= 24


FIGURES = st.sampled_from([math.nan, math.inf, 0.0]) | st.floats(0, 1e300, allow_subnormal=False)
ROWS = st.builds(LayerStats, st.integers(1, 5), st.sampled_from(["a", "$b", "c"]), st.just(9), *[FIGURES] * 3, FIGURES)


@settings(deadline=None, max_examples=3)
@given(rows=st.lists(ROWS, max_size=6))
def test_whatever_is_measured_can_be_drawn(tmp_path_factory: pytest.TempPathFactory, rows: list[LayerStats]) -> None:
    path = tmp_path_factory.mktemp("picture") / "vitals.png"
    write_figure(draw_layer_stats(HISTORY, rows), path)
    assert Path(path).read_bytes().startswith(b"\x89PNG")
