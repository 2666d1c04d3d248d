"""Frozen dataclasses from plain mappings (YAML, JSON) and back, with errors that name the key and what it may be."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

import yaml

from falconet.errors import ConfigError, UnknownNameError, UsageError, abridge

_T = TypeVar("_T")

TEXT_LIMIT = 1_000_000
"""Most characters of a YAML text."""
_NODE_LIMIT = 10_000
"""Most keys and values of a YAML text, aliases expanded: a few lines can stand for more than memory holds."""
_DEPTH_LIMIT = 40
_DIGIT_LIMIT = 400
"""Most characters of a number in a YAML text."""

_TEXT_TAG, _NULL_TAG, _MERGE_TAG = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "merge"))
_NUMBER_TAGS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


class _SettingsLoader(yaml.SafeLoader):
    """YAML of plain values, within limits and with texts alone as keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.count = 0
        self.depth = 0
        self.sizes: dict[yaml.Node, int] = {}
        """Number of keys and values of each complete node, which aliases may refer to."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark, before = self.peek_event().start_mark, self.count  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        self.count, self.depth = self.count + 1, self.depth + 1
        if self.depth > _DEPTH_LIMIT:
            raise yaml.composer.ComposerError(None, None, f"more than {_DEPTH_LIMIT} levels", mark)
        node = super().compose_node(parent, index)
        if is_alias and node not in self.sizes:
            raise yaml.composer.ComposerError(None, None, "a value that contains itself", mark)
        self.count += self.sizes[node] if is_alias and node else 0
        if self.count > _NODE_LIMIT:
            raise yaml.composer.ComposerError(None, None, f"more than {_NODE_LIMIT:,} values", mark)
        if node is not None:
            _check_node(node)
            self.sizes.setdefault(node, self.count - before)
        self.depth -= 1
        return node


def _check_node(node: yaml.Node) -> None:
    """Raise YAMLError for a number too long to be one, and for a key that is no text."""
    if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBER_TAGS and len(node.value) > _DIGIT_LIMIT:
        raise yaml.composer.ComposerError(None, None, f"a number of more than {_DIGIT_LIMIT} digits", node.start_mark)
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.tag not in {_TEXT_TAG, _MERGE_TAG}:
            found = abridge(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
            raise yaml.composer.ComposerError(None, None, f"wanted a name as key, found {found}", key.start_mark)


def parse_yaml(text: str, key: str = "") -> Any:
    """Return the plain values that a YAML text holds; of `key`, such as `data.columns.label`, nested within its parts.

    Columns of tables keep the names that are written, `9` or `yes`, which otherwise are a number and a boolean. Raises
    ConfigError, in one line, for what is no YAML, and for what would be too large, too deep or has keys that are no
    texts.
    """
    try:
        if len(text) > TEXT_LIMIT:
            raise yaml.YAMLError(f"more than {TEXT_LIMIT:,} characters")
        loader = _SettingsLoader(text)
        node = loader.get_single_node() or yaml.ScalarNode(_NULL_TAG, "")
        for part in reversed(key.split(".") if key else ()):
            node = yaml.MappingNode("tag:yaml.org,2002:map", [(yaml.ScalarNode(_TEXT_TAG, part), node)])
        _keep_names(node)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # Besides its own errors, the package lets through those of dates and numbers that are none.
        raise ConfigError(f"not YAML: {_describe_yaml_error(error)}") from error


def _describe_yaml_error(error: Exception) -> str:
    """Return what is wrong and where, in one line."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    what = " ".join(str(problem or error).split())
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{what if len(what) <= 200 else what[:200] + '...'}{where}"


def _keep_names(root: yaml.Node) -> None:
    """Make texts of the names of columns in `data.columns` and `data.extra`."""
    for data in _find_values(root, "data"):
        names = [value for columns in _find_values(data, "columns") for value in _list_items(columns)]
        names += [value for extra in _find_values(data, "extra") for value in _list_items(extra)]
        for node in names:
            if isinstance(node, yaml.ScalarNode) and node.tag != _NULL_TAG:
                node.tag = _TEXT_TAG


def _find_values(node: yaml.Node, key: str) -> list[yaml.Node]:
    """Return the values of a key in a mapping."""
    items = node.value if isinstance(node, yaml.MappingNode) else ()
    return [value for name, value in items if name.value == key]


def _list_items(node: yaml.Node) -> list[yaml.Node]:
    """Return the values in a mapping or a sequence."""
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


SPARSE = "sparse"
"""Key in a field's metadata: it is written only where it is not the default, so that older files stay as they are."""
KEY = "key"
"""Key in a field's metadata for the field's name in files, where that differs from its name."""


