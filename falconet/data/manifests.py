"""Tables as sources: texts, files' paths or series in rows, with their labels. Importing it does not import torch."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from falconet.catalog import TASKS_SUFFIX
from falconet.data import label_studio
from falconet.data.arrays import SPLIT_WORDS
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
    normalize_label,
    sort_classes,
    to_text,
)
from falconet.data.files import (
    SPLIT_FOLDERS,
    ListedFile,
    check_inside,
    count_ignored,
    guess_kind,
    is_visible,
    list_folders,
    read_files,
    suffix_of,
    walk,
)
from falconet.data.images import find_extremes, inspect_image, read_content
from falconet.data.series import series_dataset, split_series
from falconet.data.series_tables import describe_cell, long_series, to_floats, wide_series
from falconet.data.splits import Columns, DataConfig
from falconet.data.texts import describe_text
from falconet.errors import ConfigError, DataError, UnknownNameError
from falconet.modalities import EXTENSIONS, MODALITIES
from falconet.spec import InputSpec, Kind, PixelType
from falconet.tables import ABSENT, READABLE, Table, is_number, read_table

SPLIT_VALUES = {**SPLIT_WORDS, **SPLIT_FOLDERS}
"""What a table's name or a cell may call a split."""

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
"""What columns of each role are called, the surest first; `y` may be a label, and a coordinate as well."""

SAMPLE = 1000
"""Cells that tell what a column holds."""
FEW = 1000
"""Different values that a column may have to be taken for labels by its content."""

IDENTIFIERS = frozenset({*NAMES["series"], "index", "unnamed:_0"})
"""Columns of numbers that are no values."""


@dataclass(frozen=True)
class Roles:
    """What a table's columns hold."""

    kind: Kind
    columns: Mapping[str, str]
    """Role (a field of `Columns`) to column."""
    values: tuple[str, ...] = ()
    """Columns of a series' values."""


@dataclass(frozen=True)
class Part:
    """A table's samples, among them those that cannot be used; all fields of equal length."""

    names: Sequence[str]
    values: Sequence[Any]
    """Texts, paths or series."""
    labels: Sequence[str]
    splits: Sequence[str]
    groups: Sequence[int] | None
    reasons: Sequence[str]
    """Why a sample cannot be used; empty where it can."""
    extras: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Cells of further columns, by name."""


def read_manifest(path: Path, config: DataConfig) -> Dataset:
    """Read one table; a column tells the splits, else all of it is for training.

    Annotated tasks, as Label Studio exports them (`.json`), are a table of their data and choices. Raises ConfigError
    for configured columns that are not there, DataError for tables without labels or samples, and as `read_table` does.
    """
    if path.suffix.lower() == TASKS_SUFFIX:
        table, label = tabulate_tasks(path, config)
        columns = config.columns if config.columns.label else replace(config.columns, label=label)
        return read_tables(str(path), {"": table}, replace(config, columns=columns))
    return read_tables(str(path), {"": read_table(path, header=config.header, max_bytes=config.max_bytes)}, config)


def tabulate_tasks(path: Path, config: DataConfig) -> tuple[Table, str | None]:
    """Return the tasks of a file as a table, and its column of labels; see `label_studio.tabulate`."""
    tasks = label_studio.read_tasks(path, config.max_bytes)
    return label_studio.tabulate(path, tasks, lambda table: holds_samples(table, config), config.max_bytes)


def holds_samples(table: Table, config: DataConfig) -> bool:
    """Whether columns hold texts or name files; lists of numbers beside them are no samples."""
    chosen = {role: name for role, name in asdict(config.columns).items() if name in table.columns}
    return try_ways((choose_path, choose_named_text), table, chosen, config.kind) is not None


def read_table_folder(folder: Path, config: DataConfig) -> Dataset:
    """Read a folder of tables that are named for splits, such as `train.csv` and `test.csv`.

    A column of splits does not count then. Raises DataError where there is no training table, or one without a column
    that the training table has, and as `read_manifest` does.
    """
    paths = find_split_tables(folder)
    if not paths:
        raise DataError(f"{folder}: wanted a table of training samples, such as train.csv, found none")
    tables = {
        split: read_table(paths[split], header=config.header, max_bytes=config.max_bytes)
        for split in SPLIT_NAMES
        if split in paths
    }
    dataset = read_tables(str(folder), tables, config)
    used = {to_text(path.name) for path in paths.values()}
    if "path" in dataset.columns:
        used |= {to_text(part.samples.name(index)) for part in dataset.splits.values() for index in range(len(part))}
        used |= {item.file for item in dataset.unreadable}
    files = [to_text(path.name) for path in folder.iterdir() if path.is_file() and is_visible(path.name)]
    return replace(dataset, ignored=count_ignored(files, used))


def find_metadata(folder: Path) -> dict[str, Path]:
    """Return split -> `metadata.csv` and the like beside the pictures, as folders of the Hugging Face Hub have them.

    "" is the split of one in the folder itself. Without that and one for training, those of other splits where the
    folder holds no other folders.
    """
    layers = {"": folder} | {
        split: layer for layer in list_folders(folder) if (split := SPLIT_FOLDERS.get(layer.name.lower()))
    }
    found = {
        split: layer / f"metadata{suffix}"
        for split, layer in layers.items()
        for suffix in reversed(READABLE)
        if (layer / f"metadata{suffix}").is_file()
    }
    if "train" in found or ("" not in found and len(found) == len(list_folders(folder))):
        return found
    return {split: path for split, path in found.items() if not split}


def read_metadata_folder(folder: Path, config: DataConfig) -> Dataset:
    """Read a folder of pictures whose classes stand in tables beside them, one for all or one for each split."""
    paths = find_metadata(folder)
    tables = {split: move_paths(read_table(path), folder) for split, path in paths.items() if split or len(paths) == 1}
    return read_tables(str(folder), tables, config)


def move_paths(table: Table, folder: Path) -> Table:
    """Return a table of a subfolder as one of the folder: its paths begin with the subfolder's name."""
    name = find_named(table, {}, "path", bool)
    if table.path.parent == folder or name is None:
        return table
    prefix = table.path.parent.relative_to(folder).as_posix()
    cells = [f"{prefix}/{path_of(cell)}" if path_of(cell) else cell for cell in table.columns[name]]
    return replace(table, path=folder / table.path.name, columns={**table.columns, name: cells})


