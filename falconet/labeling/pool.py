"""What is to be labeled: the samples of a source that have labels, and those that have none yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from falconet.catalog import TASKS_SUFFIX
from falconet.data import DataConfig, Dataset, Samples, Split, Unreadable, label_studio
from falconet.data.arrays import find_idx_images, read_npz_inputs
from falconet.data.dataset import NO_LABEL, Encoded, describe_skipped, hash_bytes, to_text
from falconet.data.files import KINDS, guess_kind, suffix_of, walk
from falconet.data.images import read_content
from falconet.data.label_studio import Task
from falconet.data.manifests import check_columns, find_samples, tabulate_tasks
from falconet.data.series import WavFiles, inspect_wav, read_ts_file
from falconet.data.sources import read_dataset
from falconet.data.splits import complete_splits
from falconet.data.unlabeled import iterate_inputs
from falconet.errors import DataError
from falconet.spec import ImageSpec, InputSpec, Kind, SeriesSpec, TextSpec
from falconet.tables import Table, iterate_table

PLACEHOLDERS = ("0", "1")
"""Names of classes where none are known: networks have an output layer, even where nobody asks it."""
LOOKED_AT = 200
"""Samples that tell how large all are."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The samples of a source."""

    labeled: Dataset | None
    """Those with labels, with splits as training has them; None: there are none."""
    unlabeled: Dataset | None
    """Those without, as one split `train` whose labels mean nothing; None: there are none."""
    tasks: tuple[Task, ...] = ()
    """Of a file of Label Studio: its tasks, in order."""
    skipped: tuple[Unreadable, ...] = ()

    @property
    def kind(self) -> Kind:
        """What the samples are."""
        return self.any.kind

    @property
    def first(self) -> Split:
        """A split of them."""
        return next(iter(self.any.splits.values()))

    @property
    def any(self) -> Dataset:
        """One of both."""
        dataset = self.labeled or self.unlabeled
        assert dataset is not None
        return dataset


def read_pool(source: str | Path, spec: InputSpec | None, data_root: str | Path | None, config: DataConfig) -> Pool:
    """Read a source with labels, without them, or with some.

    `spec` is that of a model which takes the samples; None: what the source holds tells how they are read. Raises
    DataError for a source that can be read neither as `train` nor as `predict` reads it.
    """
    path = Path(source)
    tasks = read_tasks(path, config)
    raw, refusal = None, None
    try:
        raw = read_dataset(source, data_root=data_root, config=config)
    except DataError as error:
        if not path.exists():
            raise
        refusal = error
    if raw is not None and not may_lack_labels(path, raw):
        return Pool(complete(raw, config), None, tasks, raw.unreadable)
    try:
        samples, skipped = read_unlabeled(path, spec or guess_spec(path, config), config)
    except DataError as error:
        if raw is None:
            raise DataError(f"{error}; and with labels: {refusal}") from error
        return Pool(complete(raw, config), None, tasks, raw.unreadable)
    if raw is None:
        if samples is None:
            raise DataError(f"{source}: wanted samples, found none{describe_skipped(skipped)}")
        return Pool(None, make_dataset(str(source), samples, spec, PLACEHOLDERS), tasks, skipped)
    rest = None if samples is None else leave_out(path, samples, raw)
    classes = raw.classes if len(raw.classes) > 1 else (*raw.classes, *PLACEHOLDERS)
    unlabeled = None if rest is None else make_dataset(str(source), rest, spec, classes)
    skipped = tuple(item for item in raw.unreadable if item.reason != NO_LABEL)
    return Pool(complete(raw, config), unlabeled, tasks, skipped)


def read_tasks(path: Path, config: DataConfig) -> tuple[Task, ...]:
    """Return the tasks of a file of Label Studio; none for any other source."""
    if path.suffix.lower() != TASKS_SUFFIX or not path.is_file():
        return ()
    tasks = label_studio.read_tasks(path, config.max_bytes)
    return tuple(tasks) if all(map(label_studio.is_task, tasks)) else ()


