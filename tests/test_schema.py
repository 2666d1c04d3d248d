"""Settings from plain mappings and back."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from falconet.artifact import ArtifactConfig, DataOrigin, Provenance
from falconet.compression.budget import Budget
from falconet.compression.config import CompressConfig, SearchConfig
from falconet.compression.steps.channels import PruneChannels
from falconet.compression.steps.compensation import Compensate
from falconet.compression.steps.factorization import Factorize
from falconet.compression.steps.pruning import PruneWeights
from falconet.data import DataConfig
from falconet.data.augmentation import ImageAugmentation, SeriesAugmentation, TextAugmentation
from falconet.errors import ConfigError, UnknownNameError, abridge
from falconet.planning import ModelConfig, RunConfig
from falconet.schema import KEY, flatten, from_mapping, merge, parse_yaml, to_mapping
from falconet.spec import ClassificationSpec, ImageSpec, InputSpec, SeriesSpec, TextSpec
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


SPEC = ImageSpec(shape=(3, 32, 24), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), padding=2)
SERIES = SeriesSpec(shape=(1, 30), mean=(0.5,), std=(2.0,), length_mode="resample", rate=8000)
TEXT = TextSpec(shape=(40,), vocab_size=500)
ARTIFACT = ArtifactConfig(
    architecture="lenet5",
    input=SPEC,
    output=ClassificationSpec(("a", "b")),
    provenance=Provenance(DataOrigin("digits", "0f", None, 0.1, 0.2), seed=3, epochs=5, best_epoch=4, recipe="digits"),
    options={"output": "linear"},
    widths={"c1": 4},
    versions={"torch": "2.9.0"},
)


@pytest.mark.parametrize(
    "value",
    [
        TrainConfig(),
        TrainConfig(epochs=3, loss="brier", clip_norm=None, ema_decay=0.99, patience=4),
        SPEC,
        SERIES,
        TEXT,
        ARTIFACT,
        dataclasses.replace(ARTIFACT, input=SERIES),
        dataclasses.replace(ARTIFACT, input=TEXT),
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


@dataclass(frozen=True)
class Holder:
    """Takes one of several, told apart by their kind; or a name, or nothing."""

    spec: InputSpec | str | None = None


@pytest.mark.parametrize("spec", [SPEC, SERIES, TEXT, "by-name", None])
def test_the_kind_chooses_among_several(spec: InputSpec | str | None) -> None:
    holder = from_mapping(Holder, json.loads(json.dumps(to_mapping(Holder(spec)))))
    assert holder.spec == spec
    assert type(holder.spec) is type(spec)


def test_without_a_kind_the_first_that_fits_is_taken() -> None:
    record = to_mapping(SPEC)
    del record["kind"]
    assert from_mapping(Holder, {"spec": record}).spec == SPEC


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        (SPEC, {"padding": "wide"}, "root.spec.padding: wanted int, found 'wide'"),
        (SPEC, {"padding": 90}, "root.spec.padding: 90 pixels leave nothing of 32x24"),
        (SERIES, {"rate": 0}, "root.spec.rate: wanted 1 or more steps a second, or null, found 0"),
        (SERIES, {"shape": [1]}, "root.spec.shape: wanted 2 values, found 1"),
        (TEXT, {"vocab_size": None}, "root.spec.vocab_size: wanted int, found None"),
        (TEXT, {"kind": "video"}, "root.spec.kind: wanted image or series or text, found 'video'"),
        (TEXT, {"kind": ["text"]}, "root.spec.kind: wanted image or series or text, found ['text']"),
        (TEXT, {"kind": None}, "root.spec.kind: wanted image or series or text, found None"),
    ],
)
def test_an_error_speaks_of_the_kind_that_is_meant(spec: InputSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Holder, {"spec": to_mapping(spec) | change}, "root")
    assert str(caught.value) == message


@pytest.mark.parametrize(("spec", "key", "offer"), [(SERIES, "rates", "rate"), (TEXT, "vocab_sizes", "vocab_size")])
def test_an_unknown_key_is_one_of_the_kind_that_is_meant(spec: InputSpec, key: str, offer: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown setting 'root.spec.{key}': did you mean root.spec.{offer} "):
        from_mapping(Holder, {"spec": to_mapping(spec) | {key: 1}}, "root")


def test_a_key_called_kind_is_no_tag_where_nothing_is_told_apart() -> None:
    extra = from_mapping(Outer, {"name": "a", "extra": {"kind": "anything"}}).extra
    assert extra == {"kind": "anything"}


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3, "d": 4}}, {"a": {"b": 1, "c": 3, "d": 4}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 2}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"d": 3}}}, {"a": {"b": {"c": 1, "d": 3}}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
    ],
)
def test_settings_are_merged_key_by_key(base: dict[str, Any], over: dict[str, Any], expected: dict[str, Any]) -> None:
    kept = json.dumps([base, over])
    assert merge(base, over) == expected
    assert json.dumps([base, over]) == kept


def test_one_that_names_a_policy_begins_anew() -> None:
    base = {"augmentation": {"policy": "light", "rotate": 5, "crop": 0.5}, "seed": 1}
    assert merge(base, {"augmentation": {"policy": "strong", "hue": 0.1}}) == {
        "augmentation": {"policy": "strong", "hue": 0.1},
        "seed": 1,
    }
    assert merge(base, {"augmentation": {"rotate": 7}})["augmentation"] == {"policy": "light", "rotate": 7, "crop": 0.5}
    assert merge({"rotate": 5}, {"policy": "none"}) == {"policy": "none"}


trees: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.integers() | inner, max_size=3),
    max_leaves=12,
)


@given(base=trees, over=trees)
def test_what_is_said_last_holds(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = flatten(merge(base, over))
    assert merged.items() >= flatten(over).items()
    assert merged.keys() <= flatten(base).keys() | flatten(over).keys()
    assert merge(base, {}) == base
    assert merge({}, over) == over
    assert merge(merge(base, over), over) == merge(base, over)


def test_nested_settings_become_dotted_keys() -> None:
    settings = {"training": {"epochs": 3, "inner": {"rate": 0.5}}, "seed": None, "empty": {}}
    assert flatten(settings) == {"training.epochs": 3, "training.inner.rate": 0.5, "seed": None}


def nest_references(levels: int, width: int) -> str:
    """Return YAML of few characters that stands for `width ** levels` values."""
    text = "&a0 [x]"
    for level in range(1, levels):
        text = f"&a{level} [{text}{f', *a{level - 1}' * (width - 1)}]"
    return text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"training: {nest_references(9, 10)}", "more than 10,000 values in line 1, column"),
        (f"training: {{momentum: {nest_references(6, 9)}}}", "more than 10,000 values"),
        ("a: &a {x: 1}\n" + "\n".join(f"k{n}: *a" for n in range(5_000)), "more than 10,000 values in line"),
        ("a: &a [*a]", "a value that contains itself in line 1"),
        ("a: " + "[" * 20_000, "more than 40 levels in line 1"),
        ("\n".join(" " * n + "a:" for n in range(300)), "more than 40 levels"),
        ("epochs: " + "9" * 5_000, "a number of more than 400 digits in line 1"),
        ("epochs: 1" + ":59" * 5_000, "a number of more than 400 digits"),
        ("? null\n: 1", "wanted a name as key, found 'null' in line 1, column 3"),
        ("training:\n  9: 1", "wanted a name as key, found '9' in line 2"),
        ("? [a, b]\n: 1", "wanted a name as key, found a sequence"),
        ("a: *b", "found undefined alias 'b' in line 1"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: 2020-13-45", "month must be in"),
        ("a: [1", "expected"),
        ("#" * 1_000_001, "more than 1,000,000 characters"),
    ],
)
def test_yaml_that_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text)
    message = str(caught.value)
    assert message.startswith("not YAML: ")
    assert problem in message
    assert "\n" not in message
    assert len(message) < 300


def test_yaml_of_plain_values() -> None:
    text = "a: &a {x: 1, y: [true, null, 0.5, 2020-01-02]}\nb: {<<: *a, z: 'no'}\nc: *a\n"
    content = parse_yaml(text)
    assert content["c"] == content["a"]
    assert content["b"] == {**content["a"], "z": "no"}
    assert (parse_yaml(""), parse_yaml("- 1"), parse_yaml("7")) == (None, [1], 7)
    assert parse_yaml("0.5", "a.b") == {"a": {"b": 0.5}}
    assert parse_yaml("", "a") == {"a": None}


@pytest.mark.parametrize("name", ["9", "yes", "1.0", "010", "1_0", "2020-01-02", "null ", "label"])
def test_columns_are_called_what_is_written(name: str) -> None:
    wanted = None if name == "null " else name
    assert parse_yaml(name, "data.columns.label") == {"data": {"columns": {"label": wanted}}}
    assert parse_yaml(f"data: {{columns: {{text: {name}}}, extra: [{name}], kind: 9}}") == {
        "data": {"columns": {"text": wanted}, "extra": [wanted], "kind": 9}
    }
    assert parse_yaml("9", "training.columns.label") == {"training": {"columns": {"label": 9}}}


def test_values_are_shown_by_their_beginning() -> None:
    bomb: Any = "x"
    for _ in range(60):
        bomb = [bomb] * 9
    for value in (bomb, {"a": bomb}, "x" * 10**6, 10**5000, list(range(10**6)), {n: n for n in range(1000)}):
        assert 10 < len(abridge(value)) <= 80
    assert (abridge(1), abridge("a"), abridge([0.5, {"a": None}])) == ("1", "'a'", "[0.5, {'a': None}]")
    with pytest.raises(ConfigError, match=r"inner: wanted a mapping of settings, found \[\[\["):
        from_mapping(Outer, {"name": "a", "inner": bomb})
    with pytest.raises(UnknownNameError, match="unknown setting 'xxx"):
        from_mapping(Outer, {"x" * 10**6: 1})


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "inf", "-Infinity", "nan", "1e999"])
@pytest.mark.parametrize("field", ["weight_decay", "learning_rate", "clip_norm", "checkpoint_seconds"])
def test_numbers_are_finite(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^training\.{field}: wanted a finite number, found "):
        from_mapping(TrainConfig, {field: value}, "training")


def test_numbers_and_strings_of_numpy_become_pythons_own() -> None:
    config = from_mapping(TrainConfig, {"epochs": np.int64(3), "learning_rate": np.float32(0.5)}, "training")
    assert (type(config.epochs), type(config.learning_rate)) == (int, float)
    outer = from_mapping(Outer, {"name": np.str_("x"), "limit": np.int32(2), "labels": [np.str_("a")]}, "")
    assert [type(value) for value in (outer.name, outer.limit, outer.labels[0])] == [str, float, str]
    for value in (np.float64(3.5), np.array([1, 2]), True):
        with pytest.raises(ConfigError, match=r"epochs: wanted int"):
            from_mapping(TrainConfig, {"epochs": value}, "")


@dataclasses.dataclass(frozen=True)
class Renamed:
    density: float = dataclasses.field(default=1.0, metadata={KEY: "kept"})


def test_a_field_may_have_another_key_in_files() -> None:
    assert to_mapping(Renamed(0.5)) == {"kept": 0.5}
    assert from_mapping(Renamed, {"kept": 0.5}) == Renamed(0.5)
    with pytest.raises(UnknownNameError, match=r"unknown setting 'trial\.density'.*trial\.kept"):
        from_mapping(Renamed, {"density": 0.5}, "trial")
    with pytest.raises(ConfigError, match=r"^trial\.kept: wanted float"):
        from_mapping(Renamed, {"kept": "half"}, "trial")


def test_a_sparse_field_is_written_only_where_it_has_a_value() -> None:
    assert "value_range" not in to_mapping(SPEC)
    deep = dataclasses.replace(SPEC, value_range=(0.0, 4095.0))
    assert to_mapping(deep)["value_range"] == [0, 4095]
    assert from_mapping(ImageSpec, to_mapping(deep)) == deep


IMAGE = ImageSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.25,))
ORIGIN = DataOrigin("digits", "", 0, 0.1, 0.2)
CONFIGS: Mapping[type, Mapping[str, Any]] = {
    TrainConfig: {},
    DataConfig: {},
    ModelConfig: {"name": "lenet5"},
    ImageAugmentation: {},
    SeriesAugmentation: {},
    TextAugmentation: {},
    CompressConfig: {},
    Budget: {},
    ImageSpec: dict(vars(IMAGE)),
    SeriesSpec: dict(vars(SERIES)),
    DataOrigin: dict(vars(ORIGIN)),
    ArtifactConfig: {
        "architecture": "lenet5",
        "input": IMAGE,
        "output": ClassificationSpec(("a", "b")),
        "provenance": Provenance(ORIGIN, 0, 1, 1),
    },
    PruneWeights: {"amount": 0.5},
    PruneChannels: {},
    Factorize: {"rank": 2},
    Compensate: {"inputs": [torch.ones(1, 1)]},
}
"""All that hold settings, or a model's facts, and what they cannot be made without."""


