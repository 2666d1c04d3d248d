"""What differs from an architecture, as JSON: there and back, and what a damaged or hostile file says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from falconet.artifact import ArtifactConfig, DataOrigin, Provenance, build_model, check_forward
from falconet.errors import ArtifactError, ConfigError
from falconet.models import create_model
from falconet.models.widths import Factorized, Folded, apply_widths, read_widths
from falconet.spec import ClassificationSpec, ImageSpec

DENSE: dict[str, Any] = {"num_classes": 3, "in_channels": 1, "input_size": 28}
LAYERS = ("conv1", "conv2", "fc1", "fc2")


ABC = ClassificationSpec(("a", "b", "c"))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(name: str = "lenet_relu", **options: Any) -> nn.Module:
    return create_model(name, **DENSE, **options)


@pytest.mark.parametrize(
    ("name", "options", "widths"),
    [
        ("lenet_relu", {}, {"conv1": [5, 1], "conv2": [64, 5]}),
        ("lenet_relu", {}, {"conv2": {"rank": 9}, "fc1": {"out": 100, "rank": 4}, "fc2": [3, 100]}),
        ("lenet_relu", {"batch_norm": True}, {"conv1": {"out": 7, "bias": True}, "bn1": "folded", "conv2": [64, 7]}),
        ("efficientnet_lite0", {}, {"features.1.0.block.0.0": 11, "features.1.0.block.0.1": 11}),
        ("efficientnet_lite0", {}, {"features.1.0.block.0.0": {"out": 11, "bias": True}, "features.0.1": "folded"}),
    ],
)
def test_there_and_back(name: str, options: dict[str, Any], widths: dict[str, Any]) -> None:
    model = apply_widths(build(name, **options), widths)
    assert json.loads(json.dumps(read_widths(model, build(name, **options)))) == widths


def test_no_difference_is_none() -> None:
    assert read_widths(build(), build()) is None
    assert read_widths(apply_widths(build(), {}), build()) is None


def test_layers_are_what_their_entries_say() -> None:
    widths = {"conv1": {"out": 6, "bias": True}, "bn1": "folded", "conv2": {"in": 6, "rank": 2}, "bn2": 64}
    model = apply_widths(build(batch_norm=True), widths)
    first, second = model.get_submodule("conv1"), model.get_submodule("conv2")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, Factorized)
    assert (first.in_channels, first.out_channels, first.weight.shape) == (1, 6, (6, 1, 5, 5))
    assert first.bias is not None
    assert first.bias.shape == (6,)
    assert isinstance(model.get_submodule("bn1"), Folded)
    assert {name: tuple(tensor.shape) for name, tensor in second.named_parameters()} == {
        "0.weight": (2, 6, 5, 5),
        "1.weight": (64, 2, 1, 1),
    }
    assert model(torch.randn(4, 1, 28, 28)).shape == (4, 3)


def test_depthwise_convolutions_keep_as_many_groups() -> None:
    model = apply_widths(build("efficientnet_lite0"), {"features.1.0.block.0.0": 11})
    layer = model.get_submodule("features.1.0.block.0.0")
    assert isinstance(layer, nn.Conv2d)
    assert (layer.in_channels, layer.out_channels, layer.groups) == (11, 11, 11)
    assert layer(torch.randn(1, 11, 8, 8)).shape == (1, 11, 8, 8)


def test_other_differences_are_not_passed_over() -> None:
    model = build()
    model.fc1 = nn.Linear(1024, 128, bias=False)
    with pytest.raises(ConfigError, match=r"model: fc1\.bias differs from the architecture by more than its width"):
        read_widths(model, build())
    with pytest.raises(ConfigError, match="wanted a whole number from 1 to 32, found 40"):
        read_widths(build(width=40), build())


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"conv9": [1, 1]}, r"widths\.conv9: wanted the name of a convolution"),
        ({"": [1, 1]}, "wanted the name of a convolution"),
        ({"conv1": [33, 1]}, r"widths\.conv1\.out: wanted a whole number from 1 to 32, found 33"),
        ({"conv1": [0, 1]}, "from 1 to 32, found 0"),
        ({"conv1": [True, 1]}, "from 1 to 32, found True"),
        ({"conv1": [1.0, 1]}, r"from 1 to 32, found 1\.0"),
        ({"conv1": [1, 1, 1]}, "wanted widths among out, in, rank, bias"),
        ({"conv1": 4}, "wanted widths among"),
        ({"conv1": None}, "wanted widths among"),
        ({"conv1": {"groups": 2}}, "wanted widths among"),
        ({"conv1": {"bias": 1}}, r"widths\.conv1\.bias: wanted true or nothing, found 1"),
        ({"conv2": {"rank": 65}}, r"widths\.conv2\.rank: wanted a whole number from 1 to 64, found 65"),
        ({"conv2": {"rank": 64}}, "wanted factors smaller than the layer, found 64"),
        ({"bn1": 33}, r"widths\.bn1: wanted a whole number from 1 to 32, found 33"),
        ({"bn1": "gone"}, "from 1 to 32, found 'gone'"),
        ({"bn1": [3, 3]}, "from 1 to 32"),
    ],
)
def test_damaged_entries(widths: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_widths(build(batch_norm=True), widths)


keys: st.SearchStrategy[str] = st.sampled_from(["out", "in", "rank", "bias", "groups"])
numbers: st.SearchStrategy[Any] = (
    st.integers(-2, 70) | st.integers() | st.booleans() | st.floats() | st.none() | st.text(max_size=3)
)
entries = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
names = st.sampled_from([*LAYERS, "bn1", "", "conv1.weight"]) | st.text(max_size=4)


@settings(max_examples=40)
@given(widths=st.dictionaries(names, entries | st.just("folded"), max_size=4))
def test_hostile_widths_make_a_network_or_an_artifact_error(widths: dict[str, Any]) -> None:
    spec = ImageSpec((1, 28, 28), (0.5,), (0.25,))
    origin = Provenance(DataOrigin("digits", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    options = {"batch_norm": True}
    dense = sum(parameter.numel() for parameter in build(batch_norm=True).parameters())
    try:
        model = build_model(ArtifactConfig("lenet_relu", spec, ABC, origin, options, widths))
    except (ArtifactError, ConfigError):  # The second where a number is not finite, whoever makes such a config.
        return
    assert sum(parameter.numel() for parameter in model.parameters()) <= dense + 32 + 64
    assert model.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 3)


def test_outputs_are_as_many_as_labels() -> None:
    spec = ImageSpec((1, 28, 28), (0.5,), (0.25,))
    origin = Provenance(DataOrigin("digits", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    config = ArtifactConfig("lenet_relu", spec, ABC, origin, widths={"fc2": [2, 128]})
    with pytest.raises(ArtifactError, match="widths: wanted 3 outputs, found 2"):
        check_forward(build_model(config), torch.zeros(1, 1, 28, 28), config)
