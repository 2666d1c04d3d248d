"""Drawing of explanations: heatmaps over images, series and texts; feature maps, filters, attention, embeddings."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from falconet.data.drawing import COLORS, FRAME, choose_colors, clean, draw_sample, measure, shorten
from falconet.data.images import to_bytes
from falconet.spec import ModalityName

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOR, AGAINST = "#d55e00", "#0072b2"
"""Colors of evidence for a class, vermilion, and against it, blue: from Okabe and Ito's palette for the color-blind."""
EXPLANATION_DPI = 100
_SATURATED = 0.99
"""Quantile of relevance that has the full color, since single peaks would leave the rest pale."""
MAX_DRAWN_CHANNELS = 6
"""Channels of a series that are drawn as lines, at most; more are rows of a picture, such as spectra."""
_TEXT_COLUMNS, _TEXT_LINES = 48, 9
"""Columns and lines of a text that is drawn."""
_TICKED = 24
"""Steps of an attention map that are labeled, at most."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")
"""Markers of classes, besides colors, so that they differ in gray too."""
_THUMBNAILS = 40
"""Thumbnails in a plot of the embedding, at most."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A sample as a model sees it, with what is needed to draw it."""

    kind: ModalityName
    values: np.ndarray
    """An image `(height, width, channels)` in 0 to 1, a series `(channels, steps)`, or the token numbers of a text."""
    tokens: tuple[str, ...] = ()
    """Parts of a text; empty for other samples."""


def to_shades(relevance: Float[np.ndarray, "*positions"]) -> Float[np.ndarray, "*positions"]:
    """Return relevance scaled to -1, fully against the class, to 1, fully for it."""
    sizes = np.abs(relevance)
    full = float(np.quantile(sizes, _SATURATED)) or float(sizes.max()) or 1.0
    shades: Float[np.ndarray, "*positions"] = np.clip(relevance / full, -1, 1)
    return shades


def draw_input(axes: Axes, image: Float[np.ndarray, "height width channels"]) -> None:
    """Draw an image as the model sees it."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FRAME, linewidth=0.6)
    axes.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1)


def mute(image: Float[np.ndarray, "height width channels"]) -> Float[np.ndarray, "height width 1"]:
    """Return an image in grays from 0.25 to 0.75, on which colors stand out."""
    muted: Float[np.ndarray, "height width 1"] = 0.25 + 0.5 * image.mean(axis=2, keepdims=True)
    return muted


def draw_heat(axes: Axes, shades: Float[np.ndarray, "height width"]) -> None:
    """Draw relevance over a picture as colors, the stronger the more opaque."""
    axes.imshow(_to_colors(shades), interpolation="nearest", aspect=axes.get_aspect())


def _to_colors(shades: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 4"]:
    """Return red, green, blue and opacity for each shade."""
    from matplotlib.colors import to_rgb

    colors = np.empty((*shades.shape, 4))
    colors[..., :3] = np.where(shades[..., None] >= 0, to_rgb(FOR), to_rgb(AGAINST))
    colors[..., 3] = 0.85 * np.abs(shades)
    return colors


def blend(
    image: Float[np.ndarray, "height width channels"], shades: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pixels of an image in muted grays under the colors of its explanation."""
    colors = _to_colors(shades)
    opacity = colors[..., 3:]
    pixels: UInt8[np.ndarray, "height width 3"] = (
        (255 * (mute(image) * (1 - opacity) + colors[..., :3] * opacity)).round().astype(np.uint8)
    )
    return pixels


