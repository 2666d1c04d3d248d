"""Samples to predict on, from whatever names or holds them, some at a time. Imports no torch.

What training reads is read here too, by the same readers, with labels or without.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from falconet.catalog import FILE_SUFFIXES, TASKS_SUFFIX, as_name, check_place, check_suffix, is_url
from falconet.data.adapters import ADAPTERS, SampleBlock, is_array, is_image, to_numpy
from falconet.data.cells import find_comma, spell_numbers
from falconet.data.columns import Roles, choose_inputs
from falconet.data.dataset import Dataset, Samples, Split, Unreadable, to_text
from falconet.data.downloads import fetch_url
from falconet.data.files import adapt_samples, count_ignored, describe_ignored, open_files, suffix_of, walk
from falconet.data.hub import find_known
from falconet.data.manifests import tabulate_tasks
from falconet.data.rows import read_inputs
from falconet.data.sources import find_data_root, read_dataset
from falconet.data.splits import DataConfig
from falconet.data.texts import MAX_CHARACTERS
from falconet.data.ts import read_ts_file
from falconet.errors import DataError, PathError, UsageError
from falconet.modalities import MODALITIES
from falconet.spec import InputSpec, ModalityName
from falconet.storage import scratch
from falconet.tables import (
    CELL_BYTES,
    PART_ROWS,
    Coding,
    Table,
    check_size,
    iterate_table,
    parse_object,
    parse_objects,
    read_table,
)

PART_FILES = 1024
"""Files that are predicted on before their predictions are handed on."""
_MAX_LINE = 4 * MAX_CHARACTERS
"""Most bytes of a line of standard input: four for each of the characters that a text may have."""


class Url(str):
    """A web address, where a string alone would be a text."""

    __slots__ = ()


@runtime_checkable
class _Lines(Protocol):
    """An open binary file, of which lines are read."""

    def readline(self, limit: int = -1, /) -> bytes: ...


InputSource = Path | Url | _Lines
"""Place of samples: a file or a folder, a URL, or an open stream of lines."""


@dataclass(frozen=True)
class Reading:
    """How samples are read."""

    spec: InputSpec
    labels: Sequence[str]
    """Classes of the model, which identify a column of labels that nothing else does."""
    config: DataConfig
    data_root: Path | None = None


def iterate_inputs(
    asked: object,
    spec: InputSpec,
    config: DataConfig | None = None,
    *,
    data_root: str | Path | None = None,
    labels: Sequence[str] = (),
) -> Iterator[SampleBlock]:
    """Yield the samples that are asked about, as a model of `spec` takes them, in order and some at a time.

    `asked` is one of these, or several in a list: a path of a file or folder, an address that begins with http:// or
    https://, the name of a source, an open binary file of lines; `Samples`; a sample itself, which is a PIL image, an
    array `(height, width)`, `(height, width, channels)`, `(steps,)` or `(channels, steps)`, or for a model of texts a
    string; one alone is a path. An array alone holds many samples along its first axis, and a column of strings is a
    list of them; a `Dataset` or one of its splits holds its samples.

    What cannot be read is listed and never ends the rest, unless it is all there is. Of `config`, `columns`, `header`,
    `follow` and `max_bytes` count. Raises PathError for a path that is not there and for a folder without samples,
    UsageError for what is none of these, DataError for the only input where it cannot be used.
    """
    if isinstance(asked, Dataset | Split):
        yield from _read_held(asked, spec)
        return
    reading = Reading(spec, labels, config or DataConfig(), None if data_root is None else Path(data_root))
    asked = _list_strings(asked, reading)
    if is_array(asked) and not is_image(asked):
        yield from ADAPTERS[spec.kind].read_array(to_numpy(asked), spec, str)
        return
    items = _list_items(asked, spec.kind)
    adapter = ADAPTERS[spec.kind]
    listed = adapter.takes_strings and isinstance(asked, str)
    for item in items:
        if isinstance(item, Path):
            check_place(item, f"; {MODALITIES[spec.kind].plural} are given in a list" if listed else "")
    number = 0
    for several, group in _group_items(items):
        if not several:  # Called after their positions.
            yield adapter.read_values(group, list(map(str, range(number, number + len(group)))), spec)
            number += len(group)
            continue
        (place,) = group
        try:
            yield from _read_place(place, reading)
        except DataError as error:
            if len(items) == 1:
                raise
            name = _name_place(place)
            yield SampleBlock(skipped=(Unreadable(name, str(error).removeprefix(f"{name}: ")),))


def _read_held(asked: Dataset | Split, spec: InputSpec) -> Iterator[SampleBlock]:
    """Yield the samples of a split, or of all splits of a data set."""
    dataset = asked if isinstance(asked, Dataset) else asked.owner
    if dataset is not None:
        _check_kind(dataset.source, dataset.kind, spec)
    for split in asked.splits.values() if isinstance(asked, Dataset) else (asked,):
        yield SampleBlock(adapt_samples(split.samples, spec))


def _list_strings(asked: object, reading: Reading) -> object:
    """Return a column of a table, or an array of strings or other objects, as a list; anything else as it is.

    Raises UsageError for a whole table where texts are wanted: it does not say which of its columns holds them.
    """
    names = getattr(asked, "column_names", getattr(asked, "columns", None))
    if names is not None and ADAPTERS[reading.spec.kind].takes_strings:
        known, table = list(map(str, names)), type(asked).__name__
        column = reading.config.columns.text
        column = column if column in known else find_known("text", known) or next(iter(known), "NAME")
        wanted = _describe_wanted(reading.spec.kind)
        raise UsageError(f'wanted {wanted}, found {table}; give a column, such as df["{column}"]')
    if not is_array(asked) or is_image(asked) or hasattr(asked, "detach"):
        return asked
    array = to_numpy(asked)
    return array.tolist() if array.ndim == 1 and array.dtype.kind in "OUT" else asked


def _list_items(asked: object, kind: ModalityName) -> list[Any]:
    """Return the places and samples that are asked about. Raises UsageError for none, and for what can be neither."""
    if isinstance(asked, str | os.PathLike):
        return [_to_place(asked)]
    if isinstance(asked, Samples) or _is_stream(asked) or is_array(asked):
        return [asked]
    if isinstance(asked, bytes | Mapping) or not isinstance(asked, Iterable):
        raise UsageError(f"wanted {_describe_wanted(kind)}, found {type(asked).__name__}")
    items = list(asked)
    if not items:
        raise UsageError(f"wanted {_describe_wanted(kind)}, found none")
    if ADAPTERS[kind].takes_strings:
        texts = [item for item in items if isinstance(item, str) and not isinstance(item, Url)]
        named = [text for text in texts if suffix_of(text[-10:]) in (*FILE_SUFFIXES, ".txt") and is_file(text)]
        if named:
            raise UsageError(f"wanted texts, found the name of a file, {named[0]!r}; give files as pathlib.Path")
        return [item if isinstance(item, str) else _to_place(item) for item in items]
    return [_to_place(item) for item in items]


def is_file(name: str) -> bool:
    """Whether there is a file of this name; what no file can be called is none."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _describe_wanted(kind: ModalityName) -> str:
    """Say what can be asked about."""
    return f"paths, addresses or {ADAPTERS[kind].wanted}"


