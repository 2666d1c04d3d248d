"""Explanations as they stand in the page: evidence in orange, counterevidence in blue, over the sample itself."""

from __future__ import annotations

import html
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from falconet.escaping import escape_line, escape_lines
from falconet.explanation.pictures import LINES, Shown, blend
from falconet.explanation.reasons import Reason
from falconet.report.pictures import BLUE, ORANGE, THEME, draw_sparkline, encode_picture

COLUMNS = 60
"""Colored strips behind the lines of a series, at most."""
OPACITY = 0.6


def draw_sample(shown: Shown) -> str:
    """Return an image as the model sees it, as an HTML element."""
    pixels = (255 * shown.values).round().astype(np.uint8)
    return f'<img src="{encode_picture(pixels)}" alt="the sample as the model sees it">'


def draw_overlay(reason: Reason) -> str:
    """Return a sample with what speaks for a class, as an HTML element."""
    shown, shades = reason.shown, reason.shades
    said = html.escape(escape_line(f"evidence for {reason.label}: {describe_peak(shown, shades)}"))
    if shown.kind == "text":
        return mark_tokens(shown.tokens, shades)
    if shown.kind == "image":
        return f'<img src="{encode_picture(blend(shown.values, shades))}" alt="{said}">'
    if len(shown.values) > LINES:
        picture = encode_picture(blend(to_gray(shown.values)[::-1], shades[::-1]), side=240)
        return f'<img class="spectrum" src="{picture}" alt="{said}">'
    return draw_sparkline(shown.values, draw_ground(shades.sum(axis=0)), said)


def describe_peak(shown: Shown, shades: Float[np.ndarray, "*positions"]) -> str:
    """Return in words where the strongest evidence for a class is."""
    if not (shades > 0).any():
        return "none"
    place = np.unravel_index(int(shades.argmax()), shades.shape)
    if shown.kind == "image":
        return f"strongest at row {place[0] + 1} of {shades.shape[0]}, column {place[1] + 1} of {shades.shape[1]}"
    return f"strongest at step {place[-1] + 1} of {shades.shape[-1]}"


def to_gray(spectrum: Float[np.ndarray, "bands frames"]) -> Float[np.ndarray, "bands frames 1"]:
    """Return a spectrum as an image from 0 to 1; what is missing is black."""
    low, high = np.nanmin(spectrum), np.nanmax(spectrum)
    gray: Float[np.ndarray, "bands frames 1"] = np.nan_to_num((spectrum - low) / ((high - low) or 1.0))[..., None]
    return gray


def draw_ground(shades: Float[np.ndarray, " steps"]) -> str:
    """Return colored strips for a sparkline to stand on; each has the mean of its steps."""
    full = float(np.abs(shades).max()) or 1.0
    edges = np.linspace(0, len(shades), min(COLUMNS, len(shades)) + 1).round().astype(int)
    width, strips = 116 / len(shades), []
    for begin, end in pairwise(edges.tolist()):
        shade = float(shades[begin:end].mean()) / full
        color = THEME[ORANGE if shade > 0 else BLUE]
        x, wide = 2 + width * begin, width * (end - begin)
        style = f"fill: {color}; opacity: {OPACITY * abs(shade):.2f}"
        strips.append(f'<rect x="{x:.1f}" y="0" width="{wide:.1f}" height="60" style="{style}"/>')
    return "".join(strips)


def mark_tokens(tokens: tuple[str, ...], shades: Float[np.ndarray, " tokens"]) -> str:
    """Return a text whose parts are marked, those that speak against the class with a dotted line below them too."""
    marks = (
        f'<mark class="{"for" if shade >= 0 else "against"}" style="--share: {100 * OPACITY * abs(shade):.0f}%">'
        f"{html.escape(escape_lines(token))}</mark>"
        for token, shade in zip(tokens, shades.tolist(), strict=True)
    )
    return f'<p class="tokens">{"".join(marks)}</p>'
