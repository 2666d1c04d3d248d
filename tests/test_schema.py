"""Settings from plain mappings and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from falconet.artifact import ArtifactConfig, DataOrigin, Provenance
from falconet.errors import ConfigError, UnknownNameError
from falconet.schema import from_mapping, to_mapping
from falconet.spec import ImageSpec
from falconet.training import TrainConfig


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    depth: int = 2

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"depth: wanted 1 or more, found {self.depth}")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    limit: float | None = None
    size: int | tuple[int, int] = 8
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    labels: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    computed: int = field(default=3, init=False)


SPEC = ImageSpec(shape=(3, 32, 24), labels=("cat", "dog"), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), margin=2)
ARTIFACT = ArtifactConfig(
    architecture="lenet5",
    input=SPEC,
    provenance=Provenance(DataOrigin("digits", "0f", None, 0.1, 0.2), seed=3, epochs=5, best_epoch=4, recipe="digits"),
    options={"output": "linear"},
    widths={"c1": 4},
    versions={"torch": "2.9.0"},
)


@pytest.mark.parametrize(
    "value",
    [
        TrainConfig(),
        TrainConfig(epochs=3, loss="mse", clip_norm=None, ema_decay=0.99, patience=4),
        SPEC,
        ARTIFACT,
        Outer("a", Inner(0.25, 7), 1.5, (4, 6), True, "slow", ("x", "y"), {"nested": {"list": [1, None, "é"]}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_round_trip_through_json(value: Any) -> None:
    record = json.loads(json.dumps(to_mapping(value)))
    record.pop("computed", None)
    assert from_mapping(type(value), record) == value


def test_missing_keys_take_their_defaults() -> None:
    assert from_mapping(TrainConfig, {"epochs": 7}) == TrainConfig(epochs=7)


@pytest.mark.parametrize(
    ("kind", "values", "path", "offer"),
    [
        (TrainConfig, {"learning_rat": 1}, "training", "training.learning_rate"),
        (TrainConfig, {"epoch": 1}, "", "epochs"),
        (Outer, {"inner": {"dept": 1}}, "model", "model.inner.depth"),
    ],
)
def test_unknown_key_offers_the_nearest_with_its_path(
    kind: type[Any], values: dict[str, Any], path: str, offer: str
) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean {offer.replace('.', '[.]')}\\b"):
        from_mapping(kind, values, path)


def test_computed_field_is_no_setting() -> None:
    with pytest.raises(UnknownNameError, match="unknown setting 'computed'"):
        from_mapping(Outer, {"name": "a", "computed": 4})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": 3}, "root.name: wanted str, found 3"),
        ({"name": None}, "root.name: wanted str, found None"),
        ({"inner": {"depth": "many"}}, "root.inner.depth: wanted int, found 'many'"),
        ({"inner": {"depth": 2.5}}, "root.inner.depth: wanted int, found 2.5"),
        ({"inner": {"depth": True}}, "root.inner.depth: wanted int, found True"),
        ({"inner": {"rate": False}}, "root.inner.rate: wanted float, found False"),
        ({"inner": {"rate": "quick"}}, "root.inner.rate: wanted float, found 'quick'"),
        ({"inner": {"rate": None}}, "root.inner.rate: wanted float, found None"),
        ({"inner": 5}, "root.inner: wanted a mapping of settings, found 5"),
        ({"limit": "high"}, "root.limit: wanted float, found 'high'"),
        ({"flag": 1}, "root.flag: wanted bool, found 1"),
        ({"flag": "true"}, "root.flag: wanted bool, found 'true'"),
        ({"mode": "medium"}, "root.mode: wanted fast or slow, found 'medium'"),
        ({"size": [1, 2, 3]}, "root.size: wanted 2 values, found 3"),
        ({"labels": "abc"}, "root.labels: wanted tuple, found 'abc'"),
        ({"labels": ["a", 1]}, "root.labels: wanted str, found 1"),
        ({"extra": [1]}, "root.extra: wanted Mapping, found [1]"),
    ],
)
def test_wrong_type_names_key_wanted_and_found(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, {"name": "a", **values}, "root")
    assert str(caught.value) == message


def test_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rate: wanted float, found 1000"):
        from_mapping(Inner, {"rate": 10**400})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rate": "1e-3"}, Inner(rate=1e-3)),
        ({"rate": 1}, Inner(rate=1.0)),
        ({"depth": "12"}, Inner(depth=12)),
    ],
)
def test_numbers_written_as_text_are_read(values: dict[str, Any], expected: Inner) -> None:
    found = from_mapping(Inner, values)
    assert found == expected
    assert type(found.rate) is float
    assert type(found.depth) is int


@pytest.mark.parametrize(("found", "expected"), [(None, None), (2, 2.0), ("2.5", 2.5)])
def test_optional_takes_none_or_its_type(found: Any, expected: float | None) -> None:
    assert from_mapping(Outer, {"name": "a", "limit": found}).limit == expected


@pytest.mark.parametrize(("found", "expected"), [(5, 5), ([4, 6], (4, 6)), ("5", 5)])
def test_union_takes_the_first_type_that_fits(found: Any, expected: object) -> None:
    assert from_mapping(Outer, {"name": "a", "size": found}).size == expected


def test_a_components_own_check_gets_the_full_path() -> None:
    with pytest.raises(ConfigError, match=r"^root\.inner\.depth: wanted 1 or more, found 0$"):
        from_mapping(Outer, {"name": "a", "inner": {"depth": 0}}, "root")


def test_missing_required_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Outer.*'name'"):
        from_mapping(Outer, {})


def test_top_level_must_be_a_mapping() -> None:
    with pytest.raises(ConfigError, match=r"TrainConfig: wanted a mapping of settings, found \['epochs'\]"):
        from_mapping(TrainConfig, ["epochs"])
