"""How the reference reads docstrings: what stands after the list of parameters is text, not one more parameter."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe


class Order(griffe.Extension):  # type: ignore[misc]
    """Moves paragraphs that follow the parameters before them, where they are read as text."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = order(inspect.cleandoc(obj.docstring.value))


def order(text: str) -> str:
    """Return a docstring with its list of parameters at the end."""
    found = re.search(r"^Parameters\n-+\n", text, re.MULTILINE)
    if found is None:
        return text
    head, rule, body = text[: found.start()], found[0], text[found.end() :]
    lines = body.splitlines()
    for index, line in enumerate(lines):
        after = lines[index + 1] if index + 1 < len(lines) else ""
        # A parameter's name is followed by its indented description.
        if index and not lines[index - 1] and line and line[0] != " " and not after.startswith(" "):
            paragraphs, parameters = lines[index:], lines[:index]
            return "\n".join([head.rstrip(), "", *paragraphs, "", rule.rstrip(), *parameters])
    return text
