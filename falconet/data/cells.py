"""A table's cells: what they hold as text, label, path or number, and what a column of them is like.

Importing this does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import Any

import numpy as np

from falconet.data.dataset import normalize_label
from falconet.data.series_tables import to_floats
from falconet.tables import ABSENT, Table, is_number

SAMPLE = 1000
"""Cells of a column that are looked at to tell what it holds."""
_FEW = 1000
"""Most different values of a column that is taken for labels by its content."""


# Numbers as they are written elsewhere


_GROUPED = re.compile(r"[+-]?\d{1,3}([.,'\u2019 \u00a0\u202f])\d{3}(?:\1\d{3})*(?:[.,]\d+)?", re.ASCII)
"""Digits in groups of three: 1.234,5 or 1 234."""
_WITH_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", re.ASCII)


def _is_local(cell: Any) -> bool:
    """Whether a cell is a number as some languages write it, which no program reads as one."""
    text = cell.strip() if isinstance(cell, str) else ""
    return not is_number(text) and bool(_GROUPED.fullmatch(text) or _WITH_COMMA.fullmatch(text))


def _is_any_number(cell: Any) -> bool:
    return isinstance(cell, str) and (is_number(cell) or _is_local(cell))


def find_comma(table: Table) -> str | None:
    """Return what a comma in a table's numbers is: "." before decimals, "" between thousands; None: there is none."""
    columns = [head(cells) for cells in table.columns.values()]
    found = [
        cell.strip()
        for cells in columns
        if fraction_of(cells, _is_any_number) > 0.5
        for cell in filter(_is_local, cells)
    ]
    if not found:
        return None
    # Thousands are never led by a zero; where semicolons separate, commas most likely stand before decimals.
    whole = all(_THOUSANDS.fullmatch(text) for text in found if "," in text)
    return "" if whole and table.delimiter != ";" else "."


def spell_numbers(table: Table, names: Iterable[str], comma: str | None) -> Table:
    """Write the numbers of some columns in digits and point, where most cells of a column are numbers."""
    if comma is None:
        return table
    local = {
        name: [_spell_number(cell, comma) if _is_local(cell) else cell for cell in table.columns[name]]
        for name in names
        if fraction_of(table.columns[name], _is_any_number) > 0.5 and any(map(_is_local, table.columns[name]))
    }
    return replace(table, columns={**table.columns, **local}) if local else table


def _spell_number(cell: str, comma: str) -> str:
    text = re.sub("['\u2019 \u00a0\u202f]", "", cell.strip())
    # Where commas stand before decimals, points stand between thousands.
    return text.replace(".", "").replace(",", ".") if comma and "," in text else text.replace(",", "")


# What a column's cells are like


def head(cells: Sequence[Any]) -> list[Any]:
    """Return the first cells that hold something."""
    return list(islice((cell for cell in cells if cell is not None and cell != ""), SAMPLE))


def fraction_of(cells: Sequence[Any], accept: Callable[[Any], bool]) -> float:
    """Return which fraction of the first cells is accepted."""
    first = head(cells)
    return sum(map(accept, first)) / max(len(first), 1)


def is_wordy(cells: Sequence[Any]) -> bool:
    return fraction_of(cells, lambda cell: isinstance(cell, str) and not is_number(cell)) > 0.5


def is_different(cells: Sequence[Any]) -> bool:
    """Whether hardly any value stands twice, as names of files do not."""
    first = [as_text(cell) for cell in head(cells)]
    return len(first) > 1 and 10 * len(set(first)) >= 9 * len(first)


_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{2}")
"""Two characters of scripts that put no spaces between words."""


def is_prose(cells: Sequence[Any]) -> bool:
    """Whether a column of words can be texts: of several words, and not the same few again and again."""
    first = [cell for cell in head(cells) if isinstance(cell, str)]
    several = sum(_has_words(cell) or _UNSPACED.search(cell) is not None for cell in first)
    return 2 * several > len(first) and 2 * len(set(first)) > len(first)


def _has_words(text: str) -> bool:
    """Whether a text is of several words, `12 kg` and `Room 7` having one."""
    return len(list(islice((word for word in text.split() if not is_number(word)), 2))) == 2


def is_numeric(cells: Sequence[Any]) -> bool:
    numbers = to_floats(head(cells))
    return bool(np.isfinite(numbers).any() and np.isinf(numbers).mean() < 0.5)


def is_blank(cells: Sequence[Any]) -> bool:
    """Whether nothing stands in a column, or only what stands for missing numbers."""
    return all(as_text(cell) in ABSENT or as_text(cell).lower() in {"", "nan"} for cell in cells)


def is_label(cells: Sequence[Any]) -> bool:
    """Whether a column has few different values: more than one, and each twice on average."""
    different = len({as_text(cell) for cell in cells} - {""})
    return 2 <= different <= min(_FEW, max(2, len(cells) // 2))


def repeats(cells: Sequence[Any]) -> bool:
    """Whether values stand twice on average, as names of series do."""
    return 2 * len({as_text(cell) for cell in cells}) <= len(cells)


def measure_cells(cells: Sequence[Any]) -> float:
    """Return the mean length of the first cells."""
    return float(np.mean([len(str(cell)) for cell in head(cells)]))


def as_text(cell: Any) -> str:
    """Return a cell that names something; whole numbers without a point; nothing for a missing or a nested one."""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else "" if np.isnan(cell) else str(cell)
    return "" if cell is None or isinstance(cell, list | dict | bytes) else str(cell)


def path_of(cell: Any) -> str:
    """Return a path, also out of `{bytes, path}`; nothing for anything else."""
    value = cell.get("path") if isinstance(cell, dict) else cell
    return value.strip() if isinstance(value, str) else ""


_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_WITH_POINT = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
_SCIENTIFIC = re.compile(r"[+-]?\d\.\d{2,}e[+-]\d\d", re.ASCII | re.IGNORECASE)
"""Numbers as `%e` writes them, such as the labels of the UCR archive."""


def format_label(cell: Any) -> str:
    """Return a label as text; whole numbers without a point, as programs write them that know floats alone."""
    text = normalize_label(as_text(cell))
    if match := _WITH_POINT.fullmatch(text):
        return match[1]
    if _SCIENTIFIC.fullmatch(text) and (value := Decimal(text)) == value.to_integral_value():
        return str(int(value))
    return text


def is_whole(cell: Any) -> bool:
    """Whether a cell holds a whole number, however it is written."""
    return _WHOLE.fullmatch(format_label(cell)) is not None