def _to_place(item: Any) -> Any:
    """Return a string as an address or a path, what is a path as one, and anything else as it is."""
    if isinstance(item, str):
        return Url(item) if is_url(item) else Path(item)
    return Path(item) if isinstance(item, os.PathLike) else item


def _is_stream(item: object) -> bool:
    return isinstance(item, io.IOBase) and not isinstance(item, io.TextIOBase)


def _is_place(item: object) -> bool:
    return isinstance(item, Path | Url | Samples) or _is_stream(item)


def _group_items(items: Sequence[Any]) -> Iterator[tuple[bool, list[Any]]]:
    """Yield each place by itself and samples at hand together, in order; whether it is a place goes first."""
    values: list[Any] = []
    for item in items:
        if not _is_place(item):
            values.append(item)
            continue
        if values:
            yield False, values
        values = []
        yield True, [item]
    if values:
        yield False, values


def _name_place(place: Any) -> str:
    """Return what a place is called: a stream `-`, samples by their type."""
    if isinstance(place, Path | Url):
        return to_text(str(place))
    return "-" if _is_stream(place) else type(place).__name__


# Places


def _read_place(place: Any, reading: Reading) -> Iterator[SampleBlock]:
    """Yield the samples of one place."""
    if isinstance(place, Url):
        yield from _read_url(place, reading)
    elif isinstance(place, Samples):
        yield SampleBlock(place)
    elif _is_stream(place):
        yield from _read_lines(place, reading)
    elif place.is_dir():
        yield from _read_folder(place, reading)
    elif place.exists():
        yield from _read_one_file(place, str(place), reading)
    elif os.path.lexists(place):
        raise DataError(f"{place}: a link to nothing")
    else:
        yield from _read_source(as_name(place), reading)


