"""Any source to a Dataset: a name, folder, table, file of arrays or hub. Importing it does not import torch."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from falconet.catalog import HUB_PREFIX, SOURCE_NAMES, check_source
from falconet.data.arrays import find_idx_images, read_idx_folder, read_npz
from falconet.data.dataset import Dataset, Split, describe_skipped
from falconet.data.families import describe_crossing, find_duplicate_clusters, find_equal_samples
from falconet.data.files import read_folder
from falconet.data.hub import read_hub
from falconet.data.manifests import (
    find_metadata,
    find_split_tables,
    read_manifest,
    read_metadata_folder,
    read_table_folder,
)
from falconet.data.named import find_cifar_binaries, from_arrays, read_cifar_binaries, read_named
from falconet.data.splits import DataConfig, complete_splits, describe_small_splits
from falconet.data.survey import find_unreadable
from falconet.data.ts import find_ts_problems, read_ts
from falconet.errors import DataError, UsageError
from falconet.schema import take_config
from falconet.storage import find_caches


def load_dataset(
    source: str | Path | Dataset,
    *,
    data_root: str | Path | None = None,
    config: DataConfig | Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a source and give it train, val and test splits.

    Parameters
    ----------
    source
        A name that `falconet data --help` lists; `hf:owner/name`; or a path: a folder of class subfolders that hold
        images, `.wav` or `.txt`, with or without `train/ val/ test/` above them; a table (`.csv`, `.tsv`, `.jsonl`,
        `.parquet`) of files, texts or series, or a folder of a table for each split; a folder of IDX or CIFAR files; a
        `.npz`; a `.ts`. Or a data set that is read already, which is returned as it is.
    data_root
        Where named sets are kept and downloaded to; None: the environment's FALCONET_DATA, else a cache folder.
    config
        What the source is where it leaves doubt, how splits that it lacks are made, and whether unreadable files are
        skipped or refused: a DataConfig, or a mapping of what differs from its defaults.

    All samples are decoded once to find near duplicates, which stay on one side of splits that are made, unless
    `config.near_duplicates` is `apart`; those across splits of the source's own are counted in a note, as equal samples
    are. An image that turns out to be damaged is skipped when it is needed, or refused here with `config.strict`.
    Raises UnknownNameError and PathError for a source that is not there, UsageError for what is none, DataError for one
    that cannot be used.

    """
    config = take_config(DataConfig, config, "config")
    dataset = read_dataset(source, data_root=data_root, config=config)
    return dataset if dataset.config is not None else split_dataset(dataset, config)


def split_dataset(dataset: Dataset, config: DataConfig) -> Dataset:
    """Return a data set with train, val and test splits. Raises DataError for one that cannot be trained on."""
    if len(dataset.classes) < 2:
        skipped = describe_skipped(dataset.unreadable)
        raise DataError(f"{dataset.source}: wanted at least two classes, found one, {dataset.classes[0]!r}{skipped}")
    families = find_equal_samples(dataset) if config.near_duplicates == "apart" else find_duplicate_clusters(dataset)
    crossing = describe_crossing(dataset, families)
    completed = complete_splits(dataset, config, families)
    small = describe_small_splits(completed, config) if len(families.pairs) else ()
    notes = (*dataset.notes, *crossing, *small)
    return replace(completed, notes=notes, config=config)


def read_dataset(source: str | Path | Dataset, *, data_root: str | Path | None = None, config: DataConfig) -> Dataset:
    """Read a source with the splits that it has, which need not do for training: what is evaluated may be of one class.

    Arguments and errors are those of `load_dataset`.
    """
    require_source(source)
    if isinstance(source, Dataset):
        return source
    check_source(source)
    dataset = read_source(str(source), find_data_root(data_root), config)
    if config.strict:
        check_all_readable(dataset)
    if source in SOURCE_NAMES:
        return dataset
    return replace(dataset, notes=(*dataset.notes, *map(_describe_alike, _find_alike(dataset.classes))))


def require_source(source: object, *, splits: bool = False) -> None:
    """Raise UsageError, which says how to make one, unless `source` is a name, a path or a data set.

    It may also be one of the `splits` of a data set where they are allowed.
    """
    if isinstance(source, str | os.PathLike | Dataset) or (splits and isinstance(source, Split)):
        return
    remedy = "make one of arrays by falconet.Dataset.from_arrays(x, y)"
    if isinstance(source, Split):
        remedy = "pass the whole Dataset"
    elif isinstance(source, Mapping) or hasattr(source, "columns") or hasattr(source, "column_names"):
        remedy = "make one of a table by falconet.Dataset.from_dataframe(df, label=...)"
    allowed = "a path, a Dataset or one of its splits" if splits else "a path or a Dataset"
    raise UsageError(f"source: wanted the name of a data set, {allowed}, found {type(source).__name__}; {remedy}")


def _find_alike(classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of class names that differ in nothing but case, width or what stands between words.

    Single letters may be meant so.
    """
    groups: dict[str, list[str]] = {}
    for name in classes:
        key = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
        if len(key) > 1:
            groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def _describe_alike(names: Sequence[str]) -> str:
    return f"classes that look alike: {', '.join(map(repr, names))}; where they are one, give them one name"


def find_data_root(data_root: str | Path | None) -> Path:
    """Return the folder of named data sets."""
    if data_root is not None:
        return Path(data_root)
    named = os.environ.get("FALCONET_DATA")
    return Path(named) if named else find_caches() / "falconet" / "data"


def read_source(source: str, data_root: Path, config: DataConfig) -> Dataset:
    """Read a source as it is, without completing its splits."""
    check_source(source)
    path = Path(source)
    if source in SOURCE_NAMES:
        return read_named(source, data_root)
    if source.startswith(HUB_PREFIX):
        return read_hub(source, config)
    if path.suffix.lower() == ".npz" and path.is_file():
        return from_arrays(source, *read_npz(path, path.name, config.kind, config.max_bytes, config.value_range))
    if path.suffix.lower() == ".ts" and path.is_file():
        return read_ts(path)
    return _read_any_folder(path, config) if path.is_dir() else read_manifest(path, config)


def _read_any_folder(folder: Path, config: DataConfig) -> Dataset:
    """Read a folder: of arrays, of tables, of series, or else of class subfolders."""
    if find_idx_images(folder):
        return from_arrays(str(folder), "image", *read_idx_folder(folder, folder.name, config.max_bytes))
    if find_cifar_binaries(folder):
        return read_cifar_binaries(folder, str(folder), config.max_bytes)
    if find_split_tables(folder):
        return read_table_folder(folder, config)
    if find_metadata(folder):
        return read_metadata_folder(folder, config)
    problems = find_ts_problems(folder)
    if len(problems) > 1:
        names = ", ".join(path.name for path in problems)
        raise DataError(f"{folder}: wanted one problem of series, found {names}: name one of these files")
    return replace(read_ts(problems[0]), source=str(folder)) if problems else read_folder(folder, config)


def check_all_readable(dataset: Dataset) -> None:
    """Raise DataError, with the first reason, where anything of a source cannot be read."""
    unreadable = (*dataset.unreadable, *find_unreadable(dataset))
    if unreadable:
        first = unreadable[0]
        raise DataError(
            f"{dataset.source}: {len(unreadable)} unreadable files, the first {first.file} ({first.reason}); mend or "
            "remove them, or leave out strict"
        )
