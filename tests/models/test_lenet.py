"""The LeNets against the paper's numbers and against plain formulas."""

from __future__ import annotations

import math
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models import create_model
from falconet.models.info import find_classifiers
from falconet.models.lenet import (
    C3_TABLE,
    LeNet5,
    RBFOutput,
    ScaledTanh,
    Subsampling,
    TableConv2d,
    output_codes,
    paley_hadamard,
)


@pytest.fixture
def lenet5() -> LeNet5:
    torch.manual_seed(0)
    model = create_model("lenet5").eval()
    assert isinstance(model, LeNet5)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def feature_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_children():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    model(x)
    return shapes


@pytest.mark.parametrize(
    ("layer", "params"),
    [("c1", 156), ("s2", 12), ("c3", 1516), ("s4", 32), ("c5", 48_120), ("f6", 10_164), ("output", 0)],
)
def test_parameters_are_the_papers(lenet5: LeNet5, layer: str, params: int) -> None:
    assert count(lenet5.get_submodule(layer)) == params


def test_parameters_sum_to_60000(lenet5: LeNet5) -> None:
    assert count(lenet5) == 60_000


def test_maps_are_the_papers(lenet5: LeNet5) -> None:
    shapes = feature_shapes(lenet5, torch.zeros(1, 1, 32, 32))
    shapes.pop("squash")
    assert shapes == {
        "c1": (6, 28, 28),
        "s2": (6, 14, 14),
        "c3": (16, 10, 10),
        "s4": (16, 5, 5),
        "c5": (120, 1, 1),
        "f6": (84,),
        "output": (10,),
    }


def test_table_is_the_papers() -> None:
    assert [len(row) for row in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_TABLE)) == 16
    assert [sum(channel in row for row in C3_TABLE) for channel in range(6)] == [10] * 6


@pytest.mark.parametrize("channel", range(6))
def test_c3_sees_only_the_listed_maps(lenet5: LeNet5, channel: int) -> None:
    maps = torch.randn(1, 6, 14, 14)
    disturbed = maps.clone()
    disturbed[:, channel] += 1
    with torch.no_grad():
        changed = (lenet5.c3(maps) != lenet5.c3(disturbed)).flatten(2).any(dim=2)[0]
    assert changed.tolist() == [channel in row for row in C3_TABLE]


def test_c3_is_a_sum_of_single_convolutions() -> None:
    torch.manual_seed(0)
    layer = TableConv2d(6, C3_TABLE, 5)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    maps = torch.randn(2, 6, 14, 14)
    kernels = iter(layer.weight)
    expected = []
    for out, row in enumerate(C3_TABLE):
        parts = [F.conv2d(maps[:, channel : channel + 1], next(kernels)[None, None]) for channel in row]
        expected.append(torch.stack(parts).sum(dim=0) + layer.bias[out])
    torch.testing.assert_close(layer(maps), torch.cat(expected, dim=1), rtol=1e-4, atol=1e-4)


def test_c3_with_a_full_table_is_a_dense_convolution() -> None:
    layer = TableConv2d(3, ((0, 1, 2),) * 4, 5)
    dense = nn.Conv2d(3, 4, 5)
    with torch.no_grad():
        layer.weight.copy_(dense.weight.view(12, 5, 5))
        layer.bias.copy_(dense.bias if dense.bias is not None else torch.zeros(4))
    maps = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(layer(maps), dense(maps))


def test_subsampling_by_hand() -> None:
    layer = Subsampling(2)
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([0.5, -1.0]))
        layer.bias.copy_(torch.tensor([10.0, 0.25]))
    maps = torch.tensor([[[1.0, 2.0, 0.0, 0.0], [3.0, 4.0, 0.0, 8.0]]]).repeat(1, 2, 1, 1).view(1, 2, 2, 4)
    expected = [[[[10 + 0.5 * 10, 10 + 0.5 * 8]], [[0.25 - 10, 0.25 - 8]]]]
    torch.testing.assert_close(layer(maps), torch.tensor(expected))


@pytest.mark.parametrize("x", [-1.0, 1.0])
def test_scaled_tanh_keeps_one(x: float) -> None:
    assert ScaledTanh()(torch.tensor([x])).item() == pytest.approx(x, abs=1e-5)


