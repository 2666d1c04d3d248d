"""Published weights: each layout against the library that it comes from, and files that are not what they seem."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import re
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from falconet import ImageSpec, RunResult, codec, create_model
from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, encode_artifact, load_artifact
from falconet.errors import ArtifactError, ConfigError, FalconetError, MissingExtraError, PathError
from falconet.models.weights.formats import CAFFE_LAYERS, read_weights
from falconet.models.weights.key_formats import IMAGENET_MEAN, IMAGENET_STD, TENSORFLOW_OPTIONS
from falconet.models.weights.loading import from_state, imagenet_labels, load_pretrained
from falconet.models.weights.pretrained import adapt_channels, load_matching_weights
from falconet.spec import ClassificationSpec

State = dict[str, Tensor]


def randomize(model: nn.Module) -> nn.Module:
    """Give batch normalization statistics and factors that no fresh network has; return the model in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return model.eval()


def make_images(channels: int = 3, size: int = 64) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def save(path: Path, state: Any) -> Path:
    """Write tensors in the format that the file's name says, in the order of their names where it keeps none."""
    if path.suffix == ".safetensors":
        content = {key: state[key].clone().contiguous() for key in sorted(state)}
        safetensors.torch.save_file(content, path)
    elif path.suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    else:
        torch.save(state, path)
    return path