def list_number_fields(kind: type) -> dict[str, Any]:
    """Return the fields that may hold a float, each with its annotation; of a mapping of anything too."""
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if name in fields_of(kind)}
    return {name: hint for name, hint in hints.items() if {float, Any} & set(spread(hint))}


def fields_of(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def spread(hint: Any) -> list[Any]:
    """Return an annotation and all that it is made of."""
    return [hint, *(inner for argument in typing.get_args(hint) for inner in spread(argument))]


NUMBER_FIELDS = [(kind, name, hint) for kind in CONFIGS for name, hint in list_number_fields(kind).items()]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("kind", "name", "hint"), NUMBER_FIELDS, ids=lambda item: getattr(item, "__name__", str(item)))
def test_no_settings_made_in_python_hold_what_is_not_finite(kind: type, name: str, hint: Any, value: float) -> None:
    parts = spread(hint)
    # As the annotation wants it: a number, some of them, or by name.
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    shapes: list[Any] = [value] if float in choices else []
    shapes += [(value, 0.5)] if tuple[float, float] in parts else []
    shapes += [(value,)] if tuple[float, ...] in parts else []
    shapes += [{"layer": value}] if any(typing.get_origin(part) is Mapping for part in parts) else []
    assert shapes
    for shape in shapes:
        with pytest.raises(ConfigError, match=rf"^({name}|layer|amount|options)\S*: wanted .*found .*(inf|nan)"):
            kind(**{**CONFIGS[kind], name: shape})


def test_the_table_above_leaves_none_out() -> None:
    waiting: list[Any] = [RunConfig, SearchConfig, ArtifactConfig]
    found: set[Any] = set()
    while waiting:
        parts = {part for hint in typing.get_type_hints(waiting.pop()).values() for part in spread(hint)}
        new = {part for part in parts if dataclasses.is_dataclass(part)} - found
        waiting += new
        found |= new
    assert {kind for kind in found if list_number_fields(kind)} <= CONFIGS.keys()


def test_finite_values_at_any_depth_are_let_through() -> None:
    nested: Any = 0.5
    for _ in range(5000):
        nested = [nested]
    assert ModelConfig("lenet5", options={"deep": nested, "text": "inf", "large": 10**400}).name == "lenet5"
    with pytest.raises(ConfigError, match=r"^options: wanted a finite number, found inf$"):
        ModelConfig("lenet5", options={"deep": [nested, {"rate": np.float32(math.inf)}]})
