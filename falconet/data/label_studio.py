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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from falconet.errors import DataError
from falconet.storage import open_regular
from falconet.tables import MAX_BYTES, Table, check_size

Task = dict[str, Any]

EXPANSION = 8
"""Bytes in memory for each of a file of JSON, about."""
LOCAL_FILES = "/data/local-files/"
"""Where Label Studio serves the files of its own machine: `?d=` names one below LOCAL_FILES_DOCUMENT_ROOT."""
UPLOADS = re.compile(r"/data/upload/(?:\d+/)?(?P<name>(?:[0-9a-f]{8}-)?(?P<bare>[^/]+))$")
"""Where Label Studio serves what was uploaded: a file's name behind eight digits of its own."""
EMBEDDED = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
OBJECT_TAGS: Mapping[str, str] = {"image": "Image", "text": "Text", "series": "TimeSeries", "audio": "Audio"}
"""The tag that shows a sample, by the key of a task's data that holds it."""
TIMES = ("time", "timestamp", "t", "date", "datetime", "index", "step")
"""What the column of times of a series may be called."""


@dataclass(frozen=True)
class Control:
    """The tag by which a person chooses, and the one that shows what the choice is about."""

    name: str = "label"
    target: str = "image"


# From tasks to tables


def read_tasks(path: Path, max_bytes: int = MAX_BYTES) -> list[Task]:
    """Return the objects of a file's list, as they stand there.

    Raises DataError for anything else, and for a file that would take more than `max_bytes` of memory.
    """
    with open_regular(path) as file:
        check_size(path, EXPANSION * os.fstat(file.fileno()).st_size, max_bytes)
        content = file.read()
    wanted = "wanted a list of tasks, as Label Studio exports them (JSON), or JSON lines in a file ending in .jsonl"
    try:
        tasks = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {wanted}, found no JSON ({error})") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path}: {wanted}, found {describe(tasks)}")
    if not tasks:
        raise DataError(f"{path}: {wanted}, found an empty list")
    return tasks


def describe(found: Any) -> str:
    if isinstance(found, dict):
        return f"an object with {', '.join(list(found)[:5])}" if found else "an empty object"
    return "a list of other things than objects" if isinstance(found, list) else f"{type(found).__name__}"


def is_task(row: Mapping[str, Any]) -> bool:
    """Whether an object is a task rather than a row of JSON_MIN, whose keys are those of the data themselves."""
    return isinstance(row.get("data"), dict)


def tabulate(path: Path, tasks: Sequence[Task]) -> tuple[Table, str | None]:
    """Return tasks as a table of their data and choices, and the column of labels where the choices are by one tag.

    Series within tasks become a row for each step. Of annotators who disagree the most frequent choice counts, or that
    of the last annotation which is marked as ground truth; a tie is no label.
    """
    controls = list(dict.fromkeys(name for task in tasks for name in list_controls(task)))
    rows = [flatten_task(path, task, controls) for task in tasks]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    series = next((key for key in keys if any(is_series(row.get(key)) for row in rows)), None)
    lines: Sequence[int] = range(1, len(rows) + 1)
    if series is not None:
        rows, lines = unroll(rows, series)
        keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: [row.get(key) for row in rows] for key in keys}
    return Table(path, columns, lines), controls[0] if len(controls) == 1 else None


def list_controls(task: Task) -> list[str]:
    """Return the names of the tags that chose a class for a task as a whole."""
    if not is_task(task):
        return []
    return [
        result["from_name"]
        for annotation in list_annotations(task)
        for result in annotation["result"]
        if is_choice(result)
    ]


def list_annotations(task: Task) -> list[dict[str, Any]]:
    """Return the annotations that count: those that were not cancelled, or of these the last that is ground truth."""
    usable = [
        annotation
        for annotation in list_objects(task.get("annotations"))
        if isinstance(annotation.get("result"), list) and not annotation.get("was_cancelled")
    ]
    return [annotation for annotation in usable if annotation.get("ground_truth")][-1:] or usable


def is_choice(result: Any) -> bool:
    """Whether a result is a choice about a task as a whole, and not about a region within."""
    if not isinstance(result, dict) or result.get("type") != "choices":
        return False
    value = result.get("value")
    return isinstance(result.get("from_name"), str) and isinstance(value, dict) and set(value) == {"choices"}


def find_label(task: Task, control: str) -> str | None:
    """Return the one class that was chosen by a tag; None where there is none, or annotators disagree evenly."""
    choices = [
        result["value"]["choices"]
        for annotation in list_annotations(task)
        for result in annotation["result"]
        if is_choice(result) and result["from_name"] == control
    ]
    ranking = Counter(str(chosen[0]) for chosen in choices if is_single(chosen)).most_common(2)
    if not ranking or (len(ranking) > 1 and ranking[0][1] == ranking[1][1]):
        return None
    return ranking[0][0]


def is_single(choices: Any) -> bool:
    return isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], str)


