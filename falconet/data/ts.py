"""The format `.ts` of the UCR and UEA archives, as aeon and sktime write it. Importing this does not import torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32

from falconet.data.dataset import Dataset, Split, Unreadable, sort_classes
from falconet.data.series import NO_VALUES, series_dataset, split_series
from falconet.data.series_tables import describe_cell, to_numbers
from falconet.errors import DataError
from falconet.storage import read_regular

_TS_PARTS = MappingProxyType({"_TRAIN": "_TEST", "_train": "_test"})
"""Name ending of a training file, to that of its test file."""
_PADDING_LIMIT = 16
"""Largest growth of a case, as a factor, when its shorter dimensions are padded to the longest."""
_PADDING_FREE = 4096
"""Values up to which a case may be padded whatever the factor."""


@dataclass(frozen=True)
class _TsHeader:
    """Facts that the header of a `.ts` file declares."""

    classes: frozenset[str]
    dimensions: int | None
    """Number of dimensions of a case; None: not declared."""
    lines: int
    """Number of lines up to and including `@data`."""
    labeled: bool = True
    """Whether a label ends each line of data."""


@dataclass(frozen=True, eq=False)
class TsCase:
    """A line of data."""

    name: str
    label: str
    series: Float32[np.ndarray, "dimensions steps"]


def find_ts_problems(folder: Path) -> list[Path]:
    """Return a file for each problem among the `.ts` files of a folder: the training file, or the only one."""
    files = {
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".ts" and path.is_file() and not path.name.startswith(".")
    }
    tests = {twin for path in files if (twin := _find_ts_test(path)) is not None}
    return sorted(files - tests)


def _find_ts_test(path: Path) -> Path | None:
    """Return where the test file of a training file should be; None for any other file."""
    for train, test in _TS_PARTS.items():
        if path.stem.endswith(train):
            return path.with_name(f"{path.stem.removesuffix(train)}{test}{path.suffix}")
    return None


def read_ts(path: Path) -> Dataset:
    """Read a problem of the UCR and UEA archives: `NAME_TRAIN.ts` with `NAME_TEST.ts`, or one file of another name.

    The format is that of aeon and sktime. Lengths and missing values are taken from the data, whatever the header says
    of them; where the dimensions of a case differ in length, the shorter ones are followed by NaN. A case that cannot
    be read is skipped and listed. Raises DataError for time stamps, regression problems, and a file without its header
    or without a readable case.
    """
    read = {split: read_ts_file(file) for split, file in _find_ts_splits(path).items()}
    classes = sort_classes({case.label for cases, _ in read.values() for case in cases})
    splits = {split: _split_cases(cases, classes) for split, (cases, _) in read.items()}
    return series_dataset(str(path), splits, classes, [item for _, skipped in read.values() for item in skipped])


def _split_cases(cases: Sequence[TsCase], classes: tuple[str, ...]) -> Split:
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[case.label] for case in cases], dtype=np.int64)
    return split_series([case.series for case in cases], np.array([case.name for case in cases]), labels)


def _find_ts_splits(path: Path) -> dict[str, Path]:
    """Return split -> file, whichever file of a pair is given."""
    for train, test in _TS_PARTS.items():
        if path.stem.endswith(test):
            first = path.with_name(f"{path.stem.removesuffix(test)}{train}{path.suffix}")
            return {"train": first, "test": path} if first.is_file() else {"test": path}
    twin = _find_ts_test(path)
    return {"train": path, "test": twin} if twin is not None and twin.is_file() else {"train": path}


def read_ts_file(path: Path, *, unlabeled: bool = False) -> tuple[list[TsCase], list[Unreadable]]:
    """Return the cases of one file, and the lines that are none.

    Where they may be `unlabeled`, a label that a line has all the same is passed over, whatever it is.
    """
    try:
        # Descriptions are often in other encodings; they do not matter here.
        text = read_regular(path).decode("utf-8-sig", "backslashreplace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header = _parse_ts_header(path, lines, unlabeled)
    rows = [(number, line) for number, line in enumerate(lines, 1) if number > header.lines and _holds_content(line)]
    counts = Counter(line.count(":") for _, line in rows)
    # Without a label there is one dimension more than separators.
    dimensions = header.dimensions or next((count + (not header.labeled) for count, _ in counts.most_common(1)), 0)
    classes = None if unlabeled else header.classes
    cases, skipped = [], []
    for number, line in rows:
        name = f"{path.name}:{number}"
        try:
            cases.append(TsCase(name, *_parse_ts_case(line if header.labeled else f"{line}:", dimensions, classes)))
        except DataError as error:
            skipped.append(Unreadable(name, str(error)))
    if not cases:
        first = f"; the first: {skipped[0].file} ({skipped[0].reason})" if skipped else ""
        raise DataError(f"{path}: no series that can be read, of {len(skipped)}{first}")
    return cases, skipped


def _holds_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parse_ts_header(path: Path, lines: Sequence[str], unlabeled: bool = False) -> _TsHeader:
    """Read the lines up to `@data`. Raises DataError where they do not announce values at equal steps.

    And labels, unless they may be `unlabeled`.
    """
    fields: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not _holds_content(line):
            continue
        key, *values = line.split()
        if not key.startswith("@"):
            raise DataError(
                f"{path}:{number}: wanted a line of a .ts header such as @data, found {line.strip()[:40]!r}"
            )
        if key.lower() == "@data":
            labeled = not unlabeled or any(_is_true(fields.get(key, ())) for key in ("@classlabel", "@targetlabel"))
            classes = frozenset() if unlabeled else _declared_classes(path, fields)
            return _TsHeader(classes, _declared_dimensions(path, fields), number, labeled)
        fields[key.lower()] = values
    raise DataError(f"{path}: wanted a line @data, found none: truncated, or no .ts file")


def _declared_classes(path: Path, fields: Mapping[str, Sequence[str]]) -> frozenset[str]:
    values = fields.get("@classlabel", ())
    if not _is_true(values) or len(values) < 2:
        found = " ".join(["@classLabel", *values]) if "@classlabel" in fields else "none"
        raise DataError(f"{path}: wanted a header line such as '@classLabel true a b', found {found}; add the classes")
    return frozenset(values[1:])


def _declared_dimensions(path: Path, fields: Mapping[str, Sequence[str]]) -> int | None:
    if _is_true(fields.get("@timestamps", ())):
        raise DataError(
            f"{path}: wanted plain values, found @timeStamps true; save the series at equal steps, without time stamps"
        )
    # Both are written.
    written = fields.get("@dimensions", fields.get("@dimension"))
    if written is None:
        return 1 if _is_true(fields.get("@univariate", ())) else None
    if len(written) != 1 or not written[0].isdecimal() or int(written[0]) < 1:
        raise DataError(f"{path}: wanted a number after @dimensions, found {' '.join(written)!r}")
    return int(written[0])


def _is_true(values: Sequence[str]) -> bool:
    return len(values) > 0 and values[0].lower() == "true"


def _parse_ts_case(
    line: str, dimensions: int, classes: frozenset[str] | None
) -> tuple[str, Float32[np.ndarray, "dimensions steps"]]:
    """Return label and series of a line. Raises DataError, without the place, for one that cannot be read.

    `classes` are what the label may be; None: anything.
    """
    *parts, label = (part.strip() for part in line.split(":"))
    if len(parts) != dimensions:
        raise DataError(f"wanted {dimensions} dimensions and a class, all separated by ':', found {len(parts)} ':'")
    if classes is not None and label not in classes:
        raise DataError(f"class {label[:40]!r} is not among those of @classLabel")
    rows = [_parse_ts_values(part) for part in parts]
    longest = max(len(row) for row in rows)
    values = sum(len(row) for row in rows)
    if longest * dimensions > max(_PADDING_LIMIT * values, _PADDING_FREE):
        raise DataError(
            f"wanted dimensions of about one length, found {values:,} values in {dimensions:,} dimensions, of which "
            f"the longest has {longest:,}"
        )
    series = np.full((dimensions, longest), np.nan, dtype=np.float32)
    for padded, row in zip(series, rows, strict=True):
        padded[: len(row)] = row
    if np.isnan(series).all():
        raise DataError(NO_VALUES)
    return label, series


def _parse_ts_values(text: str) -> Float32[np.ndarray, " steps"]:
    cells = text.split(",")
    values = to_numbers(cells)
    bad = np.isinf(values)
    if bad.any():
        raise DataError(describe_cell(cells[int(bad.argmax())]))
    return values
