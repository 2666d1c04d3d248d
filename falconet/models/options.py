"""Checks of the options that architectures take. Each raises ConfigError with what was wanted and found."""

from __future__ import annotations

import math
from typing import Literal, get_args

from falconet.errors import ConfigError, abridge
from falconet.spec import FLOAT32_MOST

Stem = Literal["auto", "imagenet", "small"]
"""Stem of an image network: as published for ImageNet, or one that keeps the resolution of small images.

`auto` is `small` where the shorter side has fewer than 64 pixels.
"""
_SMALL = 64
"""Shorter side in pixels below which images lose too much in a stem that divides their size by four."""


def choose_stem(stem: Stem, input_size: tuple[int, ...]) -> Literal["imagenet", "small"]:
    """Return the stem for inputs of this size."""
    check_choice("stem", stem, get_args(Stem))
    if stem == "auto":
        return "small" if min(input_size) < _SMALL else "imagenet"
    return stem


def check_smallest(input_size: tuple[int, int], smallest: int) -> None:
    """Raise ConfigError unless the shorter side has `smallest` pixels or more, so that the last layer has one left."""
    if min(input_size) < smallest:
        found = "x".join(map(str, input_size))
        raise ConfigError(f"model.input_size: wanted at least {smallest}x{smallest} pixels, found {found}")


MAX_LAYERS = 256
"""Most layers of a network; building more takes seconds, whatever their width."""


_MAX_UNITS = 1 << 31


def check_count(name: str, number: int, most: int = _MAX_UNITS) -> None:
    """Raise ConfigError unless an option is a whole number above 0, and no more than `most`."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigError(f"model.options.{name}: wanted a whole number above 0, found {abridge(number)}")
    if number > most:
        raise ConfigError(f"model.options.{name}: wanted at most {most}, found more")


def check_switch(name: str, value: bool) -> None:
    """Raise ConfigError unless an option is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"model.options.{name}: wanted true or false, found {abridge(value)}")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ConfigError unless an option is one of its values."""
    if value not in known:
        raise ConfigError(f"model.options.{name}: wanted {' or '.join(known)}, found {abridge(value)}")


def check_fraction(name: str, fraction: float) -> None:
    """Raise ConfigError unless an option is a fraction of a whole, less than all of it."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
        raise ConfigError(f"model.options.{name}: wanted a fraction from 0 to below 1, found {abridge(fraction)}")


def check_positive(name: str, number: float) -> None:
    """Raise ConfigError unless an option is a number above 0 that single precision holds."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise ConfigError(f"model.options.{name}: wanted a number above 0, found {abridge(number)}")
    if number > FLOAT32_MOST:
        raise ConfigError(f"model.options.{name}: wanted at most {FLOAT32_MOST:g}, found more")
