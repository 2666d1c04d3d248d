"""The pool of samples to label: those of a source with labels, and those without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from falconet.catalog import TASKS_SUFFIX
from falconet.data import DataConfig, Dataset, Samples, Split, Unreadable, label_studio
from falconet.data.arrays import find_idx_images, read_npz_inputs
from falconet.data.cells import as_text, path_of
from falconet.data.columns import LINES, SPLIT_VALUES, check_columns, find_samples
from falconet.data.dataset import NO_LABEL, Encoded, describe_skipped, hash_bytes, to_text
from falconet.data.files import guess_kind, suffix_of, walk
from falconet.data.label_studio import LabelStudioTask
from falconet.data.manifests import find_metadata, find_split_tables, move_paths, tabulate_tasks
from falconet.data.sources import read_dataset
from falconet.data.splits import Columns, complete_splits
from falconet.data.ts import read_ts_file
from falconet.data.unlabeled import iterate_inputs
from falconet.data.wav import WavFiles
from falconet.errors import DataError
from falconet.labeling.adapters import ADAPTERS
from falconet.modalities import EXTENSIONS, MODALITIES
from falconet.spec import InputSpec, ModalityName
from falconet.tables import READABLE, Table, iterate_table, read_table

PLACEHOLDERS = ("0", "1")
"""Names of classes where none are known, since networks have an output layer even where it is unused."""
_LOOKED_AT = 200
"""Samples from which the input size is determined, at most."""


@dataclass(frozen=True, eq=False)
class Row:
    """The origin of a sample: a row of a table, or a task."""

    names: tuple[str, ...]
    """Possible names of the sample."""
    cells: Mapping[str, str]
    """The sample's group and further columns that are kept, by column name."""
    split: str | None
    """The split that the row names; None: it names none."""
    task: LabelStudioTask | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """The samples of a source."""

    labeled: Dataset | None
    """Samples with labels, in the splits of training; None: there are none."""
    unlabeled: Dataset | None
    """Samples without labels, as one split `train` whose labels mean nothing; None: there are none."""
    tasks: tuple[LabelStudioTask, ...] = ()
    """Tasks of a file of Label Studio, in order; empty for another source."""
    skipped: tuple[Unreadable, ...] = ()
    rows: Mapping[tuple[str, int], Row] = field(default_factory=dict)
    """Tasks, and rows of tables with splits, groups or other kept columns, by table and line; see `_read_rows`."""
    origins: tuple[Row | None, ...] = ()
    """Row of each sample without a label; None: it has none."""

    @property
    def kind(self) -> ModalityName:
        """Modality of the samples."""
        return self.any.kind

    def find_row(self, split: str, index: int) -> Row | None:
        """Return the row or task that a sample with a label was read from; None where there is none."""
        assert self.labeled is not None
        lines = self.labeled.splits[split].extras.get(LINES)
        table = "train" if split in self.labeled.made_splits else split
        return None if lines is None else self.rows.get(("", line := int(lines[index]))) or self.rows.get((table, line))

    @property
    def first(self) -> Split:
        """The first split of `any`."""
        return next(iter(self.any.splits.values()))

    @property
    def any(self) -> Dataset:
        """The labeled samples, or else the unlabeled ones."""
        dataset = self.labeled or self.unlabeled
        assert dataset is not None
        return dataset


def read_pool(source: str | Path, spec: InputSpec | None, data_root: str | Path | None, config: DataConfig) -> Pool:
    """Read a source with labels, without them, or with some.

    `spec` is the input of a model for the samples; None: it is guessed from the source. Raises
    DataError for a source that can be read neither as `train` nor as `predict` reads it.
    """
    path = Path(source)
    tasks = _read_tasks(path, config)
    config = _leave_predicted(tasks, config)
    raw, refusal = None, None
    try:
        counted = replace(config, extra=(*config.extra, LINES)) if path.exists() else config
        raw = read_dataset(source, data_root=data_root, config=counted)
    except DataError as error:
        if not path.exists():
            raise
        refusal = error
    if raw is not None and not _may_lack_labels(path, raw):
        return Pool(_complete(raw, config), None, tasks, raw.unreadable, _read_rows(path, tasks, raw, config))
    try:
        alike = config if raw is None else replace(config, columns=Columns(**raw.columns))
        spec = spec or (follow(raw) if raw else _guess_spec(path, config))
        samples, skipped = _read_unlabeled(path, spec, alike)
    except DataError as error:
        if raw is None:
            raise DataError(f"{error}; and with labels: {refusal}") from error
        return Pool(_complete(raw, config), None, tasks, raw.unreadable, _read_rows(path, tasks, raw, config))
    rows = _read_rows(path, tasks, raw, config)
    if raw is None:
        if samples is None:
            raise DataError(f"{source}: wanted samples, found none{describe_skipped(skipped)}")
        bare = _make_dataset(str(source), samples, spec, PLACEHOLDERS)
        return Pool(None, bare, tasks, skipped, rows, _trace(path, bare, rows))
    rest = None if samples is None else _leave_out(path, samples, raw, rows)
    classes = raw.classes if len(raw.classes) > 1 else (*raw.classes, *PLACEHOLDERS)
    unlabeled = None if rest is None else _make_dataset(str(source), rest, spec, classes)
    skipped = tuple(item for item in raw.unreadable if item.reason != NO_LABEL)
    labeled = Pool(raw, None, rows=rows)
    taken = {id(labeled.find_row(name, index)) for name, split in raw.splits.items() for index in range(len(split))}
    free = {key: row for key, row in rows.items() if id(row) not in taken}
    origins = () if unlabeled is None else _trace(path, unlabeled, free)
    return Pool(_complete(raw, config), unlabeled, tasks, skipped, rows, origins)


