"""The roles of a table's columns: which hold samples, labels, splits. Importing it does not import torch."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from falconet.data import label_studio
from falconet.data.arrays import SPLIT_WORDS
from falconet.data.cells import (
    SAMPLE,
    as_text,
    format_label,
    fraction_of,
    head,
    is_blank,
    is_different,
    is_label,
    is_numeric,
    is_prose,
    is_whole,
    is_wordy,
    measure_cells,
    path_of,
    repeats,
)
from falconet.data.files import SPLIT_FOLDERS, guess_kind, suffix_of, walk
from falconet.data.series_tables import describe_cell, to_floats
from falconet.data.splits import Columns, DataConfig
from falconet.errors import ConfigError, DataError, UnknownNameError
from falconet.modalities import EXTENSIONS, MODALITIES
from falconet.spec import InputSpec, ModalityName
from falconet.tables import Table

SPLIT_VALUES = {**SPLIT_WORDS, **SPLIT_FOLDERS}
"""Split by the words that a table's name or a cell may use for it."""

NAMES = {
    "label": (
        "label", "labels", "class", "classes", "category", "target", "intent", "sentiment", "topic", "species",
        "activity", "diagnosis", "class_name", "label_name", "class_label", "class_index", "class_id", "label_text",
    ),
    "y": ("y",),
    "split": ("split", "set", "subset", "partition", "fold"),
    "path": (
        "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file",
        "image_name", "img", "img_path", "img_name", "audio", "audio_path", "audio_file", "wav",
    ),
    "text": (
        "text", "sentence", "content", "review", "question", "message", "document", "utterance", "query", "comment",
        "tweet", "headline", "body", "description",
    ),
    "series": (
        "series", "series_id", "id", "case", "case_id", "sample", "sample_id", "sequence", "sequence_id", "recording",
        "recording_id",
    ),
    "time": ("time", "t", "step", "time_step", "timestep", "timestamp", "datetime", "date", "index", "frame"),
}  # fmt: skip
"""Column names of each role, surest first; `y` may be a label, and a coordinate as well."""

_IDENTIFIERS = frozenset({*NAMES["series"], "index", "unnamed:_0"})
"""Names of columns of numbers that are no values."""


@dataclass(frozen=True)
class Roles:
    """Kind of the samples and roles of the columns of a table."""

    kind: ModalityName
    columns: Mapping[str, str]
    """Column by role (a field of `Columns`)."""
    values: tuple[str, ...] = ()
    """Columns of a series' values."""


def choose_roles(table: Table, config: DataConfig) -> Roles:
    """Return which column holds what: as configured, else by its name, else by its content.

    Raises ConfigError for a configured column that is not there, DataError where nothing can be a sample or a label.
    """
    chosen = check_columns(table, config.columns)
    if _is_headless(table) and "label" not in chosen:
        place = _find_place(table, chosen)
        chosen |= {"label": place} if place else {}
    guesses = {
        "label": find_named(table, chosen, "label", bool) or find_named(table, chosen, "y", is_label),
        "split": find_named(table, chosen, "split", _is_split),
    }
    chosen = {**{role: name for role, name in guesses.items() if name is not None}, **chosen}
    roles = _choose_samples(table, chosen, config.kind)
    label = roles.columns.get("label") or _find_label(table, roles)
    return replace(roles, columns={**roles.columns, "label": label})