def complete(raw: Dataset, config: DataConfig) -> Dataset:
    """Return a data set with the splits that training makes, where there is enough for them."""
    with suppress(DataError):
        return complete_splits(raw, config)
    return raw


def may_lack_labels(path: Path, dataset: Dataset) -> bool:
    """Whether a source may hold more samples than those with labels: rows without, or files in no class's folder."""
    if path.is_dir():
        return not find_idx_images(path)
    return any(item.reason == NO_LABEL for item in dataset.unreadable)


def read_unlabeled(path: Path, spec: InputSpec, config: DataConfig) -> tuple[Samples | None, tuple[Unreadable, ...]]:
    """Return all samples of a file or folder, be they labeled or not, and what cannot be one."""
    parts: list[Samples] = []
    skipped: list[Unreadable] = []
    for inputs in iterate_inputs(path, spec, config):
        parts += [inputs.samples] if inputs.samples is not None and len(inputs.samples) else []
        skipped += inputs.skipped
    return (parts[0].join(parts[1:]) if parts else None), tuple(skipped)


def leave_out(path: Path, samples: Samples, labeled: Dataset) -> Samples | None:
    """Return the samples that are not among the labeled ones, nor among what cannot be read; None where none are left.

    None too where not one is called as a labeled one: what is read here is something else then.
    """
    root = path if path.is_dir() else path.parent
    known = {to_text(split.samples.name(i)) for split in labeled.splits.values() for i in range(len(split))}
    lost = {item.file for item in labeled.unreadable if item.reason != NO_LABEL}
    names = [relative_name(samples.name(index), root) for index in range(len(samples))]
    kept = np.array([i for i, name in enumerate(names) if name not in known and name not in lost], dtype=np.int64)
    return samples.take(kept) if len(kept) and known.intersection(names) else None


def relative_name(name: str, root: Path) -> str:
    """Return what a sample is called within its source."""
    return to_text(name.removeprefix(f"{root}/"))


def make_dataset(source: str, samples: Samples, spec: InputSpec | None, classes: tuple[str, ...]) -> Dataset:
    """Return samples without labels as a data set. Raises DataError where not one can be read."""
    hashes, kept = [], []
    for index in range(len(samples)):
        with suppress(DataError):
            hashes.append(hash_bytes(read_bytes(samples, index)))
            kept.append(index)
    looked_at = []
    for place in spread(len(kept)):
        with suppress(DataError):
            looked_at.append(samples.read(kept[place]))
    if not looked_at:
        raise DataError(f"{source}: none of {len(samples)} samples can be read")
    first = looked_at[0]
    kind: Kind = "text" if isinstance(first, str) else "image" if first.ndim == 3 else "series"
    channels = 1 if kind == "text" else max(sample.shape[-1 if kind == "image" else 0] for sample in looked_at)
    sizes = [(len(sample),) if kind == "text" else measure(sample) for sample in looked_at]
    split = Split(
        samples.take(np.array(kept, dtype=np.int64)),
        np.zeros(len(kept), dtype=np.int64),
        np.array(hashes, dtype=np.uint64),
    )
    return Dataset(
        source,
        classes,
        {"train": split},
        channels,
        tuple(int(value) for value in np.median(sizes, axis=0)),
        kind=kind,
        rate=samples.rate if isinstance(samples, WavFiles) else None,
        value_range=spec.value_range if isinstance(spec, ImageSpec) else None,
    )


