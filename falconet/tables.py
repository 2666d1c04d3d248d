"""Tables: rows to CSV, JSON lines and Parquet files, and such files to columns; Parquet with the extra `tables`."""

from __future__ import annotations

import codecs
import csv
import importlib.util
import io
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from falconet.errors import ConfigError, DataError, FalconetError, MissingExtraError
from falconet.storage import open_regular, replace_file

if TYPE_CHECKING:
    import pyarrow

_FORMATS = (".csv", ".jsonl", ".parquet")
"""Suffixes of tables that are written."""
READABLE = (".csv", ".tsv", ".jsonl", ".parquet")
_LOOSE = (".txt", ".data", ".dat", "")
"""Further suffixes of files that may hold separated values; their content tells."""

MAX_BYTES = 2**30
"""Most bytes of one file in memory, by default."""
_FREE_BYTES, _EXPANSION = 1 << 25, 1024
"""Most bytes that the pages of a Parquet file may unpack to, and further ones for each byte of the file: the best of
Deflate. Other compressions have no such limit."""
FREE_ROWS, _ROWS_A_BYTE = 1 << 18, 16
"""Most rows of a Parquet file, and further ones for each of its bytes: repeated values are free, but rows are not."""
CELL_BYTES = 56
"""Bytes in memory of a cell besides its characters: an object and a reference to it."""

_ROW_BYTES = 128
"""Bytes in memory of a row besides its cells, once it is a sample: its name, hash and label, and references to them."""

_GROUP_COPIES = 4
"""Copies of a row group of a Parquet file in memory, while it is read."""

PART_ROWS, _PART_BYTES = 4096, 1 << 26
"""Most rows, and approximately most bytes, that are held where a table is read in parts."""

_DELIMITERS = (",", ";", "\t", "|")
_FIRST_LINES = 50
"""Lines by which the layout of a table is recognized."""
_FIRST_CELLS = 1000
"""Cells of a column by which a header is recognized."""
REREAD_LIMIT = 10_000_000
"""Most lines that are read again after quotes that are never closed: each may take the whole rest of the file."""
KEY_LIMIT = 10_000
"""Most different keys in JSON lines: more are not columns but data, and would fill the memory with missing cells."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table file, read: columns of equal length."""

    path: Path
    columns: Mapping[str, Sequence[Any]]
    """Cells by column: strings for CSV and TSV; typed for JSON lines and Parquet, with None where missing."""
    lines: Sequence[int]
    """Where each row begins: a line of the file from 1, or the row's number from 1 in Parquet."""
    damaged: tuple[tuple[int, str], ...] = ()
    """Rows that were skipped: (line, reason)."""
    notes: tuple[str, ...] = ()
    """Guesses that were needed to read the table."""
    delimiter: str = ","
    """Separator of the cells."""
    counted: bool = False
    """Whether there is no header, so that the columns are called 1, 2, and so on."""


_Row = tuple[int, list[str], str]
"""Line, cells and, for a damaged row, the reason."""


def check_table_path(path: Path) -> None:
    """Raise ConfigError for an extension that is not known, MissingExtraError where Parquet cannot be written."""
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"wanted a table's file name ending in {', '.join(_FORMATS)}, found {path}")
    if path.suffix.lower() == ".parquet":
        _check_pyarrow(f"writing {path}")


def _check_pyarrow(purpose: str) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("tables", purpose)


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys; nested values are kept, in CSV as JSON text."""
    with write_rows(path) as write:
        write(rows)


@contextmanager
def write_rows(path: Path) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yield a function that adds rows of equal keys to a table, which stands at `path` once all of them are written.

    After an error, what stood there before is still there. Raises ConfigError for an extension that is not known,
    MissingExtraError for Parquet without pyarrow, StorageError.
    """
    check_table_path(path)
    with replace_file(path) as file:
        if path.suffix.lower() == ".parquet":
            with _write_parquet(file) as write:
                yield write
            return
        format_rows = _format_jsonl if path.suffix.lower() == ".jsonl" else _format_csv
        begun = False

        def write_text(rows: Sequence[Mapping[str, Any]]) -> None:
            nonlocal begun
            file.write(format_rows(rows, header=not begun).encode("utf-8", "backslashreplace"))
            begun |= bool(rows)

        yield write_text


@contextmanager
def _write_parquet(file: BinaryIO) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yield a function that adds rows, whose types the first ones tell, to a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    writers: list[parquet.ParquetWriter] = []

    def write(rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        schema = writers[0].schema if writers else None
        table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema)
        if not writers:
            writers.append(parquet.ParquetWriter(file, table.schema))
        writers[0].write_table(table)

    try:
        yield write
        if not writers:
            writers.append(parquet.ParquetWriter(file, pyarrow.schema([])))
    finally:
        for writer in writers:  # While the file is open, also where the rows ended in an error.
            writer.close()


