from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data.augmentation import (
    POLICIES,
    Augmentation,
    ImageAugmentation,
    SeriesAugmentation,
    TextAugmentation,
    find_policy,
)
from falconet.errors import ConfigError, UnknownNameError
from falconet.schema import from_mapping, read_value, to_mapping
from falconet.spec import ModalityName

EVERY = [(kind, name) for kind, policies in POLICIES.items() for name in policies]


@pytest.mark.parametrize("config", [ImageAugmentation, SeriesAugmentation, TextAugmentation])
def test_defaults_change_nothing_and_any_other_value_does(config: type[Augmentation]) -> None:
    assert not config().active
    for field in fields(config):
        if field.name != "kind":
            changed = from_mapping(config, {field.name: True if field.name == "trivial" else 0.1})
            assert changed.active == (field.name != "smoothness")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "moves") for name in ("rotate", "scale", "shear", "shift", "crop", "elastic", "flip_horizontal")),
        *((name, "recolors") for name in ("brightness", "contrast", "saturation", "hue")),
        *((name, "mixes") for name in ("mixup", "cutmix")),
    ],
)
def test_parts_are_told_apart(name: str, part: str) -> None:
    config = from_mapping(ImageAugmentation, {name: 0.1})
    assert [getattr(config, each) for each in ("moves", "recolors", "mixes")] == [
        each == part for each in ("moves", "recolors", "mixes")
    ]


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ImageAugmentation, {"rotate": 181.0}, "rotate: wanted 0 to 180, found 181"),
        (ImageAugmentation, {"scale": 1.0}, r"scale: wanted 0 to 0\.9, found 1"),
        (ImageAugmentation, {"shear": -1.0}, "shear: wanted 0 to 60, found -1"),
        (ImageAugmentation, {"shift": 0.6}, r"shift: wanted 0 to 0\.5, found 0\.6"),
        (ImageAugmentation, {"shift": float("nan")}, "shift: wanted a finite number, found nan"),
        (ImageAugmentation, {"flip_horizontal": 1.1}, "flip_horizontal: wanted 0 to 1"),
        (ImageAugmentation, {"flip_vertical": -0.1}, "flip_vertical: wanted 0 to 1"),
        (ImageAugmentation, {"crop": 0.0}, r"crop: wanted 0\.01 to 1"),
        (ImageAugmentation, {"elastic": 0.6}, r"elastic: wanted 0 to 0\.5"),
        (ImageAugmentation, {"smoothness": 0.0}, r"smoothness: wanted 0\.01 to 1"),
        (ImageAugmentation, {"brightness": 1.5}, "brightness: wanted 0 to 1"),
        (ImageAugmentation, {"contrast": -1.0}, "contrast: wanted 0 to 1"),
        (ImageAugmentation, {"saturation": 2.0}, "saturation: wanted 0 to 1"),
        (ImageAugmentation, {"hue": 0.6}, r"hue: wanted 0 to 0\.5"),
        (ImageAugmentation, {"erase": 2.0}, "erase: wanted 0 to 1"),
        (ImageAugmentation, {"mixup": -0.2}, "mixup: wanted 0 to 100"),
        (ImageAugmentation, {"cutmix": float("inf")}, "cutmix: wanted a finite number, found inf"),
        (SeriesAugmentation, {"time_warp": 0.3}, r"time_warp: wanted 0 to 0\.2"),
        (SeriesAugmentation, {"jitter": -0.1}, "jitter: wanted 0 to 10"),
        (SeriesAugmentation, {"mask": 1.0}, r"mask: wanted 0 to 0\.9"),
        (TextAugmentation, {"mask": 1.0}, r"mask: wanted 0 to 0\.9"),
    ],
)
def test_impossible_values_are_refused(config: type[Augmentation], values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        from_mapping(config, values)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_policy_is_found_and_survives_a_file(kind: ModalityName, name: str) -> None:
    policy = find_policy(kind, name)
    assert policy.kind == kind
    assert policy.active == (name != "none")
    assert read_value(Augmentation, to_mapping(policy), "augmentation") == policy


def test_no_policy_mirrors_an_image() -> None:
    for policy in POLICIES["image"].values():
        assert isinstance(policy, ImageAugmentation)
        assert policy.flip_horizontal == policy.flip_vertical == 0


def test_settings_without_a_kind_are_those_of_images() -> None:
    # As written before there were other kinds.
    old = {"rotate": 10.0, "scale": 0.15, "shear": 10.0, "shift": 0.08}
    assert read_value(Augmentation, old, "augmentation") == find_policy("image", "digits")


@pytest.mark.parametrize(("kind", "name"), [("image", "lihgt"), ("series", "digits"), ("text", "trivial")])
def test_an_unknown_policy_is_answered_with_those_of_its_kind(kind: ModalityName, name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown augmentation policy '{name}'.*light"):
        find_policy(kind, name)


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional={"rotate": st.floats(), "crop": st.floats(), "hue": st.floats()}))
def test_any_number_is_taken_or_refused(values: dict[str, Any]) -> None:
    limits = {"rotate": (0, 180), "crop": (0.01, 1), "hue": (0, 0.5)}
    if all(limits[name][0] <= value <= limits[name][1] for name, value in values.items()):
        assert to_mapping(from_mapping(ImageAugmentation, values)).items() >= values.items()
    else:
        with pytest.raises(ConfigError, match="wanted"):
            from_mapping(ImageAugmentation, values)


def test_settings_are_read_without_torch() -> None:
    code = "import sys, falconet.data.augmentation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
