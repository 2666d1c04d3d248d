"""EfficientNet: its scaling rule against the paper's numbers, its layers against timm's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from falconet.complexity import summarize
from falconet.errors import ConfigError
from falconet.models import MODELS, create_model
from falconet.models.efficientnet import (
    EfficientNet,
    InvertedBottleneck,
    SameConv2d,
    Scaling,
    Stage,
    Style,
    make_divisible,
    round_repeats,
    scale_compound,
    scale_stages,
)
from falconet.models.layers import StochasticDepth


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(name: str = "efficientnet", size: int = 32, **options: Any) -> EfficientNet:
    """Return a network without values, of which shapes are asked alone."""
    with torch.device("meta"):
        model = create_model(name, num_classes=10, input_size=size, **options)
    assert isinstance(model, EfficientNet)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_nothing_is_scaled_at_zero() -> None:
    assert scale_compound(0) == Scaling(1.0, 1.0, 1.0)
    assert scale_compound(0).input_size == 224


@given(st.floats(-20, 19))
@settings(deadline=None)
def test_cost_doubles_with_phi(phi: float) -> None:
    before, after = scale_compound(phi), scale_compound(phi + 1)
    costs = [scaling.depth * scaling.width**2 * scaling.resolution**2 for scaling in (before, after)]
    assert costs[1] / costs[0] == pytest.approx(2, rel=0.05)
    assert (after.depth / before.depth, after.width / before.width, after.resolution / before.resolution) == (
        pytest.approx((1.2, 1.1, 1.15))
    )


@given(phi=st.floats(-2, 2), alpha=st.floats(1, 2), beta=st.floats(1, 2), gamma=st.floats(1, 2))
@settings(deadline=None)
def test_other_coefficients(phi: float, alpha: float, beta: float, gamma: float) -> None:
    found = scale_compound(phi, alpha, beta, gamma)
    logs = [math.log(alpha), math.log(beta), math.log(gamma)]
    assert [math.log(value) for value in (found.depth, found.width, found.resolution)] == pytest.approx(
        [phi * log for log in logs], abs=1e-9
    )


@pytest.mark.slow
@given(st.floats(-20, 20))
@settings(deadline=None)
def test_input_size_is_the_nearest_multiple_of_four(phi: float) -> None:
    scaling = scale_compound(phi)
    assert scaling.input_size % 4 == 0
    assert scaling.input_size >= 4
    assert abs(scaling.input_size - 224 * scaling.resolution) <= 2 + 1e-9 or scaling.input_size == 4


@pytest.mark.parametrize(
    ("phi", "name"), [(0, "efficientnet_b0"), (1, "efficientnet_b2"), (2, "efficientnet_b3"), (3.5, "efficientnet_b4")]
)
def test_phi_gives_the_published_networks(phi: float, name: str) -> None:
    scaling, options = scale_compound(phi), MODELS[name].options
    published = scale_stages(options["width"], options["depth"], lite=False)
    assert scale_stages(scaling.width, scaling.depth, lite=False) == published
    found = {key: value.shape for key, value in build(phi=phi).state_dict().items()}
    assert found == {key: value.shape for key, value in build(name).state_dict().items()}


@pytest.mark.slow
def test_built_networks_about_double_their_cost() -> None:
    macs = []
    for phi in (0, 1, 2):
        size = scale_compound(phi).input_size
        macs.append(summarize("efficientnet", input_shape=(3, size, size), phi=phi).macs)
    assert macs[0] == MODELS["efficientnet_b0"].macs
    assert (macs[-1] / macs[0]) ** (1 / 2) == pytest.approx(2, rel=0.1)
    assert all(later > 1.5 * earlier for earlier, later in pairwise(macs))


@given(channels=st.integers(1, 2000), width=st.floats(0.05, 4))
@settings(deadline=None)
def test_channels_are_the_nearest_multiple_of_8_but_never_below_nine_tenths(channels: int, width: float) -> None:
    found, scaled = make_divisible(channels, width), channels * width
    assert found % 8 == 0
    assert found >= max(0.9 * scaled, 8)
    # Higher than the nearest multiple only where that would take more than a tenth away.
    assert found - scaled <= 4 or found == 8 or found - 8 < 0.9 * scaled


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(32, 1.0, 32), (16, 1.1, 16), (24, 1.1, 24), (16, 0.1, 8), (10, 1.0, 16)]
)
def test_make_divisible_by_hand(channels: int, width: float, expected: int) -> None:
    assert make_divisible(channels, width) == expected


@given(repeats=st.integers(1, 20), depth=st.floats(0.01, 4))
@settings(deadline=None)
def test_repeats_are_rounded_up(repeats: int, depth: float) -> None:
    found = round_repeats(repeats, depth)
    assert found >= 1
    assert repeats * depth <= found < repeats * depth + 1


def test_lite_repeats_the_first_and_last_stage_once_and_fixes_stem_and_head() -> None:
    full, lite = (scale_stages(1.4, 1.8, lite) for lite in (False, True))
    assert [stage.repeats for stage in full] == [2, 4, 4, 6, 6, 8, 2]
    assert [stage.repeats for stage in lite] == [1, 4, 4, 6, 6, 8, 1]
    assert [stage.channels for stage in full] == [stage.channels for stage in lite]
    state = build("efficientnet_lite4").state_dict()
    assert state["features.0.0.weight"].shape[0] == 32
    assert state["features.8.0.weight"].shape[0] == 1280


def test_lite_squeezes_nothing_and_clips() -> None:
    kinds = {type(module).__name__ for module in build("efficientnet_lite0").modules()}
    assert "ReLU6" in kinds
    assert not kinds & {"SqueezeExcitation", "SiLU", "ReLU"}


@pytest.mark.slow
def test_smaller_phi_has_fewer_parameters() -> None:
    params = [count(build(phi=phi)) for phi in (-20, -6, -4, -2, -1, 0, 1)]
    assert params == sorted(set(params))


@torch.no_grad()
def test_smallest_phi_answers() -> None:
    model = create_model("efficientnet", num_classes=10, input_size=8, phi=-20).eval()
    assert model(torch.randn(2, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize("phi", [-20.5, 11, 1e9, math.inf, math.nan])
def test_phi_out_of_range(phi: float) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.options\.phi: wanted a number from -20 to 10, found {phi}$"):
        build(phi=phi)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout: wanted a fraction from 0 to below 1, found 1.0"),
        ({"drop_path": -0.1}, "drop_path: wanted a fraction from 0 to below 1, found -0.1"),
        ({"norm_eps": 0.0}, "norm_eps: wanted a number above 0, found 0.0"),
    ],
)
def test_options_with_no_such_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("efficientnet_b0", **options)
    assert str(caught.value) == f"model.options.{message}"


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    groups=st.sampled_from([1, 4]),
)
@settings(deadline=None)
@torch.no_grad()
def test_same_padding_is_tensorflows(size: tuple[int, int], kernel: int, stride: int, groups: int) -> None:
    convolution = SameConv2d(4, 4, kernel, stride, groups=groups)
    peer = Conv2dSame(4, 4, kernel, stride, groups=groups)
    peer.load_state_dict(convolution.state_dict())
    x = torch.randn(2, 4, *size)
    found = convolution(x)
    assert found.shape[2:] == tuple(math.ceil(side / stride) for side in size)
    torch.testing.assert_close(found, peer(x))


def test_same_padding_puts_the_odd_pixel_at_the_end() -> None:
    convolution = SameConv2d(1, 1, 3, 2, bias=False)
    nn.init.ones_(convolution.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert convolution(x)[0, 0].tolist() == [[45.0, 39.0], [66.0, 50.0]]


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_same_padding_is_of_strided_convolutions_alone(name: str) -> None:
    convolutions = [module for module in build(name, 224, padding="same").modules() if isinstance(module, nn.Conv2d)]
    strided = [module for module in convolutions if module.stride != (1, 1)]
    assert len(strided) == 5
    assert [module for module in convolutions if isinstance(module, SameConv2d)] == strided
    assert not any(isinstance(module, SameConv2d) for module in build(name, 224).modules())


@pytest.mark.slow
def test_norm_eps_is_everywhere() -> None:
    cases: tuple[tuple[dict[str, Any], float], ...] = (({"norm_eps": 0.01}, 0.01), ({}, 1e-5))
    for options, expected in cases:
        layers = [layer for layer in build("efficientnet_b0", **options).modules() if isinstance(layer, nn.BatchNorm2d)]
        assert {layer.eps for layer in layers} == {expected}
    assert next(layer for layer in build("efficientnet_b5").modules() if isinstance(layer, nn.BatchNorm2d)).eps == 1e-3


def test_stochastic_depth_is_the_identity_in_inference() -> None:
    branch = torch.randn(8, 3, 2, 2)
    assert torch.equal(StochasticDepth(0.9).eval()(branch), branch)
    assert torch.equal(StochasticDepth(0.0).train()(branch), branch)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("rest", [(), (3,), (2, 2, 2)])
def test_stochastic_depth_keeps_the_mean_and_drops_whole_samples(share: float, rest: tuple[int, ...]) -> None:
    samples = 40_000
    found = StochasticDepth(share).train()(torch.ones(samples, *rest)).view(samples, -1)
    assert torch.equal(found, found[:, :1].expand_as(found))
    dropped = (found[:, 0] == 0).float().mean().item()
    # Four standard deviations of a share of so many draws.
    assert dropped == pytest.approx(share, abs=4 * (share * (1 - share) / samples) ** 0.5)
    assert found[found > 0].unique().tolist() == pytest.approx([1 / (1 - share)])
    assert found.mean().item() == pytest.approx(1, abs=4 * (share / (1 - share) / samples) ** 0.5)


def test_drop_path_grows_from_zero_with_the_block() -> None:
    blocks = [
        module for module in build("efficientnet_b0", drop_path=0.4).modules() if isinstance(module, InvertedBottleneck)
    ]
    shares = [block.stochastic_depth.drop_prob for block in blocks]
    assert shares == pytest.approx([0.4 * index / 16 for index in range(16)])


def test_dropped_block_is_its_shortcut() -> None:
    stage = Stage(expand=6, kernel=3, stride=1, channels=8, repeats=1)
    block = InvertedBottleneck(8, stage, 1, 0.5, Style(lite=False, padding="symmetric", norm_eps=1e-5)).train()
    x = torch.randn(64, 8, 4, 4)
    unchanged = [torch.equal(sample, found) for sample, found in zip(x, block(x), strict=True)]
    assert 16 < sum(unchanged) < 48
    assert not any(torch.equal(sample, found) for sample, found in zip(x, block.eval()(x), strict=True))


@pytest.mark.parametrize(("stride", "channels", "residual"), [(1, 8, True), (2, 8, False), (1, 16, False)])
@torch.no_grad()
def test_shortcut_is_there_where_it_fits(stride: int, channels: int, residual: bool) -> None:
    stage = Stage(expand=6, kernel=5, stride=stride, channels=channels, repeats=1)
    block = InvertedBottleneck(8, stage, stride, 0.0, Style(lite=False, padding="symmetric", norm_eps=1e-5)).eval()
    x = torch.randn(2, 8, 6, 6)
    branch: Tensor = block.block(x)
    assert branch.shape == (2, channels, 6 // stride, 6 // stride)
    assert torch.equal(block(x), x + branch if residual else branch)


@pytest.mark.parametrize(
    ("size", "stem", "expected"), [(28, "auto", 28), (63, "auto", 63), (64, "auto", 32), (32, "imagenet", 16)]
)
def test_stem(size: int, stem: str, expected: int) -> None:
    model = build("efficientnet_b0", size, stem=stem)
    assert model.features[0](torch.empty(1, 3, size, size, device="meta")).shape == (1, 32, expected, expected)