def _format_jsonl(rows: Sequence[Mapping[str, Any]], *, header: bool = True) -> str:
    """Return an object a line, which needs no header."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _format_csv(rows: Sequence[Mapping[str, Any]], *, header: bool = True) -> str:
    """Return a header of the first row's keys, where wanted, then each row in their order; nothing for no rows."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({key: flat(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def flat(value: Any) -> Any:
    """Return a scalar as it is, anything nested as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value


def read_table(path: Path, *, header: bool | None = None, max_bytes: int = MAX_BYTES) -> Table:
    """Read a `.csv`, `.tsv`, `.jsonl` or `.parquet` file, or separated values in a file of another of some names.

    Separated values: UTF-8, UTF-16 or UTF-32 with a byte order mark or without, else Windows-1252; separated by comma,
    semicolon, tab or bar, or by white space alone; quoted by `"`, or by `'` where whole columns are. Lines
    with `#` above the header are comments; `sep=;` in the first line says what separates. Without a
    header the columns are called 1, 2, ...; `header` says whether there is one, None: the rows tell. JSON lines: an
    object a line. Parquet: columns of scalars, and of files as `{bytes, path}`; others are left out.

    Rows that cannot be right are skipped and listed. Raises ConfigError for another extension, DataError for a file
    that cannot be read, becomes larger than `max_bytes` in memory, has columns without names of their own or no row
    that can be read, MissingExtraError for Parquet without pyarrow.
    """
    with _told_about(path):
        check_size(path, _check_readable(path), max_bytes)
        # Of Parquet, groups of rows are read one by one all the same.
        table = next(_open_parts(path, header, max_bytes, None), None)
    if table is None or not (table.lines or table.damaged):
        raise DataError(f"{path}: a header and nothing below; wanted rows")
    if not table.lines:
        raise _nothing_read(path, len(table.damaged), table.damaged[0])
    return table


def iterate_table(
    path: Path, *, header: bool | None = None, max_bytes: int = MAX_BYTES, rows: int = PART_ROWS
) -> Iterator[Table]:
    """Yield a table of any size in parts of at most `rows` rows, so that it takes little memory; see `read_table`.

    What the first part shows of header and layout counts for all. JSON lines have in each part the columns that occur
    there. `max_bytes` is what one part, or one group of rows of a Parquet file, may take. Raises what `read_table`
    raises; for a file that turns out to be damaged later on, after the parts before that.
    """
    count = 0
    damaged: list[tuple[int, str]] = []
    with _told_about(path):
        _check_readable(path)
        for table in _open_parts(path, header, max_bytes, rows):
            count += len(table.lines)
            damaged += table.damaged[: 1 - len(damaged)]
            if table.lines or table.damaged:
                yield table
    if not count and not damaged:
        raise DataError(f"{path}: a header and nothing below; wanted rows")
    if not count:
        raise _nothing_read(path, None, damaged[0])


def _nothing_read(path: Path, count: int | None, first: tuple[int, str]) -> DataError:
    """Return what is raised of a table of damaged rows alone."""
    many = "" if count is None else f", of {count}"
    return DataError(f"{path}: no rows that can be read{many}; the first: line {first[0]} ({first[1]})")


@contextmanager
def _told_about(path: Path) -> Iterator[None]:
    """Turn what the system says of a file into a DataError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FalconetError):
            raise
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_readable(path: Path) -> int:
    """Return the bytes of a file that by its name and beginning could be a table. Raises ConfigError, DataError."""
    suffix = path.suffix.lower()
    if suffix not in READABLE + _LOOSE:
        raise ConfigError(f"wanted a table's file name ending in {', '.join(READABLE)}, found {path}")
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if suffix != ".parquet":
        _check_content(path)
    return size


def _open_parts(path: Path, header: bool | None, max_bytes: int, rows: int | None) -> Iterator[Table]:
    """Yield a table in parts of at most `rows` rows; None: as a whole."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _iterate_jsonl(path, max_bytes, rows)
    return (
        _iterate_parquet(path, max_bytes, rows) if suffix == ".parquet" else _iterate_csv(path, header, max_bytes, rows)
    )


def check_size(path: Path, size: int, max_bytes: int) -> None:
    """Raise DataError for what would take more memory than a file may."""
    if size > max_bytes:
        raise DataError(
            f"{path}: wanted at most {max_bytes:,} bytes in memory, found {size:,} or more; split the file, or "
            f"set data.max_bytes={max(size, 2 * max_bytes)}"
        )


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Raise DataError where two columns have one name."""
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}: wanted different column names, found {twice[0]!r} more than once; rename one")


