"""Old names of the first edition, which are accepted until 1.0, each with one line on standard error."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

_RENAMED: Mapping[str, str] = {
    "training.keep": "training.restore",
    "training.teacher_share": "training.distill_alpha",
    "training.temperature": "training.distill_temperature",
    "training.loss=mse": "training.loss=brier",
    "model.fit": "model.length_mode",
}
"""New names of settings, and of values of settings, by old name."""

RENAMED_NAMES: Mapping[str, str] = {"Doctor": "LayerMonitor", "Preprocess": "ImagePreprocess", "Vitals": "LayerStats"}
"""New public names of `falconet` by old name."""

DEFAULT_BETAS = (0.9, 0.999)
"""Default betas of Adam and AdamW. The first edition named the first one `momentum`, as SGD's, and had only that."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_NOTED: set[str] = set()
"""Lines that were written already."""


def note(line: str) -> None:
    """Write a line to standard error, once per process."""
    if line in _NOTED:
        return
    _NOTED.add(line)
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"note: {line}\n")


def ignore(line: str) -> None:
    """Do nothing, since old names in files of Falconet itself need no change."""


def rename_settings(settings: Mapping[str, Any], notify: Callable[[str], None] = note) -> dict[str, Any]:
    """Return nested settings with their current names; a new name takes precedence over an old one."""
    return {
        section: rename_section(section, values, notify) if isinstance(values, Mapping) else values
        for section, values in settings.items()
    }


def rename_section(section: str, values: Mapping[str, Any], notify: Callable[[str], None] = note) -> dict[str, Any]:
    """Return the settings of one section with their current names."""
    renamed = dict(values)
    for old, new in _RENAMED.items():
        key, _, value = old.removeprefix(f"{section}.").partition("=")
        if not old.startswith(f"{section}.") or key not in values or (value and values[key] != value):
            continue
        notify(f"{old} is now {new}")
        name, _, replacement = new.removeprefix(f"{section}.").partition("=")
        found = replacement or renamed.pop(key)
        renamed[name] = found if name == key else renamed.get(name, found)
    return renamed


def split_momentum(training: Mapping[str, Any], notify: Callable[[str], None] = note) -> dict[str, Any]:
    """Return training settings in which a momentum of Adam or AdamW is also the first of `betas`.

    It needs all settings: a layer of them alone does not show the optimizer, nor whether another layer has betas.
    """
    momentum = training.get("momentum")
    if momentum is None or "betas" in training or training.get("optimizer") == "sgd":
        return dict(training)
    if momentum != DEFAULT_BETAS[0]:
        notify(f"training.momentum is that of SGD; of Adam and AdamW it is now training.betas=[{momentum}, 0.999]")
    return {**training, "betas": (momentum, DEFAULT_BETAS[1])}


def accept_renamed(
    **renamed: Callable[[Any], Mapping[str, Any]],
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator by which a function accepts old keyword arguments: each is converted to new ones."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old](kwargs.pop(old))
                said = ", ".join(map(_describe, new.items()))
                note(f"{function.__name__}({old}=...) is now {function.__name__}({said})")
                kwargs.update({name: value for name, value in new.items() if name not in kwargs})
            return function(*args, **kwargs)

        return call

    return decorate


def accept_renamed_fields(section: str) -> Callable[[type[Result]], type[Result]]:
    """Return a decorator by which the dataclass of a section of settings accepts their old names."""

    def decorate(kind: type[Result]) -> type[Result]:
        init: Any = kind.__init__

        @functools.wraps(init)
        def call(self: Result, *args: Any, **kwargs: Any) -> None:
            renamed = rename_section(section, kwargs)
            init(self, *args, **(split_momentum(renamed) if section == "training" else renamed))

        kind.__init__ = call  # type: ignore[method-assign, assignment]
        return kind

    return decorate


def _describe(argument: tuple[str, Any]) -> str:
    """Return an argument as it is written in a call."""
    name, value = argument
    return f"{name}={value!r}"