def test_scaled_tanh_bends_most_at_one() -> None:
    x = torch.linspace(0.05, 3, 1000, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ScaledTanh()(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert x[bend.abs().argmax()].item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("classes", [2, 10, 84, 200])
def test_rbf_logits_are_scaled_squared_distances(classes: int) -> None:
    layer = RBFOutput(classes)
    x = torch.randn(5, 84)
    expected = -(x[:, None] - layer.codes[None]).square().sum(dim=2) / math.sqrt(84)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_rbf_is_highest_at_its_own_code() -> None:
    layer = RBFOutput(168)
    logits = layer(layer.codes)
    assert logits.argmax(dim=1).tolist() == list(range(168))
    torch.testing.assert_close(logits.diagonal(), torch.zeros(168), rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 10, 11, 84, 85, 168, 169, 300])
def test_codes_are_different_and_fixed(classes: int) -> None:
    codes = output_codes(classes)
    assert codes.shape == (classes, 84)
    assert codes.dtype == torch.float32
    assert codes.abs().eq(1).all()
    assert len({tuple(row) for row in codes.tolist()}) == classes
    torch.manual_seed(classes)
    np.random.seed(classes)  # noqa: NPY002 (the codes must not depend on it)
    assert torch.equal(output_codes(classes), codes)


@pytest.mark.parametrize("classes", [11, 84, 85, 168])
def test_codes_lie_far_apart(classes: int) -> None:
    codes = output_codes(classes)
    differing = (84 - codes @ codes.T) / 2
    differing.fill_diagonal_(84)
    assert differing.min() >= 42


@pytest.mark.parametrize(("classes", "checksum"), [(10, 0x19E77A15), (168, 0x71B162ED), (300, 0x875AE73D)])
def test_codes_are_the_same_on_every_machine(classes: int, checksum: int) -> None:
    assert zlib.crc32(output_codes(classes).to(torch.int8).numpy().tobytes()) == checksum


def test_codes_of_digits_are_their_pictures() -> None:
    glyphs = output_codes(10).view(10, 12, 7)
    assert torch.equal(output_codes(4), output_codes(10)[:4])
    zero, one, seven, eight = glyphs[0], glyphs[1], glyphs[7], glyphs[8]
    assert torch.equal(zero, zero.flip(0))
    assert torch.equal(eight, eight.flip(1))
    assert one[-1].eq(1).all()
    assert seven[0].eq(1).all()
    assert seven[-1].eq(1).sum() == 1


@pytest.mark.parametrize("prime", [3, 7, 83])
def test_hadamard_rows_are_orthogonal(prime: int) -> None:
    matrix = paley_hadamard(prime)
    np.testing.assert_array_equal(matrix @ matrix.T, (prime + 1) * np.eye(prime + 1))


def test_weights_start_as_in_appendix_a(lenet5: LeNet5) -> None:
    for layer, fan_in in ((lenet5.c1, 25), (lenet5.c5, 400), (lenet5.f6, 120)):
        bound = 2.4 / fan_in
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is not None
        assert not layer.bias.any()
    dense = lenet5.c3.dense_weight()
    for out, row in enumerate(C3_TABLE):
        bound = 2.4 / (25 * len(row))
        assert 0.8 * bound < dense[out].abs().max() <= bound
    assert lenet5.s2.coefficient.eq(0.25).all()
    assert not lenet5.c3.bias.any()
    assert not lenet5.s4.bias.any()


def test_linear_output_is_trainable() -> None:
    model = create_model("lenet5", num_classes=7, output="linear")
    assert count(model) == 60_000 + 84 * 7 + 7
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.slow
def test_unknown_output() -> None:
    # In a process of its own, because the run-time checker of annotations would be first to refuse it here.
    code = "from falconet.models import create_model; create_model('lenet5', output='softmax')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    wanted = "ConfigError: model.options.output: wanted rbf or linear, found 'softmax'"
    assert done.stderr.splitlines()[-1].endswith(wanted)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_caffe", "lenet_relu", "cnn_small", "lenet_deep"])
@pytest.mark.parametrize("size", [(16, 16), (17, 19), (28, 28), (20, 41)])
def test_other_sizes(name: str, size: tuple[int, int]) -> None:
    model = create_model(name, num_classes=3, input_size=size)
    assert model(torch.zeros(2, 1, *size)).shape == (2, 3)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (64, 64)])
def test_dense_net_takes_any_size(size: tuple[int, int]) -> None:
    assert create_model("lenet300_100", input_size=size)(torch.zeros(2, 1, *size)).shape == (2, 10)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_caffe", "lenet_relu"])
@pytest.mark.parametrize("size", [(15, 16), (16, 15), (8, 8)])
def test_too_small_a_size_names_the_smallest(name: str, size: tuple[int, int]) -> None:
    message = rf"{name} needs images of at least 16x16 pixels, found {size[0]}x{size[1]}"
    with pytest.raises(ConfigError, match=message):
        create_model(name, input_size=size)


@pytest.mark.parametrize(("name", "smallest"), [("cnn_small", 10), ("lenet_deep", 8)])
def test_smallest_image_of_the_articles_nets(name: str, smallest: int) -> None:
    model = create_model(name, num_classes=3, input_size=smallest)
    assert model(torch.zeros(2, 1, smallest, smallest)).shape == (2, 3)
    for size in ((smallest - 1, smallest), (smallest, smallest - 1)):
        message = rf"{name} needs images of at least {smallest}x{smallest} pixels, found {size[0]}x{size[1]}"
        with pytest.raises(ConfigError, match=message):
            create_model(name, input_size=size)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("cnn_small", (9 + 1) * 32 + (9 * 32 + 1) * 64 + (5 * 5 * 64 + 1) * 64 + (64 + 1) * 10),
        (
            "lenet_deep",
            (25 + 1) * 20 + (25 * 20 + 1) * 50 + (25 * 50 + 1) * 50 + (3 * 3 * 50 + 1) * 500 + (500 + 1) * 10,
        ),
    ],
)
def test_parameters_of_the_articles_nets(name: str, params: int) -> None:
    assert count(create_model(name)) == params


