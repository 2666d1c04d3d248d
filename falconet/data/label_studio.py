"""Label Studio's JSON: a list of tasks, of which each holds `data`, `annotations` and `predictions`. Imports no torch.

The format is that of https://labelstud.io/guide/task_format, its results those of the tag Choices: a class for a task
as a whole. What else Label Studio writes, such as boxes, reviews and drafts, is passed over when labels are read, and
kept where tasks are written again.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from falconet.errors import DataError
from falconet.storage import open_regular
from falconet.tables import MAX_BYTES, Table, check_size

LabelStudioTask = dict[str, Any]

_BYTES_OF = {b",": 80, b"{": 400, b"[": 80}
"""Measured bytes in memory for each value, object and list of JSON, including cells of a table, by its character."""
_LOCAL_FILES = "/data/local-files/"
"""Address of Label Studio's local files: `?d=` names one below LOCAL_FILES_DOCUMENT_ROOT."""
_UPLOADS = re.compile(r"/data/upload/(?:\d+/)?(?P<name>(?:[0-9a-f]{8}-)?(?P<bare>[^/]+))$")
"""Address of files uploaded to Label Studio: eight hexadecimal digits before the file's name."""
EMBEDDED = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_OBJECT_TAGS: Mapping[str, str] = {"image": "Image", "text": "Text", "series": "TimeSeries", "audio": "Audio"}
"""Tag that shows a sample, by the key of a task's data that holds it."""
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold."""
_TIMES = ("time", "timestamp", "t", "date", "datetime", "index", "step")
"""Possible names of the column of times of a series."""


@dataclass(frozen=True)
class Control:
    """The tag by which a person chooses, and the one that shows what the choice is about."""

    name: str = "label"
    target: str = "image"


# From tasks to tables


def read_tasks(path: Path, max_bytes: int = MAX_BYTES) -> list[LabelStudioTask]:
    """Return the objects of a file's list, as they stand there.

    Raises DataError for anything else, and for a file that would take more than `max_bytes` of memory.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_size(path, 3 * size, max_bytes)
        content = file.read()
    # By what it holds: an image in its address takes thrice its own length, of numbers each many times that.
    check_size(path, 3 * size + sum(cost * content.count(mark) for mark, cost in _BYTES_OF.items()), max_bytes)
    wanted = "wanted a list of tasks, as Label Studio exports them (JSON), or JSON lines in a file ending in .jsonl"
    try:
        tasks = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {wanted}, found no JSON ({error})") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path}: {wanted}, found {_describe(tasks)}")
    if not tasks:
        raise DataError(f"{path}: {wanted}, found an empty list")
    return tasks


def _describe(found: Any) -> str:
    if isinstance(found, dict):
        return f"an object with {', '.join(list(found)[:5])}" if found else "an empty object"
    return "a list of other things than objects" if isinstance(found, list) else f"{type(found).__name__}"


def is_task(row: Mapping[str, Any]) -> bool:
    """Whether an object is a task rather than a row of JSON_MIN, whose keys are those of the data themselves."""
    return isinstance(row.get("data"), dict)


def tabulate(
    path: Path, tasks: Sequence[LabelStudioTask], holds_samples: Callable[[Table], bool], max_bytes: int = MAX_BYTES
) -> tuple[Table, str | None]:
    """Return tasks as a table of their data and choices, and the column of labels where the choices are by one tag.

    Series within tasks become a row for each step, unless the other columns hold the samples already. Of annotators who
    disagree the most frequent choice counts, or that of the last annotation which is marked as ground truth; a tie is
    no label. `holds_samples` says whether columns do. Raises DataError where the steps would take more than `max_bytes`
    of memory.
    """
    controls = list(dict.fromkeys(name for task in tasks for name in list_controls(task)))
    label = controls[0] if len(controls) == 1 else None
    rows = [_flatten_task(path, task, controls) for task in tasks]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(path, {key: [row.get(key) for row in rows] for key in keys}, range(1, len(rows) + 1))
    found = {key: sum(map(_is_series, cells)) for key, cells in table.columns.items()}
    series = max(found, key=lambda key: found[key], default="")
    rest = replace(table, columns={key: cells for key, cells in table.columns.items() if key != series})
    if not found.get(series) or holds_samples(rest):
        return table, label
    return _unroll(table, series, max_bytes), None if label is None else _name_beside(label)


def list_controls(task: LabelStudioTask) -> list[str]:
    """Return the names of the tags that chose a class for a task as a whole."""
    if not is_task(task):
        return []
    return [
        result["from_name"]
        for annotation in _list_usable(task)
        for result in annotation["result"]
        if _is_choice(result)
    ]