def find_split_tables(folder: Path) -> dict[str, Path]:
    """Return split -> table: `train.csv`, or `NAME_TRAIN.tsv` where only one NAME has one; empty for no such tables.

    Without any for training, those of other splits in a folder without subfolders. Raises DataError for two tables of
    one split.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        prefix, _, word = path.stem.lower().rpartition("_")
        split = SPLIT_VALUES.get(word)
        if split is None or path.suffix.lower() not in READABLE or not path.is_file() or not is_visible(path.name):
            continue
        twin = found.setdefault(prefix, {}).setdefault(split, path)
        if twin != path:
            raise DataError(f"{folder}: wanted one table for {split}, found {twin.name} and {path.name}")
    whole = {prefix: tables for prefix, tables in found.items() if "train" in tables}
    if not whole and not list_folders(folder):
        whole = found
    return whole.get("") or (next(iter(whole.values())) if len(whole) == 1 else {})


def read_tables(source: str, tables: Mapping[str, Table], config: DataConfig) -> Dataset:
    """Make a Dataset of tables by split, or of the one by ""."""
    first = next(iter(tables.values()))
    comma = find_comma(first)
    roles = choose_roles(spell_numbers(first, first.columns, comma), config)
    check_extra(first, config.extra)
    # As competitions publish what is to be answered.
    unlabeled = {name: table for name, table in tables.items() if roles.columns["label"] not in table.columns}
    tables = {split: table for split, table in tables.items() if split not in unlabeled}
    for table in tables.values():
        further = (name for name in config.extra if name != LINES)
        check_same(first, table, [*roles.columns.values(), *roles.values, *further])
    tables = {split: spell_numbers(table, roles.values, comma) for split, table in tables.items()}
    if "" not in tables:
        roles = replace(roles, columns={role: name for role, name in roles.columns.items() if role != "split"})
    parts = spell_labels([read_part(table, split, roles, config) for split, table in tables.items()])
    unreadable = [item for table, part in zip(tables.values(), parts, strict=True) for item in list_bad(table, part)]
    usable = [take_usable(part) for part in parts]
    check_splits(source, usable, unreadable)
    # Bytes are what a cell holds instead of a path.
    if "path" in roles.columns and not any(isinstance(value, bytes) for part in usable for value in part.values):
        dataset = to_files(source, first.path.parent, roles.kind, usable, unreadable, config)
    else:
        dataset = COLUMNS[roles.kind].collect(source, usable, unreadable, config)
    notes = dict.fromkeys(f"{table.path.name}: {note}" for table in tables.values() for note in table.notes)
    left = [f"{table.path.name}: left out: it has no column {roles.columns['label']!r}" for table in unlabeled.values()]
    return replace(dataset, columns=roles.columns, notes=(*notes, *left))


def check_same(first: Table, table: Table, names: Iterable[str]) -> None:
    """Raise DataError where a table lacks a column of the first one."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.path}: wanted the columns of {first.path.name}, found no {', '.join(missing[:5])}; "
            f"add what is missing, or take the file out of the folder"
        )


# What the columns hold


def choose_roles(table: Table, config: DataConfig) -> Roles:
    """Return which column holds what: as configured, else by its name, else by its content.

    Raises ConfigError for a configured column that is not there, DataError where nothing can be a sample or a label.
    """
    chosen = check_columns(table, config.columns)
    if is_headless(table) and "label" not in chosen:
        place = find_place(table, chosen)
        chosen |= {"label": place} if place else {}
    guesses = {
        "label": find_named(table, chosen, "label", bool) or find_named(table, chosen, "y", is_label),
        "split": find_named(table, chosen, "split", is_split),
    }
    chosen = {**{role: name for role, name in guesses.items() if name is not None}, **chosen}
    roles = choose_samples(table, chosen, config.kind)
    label = roles.columns.get("label") or find_label(table, roles)
    return replace(roles, columns={**roles.columns, "label": label})


