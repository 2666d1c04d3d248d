"""Pictures of a data set: what augmentation makes of its samples, and those that look wrong."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from falconet.data.augmentation import ImageAugmentation, SeriesAugmentation, find_policy
from falconet.data.checks import DataReport, LabelError, NearDuplicate
from falconet.data.dataset import Dataset, Split, to_text
from falconet.data.drawing import (
    DPI,
    FRAME,
    choose_colors,
    draw_nothing,
    draw_sample,
    draw_series,
    shorten,
    write_figure,
)
from falconet.data.series import count_steps, measure_series, pad_or_resample
from falconet.data.survey import SURVEYORS
from falconet.errors import ConfigError, DataError
from falconet.modalities import MODALITIES
from falconet.spec import ImageSpec, ModalityName, SeriesSpec
from falconet.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 10
VARIANTS = 3
TILE = 96
_GAP = 4

_CELLS = 6
"""Samples in a row on the sheet of suspects."""
_SHOWN = 12
"""Most suspects, or pairs of suspects, in a section."""
_MARGIN, _CELL, _PICTURE, LINE, _HEADING, _TITLE = 0.4, 1.85, 1.35, 0.14, 0.62, 0.85
"""Inches: around the sheet; width of a cell; height of its picture and of a line of text; of headings and the title."""
_CAPTION_LINES = 3
ROW = _PICTURE + _CAPTION_LINES * LINE + 0.42
"""Inches from one row of cells to the next."""
_NAME_LIMIT = 28
"""Most characters that fit into a cell."""
_INK, _FAINT, _ALARM, _PAPER = "#1a1a1a", "#666666", "#d55e00", "#f6f6f6"


def write_preview(dataset: Dataset, path: Path, policy: str) -> None:
    """Write a PNG: a column for each of up to ten classes, an original above three augmented samples of it.

    `policy` is the name of an augmentation. Series are drawn as curves, as long as the longest of them. Raises
    ConfigError for texts, UnknownNameError for a policy that does not exist, DataError where nothing can be read.
    """
    if dataset.kind not in _PREVIEWS:
        drawn = " and ".join(MODALITIES[kind].plural for kind in _PREVIEWS)
        raise ConfigError(f"--preview draws {drawn}; {dataset.source} holds {MODALITIES[dataset.kind].plural}")
    config = find_policy(dataset.kind, policy)
    _PREVIEWS[dataset.kind].write(read_firsts(dataset), dataset, config, path)


def read_firsts(dataset: Dataset) -> dict[str, Any]:
    """Return the first training sample that can be drawn of each of the first _COLUMNS classes that have one."""
    train = dataset.splits["train"]
    firsts: dict[str, Any] = {}
    for label in np.unique(train.labels).tolist():
        sample = _read_first(train, label, _PREVIEWS[dataset.kind].shows)
        if sample is not None:
            firsts[dataset.classes[label]] = sample
        if len(firsts) == _COLUMNS:
            break
    if not firsts:
        raise DataError(f"{dataset.source}: no training sample can be read; `falconet data` without --preview says why")
    return firsts


def _read_first(split: Split, label: int, shows: Callable[[Any], bool]) -> Any:
    """Return the first sample of a class that can be read and shows something; or None."""
    for index in np.flatnonzero(split.labels == label).tolist():
        try:
            sample = split.samples.read(index)
        except DataError:
            continue
        if shows(sample):
            return sample
    return None


def _draw_rows(
    originals: Sequence[np.ndarray], dataset: Dataset, config: ImageAugmentation
) -> UInt8[np.ndarray, "rows columns side side channels"]:
    """Return the originals and VARIANTS augmented samples of each, all of one size."""
    import torch

    from falconet.data.preprocessing import ImagePreprocess, scale_image
    from falconet.data.transforms import augment_images

    channels = dataset.channels
    spec = ImageSpec((channels, TILE, TILE), mean=(0.0,) * channels, std=(1.0,) * channels)
    preprocess = ImagePreprocess(spec)
    images = torch.cat([scale_image(image, preprocess) for image in originals])
    generator = torch.Generator().manual_seed(0)
    rows = [images, *(augment_images(images, config, generator) for _ in range(VARIANTS))]
    pixels = (torch.stack(rows) * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 1, 3, 4, 2).numpy()


def _write_tiles(rows: UInt8[np.ndarray, "rows columns side side channels"], path: Path) -> None:
    """Write images on a gray sheet as PNG."""
    from PIL import Image

    count_y, count_x = rows.shape[:2]
    step = TILE + _GAP
    sheet = np.full((count_y * step + _GAP, count_x * step + _GAP, 3), 128, dtype=np.uint8)
    for y in range(count_y):
        for x in range(count_x):
            top, left = y * step + _GAP, x * step + _GAP
            sheet[top : top + TILE, left : left + TILE] = rows[y, x]
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _draw_curves(firsts: Mapping[str, np.ndarray], dataset: Dataset, config: SeriesAugmentation) -> Figure:
    """Return a figure of originals above VARIANTS augmented samples of each; a column has one scale."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = _vary_series(list(firsts.values()), dataset, config)
    height, width = rows.shape[:2]
    figure = Figure(figsize=(0.8 + 1.7 * width, 0.9 + 1.15 * height), layout="constrained", dpi=DPI)
    grid: Any = figure.subplots(height, width, squeeze=False, sharex="col", sharey="col")
    for row, column in np.ndindex(height, width):
        axes, series = grid[row, column], rows[row, column]
        draw_series(axes, series[:, : int(count_steps(series))], dataset.rate)
        axes.tick_params(labelsize=6, color=FRAME)
        axes.spines[:].set(color=FRAME, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(3))
    for column, name in enumerate(firsts):
        grid[0, column].set_title(shorten(name, 20), size=9, parse_math=False)
    for row, name in enumerate(["original", *["augmented"] * VARIANTS]):
        grid[row, 0].set_ylabel(name, size=8)
    figure.supxlabel("seconds" if dataset.rate else "steps", size=8)
    _add_legend(figure, dataset.channels)
    return figure