@dataclass(frozen=True)
class Coding:
    """How the bytes of a file become text."""

    encoding: str
    valid: bool
    """Whether all bytes are text, so that rows need not be looked at one by one."""
    notes: tuple[str, ...] = ()


def _find_coding(path: Path) -> Coding:
    """Return UTF-8, UTF-16, UTF-32, or Windows-1252 where that alone makes text.

    Raises DataError for bad UTF-16 or UTF-32, for UTF-7, and for what is no text at all.
    """
    encoding = _find_encoding(path)
    zeros = False
    try:
        with _open_text(path, encoding, "strict") as file:
            while text := file.read(1 << 20):
                zeros |= "\0" in text
        return Coding(encoding, True, _note_zeros(zeros))
    except UnicodeError as error:
        if encoding.startswith(("utf-16", "utf-32")):
            raise DataError(f"{path}: invalid {encoding[:6].upper()}; save the table as UTF-8") from error
    if _is_windows(path):
        note = "no UTF-8: read as Windows-1252; where letters look wrong, save it as UTF-8"
        return Coding("cp1252", True, (note, *_note_zeros(zeros)))
    return Coding(encoding, False, _note_zeros(zeros))


def _note_zeros(found: bool) -> tuple[str, ...]:
    """Say that there are characters that no text has."""
    return ("NUL characters among the others, as where the encoding is another: look at its texts",) if found else ()


_MARKS = (
    # What begins like another stands before it.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UTF_7 = re.compile(rb"\+/v[89+/]")
"""Byte order mark in UTF-7."""


def _find_encoding(path: Path) -> str:
    """Return what the first bytes look like; UTF-8 for what could be anything that begins with ASCII."""
    with open_regular(path) as file:
        start = file.read(4096)
    if _UTF_7.match(start):
        raise DataError(f"{path}: UTF-7; save the table as UTF-8")
    marked = next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)
    return marked or _find_wide(start) or "utf-8-sig"


def _find_wide(start: bytes) -> str | None:
    """Return the encoding of two or four bytes a character that a text without a mark has; None for none."""
    # Zeros tell: three quarters of the first line's end, or one half, and of every Latin letter.
    if not start or 40 * start.count(0) < len(start):
        return None
    words = {start[place : place + 4] for place in range(0, len(start), 4)}
    if not words.isdisjoint({b"\n\0\0\0", b"\r\0\0\0"}):
        return "utf-32-le"
    if not words.isdisjoint({b"\0\0\0\n", b"\0\0\0\r"}):
        return "utf-32-be"
    if line := re.search(rb"[\r\n]", start):
        end = line.start()
        if end % 2 == 0 and start[end + 1 : end + 2] == b"\0":
            return "utf-16-le"
        if end % 2 == 1 and start[end - 1] == 0:
            return "utf-16-be"
    return None


_FOREIGN_FILES = (
    (rb"PK\x03\x04(?s:.)*(?:xl/|\[Content_Types\])", "a workbook of Excel", "save the sheet as CSV"),
    (rb"PK\x03\x04(?s:.){26}mimetypeapplication/vnd\.oasis", "an OpenDocument file", "save the sheet as CSV"),
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive", "unpack it"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook of an old Excel", "save the sheet as CSV"),
    (rb"\x1f\x8b", "a gzip file", "unpack it"),
    (rb"BZh[1-9]1AY&SY", "a bzip2 file", "unpack it"),
    (rb"\xfd7zXZ\x00", "an xz file", "unpack it"),
    (rb"\x28\xb5\x2f\xfd", "a zstd file", "unpack it"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (rb"PAR1\x15", "a Parquet file", "let its name end in .parquet"),
    (rb"ARROW1\x00", "an Arrow file", "save the table as Parquet or CSV"),
    (rb"SQLite format 3\x00", "an SQLite database", "save the table as CSV"),
    (rb"%PDF-", "a PDF document", "save the table as CSV"),
    (rb"(?i:\s*<(?:!doctype html|html)\b)", "a web page", "download the table itself"),
    (rb"version https://git-lfs\.github\.com/", "a pointer of Git LFS", "fetch the file by `git lfs pull`"),
)
"""Other formats that files called tables have at times: their beginning, their name, and advice."""


