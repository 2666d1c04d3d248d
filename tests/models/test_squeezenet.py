"""SqueezeNet against the paper's metaparameters and counts worked by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from falconet.errors import ConfigError
from falconet.models import create_model
from falconet.models.squeezenet import _SMALLEST, Fire, SqueezeNet

VERSIONS = ["squeezenet1_0", "squeezenet1_1"]
PUBLISHED = [
    (16, 64, 64),
    (16, 64, 64),
    (32, 128, 128),
    (32, 128, 128),
    (48, 192, 192),
    (48, 192, 192),
    (64, 256, 256),
    (64, 256, 256),
]
"""Kernels that squeeze, and those that expand by 1x1 and 3x3, of fire modules 2 to 9 (table 1)."""
BYPASSED, CHANGING = (3, 5, 7, 9), (2, 4, 6, 8)
"""Fire modules, as the paper numbers them, that keep and that change the number of channels."""

every_version = pytest.mark.parametrize("name", VERSIONS)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(name: str, size: int | tuple[int, int] = 64, **options: Any) -> SqueezeNet:
    model = create_model(name, num_classes=10, input_size=size, **options)
    assert isinstance(model, SqueezeNet)
    return model.eval()


def fires_of(model: SqueezeNet) -> dict[int, Fire]:
    """Return the fire modules by the paper's numbers."""
    return dict(enumerate((layer for layer in model.features if isinstance(layer, Fire)), start=2))


def sizes_of(model: SqueezeNet) -> list[tuple[int, int, int]]:
    return [
        (fire.squeeze.out_channels, fire.expand1x1.out_channels, fire.expand3x3.out_channels)
        for fire in fires_of(model).values()
    ]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@every_version
def test_metaparameters_of_section_5_give_the_published_sizes(name: str) -> None:
    paper: dict[str, Any] = {
        "base_expand": 128,
        "expand_increment": 128,
        "frequency": 2,
        "share_3x3": 0.5,
        "squeeze_ratio": 0.125,
    }
    assert sizes_of(build(name)) == sizes_of(build(name, **paper)) == PUBLISHED


@given(
    base=st.integers(1, 16).map(lambda number: 8 * number),
    increment=st.integers(0, 8).map(lambda number: 8 * number),
    frequency=st.integers(1, 9),
    eighths=st.integers(1, 7),
    ratio=st.sampled_from([0.125, 0.25, 0.5, 1.0, 1.5]),
)
@settings(deadline=None, max_examples=10)
def test_sizes_follow_the_papers_formula(base: int, increment: int, frequency: int, eighths: int, ratio: float) -> None:
    with torch.device("meta"):
        model = build(
            "squeezenet1_1",
            base_expand=base,
            expand_increment=increment,
            frequency=frequency,
            share_3x3=eighths / 8,
            squeeze_ratio=ratio,
        )
        for index, sizes in enumerate(sizes_of(model)):
            expand = base + increment * (index // frequency)
            assert sizes == (expand * ratio, expand * (8 - eighths) / 8, expand * eighths / 8)
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 10)


@every_version
def test_simple_bypass_is_the_identity_around_odd_fires(name: str) -> None:
    plain, model = build(name), build(name, bypass="simple")
    assert count(model) == count(plain)
    for number, fire in fires_of(model).items():
        assert isinstance(fire.bypass, nn.Identity) == (number in BYPASSED)
        assert (fire.bypass is None) == (number in CHANGING)


@every_version
def test_complex_bypass_is_a_convolution_around_even_fires(name: str) -> None:
    plain, model = build(name), build(name, bypass="complex")
    inputs = {2: 96 if name == "squeezenet1_0" else 64, 4: 128, 6: 256, 8: 384}
    outputs = {2: 128, 4: 256, 6: 384, 8: 512}
    for number, fire in fires_of(model).items():
        assert isinstance(fire.bypass, nn.Identity) == (number in BYPASSED)
        if number in CHANGING:
            assert isinstance(fire.bypass, nn.Conv2d)
            assert tuple(fire.bypass.weight.shape) == (outputs[number], inputs[number], 1, 1)
    assert count(model) == count(plain) + sum((inputs[number] + 1) * outputs[number] for number in CHANGING)


@torch.no_grad()
def test_bypass_is_added_to_what_was_expanded() -> None:
    plain, simple, both = (build("squeezenet1_1", bypass=bypass) for bypass in ("none", "simple", "complex"))
    for number in range(2, 10):
        fire, peer, changing = (fires_of(model)[number] for model in (plain, simple, both))
        peer.load_state_dict(fire.state_dict())
        changing.load_state_dict(fire.state_dict(), strict=False)
        x = torch.randn(2, fire.squeeze.in_channels, 5, 5)
        torch.testing.assert_close(peer(x), fire(x) + x if number in BYPASSED else fire(x))
        assert changing.bypass is not None
        torch.testing.assert_close(changing(x), fire(x) + changing.bypass(x))


@torch.no_grad()
def test_fire_with_bypass_leaves_its_input_alone() -> None:
    fire = fires_of(build("squeezenet1_1", bypass="simple"))[3]
    x = torch.randn(1, 128, 4, 4)
    before = x.clone()
    fire(x)
    assert torch.equal(x, before)


def test_squeeze_excitation_costs_two_dense_layers_a_fire() -> None:
    added = 0
    for _, *expands in PUBLISHED:
        channels = sum(expands)
        added += (channels + 1) * (channels // 16) + (channels // 16 + 1) * channels
    assert count(build("squeezenet_se")) == count(build("squeezenet1_1")) + added


@every_version
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_smallest_image(name: str, stem: str) -> None:
    smallest = _SMALLEST[name.removeprefix("squeezenet")][stem]
    model = build(name, smallest, stem=stem)
    assert model.features(torch.zeros(1, 3, smallest, smallest)).shape[2:] == (1, 1)
    message = rf"^model\.input_size: wanted at least {smallest}x{smallest} pixels, found {smallest - 1}x{smallest}$"
    with pytest.raises(ConfigError, match=message):
        build(name, (smallest - 1, smallest), stem=stem)


@every_version
def test_published_stem_takes_as_small_an_image_as_torchvisions(name: str) -> None:
    smallest = _SMALLEST[name.removeprefix("squeezenet")]["imagenet"]
    peer = torchvision.models.get_model(name).features
    assert peer(torch.zeros(1, 3, smallest, smallest)).shape[2:] == (1, 1)
    with pytest.raises(RuntimeError, match="too small"):
        peer(torch.zeros(1, 3, smallest - 1, smallest))


@every_version
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (40, 63)])
def test_small_stem_keeps_the_resolution(name: str, size: tuple[int, int]) -> None:
    seen: list[tuple[int, ...]] = []
    model = build(name, size)
    fires_of(model)[2].register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape[2:])))
    model(torch.zeros(1, 3, *size))
    assert seen == [size]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_expand": 0}, "base_expand: wanted a whole number above 0, found 0"),
        ({"frequency": -2}, "frequency: wanted a whole number above 0, found -2"),
        ({"expand_increment": -8}, "expand_increment: wanted a whole number, 0 or more, found -8"),
        ({"share_3x3": 1.0}, "share_3x3: wanted a fraction from 0 to below 1, found 1.0"),
        ({"squeeze_ratio": 0.0}, "squeeze_ratio: wanted a number above 0, found 0.0"),
        ({"dropout": -0.1}, "dropout: wanted a fraction from 0 to below 1, found -0.1"),
    ],
)
def test_options_with_no_such_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("squeezenet1_1", **options)
    assert str(caught.value) == f"model.options.{message}"
