from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from falconet.data.drawing import (
    _POINTS,
    DPI,
    _thin,
    choose_colors,
    clean,
    draw_sample,
    draw_series,
    shorten,
    write_figure,
)
from falconet.spec import ModalityName


@given(st.text(), st.integers(4, 40))
@settings(deadline=None)
def test_a_shortened_name_fits_and_keeps_both_ends(name: str, limit: int) -> None:
    short = shorten(name, limit)
    assert len(short) <= limit
    if len(clean(name)) <= limit:
        assert short == clean(name)
    else:
        head, tail = short.split("…", 1) if name.count("…") == 0 else (short[:1], short[-1:])
        assert clean(name).startswith(head)
        assert clean(name).endswith(tail)
        assert 0 < len(head) <= len(tail)


def test_what_cannot_be_printed_is_replaced() -> None:
    assert clean("a\nb\udc80c") == "a?b?c"


@given(st.integers(1, 6 * _POINTS), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_a_thinned_curve_keeps_its_extremes(steps: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=steps).astype(np.float32)
    where, kept = _thin(values)
    assert len(where) == len(kept) <= max(_POINTS, 1)
    assert (kept.min(), kept.max()) == (values.min(), values.max())
    assert (np.diff(where) >= 0).all()
    assert where[-1] < steps


def test_missing_values_leave_a_gap_in_a_thinned_curve() -> None:
    values = np.ones(10 * _POINTS, dtype=np.float32)
    values[_POINTS : 2 * _POINTS] = np.nan
    _, kept = _thin(values)
    assert np.isnan(kept).sum() == _POINTS // 10


@pytest.mark.parametrize("count", [1, 3, 8, 9, 30])
def test_every_channel_has_its_own_color(count: int) -> None:
    assert len({str(color) for color in choose_colors(count)}) == count


def test_every_channel_is_drawn_over_seconds() -> None:
    axes = Figure().subplots()
    series = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    draw_series(axes, series, rate=10)
    for channel, line in zip(series, axes.lines, strict=True):
        assert line.get_xdata() == pytest.approx(np.arange(20) / 10)
        assert line.get_ydata() == pytest.approx(channel)


@pytest.mark.parametrize(
    ("sample", "kind", "words"),
    [
        (np.zeros((5, 4, 1), dtype=np.uint8), "image", []),
        (np.zeros((900, 3, 3), dtype=np.uint8), "image", []),
        (np.zeros((2, 1), dtype=np.float32), "series", []),
        (np.full((2, 9), np.nan, dtype=np.float32), "series", ["no values"]),
        (np.zeros((1, 0), dtype=np.float32), "series", ["no values"]),
        (" \n", "text", ["empty"]),
        ("costs $5\nor $6", "text", ["costs $5 or $6"]),
        ("x" * 1000, "text", [10]),
        # Letters of the font that matplotlib brings along; test_machine.py has those that no font here may have.
        ("да \x00 \ud800 e\u0301", "text", ["да ? ? e\u0301"]),
    ],
)
def test_any_sample_can_be_drawn(sample: object, kind: ModalityName, words: list[str | int], tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    draw_sample(axes, sample, kind)
    found = [text.get_text() for text in axes.texts]
    assert found == words or [entry.count("\n") + 1 for entry in found] == words
    write_figure(figure, tmp_path / "sample.png")
    with Image.open(tmp_path / "sample.png") as image:
        assert image.size == (2 * DPI, DPI)
