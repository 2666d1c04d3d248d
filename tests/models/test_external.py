"""Networks of timm and torchvision, for other classes, channels and sizes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from falconet import ImageSpec, create_model, load_artifact, train
from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance
from falconet.errors import ConfigError, MissingExtraError, UnknownNameError
from falconet.models.external import replace_first_convolution
from falconet.models.registry import EXTERNAL, find_model
from falconet.spec import ClassificationSpec

NETWORKS: dict[str, dict[str, Any]] = {
    "torchvision:mobilenet_v3_small": {},
    "torchvision:googlenet": {"init_weights": False},
    "timm:resnet10t": {},
    "timm:vit_tiny_patch16_224": {"depth": 2},
}
"""And options that make them quicker to build."""


@torch.inference_mode()
def answer(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network.eval()(images)
    return logits


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_for_any_classes_channels_and_size(name: str, channels: int) -> None:
    options = NETWORKS[name]
    network = create_model(name, num_classes=5, in_channels=channels, input_size=64, **options)
    logits = answer(network, torch.randn(2, channels, 64, 64))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert (answer(network, torch.randn(2, channels, 64, 64)) != logits).any()


def test_training_gives_logits_alone() -> None:
    """GoogLeNet's own would give those of its other classifiers too."""
    network = create_model("torchvision:googlenet", num_classes=5, input_size=64, init_weights=False).train()
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_weights_are_drawn_as_the_library_draws_them() -> None:
    torch.manual_seed(3)
    ours = create_model("torchvision:mobilenet_v3_small", num_classes=5)
    torch.manual_seed(3)
    theirs = torchvision.models.mobilenet_v3_small(num_classes=5)
    for (name, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        (
            "torchvision:mobilenet_v3_smal",
            "unknown model of torchvision 'mobilenet_v3_smal': did you mean mobilenet_v3_s",
        ),
        ("torchvision:fcn_resnet50", "unknown model of torchvision 'fcn_resnet50'"),
        ("torchvision:get_model", "unknown model of torchvision 'get_model'"),
        ("timm:resnet10tt", "unknown model of timm 'resnet10tt': did you mean resnet10t"),
        ("timm:qqqqqqqqqqqq", "unknown model of timm 'qqqqqqqqqqqq': known: "),
        ("tim:resnet18", "unknown model 'tim:resnet18'"),
    ],
)
def test_unknown_names_get_a_short_answer(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_model(name)
    message = str(caught.value)
    assert message.startswith(near)
    assert "\n" not in message
    assert len(message) < 1500


def test_options_are_those_of_the_library() -> None:
    assert create_model("timm:resnet10t", drop_rate=0.25).drop_rate == 0.25
    assert len(create_model("timm:vit_tiny_patch16_224", input_size=64, depth=2).get_submodule("blocks")._modules) == 2
    dropout = create_model("torchvision:mobilenet_v3_small", dropout=0.125).get_submodule("classifier.2")
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.125


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:resnet10t", {"no_such_option": 1}),
        ("torchvision:resnet18", {"no_such_option": 1}),
        ("timm:vit_tiny_patch16_224", {"num_heads": 7, "depth": 1}),
        ("torchvision:vit_b_32", {"input_size": 65}),
        ("torchvision:alexnet", {"input_size": 24}),
        ("torchvision:vit_b_32", {"input_size": (64, 96)}),
    ],
)
def test_what_the_library_does_not_build_is_refused_in_one_line(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^model.*(does not build|takes squares, found 64x96)") as caught:
        create_model(name, **options)
    assert "\n" not in str(caught.value)


def test_what_the_name_says_is_no_option() -> None:
    with pytest.raises((ConfigError, UnknownNameError)):
        create_model("timm:resnet10t", architecture="resnet18")


def test_a_tag_of_weights_names_the_same_network() -> None:
    plain, tagged = (create_model(name).state_dict() for name in ("timm:resnet10t", "timm:resnet10t.c3_in1k"))
    assert {key: value.shape for key, value in plain.items()} == {key: value.shape for key, value in tagged.items()}


def test_timm_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"a network of timm needs .*falconet\[zoo\]"):
        create_model("timm:resnet10t")


@pytest.mark.parametrize("library", EXTERNAL)
def test_the_entry_of_a_network_elsewhere(library: str) -> None:
    entry = find_model(f"{library}:whatever")
    assert (entry.kinds, entry.resizable, entry.params, entry.macs) == (("image",), True, None, None)
    assert entry.options == {"architecture": "whatever"}


@pytest.mark.parametrize("bias", [True, False])
def test_only_the_first_convolution_is_made_anew(bias: bool) -> None:
    first = nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 2), dilation=2, bias=bias, padding_mode="reflect")
    network = nn.Sequential(nn.Sequential(first, nn.ReLU()), nn.Conv2d(4, 2, 1))
    last = network[1]
    replace_first_convolution(network, 7)
    fresh = network.get_submodule("0.0")
    assert isinstance(fresh, nn.Conv2d)
    assert network[1] is last
    assert (fresh.in_channels, fresh.weight.shape) == (7, (4, 7, 3, 5))
    for setting in ("stride", "padding", "dilation", "padding_mode", "groups", "out_channels"):
        assert getattr(fresh, setting) == getattr(first, setting)
    assert (fresh.bias is not None) == bias


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:mobilenet_v3_small"])
def test_an_artifact_answers_as_the_network_did(tmp_path: Path, name: str) -> None:
    network = create_model(name, num_classes=2, in_channels=1, input_size=40)
    spec = ImageSpec((1, 40, 40), (0.5,), (0.25,))
    origin = DataOrigin("here", "0", None, 0.1, 0.1)
    Artifact(
        ArtifactConfig(name, spec, ClassificationSpec(("dark", "light")), Provenance(origin, 0, 1, 1)),
        network.state_dict(),
    ).save(tmp_path)
    images = torch.randn(2, 1, 40, 40)
    torch.testing.assert_close(answer(load_artifact(tmp_path).model, images), answer(network, images))


@pytest.mark.slow
def test_timm_networks_are_trained_as_others_are(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 12)
    images = generator.normal(80 + 90 * labels[:, None, None], 20, (24, 24, 24)).clip(0, 255)
    np.savez(tmp_path / "set.npz", images=images.astype(np.uint8), labels=labels)
    result = train(tmp_path / "set.npz", model="timm:resnet10t", epochs=1, out=tmp_path / "run")
    artifact = load_artifact(result.out)
    assert (result.architecture, artifact.config.input.shape) == ("timm:resnet10t", (1, 24, 24))
    fresh = timm.create_model("resnet10t", num_classes=2, in_chans=1)
    fresh.load_state_dict(dict(artifact.weights))
    pixels = torch.randn(2, 1, 24, 24)
    torch.testing.assert_close(answer(artifact.model, pixels), answer(fresh, pixels))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("timm:resnet10t", "checkpoint_path"),
        ("timm:resnet10t", "pretrained_cfg"),
        ("torchvision:resnet18", "weights"),
        ("torchvision:googlenet", "weights_backbone"),
    ],
)
def test_no_option_reads_or_fetches_weights(name: str, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.options\.{option}: wanted options of the network alone"):
        create_model(name, **{option: "somewhere.pth"})  # type: ignore[arg-type]