def _check_content(path: Path) -> None:
    """Raise DataError for a file that is of another format than its name says, and no text."""
    with open_regular(path) as file:
        start = file.read(4096)
    for pattern, found, remedy in _FOREIGN_FILES:
        if re.match(pattern, start):
            raise DataError(f"{path}: wanted a table as text, found {found}; {remedy}")


def _open_text(path: Path, encoding: str, errors: str = "surrogateescape", newline: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(open_regular(path), encoding=encoding, errors=errors, newline=newline)


_FOREIGN = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as surrogates."""
_WIDE = re.compile("[^\x00-\x7f\udc80-\udcff]")
_UNUSED = re.compile("[\udc81\udc8d\udc8f\udc90\udc9d]")
"""Bytes without a character in Windows-1252, as surrogates."""


def _is_windows(path: Path) -> bool:
    """Whether bytes beyond ASCII are hardly ever UTF-8 and always Windows-1252."""
    foreign = wide = 0
    with _open_text(path, "utf-8-sig") as file:
        while text := file.read(1 << 20):
            if _UNUSED.search(text):
                return False
            foreign += len(_FOREIGN.findall(text))
            wide += len(_WIDE.findall(text))
    return foreign > 10 * wide


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold a string. It cannot hold lone surrogates, as which bytes that are no text were read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Lines:
    """Lines of a file for `csv.reader`, that knows where rows begin and can go back to after a row's first line."""

    def __init__(self, path: Path, file: Iterable[str], layout: _KeyFormat, max_bytes: int) -> None:
        self.path = path
        self.file = iter(file)
        self.delimiter, self.quote = layout.delimiter, layout.quote
        self.max_bytes = max_bytes
        self.given_back: deque[str] = deque()
        self.reread = 0
        """Number of lines that were given back so far."""
        self.row: list[str] = []
        """Lines of the row that was read last."""
        self.held = 0
        """Number of characters of the row that was read last."""
        self.begin = layout.skipped + 1
        """Number of this row's first line in the file."""
        self.is_open = False
        """Whether quotes in this row were never closed."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.given_back.popleft() if self.given_back else next(self.file, None)
        if line is None:
            self.is_open = bool(self.row)
            raise StopIteration
        # A row of nothing but separators takes several times the memory of its line.
        check_size(self.path, 8 * line.count(self.delimiter), self.max_bytes)
        self.held += len(line)  # One whose quote is never closed takes all that follows.
        check_size(self.path, self.held, self.max_bytes)
        self.row.append(line)
        return line

    def is_torn(self) -> bool:
        """Whether a row of several lines goes on after a closing quote: another cell's closed the one left open."""
        if len(self.row) > 1 and not self.is_open:
            try:
                list(CSV.reader(self.row, delimiter=self.delimiter, quotechar=self.quote, strict=True))
            except CSV.Error:
                return True
        return False

    def go_on(self) -> None:
        """Begin a row after the last one; after the first line of one that the file ended in."""
        if self.is_open:
            self.reread += len(self.row) - 1
            self.given_back.extend(self.row[1:])
            del self.row[1:]
        self.begin += len(self.row)
        self.row.clear()
        self.held = 0
        self.is_open = False


def _load_csv() -> Any:
    """Return the machinery of the csv module a second time.

    That refuses cells of more than 131,072 characters, by a limit that all who use the module share.
    """
    spec = importlib.util.find_spec("_csv")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.field_size_limit(2**31 - 1)
    return module


CSV = _load_csv()


def _iterate_csv(path: Path, header: bool | None, max_bytes: int, count: int | None) -> Iterator[Table]:
    """Read separated values; rows with another number of cells than the first one's, or with bad UTF-8, are damaged.

    Columns without a name are left out: row numbers that another program wrote first, or what a last separator leaves.
    """
    coding = _find_coding(path)
    layout = _find_layout(path, coding.encoding)
    notes = (*coding.notes, *layout.notes)
    with _open_text(path, coding.encoding) as file:
        rows = _parse_rows(path, file, layout, coding.valid, max_bytes)
        line, first, reason = next(rows)
        if reason:
            raise DataError(f"{path}: header in line {line}: {reason}; mend it, and save the table as UTF-8")
        names = list(map(_strip_name, first))
        block = _gather_rows(path, rows, names, max_bytes, count)
        if header is False or (header is None and _is_data(first, block.columns)):
            for column, cell in zip(block.columns, first, strict=True):
                column.insert(0, cell)
            block.lines.insert(0, line)
            guess = "; set data.header=true where it holds the names" if header is None else ""
            notes = (*notes, f"no header: the first row is data, and the columns are called 1, 2, ...{guess}")
            counted = [str(index) for index in range(1, len(names) + 1)]
            while block.lines or block.damaged:
                columns = dict(zip(counted, block.columns, strict=True))
                damaged = tuple(block.damaged)
                yield Table(path, columns, block.lines, damaged, notes, layout.delimiter, counted=True)
                block = _gather_rows(path, rows, names, max_bytes, count)
            return
        shown = [*names]
        if layout.marked:
            shown[0] = shown[0].lstrip("#").strip()
        _check_names(path, shown)
        if "\0" in "".join(shown):
            raise DataError(f"{path}: NUL characters in its header, as of no text in UTF-8; save the table as UTF-8")
        if not any(shown):
            raise DataError(f"{path}: wanted the columns' names in line {line}, found blanks alone")
        while block.lines or block.damaged:
            block = _drop_headers(block)
            columns = {name: column for name, column in zip(shown, block.columns, strict=True) if name}
            yield Table(path, columns, block.lines, tuple(block.damaged), notes, layout.delimiter)
            block = _gather_rows(path, rows, names, max_bytes, count)


@dataclass
class _Block:
    """Rows that follow one another."""

    columns: list[list[str]]
    lines: list[int] = field(default_factory=list)
    damaged: list[tuple[int, str]] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    """Positions of rows that repeat the first one of the file."""


def _gather_rows(path: Path, rows: Iterator[_Row], names: Sequence[str], max_bytes: int, count: int | None) -> _Block:
    """Return the next `count` rows, fewer where they take much memory; all that are left where it is None."""
    block = _Block([[] for _ in names])
    held = 0
    for number, row, why in rows:
        held += _ROW_BYTES + CELL_BYTES * len(row) + sum(map(len, row))
        check_size(path, held, max_bytes)
        if why:
            block.damaged.append((number, why))
        else:
            if _strip_name(row[0]) == names[0] and list(map(_strip_name, row)) == names:
                block.again.append(len(block.lines))
            block.lines.append(number)
            for column, cell in zip(block.columns, row, strict=True):
                column.append(cell)
        if count is not None and (len(block.lines) + len(block.damaged) >= count or held > _PART_BYTES):
            break
    return block


def _drop_headers(block: _Block) -> _Block:
    """Return rows without further headers, as of exports that were put one after the other."""
    if not block.again:
        return block
    damaged = sorted([*block.damaged, *((block.lines[place], "the header once more") for place in block.again)])
    dropped = frozenset(block.again)
    lines = [number for place, number in enumerate(block.lines) if place not in dropped]
    columns = [[cell for place, cell in enumerate(column) if place not in dropped] for column in block.columns]
    return _Block(columns, lines, damaged)


def _strip_name(cell: str) -> str:
    """Return a column's name as a cell of the header spells it; each of several files may begin with a mark."""
    return cell.strip("\ufeff").strip()


@dataclass(frozen=True)
class _KeyFormat:
    """Layout of a file of separated values."""

    delimiter: str
    """Separator of the cells; a space: any white space."""
    skipped: int
    """Number of lines above the first row."""
    marked: bool
    """Whether `#` stands before the first row."""
    quote: str = '"'
    """Quote around cells that hold separators."""
    notes: tuple[str, ...] = ()


def _find_layout(path: Path, encoding: str) -> _KeyFormat:
    """Return how the first lines are laid out. Raises DataError where there are none, or they make no table."""
    with _open_text(path, encoding) as file:
        lines = list(islice(file, _FIRST_LINES))
    told = re.fullmatch(r'"?sep=(.)"?', lines[0].strip("\r\n")) if lines else None
    skipped = begin = 1 if told else 0
    while skipped < len(lines) and lines[skipped].startswith("#"):
        skipped += 1
    whole = [line.strip("\r\n") for line in lines[skipped:] if line.strip("\r\n")]
    quote, rows, notes = _strip_quotes(whole, told[1] if told else "".join(_DELIMITERS))
    if not rows and skipped == begin:
        raise DataError(f"{path}: empty; wanted a header and rows")
    delimiter = told[1] if told else _find_delimiter(path, rows)
    above = lines[skipped - 1] if skipped == begin + 1 else ""
    # Texts may begin with it too: the only such line is a row where it has a row's cells.
    marked = bool(above) and (not rows or 0 < above.count(delimiter) == rows[0].count(delimiter))
    return _KeyFormat(delimiter, skipped - marked, marked, quote, notes)


def _strip_quotes(rows: Sequence[str], delimiters: str) -> tuple[str, list[str], tuple[str, ...]]:
    """Return what quotes cells, the rows with a letter for each quoted cell, and what must be said of it.

    An apostrophe quotes only where it does so in each row below the first, in equally many cells, and no `"` does.
    """
    if not any('"' in row for row in rows):
        mark = f"[{re.escape(delimiters)}]"
        cell = re.compile(rf"(?:(?<={mark})|^)'(?:[^']|'')*'(?={mark}|$)")
        found = [cell.subn("q", row) for row in rows]
        counts = Counter(count for _, count in found[1:])
        begun = re.compile(rf"(?:(?<={mark})|^)'")
        if len(counts) == 1 and 0 not in counts and not any(begun.search(row) for row, _ in found):
            return "'", [row for row, _ in found], ()
        if 2 * counts[0] < counts.total():
            note = "apostrophes are taken for letters, since they do not stand around the same cells in each row"
            return '"', list(rows), (f"{note}; where they quote, write double quotes",)
    return '"', [re.sub(r'"[^"]*"', "q", row) for row in rows], ()


def _find_delimiter(path: Path, rows: Sequence[str]) -> str:
    """Return what separates the cells of rows, whose quoted cells are left out."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    candidates = [mark for mark in (usual, *_DELIMITERS) if rows and mark in rows[0]]
    if not candidates and len({len(row.split()) for row in rows}) == 1 and len(rows[0].split()) > 1 < len(rows):
        return " "

    def rate(mark: str) -> tuple[bool, int, bool]:
        # Where commas could be those of numbers, another mark separates.
        return len({row.count(mark) for row in rows}) == 1, rows[0].count(mark), mark != ","

    if path.suffix.lower() in _LOOSE and (len(rows) < 2 or not any(rate(mark)[0] for mark in candidates)):
        raise DataError(f"{path}: wanted a table, with as many cells in each line, found other text")
    return max(candidates, key=rate, default=usual)


def _parse_rows(path: Path, file: Iterable[str], layout: _KeyFormat, valid: bool, max_bytes: int) -> Iterator[_Row]:
    """Yield line, cells and, for a damaged row, the reason; the first row sets the number of cells."""
    rest: Iterator[str] = islice(file, layout.skipped, None)
    if layout.delimiter == " ":
        rest = (f"{line.strip()}\n" for line in rest)
    lines = _Lines(path, rest, layout, max_bytes)
    width = 0
    spaced = layout.delimiter == " "
    for row in CSV.reader(lines, delimiter=layout.delimiter, quotechar=layout.quote, skipinitialspace=spaced):
        width = width or len(row)
        lines.is_open |= lines.is_torn()
        if row:
            whole = len(row) == width and valid and not lines.is_open
            yield lines.begin, row, "" if whole else _describe_damage(row, width, lines)
        lines.go_on()
        if lines.reread > REREAD_LIMIT:
            raise DataError(f"{path}: too many quotes that are never closed, the last in line {lines.begin - 1}")


def _describe_damage(row: Sequence[str], width: int, lines: _Lines) -> str:
    """Return what is wrong with a row, or nothing."""
    if lines.is_open:
        return "a quote is never closed"
    if len(row) != width:
        extent = f" in {len(lines.row)} lines" if len(lines.row) > 1 else ""
        return f"wanted {width} cells, found {len(row)}{extent}"
    return "" if is_encodable("".join(row)) else "invalid UTF-8"


_NOTHING = (
    *("?", ".", "-", "--", "na", "n/a", "<na>", "null", "none", "missing"),
    *("#n/a", "#n/a n/a", "#na", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"),
    *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
)
"""Words that pandas reads as missing, that SAS, Stata and R write for it, and that spreadsheets write for an error."""


ABSENT = frozenset(spell(word) for word in _NOTHING for spell in (str.lower, str.upper, str.capitalize))
"""Words for a missing number in a cell, besides nothing and NaN."""


def _is_data(first: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Whether a first row is one like all others, and no header.

    Numbers alone are, except where they count. A name over numbers makes a header. Else one of the few values that a
    column repeats makes a row, and so do numbers over numbers, unless they rise as years or wavelengths in names do.
    """
    names = [cell.strip() for cell in first]
    counted = [str(index) for index in range(len(names) + 1)]
    if all(map(is_number, names)):
        return names not in (counted[:-1], counted[1:])
    heads = [[cell.strip() for cell in column[:_FIRST_CELLS]] for column in columns]
    numeric = [sum(map(is_number, head)) > 0.9 * sum(map(bool, head)) for head in heads]
    if any(
        over and name and not is_number(name) and name not in ABSENT for name, over in zip(names, numeric, strict=True)
    ):
        return False
    numbers = [float(name) for name, over in zip(names, numeric, strict=True) if over and is_number(name)]
    rising = len(numbers) > 1 and all(low < high for low, high in pairwise(numbers))
    equal = sum(row == names for row in map(list, zip(*heads, strict=True)))
    for name, head in zip(names, heads, strict=True):
        few = 2 * len(set(head)) <= len(head) + 1
        if few and name and head.count(name) > equal and not (rising and is_number(name)):
            return True
    return len(numbers) > 1 and not rising


_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE | re.ASCII)