def _vary_series(
    originals: Sequence[Float32[np.ndarray, "channels _"]], dataset: Dataset, config: SeriesAugmentation
) -> Float32[np.ndarray, "rows columns channels steps"]:
    """Return the originals and VARIANTS augmented samples of each, NaN after their ends, in their own units.

    For augmentation they are normalized by their common mean and std.
    """
    import torch

    from falconet.data.transforms import augment_series

    steps = max(1, *(series.shape[1] for series in originals))
    raw = SeriesSpec((dataset.channels, steps), (0.0,) * dataset.channels, (1.0,) * dataset.channels)
    fitted = np.stack([pad_or_resample(series, raw) for series in originals])
    mean, std = (np.array(values, dtype=np.float32)[:, None] for values in measure_series(fitted))
    normalized = torch.from_numpy((fitted - mean) / std)
    generator = torch.Generator().manual_seed(0)
    varied = [augment_series(normalized, config, generator).numpy() * std + mean for _ in range(VARIANTS)]
    return np.stack([fitted, *varied])


def _add_legend(figure: Figure, channels: int) -> None:
    """Say which color is which channel, where there are several but not too many to be listed."""
    from matplotlib.lines import Line2D

    if 1 < channels <= _COLUMNS:
        lines = [Line2D([], [], color=color, label=f"channel {i}") for i, color in enumerate(choose_colors(channels))]
        figure.legend(handles=lines, loc="outside upper center", ncols=channels, fontsize=7, frameon=False)


def _preview_images(firsts: Mapping[str, np.ndarray], dataset: Dataset, config: ImageAugmentation, path: Path) -> None:
    _write_tiles(_draw_rows(list(firsts.values()), dataset, config), path)


def _preview_series(firsts: Mapping[str, np.ndarray], dataset: Dataset, config: SeriesAugmentation, path: Path) -> None:
    write_figure(_draw_curves(firsts, dataset, config), path)


@dataclass(frozen=True)
class _Preview:
    """How augmentation of one modality is drawn."""

    write: Callable[[Mapping[str, Any], Dataset, Any, Path], None]
    """Writes a PNG, given the first sample of each class, their data set and settings of augmentation."""
    shows: Callable[[Any], bool]
    """Whether a sample has anything to see."""