def choose_inputs(table: Table, config: DataConfig, spec: InputSpec, known: Sequence[str] = ()) -> Roles:
    """Return which column holds what in a table that a model of `spec` is to predict on; labels may be missing.

    Samples are found as `choose_roles` finds them, among those of the model's kind; a column of labels is no part of
    them, be it configured, called so, or first or last in a table without names and nothing but `known` classes.
    Raises DataError for a configured column of samples that is not there, and where nothing can be a sample.
    """
    configured = {role: name for role, name in asdict(config.columns).items() if name is not None}
    chosen = {role: name for role, name in configured.items() if name in table.columns}
    for role in ("path", "text", "series", "time"):
        if role in configured and role not in chosen:
            unknown = UnknownNameError("column", configured[role], table.columns)
            remedy = f"data.columns.{role}=NAME names another"
            raise DataError(f"{table.path}: wanted the column of the model's own data; {unknown}; {remedy}")
    if _is_headless(table):
        # Names are numbers here, and tell nothing: a configured one may be that of a value.
        chosen.pop("label", None)
        place = _find_place(table, chosen) if COLUMNS[spec.kind].may_be_labeled(spec, len(table.columns)) else None
        labels = {format_label(cell) for cell in table.columns[place]} if place else set()
        chosen |= {"label": place} if place and labels <= {*known} else {}
    elif len(table.columns) > 1:
        guesses = {
            "label": find_named(table, chosen, "label", bool) or find_named(table, chosen, "y", is_label),
            "split": find_named(table, chosen, "split", _is_split),
        }
        chosen = {**{role: name for role, name in guesses.items() if name is not None}, **chosen}
    roles = find_samples(table, chosen, spec.kind)
    free = [name for name, cells in _list_free(table, chosen).items() if not is_blank(cells)]
    finder = COLUMNS[spec.kind]
    if roles is None and len(free) == 1 and finder.may_hold(table.columns[free[0]]):
        return Roles(spec.kind, {**chosen, finder.roles[0]: free[0]})
    if roles is None:
        wanted = " and ".join(f"{role}=NAME" for role in finder.roles)
        foreign = _find_foreign(table, chosen) if finder.of_numbers else ""
        raise DataError(
            f"{table.path}: wanted {finder.wanted} in its columns, found {_list_names(table)}{foreign}; name them: "
            f"set data.columns.{wanted}"
        )
    return roles


def without_label_roles(roles: Roles) -> dict[str, str]:
    """Return the roles by which samples are read."""
    return {role: name for role, name in roles.columns.items() if role not in {"label", "split", "group"}}


def check_columns(table: Table, columns: Columns) -> dict[str, str]:
    """Return the configured columns by role. Raises ConfigError, with the nearest names, for one that is not there."""
    configured = {role: name for role, name in asdict(columns).items() if name is not None}
    for role, name in configured.items():
        if name not in table.columns:
            unknown = UnknownNameError("column", name, table.columns)
            raise ConfigError(f"data.columns.{role}: {table.path.name}: {unknown}")
    return configured


LINES = "(line)"
"""Name in `DataConfig.extra` that is no column, but the line of its table at which a sample's first row begins."""


def check_extra(table: Table, names: Iterable[str]) -> None:
    """Raise ConfigError, with the nearest names, for a further column that is not there."""
    for name in names:
        if name not in table.columns and name != LINES:
            raise ConfigError(f"{table.path.name}: {UnknownNameError('column', name, table.columns)}")


def _is_headless(table: Table) -> bool:
    """Whether the columns have numbers for names; see `read_table`."""
    return len(table.columns) > 1 and list(table.columns) == [str(index + 1) for index in range(len(table.columns))]


def _find_place(table: Table, chosen: Mapping[str, str]) -> str | None:
    """Return the column of labels of a table of numbers without names: the first one, as in the UCR archive.

    The last one where it alone holds few different whole numbers. None where other columns are words, which tell.
    """
    free = _list_free(table, chosen)
    ends = [name for name in ("1", str(len(table.columns))) if name in free]
    if not ends or any(is_wordy(cells) for cells in free.values()):
        return None
    like = [name for name in ends if is_label(free[name]) and fraction_of(free[name], is_whole) == 1]
    return like[0] if like else ends[0]


def _list_free(table: Table, chosen: Mapping[str, str]) -> dict[str, Sequence[Any]]:
    """Return the columns that have no role yet."""
    return {name: cells for name, cells in table.columns.items() if name not in chosen.values()}


def find_named(
    table: Table, chosen: Mapping[str, str], role: str, accept: Callable[[Sequence[Any]], bool]
) -> str | None:
    """Return the column whose name is the surest for a role, among those whose cells fit it."""
    if role in chosen:
        return chosen[role]
    free = {simplify(name): name for name in reversed(_list_free(table, chosen))}
    names = (free[word] for word in NAMES[role] if word in free)
    return next((name for name in names if accept(table.columns[name])), None)


