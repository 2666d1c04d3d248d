"""Tables of rows to files: CSV and JSON lines, and Parquet with the extra `tables`."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from falconet.errors import ConfigError, MissingExtraError
from falconet.storage import write_bytes, write_text

FORMATS = (".csv", ".jsonl", ".parquet")


def check_table_path(path: Path) -> None:
    """Raise ConfigError for an extension that is not known, MissingExtraError where Parquet cannot be written."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"wanted a table's file name ending in {', '.join(FORMATS)}, found {path}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("tables", f"writing {path}")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys; nested values are kept, in CSV as JSON text."""
    check_table_path(path)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), buffer)
        write_bytes(path, buffer.getvalue())
    elif path.suffix == ".jsonl":
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