def is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None


def _iterate_jsonl(path: Path, max_bytes: int, count: int | None) -> Iterator[Table]:
    """Read an object a line; a column for each key in order of appearance."""
    coding = _find_coding(path)
    with _open_text(path, coding.encoding, newline="\n") as file:
        yield from parse_objects(path, file, coding, max_bytes, count)


def parse_objects(
    path: Path, lines: Iterable[str], coding: Coding, max_bytes: int = MAX_BYTES, count: int | None = PART_ROWS
) -> Iterator[Table]:
    """Yield tables of the objects that stand in lines, of `count` rows or fewer where they take much memory.

    None: one table of all. Raises DataError where not one line holds anything.
    """
    numbered = enumerate(lines, start=1)
    found = False
    while True:
        columns: dict[str, list[Any]] = {}
        places: list[int] = []
        damaged: list[tuple[int, str]] = []
        held = 0
        for number, line in numbered:
            row = parse_object(line, coding.valid) if line.strip() else {}
            if isinstance(row, str):
                damaged.append((number, row))
            elif row:
                _append_object(path, columns, row, len(places))
                places.append(number)
                held += _ROW_BYTES + len(line) + CELL_BYTES * len(row)
                # A key that is missing takes a place all the same.
                check_size(path, held + 8 * len(columns) * len(places), max_bytes)
            if count is not None and (len(places) + len(damaged) >= count or held > _PART_BYTES):
                break
        if not places and not damaged:
            break
        found = True
        for column in columns.values():
            _fill_up(column, len(places))
        _check_names(path, list(columns))
        yield Table(path, columns, places, tuple(damaged), coding.notes)
    if not found:
        raise DataError(f"{path}: empty; wanted a JSON object a line")


