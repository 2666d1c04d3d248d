"""Samples as tasks of Label Studio, and as what a page shows of them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt

from falconet.data import Samples, label_studio
from falconet.data.dataset import Encoded, ImageFiles
from falconet.data.label_studio import Control, Task
from falconet.data.series import WavFiles
from falconet.errors import DataError, UsageError
from falconet.labeling.pool import Row, relative_name
from falconet.report.pictures import draw_path, encode_picture
from falconet.spec import Kind
from falconet.tables import is_text

SIDE = 384
"""Pixels of the longer side of a picture on the page."""
POINTS = 600
"""Steps of a series that the page draws, at most."""
WIDTH, HEIGHT = 600, 200
"""Of the drawing of a series, in its own units."""
MAX_TEXT = 20_000
"""Characters of a text on the page; the task holds all."""
MAX_LINES = 8
"""Channels of a series that the page draws."""


@dataclass(frozen=True)
class Views:
    """What the page shows of a sample: one of these."""

    picture: str | None = None
    """A PNG, as an address."""
    text: str | None = None
    paths: tuple[str, ...] = ()
    """Of a series: the commands of an SVG path for each channel."""
    note: str = ""


@dataclass(frozen=True, eq=False)
class TaskMaker:
    """Makes tasks of one source."""

    root: Path
    """The source's folder, or the folder that its file lies in."""
    kind: Kind
    control: Control
    split_key: str
    """The key of a task's data that holds its split."""

    def make(self, samples: Samples, index: int, label: str | None, split: str | None, row: Row | None) -> Task:
        """Return the task of a sample: the original one, or one that holds the sample or tells where it lies."""
        if row is not None and row.task is not None:
            return self.keep(row.task, label, split)
        name = self.name(samples, index)
        sample = self.describe(samples, index)
        cells = {} if row is None else row.cells
        data = {"name": name, **cells, **sample, **({self.split_key: split} if split else {})}
        annotations = [] if label is None else [label_studio.make_annotation(label, self.control)]
        return {"data": data, "annotations": annotations, "predictions": []}

    def keep(self, task: Task, label: str | None, split: str | None) -> Task:
        """Return an original task that, read again, has the label and the split which its sample has.

        A label may stand in its data: once one task has an annotation, all others need one too. A split may be missing.
        """
        kept = dict(task)
        if label is not None and not label_studio.list_choices(task, self.control.name):
            annotations = label_studio.list_objects(task.get("annotations"))
            kept["annotations"] = [*annotations, label_studio.make_annotation(label, self.control)]
        if split is not None and not task["data"].get(self.split_key):
            kept["data"] = {**task["data"], self.split_key: split}
        return kept

    def name(self, samples: Samples, index: int) -> str:
        """Return what a sample is called within the source."""
        return relative_name(samples.name(index), self.root)

    def describe(self, samples: Samples, index: int) -> dict[str, Any]:
        """Return a sample as the data of a task."""
        key = choose_key(samples, self.kind)
        if isinstance(samples, ImageFiles | WavFiles):
            place = Path(self.root.resolve().name) / samples.name(index).removeprefix(f"{self.root}/")
            return {key: label_studio.name_file(place)}
        if self.kind == "text":
            return {key: samples.read(index)}
        if self.kind == "series":
            return {key: list_columns(samples.read(index))}
        content = samples.content(index) if isinstance(samples, Encoded) else encode_pixels(samples.read(index))
        return {key: f"data:{find_type(content)};base64,{base64.b64encode(content).decode('ascii')}"}


def choose_key(samples: Samples, kind: Kind) -> str:
    """Return the key of a task's data that holds a sample."""
    return "audio" if isinstance(samples, WavFiles) else kind


def list_columns(series: Float32[np.ndarray, "channels steps"]) -> dict[str, list[float | None]]:
    """Return a series as Label Studio has it: a column of numbers for each channel, null for what is missing."""
    # The shortest decimal that stands for the same float32.
    return {
        name: [None if np.isnan(value) else float(str(value)) for value in channel]
        for name, channel in zip(name_channels(len(series)), series, strict=True)
    }


