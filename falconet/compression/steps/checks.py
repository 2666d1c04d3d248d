"""Checks of steps' settings, and the tensors that steps act on. Errors state what was wanted and found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from falconet.compression.steps.constraints import Constrained, find_tensor
from falconet.errors import ConfigError, UnknownNameError

_Setting = TypeVar("_Setting")
_FLAT = "has fewer than two dimensions"
_INTEGER = "is not floating-point"
_EMPTY = "has no elements"
_INFINITE = "holds values that are not finite"
_ZERO = "holds zeros only"
_UNNAMED = "is not named in "


def check_step_fraction(name: str, value: object) -> None:
    _check_each(name, value, is_fraction, "a fraction from 0 to below 1")


def check_whole(name: str, value: object, least: int, most: int) -> None:
    _check_each(name, value, lambda item: _is_whole(item, least, most), f"a whole number from {least} to {most}")


def check_bits(name: str, value: object) -> None:
    wanted = "a whole number from 2 to 8 or 'ternary'"
    _check_each(name, value, lambda item: item == "ternary" or _is_whole(item, 2, 8), wanted)


def _check_each(name: str, value: object, is_right: Callable[[object], bool], wanted: str) -> None:
    """Check a setting for all tensors, or one by tensors' names."""
    items = value.items() if isinstance(value, Mapping) else [(None, value)]
    for key, item in items:
        if not is_right(item):
            raise ConfigError(f"{name if key is None else f'{name}.{key}'}: wanted {wanted}, found {item!r}")


def check_step_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}: wanted {' or '.join(known)}, found {value!r}")


def check_step_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: wanted true or false, found {value!r}")


def is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def select_weights(model: nn.Module, setting: _Setting | Mapping[str, _Setting], name: str) -> dict[str, _Setting]:
    """Return the setting of each weight that a step acts on.

    A weight is a finite, floating-point parameter of two or more dimensions. Raises UnknownNameError for a name that no
    parameter has, ConfigError for one that is no weight; `name` is the setting's.
    """
    free = explain_skipped(model, setting, name)
    parameters = [key for key, _ in unwrap(model).named_parameters()]
    if not isinstance(setting, Mapping):
        return {key: setting for key in parameters if key not in free}
    for key in setting:
        if key not in parameters:
            raise UnknownNameError("parameter", key, parameters)
        if key in free:
            raise ConfigError(f"{name}.{key}: wanted a weight, but it {free[key]}")
    return dict(setting)


def explain_skipped(model: nn.Module, setting: object, name: str) -> dict[str, str]:
    """Return why parameters are none of the weights that a step with this setting acts on."""
    named = setting if isinstance(setting, Mapping) else None
    reasons = {}
    for key, parameter in unwrap(model).named_parameters():
        reason = explain_value(parameter)
        if reason is None and parameter.ndim < 2:
            reason = _FLAT
        if reason is None and named is not None and key not in named:
            reason = _UNNAMED + name
        if reason is not None:
            reasons[key] = reason
    return reasons


def explain_value(values: torch.Tensor) -> str | None:
    """Return why no step can act on a tensor, if so."""
    if not values.is_floating_point():
        return _INTEGER
    if not values.numel():
        return _EMPTY
    if not values.isfinite().all():
        return _INFINITE
    return None


@torch.no_grad()
def find_zeros(model: nn.Module) -> dict[str, str]:
    """Return the parameters that are zero all over: no grid and no table can be fitted to them."""
    names = [name for name, value in unwrap(model).named_parameters() if explain_value(value) is None]
    return {name: _ZERO for name in names if not _read_values(model, name).any()}


def _read_values(model: nn.Module, name: str) -> torch.Tensor:
    """Return a tensor's values, constrained where they are."""
    return model.constrain(name) if isinstance(model, Constrained) else find_tensor(model, name)


def unwrap(model: nn.Module) -> nn.Module:
    return model.model if isinstance(model, Constrained) else model