def _fill_up(column: list[Any], count: int) -> None:
    """Add missing cells until there are `count`."""
    column.extend([None] * (count - len(column)))


def parse_object(line: str, valid: bool) -> dict[str, Any] | str:
    """Return the object in a line, or why there is none."""
    if not (valid or is_encodable(line)):
        return "invalid UTF-8"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        if line.lstrip("\ufeff \t").startswith("["):
            return "an array over several lines; wanted a JSON object a line"
        return f"broken JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"broken JSON: {error}"
    if not isinstance(row, dict):
        return f"wanted a JSON object, found {type(row).__name__}"
    # JSON can spell lone surrogates, which no UTF-8 can.
    escaped = "\\ud" in line or "\\uD" in line
    return row if not escaped or is_encodable(json.dumps(row, ensure_ascii=False)) else "invalid Unicode"


def _append_object(path: Path, columns: dict[str, list[Any]], row: Mapping[str, Any], count: int) -> None:
    """Add a row to columns of `count` cells or fewer, those that were missing last, and a column for each new key."""
    for key, value in row.items():
        column = columns.setdefault(key, [])
        _fill_up(column, count)
        column.append(value)
    if len(columns) > KEY_LIMIT:
        raise DataError(f"{path}: more than {KEY_LIMIT:,} different keys; wanted the same keys in each line")