@torch.inference_mode()
def answer(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model.eval()(images)
    return logits


def assert_same_answers(ours: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    expected = answer(theirs, images)
    assert expected.std() > 1e-4, "an answer that says nothing proves nothing"
    torch.testing.assert_close(answer(ours, images), expected, rtol=1e-5, atol=1e-5)


def name_as_tensorflow(state: Mapping[str, Tensor]) -> State:
    """Give timm's EfficientNet the names of ports of TensorFlow's, which number blocks from the first to the last."""
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    common = {"conv_dw": "_depthwise_conv", "se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    expanding = {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    plain = {"bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    numbers: dict[tuple[str, str], int] = {}
    renamed = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        if not layer.startswith("blocks."):
            renamed[f"{outside[layer]}.{part}"] = value
            continue
        _, stage, index, inner = layer.split(".", maxsplit=3)
        number = numbers.setdefault((stage, index), len(numbers))
        names = common | (expanding if f"blocks.{stage}.{index}.conv_pwl.weight" in state else plain)
        renamed[f"_blocks.{number}.{names[inner]}.{part}"] = value
    assert len(numbers) > 10, "or the order of their numbers is not put to the test"
    return renamed


@cache
def peer(library: str, name: str, classes: int = 10) -> nn.Module:
    """Return another library's network, with weights as strange as trained ones; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if library == "timm":
            return randomize(timm.create_model(name, num_classes=classes))
        return randomize(torchvision.models.get_model(name, num_classes=classes))


@pytest.mark.parametrize(
    ("name", "library", "theirs", "suffix"),
    [
        ("resnet18", "torchvision", "resnet18", ".pth"),
        ("resnet18", "timm", "resnet18", ".safetensors"),
        ("squeezenet1_1", "torchvision", "squeezenet1_1", ".npz"),
        ("efficientnet_b0", "timm", "efficientnet_b0", ".safetensors"),
        pytest.param("efficientnet_lite0", "timm", "efficientnet_lite0", ".pth", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "torchvision", "efficientnet_b0", ".pt", marks=pytest.mark.slow),
        pytest.param("resnet50", "torchvision", "resnet50", ".pth", marks=pytest.mark.slow),
        pytest.param("resnet50", "timm", "resnet50", ".npz", marks=pytest.mark.slow),
        pytest.param("alexnet", "torchvision", "alexnet", ".safetensors", marks=pytest.mark.slow),
        pytest.param("efficientnet_b2", "timm", "efficientnet_b2", ".safetensors", marks=pytest.mark.slow),
        pytest.param("efficientnet_b5", "timm", "efficientnet_b5", ".safetensors", marks=pytest.mark.slow),
        pytest.param("efficientnet_lite4", "timm", "efficientnet_lite4", ".safetensors", marks=pytest.mark.slow),
    ],
)
def test_logits_are_those_of_the_library_that_the_weights_come_from(
    tmp_path: Path, name: str, library: str, theirs: str, suffix: str
) -> None:
    reference = peer(library, theirs)
    path = save(tmp_path / f"weights{suffix}", reference.state_dict())
    found = load_pretrained(name, path)
    assert found.layout == ("timm" if "efficientnet" in name and library == "timm" else "falconet")
    assert (found.num_classes, found.labels, found.mean, found.std) == (10, None, IMAGENET_MEAN, IMAGENET_STD)
    network = create_model(name, num_classes=10, **found.options)
    header, *notes = load_matching_weights(network, found)
    assert header == f"weights of {name} ({found.layout} layout)"
    assert ["shapes would fit stem=small too" in note for note in notes] == [True] * (name in EITHER_STEM)
    assert_same_answers(network, reference, make_images())


EITHER_STEM = {"squeezenet1_1", "efficientnet_b0", "efficientnet_b2", "efficientnet_b5"}
EITHER_STEM |= {"efficientnet_lite0", "efficientnet_lite4"}
"""Networks whose stems have the same shapes at any size."""


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("efficientnet_b0", ".safetensors"), pytest.param("efficientnet_lite0", ".pth", marks=pytest.mark.slow)],
)
def test_tensorflow_weights_answer_as_the_networks_that_are_padded_so(tmp_path: Path, name: str, suffix: str) -> None:
    reference = peer("timm", f"tf_{name}")
    path = save(tmp_path / f"weights{suffix}", name_as_tensorflow(reference.state_dict()))
    found = load_pretrained(name, path)
    assert found.layout == "tensorflow"
    assert TENSORFLOW_OPTIONS.items() <= found.options.items()
    lite = "lite" in name
    assert found.mean == pytest.approx((127 / 255,) * 3 if lite else IMAGENET_MEAN)
    assert found.std == pytest.approx((128 / 255,) * 3 if lite else IMAGENET_STD)
    network = create_model(name, num_classes=10, **found.options)
    load_matching_weights(network, found)
    for size in (64, 65):
        assert_same_answers(network, reference, make_images(size=size))


@pytest.mark.parametrize("wrap", ["state_dict", "model", "model_state", "module.", "both"])
def test_weights_are_found_where_training_scripts_put_them(tmp_path: Path, wrap: str) -> None:
    reference = peer("torchvision", "squeezenet1_1")
    state: Any = dict(reference.state_dict())
    if wrap in ("module.", "both"):
        state = {f"module.{key}": value for key, value in state.items()}
    if wrap != "module.":
        state = {"epoch": 3, "state_dict" if wrap == "both" else wrap: state, "optimizer": {"lr": 0.1}}
    path = save(tmp_path / "weights.pth", state)
    assert_same_answers(create_model("squeezenet1_1", pretrained=path), reference, make_images())


def test_an_output_layer_called_linear_is_the_output_layer(tmp_path: Path) -> None:
    reference = randomize(create_model("resnet20"))
    state = {key.replace("fc.", "linear."): value for key, value in reference.state_dict().items()}
    assert "linear.weight" in state
    path = save(tmp_path / "weights.pth", state)
    assert_same_answers(create_model("resnet20", pretrained=path), reference, make_images(size=32))


def test_batch_normalization_without_counters_is_complete() -> None:
    state = {key: value for key, value in peer("torchvision", "resnet18").state_dict().items() if "num_b" not in key}
    assert from_state("resnet18", state, "here").num_classes == 10


# SqueezeNet as Caffe and Deep Compression have it.


@cache
def make_sparse_weights() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the codebook, the dense codes and the biases of each layer; some gaps are far above 15."""
    generator = np.random.default_rng(0)
    layers = {}
    for layer, (outputs, inputs, side) in CAFFE_LAYERS.items():
        # As large as keeps the answers of all layers of one order, however few weights are left.
        scale = (2 / (inputs * side * side * 0.06)) ** 0.5
        codebook = np.append(0.0, generator.normal(0, scale, 255)).astype("<f4")
        codes = generator.integers(1, 256, outputs * inputs * side * side)
        codes[generator.random(codes.size) > 0.06] = 0
        bias = generator.normal(0, 0.01, outputs).astype("<f4")
        layers[layer] = codebook, codes.reshape(outputs, inputs, side, side), bias
    return layers


def encode_layer(codes: np.ndarray) -> tuple[bytes, bytes, int]:
    """Return stored codes, gaps in halves of bytes, and how many there are; code 0 stands after 15 zeros too many."""
    stored: list[int] = []
    gaps: list[int] = []
    last = -1
    for place in np.flatnonzero(codes):
        gap = int(place) - last - 1
        while gap > 15:
            stored.append(0)
            gaps.append(15)
            gap -= 16
        stored.append(int(codes.flat[place]))
        gaps.append(gap)
        last = int(place)
    padded = [*gaps, 0] if len(gaps) % 2 else gaps
    halves = bytes(low | high << 4 for low, high in zip(padded[::2], padded[1::2], strict=True))
    return bytes(stored), halves, len(stored)


@cache
def encode_network() -> bytes:
    """Return a network as SqueezeNet's authors compress it."""
    counts, bodies = [], []
    for codebook, codes, bias in make_sparse_weights().values():
        stored, halves, count = encode_layer(codes)
        assert count > np.count_nonzero(codes), "no gap was above 15"
        counts.append(count)
        bodies.append(codebook.tobytes() + bias.tobytes() + stored + halves)
    return struct.pack(f"<{len(counts)}I", *counts) + b"".join(bodies)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "compressed_squeezenet.net"
    path.write_bytes(encode_network())
    return path


def test_compressed_weights_are_decoded_to_the_bit(compressed: Path) -> None:
    weights = read_weights(compressed)
    assert list(weights) == [f"{layer}.{part}" for layer in CAFFE_LAYERS for part in ("weight", "bias")]
    assert any(encode_layer(codes)[2] % 2 for _, codes, _ in make_sparse_weights().values())
    for layer, (codebook, codes, bias) in make_sparse_weights().items():
        np.testing.assert_array_equal(weights[f"{layer}.weight"].numpy(), codebook[codes])
        np.testing.assert_array_equal(weights[f"{layer}.bias"].numpy(), bias)


def test_squeezenet_of_caffe_answers_to_rgb_as_its_own_to_bgr(compressed: Path) -> None:
    """Caffe's network takes blue, green and red in 0..255, less the mean of each."""
    reference = torchvision.models.squeezenet1_0()
    places = {"conv1": "features.0", "conv10": "classifier.1"}
    fires = {2: 3, 3: 4, 4: 5, 5: 7, 6: 8, 7: 9, 8: 10, 9: 12}  # Pooling stands between.
    places |= {f"fire{number}": f"features.{index}" for number, index in fires.items()}
    state: State = {}
    for layer, (codebook, codes, bias) in make_sparse_weights().items():
        module, _, part = layer.partition("/")
        target = f"{places[module]}.{part.replace('squeeze1x1', 'squeeze')}".rstrip(".")
        state |= {f"{target}.weight": torch.from_numpy(codebook[codes]), f"{target}.bias": torch.from_numpy(bias)}
    reference.load_state_dict(state)
    found = load_pretrained("squeezenet1_0", compressed)
    assert (found.layout, found.options, found.labels) == ("caffe", {"stem": "imagenet"}, imagenet_labels())
    pixels = torch.randint(0, 256, (2, 3, 96, 96), generator=torch.Generator().manual_seed(0)).float()
    bgr = pixels.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.mean, found.std))
    expected = answer(reference, bgr)
    assert expected.std() > 1e-2
    ours = answer(create_model("squeezenet1_0", pretrained=compressed), (pixels / 255 - mean) / std)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_caffe_weights_are_found_in_any_kind_of_file(compressed: Path, tmp_path: Path) -> None:
    weights = read_weights(compressed)
    found = load_pretrained("squeezenet1_0", save(tmp_path / "weights.npz", weights))
    assert torch.equal(found.state["features.0.weight"], weights["conv1.weight"].flip(1))
    assert torch.equal(found.state["features.12.expand3x3.bias"], weights["fire9/expand3x3.bias"])


# What is known of weights, and how they are fitted.


def test_imagenet_has_a_thousand_names_and_none_twice() -> None:
    labels = imagenet_labels()
    published = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    assert len(labels) == len(set(labels)) == 1000
    assert list(labels) == published
    assert (labels[0], labels[134], labels[517]) == ("tench", "crane bird", "crane")


def test_a_thousand_outputs_are_those_of_imagenet() -> None:
    found = from_state("squeezenet1_1", peer("torchvision", "squeezenet1_1", 1000).state_dict(), "here")
    assert found.labels == imagenet_labels()
    assert found.input.shape == (3, 224, 224)
    assert (found.input.mean, found.input.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_weights_without_names_for_their_classes_say_so() -> None:
    found = from_state("resnet18", peer("torchvision", "resnet18").state_dict(), "here")
    with pytest.raises(ConfigError, match="resnet18: the weights do not say what their classes are called"):
        _ = found.input


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0"])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_the_stem_is_told_by_the_first_kernels(name: str, stem: str) -> None:
    reference = randomize(create_model(name, num_classes=5, stem=stem))
    found = from_state(name, reference.state_dict(), "here")
    assert found.options == {"stem": stem}
    fresh = create_model(name, num_classes=5, **found.options)
    load_matching_weights(fresh, found)
    assert_same_answers(fresh, reference, make_images(size=40))


def test_statistics_for_other_channels_are_the_means_of_both() -> None:
    found = from_state("resnet18", peer("torchvision", "resnet18").state_dict(), "here")
    assert found.statistics(3) == (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = found.statistics(1)
    assert mean == pytest.approx((0.449,))
    assert std == pytest.approx((0.226,))
    assert found.statistics(4) == (mean * 4, std * 4)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_gray_image_gives_the_same_sums_in_any_number_of_channels(channels: int) -> None:
    kernels = torch.randint(-30, 30, (4, 3, 5, 5)).double()
    adapted = adapt_channels(kernels * channels, channels)
    gray = torch.randint(0, 256, (2, 1, 9, 9)).double()
    expected = torch.conv2d(gray.expand(-1, 3, -1, -1), kernels * channels)
    ours = torch.conv2d(gray.expand(-1, channels, -1, -1), adapted)
    assert adapted.shape == (4, channels, 5, 5)
    assert torch.equal(ours.round(), expected)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_for_other_channels_sees_gray_as_the_original_did(tmp_path: Path, channels: int) -> None:
    reference = randomize(create_model("resnet20"))
    path = save(tmp_path / "weights.pth", reference.state_dict())
    made = create_model("resnet20", in_channels=channels, pretrained=path)
    gray = make_images(channels=1, size=32)
    expected = answer(reference, gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(answer(made, gray.expand(-1, channels, -1, -1)), expected, rtol=1e-4, atol=1e-4)
    network = create_model("resnet20", num_classes=10, in_channels=channels)
    notes = load_matching_weights(network, load_pretrained("resnet20", path))
    assert notes == ("weights of resnet20 (falconet layout)", f"conv1.weight: 3 channels to {channels}")


def test_the_output_layer_is_made_anew_for_other_classes() -> None:
    found = from_state("resnet18", peer("torchvision", "resnet18").state_dict(), "here")
    network = create_model("resnet18", num_classes=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    notes = load_matching_weights(network, found)
    after = network.state_dict()
    assert notes == ("weights of resnet18 (falconet layout)", "fc: made anew for 4 classes")
    for key, value in after.items():
        assert torch.equal(value, before[key] if key.startswith("fc.") or "num_b" in key else found.state[key]), key


@pytest.mark.parametrize(
    ("labels", "kept"),
    [(tuple("abcdefghij"), True), (tuple("abcdefghji"), False), (tuple("abcdefghi"), False), (None, True)],
)
def test_the_output_layer_stays_where_the_classes_are_the_same(labels: tuple[str, ...] | None, kept: bool) -> None:
    state = peer("torchvision", "resnet18").state_dict()
    found = dataclasses.replace(from_state("resnet18", state, "here"), labels=tuple("abcdefghij"))
    torch.manual_seed(1)  # Or it may begin with the weights with which the other began.
    network = create_model("resnet18", num_classes=9 if labels and len(labels) == 9 else 10)
    notes = load_matching_weights(network, found, labels)
    assert (len(notes) == 1) == kept
    ours = network.state_dict()["fc.weight"]
    assert torch.equal(ours, state["fc.weight"]) if kept else not torch.equal(ours, state["fc.weight"][: len(ours)])


def test_weights_do_not_follow_what_the_network_learns() -> None:
    found = from_state("resnet20", randomize(create_model("resnet20")).state_dict(), "here")
    before = found.state["conv1.weight"].clone()
    network = create_model("resnet20", **found.options)
    load_matching_weights(network, found)
    nn.init.zeros_(network.get_parameter("conv1.weight"))
    assert torch.equal(found.state["conv1.weight"], before)


def test_options_that_change_the_network_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "weights.pth", peer("torchvision", "resnet18").state_dict())
    with pytest.raises(ConfigError, match=r"wanted conv1.weight of shape \[64, 3, 3, 3\], found \[64, 3, 7, 7\]; the"):
        create_model("resnet18", pretrained=path, stem="small")


# Weights of other networks.


def damage(change: Callable[[State], Any]) -> State:
    state = dict(peer("torchvision", "resnet18").state_dict())
    change(state)
    return state


def test_options_that_add_layers_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "weights.pth", peer("torchvision", "resnet18").state_dict())
    with pytest.raises(ConfigError, match=r"only the network has layer1\.0\.excitation\.fc1\.bias; wanted the options"):
        create_model("resnet18", pretrained=path, squeeze_excitation=True)
    excited = create_model("resnet18", num_classes=10, squeeze_excitation=True)
    found = from_state("resnet18", peer("torchvision", "resnet18").state_dict(), "here")
    more = replace(found, state=excited.state_dict())
    with pytest.raises(ConfigError, match=r"only the weights have layer1\.0\.excitation\.fc1\.bias"):
        load_matching_weights(create_model("resnet18", num_classes=10), more)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("resnet34", lambda state: None, r"wanted layer1.2.conv1.weight, found no more"),
        ("efficientnet_b0", lambda state: None, r"wanted features.0.0.weight, found conv1.weight"),
        ("resnet18", lambda state: state.pop("bn1.bias"), r"wanted bn1.bias, found no more"),
        ("resnet18", lambda state: state.update({"fc.extra": torch.zeros(1)}), r"found fc.extra, which it does not"),
        (
            "resnet18",
            lambda state: state.update({"bn1.bias": torch.zeros(3)}),
            r"wanted bn1.bias of shape \[64\], found \[3\]",
        ),
        ("resnet18", lambda state: state.clear(), "no tensors"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, name: str, change: Callable[[State], Any], message: str
) -> None:
    path = save(tmp_path / "weights.pth", damage(change))
    with pytest.raises(ConfigError, match=rf"{path.name} holds no weights of {name}: {message}"):
        load_pretrained(name, path)


SHAPES = st.lists(st.integers(0, 5), max_size=5)


@settings(deadline=None, max_examples=12)
@given(key=st.sampled_from(["conv1.weight", "bn1.bias", "layer2.0.conv1.weight", "fc.weight", "fc.bias"]), shape=SHAPES)
def test_a_tensor_of_any_other_shape_is_refused(key: str, shape: list[int]) -> None:
    state = {**make_tiny(), key: torch.zeros(shape)}
    with pytest.raises(ConfigError, match="holds no weights of resnet20"):
        from_state("resnet20", state, "here")


@cache
def make_tiny() -> State:
    return dict(create_model("resnet20").state_dict())


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "lenet_relu"])
def test_a_trained_model_is_where_another_begins(tmp_path: Path, name: str) -> None:
    """With the same classes and size, and its own mean and deviation; its stem was chosen for 32 pixels."""
    spec, output = ImageSpec((3, 32, 32), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), ClassificationSpec(("dark", "light"))
    origin = DataOrigin("here", "0", None, 0.1, 0.1)
    network = randomize(create_model(name, num_classes=2, in_channels=3, input_size=32))
    artifact = Artifact(ArtifactConfig(name, spec, output, Provenance(origin, 0, 1, 1)), network.state_dict())
    artifact.save(tmp_path)
    assert load_pretrained(name, tmp_path).input == spec
    assert_same_answers(create_model(name, pretrained=tmp_path), network, make_images(size=32))


def save_small(folder: Path) -> Path:
    spec, output = ImageSpec((3, 32, 32), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), ClassificationSpec(("dark", "light"))
    network = randomize(create_model("squeezenet1_1", num_classes=2, in_channels=3, input_size=32))
    record = ArtifactConfig("squeezenet1_1", spec, output, Provenance(DataOrigin("here", "0", None, 0.1, 0.1), 0, 1, 1))
    Artifact(record, network.state_dict()).save(folder)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of a trained network whose stem cannot be told by its shapes."""
    return save_small(tmp_path)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the arrays of that network's coded file."""
    folder = save_small(tmp_path_factory.mktemp("coded"))
    return codec.decode(encode_artifact(load_artifact(folder)).serialize())


def test_a_trained_models_file_is_as_good_as_its_folder(small: Path) -> None:
    folder, file = (
        load_pretrained("squeezenet1_1", small),
        load_pretrained("squeezenet1_1", small / "model.safetensors"),
    )
    assert (file.options, file.input) == (folder.options, folder.input)
    assert file.options["stem"] == "small"
    (small / "model.safetensors").rename(small / "other.safetensors")
    guessed = load_pretrained("squeezenet1_1", small / "other.safetensors")
    assert guessed.options["stem"] == "imagenet"
    assert "stem=small" in guessed.notes[0]


@pytest.mark.slow
def test_a_coded_model_is_where_another_begins(small: Path) -> None:
    artifact = load_artifact(small)
    content = encode_artifact(artifact).serialize()
    (small / "small.fnet").write_bytes(content)
    found = load_pretrained("squeezenet1_1", small / "small.fnet")
    assert (found.input, found.options["stem"]) == (artifact.config.input, "small")
    made = create_model("squeezenet1_1", pretrained=small / "small.fnet")
    assert_same_answers(made, artifact.model, make_images(size=32))
    with pytest.raises(ConfigError, match=r"small\.fnet: wanted a trained squeezenet1_0, found squeezenet1_1"):
        load_pretrained("squeezenet1_0", small / "small.fnet")
    (small / "small.fnet").write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match=r"small\.fnet: the file is cut short or altered"):
        load_pretrained("squeezenet1_1", small / "small.fnet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"widths": {"features.0": 3}}, ConfigError, "wanted a whole squeezenet1_1, found a pruned one"),
        ({"options": {"input_size": 3}}, ArtifactError, "wanted options of squeezenet1_1"),
        ({"input": {"kind": "image", "shape": [3, 0, 0]}}, ArtifactError, "is damaged"),
        ({"options": {"squeeze_ratio": 0.5}}, ConfigError, "holds no weights of squeezenet1_1"),
    ],
)
def test_a_coded_model_that_is_not_what_it_says_is_refused(
    coded: tuple[dict[str, Any], dict[str, Any]],
    change: dict[str, Any],
    error: type[FalconetError],
    message: str,
    tmp_path: Path,
) -> None:
    header, arrays = coded
    (tmp_path / "small.fnet").write_bytes(codec.encode({**header, **change}, arrays))
    with pytest.raises(error, match=rf"small\.fnet.*{message}"):
        load_pretrained("squeezenet1_1", tmp_path / "small.fnet")