def _read_source(name: str, reading: Reading) -> Iterator[SampleBlock]:
    """Yield all samples of a source that has a name."""
    dataset = read_dataset(name, data_root=find_data_root(reading.data_root), config=reading.config)
    _check_kind(name, dataset.kind, reading.spec)
    for split in dataset.splits.values():
        yield SampleBlock(ADAPTERS[dataset.kind].rescale(split.samples, reading.spec))
    yield SampleBlock(skipped=dataset.unreadable, ignored=dataset.ignored, notes=dataset.notes)


def _check_kind(name: str, found: ModalityName, spec: InputSpec) -> None:
    """Raise DataError for samples of another kind than a model's."""
    if found != spec.kind:
        raise DataError(f"{name}: wanted {spec.kind} data, as the model takes, found {found}")


def _read_url(url: Url, reading: Reading) -> Iterator[SampleBlock]:
    """Yield the samples of a file that is fetched first, and gone in the end."""
    with scratch() as folder:
        path = fetch_url(url, folder)
        try:
            for inputs in _read_one_file(path, str(url), reading):
                yield rename(inputs, str(path), str(url))
        except (DataError, PathError) as error:  # What an address leads to is not the caller's mistake.
            raise DataError(str(error).replace(str(path), str(url))) from error


def rename(inputs: SampleBlock, old: str, new: str) -> SampleBlock:
    """Return inputs of a file that is called otherwise than the user knows it."""
    skipped = tuple(
        Unreadable(new if item.file == old else item.file, item.reason.replace(old, new)) for item in inputs.skipped
    )
    samples = inputs.samples
    if samples is not None and len(samples) == 1 and samples.name(0) == old:
        samples = _Renamed(samples, new)
    return SampleBlock(samples, skipped, inputs.ignored, tuple(note.replace(old, new) for note in inputs.notes))


@dataclass(frozen=True, eq=False)
class _Renamed:
    """One sample under another name."""

    samples: Samples
    known: str

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        return self.known

    def read(self, index: int) -> Any:
        try:
            return self.samples.read(index)
        except DataError as error:
            raise DataError(str(error).removeprefix(f"{self.samples.name(index)}: ")) from error

    def take(self, indices: np.ndarray) -> _Renamed:
        return _Renamed(self.samples.take(indices), self.known)

    def join(self, others: Sequence[_Renamed]) -> Samples:
        return self.samples.join([other.samples for other in others])


