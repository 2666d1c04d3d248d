"""What a model takes: which specs are possible, and what is said of the others."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from falconet.errors import ConfigError
from falconet.schema import to_mapping
from falconet.spec import ClassificationSpec, ImageSpec, InputSpec, SeriesSpec, TextSpec, upgrade_record

GRAY = ImageSpec(shape=(1, 32, 28), mean=(0.5,), std=(0.25,), padding=2)
SERIES = SeriesSpec(shape=(2, 50), mean=(0.0, -1.5), std=(1.0, 0.1), rate=100)
TEXT = TextSpec(shape=(64,), vocab_size=1000)


def test_inner_size_lies_inside_the_padding() -> None:
    assert GRAY.inner_size == (28, 24)
    assert dataclasses.replace(GRAY, padding=0).inner_size == (32, 28)


def test_padding_may_leave_a_single_pixel() -> None:
    assert ImageSpec((1, 5, 5), (0.0,), (1.0,), padding=2).inner_size == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (2, 32, 32)}, "shape: wanted 1 or 3 channels, found 2"),
        ({"padding": 14}, "padding: 14 pixels leave nothing of 32x28"),
        ({"padding": -1}, "padding: -1 pixels"),
        ({"shape": (1, 0, 8), "padding": 0}, "leave nothing of 0x8"),
        ({"mean": (0.5, 0.5, 0.5)}, "mean, std: wanted 1 values each, found 3 and 1"),
        ({"shape": (3, 32, 28)}, "mean, std: wanted 3 values each, found 1 and 1"),
        ({"std": ()}, "mean, std: wanted 1 values each, found 1 and 0"),
        ({"mean": (math.nan,)}, "mean: wanted finite values, found [nan]"),
        ({"std": (0.0,)}, "std: wanted finite values above 0, found [0.0]"),
    ],
)
def test_impossible_specs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        dataclasses.replace(GRAY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (0, 50)}, "shape: wanted at least 1 channel and 1 step, found [0, 50]"),
        ({"shape": (2, 0)}, "shape: wanted at least 1 channel and 1 step, found [2, 0]"),
        ({"rate": 0}, "rate: wanted 1 or more steps a second, or null, found 0"),
        ({"shape": (3, 50)}, "mean, std: wanted 3 values each, found 2 and 2"),
        ({"mean": (0.0, math.inf)}, "mean: wanted finite values, found [inf]"),
        ({"std": (1.0, -0.1)}, "std: wanted finite values above 0, found [-0.1]"),
        ({"std": (1.0, math.nan)}, "std: wanted finite values above 0, found [nan]"),
        ({"bands": 2}, "bands: wanted recordings of 1000 to 96000 Hz, found 100 Hz"),
        ({"bands": 2, "rate": None}, "bands: wanted recordings of 1000 to 96000 Hz, found series without a rate"),
        ({"bands": 0, "rate": 8000}, "bands: wanted 1 or more, and a divisor of the 2 rows of shape, found 0"),
        ({"bands": 3, "rate": 8000}, "bands: wanted 1 or more, and a divisor of the 2 rows of shape, found 3"),
    ],
)
def test_impossible_specs_of_series(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        dataclasses.replace(SERIES, **change)


def test_the_raw_shape_of_spectra_is_what_their_frames_cover() -> None:
    assert SERIES.raw_shape == SERIES.shape
    spectra = dataclasses.replace(SERIES, bands=1, rate=8000)
    assert (spectra.window, spectra.hop) == (200, 80)
    assert spectra.raw_shape == (2, 49 * 80 + 200)
    assert dataclasses.replace(spectra, bands=2).raw_shape == (1, 49 * 80 + 200)


@pytest.mark.parametrize(
    "change", [{"rate": None}, {"length_mode": "resample"}, {"shape": (2, 1)}, {"mean": (-1e9, 1e9)}]
)
def test_possible_specs_of_series(change: dict[str, Any]) -> None:
    assert dataclasses.replace(SERIES, **change) != SERIES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (0,)}, "shape: wanted 1 to 65536 tokens, found [0]"),
        ({"vocab_size": 2}, "vocab_size: wanted 3 or more, found 2"),
    ],
)
def test_impossible_specs_of_texts(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        dataclasses.replace(TEXT, **change)


def test_the_smallest_spec_of_texts() -> None:
    assert TextSpec((1,), vocab_size=3).shape == (1,)


@pytest.mark.parametrize("labels", [("cat",), ("cat", "cat"), ()])
def test_a_classifier_tells_two_classes_apart_or_more(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="labels: wanted at least two different names, found"):
        ClassificationSpec(labels)


def test_a_classifier_has_an_output_for_each_class() -> None:
    assert ClassificationSpec(("a", "b", "c")).num_outputs == 3


@pytest.mark.parametrize("spec", [GRAY, SERIES, TEXT])
def test_a_record_of_format_1_becomes_one_of_format_2(spec: InputSpec) -> None:
    """Its labels stood in the input spec, the task beside it, and two fields had other names."""
    old = {"padding": "margin", "length_mode": "fit"}
    was = {old.get(key, key): value for key, value in to_mapping(spec).items()}
    record = {
        "format_version": 1,
        "architecture": "x",
        "task": "classification",
        "input": {**was, "labels": ["a", "b"]},
    }
    found = upgrade_record(record)
    assert found == {"architecture": "x", "input": to_mapping(spec), "output": {"labels": ["a", "b"]}}
    assert upgrade_record(found) == found


def test_specs_are_told_apart_by_their_kind() -> None:
    assert [(spec.kind, spec.dtype) for spec in (GRAY, SERIES, TEXT)] == [
        ("image", "uint8"),
        ("series", "float32"),
        ("text", "str"),
    ]


@pytest.mark.parametrize("spec", [GRAY, SERIES, TEXT])
def test_specs_cannot_be_changed(spec: InputSpec) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.shape = (1, 2, 3)  # type: ignore[misc]