@pytest.mark.parametrize("name", ["num_classes", "in_channels", "input_size"])
def test_zero_is_not_taken_for_what_the_weights_have(small: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        create_model("squeezenet1_1", pretrained=small, **{name: 0})  # type: ignore[arg-type]


def test_a_trained_model_with_other_weights_is_refused(small: Path) -> None:
    content = bytearray((small / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (small / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is not the file that config\.json was written for"):
        load_pretrained("squeezenet1_1", small)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"widths": {"features.0": 3}}, ConfigError, "wanted a whole squeezenet1_1, found a pruned one"),
        ({"options": {"pretrained": "elsewhere.pth"}}, ArtifactError, "wanted options of squeezenet1_1"),
        ({"options": {"input_size": 3}}, ArtifactError, "wanted options of squeezenet1_1"),
        ({"options": [1]}, ArtifactError, "wanted options of squeezenet1_1"),
    ],
)
def test_what_a_record_may_not_say(small: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    record = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(error, match=message):
        load_pretrained("squeezenet1_1", small)


def test_weights_of_an_efficientnet_are_none_of_a_resnet() -> None:
    state = name_as_tensorflow(peer("timm", "tf_efficientnet_b0").state_dict())
    with pytest.raises(ConfigError, match="here holds no weights of resnet18"):
        from_state("resnet18", state, "here")


def test_a_trained_model_of_another_architecture_is_refused(trained: RunResult) -> None:
    with pytest.raises(ConfigError, match="wanted a trained lenet5, found lenet_relu"):
        load_pretrained("lenet5", trained.out)


def test_the_parts_of_a_trained_model_may_be_missing(tmp_path: Path, trained: RunResult) -> None:
    with pytest.raises(FalconetError, match=r"config\.json"):
        load_pretrained("lenet_relu", tmp_path)
    (tmp_path / "config.json").write_bytes((trained.out / "config.json").read_bytes())
    with pytest.raises(PathError, match=r"model\.safetensors: No such file"):
        load_pretrained("lenet_relu", tmp_path)


@pytest.mark.parametrize("source", ["torchvision", "timm", "weights.pth"])
def test_networks_for_texts_have_no_published_weights(source: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.pretrained: wanted a network for images, found gru"):
        create_model("gru", kind="text", pretrained=source)


def test_paths_and_extensions(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=r"no such weights: .*nowhere; wanted wheel, embedded, timm, torchvision"):
        load_pretrained("resnet18", str(tmp_path / "nowhere"))
    for name in ("weights.bin", "weights"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(
            PathError, match=r"wanted weights as \.pth, \.pt, .*\.net, \.fnet, found (\.bin|no extension)$"
        ):
            load_pretrained("resnet18", tmp_path / name)


# Damage.


@cache
def write_content(suffix: str) -> bytes:
    """Return a file of a few tensors in each format."""
    if suffix == ".net":
        return encode_network()
    state = {"conv1.weight": torch.randn(8, 3, 3, 3), "fc.weight": torch.randn(4, 8), "fc.bias": torch.arange(4.0)}
    if suffix == ".safetensors":
        return safetensors.torch.save(state)
    buffer = io.BytesIO()
    if suffix == ".npz":
        arrays: dict[str, Any] = {key: value.numpy() for key, value in state.items()}
        np.savez(buffer, **arrays)
    else:
        torch.save(state, buffer)
    return buffer.getvalue()


FILES = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz", ".net"])
@FILES
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_short_is_damaged(tmp_path: Path, suffix: str, share: float) -> None:
    content = write_content(suffix)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match=rf"^{re.escape(str(path))}: ") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@FILES
@example(share=0.9921875, bit=0)  # Of the .pth file: the locator of its directory, which then spans several disks.
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_damage_or_another_number(tmp_path: Path, suffix: str, share: float, bit: int) -> None:
    content = bytearray(write_content(suffix))
    content[int(share * len(content))] ^= 1 << bit
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    try:
        load_pretrained("lenet300_100", path)
    except (ArtifactError, ConfigError) as error:
        assert "\n" not in str(error)  # noqa: PT017 - either error will do
    else:
        pytest.fail("the file holds no such network")


@settings(FILES, max_examples=25)
@given(data=st.data())
def test_flipped_bits_in_compressed_weights_are_damage_or_other_numbers(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(encode_network())
    # Half of them among the counts, of which the whole reading hangs.
    place = data.draw(st.integers(0, 26 * 4 - 1) | st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "weights.net"
    path.write_bytes(content)
    try:
        weights = read_weights(path)
    except ArtifactError as error:
        assert "damaged" in str(error)  # noqa: PT017 - some flips are only other numbers
    else:
        assert place >= 26 * 4
        assert {key: tuple(value.shape) for key, value in weights.items()} == shapes_of_squeezenet()


def shapes_of_squeezenet() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (outputs, inputs, side) in CAFFE_LAYERS.items():
        shapes |= {f"{layer}.weight": (outputs, inputs, side, side), f"{layer}.bias": (outputs,)}
    return shapes


def test_compressed_weights_behind_the_end_of_a_layer_are_damage(tmp_path: Path) -> None:
    """Every gap as large as it can be, and a byte too many."""
    counts = [0] * 26
    counts[1] = 16 * 96  # The second layer has as many weights: one in sixteen can be reached.
    layers = list(CAFFE_LAYERS.values())
    bodies = [
        bytes(1024 + 4 * outputs + count) + b"\xff" * ((count + 1) // 2)
        for (outputs, _, _), count in zip(layers, counts, strict=True)
    ]
    path = tmp_path / "weights.net"
    path.write_bytes(struct.pack("<26I", *counts) + b"".join(bodies))
    with pytest.raises(ArtifactError, match="damaged: fire2/squeeze1x1 has 1536 weights, but one is stored at 24575"):
        read_weights(path)
    path.write_bytes(encode_network() + b"\0")
    with pytest.raises(ArtifactError, match=r"damaged: wanted \d+ bytes, found \d+$"):
        read_weights(path)


@pytest.mark.parametrize("content", [[torch.zeros(3)], torch.zeros(3), 5, "weights", None])
def test_files_of_something_else_hold_no_mapping(tmp_path: Path, content: Any) -> None:
    path = save(tmp_path / "weights.pth", content)
    with pytest.raises(ArtifactError, match="wanted a mapping of names to tensors, found"):
        read_weights(path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", ["torch", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path, protocol: str) -> None:
    target, path = tmp_path / "touched", tmp_path / "weights.pth"
    content = {"fc.weight": torch.zeros(3), "bomb": Bomb(target)}
    if protocol == "pickle":
        path.write_bytes(pickle.dumps({"bomb": Bomb(target)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "torch")
    with pytest.raises(ArtifactError, match="wanted tensors that torch saved"):
        load_pretrained("resnet18", path)
    assert not target.exists()
    pickle.loads(pickle.dumps(Bomb(target)))  # So that the refusal is known to have mattered.
    assert target.exists()


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    target, path = tmp_path / "touched", tmp_path / "weights.npz"
    np.savez(path, bomb=np.array([Bomb(target)], dtype=object))
    with pytest.raises(ArtifactError, match="wanted arrays that NumPy saved"):
        read_weights(path)
    assert not target.exists()


# Fetching, with libraries that do not reach the network.


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Return a function that has both libraries give random weights, or raise an error."""

    def arrange(error: Exception | None = None) -> None:
        real = timm.create_model

        def create(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
            if pretrained and error is not None:
                raise error
            return randomize(real(name, **options)) if pretrained else real(name, **options)

        def fetch(self: Any, *, progress: bool = True, check_hash: bool = False) -> Mapping[str, Any]:
            assert check_hash
            if error is not None:
                raise error
            name = type(self).__name__.removesuffix("_Weights").lower()
            return peer("torchvision", name, 1000).state_dict()

        monkeypatch.setattr(timm, "create_model", create)
        monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fetch)

    return arrange


def test_torchvision_weights_are_fetched_by_name(offline: Callable[..., None]) -> None:
    offline()
    found = load_pretrained("squeezenet1_1", "torchvision")
    assert (found.labels, found.mean, found.std) == (imagenet_labels(), IMAGENET_MEAN, IMAGENET_STD)
    made = create_model("squeezenet1_1", pretrained="torchvision")
    assert_same_answers(made, peer("torchvision", "squeezenet1_1", 1000), make_images())


def test_torchvision_weights_of_its_own_networks(offline: Callable[..., None]) -> None:
    offline()
    made = create_model("torchvision:resnet18", pretrained="torchvision")
    assert_same_answers(made, peer("torchvision", "resnet18", 1000), make_images())
    other = create_model("torchvision:resnet18", pretrained="torchvision", num_classes=3, in_channels=1)
    assert answer(other, make_images(channels=1)).shape == (2, 3)
    kernels = peer("torchvision", "resnet18", 1000).state_dict()["conv1.weight"]
    torch.testing.assert_close(other.state_dict()["conv1.weight"], kernels.sum(dim=1, keepdim=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "vit_b_32"])
def test_torchvision_weights_of_networks_with_more_than_one_output_or_token(
    offline: Callable[..., None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GoogLeNet's file holds classifiers that answering does not need; a transformer's first parameter is a token."""
    offline()
    options = {"init_weights": True} if name == "googlenet" else {}
    state = torchvision.models.get_model(name, **options).state_dict()
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda self, **_: state)
    made = create_model(f"torchvision:{name}", pretrained="torchvision", num_classes=3)
    assert answer(made, torch.zeros(1, 3, 224, 224)).shape == (1, 3)


def test_timm_weights_are_fetched_by_name(offline: Callable[..., None]) -> None:
    """Of EfficientNet-Lite's second, timm has TensorFlow's weights only, which want their padding."""
    offline()
    found = load_pretrained("efficientnet_lite0", "timm")
    assert (found.layout, found.labels) == ("timm", imagenet_labels())
    assert "padding" not in found.options
    ported = load_pretrained("efficientnet_lite1", "timm")
    assert TENSORFLOW_OPTIONS.items() <= ported.options.items()
    config = timm.get_pretrained_cfg("tf_efficientnet_lite1")
    assert config is not None
    assert (ported.mean, ported.std) == (config.mean, config.std)


def test_timm_weights_of_its_own_networks(offline: Callable[..., None]) -> None:
    offline()
    state = load_pretrained("timm:resnet10t", "timm").state
    made = create_model("timm:resnet10t", pretrained="timm", num_classes=3)
    assert torch.equal(made.state_dict()["bn1.running_mean"], state["bn1.running_mean"])
    assert answer(made, make_images()).shape == (2, 3)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_050",
        pytest.param("tf_efficientnet_lite0", marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_timm_weights_of_networks_that_name_their_layers_otherwise(offline: Callable[..., None], name: str) -> None:
    offline()
    made = create_model(f"timm:{name}", pretrained="timm", num_classes=3)
    assert answer(made, torch.zeros(1, 3, 224, 224)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "source", "size"),
    [
        ("torchvision:regnet_y_400mf", "torchvision", 224),  # computes with its first weights
        pytest.param("torchvision:efficientnet_v2_s", "torchvision", 384, marks=pytest.mark.slow),
        pytest.param("efficientnet_b2", "torchvision", 288, marks=pytest.mark.slow),
        pytest.param("timm:efficientnet_b3", "timm", 288, marks=pytest.mark.slow),
        pytest.param("timm:deit3_small_patch16_384", "timm", 384, marks=pytest.mark.slow),
    ],
)
def test_images_get_the_size_that_weights_were_trained_at(
    offline: Callable[..., None], name: str, source: str, size: int
) -> None:
    offline()
    assert load_pretrained(name, source).size == (size, size)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_weights_with_a_conversion_inside_are_given_what_it_would_give(
    offline: Callable[..., None], channels: int
) -> None:
    offline()
    peer_network = randomize(torchvision.models.googlenet(init_weights=True, transform_input=True))
    with pytest.MonkeyPatch.context() as patch:
        state = peer_network.state_dict()
        patch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda self, **_: state)
        found = load_pretrained("torchvision:googlenet", "torchvision")
        made = create_model("torchvision:googlenet", pretrained="torchvision", in_channels=channels).eval()
    pixels = torch.rand(1, channels, 224, 224)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    mine, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in found.statistics(channels))
    expected = answer(peer_network, (pixels.expand(-1, 3, -1, -1) - mean) / std)
    torch.testing.assert_close(answer(made, (pixels - mine) / deviation), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize(
    "error", [OSError("no route to host"), TimeoutError("timed out"), RuntimeError("invalid hash value\n(expected)")]
)
def test_weights_that_cannot_be_fetched(offline: Callable[..., None], source: str, error: Exception) -> None:
    offline(error)
    with pytest.raises(ArtifactError, match=rf"{source}'s weights of resnet18 cannot be fetched \(") as caught:
        load_pretrained("resnet18", source)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("name a file")


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_networks_that_nobody_publishes_weights_of(offline: Callable[..., None], source: str) -> None:
    offline()
    with pytest.raises(ConfigError, match=rf"{source} publishes no weights of lenet5; name a file"):
        load_pretrained("lenet5", source)


def test_timm_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"weights of timm needs .*falconet\[zoo\]"):
        load_pretrained("resnet18", "timm")