def simplify(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _choose_samples(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles:
    """Return the roles with those of the columns that hold the samples. Raises DataError where there are none."""
    roles = find_samples(table, chosen, kind)
    if roles is not None:
        return roles
    foreign = _find_foreign(table, chosen) if kind is None or COLUMNS[kind].of_numbers else ""
    wanted = "texts, paths or series" if kind is None else COLUMNS[kind].wanted
    raise DataError(
        f"{table.path}: wanted {wanted} in its columns, found {_list_names(table)}{foreign}; name them: "
        "set data.columns.text=NAME, path=NAME, or series=NAME and time=NAME; or set data.kind=series, for the columns "
        "of numbers alone"
    )


def find_samples(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """Return the roles with those of the columns that hold the samples; None where there are none."""
    ways = (choose_path, choose_named_text, _choose_long, _choose_wide, _choose_named_files, _choose_longest_text)
    configured = {"path": choose_path, "text": choose_named_text, "series": _choose_long, "time": _choose_long}
    return try_ways([configured[role] for role in chosen if role in configured] or ways, table, chosen, kind)


Way = Callable[[Table, Mapping[str, str], ModalityName | None], Roles | None]
"""A function that finds the columns of samples, called only for kinds that it can find; None where it finds none."""


def try_ways(ways: Sequence[Way], table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """Return what the first way finds that finds samples of a kind, or of any; None where none does."""
    found = (way(table, chosen, kind) for way in ways if kind is None or way in COLUMNS[kind].ways)
    return next((roles for roles in found if roles is not None), None)


_FOREIGN_NUMBERS = tuple(
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        (r"[+-]?[\d.,]+\s*%", "a percent sign"),
        (r"[+-]?[$€£¥₹]\s*[\d.,]+|[+-]?[\d.,]+\s*[$€£¥₹]", "a sign of a currency"),
        (r"\([\d.,]+\)", "a negative number in parentheses"),
        (r"\u2212\s*[\d.,]+", "the minus U+2212 in place of the hyphen"),
        (r"[+-]?[\d.]+D[+-]?\d+", "an exponent after D; write E"),
        (r"0x[\da-f]+", "hexadecimal"),
        (r"true|false|yes|no|[tfyn]", "a truth value; write 1 and 0"),
        (r"\d{4}-\d\d?-\d\d?(?:[T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}(?: .*)?", "a date"),
        (r"\d\d?:\d\d(?::\d\d(?:\.\d+)?)?", "a time of day"),
        (r"\[.*\]", "a list; wanted a column for each of its numbers"),
        (r"[+-]?inf(?:inity)?", "infinite"),
        (r"[+-]?[\d.,]+\s*[a-zµ°Ωω]+(?:/[a-z]+)?", "with a unit"),
    )
)
"""Patterns of cells that look like numbers but are not read as such, each with its description."""


def _find_foreign(table: Table, chosen: Mapping[str, str]) -> str:
    """Say which cell is the first that is no number, in a column that could be of numbers; nothing without one."""
    free = [name for name in _list_free(table, chosen) if simplify(name) not in _IDENTIFIERS]
    for name in free:
        numbers = to_floats(table.columns[name][:SAMPLE])
        row = int(np.isinf(numbers).argmax()) if len(numbers) else 0
        if len(numbers) and np.isinf(numbers[row]):
            cell = table.columns[name][row]
            what = next(
                (f" ({what})" for pattern, what in _FOREIGN_NUMBERS if pattern.fullmatch(str(cell).strip())), ""
            )
            return f" (column {name}, line {table.lines[row]}: {describe_cell(cell)}{what})"
    return ""


def choose_path(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """Paths: the configured column, or one of which most cells end like files of a kind."""
    known = EXTENSIONS if kind is None else MODALITIES[kind].extensions

    def accept(cells: Sequence[Any]) -> bool:
        return fraction_of(cells, lambda cell: suffix_of(path_of(cell)) in known or is_embedded(cell)) > 0.5

    free = _list_free(table, chosen)
    name = find_named(table, chosen, "path", accept) or next((name for name in free if accept(free[name])), None)
    if name is None:
        return None
    embedded = any(map(is_embedded, table.columns[name]))
    if embedded and kind is not None and not COLUMNS[kind].embeds:
        return None
    found = kind or ("image" if embedded else guess_kind(path_of(cell) for cell in table.columns[name]))
    # A text beside the name of the file that it was taken from is the better source.
    if "path" not in chosen and try_ways([choose_named_text], table, chosen, found) is not None:
        return None
    return Roles(found, {**chosen, "path": name})


def is_embedded(cell: Any) -> bool:
    """Whether a cell is an address that holds an image itself (`data:image/png;base64,...`)."""
    return isinstance(cell, str) and label_studio.EMBEDDED.match(cell) is not None


def choose_named_text(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """Texts: the configured column, or one of words whose name says so."""
    name = find_named(table, chosen, "text", is_wordy)
    return Roles("text", {**chosen, "text": name}) if name else None


def _choose_named_files(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """Files that a column names without extension or folder: `17` or `b1ee` of `train/b1ee.jpg`, one folder's."""
    columns = {name: _list_wanted(cells) for name, cells in _list_free(table, chosen).items() if is_different(cells)}
    paths = _list_paths(table, MODALITIES[kind or "image"].extensions) if columns else []
    found = _match_names(paths, columns, table.path.stem)
    return Roles(kind or "image", {**chosen, "path": found[0]}) if found else None


_Place = tuple[str, str]
"""Parent folders and extension that a cell's name of a file leaves out."""


def find_cell_files(table: Table, cells: Sequence[Any], kind: ModalityName, follow: bool) -> Mapping[str, str]:
    """Return paths of the files below a table's folder by what cells call them; nothing where they are paths already.

    Those of one folder and one extension, of which there are most.
    """
    wanted = _list_wanted(cells)
    if 2 * sum(os.path.isfile(table.path.parent / name) for name in wanted) >= len(wanted):  # noqa: PTH113
        return {}
    paths = _list_paths(table, MODALITIES[kind].extensions, follow)
    found = _match_names(paths, {"": wanted}, table.path.stem)
    return {name: path for path in paths for place, name in _spell_names(path) if found and place == found[1]}


def _match_names(paths: Sequence[str], columns: Mapping[str, set[str]], stem: str) -> tuple[str, _Place] | None:
    """Return the first column of which most names are those of files, and what of their paths they leave out.

    Of places with equally many, that in the folder called `stem`, like the table, goes first.
    """
    every = set().union(*columns.values())
    places: dict[str, list[_Place]] = {}
    for path in paths:
        for place, name in _spell_names(path):
            if name in every:
                places.setdefault(name, []).append(place)
    for column, wanted in columns.items():
        hits = Counter(place for name in wanted for place in places.get(name, ()))
        best = max(hits, key=lambda place: (hits[place], place[0].rpartition("/")[2] == stem), default=None)
        if best is not None and 2 * hits[best] > len(wanted):
            return column, best
    return None


def _list_wanted(cells: Sequence[Any]) -> set[str]:
    """Return what the first cells of a column call files."""
    return {name_of(cell) for cell in head(cells)} - {""}


def _list_paths(table: Table, extensions: frozenset[str], follow: bool = False) -> list[str]:
    """Return the files of some kind below a table's folder."""
    folder = table.path.parent
    return [path for path in walk(folder, folder, follow).files if suffix_of(path) in extensions]


def _spell_names(path: str) -> Iterator[tuple[_Place, str]]:
    """Yield what a file may be called: which folders above it and which extension are left out, and what is left."""
    extension = os.path.splitext(path)[1]  # noqa: PTH122 - a Path for each of a million names takes seconds
    above, rest = "", path
    while rest:
        yield (above, ""), rest
        yield (above, extension), rest.removesuffix(extension)
        first, _, rest = rest.partition("/")
        above = f"{above}/{first}" if above else first


def name_of(cell: Any) -> str:
    """Return what a cell calls a file, with slashes."""
    return (path_of(cell) or as_text(cell)).replace("\\", "/")


def _choose_longest_text(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """Texts: of the columns that can be texts, the one with the longest cells on average."""
    texts = {name: cells for name, cells in _list_free(table, chosen).items() if is_wordy(cells) and is_prose(cells)}
    return Roles("text", {**chosen, "text": max(texts, key=lambda name: measure_cells(texts[name]))}) if texts else None


def _choose_long(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """Series over several rows: their names repeat, and a column orders the rows; without names, configured ones."""
    series = find_named(table, chosen, "series", repeats)
    time = find_named(table, {**chosen, "series": series or ""}, "time", bool)
    if series is None or (time is None and "series" not in chosen):
        return None
    columns = {**chosen, "series": series, **({"time": time} if time else {})}
    values = [name for name, cells in _list_free(table, columns).items() if is_numeric(cells)]
    return Roles("series", columns, tuple(values)) if values else None


def _choose_wide(table: Table, chosen: Mapping[str, str], kind: ModalityName | None) -> Roles | None:
    """A series a row: two columns of numbers or more, and, unless it is asked for, none but the label besides."""
    free = {name: cells for name, cells in _list_free(table, chosen).items() if simplify(name) not in _IDENTIFIERS}
    # A dict, since there may be a hundred thousand.
    values = {name: None for name, cells in free.items() if is_numeric(cells)}
    others = [cells for name, cells in free.items() if name not in values and not is_blank(cells)]
    labeled = not others if "label" in chosen else len(others) <= 1 and all(map(is_label, others))
    return Roles("series", dict(chosen), tuple(values)) if (kind or labeled) and len(values) >= 2 else None


def _find_label(table: Table, roles: Roles) -> str:
    """Return the one remaining column with few different values. Raises DataError for none or several."""
    taken = {*roles.columns.values(), *roles.values}
    found = [name for name, cells in table.columns.items() if name not in taken and is_label(cells)]
    if len(found) != 1:
        what = f"several that could be: {', '.join(found)}" if found else _list_names(table)
        raise DataError(f"{table.path}: wanted a column of labels, found {what}; name it: set data.columns.label=NAME")
    return found[0]


def _list_names(table: Table) -> str:
    """Return the columns' names, the first of many."""
    names = list(table.columns)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _is_split(cells: Sequence[Any]) -> bool:
    """Whether all cells that hold something name splits."""
    words = {as_text(cell).lower() for cell in cells} - {""}
    return bool(words) and words <= SPLIT_VALUES.keys()


@dataclass(frozen=True)
class ColumnFinder:
    """How the columns of samples of one modality are found."""

    ways: tuple[Way, ...]
    """Functions that find the columns, in order of preference."""
    roles: tuple[str, ...]
    """Roles of their columns, as in `Columns`; the first holds a sample in each row, or names its file."""
    wanted: str
    """Content of these columns, in words."""
    of_numbers: bool
    """Whether columns of numbers hold samples."""
    may_hold: Callable[[Sequence[Any]], bool]
    """Whether the only column without another role could hold samples."""
    may_be_labeled: Callable[[Any, int], bool]
    """Whether one of this many unnamed columns may hold labels, beside the samples of a model with this spec."""
    embeds: bool
    """Whether a cell may be a data URL that holds the sample's file itself."""


def _names_images(cells: Sequence[Any]) -> bool:
    """Whether a cell ends like the file of an image."""
    return any(suffix_of(path_of(cell)) in MODALITIES["image"].extensions for cell in cells)


COLUMNS: Mapping[ModalityName, ColumnFinder] = MappingProxyType(
    {
        "image": ColumnFinder(
            ways=(choose_path, _choose_named_files),
            roles=("path",),
            wanted="paths of images",
            of_numbers=False,
            may_hold=_names_images,
            may_be_labeled=lambda spec, columns: False,
            embeds=True,
        ),
        "series": ColumnFinder(
            ways=(choose_path, _choose_long, _choose_wide, _choose_named_files),
            roles=("series", "time"),
            wanted="series",
            of_numbers=True,
            may_hold=lambda cells: False,
            may_be_labeled=lambda spec, columns: bool(columns != spec.raw_shape[1]),
            embeds=False,
        ),
        "text": ColumnFinder(
            ways=(choose_path, choose_named_text, _choose_longest_text),
            roles=("text",),
            wanted="texts",
            of_numbers=False,
            may_hold=lambda cells: True,
            may_be_labeled=lambda spec, columns: False,
            embeds=False,
        ),
    }
)