def from_mapping(kind: type[_T], values: Any, path: str = "") -> _T:
    """Build the dataclass `kind` from a mapping, nested dataclasses included.

    Numbers written as text are read ("1e-3", which YAML takes for a string); nothing else is converted. Raises
    ConfigError or UnknownNameError (with the nearest key) with the full path of the key, such as
    `training.epochs`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or kind.__name__}: wanted a mapping of settings, found {abridge(values)}")
    hints = typing.get_type_hints(kind)
    fields = {_name_key(field): field.name for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UnknownNameError("setting", join(path, str(key)), {join(path, name) for name in fields})
    arguments = {fields[key]: read_value(hints[fields[key]], item, join(path, key)) for key, item in values.items()}
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{path or kind.__name__}: {error}") from error
    except ConfigError as error:
        raise ConfigError(join(path, str(error))) from error


def take_config(kind: type[_T], given: object, argument: str) -> _T:
    """Return a configuration that a function was given: one of `kind`, or a mapping of what differs from its defaults.

    None gives the defaults. Raises UsageError, which names the argument, for anything else, and what `from_mapping`
    raises.
    """
    if isinstance(given, kind):
        return given
    if given is not None and not isinstance(given, Mapping):
        wanted = f"a {kind.__name__} or a mapping of its fields"
        raise UsageError(f"{argument}: wanted {wanted}, found {type(given).__name__}")
    return from_mapping(kind, given or {}, argument)


def _name_key(field: dataclasses.Field[Any]) -> str:
    """Return the key of a field in files."""
    key: str = field.metadata.get(KEY, field.name)
    return key


def to_mapping(value: Any) -> Any:
    """Return a dataclass as nested dicts, lists and scalars that JSON and YAML can hold."""
    if dataclasses.is_dataclass(value):
        entries = {_name_key(field): getattr(value, field.name) for field in dataclasses.fields(value)}
        sparse = {_name_key(field): field.default for field in dataclasses.fields(value) if SPARSE in field.metadata}
        return {key: to_mapping(entry) for key, entry in entries.items() if key not in sparse or entry != sparse[key]}
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
        # In Python, a part of a configuration may be the object itself.
        return (
            value if isinstance(value, typing.cast(type, hint)) else from_mapping(typing.cast(type, hint), value, path)
        )
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, path)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{path}: wanted {' or '.join(map(str, arguments))}, found {abridge(value)}")
    if origin is tuple and isinstance(value, list | tuple):
        return _read_tuple(arguments, value, path)
    if hint is Any or (origin is Mapping and isinstance(value, Mapping)):
        return value
    return _read_scalar(hint, value, path)


def _read_union(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    present = [choice for choice in choices if choice is not type(None)]
    tags = tuple(tag for choice in present for tag in _list_tags(choice))
    if tags and isinstance(value, Mapping) and "kind" in value:
        # The tag chooses, so that an error speaks of the one that is meant.
        kind = read_value(Literal[tags], value["kind"], join(path, "kind"))
        present = [choice for choice in present if kind in _list_tags(choice)]
    for choice in present[:-1]:
        try:
            return read_value(choice, value, path)
        except ConfigError:
            continue
    return read_value(present[-1], value, path)


def _list_tags(choice: Any) -> tuple[Any, ...]:
    """Return what the literal field `kind` of a dataclass may be, which tells it from others; nothing without one."""
    return typing.get_args(typing.get_type_hints(choice).get("kind")) if dataclasses.is_dataclass(choice) else ()


def _read_tuple(items: tuple[Any, ...], value: list[Any] | tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise ConfigError(f"{path}: wanted {len(items)} values, found {len(value)}")
    return tuple(read_value(item, entry, path) for item, entry in zip(items, value, strict=True))


def _read_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and _is_infinite(value):
        raise ConfigError(f"{path}: wanted a finite number, found {abridge(value)}")
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
    raise ConfigError(f"{path}: wanted {getattr(hint, '__name__', hint)}, found {abridge(value)}")


def check_fields(config: Any) -> None:
    """Give each field of a frozen dataclass the type that it declares, as `from_mapping` reads it from a file.

    So an object that was made by hand is what its file would be read as: Python's numbers for NumPy's, a tuple for a
    list. Dataclasses of settings call it before they compare values. Raises ConfigError for a value of another type or
    a number that is not finite.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        found = getattr(config, field.name)
        # Numbers and arrays of NumPy as Python has them.
        value = read_value(hints[field.name], found.tolist() if hasattr(found, "tolist") else found, field.name)
        if value is not found:
            object.__setattr__(config, field.name, value)
    check_finite_fields(config)


def check_finite_fields(config: Any) -> None:
    """Raise ConfigError for a number in a field of a dataclass, also in a tuple or a mapping, that is not finite.

    Dataclasses of settings call it when they are made, as not all come from `from_mapping`; comparisons with limits
    let an infinite value pass where there is none above, and what follows from it is NaN.
    """
    for field in dataclasses.fields(config):
        for value in _iterate_values(getattr(config, field.name)):
            if isinstance(value, Real) and not isinstance(value, Integral) and not math.isfinite(value):
                raise ConfigError(f"{field.name}: wanted a finite number, found {value}")


def _iterate_values(value: Any) -> Iterator[Any]:
    """Yield what a mapping or a sequence holds, at any depth, which may be more than calls can nest; else the value."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Mapping):
            waiting += found.values()
        elif isinstance(found, list | tuple):
            waiting += found
        else:
            yield found


def _is_infinite(value: Any) -> bool:
    """Whether a value is a number that is not finite, written as text too: no setting and no figure is one."""
    try:
        return isinstance(value, float | str) and not math.isfinite(float(value))
    except ValueError:
        return False


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