def draw_shaded_series(
    axes: Axes, series: Float[np.ndarray, "channels steps"], shades: Float[np.ndarray, "channels steps"]
) -> None:
    """Draw lines over colored steps; many channels, such as bands of spectra, as a picture."""
    axes.set_xlabel("step", size=8)
    axes.tick_params(labelsize=7)
    steps = series.shape[1]
    if len(series) > MAX_DRAWN_CHANNELS:
        extent = (-0.5, steps - 0.5, -0.5, len(series) - 0.5)
        options: dict[str, Any] = {"aspect": "auto", "origin": "lower", "extent": extent, "interpolation": "nearest"}
        axes.imshow(series, cmap="gray", **options)
        axes.imshow(_to_colors(shades), **options)
        return
    for channel, color in zip(series, ("#000000", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442"), strict=False):
        axes.plot(channel, color=color, linewidth=1.1)
    low, high = axes.get_ylim()
    axes.imshow(_to_colors(to_shades(shades.sum(axis=0)))[None], aspect="auto", extent=(-0.5, steps - 0.5, low, high))


def draw_tokens(axes: Axes, tokens: Sequence[str], shades: Float[np.ndarray, " tokens"]) -> None:
    """Draw a text whose tokens have colored backgrounds."""
    axes.set(xticks=[], yticks=[], xlim=(0, _TEXT_COLUMNS), ylim=(_TEXT_LINES, 0))
    axes.spines[:].set(color=FRAME, linewidth=0.6)
    row, column = 0, 1
    for token, color in zip(tokens, _to_colors(shades), strict=False):
        for place, piece in enumerate(_cut_token(clean(token.replace("\n", " ")))):
            if (place or column + measure(piece) > _TEXT_COLUMNS - 1) and column > 1:
                row, column = row + 1, 1
            if row == _TEXT_LINES - 1:
                axes.text(column, row + 0.75, "…", family="monospace", size=8)
                return
            _draw_token(axes, piece, (column, row), color)
            column += measure(piece)


def _cut_token(written: str) -> list[str]:
    """Return a token in pieces that each fit in a line."""
    pieces = [""]
    for letter in written:
        if measure(pieces[-1] + letter) > _TEXT_COLUMNS - 2:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _draw_token(axes: Axes, written: str, place: tuple[int, int], color: Float[np.ndarray, "4"]) -> None:
    """Draw one token on a colored background, over as many columns as it has characters."""
    from matplotlib.patches import Rectangle

    column, row = place
    axes.add_patch(Rectangle((column, row + 0.08), measure(written), 0.84, facecolor=tuple(color), linewidth=0))
    for letter in written:
        middle = column + measure(letter) / 2
        axes.text(middle, row + 0.72, letter, ha="center", family="monospace", size=8, parse_math=False)
        column += measure(letter)


def draw_tiles(
    maps: Sequence[tuple[str, Sequence[Float[np.ndarray, "_ _"]]]], columns: int, cmap: str = "cividis"
) -> Figure:
    """Draw rows of small pictures, each row with its name; each picture has its own color scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 * columns + 1.6, 1.05 * len(maps)), layout="constrained", dpi=EXPLANATION_DPI)
    grid = figure.subplots(len(maps), columns, squeeze=False)
    for axes, (name, pictures) in zip(grid, maps, strict=True):
        for place in axes:
            place.axis("off")
        for place, picture in zip(axes, pictures, strict=False):
            place.imshow(picture, cmap=cmap, interpolation="nearest")
        label = "\n".join(textwrap.wrap(clean(name), 20))
        axes[0].text(-0.1, 0.5, label, transform=axes[0].transAxes, ha="right", va="center", size=7, parse_math=False)
    return figure


def draw_samples(rows: Sequence[tuple[str, Sequence[tuple[Any, str]]]], kind: ModalityName) -> Figure:
    """Draw rows of samples, each with a line below it; a row has a name."""
    from matplotlib.figure import Figure

    columns = max(len(row) for _, row in rows)
    figure = Figure(figsize=(1.5 * columns + 0.9, 1.75 * len(rows)), layout="constrained", dpi=EXPLANATION_DPI)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, samples) in zip(grid, rows, strict=True):
        for place in axes[len(samples) :]:
            place.axis("off")
        for place, (sample, caption) in zip(axes, samples, strict=False):
            draw_sample(place, sample, kind)
            place.set_xlabel("\n".join(map(clean, caption.split("\n"))), size=7, parse_math=False)
        axes[0].set_ylabel(clean(name), size=8, rotation=0, ha="right", va="center", parse_math=False)
    return figure


def draw_attention(weights: Float[np.ndarray, "layers heads steps steps"], names: Sequence[str]) -> Figure:
    """Draw the attention map of each layer and head, and each layer's mean: rows attend to columns."""
    from matplotlib.figure import Figure

    layers, heads, steps, _ = weights.shape
    figure = Figure(figsize=(2.2 * (heads + 1), 2.4 * layers), layout="constrained", dpi=EXPLANATION_DPI)
    grid = figure.subplots(layers, heads + 1, squeeze=False)
    for layer, (row, maps) in enumerate(zip(grid, weights, strict=True)):
        for head, axes in enumerate(row):
            axes.imshow(maps.mean(axis=0) if head == heads else maps[head], cmap="cividis", vmin=0)
            axes.set_title(f"layer {layer + 1}, {'mean' if head == heads else f'head {head + 1}'}", size=8)
            axes.tick_params(labelsize=6)
            if names and steps <= _TICKED:
                names = [clean(name) for name in names]
                axes.set_xticks(range(steps), names, rotation=90, size=6, parse_math=False)
                axes.set_yticks(range(steps), names if head == 0 else [""] * steps, size=6, parse_math=False)
    return figure


def draw_embedding(
    plane: Float[np.ndarray, "samples 2"],
    labels: Sequence[int],
    names: Sequence[str],
    thumbnails: Sequence[tuple[int, Any]],
) -> Figure:
    """Draw samples as points in the colors of their classes, and some as pictures, by their position in `plane`."""
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure = Figure(figsize=(9, 6.5), layout="constrained", dpi=EXPLANATION_DPI)
    axes = figure.subplots()
    colors = choose_colors(len(names))
    classes = np.asarray(labels)
    handles = []
    for index, color in enumerate(colors):
        points = plane[classes == index]
        marker = _MARKERS[index % len(_MARKERS)]
        handles.append(
            axes.scatter(points[:, 0], points[:, 1], s=20, color=color, marker=marker, alpha=0.8, linewidths=0)
        )
    for index, image in thumbnails:
        shown = to_bytes(image)
        picture = shown.squeeze(2) if shown.shape[2] == 1 else shown
        box = OffsetImage(picture, zoom=28 / max(picture.shape[:2]), cmap="gray", interpolation="nearest")
        frame = {"edgecolor": colors[classes[index]], "linewidth": 1.5}
        axes.add_artist(AnnotationBbox(box, tuple(plane[index]), pad=0.1, bboxprops=frame))
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.spines[["top", "right"]].set_visible(False)
    if len(names) <= 2 * len(COLORS):
        # Matplotlib would leave out names that begin with an underscore, and typeset those with dollars.
        legend = axes.legend(
            handles, [shorten(name, 20) for name in names], fontsize=8, frameon=False, loc="upper left",
            bbox_to_anchor=(1, 1),
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def spread(plane: Float[np.ndarray, "samples 2"], count: int = _THUMBNAILS) -> list[int]:
    """Return indices of points far from one another: each is the farthest from those before it (Gonzalez 1985)."""
    chosen = [0]
    distances = np.linalg.norm(plane - plane[0], axis=1)
    while len(chosen) < min(count, len(plane)) and distances.max() > 0:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(plane - plane[chosen[-1]], axis=1))
    return chosen