def choose_inputs(table: Table, config: DataConfig, spec: InputSpec, known: Sequence[str] = ()) -> Roles:
    """Return which column holds what in a table that a model of `spec` is to answer about; labels may be missing.

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
    if is_headless(table):
        # Names are numbers here, and tell nothing: a configured one may be that of a value.
        chosen.pop("label", None)
        place = find_place(table, chosen) if COLUMNS[spec.kind].may_be_labeled(spec, len(table.columns)) else None
        labels = {spell_label(cell) for cell in table.columns[place]} if place else set()
        chosen |= {"label": place} if place and labels <= {*known} else {}
    elif len(table.columns) > 1:
        guesses = {
            "label": find_named(table, chosen, "label", bool) or find_named(table, chosen, "y", is_label),
            "split": find_named(table, chosen, "split", is_split),
        }
        chosen = {**{role: name for role, name in guesses.items() if name is not None}, **chosen}
    roles = find_samples(table, chosen, spec.kind)
    free = [name for name, cells in list_free(table, chosen).items() if not is_blank(cells)]
    reader = COLUMNS[spec.kind]
    if roles is None and len(free) == 1 and reader.may_hold(table.columns[free[0]]):
        return Roles(spec.kind, {**chosen, reader.roles[0]: free[0]})
    if roles is None:
        wanted = " and ".join(f"{role}=NAME" for role in reader.roles)
        foreign = find_foreign(table, chosen) if reader.of_numbers else ""
        raise DataError(
            f"{table.path}: wanted {reader.wanted} in its columns, found {list_names(table)}{foreign}; name them "
            f"by --set data.columns.{wanted}"
        )
    return roles


@dataclass(frozen=True)
class Rows:
    """What stands in rows of a table that are to be answered; both fields of equal length."""

    names: Sequence[str]
    values: Sequence[Any]
    """Texts, paths or series."""
    skipped: Sequence[Unreadable] = ()
    """Rows that cannot be used."""


def read_inputs(table: Table, roles: Roles, config: DataConfig, source: str) -> Rows:
    """Return the samples of a table, with names that begin with `source`: a row's by its line, a series' by its own."""
    missing = [name for name in (*roles.columns.values(), *roles.values) if name not in table.columns]
    if missing:  # JSON lines in which a key occurs no more.
        blank = [None] * len(table.lines)
        table = replace(table, columns={**table.columns, **dict.fromkeys(missing, blank)})
    rows, values, reasons = read_values(table, replace(roles, columns=leave_labels(roles)), config)
    keys: list[Any] = [table.lines[row] for row in rows]
    if "series" in roles.columns:
        keys = [as_text(table.columns[roles.columns["series"]][row]) for row in rows]
    names = [f"{source}:{key}" for key in keys]
    skipped = [Unreadable(name, reason) for name, reason in zip(names, reasons, strict=True) if reason]
    skipped += [Unreadable(f"{source}:{line}", reason) for line, reason in table.damaged]
    kept = [index for index, reason in enumerate(reasons) if not reason]
    return Rows([names[index] for index in kept], [values[index] for index in kept], skipped)


def leave_labels(roles: Roles) -> dict[str, str]:
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
"""What of `DataConfig.extra` is no column, but the line of its table at which a sample's first row begins."""


def check_extra(table: Table, names: Iterable[str]) -> None:
    """Raise ConfigError, with the nearest names, for a further column that is not there."""
    for name in names:
        if name not in table.columns and name != LINES:
            raise ConfigError(f"{table.path.name}: {UnknownNameError('column', name, table.columns)}")


def is_headless(table: Table) -> bool:
    """Whether the columns have numbers for names; see `read_table`."""
    return len(table.columns) > 1 and list(table.columns) == [str(index + 1) for index in range(len(table.columns))]


def find_place(table: Table, chosen: Mapping[str, str]) -> str | None:
    """Return the column of labels of a table of numbers without names: the first one, as in the UCR archive.

    The last one where it alone holds few different whole numbers. None where other columns are words, which tell.
    """
    free = list_free(table, chosen)
    ends = [name for name in ("1", str(len(table.columns))) if name in free]
    if not ends or any(is_wordy(cells) for cells in free.values()):
        return None
    like = [name for name in ends if is_label(free[name]) and fraction_of(free[name], is_whole) == 1]
    return like[0] if like else ends[0]


def is_whole(cell: Any) -> bool:
    """Whether a cell holds a whole number, however it is written."""
    return WHOLE.fullmatch(spell_label(cell)) is not None


def list_free(table: Table, chosen: Mapping[str, str]) -> dict[str, Sequence[Any]]:
    """Return the columns that have no role yet."""
    return {name: cells for name, cells in table.columns.items() if name not in chosen.values()}


