"""Display of samples of each modality in the page, and of explanations: evidence orange, counterevidence blue."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from falconet.escaping import escape_line, escape_lines
from falconet.explanation.pictures import MAX_DRAWN_CHANNELS, Shown, blend
from falconet.explanation.reasons import ClassAttribution
from falconet.report.pictures import BLUE, ORANGE, THEME, draw_sparkline, encode_picture
from falconet.spec import ModalityName

_COLUMNS = 60
"""Most colored strips behind the lines of a series."""
_OPACITY = 0.6


_Shades = Float[np.ndarray, "*positions"]
"""Attributions from -1, fully against a class, to 1, fully for it."""


@dataclass(frozen=True)
class ReportAdapter:
    """Display of a modality's samples in the page."""

    macro: str
    """Name of the macro that shows a raw sample, in `page/samples.html.jinja`."""
    list_class: str
    """CSS classes of a list of raw samples, for `page/style.css`."""
    draw_sample: Callable[[Shown], str] | None
    """Returns a sample alone, as an HTML element, to show beside explanations; None: these hide nothing of it."""
    draw_overlay: Callable[[Shown, _Shades, str], str]
    """Returns an HTML element, given a sample, its attributions to a class, and these in words."""
    describe_place: Callable[[tuple[int, ...], tuple[int, ...]], str]
    """Returns a position in words, given the position and the sample's shape."""
    against: str
    """Appearance of evidence against a class, in words."""


def draw_overlay(reason: ClassAttribution) -> str:
    """Return a sample with the evidence for a class, as an HTML element."""
    said = html.escape(escape_line(f"evidence for {reason.label}: {_describe_peak(reason.shown, reason.shades)}"))
    return ADAPTERS[reason.shown.kind].draw_overlay(reason.shown, reason.shades, said)


def _describe_peak(shown: Shown, shades: _Shades) -> str:
    """Return in words where the strongest evidence for a class is."""
    if not (shades > 0).any():
        return "none"
    place = tuple(map(int, np.unravel_index(int(shades.argmax()), shades.shape)))
    return f"strongest at {ADAPTERS[shown.kind].describe_place(place, shades.shape)}"


def _draw_image(shown: Shown) -> str:
    """Return an image as the model sees it, as an HTML element."""
    pixels = (255 * shown.values).round().astype(np.uint8)
    return f'<img src="{encode_picture(pixels)}" alt="the sample as the model sees it">'


def _cover_image(shown: Shown, shades: _Shades, said: str) -> str:
    """Return an image in grays, under the colors of its explanation."""
    return f'<img src="{encode_picture(blend(shown.values, shades))}" alt="{said}">'


def _describe_pixel(place: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Return row and column in words."""
    return f"row {place[0] + 1} of {shape[0]}, column {place[1] + 1} of {shape[1]}"


def _cover_series(shown: Shown, shades: _Shades, said: str) -> str:
    """Return the lines of a series before colored strips; many channels, such as bands of spectra, as a picture."""
    if len(shown.values) > MAX_DRAWN_CHANNELS:
        picture = encode_picture(blend(_to_gray(shown.values)[::-1], shades[::-1]), side=240)
        return f'<img class="spectrum" src="{picture}" alt="{said}">'
    return draw_sparkline(shown.values, _draw_ground(shades.sum(axis=0)), said)


def _describe_step(place: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Return a step in words, whatever its channel."""
    return f"step {place[-1] + 1} of {shape[-1]}"


def _to_gray(spectrum: Float[np.ndarray, "bands frames"]) -> Float[np.ndarray, "bands frames 1"]:
    """Return a spectrum as an image from 0 to 1; what is missing is black."""
    low, high = np.nanmin(spectrum), np.nanmax(spectrum)
    gray: Float[np.ndarray, "bands frames 1"] = np.nan_to_num((spectrum - low) / ((high - low) or 1.0))[..., None]
    return gray


def _draw_ground(shades: Float[np.ndarray, " steps"]) -> str:
    """Return colored strips for a sparkline to stand on; each has the mean of its steps."""
    full = float(np.abs(shades).max()) or 1.0
    edges = np.linspace(0, len(shades), min(_COLUMNS, len(shades)) + 1).round().astype(int)
    width, strips = 116 / len(shades), []
    for begin, end in pairwise(edges.tolist()):
        shade = float(shades[begin:end].mean()) / full
        color = THEME[ORANGE if shade > 0 else BLUE]
        x, wide = 2 + width * begin, width * (end - begin)
        style = f"fill: {color}; opacity: {_OPACITY * abs(shade):.2f}"
        strips.append(f'<rect x="{x:.1f}" y="0" width="{wide:.1f}" height="60" style="{style}"/>')
    return "".join(strips)


def _mark_tokens(tokens: tuple[str, ...], shades: Float[np.ndarray, " tokens"]) -> str:
    """Return a text with marked tokens; evidence against the class has a dotted line below it, too."""
    marks = (
        f'<mark class="{"for" if shade >= 0 else "against"}" style="--share: {100 * _OPACITY * abs(shade):.0f}%">'
        f"{html.escape(escape_lines(token))}</mark>"
        for token, shade in zip(tokens, shades.tolist(), strict=True)
    )
    return f'<p class="tokens">{"".join(marks)}</p>'


ADAPTERS: Mapping[ModalityName, ReportAdapter] = MappingProxyType(
    {
        "image": ReportAdapter(
            macro="picture",
            list_class="samples",
            draw_sample=_draw_image,
            draw_overlay=_cover_image,
            describe_place=_describe_pixel,
            against="blue",
        ),
        "series": ReportAdapter(
            macro="sparkline",
            list_class="samples",
            draw_sample=None,
            draw_overlay=_cover_series,
            describe_place=_describe_step,
            against="blue",
        ),
        "text": ReportAdapter(
            macro="quote",
            list_class="samples texts",
            draw_sample=None,
            draw_overlay=lambda shown, shades, said: _mark_tokens(shown.tokens, shades),
            describe_place=_describe_step,
            against="blue and underlined with dots",
        ),
    }
)