def spread(count: int) -> list[int]:
    """Return at most LOOKED_AT positions from first to last."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int)).tolist() if count else []


def measure(sample: np.ndarray) -> tuple[int, ...]:
    """Return height and width of an image, the steps of a series."""
    return sample.shape[:2] if sample.ndim == 3 else sample.shape[1:]


def read_bytes(samples: Samples, index: int) -> bytes:
    """Return a sample as it is stored, or the bytes of its values."""
    if isinstance(samples, Encoded):
        return samples.content(index)
    sample = samples.read(index)
    return sample.encode() if isinstance(sample, str) else sample.tobytes()


# What a source without labels holds


def guess_spec(path: Path, config: DataConfig) -> InputSpec:
    """Return how the samples of a file or folder are read: kind, channels and rate; all else of it means nothing.

    Raises DataError where nothing tells.
    """
    if path.is_dir():
        return guess_folder(path, config)
    suffix = path.suffix.lower()
    if suffix == ".ts":
        cases, _ = read_ts_file(path, unlabeled=True)
        return make_spec("series", len(cases[0].series) if cases else 1)
    if suffix == ".npz":
        return guess_arrays(path, config)
    if suffix == TASKS_SUFFIX:
        table, _ = tabulate_tasks(path, config)
        return guess_table(table, config)
    if suffix in KINDS["image"] | KINDS["series"]:
        return guess_files(path.parent, [path.name], config)
    return guess_table(next(iterate_table(path, header=config.header, max_bytes=config.max_bytes)), config)


def guess_folder(folder: Path, config: DataConfig) -> InputSpec:
    """Return the spec of most files below a folder, or else of the first table or file of series in it."""
    if find_idx_images(folder):
        return make_spec("image", 1)
    files = walk(folder, folder, config.follow).files
    if any(suffix_of(name) in frozenset().union(*KINDS.values()) for name in files):
        return guess_files(folder, files, config)
    found = next(iter(sorted(folder / name for name in files if "/" not in name)), None)
    if found is None:
        raise DataError(f"{folder}: wanted images, recordings, texts or a table, found none")
    return guess_spec(found, config)


def guess_files(root: Path, files: Sequence[str], config: DataConfig) -> InputSpec:
    """Return the spec of files that hold a sample each."""
    kind = config.kind or guess_kind(files)
    if kind != "series":
        return make_spec(kind, 3)
    for name in files:
        if suffix_of(name) in KINDS["series"]:
            with suppress(DataError):
                facts = inspect_wav(read_content(root / name))
                return make_spec("series", facts.channels, facts.rate)
    raise DataError(f"{root}: not one recording can be read")


def guess_arrays(path: Path, config: DataConfig) -> InputSpec:
    """Return the spec of the first array of a file: bytes in three dimensions or four are images."""
    array = next(iter(read_npz_inputs(path, config.max_bytes).values()), np.zeros(0))
    if config.kind == "image" or array.ndim == 4 or (array.ndim == 3 and array.dtype == np.uint8):
        return make_spec("image", 3)
    return make_spec("series", array.shape[1] if array.ndim == 3 else 1)


def guess_table(table: Table, config: DataConfig) -> InputSpec:
    """Return the spec of the samples in a table's columns; of a column whose content does not tell, texts."""
    chosen = {role: name for role, name in check_columns(table, config.columns).items() if role != "label"}
    roles = find_samples(table, chosen, config.kind)
    if roles is None:
        return make_spec("text", 1)
    if "path" in roles.columns and roles.kind == "series":
        cells = [str(cell) for cell in table.columns[roles.columns["path"]]]
        return guess_files(table.path.parent, cells, config)
    return make_spec(roles.kind, len(roles.values) if "series" in roles.columns else 1)


def make_spec(kind: Kind, channels: int, rate: int | None = None) -> InputSpec:
    """Return a spec that tells how samples are read, and nothing of a model."""
    if kind == "text":
        return TextSpec((1,), PLACEHOLDERS, vocab_size=3)
    statistics: tuple[Any, Any] = (0.0,) * channels, (1.0,) * channels
    if kind == "image":
        return ImageSpec((channels, 32, 32), PLACEHOLDERS, *statistics)
    return SeriesSpec((channels, 1), PLACEHOLDERS, *statistics, rate=rate)


def iterate_named(dataset: Dataset) -> Iterator[tuple[str, str, Split, int]]:
    """Yield split, name within the source, and place of each sample of a data set."""
    for name, split in dataset.splits.items():
        for index in range(len(split)):
            yield name, to_text(split.samples.name(index)), split, index
