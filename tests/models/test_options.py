"""Checks of options: which values they let pass, and what they say of the others."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.errors import ConfigError
from falconet.models.options import (
    _SMALL,
    check_choice,
    check_count,
    check_fraction,
    check_positive,
    check_smallest,
    check_switch,
    choose_stem,
)

WRONG: list[tuple[str, Any, str]] = [
    ("check_count", 0, "a whole number above 0"),
    ("check_count", -1, "a whole number above 0"),
    ("check_count", 1.0, "a whole number above 0"),
    ("check_count", "1", "a whole number above 0"),
    ("check_count", None, "a whole number above 0"),
    ("check_count", True, "a whole number above 0"),
    ("check_switch", 1, "true or false"),
    ("check_switch", 0, "true or false"),
    ("check_switch", "true", "true or false"),
    ("check_switch", None, "true or false"),
    ("check_fraction", 1, "a fraction from 0 to below 1"),
    ("check_fraction", -1e-9, "a fraction from 0 to below 1"),
    ("check_fraction", math.nan, "a fraction from 0 to below 1"),
    ("check_fraction", False, "a fraction from 0 to below 1"),
    ("check_fraction", "0.5", "a fraction from 0 to below 1"),
    ("check_fraction", None, "a fraction from 0 to below 1"),
    ("check_positive", 0, "a number above 0"),
    ("check_positive", -0.5, "a number above 0"),
    ("check_positive", math.inf, "a number above 0"),
    ("check_positive", math.nan, "a number above 0"),
    ("check_positive", True, "a number above 0"),
    ("check_positive", "1", "a number above 0"),
]


def test_wrong_values() -> None:
    # In a process without type checks, as users have it.
    code = """
from falconet.errors import ConfigError
from falconet.models import options
for check, value, _ in WRONG:
    try:
        getattr(options, check)("size", value)
    except ConfigError as error:
        print(error)
    else:
        print(check, "took", value)
"""
    found = subprocess.run(
        [sys.executable, "-c", f"nan, inf = float('nan'), float('inf'); WRONG = {WRONG!r}{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [f"model.options.size: wanted {wanted}, found {value!r}" for _, value, wanted in WRONG]
    assert found.stdout.splitlines() == expected


@given(st.integers())
@settings(deadline=None)
def test_counts_are_the_integers_above_zero(number: int) -> None:
    if 0 < number <= 1 << 31:
        check_count("layers", number)
    elif number > 0:
        with pytest.raises(ConfigError, match="wanted at most 2147483648, found more"):
            check_count("layers", number)
    else:
        with pytest.raises(ConfigError, match=rf"^model\.options\.layers: wanted .*, found {number}$"):
            check_count("layers", number)


@given(st.floats())
@settings(deadline=None)
def test_shares_and_positive_numbers(number: float) -> None:
    for check, fits in ((check_fraction, 0 <= number < 1), (check_positive, 0 < number <= 2.0**127)):
        if fits:
            check("rate", number)
        else:
            with pytest.raises(ConfigError, match=r"^model\.options\.rate: "):
                check("rate", number)


def test_numbers_beyond_single_precision_are_refused() -> None:
    for number in (1e39, 10**400):
        with pytest.raises(ConfigError, match=r"^model\.options\.norm_eps: wanted at most 1\.70141e\+38, found more$"):
            check_positive("norm_eps", number)


def test_whole_numbers_are_numbers() -> None:
    check_fraction("dropout", 0)
    check_positive("squeeze_ratio", 2)


@pytest.mark.parametrize("value", [True, False])
def test_switches(value: bool) -> None:
    check_switch("zero_init", value)


def test_choices() -> None:
    for value in ("mean", "last"):
        check_choice("pooling", value, ("mean", "last"))
    for value in ("", "Mean", "mea"):
        with pytest.raises(ConfigError, match=rf"^model\.options\.pooling: wanted mean or last, found '{value}'$"):
            check_choice("pooling", value, ("mean", "last"))


@pytest.mark.parametrize(("size", "fits"), [((8, 8), True), ((8, 90), True), ((7, 8), False), ((90, 7), False)])
def test_smallest_is_of_the_shorter_side(size: tuple[int, int], fits: bool) -> None:
    if fits:
        check_smallest(size, 8)
        return
    message = rf"^model\.input_size: wanted at least 8x8 pixels, found {size[0]}x{size[1]}$"
    with pytest.raises(ConfigError, match=message):
        check_smallest(size, 8)


@pytest.mark.parametrize(
    ("size", "stem"),
    [
        ((_SMALL, _SMALL), "imagenet"),
        ((_SMALL, 1000), "imagenet"),
        ((_SMALL - 1, 1000), "small"),
        ((1000, _SMALL - 1), "small"),
        ((_SMALL - 1,), "small"),
        ((_SMALL,), "imagenet"),
    ],
)
def test_stem_follows_the_size_unless_it_is_named(size: tuple[int, ...], stem: str) -> None:
    assert choose_stem("auto", size) == stem
    assert choose_stem("imagenet", size) == "imagenet"
    assert choose_stem("small", size) == "small"


def test_unknown_stem() -> None:
    code = "from falconet.models.options import choose_stem; choose_stem('tiny', (32, 32))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    wanted = "ConfigError: model.options.stem: wanted auto or imagenet or small, found 'tiny'"
    assert done.stderr.splitlines()[-1].endswith(wanted)
