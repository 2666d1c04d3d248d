"""Conversion of samples to tasks of Label Studio, and to the page's display."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falconet.data import Samples, label_studio
from falconet.data.dataset import ImageFiles
from falconet.data.label_studio import Control, LabelStudioTask
from falconet.data.wav import WavFiles
from falconet.errors import DataError
from falconet.labeling.adapters import ADAPTERS, Views
from falconet.labeling.pool import Row, relative_name
from falconet.spec import ModalityName
from falconet.tables import is_encodable


@dataclass(frozen=True, eq=False)
class TaskMaker:
    """A converter of one source's samples to tasks."""

    root: Path
    """The source's folder, or the folder of its file."""
    kind: ModalityName
    control: Control
    split_key: str
    """The key of a task's data that holds its split."""

    def make(
        self, samples: Samples, index: int, label: str | None, split: str | None, row: Row | None
    ) -> LabelStudioTask:
        """Return the task of a sample: the original one, or one with the sample or its path."""
        if row is not None and row.task is not None:
            return self.keep(row.task, label, split)
        name = self.name(samples, index)
        sample = self.describe(samples, index)
        cells = {} if row is None else row.cells
        data = {"name": name, **cells, **sample, **({self.split_key: split} if split else {})}
        annotations = [] if label is None else [label_studio.make_annotation(label, self.control)]
        return {"data": data, "annotations": annotations, "predictions": []}

    def keep(self, task: LabelStudioTask, label: str | None, split: str | None) -> LabelStudioTask:
        """Return an original task with the label and the split of its sample, where they are missing.

        A label may be in its data alone: once one task has an annotation, all others need one too.
        """
        kept = dict(task)
        if label is not None and not label_studio.list_choices(task, self.control.name):
            annotations = label_studio.list_objects(task.get("annotations"))
            kept["annotations"] = [*annotations, label_studio.make_annotation(label, self.control)]
        if split is not None and not task["data"].get(self.split_key):
            kept["data"] = {**task["data"], self.split_key: split}
        return kept

    def name(self, samples: Samples, index: int) -> str:
        """Return a sample's name within the source."""
        return relative_name(samples.name(index), self.root)

    def describe(self, samples: Samples, index: int) -> dict[str, Any]:
        """Return a sample as the data of a task."""
        key = choose_key(samples, self.kind)
        if isinstance(samples, ImageFiles | WavFiles):
            place = Path(self.root.resolve().name) / samples.name(index).removeprefix(f"{self.root}/")
            return {key: label_studio.name_file(place)}
        return {key: ADAPTERS[self.kind].embed(samples, index)}


def choose_key(samples: Samples, kind: ModalityName) -> str:
    """Return the key of a task's data that holds a sample."""
    return "audio" if isinstance(samples, WavFiles) else kind


def show(sample: Any, kind: ModalityName) -> Views:
    """Return the page's display of a sample."""
    return ADAPTERS[kind].show(sample)


def format_task(task: Any) -> str:
    """Return a task as JSON in one line, which UTF-8 can hold. Raises DataError for what JSON cannot hold."""
    try:
        text = json.dumps(task, ensure_ascii=False, allow_nan=False)
        return text if is_encodable(text) else json.dumps(task)
    except ValueError as error:
        raise DataError(
            "wanted tasks of numbers that JSON can hold, found NaN or an infinite one (as 1e400 is, read in double "
            "precision); write null for what is missing"
        ) from error
    except RecursionError as error:
        raise DataError("wanted tasks whose lists and objects are nested less deeply; leave the deepest out") from error


def cut_task(task: Mapping[str, Any]) -> tuple[str, str]:
    """Return a task as JSON, cut where a further annotation is written: after the last one of its list.

    So the page adds one without parsing the rest, whose numbers a browser would round.
    """
    keys = list(task)
    place = keys.index("annotations") if "annotations" in keys else len(keys)
    annotations = task.get("annotations")
    listed = annotations if isinstance(annotations, list) else []
    before = [f"{format_task(key)}: {format_task(task[key])}" for key in keys[:place]]
    after = [f"{format_task(key)}: {format_task(task[key])}" for key in keys[place + 1 :]]
    head = "{" + "".join(f"{part}, " for part in before) + '"annotations": ['
    return head + ", ".join(map(format_task, listed)), "]" + "".join(f", {part}" for part in after) + "}"
