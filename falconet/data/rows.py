"""Rows of a table to samples: texts, series, images or files' paths, with their labels.

Importing this does not import torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from falconet.data import label_studio
from falconet.data.cells import as_text, format_label, path_of
from falconet.data.columns import (
    COLUMNS,
    LINES,
    SPLIT_VALUES,
    Roles,
    find_cell_files,
    is_embedded,
    name_of,
    without_label_roles,
)
from falconet.data.dataset import (
    NO_LABEL,
    SPLIT_NAMES,
    Dataset,
    EncodedImages,
    Split,
    Texts,
    Unreadable,
    describe_skipped,
    hash_bytes,
    sort_classes,
)
from falconet.data.files import ListedFile, check_inside, read_files
from falconet.data.images import find_extremes, inspect_image, read_content
from falconet.data.series import series_dataset, split_series
from falconet.data.series_tables import long_series, wide_series
from falconet.data.splits import DataConfig
from falconet.data.texts import describe_text
from falconet.errors import ConfigError, DataError
from falconet.spec import ModalityName, PixelType
from falconet.tables import ABSENT, Table, is_number


@dataclass(frozen=True)
class Part:
    """A table's samples, among them those that cannot be used; all fields of equal length."""

    names: Sequence[str]
    values: Sequence[Any]
    """Values of the samples: texts, paths, series or images."""
    labels: Sequence[str]
    splits: Sequence[str]
    groups: Sequence[int] | None
    reasons: Sequence[str]
    """Why a sample cannot be used; empty where it can."""
    extras: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Cells of further columns, by name."""


@dataclass(frozen=True)
class Rows:
    """Samples in rows of a table to predict on; `names` and `values` have equal length."""

    names: Sequence[str]
    values: Sequence[Any]
    """Values of the samples: texts, paths, series or images."""
    skipped: Sequence[Unreadable] = ()
    """Rows that cannot be used."""


def read_inputs(table: Table, roles: Roles, config: DataConfig, source: str) -> Rows:
    """Return the samples of a table, with names that begin with `source`: a row's by its line, a series' by its own."""
    missing = [name for name in (*roles.columns.values(), *roles.values) if name not in table.columns]
    if missing:  # JSON lines in which a key occurs no more.
        blank = [None] * len(table.lines)
        table = replace(table, columns={**table.columns, **dict.fromkeys(missing, blank)})
    rows, values, reasons = _read_values(table, replace(roles, columns=without_label_roles(roles)), config)
    keys: list[Any] = [table.lines[row] for row in rows]
    if "series" in roles.columns:
        keys = [as_text(table.columns[roles.columns["series"]][row]) for row in rows]
    names = [f"{source}:{key}" for key in keys]
    skipped = [Unreadable(name, reason) for name, reason in zip(names, reasons, strict=True) if reason]
    skipped += [Unreadable(f"{source}:{line}", reason) for line, reason in table.damaged]
    kept = [index for index, reason in enumerate(reasons) if not reason]
    return Rows([names[index] for index in kept], [values[index] for index in kept], skipped)


def read_part(table: Table, split: str, roles: Roles, config: DataConfig) -> Part:
    """Return the samples of a table: those of `split`, or as its column says where that is ""."""
    rows, values, reasons = _read_values(table, roles, config)

    def pick(role: str) -> list[Any]:
        cells = table.columns[roles.columns[role]]
        return [cells[row] for row in rows]

    names = [f"{table.path.name}:{table.lines[row]}" for row in rows]
    cells = [as_text(cell) for cell in pick("label")]
    spelled = {cell: format_label(cell) for cell in set(cells)}  # One string a class, not one a row.
    labels = [spelled[cell] for cell in cells]
    splits = [split or "train"] * len(rows)
    if "split" in roles.columns:
        splits = _read_splits(table.path, roles.columns["split"], pick("split"))
    groups = _read_groups(pick("group")) if "group" in roles.columns else None
    further = {name: table.lines if name == LINES else table.columns[name] for name in config.extra}
    extras = {name: [as_text(cells[row]) for row in rows] for name, cells in further.items()}
    checked = zip(reasons, labels, splits, strict=True)
    whole = [why or ("" if label else NO_LABEL) or ("" if part else "no split") for why, label, part in checked]
    return Part(names, values, labels, splits, groups, whole, extras)


Cells = tuple[Sequence[int], list[Any], list[str]]
"""Row (the first one), value (text, path, series or image) and reason why it cannot be used, or "", of each sample."""


def _read_values(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return the samples of a table: paths, or what its cells hold themselves."""
    reader = ROWS[roles.kind]
    if "path" not in roles.columns:
        return reader.read(table, roles, config)
    cells = table.columns[roles.columns["path"]]
    if COLUMNS[roles.kind].embeds and any(map(is_embedded, cells)):
        return reader.read(table, roles, config)
    files = find_cell_files(table, cells, roles.kind, config.follow)
    if files:
        cells = [files.get(name_of(cell), cell) for cell in cells]
    return range(len(table.lines)), *_read_paths(table.path.parent, cells, config.follow)


