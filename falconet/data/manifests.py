"""Tables as sources: one file, a folder of files named for splits, or images with tables beside them.

Importing this does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from falconet.catalog import TASKS_SUFFIX
from falconet.data import label_studio
from falconet.data.cells import find_comma, path_of, spell_numbers
from falconet.data.columns import (
    LINES,
    SPLIT_VALUES,
    check_extra,
    choose_named_text,
    choose_path,
    choose_roles,
    find_named,
    try_ways,
)
from falconet.data.dataset import SPLIT_NAMES, Dataset, to_text
from falconet.data.files import SPLIT_FOLDERS, count_ignored, is_visible, list_folders
from falconet.data.rows import ROWS, check_splits, drop_missing_labels, list_bad, read_part, take_usable, to_files
from falconet.data.splits import DataConfig
from falconet.errors import DataError
from falconet.tables import READABLE, Table, read_table


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
    return label_studio.tabulate(path, tasks, lambda table: _holds_samples(table, config), config.max_bytes)


def _holds_samples(table: Table, config: DataConfig) -> bool:
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
    """Return split -> `metadata.csv` and the like beside the images, as folders of the Hugging Face Hub have them.

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
    """Read a folder of images whose classes are in tables beside them, one for all or one for each split."""
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
        _check_same(first, table, [*roles.columns.values(), *roles.values, *further])
    tables = {split: spell_numbers(table, roles.values, comma) for split, table in tables.items()}
    if "" not in tables:
        roles = replace(roles, columns={role: name for role, name in roles.columns.items() if role != "split"})
    parts = drop_missing_labels([read_part(table, split, roles, config) for split, table in tables.items()])
    unreadable = [item for table, part in zip(tables.values(), parts, strict=True) for item in list_bad(table, part)]
    usable = [take_usable(part) for part in parts]
    check_splits(source, usable, unreadable)
    # Bytes are what a cell holds instead of a path.
    if "path" in roles.columns and not any(isinstance(value, bytes) for part in usable for value in part.values):
        dataset = to_files(source, first.path.parent, roles.kind, usable, unreadable, config)
    else:
        dataset = ROWS[roles.kind].collect(source, usable, unreadable, config)
    notes = dict.fromkeys(f"{table.path.name}: {note}" for table in tables.values() for note in table.notes)
    left = [f"{table.path.name}: left out: it has no column {roles.columns['label']!r}" for table in unlabeled.values()]
    return replace(dataset, columns=roles.columns, notes=(*notes, *left))


def _check_same(first: Table, table: Table, names: Iterable[str]) -> None:
    """Raise DataError where a table lacks a column of the first one."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.path}: wanted the columns of {first.path.name}, found no {', '.join(missing[:5])}; "
            f"add what is missing, or take the file out of the folder"
        )