def _list_usable(task: LabelStudioTask) -> list[dict[str, Any]]:
    """Return the annotations that were not cancelled."""
    return [
        annotation
        for annotation in list_objects(task.get("annotations"))
        if isinstance(annotation.get("result"), list) and not annotation.get("was_cancelled")
    ]


def list_choices(task: LabelStudioTask, control: str) -> list[list[Any]]:
    """Return the choices by one tag that count, by annotation: of those that are ground truth the last one's alone."""
    chosen = []
    for annotation in _list_usable(task):
        results = [result for result in annotation["result"] if _is_choice(result) and result["from_name"] == control]
        if results:
            truth = bool(annotation.get("ground_truth"))
            chosen.append((truth, [result["value"]["choices"] for result in results]))
    return [choices for truth, choices in chosen if truth][-1:] or [choices for _, choices in chosen]


def _is_choice(result: Any) -> bool:
    """Whether a result is a choice about a task as a whole, and not about a region within."""
    if not isinstance(result, dict) or result.get("type") != "choices":
        return False
    value = result.get("value")
    return isinstance(result.get("from_name"), str) and isinstance(value, dict) and set(value) == {"choices"}


def _find_label(task: LabelStudioTask, control: str) -> str | None:
    """Return the one class that was chosen by a tag; None where there is none, or annotators disagree evenly."""
    choices = [chosen for several in list_choices(task, control) for chosen in several]
    ranking = Counter(str(chosen[0]) for chosen in choices if _is_single(chosen)).most_common(2)
    if not ranking or (len(ranking) > 1 and ranking[0][1] == ranking[1][1]):
        return None
    return ranking[0][0]


def _is_single(choices: Any) -> bool:
    return isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], str)


def _flatten_task(path: Path, task: LabelStudioTask, controls: Sequence[str]) -> dict[str, Any]:
    """Return a task's data and labels as the cells of a row."""
    if not is_task(task):
        return {key: find_place(path, value) for key, value in task.items()}
    cells = {key: find_place(path, value) for key, value in task["data"].items()}
    return cells | {control: _find_label(task, control) for control in controls}


def find_place(path: Path, value: Any) -> Any:
    """Return a cell, and of what Label Studio serves the path of the file as it most likely lies here."""
    if not isinstance(value, str) or not value.startswith("/data/"):
        return value
    if value.startswith(_LOCAL_FILES):
        (name,) = parse_qs(urlsplit(value).query, errors="surrogateescape").get("d", [""])[:1] or [""]
        parts = name.split("/")
        # The root that Label Studio knows may lie above the folder of the tasks.
        places = ["/".join(parts[start:]) for start in range(len(parts))]
    elif match := _UPLOADS.fullmatch(unquote(value)):
        # Where neither is, files of the bare names are looked for in any folder below.
        places = [match["bare"], match["name"], f"images/{match['name']}"]
    else:
        return value
    return next((place for place in places if place and os.path.isfile(path.parent / place)), places[0])  # noqa: PTH113


def _is_series(value: Any) -> bool:
    """Whether a cell holds a series: numbers, or columns of numbers by name, of which one may be of times."""
    if not isinstance(value, dict):
        return _is_numbers(value)
    times = _find_times(value)
    columns = [cells for name, cells in value.items() if name != times]
    # Times may be words: those of a day.
    lists = columns + ([value[times]] if times and isinstance(value[times], list) else [])
    return bool(columns) and all(map(_is_numbers, columns)) and len(set(map(len, lists))) == 1


def _find_times(columns: Mapping[str, Any]) -> str | None:
    """Return the column of times of a series; None where there is none."""
    return next((name for name in columns if name.lower() in _TIMES), None)


def _to_columns(value: Any) -> dict[str, list[Any]]:
    """Return the columns of a cell that holds a series; none for any other cell."""
    if not _is_series(value):
        return {}
    return dict(value) if isinstance(value, dict) else {"value": value}


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(entry is None or _is_number(entry) for entry in value)


def _is_number(entry: Any) -> bool:
    return isinstance(entry, int | float) and not isinstance(entry, bool)


_SERIES, TIME = "series_id", "time"
"""Names of the columns that hold the series of a row, and its time within the series."""


