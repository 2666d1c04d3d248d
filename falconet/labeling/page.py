"""The page: one file with its script, whose policy forbids any network access."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from falconet.data.label_studio import Control, LabelStudioTask
from falconet.escaping import escape_lines
from falconet.labeling.adapters import Views
from falconet.labeling.tasks import cut_task
from falconet.report.html import render_page


@dataclass(frozen=True, eq=False)
class PageItem:
    """A sample on the page."""

    name: str
    task: LabelStudioTask
    view: Views
    label: str | None
    """The sample's label; None: it has none."""
    suggested: str | None
    """The most probable class, or for a likely label error the suspected true one; None: unknown."""
    probability: float | None


def render(title: str, items: Sequence[PageItem], rest: Sequence[str], classes: Sequence[str], control: Control) -> str:
    """Return the page for some samples; `rest` are tasks that it holds without showing them."""
    errors = sum(item.label is not None for item in items)
    data = {
        "title": escape_lines(title),
        "control": asdict(control),
        "classes": [{"value": name, "shown": escape_lines(name)} for name in classes],
        "items": [_describe(item) for item in items],
        "rest": list(rest),
        "digest": _digest(items, control),
    }
    script, style = (read(name) for name in ("script.js", "style.css"))
    style = resources.files("falconet.report").joinpath("page", "style.css").read_text(encoding="utf-8") + style
    return render_page(
        "falconet.labeling",
        title=title,
        errors=errors,
        following=len(items) - errors,
        # Whatever names hold, nothing in the list of samples can end it.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        script=script,
        style=style,
        policy=f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'",
    )


def _digest(items: Sequence[PageItem], control: Control) -> str:
    """Return the key by which a browser stores the labels of these samples, the same for each page about them."""
    parts = [asdict(control), *([item.name, item.label, item.task["data"], asdict(item.view)] for item in items)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _describe(item: PageItem) -> dict[str, Any]:
    """Return the data of a sample for the script."""
    head, tail = cut_task(item.task)
    view = asdict(item.view)
    view["text"] = None if item.view.text is None else escape_lines(item.view.text)
    return {
        "name": escape_lines(item.name),
        "head": head,
        "tail": tail,
        # Whether a comma stands before a further annotation.
        "annotated": not head.endswith("["),
        "view": view,
        "label": item.label,
        "suggested": item.suggested,
        "probability": item.probability,
    }


def read(name: str) -> str:
    """Return the text of a file of the page."""
    return resources.files("falconet.labeling").joinpath("page", name).read_text(encoding="utf-8")


def _hash_source(content: str) -> str:
    """Return the hash of a script or style for the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"