def _read_folder(folder: Path, reading: Reading) -> Iterator[SampleBlock]:
    """Yield the samples below a folder, or of the arrays, tables and files of series in it where it holds no others.

    Raises PathError where it holds none of these.
    """
    spec, adapter = reading.spec, ADAPTERS[reading.spec.kind]
    arrays = adapter.open_folder(folder, spec, reading.config.max_bytes)
    if arrays is not None:
        yield from arrays
        return
    data = sorted(path for path in folder.iterdir() if suffix_of(path.name) in FILE_SUFFIXES and path.is_file())
    data = [path for path in data if not path.name.startswith(".")]
    found = None if data and not adapter.in_files(spec) else find_below(folder, spec.kind, strict=not data)
    if found is not None:
        yield SampleBlock(skipped=found.refused, ignored=found.ignored)
        yield from _read_files(found.files, reading)
        return
    for path in data:
        try:
            yield from _read_one_file(path, str(path), reading)
        except DataError as error:
            if len(data) == 1:
                raise
            yield SampleBlock(skipped=(Unreadable(str(path), str(error).removeprefix(f"{path}: ")),))


@dataclass(frozen=True)
class FoundFiles:
    """The files that a path of the user's leads to."""

    files: Sequence[str]
    """Files that should hold one sample each."""
    refused: tuple[Unreadable, ...] = ()
    """Links that lead out of a folder, pipes and the like."""
    ignored: Mapping[str, int] = field(default_factory=dict)


def find_below(folder: Path, kind: ModalityName, *, strict: bool = True) -> FoundFiles | None:
    """Return the files below a folder that hold a sample each, and what is left out.

    Where there are none: None, or PathError where it is `strict`.
    """
    listing = walk(folder, folder, follow=False)
    files = [name for name in listing.files if suffix_of(name) in MODALITIES[kind].extensions]
    ignored = count_ignored(listing.files, set(files)) | ({"hidden": len(listing.hidden)} if listing.hidden else {})
    if not files and not strict:
        return None
    if not files:
        beside = f" but {describe_ignored(ignored)}" if ignored else ""
        first = f" ({listing.refused[0].file}: {listing.refused[0].reason})" if listing.refused else ""
        raise PathError(f"{folder}: wanted {MODALITIES[kind].files}, found none in this folder{beside}{first}")
    refused = tuple(Unreadable(str(folder / item.file), item.reason) for item in listing.refused)
    return FoundFiles([str(folder / name) for name in files], refused, ignored)


def _read_one_file(path: Path, name: str, reading: Reading) -> Iterator[SampleBlock]:
    """Yield the samples of a file, which may be one; `name` is what the user calls it."""
    spec, suffix, max_bytes = reading.spec, path.suffix.lower(), reading.config.max_bytes
    adapter = ADAPTERS[spec.kind]
    own = adapter.open_file(path, name, spec, max_bytes)
    if own is not None:
        yield from own
    elif suffix == ".npz":
        yield from adapter.read_npz(path, name, spec, max_bytes)
    elif suffix == ".ts":
        yield from _read_ts(path, name, reading)
    elif suffix == TASKS_SUFFIX:
        table, _ = tabulate_tasks(path, reading.config)
        yield from _read_parts(iter([table]), name, reading, lambda: table)
    elif suffix in adapter.table_suffixes:
        yield from _read_rows(path, name, reading)
    else:
        if not adapter.in_files(spec) and suffix not in MODALITIES[spec.kind].extensions:
            check_suffix(path)
        yield from _read_files([str(path)], reading)


def _read_files(paths: Sequence[str], reading: Reading) -> Iterator[SampleBlock]:
    """Yield files that hold a sample each."""
    for start in range(0, len(paths), PART_FILES):
        yield SampleBlock(open_files(paths[start : start + PART_FILES], reading.spec))