def _iterate_parquet(path: Path, max_bytes: int, count: int | None) -> Iterator[Table]:
    """Read the columns of scalars, and those of `{bytes, path}`; bytes alone become text where they are UTF-8."""
    _check_pyarrow(f"reading {path}")
    import pyarrow
    from pyarrow import parquet

    # Opened here, since pyarrow takes a part of a path such as `year=2020` for one more column.
    try:
        with open_regular(path) as file, parquet.ParquetFile(file) as source:
            names = [field.name for field in source.schema_arrow if _is_readable(field.type)]
            nested = [field.name for field in source.schema_arrow if not _is_readable(field.type)]
            _check_names(path, names)
            known = frozenset(names)
            sizes = _measure_groups(source, known)
            held = _measure_parquet(source, known) if count is None else _GROUP_COPIES * max(sizes, default=0)
            check_size(path, held, max_bytes)
            _check_expansion(path, sum(sizes), source.metadata.num_rows)
            texts = _list_texts(source.metadata, known)
        left = f"left out, since their cells are lists or records: {', '.join(nested[:5])}"
        notes = (left,) if nested else ()
        # A value that repeats is stored once, and so it is kept: a million times the same text is a text.
        with open_regular(path) as file, parquet.ParquetFile(file, read_dictionary=texts) as source:
            if count is None:
                columns: dict[str, list[Any]] = {name: [] for name in names}
                for group in range(source.num_row_groups):
                    table = source.read_row_group(group, columns=names)
                    for name in names:
                        for chunk in table.column(name).chunks:
                            columns[name].extend(_list_cells(chunk))
                yield Table(path, columns, range(1, source.metadata.num_rows + 1), notes=notes)
                return
            begin = 1
            for batch in source.iter_batches(batch_size=count, columns=names):
                columns = {name: _list_cells(batch.column(name)) for name in names}
                yield Table(path, columns, range(begin, begin + batch.num_rows), notes=notes)
                begin += batch.num_rows
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged, or no Parquet: {' '.join(str(error).split())[:400]}") from error