def _read_tasks(path: Path, config: DataConfig) -> tuple[LabelStudioTask, ...]:
    """Return the tasks of a file of Label Studio; none for any other source."""
    if path.suffix.lower() != TASKS_SUFFIX or not path.is_file():
        return ()
    tasks = label_studio.read_tasks(path, config.max_bytes)
    return tuple(tasks) if all(map(label_studio.is_task, tasks)) else ()


def _leave_predicted(tasks: Sequence[LabelStudioTask], config: DataConfig) -> DataConfig:
    """Return settings without a label column that is a tag used by predictions alone, and so has no labels yet."""
    name = config.columns.label
    known = any(name in task["data"] or name in label_studio.list_controls(task) for task in tasks)
    if known or name is None or label_studio.find_control(tasks, name) is None:
        return config
    return replace(config, columns=replace(config.columns, label=None))


def _read_rows(
    path: Path, tasks: Sequence[LabelStudioTask], raw: Dataset | None, config: DataConfig
) -> dict[tuple[str, int], Row]:
    """Return the origins of samples, by table (a split, or "") and line: tasks, or rows with further columns.

    Those are a group, a split, other kept columns, or the name of a series, whose first row counts. Other sources have
    none.
    """
    if tasks:
        return {("", number): read_task(path, number, task, raw) for number, task in enumerate(tasks, start=1)}
    kept = [name for name in (config.columns.group, *config.extra) if name is not None]
    rows = {}
    for name, table in _list_tables(path, config).items():
        columns = _find_roles(table, config) if raw is None else raw.columns
        split, series, file = (columns.get(role) for role in ("split", "series", "path"))
        if not (kept or split or series or name):
            continue
        known: set[str] = set()
        for place, line in enumerate(table.lines):
            others = [as_text(table.columns[series][place])] if series else []
            if not known.isdisjoint(others):
                continue
            known.update(others)
            others += [path_of(table.columns[file][place])] if file else []
            names = (f"{table.path.name}:{line}", *(f"{table.path.name}:{other}" for other in others), *others)
            cells = {column: as_text(table.columns[column][place]) for column in kept if column in table.columns}
            own = as_text(table.columns[split][place]).lower() if split and split in table.columns else ""
            rows[name, line] = Row(names, cells, name or SPLIT_VALUES.get(own))
    return rows


def _list_tables(path: Path, config: DataConfig) -> dict[str, Table]:
    """Return the tables of a source by split, or the single one by ""; empty where it is no table and has none."""
    if path.is_file() and path.suffix.lower() == TASKS_SUFFIX:
        return {"": tabulate_tasks(path, config)[0]}
    if path.is_file() and path.suffix.lower() in READABLE:
        return {"": read_table(path, header=config.header, max_bytes=config.max_bytes)}
    if not path.is_dir() or find_idx_images(path):
        return {}
    if files := find_split_tables(path):
        return {name: read_table(one, header=config.header, max_bytes=config.max_bytes) for name, one in files.items()}
    return {name: move_paths(read_table(one), path) for name, one in find_metadata(path).items()}


def _find_roles(table: Table, config: DataConfig) -> Mapping[str, str]:
    """Return the roles of the columns of a table without labels."""
    chosen = {role: name for role, name in asdict(config.columns).items() if name in table.columns and role != "label"}
    roles = find_samples(table, chosen, config.kind)
    return chosen if roles is None else roles.columns


