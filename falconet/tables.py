"""Tables: rows to CSV, JSON lines and Parquet files, and such files to columns; Parquet with the extra `tables`."""

from __future__ import annotations

import codecs
import csv
import importlib.util
import io
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from falconet.errors import ConfigError, DataError, MissingExtraError
from falconet.storage import write_bytes, write_text

FORMATS = (".csv", ".jsonl", ".parquet")
"""That are written."""
READABLE = (".csv", ".tsv", ".jsonl", ".parquet")

DELIMITERS = (",", ";", "\t", "|")
REREAD_LIMIT = 10_000_000
"""Lines read again behind quotes that are never closed, before the file is given up: each may take the whole rest."""
KEY_LIMIT = 10_000
"""Different keys in JSON lines: more are not columns but data, and would fill the memory with missing cells."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table file, read: columns of equal length."""

    path: Path
    columns: Mapping[str, Sequence[Any]]
    """By name. Cells of CSV and TSV are strings; those of JSON lines and Parquet what they are, None where missing."""
    lines: Sequence[int]
    """Where each row begins: a line of the file from 1, or the row's number from 1 in Parquet."""
    damaged: tuple[tuple[int, str], ...] = ()
    """Rows that were skipped: (line, reason)."""


Row = tuple[int, list[str], str]
"""Line, cells and, of a damaged row, the reason."""


def check_table_path(path: Path) -> None:
    """Raise ConfigError for an extension that is not known, MissingExtraError where Parquet cannot be written."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"wanted a table's file name ending in {', '.join(FORMATS)}, found {path}")
    if path.suffix.lower() == ".parquet":
        check_pyarrow(f"writing {path}")


def check_pyarrow(purpose: str) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("tables", purpose)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys; nested values are kept, in CSV as JSON text."""
    check_table_path(path)
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), buffer)
        write_bytes(path, buffer.getvalue())
    elif path.suffix.lower() == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        write_text(path, format_csv(rows))


def format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a header of the first row's keys, then each row in their order; nothing for no rows."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: flat(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def flat(value: Any) -> Any:
    """Return a scalar as it is, anything nested as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value


def read_table(path: Path) -> Table:
    """Read a `.csv`, `.tsv`, `.jsonl` or `.parquet` file.

    CSV and TSV: UTF-8, or UTF-16 with a byte order mark; separated by comma, semicolon, tab or bar, whichever the
    header has most of; a first row of numbers alone is no header, and the columns are then called 1, 2, .... JSON
    lines: an object a line. Parquet: columns of scalars, and of files as `{bytes, path}`; others are left out.

    Rows that cannot be right are skipped and listed. Raises ConfigError for another extension, DataError for a file
    that cannot be read, has columns without names of their own or no row that can be read, MissingExtraError for
    Parquet without pyarrow.
    """
    readers = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"wanted a table's file name ending in {', '.join(READABLE)}, found {path}")
    try:
        table = reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not table.lines:
        first = next((f"; the first: line {line} ({reason})" for line, reason in table.damaged), "")
        raise DataError(f"{path}: no rows that can be read, of {len(table.damaged)}{first}")
    return table


def check_names(path: Path, names: Sequence[str]) -> None:
    """Raise DataError where two columns have one name."""
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}: wanted different column names, found {twice[0]!r} more than once; rename one")


def find_encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"


def is_valid(path: Path, encoding: str) -> bool:
    """Whether all bytes are text, so that rows need not be looked at one by one. Raises DataError for bad UTF-16."""
    try:
        with path.open(encoding=encoding, newline="") as file:
            while file.read(1 << 20):
                pass
    except UnicodeError as error:
        if encoding == "utf-16":
            raise DataError(f"{path}: invalid UTF-16; save the table as UTF-8") from error
        return False
    return True


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold a string. It cannot hold lone surrogates, as which bytes that are no text were read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Lines:
    """Lines of a file for `csv.reader`, that knows where rows begin and can go back to behind a row's first line."""

    def __init__(self, file: Iterable[str]) -> None:
        self.file = iter(file)
        self.given_back: deque[str] = deque()
        self.reread = 0
        """How many lines were given back so far."""
        self.row: list[str] = []
        """Lines of the row that was read last."""
        self.begin = 1
        """Its first line's number in the file."""
        self.is_open = False
        """Whether the file ended within its quotes."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.given_back.popleft() if self.given_back else next(self.file, None)
        if line is None:
            self.is_open = bool(self.row)
            raise StopIteration
        self.row.append(line)
        return line

    def go_on(self) -> None:
        """Begin a row behind the last one; behind the first line of one that the file ended in."""
        if self.is_open:
            self.reread += len(self.row) - 1
            self.given_back.extend(self.row[1:])
            del self.row[1:]
        self.begin += len(self.row)
        self.row.clear()
        self.is_open = False


@contextmanager
def unlimited_cells() -> Iterator[None]:
    """Let the csv module read cells of any length; otherwise it refuses more than 131,072 characters."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def read_csv(path: Path) -> Table:
    """Read separated values; rows with another number of cells than the header's, or with bad UTF-8, are damaged.

    Columns without a name are left out: row numbers that another program wrote first, or what a last comma leaves.
    """
    encoding = find_encoding(path)
    valid, delimiter = is_valid(path, encoding), find_delimiter(path, encoding)
    lines: list[int] = []
    damaged: list[tuple[int, str]] = []
    with unlimited_cells(), path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        rows = parse_rows(path, file, delimiter, valid)
        names, first = read_header(path, rows)
        columns: list[list[str]] = [[] for _ in names]
        for line, row, reason in chain(first, rows):
            if reason:
                damaged.append((line, reason))
                continue
            lines.append(line)
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    named = {name: column for name, column in zip(names, columns, strict=True) if name}
    return Table(path, named, lines, tuple(damaged))