def _read_ts(path: Path, name: str, reading: Reading) -> Iterator[SampleBlock]:
    """Yield the series of a `.ts` file, whether it has labels or not."""
    _check_kind(name, "series", reading.spec)
    cases, skipped = read_ts_file(path, unlabeled=True)
    yield SampleBlock(skipped=tuple(Unreadable(f"{name}:{_line_of(item.file)}", item.reason) for item in skipped))
    for start in range(0, len(cases), PART_ROWS):
        part = cases[start : start + PART_ROWS]
        names = [f"{name}:{_line_of(case.name)}" for case in part]
        yield ADAPTERS["series"].read_cells([case.series for case in part], names, reading.spec)


def _line_of(name: str) -> str:
    """Return the line that stands after a file's name."""
    return name.rpartition(":")[2]


def _read_rows(path: Path, name: str, reading: Reading) -> Iterator[SampleBlock]:
    """Yield the samples of a table in parts; of a series over several rows, all of it is read first."""
    config = reading.config
    parts = iterate_table(path, header=config.header, max_bytes=config.max_bytes)
    yield from _read_parts(
        parts, name, reading, lambda: read_table(path, header=config.header, max_bytes=config.max_bytes)
    )


def _read_parts(
    parts: Iterator[Table], name: str, reading: Reading, read_whole: Callable[[], Table] | None
) -> Iterator[SampleBlock]:
    """Yield the samples of a table's parts; what the first one's columns hold counts for all.

    A series that stretches over several rows may stretch over several parts: then they are read as a whole, or of a
    stream put together.
    """
    roles: Roles | None = None
    comma: str | None = None
    for table in parts:
        if not table.lines:
            yield SampleBlock(skipped=tuple(Unreadable(f"{name}:{line}", reason) for line, reason in table.damaged))
            continue
        notes: tuple[str, ...] = ()
        if roles is None:
            comma = find_comma(table)
            roles = choose_inputs(
                spell_numbers(table, table.columns, comma), reading.config, reading.spec, reading.labels
            )
            notes = tuple(f"{name}: {note}" for note in table.notes)
            if "series" in roles.columns:
                whole = read_whole() if read_whole else _join_tables(table, parts, reading.config.max_bytes)
                yield from _read_part(whole, roles, comma, name, reading, notes)
                return
        yield from _read_part(table, roles, comma, name, reading, notes)


def _read_part(
    table: Table, roles: Roles, comma: str | None, name: str, reading: Reading, notes: tuple[str, ...]
) -> Iterator[SampleBlock]:
    """Yield the samples of some rows."""
    spelled = spell_numbers(table, [column for column in roles.values if column in table.columns], comma)
    rows = read_inputs(spelled, roles, reading.config, name)
    yield SampleBlock(skipped=tuple(rows.skipped), notes=notes)
    if not rows.names:
        return
    # Bytes are what a cell holds instead of a path.
    if "path" in roles.columns and not any(isinstance(value, bytes) for value in rows.values):
        yield from _read_files([str(table.path.parent / value) for value in rows.values], reading)
    else:
        yield ADAPTERS[roles.kind].read_cells(rows.values, rows.names, reading.spec)


def _join_tables(first: Table, others: Iterable[Table], max_bytes: int) -> Table:
    """Return several parts of a stream as one table. Raises DataError where they take more memory than a table may."""
    tables, held = [first], 0
    for table in others:
        tables.append(table)
        held += CELL_BYTES * len(table.lines) * len(table.columns)
        check_size(first.path, held, max_bytes)
    names = dict.fromkeys(name for table in tables for name in table.columns)
    columns = {
        name: [cell for table in tables for cell in table.columns.get(name, [None] * len(table.lines))]
        for name in names
    }
    lines = [line for table in tables for line in table.lines]
    damaged = tuple(item for table in tables for item in table.damaged)
    return Table(first.path, columns, lines, damaged, first.notes)


# Standard input