_MAX_PATH = 4096


def read_task(path: Path, number: int, task: LabelStudioTask, raw: Dataset | None) -> Row:
    """Return a task as the origin of a sample, whose names are from its number and its files."""
    places = [label_studio.find_place(path, value) for value in task["data"].values()]
    files = [place for place in places if isinstance(place, str) and 0 < len(place) < _MAX_PATH]
    names = (f"{path.name}:{number}", f"{path.name}:task {number}", *map(to_text, files))
    split = raw.columns.get("split") if raw is not None else None
    own = as_text(task["data"].get(split)).lower() if split else ""
    return Row((*names, *(PurePosixPath(name).name for name in names)), {}, SPLIT_VALUES.get(own), task)


def _trace(path: Path, unlabeled: Dataset, rows: Mapping[tuple[str, int], Row]) -> tuple[Row | None, ...]:
    """Return the row of each sample without a label; rows that share a file are taken in order."""
    root = path if path.is_dir() else path.parent
    named: dict[str, list[Row]] = {}
    for row in reversed([*rows.values()]):
        for name in dict.fromkeys(row.names):
            named.setdefault(name, []).append(row)
    used: set[int] = set()
    found: list[Row | None] = []
    samples = unlabeled.splits["train"].samples
    for index in range(len(samples)):
        name = relative_name(samples.name(index), root)
        waiting = named.get(name) or named.get(PurePosixPath(name).name) or []
        while waiting and id(waiting[-1]) in used:
            waiting.pop()
        found.append(waiting.pop() if waiting else None)
        used.add(id(found[-1]))
    return tuple(found)


def _complete(raw: Dataset, config: DataConfig) -> Dataset:
    """Return a data set with the splits that training makes, where there is enough for them."""
    with suppress(DataError):
        return complete_splits(raw, config)
    return raw


def _may_lack_labels(path: Path, dataset: Dataset) -> bool:
    """Whether a source may have samples without labels: rows without one, or files outside the class folders."""
    if path.is_dir():
        return not find_idx_images(path)
    return any(item.reason == NO_LABEL for item in dataset.unreadable)


def _read_unlabeled(path: Path, spec: InputSpec, config: DataConfig) -> tuple[Samples | None, tuple[Unreadable, ...]]:
    """Return all samples of a file or folder, labeled or not, and the files that cannot be read."""
    parts: list[Samples] = []
    skipped: list[Unreadable] = []
    for inputs in iterate_inputs(path, spec, config):
        parts += [inputs.samples] if inputs.samples is not None and len(inputs.samples) else []
        skipped += inputs.skipped
    return (parts[0].join(parts[1:]) if parts else None), tuple(skipped)


def _leave_out(path: Path, samples: Samples, labeled: Dataset, rows: Mapping[tuple[str, int], Row]) -> Samples | None:
    """Return the samples that are neither labeled nor unreadable; None where none are left.

    None too where none has the name of a labeled one, since then other samples were read.
    """
    root = path if path.is_dir() else path.parent
    # Several tasks or rows may share a file, of which some have labels.
    known = Counter(to_text(split.samples.name(i)) for split in labeled.splits.values() for i in range(len(split)))
    lost = {item.file for item in labeled.unreadable if item.reason != NO_LABEL}
    names = [relative_name(samples.name(index), root) for index in range(len(samples))]
    if "series" in labeled.columns:  # With labels, those of several rows are called after the first one.
        first = {name: row.names[0] for row in reversed([*rows.values()]) for name in row.names}
        names = [first.get(name, name) for name in names]
    left = known.copy()
    kept = []
    for index, name in enumerate(names):
        if left[name] > 0:
            left[name] -= 1
        elif name not in lost:
            kept.append(index)
    return samples.take(np.array(kept, dtype=np.int64)) if kept and not known.keys().isdisjoint(names) else None


def relative_name(name: str, root: Path) -> str:
    """Return a sample's name within its source."""
    return to_text(name.removeprefix(f"{root}/"))