def _unroll(table: Table, key: str, max_bytes: int) -> Table:
    """Return a table with series in a column as one with a row for each step, whose line is the number of the task.

    What else is called as the columns of series and times are, and channels that are called as another column is, get
    names of their own.
    """
    series = [_to_columns(cell) for cell in table.columns[key]]
    counts = [len(next(iter(columns.values()))) if columns else 1 for columns in series]
    check_size(table.path, 8 * sum(counts) * len(table.columns), max_bytes)
    unrolled: dict[str, list[Any]] = {
        _name_beside(name): repeat(cells, counts) for name, cells in table.columns.items() if name != key
    }
    unrolled[_SERIES] = repeat([f"task {line}" for line in table.lines], counts)
    unrolled[TIME] = []
    for columns, count in zip(series, counts, strict=True):
        times = _find_times(columns)
        unrolled[TIME] += columns[times] if times else range(count)
    for channel in dict.fromkeys(name for columns in series for name in columns if name != _find_times(columns)):
        name = channel
        while name in unrolled:
            name = f"{key}.{name}"
        unrolled[name] = []
        for columns, count in zip(series, counts, strict=True):
            known = channel in columns and channel != _find_times(columns)
            unrolled[name] += columns[channel] if known else [None] * count
    return Table(table.path, unrolled, repeat(table.lines, counts))


def _name_beside(name: str) -> str:
    """Return what a column of a task's data or choices is called beside the steps of its series."""
    return f"data.{name}" if name in {_SERIES, TIME} else name


def repeat(cells: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """Return each cell as often as is said."""
    return [cell for cell, count in zip(cells, counts, strict=True) for _ in range(count)]


def decode_embedded(cell: Any) -> bytes | None:
    """Return the bytes of an image that stands in its address; None for any other cell. Raises DataError for damage."""
    match = EMBEDDED.match(cell) if isinstance(cell, str) else None
    if match is None:
        return None
    try:
        return base64.b64decode(cell[match.end() :], validate=True)
    except binascii.Error as error:
        raise DataError(f"damaged base64 ({error})") from error


# From samples to tasks


def _make_result(label: str, control: Control) -> dict[str, Any]:
    """Return the choice of a class as Label Studio writes it."""
    return {"from_name": control.name, "to_name": control.target, "type": "choices", "value": {"choices": [label]}}


def make_prediction(label: str, score: float, version: str, control: Control) -> dict[str, Any]:
    """Return what a model says of a task; `score` is its probability of the class."""
    return {"model_version": version, "score": score, "result": [_make_result(label, control)]}


def make_annotation(label: str, control: Control) -> dict[str, Any]:
    """Return a label that a sample has already, as of now: Label Studio sorts annotations by their times."""
    made = datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    result = [_make_result(label, control)]
    return {"result": result, "was_cancelled": False, "ground_truth": False, "created_at": made}


def name_file(path: Path) -> str:
    """Return the address at which Label Studio serves a file of a folder: below the folder's parent."""
    # As the file system has it: a name need not be UTF-8.
    return f"{_LOCAL_FILES}?d={quote(os.fsencode(path.as_posix()))}"


def find_control(tasks: Sequence[LabelStudioTask], name: str | None = None) -> Control | None:
    """Return the tag that classes are chosen by: the named one, or the only one; None where there is none.

    Predictions tell where annotations do not. Raises DataError for several tags where none is named, and for one that
    is about several things.
    """
    for part in ("annotations", "predictions"):
        found: dict[str, set[str]] = {}
        for task in tasks:
            for entry in list_objects(task.get(part)):
                for result in filter(_is_choice, list_objects(entry.get("result"))):
                    found.setdefault(result["from_name"], set()).add(str(result.get("to_name", "")))
        if name is None and len(found) > 1:
            raise DataError(
                f"wanted one tag Choices, found several in the {part}: {', '.join(found)}; name one: "
                "set data.columns.label=NAME"
            )
        control = next(iter(found), None) if name is None else name
        if control is not None and control in found:
            targets = found[control]
            if len(targets) > 1:
                raise DataError(
                    f"wanted a tag Choices about one thing, found {control} about {', '.join(sorted(targets))} "
                    "(to_name); give these tags names of their own"
                )
            return Control(control, targets.pop())
    return None


def list_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; none of anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def format_labeling_config(key: str, control: Control, classes: Sequence[str], channels: Sequence[str] = ()) -> str:
    """Return the labeling interface of a project in Label Studio's XML.

    `key` is that of a task's data that holds the sample, `channels` are columns of a series. U+FFFD stands for what XML
    cannot hold, such as control characters.
    """
    from xml.sax.saxutils import quoteattr

    def quote_text(text: str) -> str:
        return quoteattr(_NOT_XML.sub("\ufffd", text))

    tag = _OBJECT_TAGS[key]
    shown = f'  <{tag} name={quote_text(control.target)} value="${key}"'
    if channels:
        lines = [f"    <Channel column={quote_text(name)}/>" for name in channels]
        shown = "\n".join([f'{shown} valueType="json">', *lines, f"  </{tag}>"])
    else:
        shown += "/>"
    choices = [f"    <Choice value={quote_text(name)}/>" for name in classes]
    head = f'  <Choices name={quote_text(control.name)} toName={quote_text(control.target)} choice="single">'
    return "\n".join(["<View>", shown, head, *choices, "  </Choices>", "</View>", ""])
