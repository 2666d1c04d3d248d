"""Networks against what was published: their costs, and their answers in torchvision and timm with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from falconet.models import MODELS, create_model
from falconet.models.weights.loading import from_state
from falconet.models.weights.pretrained import load_matching_weights

PARAMS = {
    "alexnet": 61_100_840,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}
CIFAR = {"resnet20", "resnet32", "resnet44", "resnet56", "resnet110"}
"""Published for 10 classes; the others for 1,000."""
GIGA_MACS = {"efficientnet_b0": 0.39, "resnet50": 4.1, "squeezenet1_0": 0.82, "alexnet": 0.71}
TORCHVISION = [name for name in PARAMS if hasattr(torchvision.models, name)]
LITE = [f"efficientnet_lite{number}" for number in range(5)]
QUICK = {"alexnet", "squeezenet1_1", "resnet18", "efficientnet_b0", "efficientnet_lite0"}
TOLERANCE = 1e-5
"""Of the largest logit."""


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def mark_slow(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Give every tensor values that differ, batch normalization's statistics too, and set the mode for inference."""
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean") or (value.ndim == 1 and key.endswith("bias")):
            value.normal_(std=0.2)
        elif value.ndim == 1:
            value.uniform_(0.5, 1.5)
        elif value.ndim > 1:
            value.normal_(std=(2 / value[0].numel()) ** 0.5)
    return model.eval()


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert expected.isfinite().all()
    assert (expected[0] != expected[1]).any()
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@pytest.mark.parametrize(("name", "params"), PARAMS.items())
def test_parameters_are_as_published(name: str, params: int) -> None:
    assert MODELS[name].params == params
    assert MODELS[name].num_classes == (10 if name in CIFAR else 1000)


@pytest.mark.parametrize(("name", "published"), GIGA_MACS.items())
def test_macs_are_as_published(name: str, published: float) -> None:
    macs = MODELS[name].macs
    assert macs is not None
    assert macs / 1e9 == pytest.approx(published, rel=0.02)


def test_torchvision_has_the_counterparts() -> None:
    assert len(TORCHVISION) == 16


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TORCHVISION]
)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        model, peer = create_model(name), torchvision.models.get_model(name)
    assert list(shapes_of(model).items()) == list(shapes_of(peer).items())


@pytest.mark.parametrize("name", mark_slow(TORCHVISION))
@torch.no_grad()
def test_logits_are_torchvisions(name: str) -> None:
    size = 224 if name == "alexnet" else 96
    # Weights are all drawn below; the networks' own would take longest.
    with torch.device("meta"):
        model, peer = create_model(name, input_size=size), torchvision.models.get_model(name)
    randomize(peer.to_empty(device="cpu"))
    model.load_state_dict(peer.state_dict(), assign=True)
    x = torch.randn(2, 3, size, size)
    assert_same(model.eval()(x), peer(x))


def make_pair(name: str, architecture: str, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Return a network of ours and timm's of the same weights, which came by way of their names there."""
    peer = randomize(timm.create_model(architecture))
    found = from_state(name, peer.state_dict(), "timm")
    model = create_model(name, **{**found.options, **options})
    load_matching_weights(model, found)
    return model.eval(), peer


@pytest.mark.parametrize("name", mark_slow(LITE))
@torch.no_grad()
def test_logits_of_lite_are_timms(name: str) -> None:
    model, peer = make_pair(name, name)
    x = torch.randn(2, 3, 96, 96)
    assert_same(model(x), peer(x))


@torch.no_grad()
def test_logits_with_tensorflows_padding_are_timms() -> None:
    model, peer = make_pair("efficientnet_lite0", "tf_efficientnet_lite0", padding="same", norm_eps=1e-3)
    for size in ((96, 96), (97, 97), (96, 75)):
        x = torch.randn(2, 3, *size)
        assert_same(model(x), peer(x))