def _read_image_rows(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return images that stand in their addresses or in files."""
    cells = table.columns[roles.columns["path"]]
    return range(len(table.lines)), *_read_embedded(table.path.parent, cells, config.follow)


def _read_text_rows(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return texts."""
    return range(len(table.lines)), *_read_texts(table.columns[roles.columns["text"]])


def _read_series_rows(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return series that stretch over several rows, or stand in one each."""
    if "series" in roles.columns:
        series, firsts = long_series(table, roles.columns["series"], roles.columns.get("time"), roles.values)
        _check_constant(table, roles.columns["series"], config.extra)
        changes = _find_changes(table, roles, firsts)
        return firsts, list(series), [_find_reason(item) or why for item, why in zip(series, changes, strict=True)]
    series = wide_series(table, roles.values)
    return range(len(table.lines)), list(series), [_find_reason(item) for item in series]


def _find_changes(table: Table, roles: Roles, firsts: Sequence[int]) -> list[str]:
    """Say of each series of a long table whether its rows disagree about what it is as a whole."""
    ids = [as_text(cell) for cell in table.columns[roles.columns["series"]]]
    known: dict[tuple[str, str], str] = {}
    changed: dict[str, str] = {}
    for role in ("label", "split", "group"):
        for name, cell in zip(ids, table.columns[roles.columns[role]] if role in roles.columns else (), strict=False):
            if known.setdefault((role, name), text := as_text(cell)) != text:
                changed.setdefault(name, f"its {role} changes from {known[role, name]!r} to {text!r}")
    return [changed.get(ids[row], "") for row in firsts]


def _check_constant(table: Table, series: str, names: Iterable[str]) -> None:
    """Raise ConfigError for a further column that changes within a series, and so says nothing of it as a whole."""
    ids = [as_text(cell) for cell in table.columns[series]]
    for name in names:
        if name == LINES:
            continue
        known: dict[str, str] = {}
        for owner, cell in zip(ids, map(as_text, table.columns[name]), strict=True):
            if known.setdefault(owner, cell) != cell:
                raise ConfigError(
                    f"{table.path.name}: wanted a column with one value a series, found {name!r}, which changes "
                    f"from {known[owner]!r} to {cell!r} in series {owner!r}; name another"
                )


def _find_reason(series: np.ndarray | str) -> str:
    return series if isinstance(series, str) else ""


def _read_texts(cells: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return texts, and for each why it cannot be used."""
    texts = [cell if isinstance(cell, str) else as_text(cell) for cell in cells]
    return texts, [describe_text(text) for text in texts]


_WEB = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)


def _read_paths(root: Path, cells: Sequence[Any], follow: bool) -> tuple[list[str], list[str]]:
    """Return paths below `root`, and for each why it cannot be used."""
    values, reasons = [], []
    for cell in cells:
        path = path_of(cell)
        reason = "a web address; download the files, and name these" if _WEB.match(path) else ""
        try:
            path = check_inside(root, _from_windows(root, path), follow) if path else path
        except (OSError, RuntimeError, ValueError) as error:  # Too long, a link to itself, outside or with a NUL.
            reason = str(error)
        values.append(path)
        reasons.append(reason or ("" if path else "no path"))
    return values, reasons


def _read_embedded(root: Path, cells: Sequence[Any], follow: bool) -> tuple[list[bytes], list[str]]:
    """Return the images that stand in their addresses or in files below `root`, and for each why it cannot be used."""
    paths, reasons = _read_paths(root, ["" if is_embedded(cell) else cell for cell in cells], follow)
    values = []
    for place, cell in enumerate(cells):
        content = None
        try:
            if is_embedded(cell):
                content, reasons[place] = label_studio.decode_embedded(cell), ""
            elif not reasons[place]:
                content = read_content(root / paths[place])
        except DataError as error:
            reasons[place] = str(error)
        values.append(content or b"")
    return values, reasons


def _from_windows(root: Path, path: str) -> str:
    """Return a path with slashes, where it has backslashes and no file is called so."""
    return path.replace("\\", "/") if "\\" in path and not os.path.exists(root / path) else path  # noqa: PTH110


def _read_splits(path: Path, column: str, cells: Sequence[Any]) -> list[str]:
    """Return the split of each row. Raises DataError for a cell that names none."""
    words = [as_text(cell).lower() for cell in cells]
    unknown = sorted(set(words) - SPLIT_VALUES.keys() - {""})
    if unknown:
        raise DataError(
            f"{path}: column {column}: wanted train, val or test, found {', '.join(unknown[:5])}; rename them, or name "
            "another column: set data.columns.split=NAME"
        )
    return [SPLIT_VALUES.get(word, "") for word in words]


def _read_groups(cells: Sequence[Any]) -> list[int]:
    """Return 64 bits of each cell, 0 for one that holds nothing."""
    return [hash_bytes(text.encode()) if (text := as_text(cell)) else 0 for cell in cells]


_NO_LABELS = ABSENT | {"NaN", "nan", "NAN"}


def drop_missing_labels(parts: Sequence[Part]) -> list[Part]:
    """Leave out labels that say that there is none: `NaN`, and among numbers what else stands for missing ones."""
    labels = {label for part in parts for label in part.labels} - _NO_LABELS - {""}
    none = _NO_LABELS if labels and all(map(is_number, labels)) else frozenset({"NaN"})
    return [_leave_out(part, none) for part in parts]


def _leave_out(part: Part, none: frozenset[str]) -> Part:
    """Return a part in which samples of some labels have none."""
    if none.isdisjoint(part.labels):
        return part
    reasons = [why or (NO_LABEL if label in none else "") for label, why in zip(part.labels, part.reasons, strict=True)]
    return replace(part, labels=["" if label in none else label for label in part.labels], reasons=reasons)


def list_bad(table: Table, part: Part) -> list[Unreadable]:
    """Return the rows that cannot be used, in order."""
    bad = [(name, reason) for name, reason in zip(part.names, part.reasons, strict=True) if reason]
    bad += [(f"{table.path.name}:{line}", reason) for line, reason in table.damaged]
    return [Unreadable(*item) for item in sorted(bad, key=lambda item: int(item[0].rpartition(":")[2]))]


def take_usable(part: Part) -> Part:
    """Return a part without the samples that cannot be used."""
    return part if not any(part.reasons) else _take(part, [i for i, reason in enumerate(part.reasons) if not reason])


def _take(part: Part, indices: Sequence[int]) -> Part:
    def pick(items: Sequence[Any]) -> list[Any]:
        return [items[index] for index in indices]

    groups = None if part.groups is None else pick(part.groups)
    return Part(
        pick(part.names),
        pick(part.values),
        pick(part.labels),
        pick(part.splits),
        groups,
        pick(part.reasons),
        {name: pick(cells) for name, cells in part.extras.items()},
    )


def check_splits(source: str, parts: Sequence[Part], unreadable: Sequence[Unreadable]) -> None:
    """Raise DataError where no sample can be used."""
    if not any(part.splits for part in parts):
        raise DataError(f"{source}: wanted samples, found none{describe_skipped(unreadable)}")


def _split_up(parts: Sequence[Part]) -> Iterator[tuple[str, Part]]:
    """Yield the samples of each split. A split does not stretch over several parts."""
    for part in parts:
        for split in SPLIT_NAMES:
            indices = [index for index, name in enumerate(part.splits) if name == split]
            if indices:
                yield split, part if len(indices) == len(part.splits) else _take(part, indices)


def to_files(
    source: str,
    root: Path,
    kind: ModalityName,
    parts: Sequence[Part],
    unreadable: Sequence[Unreadable],
    config: DataConfig,
) -> Dataset:
    """Make a Dataset of paths."""
    files = [
        ListedFile(
            path,
            part.splits[index],
            part.labels[index],
            part.groups[index] if part.groups else None,
            {name: cells[index] for name, cells in part.extras.items()},
        )
        for part in parts
        for index, path in enumerate(part.values)
    ]
    return read_files(
        root,
        kind,
        files,
        source=source,
        unreadable=unreadable,
        max_pixels=config.max_pixels,
        value_range=config.value_range,
    )


def _to_encoded(source: str, parts: Sequence[Part], unreadable: Sequence[Unreadable], config: DataConfig) -> Dataset:
    """Make a Dataset of images in memory, of which headers alone are read. Raises DataError where none can be."""
    facts, lost = [], []
    kept = []
    for part in parts:
        whole = []
        for index, content in enumerate(part.values):
            try:
                facts.append(inspect_image(content, config.max_pixels))
                whole.append(index)
            except DataError as error:
                lost.append(Unreadable(part.names[index], str(error)))
        kept.append(_take(part, whole))
    unreadable = (*unreadable, *lost)
    check_splits(source, kept, unreadable)
    classes = sort_classes({label for part in kept for label in part.labels})
    value_range = None
    if any(fact.deep for fact in facts):
        extremes = find_extremes(content for part in kept for content in part.values)
        value_range = config.value_range or (None if extremes is None else extremes.choose_range())
    dtype: PixelType = "uint8" if value_range is None else "uint16"

    def make(part: Part) -> Split:
        hashes = np.array([hash_bytes(content) for content in part.values], dtype=np.uint64)
        samples = EncodedImages(part.values, np.array(part.names), value_range, dtype)
        return Split(samples, _number_labels(part, classes), hashes, _pack_groups(part), _pack_extras(part))

    size = np.median([(fact.height, fact.width) for fact in facts], axis=0)
    splits = {name: make(part) for name, part in _split_up(kept)}
    channels = max(fact.channels for fact in facts)
    sides = (int(size[0]), int(size[1]))
    return Dataset(source, classes, splits, channels, sides, tuple(unreadable), value_range=value_range)


def _to_texts(source: str, parts: Sequence[Part], unreadable: Sequence[Unreadable], config: DataConfig) -> Dataset:
    """Make a Dataset of texts in memory."""
    classes = sort_classes({label for part in parts for label in part.labels})
    splits = {name: _text_split(part, classes) for name, part in _split_up(parts)}
    size = (int(np.median([len(text) for part in parts for text in part.values])),)
    return Dataset(source, classes, splits, 1, size, tuple(unreadable), kind="text")


def _to_series(source: str, parts: Sequence[Part], unreadable: Sequence[Unreadable], config: DataConfig) -> Dataset:
    """Make a Dataset of series in memory."""
    classes = sort_classes({label for part in parts for label in part.labels})
    splits = {name: _series_split(part, classes) for name, part in _split_up(parts)}
    return series_dataset(source, splits, classes, unreadable)


def _number_labels(part: Part, classes: Sequence[str]) -> np.ndarray:
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[label] for label in part.labels], dtype=np.int64)