def flatten_task(path: Path, task: Task, controls: Sequence[str]) -> dict[str, Any]:
    """Return a task's data and labels as the cells of a row."""
    if not is_task(task):
        return {key: find_place(path, value) for key, value in task.items()}
    cells = {key: find_place(path, value) for key, value in task["data"].items()}
    return cells | {control: find_label(task, control) for control in controls}


def find_place(path: Path, value: Any) -> Any:
    """Return a cell, and of what Label Studio serves the path of the file as it most likely lies here."""
    if not isinstance(value, str) or not value.startswith("/data/"):
        return value
    if value.startswith(LOCAL_FILES):
        (name,) = parse_qs(urlsplit(value).query).get("d", [""])[:1] or [""]
        parts = name.split("/")
        # The root that Label Studio knows may lie above the folder of the tasks.
        places = ["/".join(parts[start:]) for start in range(len(parts))]
    elif match := UPLOADS.fullmatch(unquote(value)):
        # Where neither is, files of the bare names are looked for in any folder below.
        places = [match["bare"], match["name"], f"images/{match['name']}"]
    else:
        return value
    return next((place for place in places if place and os.path.isfile(path.parent / place)), places[0])  # noqa: PTH113


def is_series(value: Any) -> bool:
    """Whether a cell holds a series: numbers, or columns of numbers by name."""
    if isinstance(value, dict):
        lists = list(value.values())
        return bool(lists) and all(map(is_numbers, lists)) and len({len(numbers) for numbers in lists}) == 1
    return is_numbers(value)


def to_columns(value: Any) -> dict[str, list[Any]]:
    """Return the columns of a cell that holds a series; none for any other cell."""
    if not is_series(value):
        return {}
    return dict(value) if isinstance(value, dict) else {"value": value}


def is_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(entry is None or is_value(entry) for entry in value)


def is_value(entry: Any) -> bool:
    return isinstance(entry, int | float | str) and not isinstance(entry, bool)


def unroll(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[dict[str, Any]], list[int]]:
    """Return rows with series in a column as a row for each step, and the number of the task of each row."""
    unrolled, lines = [], []
    for number, row in enumerate(rows, start=1):
        rest = {name: cell for name, cell in row.items() if name != key}
        columns = to_columns(row.get(key))
        times = next((name for name in columns if name.lower() in TIMES), None)
        steps = len(next(iter(columns.values()))) if columns else 1
        for step in range(steps):
            cells = {name: cells[step] for name, cells in columns.items() if name != times}
            time = columns[times][step] if times else step
            unrolled.append({**rest, "series_id": f"task {number}", "time": time, **cells})
            lines.append(number)
    return unrolled, lines


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


def make_result(label: str, control: Control) -> dict[str, Any]:
    """Return the choice of a class as Label Studio writes it."""
    return {"from_name": control.name, "to_name": control.target, "type": "choices", "value": {"choices": [label]}}


def make_prediction(label: str, score: float, version: str, control: Control) -> dict[str, Any]:
    """Return what a model says of a task; `score` is its probability of the class."""
    return {"model_version": version, "score": score, "result": [make_result(label, control)]}


def make_annotation(label: str, control: Control) -> dict[str, Any]:
    """Return a label that a sample has already, as of now: Label Studio sorts annotations by their times."""
    made = datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    result = [make_result(label, control)]
    return {"result": result, "was_cancelled": False, "ground_truth": False, "created_at": made}


def name_file(path: Path) -> str:
    """Return the address at which Label Studio serves a file of a folder: below the folder's parent."""
    return f"{LOCAL_FILES}?d={quote(path.as_posix())}"


def find_control(tasks: Sequence[Task]) -> Control | None:
    """Return the one tag that classes were chosen by; None where there is none, or several."""
    found = {
        (result["from_name"], str(result.get("to_name", "")))
        for task in tasks
        for entry in [*list_objects(task.get("annotations")), *list_objects(task.get("predictions"))]
        for result in list_objects(entry.get("result"))
        if is_choice(result)
    }
    return Control(*found.pop()) if len(found) == 1 else None


def list_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; none of anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def format_labeling_config(key: str, control: Control, classes: Sequence[str], channels: Sequence[str] = ()) -> str:
    """Return the labeling interface of a project in Label Studio's XML.

    `key` is that of a task's data that holds the sample, `channels` are columns of a series.
    """
    from xml.sax.saxutils import quoteattr

    tag = OBJECT_TAGS[key]
    shown = f'  <{tag} name={quoteattr(control.target)} value="${key}"'
    if channels:
        lines = [f"    <Channel column={quoteattr(name)}/>" for name in channels]
        shown = "\n".join([f'{shown} valueType="json">', *lines, f"  </{tag}>"])
    else:
        shown += "/>"
    choices = [f"    <Choice value={quoteattr(name)}/>" for name in classes]
    head = f'  <Choices name={quoteattr(control.name)} toName={quoteattr(control.target)} choice="single">'
    return "\n".join(["<View>", shown, head, *choices, "  </Choices>", "</View>", ""])