_PREVIEWS: Mapping[ModalityName, _Preview] = MappingProxyType(
    {
        "image": _Preview(_preview_images, shows=lambda image: True),
        "series": _Preview(_preview_series, shows=lambda series: bool(count_steps(series) > 0)),
    }
)
"""How augmentation is drawn, by kind of sample; texts are not drawn."""


@dataclass(frozen=True)
class _Suspect:
    """A sample as it appears on the sheet."""

    name: str
    captions: tuple[str, ...]
    """Lines below the sample's name."""


@dataclass(frozen=True)
class _Section:
    """What the sheet shows under one heading."""

    title: str
    note: str
    items: Sequence[tuple[_Suspect, ...]]
    """Groups of samples that are shown side by side; all of the same size."""
    alarms: frozenset[int] = frozenset()
    """Positions of items that are marked: those across splits."""

    @property
    def rows(self) -> list[list[int]]:
        """Positions of the items that are shown, in rows."""
        shown = list(range(min(len(self.items), _SHOWN)))
        step = _CELLS // len(self.items[0])
        return [shown[start : start + step] for start in range(0, len(shown), step)]

    @property
    def height(self) -> float:
        """Height of the section in inches."""
        return _HEADING + ROW * len(self.rows)


def write_suspects(dataset: Dataset, report: DataReport, path: Path) -> None:
    """Write a PNG of the samples that a report of this data set suspects, section by section.

    Pairs that are nearly equal, equal samples in different splits, samples in which nothing changes, unusual sizes,
    labels that are probably wrong: up to _SHOWN of each, and a plain line where there are none. Raises StorageError.
    """
    from matplotlib.figure import Figure

    places = _find_places(dataset, report)
    sections = [section for section in _list_sections(report, places) if section.items]
    height = 2 * _MARGIN + _TITLE + sum(section.height for section in sections) + (0 if sections else _HEADING)
    figure = Figure(figsize=(2 * _MARGIN + _CELLS * _CELL, height), facecolor="white", dpi=DPI)
    top = height - _MARGIN
    _write_line(figure, _MARGIN, top, f"Suspects in {shorten(report.source, 44)}", size=14, weight="bold")
    _write_line(figure, _MARGIN, top - 0.34, _describe_counts(report), color=_FAINT)
    top -= _TITLE
    if not sections:
        _write_line(figure, _MARGIN, top, "Nothing looks wrong.", size=12)
    for section in sections:
        _draw_section(figure, section, top, dataset, places)
        top -= section.height
    write_figure(figure, path)


def _describe_counts(report: DataReport) -> str:
    """Return what was looked at, in one line."""
    unreadable = f"; {len(report.unreadable):,} unreadable, not shown" if report.unreadable else ""
    return (
        f"{sum(report.splits.values()):,} samples of {len(report.classes):,} classes, looked through for near "
        f"duplicates, leaks between splits, constant samples and outliers{unreadable}"
    )


def _find_places(dataset: Dataset, report: DataReport) -> dict[str, tuple[str, int]]:
    """Return split and position of each sample that a report suspects, by name."""
    wanted = {name for pair in report.near_duplicates for name in pair.names} | set(report.constant)
    wanted |= {name for group in report.leaks for name in group}
    wanted |= {entry.name for entry in report.outliers} | {entry.name for entry in report.label_errors}
    places: dict[str, tuple[str, int]] = {}
    for split, part in dataset.splits.items() if wanted else ():
        for index in range(len(part)):
            if (name := to_text(part.samples.name(index))) in wanted:
                places.setdefault(name, (split, index))
    return places


def _list_sections(report: DataReport, places: Mapping[str, tuple[str, int]]) -> Iterator[_Section]:
    """Yield what there is to see, sections without items included."""
    pairs = report.near_duplicates
    apart = frozenset(index for index, pair in enumerate(pairs) if pair.splits[0] != pair.splits[1])
    yield _Section(
        "Near duplicates",
        "pairs that are nearly equal; marked: in different splits, so that a model is evaluated by what it has seen",
        [_show_pair(pair, report.kind) for pair in pairs],
        apart,
    )
    yield _Section(
        "Leaks",
        "equal samples in different splits",
        [_show_leak(group, places) for group in report.leaks],
        frozenset(range(len(report.leaks))),
    )
    yield _Section(
        "Constant",
        "samples in which nothing changes",
        [(_Suspect(name, (f"in {places[name][0]}",)),) for name in report.constant],
    )
    yield _Section(
        "Outliers",
        "size or length far from that of the others",
        [(_Suspect(entry.name, (*entry.reason.split(", ", 1),)),) for entry in report.outliers],
    )
    yield _Section(
        "Label errors",
        "label → predicted",
        [(_Suspect(entry.name, _describe_label_error(entry)),) for entry in report.label_errors],
    )


