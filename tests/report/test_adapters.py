"""Explanations in the page: pixels, strips and marks that say what the numbers say."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from falconet.explanation.pictures import AGAINST, FOR, Shown
from falconet.explanation.reasons import ClassAttribution
from falconet.report.adapters import _draw_image, draw_overlay


def open_picture(element: str) -> np.ndarray:
    found = re.search(r'src="data:image/png;base64,([^"]+)"', element)
    assert found
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))


def to_color(name: str) -> np.ndarray:
    return np.array([int(name[place : place + 2], 16) for place in (1, 3, 5)])


@pytest.mark.parametrize("channels", [1, 3])
def test_evidence_colors_the_pixels_of_an_image(channels: int) -> None:
    image = np.full((4, 4, channels), 0.5)
    shades = np.zeros((4, 4))
    shades[0, 1], shades[2, 3] = 1.0, -1.0
    element = draw_overlay(ClassAttribution("a<b", 0.9, Shown("image", image), shades))
    assert 'alt="evidence for a&lt;b: strongest at row 1 of 4, column 2 of 4"' in element
    pixels = open_picture(element)
    assert pixels.shape == (96, 96, 3)
    small = pixels[12::24, 12::24].astype(int)
    gray = small[3, 0]
    assert np.ptp(gray) == 0
    assert (np.abs(small - gray).sum(axis=2) > 0).sum() == 2
    assert np.abs(small[0, 1] - to_color(FOR)).max() < 40
    assert np.abs(small[2, 3] - to_color(AGAINST)).max() < 40
    assert open_picture(_draw_image(Shown("image", image))).shape == ((96, 96) if channels == 1 else (96, 96, 3))


def test_evidence_stands_behind_the_line_of_a_series() -> None:
    shades = np.array([[0.0, 1.0, 0.0, -0.5]])
    element = draw_overlay(
        ClassAttribution("up", 0.9, Shown("series", np.array([[0.0, 1.0, np.nan, 2.0]], dtype=np.float32)), shades)
    )
    assert 'aria-label="evidence for up: strongest at step 2 of 4"' in element
    strips = re.findall(
        r'<rect x="([\d.]+)" y="0" width="[\d.]+" height="60" style="fill: var\(--(\w+)\); ([^"]+)"/>', element
    )
    assert [strip[1] for strip in strips] == ["blue", "orange", "blue", "blue"]
    assert [strip[2] for strip in strips] == ["opacity: 0.00", "opacity: 0.60", "opacity: 0.00", "opacity: 0.30"]
    assert [float(strip[0]) for strip in strips] == [2.0, 31.0, 60.0, 89.0]
    assert element.index("<rect") < element.index("<path")


def test_long_series_have_a_strip_for_many_steps() -> None:
    values = np.zeros((2, 1000), dtype=np.float32)
    element = draw_overlay(ClassAttribution("up", 0.9, Shown("series", values), np.zeros((2, 1000))))
    assert element.count("<rect") == 60
    assert "evidence for up: none" in element


def test_spectra_are_pictures_with_low_bands_below() -> None:
    spectrum = np.tile(np.linspace(-2, 3, 8)[:, None], (1, 5))
    spectrum[0, 0] = np.nan
    shades = np.zeros((8, 5))
    shades[7, 2] = 1.0
    pixels = open_picture(draw_overlay(ClassAttribution("nine", 0.5, Shown("series", spectrum), shades)))
    step = pixels.shape[0] // 8
    small = pixels[step // 2 :: step, step // 2 :: step].astype(int)
    assert np.abs(small[0, 2] - to_color(FOR)).max() < 40, "the highest band is the first row"
    assert small[0, 0, 0] > small[6, 0, 0], "louder is brighter"


def test_texts_are_marked_and_escaped() -> None:
    element = draw_overlay(
        ClassAttribution("a", 0.9, Shown("text", np.zeros(3), ("<b>", " no", " so")), np.array([1.0, -0.5, 0.0]))
    )
    assert re.findall(r'<mark class="(\w+)" style="--share: (\d+)%">([^<]*)</mark>', element) == [
        ("for", "60", "&lt;b&gt;"), ("against", "30", " no"), ("for", "0", " so"),
    ]  # fmt: skip