def _read_lines(stream: _Lines, reading: Reading) -> Iterator[SampleBlock]:
    """Yield what stands in the lines of a stream: JSON objects, or else texts, or the paths of files and addresses.

    The first line that is not blank tells which. Raises DataError for no lines, and for lines of numbers.
    """
    damaged: list[tuple[int, str]] = []
    lines = _number_lines(stream, damaged)
    first = next(lines, None)
    if first is None:
        raise DataError(f"-: wanted lines on standard input, found none{_describe_lost(damaged)}")
    if isinstance(parse_object(first[1], valid=True), dict):
        yield from _read_objects(first, lines, damaged, reading)
        return
    spec, adapter = reading.spec, ADAPTERS[reading.spec.kind]
    if not adapter.in_files(spec):
        several = MODALITIES[spec.kind].plural
        raise DataError(
            f"-: wanted JSON lines with {several} in their columns, found {first[1].strip()[:40]!r}; "
            f"or write the {several} into a table or .ts, and name the file"
        )
    block = [first, *islice(lines, PART_FILES - 1)]
    while block:
        skipped = tuple(Unreadable(f"-:{number}", reason) for number, reason in damaged)
        damaged.clear()
        if adapter.takes_strings:
            found = adapter.read_values([text for _, text in block], [f"-:{number}" for number, _ in block], spec)
            yield replace(found, skipped=(*skipped, *found.skipped))
        else:
            yield SampleBlock(skipped=skipped)
            yield from _read_named([text.strip() for _, text in block], reading)
        block = list(islice(lines, PART_FILES))
    yield SampleBlock(skipped=tuple(Unreadable(f"-:{number}", reason) for number, reason in damaged))


def _describe_lost(damaged: Sequence[tuple[int, str]]) -> str:
    return f"; the first that cannot be read: line {damaged[0][0]} ({damaged[0][1]})" if damaged else ""


def _number_lines(stream: _Lines, damaged: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that hold something; what is wrong with others is added to `damaged`."""
    number = 0
    while line := stream.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(_MAX_LINE)
            damaged.append((number, f"more than {_MAX_LINE:,} bytes"))
            continue
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            damaged.append((number, "invalid UTF-8"))
            continue
        if text.strip():
            yield number, text


def _read_objects(
    first: tuple[int, str], lines: Iterator[tuple[int, str]], damaged: list[tuple[int, str]], reading: Reading
) -> Iterator[SampleBlock]:
    """Yield the samples of JSON lines of a stream."""
    numbers: list[int] = []

    def note(entry: tuple[int, str]) -> str:
        numbers.append(entry[0])
        return entry[1]

    texts = (note(entry) for part in ([first], lines) for entry in part)

    def number_rows() -> Iterator[Table]:
        for table in parse_objects(Path("-"), texts, Coding("utf-8", True), reading.config.max_bytes):
            # Blank lines and damaged ones count where a user looks for a line.
            rows = [numbers[line - 1] for line in table.lines]
            bad = [(numbers[line - 1], reason) for line, reason in table.damaged]
            yield Table(table.path, table.columns, rows, tuple(sorted([*bad, *damaged])))
            damaged.clear()
        yield Table(Path("-"), {}, (), tuple(damaged))

    yield from _read_parts(number_rows(), "-", reading, None)


def _read_named(names: Sequence[str], reading: Reading) -> Iterator[SampleBlock]:
    """Yield the samples of places that are named in lines; one that is not there is listed."""
    files: list[str] = []
    for name in names:
        place = _to_place(name)
        plain = isinstance(place, Path) and place.is_file() and suffix_of(name) not in FILE_SUFFIXES
        if plain:
            files.append(name)
            continue
        yield from _read_files(files, reading)
        files = []
        try:
            if isinstance(place, Path):
                check_place(place)
            yield from _read_place(place, reading)
        except (DataError, PathError) as error:
            yield SampleBlock(skipped=(Unreadable(name, str(error).removeprefix(f"{name}: ")),))
    yield from _read_files(files, reading)