def find_delimiter(path: Path, encoding: str) -> str:
    """Return what separates the cells of the first line that is not blank. Raises DataError where there is none."""
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        header = next((line for line in file if line.strip("\r\n")), None)
    if header is None:
        raise DataError(f"{path}: empty; wanted a header and rows")
    bare = re.sub(r'"[^"]*"', "", header)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    return max((usual, *DELIMITERS), key=bare.count)


def parse_rows(path: Path, file: Iterable[str], delimiter: str, valid: bool) -> Iterator[Row]:
    """Yield line, cells and, of a damaged row, the reason; the first row tells the number of cells."""
    lines = Lines(file)
    width = 0
    for row in csv.reader(lines, delimiter=delimiter):
        width = width or len(row)
        if row:
            whole = len(row) == width and valid and not lines.is_open
            yield lines.begin, row, "" if whole else describe_damage(row, width, lines)
        lines.go_on()
        if lines.reread > REREAD_LIMIT:
            raise DataError(f"{path}: too many quotes that are never closed, the last in line {lines.begin - 1}")


def describe_damage(row: Sequence[str], width: int, lines: Lines) -> str:
    """Return what is wrong with a row, or nothing."""
    if lines.is_open:
        return "a quote is never closed"
    if len(row) != width:
        extent = f" in {len(lines.row)} lines" if len(lines.row) > 1 else ""
        return f"wanted {width} cells, found {len(row)}{extent}"
    return "" if is_text("".join(row)) else "invalid UTF-8"


def read_header(path: Path, rows: Iterator[Row]) -> tuple[list[str], list[Row]]:
    """Return the columns' names, and the first row where it holds data."""
    line, cells, reason = next(rows)
    if reason:
        raise DataError(f"{path}: header in line {line}: {reason}; mend it, and save the table as UTF-8")
    names = [cell.strip() for cell in cells]
    counted = [str(index) for index in range(len(names) + 1)]
    if all(map(is_number, names)) and names not in (counted[:-1], counted[1:]):
        return counted[1:], [(line, cells, reason)]
    check_names(path, names)
    return names, []


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_jsonl(path: Path) -> Table:
    """Read an object a line; a column for each key in order of appearance."""
    encoding = find_encoding(path)
    valid = is_valid(path, encoding)
    columns: dict[str, list[Any]] = {}
    lines: list[int] = []
    damaged: list[tuple[int, str]] = []
    with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            row = parse_object(line, valid) if line.strip() else {}
            if isinstance(row, str):
                damaged.append((number, row))
            elif row:
                append_object(path, columns, row, len(lines))
                lines.append(number)
    if not lines and not damaged:
        raise DataError(f"{path}: empty; wanted a JSON object a line")
    check_names(path, list(columns))
    return Table(path, columns, lines, tuple(damaged))


def parse_object(line: str, valid: bool) -> dict[str, Any] | str:
    """Return the object in a line, or why there is none."""
    if not (valid or is_text(line)):
        return "invalid UTF-8"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"broken JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"broken JSON: {error}"
    if not isinstance(row, dict):
        return f"wanted a JSON object, found {type(row).__name__}"
    # JSON can spell lone surrogates, which no UTF-8 can.
    escaped = "\\ud" in line or "\\uD" in line
    return row if not escaped or is_text(json.dumps(row, ensure_ascii=False)) else "invalid Unicode"


def append_object(path: Path, columns: dict[str, list[Any]], row: Mapping[str, Any], count: int) -> None:
    """Add a row to columns of `count` cells, and a column for each key that is new."""
    for key in [key for key in row if key not in columns]:
        columns[key] = [None] * count
    if len(columns) > KEY_LIMIT:
        raise DataError(f"{path}: more than {KEY_LIMIT:,} different keys; wanted the same keys in each line")
    for key, column in columns.items():
        column.append(row.get(key))


def read_parquet(path: Path) -> Table:
    """Read the columns of scalars, and those of `{bytes, path}`."""
    check_pyarrow(f"reading {path}")
    import pyarrow
    from pyarrow import parquet

    # Opened here, since pyarrow takes a part of a path such as `year=2020` for one more column.
    try:
        with path.open("rb") as file, parquet.ParquetFile(file) as source:
            names = [field.name for field in source.schema_arrow if is_readable(field.type)]
            check_names(path, names)
            table = source.read(columns=names)
            columns = {name: table.column(name).to_pylist() for name in names}
            return Table(path, columns, range(1, table.num_rows + 1))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{path}: damaged, or no Parquet: {' '.join(str(error).split())}") from error


def is_readable(kind: Any) -> bool:
    """Whether a Parquet column holds scalars, or files' contents and paths."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return {field.name for field in kind} == {"bytes", "path"}
    return not pyarrow.types.is_nested(kind)