def find_named(
    table: Table, chosen: Mapping[str, str], role: str, accept: Callable[[Sequence[Any]], bool]
) -> str | None:
    """Return the column whose name is the surest for a role, among those whose cells fit it."""
    if role in chosen:
        return chosen[role]
    free = {simplify(name): name for name in reversed(list_free(table, chosen))}
    names = (free[word] for word in NAMES[role] if word in free)
    return next((name for name in names if accept(table.columns[name])), None)


def simplify(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def choose_samples(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles:
    """Return the roles with those of the columns that hold the samples. Raises DataError where there are none."""
    roles = find_samples(table, chosen, kind)
    if roles is not None:
        return roles
    foreign = find_foreign(table, chosen) if kind is None or COLUMNS[kind].of_numbers else ""
    wanted = "texts, paths or series" if kind is None else COLUMNS[kind].wanted
    raise DataError(
        f"{table.path}: wanted {wanted} in its columns, found {list_names(table)}{foreign}; name them by "
        "--set data.columns.text=NAME, path=NAME, or series=NAME and time=NAME; --set data.kind=series takes the "
        "columns of numbers alone"
    )


def find_samples(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """Return the roles with those of the columns that hold the samples; None where there are none."""
    ways = (choose_path, choose_named_text, choose_long, choose_wide, choose_named_files, choose_longest_text)
    configured = {"path": choose_path, "text": choose_named_text, "series": choose_long, "time": choose_long}
    return try_ways([configured[role] for role in chosen if role in configured] or ways, table, chosen, kind)


def try_ways(ways: Sequence[Way], table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """Return what the first way finds that finds samples of a kind, or of any; None where none does."""
    found = (way(table, chosen, kind) for way in ways if kind is None or way in COLUMNS[kind].ways)
    return next((roles for roles in found if roles is not None), None)


def find_foreign(table: Table, chosen: Mapping[str, str]) -> str:
    """Say which cell is the first that is no number, in a column that could be of numbers; nothing without one."""
    free = [name for name in list_free(table, chosen) if simplify(name) not in IDENTIFIERS]
    for name in free:
        numbers = to_floats(table.columns[name][:SAMPLE])
        row = int(np.isinf(numbers).argmax()) if len(numbers) else 0
        if len(numbers) and np.isinf(numbers[row]):
            cell = table.columns[name][row]
            what = next((f" ({what})" for pattern, what in FOREIGN_NUMBERS if pattern.fullmatch(str(cell).strip())), "")
            return f" (column {name}, line {table.lines[row]}: {describe_cell(cell)}{what})"
    return ""


FOREIGN_NUMBERS = tuple(
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
"""How numbers, and what is taken for them, are written that are not read, and what that is."""


def choose_path(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """Paths: the configured column, or one of which most cells end like files of a kind."""
    known = EXTENSIONS if kind is None else MODALITIES[kind].extensions

    def accept(cells: Sequence[Any]) -> bool:
        return fraction_of(cells, lambda cell: suffix_of(path_of(cell)) in known or is_embedded(cell)) > 0.5

    free = list_free(table, chosen)
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


def choose_named_text(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """Texts: the configured column, or one of words whose name says so."""
    name = find_named(table, chosen, "text", is_wordy)
    return Roles("text", {**chosen, "text": name}) if name else None


def choose_named_files(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """Files that a column names without extension or folder: `17` or `b1ee` of `train/b1ee.jpg`, one folder's."""
    columns = {name: list_wanted(cells) for name, cells in list_free(table, chosen).items() if is_different(cells)}
    paths = list_paths(table, MODALITIES[kind or "image"].extensions) if columns else []
    found = match_names(paths, columns, table.path.stem)
    return Roles(kind or "image", {**chosen, "path": found[0]}) if found else None


Place = tuple[str, str]
"""Which folders above a file, and which extension, its name leaves out."""


def find_files(table: Table, cells: Sequence[Any], kind: Kind, follow: bool) -> Mapping[str, str]:
    """Return paths of the files below a table's folder by what cells call them; nothing where they are paths already.

    Those of one folder and one extension, of which there are most.
    """
    wanted = list_wanted(cells)
    if 2 * sum(os.path.isfile(table.path.parent / name) for name in wanted) >= len(wanted):  # noqa: PTH113
        return {}
    paths = list_paths(table, MODALITIES[kind].extensions, follow)
    found = match_names(paths, {"": wanted}, table.path.stem)
    return {name: path for path in paths for place, name in spell_names(path) if found and place == found[1]}


def match_names(paths: Sequence[str], columns: Mapping[str, set[str]], stem: str) -> tuple[str, Place] | None:
    """Return the first column of which most names are those of files, and what of their paths they leave out.

    Of places with equally many, that in the folder called `stem`, like the table, goes first.
    """
    every = set().union(*columns.values())
    places: dict[str, list[Place]] = {}
    for path in paths:
        for place, name in spell_names(path):
            if name in every:
                places.setdefault(name, []).append(place)
    for column, wanted in columns.items():
        hits = Counter(place for name in wanted for place in places.get(name, ()))
        best = max(hits, key=lambda place: (hits[place], place[0].rpartition("/")[2] == stem), default=None)
        if best is not None and 2 * hits[best] > len(wanted):
            return column, best
    return None


def list_wanted(cells: Sequence[Any]) -> set[str]:
    """Return what the first cells of a column call files."""
    return {name_of(cell) for cell in head(cells)} - {""}


def list_paths(table: Table, extensions: frozenset[str], follow: bool = False) -> list[str]:
    """Return the files of some kind below a table's folder."""
    folder = table.path.parent
    return [path for path in walk(folder, folder, follow).files if suffix_of(path) in extensions]


def spell_names(path: str) -> Iterator[tuple[Place, str]]:
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


def choose_longest_text(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """Texts: of the columns that can be texts, the one with the longest cells on average."""
    texts = {name: cells for name, cells in list_free(table, chosen).items() if is_wordy(cells) and is_prose(cells)}
    return Roles("text", {**chosen, "text": max(texts, key=lambda name: measure(texts[name]))}) if texts else None


def choose_long(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """Series over several rows: their names repeat, and a column orders the rows; without names, configured ones."""
    series = find_named(table, chosen, "series", repeats)
    time = find_named(table, {**chosen, "series": series or ""}, "time", bool)
    if series is None or (time is None and "series" not in chosen):
        return None
    columns = {**chosen, "series": series, **({"time": time} if time else {})}
    values = [name for name, cells in list_free(table, columns).items() if is_numeric(cells)]
    return Roles("series", columns, tuple(values)) if values else None


def choose_wide(table: Table, chosen: Mapping[str, str], kind: Kind | None) -> Roles | None:
    """A series a row: two columns of numbers or more, and, unless it is asked for, none but the label besides."""
    free = {name: cells for name, cells in list_free(table, chosen).items() if simplify(name) not in IDENTIFIERS}
    # A dict, since there may be a hundred thousand.
    values = {name: None for name, cells in free.items() if is_numeric(cells)}
    others = [cells for name, cells in free.items() if name not in values and not is_blank(cells)]
    labeled = not others if "label" in chosen else len(others) <= 1 and all(map(is_label, others))
    return Roles("series", dict(chosen), tuple(values)) if (kind or labeled) and len(values) >= 2 else None


Way = Callable[[Table, Mapping[str, str], Kind | None], Roles | None]
"""Of finding the columns of samples; it is only asked about kinds of which it can find some."""


def find_label(table: Table, roles: Roles) -> str:
    """Return the one remaining column with few different values. Raises DataError for none or several."""
    taken = {*roles.columns.values(), *roles.values}
    found = [name for name, cells in table.columns.items() if name not in taken and is_label(cells)]
    if len(found) != 1:
        what = f"several that could be: {', '.join(found)}" if found else list_names(table)
        raise DataError(
            f"{table.path}: wanted a column of labels, found {what}; name it by --set data.columns.label=NAME"
        )
    return found[0]


def list_names(table: Table) -> str:
    """Return the columns' names, the first of many."""
    names = list(table.columns)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


# Numbers as they are written elsewhere


GROUPED = re.compile(r"[+-]?\d{1,3}([.,'\u2019 \u00a0\u202f])\d{3}(?:\1\d{3})*(?:[.,]\d+)?", re.ASCII)
"""Digits in groups of three: 1.234,5 or 1 234."""
WITH_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", re.ASCII)


def is_local(cell: Any) -> bool:
    """Whether a cell is a number as some languages write it, which no program reads as one."""
    text = cell.strip() if isinstance(cell, str) else ""
    return not is_number(text) and bool(GROUPED.fullmatch(text) or WITH_COMMA.fullmatch(text))


def is_any_number(cell: Any) -> bool:
    return isinstance(cell, str) and (is_number(cell) or is_local(cell))


def find_comma(table: Table) -> str | None:
    """Return what a comma in a table's numbers is: "." before decimals, "" between thousands; None: there is none."""
    columns = [head(cells) for cells in table.columns.values()]
    found = [
        cell.strip() for cells in columns if fraction_of(cells, is_any_number) > 0.5 for cell in filter(is_local, cells)
    ]
    if not found:
        return None
    # Thousands are never led by a zero; where semicolons separate, commas most likely stand before decimals.
    whole = all(THOUSANDS.fullmatch(text) for text in found if "," in text)
    return "" if whole and table.delimiter != ";" else "."


def spell_numbers(table: Table, names: Iterable[str], comma: str | None) -> Table:
    """Write the numbers of some columns in digits and point, where most cells of a column are numbers."""
    if comma is None:
        return table
    local = {
        name: [spell_number(cell, comma) if is_local(cell) else cell for cell in table.columns[name]]
        for name in names
        if fraction_of(table.columns[name], is_any_number) > 0.5 and any(map(is_local, table.columns[name]))
    }
    return replace(table, columns={**table.columns, **local}) if local else table


def spell_number(cell: str, comma: str) -> str:
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


UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{2}")
"""Scripts that put no spaces between words."""


def is_prose(cells: Sequence[Any]) -> bool:
    """Whether a column of words can be texts: of several words, and not the same few again and again."""
    first = [cell for cell in head(cells) if isinstance(cell, str)]
    several = sum(has_words(cell) or UNSPACED.search(cell) is not None for cell in first)
    return 2 * several > len(first) and 2 * len(set(first)) > len(first)


def has_words(text: str) -> bool:
    """Whether a text is of several words, `12 kg` and `Room 7` having one."""
    return len(list(islice((word for word in text.split() if not is_number(word)), 2))) == 2


def is_numeric(cells: Sequence[Any]) -> bool:
    numbers = to_floats(head(cells))
    return bool(np.isfinite(numbers).any() and np.isinf(numbers).mean() < 0.5)


def is_blank(cells: Sequence[Any]) -> bool:
    """Whether nothing stands in a column, or only what stands for missing numbers."""
    return all(as_text(cell) in ABSENT or as_text(cell).lower() in {"", "nan"} for cell in cells)


def is_split(cells: Sequence[Any]) -> bool:
    """Whether all cells that hold something name splits."""
    words = {as_text(cell).lower() for cell in cells} - {""}
    return bool(words) and words <= SPLIT_VALUES.keys()


def is_label(cells: Sequence[Any]) -> bool:
    """Whether a column has few different values: more than one, and each twice on average."""
    different = len({as_text(cell) for cell in cells} - {""})
    return 2 <= different <= min(FEW, max(2, len(cells) // 2))


def repeats(cells: Sequence[Any]) -> bool:
    """Whether values stand twice on average, as names of series do."""
    return 2 * len({as_text(cell) for cell in cells}) <= len(cells)


def measure(cells: Sequence[Any]) -> float:
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


# From rows to samples


def read_part(table: Table, split: str, roles: Roles, config: DataConfig) -> Part:
    """Return the samples of a table: those of `split`, or as its column says where that is ""."""
    rows, values, reasons = read_values(table, roles, config)

    def pick(role: str) -> list[Any]:
        cells = table.columns[roles.columns[role]]
        return [cells[row] for row in rows]

    names = [f"{table.path.name}:{table.lines[row]}" for row in rows]
    cells = [as_text(cell) for cell in pick("label")]
    spelled = {cell: spell_label(cell) for cell in set(cells)}  # One string a class, not one a row.
    labels = [spelled[cell] for cell in cells]
    splits = [split or "train"] * len(rows)
    if "split" in roles.columns:
        splits = read_splits(table.path, roles.columns["split"], pick("split"))
    groups = read_groups(pick("group")) if "group" in roles.columns else None
    further = {name: table.lines if name == LINES else table.columns[name] for name in config.extra}
    extras = {name: [as_text(cells[row]) for row in rows] for name, cells in further.items()}
    checked = zip(reasons, labels, splits, strict=True)
    whole = [why or ("" if label else NO_LABEL) or ("" if part else "no split") for why, label, part in checked]
    return Part(names, values, labels, splits, groups, whole, extras)


Cells = tuple[Sequence[int], list[Any], list[str]]
"""For each sample: its row (its first one), its text, path, series or image, and why it cannot be used, or ""."""


def read_values(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return the samples of a table: paths, or what its cells hold themselves."""
    reader = COLUMNS[roles.kind]
    if "path" not in roles.columns:
        return reader.read(table, roles, config)
    cells = table.columns[roles.columns["path"]]
    if reader.embeds and any(map(is_embedded, cells)):
        return reader.read(table, roles, config)
    files = find_files(table, cells, roles.kind, config.follow)
    if files:
        cells = [files.get(name_of(cell), cell) for cell in cells]
    return range(len(table.lines)), *read_paths(table.path.parent, cells, config.follow)


def read_image_rows(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return images that stand in their addresses or in files."""
    cells = table.columns[roles.columns["path"]]
    return range(len(table.lines)), *read_embedded(table.path.parent, cells, config.follow)


def read_text_rows(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return texts."""
    return range(len(table.lines)), *read_texts(table.columns[roles.columns["text"]])


def read_series_rows(table: Table, roles: Roles, config: DataConfig) -> Cells:
    """Return series that stretch over several rows, or stand in one each."""
    if "series" in roles.columns:
        series, firsts = long_series(table, roles.columns["series"], roles.columns.get("time"), roles.values)
        check_constant(table, roles.columns["series"], config.extra)
        changes = find_changes(table, roles, firsts)
        return firsts, list(series), [find_reason(item) or why for item, why in zip(series, changes, strict=True)]
    series = wide_series(table, roles.values)
    return range(len(table.lines)), list(series), [find_reason(item) for item in series]


def find_changes(table: Table, roles: Roles, firsts: Sequence[int]) -> list[str]:
    """Say of each series of a long table whether its rows disagree about what it is as a whole."""
    ids = [as_text(cell) for cell in table.columns[roles.columns["series"]]]
    known: dict[tuple[str, str], str] = {}
    changed: dict[str, str] = {}
    for role in ("label", "split", "group"):
        for name, cell in zip(ids, table.columns[roles.columns[role]] if role in roles.columns else (), strict=False):
            if known.setdefault((role, name), text := as_text(cell)) != text:
                changed.setdefault(name, f"its {role} changes from {known[role, name]!r} to {text!r}")
    return [changed.get(ids[row], "") for row in firsts]


def check_constant(table: Table, series: str, names: Iterable[str]) -> None:
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


def find_reason(series: np.ndarray | str) -> str:
    return series if isinstance(series, str) else ""


def read_texts(cells: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return texts, and for each why it cannot be used."""
    texts = [cell if isinstance(cell, str) else as_text(cell) for cell in cells]
    return texts, [describe_text(text) for text in texts]


def read_paths(root: Path, cells: Sequence[Any], follow: bool) -> tuple[list[str], list[str]]:
    """Return paths below `root`, and for each why it cannot be used."""
    values, reasons = [], []
    for cell in cells:
        path = path_of(cell)
        reason = "a web address; download the files, and name these" if WEB.match(path) else ""
        try:
            path = check_inside(root, from_windows(root, path), follow) if path else path
        except (OSError, RuntimeError, ValueError) as error:  # Too long, a link to itself, outside or with a NUL.
            reason = str(error)
        values.append(path)
        reasons.append(reason or ("" if path else "no path"))
    return values, reasons


def read_embedded(root: Path, cells: Sequence[Any], follow: bool) -> tuple[list[bytes], list[str]]:
    """Return the images that stand in their addresses or in files below `root`, and for each why it cannot be used."""
    paths, reasons = read_paths(root, ["" if is_embedded(cell) else cell for cell in cells], follow)
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


WEB = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)


def from_windows(root: Path, path: str) -> str:
    """Return a path with slashes, where it has backslashes and no file is called so."""
    return path.replace("\\", "/") if "\\" in path and not os.path.exists(root / path) else path  # noqa: PTH110


def read_splits(path: Path, column: str, cells: Sequence[Any]) -> list[str]:
    """Return the split of each row. Raises DataError for a cell that names none."""
    words = [as_text(cell).lower() for cell in cells]
    unknown = sorted(set(words) - SPLIT_VALUES.keys() - {""})
    if unknown:
        raise DataError(
            f"{path}: column {column}: wanted train, val or test, found {', '.join(unknown[:5])}; rename them, or name "
            "another column by --set data.columns.split=NAME"
        )
    return [SPLIT_VALUES.get(word, "") for word in words]


def read_groups(cells: Sequence[Any]) -> list[int]:
    """Return 64 bits of each cell, 0 for one that holds nothing."""
    return [hash_bytes(text.encode()) if (text := as_text(cell)) else 0 for cell in cells]


WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
WITH_POINT = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
SCIENTIFIC = re.compile(r"[+-]?\d\.\d{2,}e[+-]\d\d", re.ASCII | re.IGNORECASE)
"""As `%e` writes: the labels of the UCR archive."""


def spell_label(cell: Any) -> str:
    """Return a label as text; whole numbers without a point, as programs write them that know floats alone."""
    text = normalize_label(as_text(cell))
    if match := WITH_POINT.fullmatch(text):
        return match[1]
    if SCIENTIFIC.fullmatch(text) and (value := Decimal(text)) == value.to_integral_value():
        return str(int(value))
    return text


def spell_labels(parts: Sequence[Part]) -> list[Part]:
    """Leave out labels that say that there is none: `NaN`, and among numbers what else stands for missing ones."""
    labels = {label for part in parts for label in part.labels} - NO_LABELS - {""}
    none = NO_LABELS if labels and all(map(is_number, labels)) else frozenset({"NaN"})
    return [leave_out(part, none) for part in parts]


def leave_out(part: Part, none: frozenset[str]) -> Part:
    """Return a part in which samples of some labels have none."""
    if none.isdisjoint(part.labels):
        return part
    reasons = [why or (NO_LABEL if label in none else "") for label, why in zip(part.labels, part.reasons, strict=True)]
    return replace(part, labels=["" if label in none else label for label in part.labels], reasons=reasons)


NO_LABELS = ABSENT | {"NaN", "nan", "NAN"}


def list_bad(table: Table, part: Part) -> list[Unreadable]:
    """Return the rows that cannot be used, in order."""
    bad = [(name, reason) for name, reason in zip(part.names, part.reasons, strict=True) if reason]
    bad += [(f"{table.path.name}:{line}", reason) for line, reason in table.damaged]
    return [Unreadable(*item) for item in sorted(bad, key=lambda item: int(item[0].rpartition(":")[2]))]


def take_usable(part: Part) -> Part:
    """Return a part without the samples that cannot be used."""
    return part if not any(part.reasons) else take(part, [i for i, reason in enumerate(part.reasons) if not reason])


def take(part: Part, indices: Sequence[int]) -> Part:
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


def split_up(parts: Sequence[Part]) -> Iterator[tuple[str, Part]]:
    """Yield the samples of each split. A split does not stretch over several parts."""
    for part in parts:
        for split in SPLIT_NAMES:
            indices = [index for index, name in enumerate(part.splits) if name == split]
            if indices:
                yield split, part if len(indices) == len(part.splits) else take(part, indices)


def to_files(
    source: str,
    root: Path,
    kind: Kind,
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


def to_encoded(source: str, parts: Sequence[Part], unreadable: Sequence[Unreadable], config: DataConfig) -> Dataset:
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
        kept.append(take(part, whole))
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
        return Split(samples, number_labels(part, classes), hashes, pack_groups(part), pack_extras(part))

    size = np.median([(fact.height, fact.width) for fact in facts], axis=0)
    splits = {name: make(part) for name, part in split_up(kept)}
    channels = max(fact.channels for fact in facts)
    sides = (int(size[0]), int(size[1]))
    return Dataset(source, classes, splits, channels, sides, tuple(unreadable), value_range=value_range)


def to_texts(source: str, parts: Sequence[Part], unreadable: Sequence[Unreadable], config: DataConfig) -> Dataset:
    """Make a Dataset of texts in memory."""
    classes = sort_classes({label for part in parts for label in part.labels})
    splits = {name: text_split(part, classes) for name, part in split_up(parts)}
    size = (int(np.median([len(text) for part in parts for text in part.values])),)
    return Dataset(source, classes, splits, 1, size, tuple(unreadable), kind="text")


def to_series(source: str, parts: Sequence[Part], unreadable: Sequence[Unreadable], config: DataConfig) -> Dataset:
    """Make a Dataset of series in memory."""
    classes = sort_classes({label for part in parts for label in part.labels})
    splits = {name: series_split(part, classes) for name, part in split_up(parts)}
    return series_dataset(source, splits, classes, unreadable)


def number_labels(part: Part, classes: Sequence[str]) -> np.ndarray:
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[label] for label in part.labels], dtype=np.int64)


def pack_groups(part: Part) -> np.ndarray | None:
    return None if part.groups is None else np.array(part.groups, dtype=np.uint64)


def pack_extras(part: Part) -> dict[str, np.ndarray]:
    return {name: np.array(cells, dtype=object) for name, cells in part.extras.items()}


def text_split(part: Part, classes: Sequence[str]) -> Split:
    hashes = np.array([hash_bytes(text.encode()) for text in part.values], dtype=np.uint64)
    samples = Texts(part.values, np.array(part.names))
    return Split(samples, number_labels(part, classes), hashes, pack_groups(part), pack_extras(part))


def series_split(part: Part, classes: Sequence[str]) -> Split:
    split = split_series(part.values, np.array(part.names), number_labels(part, classes))
    return replace(split, groups=pack_groups(part), extras=pack_extras(part))


# Of each modality


@dataclass(frozen=True)
class ColumnReader:
    """How samples of one modality stand in tables."""

    ways: tuple[Way, ...]
    """Of finding their columns."""
    roles: tuple[str, ...]
    """Of their columns, as `Columns` has them; the first holds a sample in each row, or names its file."""
    wanted: str
    """What these hold, in words."""
    of_numbers: bool
    """Whether columns of numbers hold samples."""
    may_hold: Callable[[Sequence[Any]], bool]
    """Whether the only column without another role could hold samples."""
    may_be_labeled: Callable[[Any, int], bool]
    """Whether one of so many columns without names may be labels, beside the samples of a model with this spec."""
    embeds: bool
    """Whether a cell may be an address that holds the sample's file itself."""
    read: Callable[[Table, Roles, DataConfig], Cells]
    """From a table to the samples that its cells hold themselves."""
    collect: Callable[[str, Sequence[Part], Sequence[Unreadable], DataConfig], Dataset]
    """From a source's name, such samples, what cannot be used and settings to a Dataset."""


def names_images(cells: Sequence[Any]) -> bool:
    """Whether a cell ends like the file of an image."""
    return any(suffix_of(path_of(cell)) in MODALITIES["image"].extensions for cell in cells)


COLUMNS: Mapping[Kind, ColumnReader] = MappingProxyType(
    {
        "image": ColumnReader(
            ways=(choose_path, choose_named_files),
            roles=("path",),
            wanted="paths of images",
            of_numbers=False,
            may_hold=names_images,
            may_be_labeled=lambda spec, columns: False,
            embeds=True,
            read=read_image_rows,
            collect=to_encoded,
        ),
        "series": ColumnReader(
            ways=(choose_path, choose_long, choose_wide, choose_named_files),
            roles=("series", "time"),
            wanted="series",
            of_numbers=True,
            may_hold=lambda cells: False,
            may_be_labeled=lambda spec, columns: bool(columns != spec.raw_shape[1]),
            embeds=False,
            read=read_series_rows,
            collect=to_series,
        ),
        "text": ColumnReader(
            ways=(choose_path, choose_named_text, choose_longest_text),
            roles=("text",),
            wanted="texts",
            of_numbers=False,
            may_hold=lambda cells: True,
            may_be_labeled=lambda spec, columns: False,
            embeds=False,
            read=read_text_rows,
            collect=to_texts,
        ),
    }
)