@pytest.mark.parametrize(("name", "padding", "convolutions"), [("cnn_small", 0, 2), ("lenet_deep", 2, 3)])
def test_articles_nets_by_hand(name: str, padding: int, convolutions: int) -> None:
    model = create_model(name, in_channels=3, input_size=(21, 26))
    state = model.state_dict()
    step = x = torch.randn(2, 3, 21, 26)
    for layer in ("conv1", "conv2", "conv3")[:convolutions]:
        step = F.conv2d(step, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=padding)
        step = F.max_pool2d(F.relu(step), 2)
    hidden = F.relu(step.flatten(1) @ state["fc1.weight"].T + state["fc1.bias"])
    torch.testing.assert_close(model(x), hidden @ state["fc2.weight"].T + state["fc2.bias"], rtol=1e-4, atol=1e-5)


def test_deep_net_without_padding_fails_as_the_articles_does() -> None:
    layers = [nn.Sequential(nn.Conv2d(channels, 50, 5), nn.MaxPool2d(2)) for channels in (1, 50, 50)]
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        nn.Sequential(*layers)(torch.zeros(1, 1, 28, 28))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (
            "cnn_small",
            {"conv1": (32, 26, 26), "conv2": (64, 11, 11), "fc1": (64,), "fc2": (10,)},
        ),
        (
            "lenet_deep",
            {"conv1": (20, 28, 28), "conv2": (50, 14, 14), "conv3": (50, 7, 7), "fc1": (500,), "fc2": (10,)},
        ),
        ("lenet300_100", {"fc1": (300,), "fc2": (100,), "fc3": (10,)}),
        ("lenet5_caffe", {"conv1": (20, 24, 24), "conv2": (50, 8, 8), "fc1": (500,), "fc2": (10,)}),
        ("lenet_relu", {"conv1": (32, 24, 24), "conv2": (64, 8, 8), "fc1": (128,), "fc2": (10,)}),
    ],
)
def test_maps_of_the_later_nets(name: str, layers: dict[str, Any]) -> None:
    assert feature_shapes(create_model(name), torch.zeros(1, 1, 28, 28)) == layers


def test_pooling_first_equals_relu_first() -> None:
    model = create_model("lenet_relu").eval()
    x = torch.randn(2, 1, 28, 28)
    step = F.max_pool2d(F.relu(model.get_submodule("conv1")(x)), 2)
    step = F.max_pool2d(F.relu(model.get_submodule("conv2")(step)), 2).flatten(1)
    expected = model.get_submodule("fc2")(F.relu(model.get_submodule("fc1")(step)))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("width", "batch_norm"), [(32, False), (8, True), (20, True)])
def test_lenet_relu_has_the_maps_that_are_asked_for(width: int, batch_norm: bool) -> None:
    model = create_model("lenet_relu", width=width, batch_norm=batch_norm)
    maps, once = 2 * width, 2 if batch_norm else 1  # Scale and shift in place of a bias.
    convolutions = 25 * width + 25 * width * maps + once * (width + maps)
    assert count(model) == convolutions + (16 * maps + 1) * 128 + 1290
    x = 40 + 20 * torch.rand(64, 1, 28, 28)
    shapes = feature_shapes(model.train(), x)
    assert shapes["conv2"] == (maps, 8, 8)
    if batch_norm:
        first, last = (normalized(model, x, f"bn{index}") for index in (1, 2))
        for values in (first, last):
            torch.testing.assert_close(values.mean(dim=(0, 2, 3)), torch.zeros(values.shape[1]), atol=1e-4, rtol=0)


def normalized(model: nn.Module, x: Tensor, name: str) -> Tensor:
    """Return what a layer puts out."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(x)
    handle.remove()
    return seen[0].detach()


@pytest.mark.parametrize("width", [0, -3])
def test_lenet_relu_refuses_what_makes_no_network(width: int) -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.width: wanted"):
        create_model("lenet_relu", width=width)


def test_weights_for_other_classes_keep_all_but_the_fixed_codes(tmp_path: Path) -> None:
    trained = create_model("lenet5", num_classes=10)
    torch.save(trained.state_dict(), tmp_path / "ten.pth")
    made = create_model("lenet5", num_classes=26, in_channels=1, pretrained=tmp_path / "ten.pth")
    assert find_classifiers(made) == ("output",)
    assert torch.equal(made.state_dict()["output.codes"], output_codes(26))
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in trained.named_parameters())
