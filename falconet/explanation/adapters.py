"""How samples of each modality are shown and drawn with what explains an answer about them."""

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
"""Of each position of a sample."""
_Shades = Float[np.ndarray, "*parts"]
"""Of each part that is drawn: its relevance, or the shade that stands for it."""


@dataclass(frozen=True)
class ExplanationAdapter:
    """How samples of a modality are shown with their explanations."""

    show: Callable[[Artifact, Any, Inputs, _Relevance], tuple[Shown, _Shades]]
    """From a raw sample, a batch of it alone and its relevance to what is drawn, with relevance for each part of it."""
    name_positions: Callable[[Artifact, Any], tuple[str, ...]]
    """From a raw sample to what each of its positions is called; empty where they have no names."""
    draw_sample: Callable[[Axes, Shown], None] | None
    """Draws a sample by itself, to stand beside its explanation; None: the explanation hides nothing of it."""
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
    """Return a text cut at its tokens."""
    assert isinstance(artifact.preprocess, TextPreprocess)
    parts, values = join_parts(raw, artifact.preprocess.encoder.locate(raw), relevance)
    return Shown("text", inputs[0].numpy(), parts), values


def join_parts(
    text: str, spans: Sequence[tuple[int, int]], relevance: Float[np.ndarray, " tokens"]
) -> tuple[tuple[str, ...], Float[np.ndarray, " parts"]]:
    """Return a text cut at its tokens, and each part's relevance; tokens that share a character are one part."""
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
    """Return what each token of a text stands for."""
    assert isinstance(artifact.preprocess, TextPreprocess)
    return tuple(text[begin:end] for begin, end in artifact.preprocess.encoder.locate(text))


def _draw_covered(axes: Axes, shown: Shown, shades: _Shades) -> None:
    """Draw an image in grays, under the colors of its explanation."""
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