def _measure_parquet(source: Any, names: Collection[str]) -> int:
    """Return what the columns take in memory by a file's own word: cells, and what is unpacked for them."""
    metadata = source.metadata
    rows = max(int(metadata.num_rows), sum(int(group.num_rows) for group in _list_groups(metadata)))
    sizes, shared = _measure_groups(source, names), set(_list_texts(metadata, names))
    # While a group is read, there are its pages, its values and dictionary as Arrow builds them, and Python's.
    held = sum(sizes) + _GROUP_COPIES * max(sizes, default=0)
    return held + rows * (_ROW_BYTES + sum(8 if name in shared else CELL_BYTES for name in names))


def _measure_groups(source: Any, names: Collection[str]) -> list[int]:
    """Return the bytes of the columns' pages in each group of rows once they are unpacked, by a file's own word."""
    return [
        sum(
            int(chunk.total_uncompressed_size)
            for chunk in map(group.column, range(group.num_columns))
            if _is_part(chunk.path_in_schema, names)
        )
        for group in _list_groups(source.metadata)
    ]


def _list_groups(metadata: Any) -> list[Any]:
    """Return what a Parquet file says of each of its groups of rows."""
    return [metadata.row_group(index) for index in range(metadata.num_row_groups)]


def _check_expansion(path: Path, unpacked: int, rows: int) -> None:
    """Raise DataError for a small file that unpacks to far more, or to far more rows: much is made of each of both."""
    size = path.stat().st_size
    if unpacked > _FREE_BYTES + _EXPANSION * size:
        raise DataError(
            f"{path}: wanted at most {_FREE_BYTES:,} bytes, and {_EXPANSION} for each byte of the file, found "
            f"{unpacked:,} in {size:,} bytes; write it without compression"
        )
    if rows > FREE_ROWS + _ROWS_A_BYTE * size:
        raise DataError(
            f"{path}: wanted at most {FREE_ROWS:,} rows, and {_ROWS_A_BYTE} for each byte of the file, found {rows:,} "
            f"in {size:,} bytes; leave out rows that repeat others"
        )


def _list_texts(metadata: Any, names: Collection[str]) -> list[str]:
    """Return the paths of the columns of texts and bytes, which may be stored as references to few values."""
    schema = (metadata.schema.column(index) for index in range(metadata.num_columns))
    return [item.path for item in schema if item.physical_type == "BYTE_ARRAY" and _is_part(item.path, names)]


def _is_part(path: str, names: Collection[str]) -> bool:
    """Whether what a Parquet file calls `column` or `column.field` is one of some columns."""
    return path in names or path.removesuffix(".bytes").removesuffix(".path") in names


def _list_cells(array: pyarrow.Array, text: bool = True) -> list[Any]:
    """Return an array's cells; equal ones of a column of references are one object. Bytes become `text` if they are."""
    import pyarrow

    if isinstance(array, pyarrow.StructArray):
        parts = {name: _list_cells(array.field(name), text=name == "path") for name in ("bytes", "path")}
        rows = zip(array.is_valid().to_pylist(), parts["bytes"], parts["path"], strict=True)
        return [{"bytes": content, "path": path} if known else None for known, content, path in rows]
    if isinstance(array, pyarrow.DictionaryArray):
        values = _list_cells(array.dictionary, text)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    cells: list[Any] = array.to_pylist()
    return [_decode(cell) if text and isinstance(cell, bytes) else cell for cell in cells]


def _decode(cell: bytes) -> str | bytes:
    """Return bytes as text where they are UTF-8."""
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell


def _is_readable(kind: Any) -> bool:
    """Whether a Parquet column holds scalars, or files' contents and paths."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return {field.name for field in kind} == {"bytes", "path"}
    return not pyarrow.types.is_nested(kind)