def _make_dataset(source: str, samples: Samples, spec: InputSpec, classes: tuple[str, ...]) -> Dataset:
    """Return samples without labels as a data set, read by `spec`. Raises DataError where not one can be read."""
    hashes, kept = [], []
    for index in range(len(samples)):
        with suppress(DataError):
            hashes.append(hash_bytes(read_bytes(samples, index)))
            kept.append(index)
    looked_at = []
    for place in _spread(len(kept)):
        with suppress(DataError):
            looked_at.append(samples.read(kept[place]))
    if not looked_at:
        raise DataError(f"{source}: none of {len(samples)} samples can be read")
    channels, sizes = zip(*map(ADAPTERS[spec.kind].measure, looked_at), strict=True)
    split = Split(
        samples.take(np.array(kept, dtype=np.int64)),
        np.zeros(len(kept), dtype=np.int64),
        np.array(hashes, dtype=np.uint64),
    )
    return Dataset(
        source,
        classes,
        {"train": split},
        max(channels),
        tuple(int(value) for value in np.median(sizes, axis=0)),
        kind=spec.kind,
        rate=samples.rate if isinstance(samples, WavFiles) else None,
        value_range=getattr(spec, "value_range", None),  # Of series and texts there is none.
    )


def _spread(count: int) -> list[int]:
    """Return at most _LOOKED_AT positions from first to last."""
    return np.unique(np.linspace(0, count - 1, min(count, _LOOKED_AT)).round().astype(int)).tolist() if count else []


def read_bytes(samples: Samples, index: int) -> bytes:
    """Return a sample as it is stored, or the bytes of its values."""
    if isinstance(samples, Encoded):
        return samples.content(index)
    sample = samples.read(index)
    return sample.encode() if isinstance(sample, str) else sample.tobytes()


# What a source without labels holds


def follow(labeled: Dataset) -> InputSpec:
    """Return the configuration of reading samples without labels, as those with labels are read."""
    return ADAPTERS[labeled.kind].make_spec(labeled.channels, labeled.rate)


def _guess_spec(path: Path, config: DataConfig) -> InputSpec:
    """Return a spec for reading the samples of a file or folder: only its kind, channels and rate have a meaning.

    Raises DataError where it cannot be guessed.
    """
    if path.is_dir():
        return _guess_folder(path, config)
    suffix = path.suffix.lower()
    if suffix == ".ts":
        cases, _ = read_ts_file(path, unlabeled=True)
        return ADAPTERS["series"].make_spec(len(cases[0].series) if cases else 1, None)
    if suffix == ".npz":
        return _guess_arrays(path, config)
    if suffix == TASKS_SUFFIX:
        table, _ = tabulate_tasks(path, config)
        return _guess_table(table, config)
    if suffix in MODALITIES["image"].extensions | MODALITIES["series"].extensions:
        return _guess_files(path.parent, [path.name], config)
    return _guess_table(next(iterate_table(path, header=config.header, max_bytes=config.max_bytes)), config)


def _guess_folder(folder: Path, config: DataConfig) -> InputSpec:
    """Return the spec of the majority of files below a folder, or else of its first table or file of series."""
    if find_idx_images(folder):
        return ADAPTERS["image"].make_spec(1, None)
    files = walk(folder, folder, config.follow).files
    if any(suffix_of(name) in EXTENSIONS for name in files):
        return _guess_files(folder, files, config)
    found = next(iter(sorted(folder / name for name in files if "/" not in name)), None)
    if found is None:
        raise DataError(f"{folder}: wanted images, recordings, texts or a table, found none")
    return _guess_spec(found, config)


def _guess_files(root: Path, files: Sequence[str], config: DataConfig) -> InputSpec:
    """Return the spec of files with one sample each."""
    return ADAPTERS[config.kind or guess_kind(files)].guess_files(root, files)


def _guess_arrays(path: Path, config: DataConfig) -> InputSpec:
    """Return the spec of the first array of a file: uint8 with three or four dimensions are images."""
    array = next(iter(read_npz_inputs(path, config.max_bytes).values()), np.zeros(0))
    image = array.ndim == 4 or (array.ndim == 3 and array.dtype == np.uint8)
    return ADAPTERS["image" if image else config.kind or "series"].guess_array(array)


def _guess_table(table: Table, config: DataConfig) -> InputSpec:
    """Return the spec of the samples in a table's columns; texts where it cannot be guessed."""
    chosen = {role: name for role, name in check_columns(table, config.columns).items() if role != "label"}
    roles = find_samples(table, chosen, config.kind)
    if roles is None:
        return ADAPTERS["text"].make_spec(1, None)
    adapter = ADAPTERS[roles.kind]
    if "path" in roles.columns:
        return adapter.guess_files(table.path.parent, [str(cell) for cell in table.columns[roles.columns["path"]]])
    return adapter.make_spec(len(roles.values) if "series" in roles.columns else 1, None)


def iterate_named(dataset: Dataset) -> Iterator[tuple[str, str, Split, int]]:
    """Yield split, name within the source, and position of each sample of a data set."""
    for name, split in dataset.splits.items():
        for index in range(len(split)):
            yield name, to_text(split.samples.name(index)), split, index