def _describe_label_error(entry: LabelError) -> tuple[str, ...]:
    change = f"{shorten(entry.label, 12)} → {shorten(entry.suggested, 12)}"
    return change, f"confidence {entry.probability:.0%}, in {entry.split}"


def _show_pair(pair: NearDuplicate, kind: ModalityName) -> tuple[_Suspect, ...]:
    distance = (f"distance {pair.distance:.3f}",) if SURVEYORS[kind].has_distances else ()
    return tuple(
        _Suspect(name, (f"in {split}", *distance)) for name, split in zip(pair.names, pair.splits, strict=True)
    )


def _show_leak(group: Sequence[str], places: Mapping[str, tuple[str, int]]) -> tuple[_Suspect, ...]:
    """Return two of a group of equal samples, from different splits."""
    first = group[0]
    other = next((name for name in group if places[name][0] != places[first][0]), group[1])
    note = (f"one of {len(group):,}",) if len(group) > 2 else ()
    return tuple(_Suspect(name, (f"in {places[name][0]}", *note)) for name in (first, other))


def _draw_section(
    figure: Figure, section: _Section, top: float, dataset: Dataset, places: Mapping[str, tuple[str, int]]
) -> None:
    """Draw a heading, and the section's items in rows below it."""
    shown, count = sum(map(len, section.rows)), len(section.items)
    note = section.note if shown == count else f"{section.note}; the first {shown} are shown"
    _write_line(figure, _MARGIN, top, f"{section.title}: {count:,}", size=12, weight="bold")
    _write_line(figure, _MARGIN, top - 0.24, note, color=_FAINT)
    for number, row in enumerate(section.rows):
        for column, index in enumerate(row):
            item = section.items[index]
            left, upper = _MARGIN + column * len(item) * _CELL, top - _HEADING + 0.12 - number * ROW
            _draw_box(figure, left, upper, len(item), _ALARM if index in section.alarms else FRAME)
            for offset, suspect in enumerate(item):
                _draw_suspect(figure, suspect, left + offset * _CELL, upper, dataset, places[suspect.name])


def _draw_box(figure: Figure, left: float, top: float, cells: int, color: str) -> None:
    """Draw the background of samples that belong together; inches from the lower left corner."""
    from matplotlib.patches import Rectangle

    height = ROW - 0.16
    corner, size = (left, top - height), (cells * _CELL - 0.1, height)
    box = Rectangle(corner, *size, transform=figure.dpi_scale_trans, facecolor=_PAPER, edgecolor=color, zorder=-1)
    figure.add_artist(box)


def _draw_suspect(
    figure: Figure, suspect: _Suspect, left: float, top: float, dataset: Dataset, place: tuple[str, int]
) -> None:
    """Draw a sample's picture, and below it its name and captions; inches from the lower left corner."""
    left, bottom = left + 0.1, top - 0.1 - _PICTURE
    inches = (left, bottom, _CELL - 0.3, _PICTURE)
    axes = figure.add_axes(tuple(np.array(inches) / np.tile(figure.get_size_inches(), 2)))
    split, index = place
    try:
        draw_sample(axes, dataset.splits[split].samples.read(index), dataset.kind)
    except DataError:
        draw_nothing(axes, "unreadable")
    lines = (shorten(suspect.name, _NAME_LIMIT), *suspect.captions)
    for number, line in enumerate(lines):
        color = _FAINT if number else _INK
        _write_line(figure, left, bottom - 0.06 - number * LINE, line, size=6.5, family="monospace", color=color)


def _write_line(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    """Write a line of text below `top`; inches from the lower left corner."""
    style = {"size": 8.5, "color": _INK, **options}
    figure.text(left, top, text, transform=figure.dpi_scale_trans, va="top", parse_math=False, **style)
