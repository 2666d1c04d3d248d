"""Drawing of samples of each modality, with explanations of predictions for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from falconet.artifact import Artifact
from falconet.data.preprocessing import ImagePreprocess, TextPreprocess
from falconet.explanation.pictures import Shown, draw_heat, draw_input, draw_shaded_series, draw_tokens, mute
from falconet.explanation.positions import Inputs, mark_present
from falconet.spec import ModalityName

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Relevance = Float[np.ndarray, "*positions"]
"""Relevance of each position of a sample."""
_Shades = Float[np.ndarray, "*parts"]
"""Relevance of each drawn part of a sample, or its shade from -1 to 1."""


@dataclass(frozen=True)
class ExplanationAdapter:
    """Functions that show samples of a modality with their explanations."""

    show: Callable[[Artifact, Any, Inputs, _Relevance], tuple[Shown, _Shades]]
    """Converts a raw sample, its batch of one, and its relevance to a drawable sample with relevance by drawn part."""
    name_positions: Callable[[Artifact, Any], tuple[str, ...]]
    """Returns names of a raw sample's positions; empty where they have none."""
    draw_sample: Callable[[Axes, Shown], None] | None
    """Draws a sample without its explanation, beside it; None: the explanation hides nothing of the sample."""
    draw_relevance: Callable[[Axes, Shown, _Shades], None]
    """Draws a sample with the shades of its explanation."""


def _show_image(artifact: Artifact, raw: Any, inputs: Inputs, relevance: _Relevance) -> tuple[Shown, _Shades]:
    """Return an image as the network sees it, but before normalization."""
    assert isinstance(artifact.preprocess, ImagePreprocess)
    pixels = inputs * artifact.preprocess.std + artifact.preprocess.mean
    return Shown("image", pixels[0].permute(1, 2, 0).clamp(0, 1).numpy()), relevance


def _show_series(artifact: Artifact, raw: Any, inputs: Inputs, relevance: _Relevance) -> tuple[Shown, _Shades]:
    """Return a series as the network sees it, without the padding after its end."""
    steps = int(mark_present(inputs)[0].nonzero().amax()) + 1 if mark_present(inputs).any() else 1
    return Shown("series", inputs[0, :, :steps].numpy()), relevance[:, :steps]


def _show_text(artifact: Artifact, raw: str, inputs: Inputs, relevance: _Relevance) -> tuple[Shown, _Shades]:
    """Return a text split into its tokens, with their relevance."""
    assert isinstance(artifact.preprocess, TextPreprocess)
    parts, values = join_parts(raw, artifact.preprocess.encoder.locate(raw), relevance)
    return Shown("text", inputs[0].numpy(), parts), values


def join_parts(
    text: str, spans: Sequence[tuple[int, int]], relevance: Float[np.ndarray, " tokens"]
) -> tuple[tuple[str, ...], Float[np.ndarray, " parts"]]:
    """Return a text split into its tokens, with their relevance; tokens that share a character are one part."""
    parts: list[str] = []
    values: list[float] = []
    end = 0
    for (begin, stop), value in zip(spans, relevance.tolist(), strict=False):
        if parts and (begin < end or stop == begin):
            values[-1] += value
        else:
            parts.append("")
            values.append(value)
        parts[-1] += text[end : max(stop, end)]
        end = max(stop, end)
    return tuple(parts), np.array(values)


def _name_tokens(artifact: Artifact, text: str) -> tuple[str, ...]:
    """Return the characters of each token of a text."""
    assert isinstance(artifact.preprocess, TextPreprocess)
    return tuple(text[begin:end] for begin, end in artifact.preprocess.encoder.locate(text))


def _draw_covered(axes: Axes, shown: Shown, shades: _Shades) -> None:
    """Draw an image in gray, under the colors of its explanation."""
    draw_input(axes, mute(shown.values))
    draw_heat(axes, shades)


ADAPTERS: Mapping[ModalityName, ExplanationAdapter] = MappingProxyType(
    {
        "image": ExplanationAdapter(
            show=_show_image,
            name_positions=lambda artifact, raw: (),
            draw_sample=lambda axes, shown: draw_input(axes, shown.values),
            draw_relevance=_draw_covered,
        ),
        "series": ExplanationAdapter(
            show=_show_series,
            name_positions=lambda artifact, raw: (),
            draw_sample=None,
            draw_relevance=lambda axes, shown, shades: draw_shaded_series(axes, shown.values, shades),
        ),
        "text": ExplanationAdapter(
            show=_show_text,
            name_positions=_name_tokens,
            draw_sample=None,
            draw_relevance=lambda axes, shown, shades: draw_tokens(axes, shown.tokens, shades),
        ),
    }
)
