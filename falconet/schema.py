"""Frozen dataclasses from plain mappings (YAML, JSON) and back, with errors that name the key and what it may be."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

from falconet.errors import ConfigError, UnknownNameError

T = TypeVar("T")

SPARSE = "sparse"
"""Marks, in a field's metadata, what is written only where it is not None: files of before stay as they are."""


def from_mapping(kind: type[T], values: Any, path: str = "") -> T:
    """Build the dataclass `kind` from a mapping, nested dataclasses included.

    Numbers written as text are read ("1e-3", which YAML takes for a string); nothing else is converted. Raises
    ConfigError or UnknownNameError (with the nearest key) with the full path of the key, such as
    `training.epochs`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or kind.__name__}: wanted a mapping of settings, found {values!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UnknownNameError("setting", join(path, str(key)), {join(path, name) for name in fields})
    arguments = {key: read_value(hints[key], value, join(path, key)) for key, value in values.items()}
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{path or kind.__name__}: {error}") from error
    except ConfigError as error:
        raise ConfigError(join(path, str(error))) from error


def to_mapping(value: Any) -> Any:
    """Return a dataclass as nested dicts, lists and scalars that JSON and YAML can hold."""
    if dataclasses.is_dataclass(value):
        entries = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        sparse = {field.name for field in dataclasses.fields(value) if SPARSE in field.metadata}
        return {key: to_mapping(entry) for key, entry in entries.items() if entry is not None or key not in sparse}
    if isinstance(value, Mapping):
        return {str(key): to_mapping(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(item) for item in value]
    return value


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with keys such as `training.epochs`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`, nested mappings merged key by key.

    One that names a policy begins anew: nothing of `base` is left beneath it.
    """
    if "policy" in over:
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = merge(base[key], value) if both else value
    return merged


def read_value(hint: Any, value: Any, path: str) -> Any:
    """Return `value` as the annotated type `hint`; raise ConfigError where it is not one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, path)
    if origin in (typing.Union, types.UnionType):
        return read_union(arguments, value, path)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{path}: wanted {' or '.join(map(str, arguments))}, found {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        return read_tuple(arguments, value, path)
    if hint is Any or (origin is Mapping and isinstance(value, Mapping)):
        return value
    return read_scalar(hint, value, path)


def read_union(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    present = [choice for choice in choices if choice is not type(None)]
    tags = tuple(tag for choice in present for tag in list_tags(choice))
    if tags and isinstance(value, Mapping) and "kind" in value:
        # The tag chooses, so that an error speaks of the one that is meant.
        kind = read_value(Literal[tags], value["kind"], join(path, "kind"))
        present = [choice for choice in present if kind in list_tags(choice)]
    for choice in present[:-1]:
        try:
            return read_value(choice, value, path)
        except ConfigError:
            continue
    return read_value(present[-1], value, path)


def list_tags(choice: Any) -> tuple[Any, ...]:
    """Return what the literal field `kind` of a dataclass may be, which tells it from others; nothing without one."""
    return typing.get_args(typing.get_type_hints(choice).get("kind")) if dataclasses.is_dataclass(choice) else ()


def read_tuple(items: tuple[Any, ...], value: list[Any] | tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise ConfigError(f"{path}: wanted {len(items)} values, found {len(value)}")
    return tuple(read_value(item, entry, path) for item, entry in zip(items, value, strict=True))


def read_scalar(hint: Any, value: Any, path: str) -> Any:
    try:
        # NumPy's numbers and strings become Python's own, which can be written to a file.
        if hint is float and type(value) is not bool and isinstance(value, Real | str):
            return float(value)
        if hint is int and type(value) is not bool and isinstance(value, Integral | str):
            return int(value)
        if hint is str and isinstance(value, str):
            return str(value)
    except (ValueError, OverflowError):
        pass
    if isinstance(value, typing.get_origin(hint) or hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{path}: wanted {getattr(hint, '__name__', hint)}, found {value!r}")


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