def _pack_groups(part: Part) -> np.ndarray | None:
    return None if part.groups is None else np.array(part.groups, dtype=np.uint64)


def _pack_extras(part: Part) -> dict[str, np.ndarray]:
    return {name: np.array(cells, dtype=object) for name, cells in part.extras.items()}


def _text_split(part: Part, classes: Sequence[str]) -> Split:
    hashes = np.array([hash_bytes(text.encode()) for text in part.values], dtype=np.uint64)
    samples = Texts(part.values, np.array(part.names))
    return Split(samples, _number_labels(part, classes), hashes, _pack_groups(part), _pack_extras(part))


def _series_split(part: Part, classes: Sequence[str]) -> Split:
    split = split_series(part.values, np.array(part.names), _number_labels(part, classes))
    return replace(split, groups=_pack_groups(part), extras=_pack_extras(part))


@dataclass(frozen=True)
class RowReader:
    """How samples of one modality that stand in tables become a Dataset."""

    read: Callable[[Table, Roles, DataConfig], Cells]
    """Reads the samples that a table's cells hold themselves."""
    collect: Callable[[str, Sequence[Part], Sequence[Unreadable], DataConfig], Dataset]
    """Makes a Dataset of a source's name, such samples, rows that cannot be used and settings."""


ROWS: Mapping[ModalityName, RowReader] = MappingProxyType(
    {
        "image": RowReader(_read_image_rows, _to_encoded),
        "series": RowReader(_read_series_rows, _to_series),
        "text": RowReader(_read_text_rows, _to_texts),
    }
)