def name_channels(count: int) -> tuple[str, ...]:
    """Return what the columns of a series are called that have no names."""
    return tuple(f"channel_{number}" for number in range(1, count + 1))


def encode_pixels(image: UInt[np.ndarray, "height width channels"]) -> bytes:
    """Return an image as a PNG that holds the same values. Raises UsageError for colours of 16 bits."""
    from PIL import Image

    if image.dtype != np.uint8 and image.shape[2] > 1:
        raise UsageError(
            "wanted images of 8 bits, or gray ones, found colours of 16 bits in an array; save them as files"
        )
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, format="PNG")
    return buffer.getvalue()


def find_type(content: bytes) -> str:
    """Return the media type of an encoded image."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.get_format_mimetype() or "image/png"


def show(sample: Any, kind: Kind) -> Views:
    """Return what the page shows of a sample."""
    if kind == "image":
        height, width = sample.shape[:2]
        return Views(picture=encode_picture(sample, SIDE), note=f"{width} × {height} pixels")
    if kind == "text":
        more = f", the first {MAX_TEXT:,} shown" if len(sample) > MAX_TEXT else ""
        return Views(text=sample[:MAX_TEXT], note=f"{len(sample):,} characters{more}")
    channels, steps = sample.shape
    more = f", the first {MAX_LINES} shown" if channels > MAX_LINES else ""
    several = f"{channels} channels{more}, " if channels > 1 else ""
    return Views(paths=draw_series(sample[:MAX_LINES]), note=f"{several}{steps:,} steps")


def draw_series(series: Float32[np.ndarray, "channels steps"]) -> tuple[str, ...]:
    """Return the commands of an SVG path for each channel, all on one scale.

    Of many steps the lowest and the highest of each stretch are kept, so that recordings keep their shape.
    """
    finite = np.isfinite(series)
    low, high = (float(series[finite].min()), float(series[finite].max())) if finite.any() else (0.0, 1.0)
    steps = series.shape[1]
    x = np.linspace(2, WIDTH - 2, steps)
    y = HEIGHT - 4 - (HEIGHT - 8) * (series - low) / ((high - low) or 1.0)
    return tuple(draw_path(x[kept], channel[kept]) for channel in y for kept in [thin_out(channel)])


def thin_out(channel: Float32[np.ndarray, " steps"]) -> np.ndarray:
    """Return the positions of at most POINTS steps that keep the extremes of what lies between."""
    steps = len(channel)
    if steps <= POINTS:
        return np.arange(steps)
    kept = []
    for stretch in np.array_split(np.arange(steps), POINTS // 2):
        values = channel[stretch]
        if np.isfinite(values).any():
            kept += sorted({int(stretch[np.nanargmin(values)]), int(stretch[np.nanargmax(values)])})
        else:
            kept.append(int(stretch[0]))
    return np.array(kept)


def format_task(task: Any) -> str:
    """Return a task as JSON in one line, which UTF-8 can hold. Raises DataError for what JSON cannot hold."""
    try:
        text = json.dumps(task, ensure_ascii=False, allow_nan=False)
        return text if is_text(text) else json.dumps(task)
    except ValueError as error:
        raise DataError(
            "wanted tasks of numbers that JSON can hold, found NaN or an infinite one (as 1e400 is, read in double "
            "precision); write null for what is missing"
        ) from error
    except RecursionError as error:
        raise DataError("wanted tasks whose lists and objects are nested less deeply; leave the deepest out") from error


def cut_task(task: Mapping[str, Any]) -> tuple[str, str]:
    """Return a task as JSON, cut where a further annotation is written: after the last one of its list.

    So a page adds one without reading the rest, whose numbers a browser would round.
    """
    keys = list(task)
    place = keys.index("annotations") if "annotations" in keys else len(keys)
    annotations = task.get("annotations")
    listed = annotations if isinstance(annotations, list) else []
    before = [f"{format_task(key)}: {format_task(task[key])}" for key in keys[:place]]
    after = [f"{format_task(key)}: {format_task(task[key])}" for key in keys[place + 1 :]]
    head = "{" + "".join(f"{part}, " for part in before) + '"annotations": ['
    return head + ", ".join(map(format_task, listed)), "]" + "".join(f", {part}" for part in after) + "}"
