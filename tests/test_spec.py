"""What a model eats: which specs are possible, and what is said of the others."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from falconet.errors import ConfigError
from falconet.spec import ImageSpec

GRAY = ImageSpec(shape=(1, 32, 28), labels=("cat", "dog"), mean=(0.5,), std=(0.25,), margin=2)


def test_inner_size_lies_inside_the_margin() -> None:
    assert GRAY.inner_size == (28, 24)
    assert dataclasses.replace(GRAY, margin=0).inner_size == (32, 28)


def test_margin_may_leave_a_single_pixel() -> None:
    assert ImageSpec((1, 5, 5), ("a", "b"), (0.0,), (1.0,), margin=2).inner_size == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (2, 32, 32)}, "shape: wanted 1 or 3 channels, found 2"),
        ({"margin": 14}, "margin: 14 pixels leave nothing of 32x28"),
        ({"margin": -1}, "margin: -1 pixels"),
        ({"shape": (1, 0, 8), "margin": 0}, "leave nothing of 0x8"),
        ({"mean": (0.5, 0.5, 0.5)}, "mean, std: wanted 1 values each, found 3 and 1"),
        ({"shape": (3, 32, 28)}, "mean, std: wanted 3 values each, found 1 and 1"),
        ({"std": ()}, "mean, std: wanted 1 values each, found 1 and 0"),
        ({"mean": (math.nan,)}, "mean: wanted finite values, found [nan]"),
        ({"std": (0.0,)}, "std: wanted finite values above 0, found [0.0]"),
        ({"labels": ("cat",)}, "labels: wanted at least two different names, found ['cat']"),
        ({"labels": ("cat", "cat")}, "labels: wanted at least two different names"),
    ],
)
def test_impossible_specs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        dataclasses.replace(GRAY, **change)


def test_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRAY.margin = 3  # type: ignore[misc]
