"""Residual networks against torchvision's, blocks computed by hand, and padding that must not count."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from falconet.errors import ConfigError, UnknownNameError
from falconet.models import create_model
from falconet.models.layers import SqueezeExcitation
from falconet.models.resnet import (
    BasicBlock,
    Bottleneck,
    PaddedShortcut,
    PreActBasicBlock,
    PreActBottleneck,
    ResNet,
    ResNet1d,
    _Block,
)
from falconet.spec import ModalityName

WIDTH = 8
"""Of networks that need not be large."""
VOCABULARY, CHANNELS = 20, 2


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@torch.no_grad()
def disturb(model: nn.Module) -> nn.Module:
    """Give normalization values under which its place, its statistics and its sign all matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.3)
    return model.eval()


def build(name: str, size: int = 32, **options: Any) -> ResNet:
    model = create_model(name, num_classes=5, input_size=size, **options)
    assert isinstance(model, ResNet)
    return model.eval()


def blocks_of(model: nn.Module) -> list[_Block]:
    return [module for module in model.modules() if isinstance(module, _Block)]


def last_convolution(block: Any) -> nn.Conv2d:
    found = block.conv3 if isinstance(block, Bottleneck | PreActBottleneck) else block.conv2
    assert isinstance(found, nn.Conv2d)
    return found


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("missing", "before"), [(2, 1), (3, 1), (4, 2)])
def test_padded_shortcut_by_hand(missing: int, before: int) -> None:
    x = torch.arange(1.0, 2 * 2 * 5 * 4 + 1).view(2, 2, 5, 4)
    found = PaddedShortcut(missing, 2)(x)
    expected = torch.zeros(2, 2 + missing, 3, 2)
    for row in range(3):
        for column in range(2):
            expected[:, before : before + 2, row, column] = x[:, :, 2 * row, 2 * column]
    assert torch.equal(found, expected)


def test_networks_for_cifar_have_no_parameters_in_shortcuts() -> None:
    shortcuts = [block.downsample for block in blocks_of(build("resnet20")) if block.downsample is not None]
    assert len(shortcuts) == 2
    assert all(isinstance(shortcut, PaddedShortcut) for shortcut in shortcuts)
    assert count(build("resnet18", width=WIDTH)) > sum(map(count, shortcuts)) == 0


def test_bottlenecks_with_padded_shortcuts_also_widen_the_first_stage() -> None:
    block = Bottleneck(8, 8, padded=True).eval()
    with torch.no_grad():
        for norm in (block.bn1, block.bn2, block.bn3):
            norm.weight.zero_()
    x = torch.rand(1, 8, 3, 3)
    assert torch.equal(block(x), F.pad(x, (0, 0, 0, 0, 12, 12)))


@pytest.mark.parametrize("kind", [PreActBasicBlock, PreActBottleneck])
@pytest.mark.parametrize("excited", [False, True])
@torch.no_grad()
def test_pre_activated_block_without_its_last_convolution_is_the_identity(
    kind: type[PreActBasicBlock | PreActBottleneck], excited: bool
) -> None:
    block: Any = disturb(kind(4 * kind.expansion, 4, squeeze_excitation=excited))
    x = torch.randn(2, 4 * kind.expansion, 5, 5)
    assert not torch.allclose(block(x), x)
    last_convolution(block).weight.zero_()
    assert torch.equal(block(x), x)


@torch.no_grad()
def test_pre_activated_block_by_hand() -> None:
    block: Any = disturb(PreActBasicBlock(4, 8, 2))

    def activate(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        return ((x - norm.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)).clamp(min=0)

    x = torch.randn(2, 4, 7, 7)
    first = activate(x, block.bn1)
    branch = F.conv2d(first, block.conv1.weight, stride=2, padding=1)
    branch = F.conv2d(activate(branch, block.bn2), block.conv2.weight, padding=1)
    shortcut = F.conv2d(first, block.downsample[0].weight, stride=2)
    torch.testing.assert_close(block(x), branch + shortcut, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
def test_the_stem_does_the_first_blocks_activation_for_both_its_paths(name: str) -> None:
    model = build(name, pre_activation=True)
    block: Any = model.get_submodule("layer1.0")
    assert block.bn1 is None
    assert isinstance(model.get_submodule("layer1.1.bn1"), nn.BatchNorm2d)
    assert isinstance(model.get_submodule("layer2.0.bn1"), nn.BatchNorm2d)
    x = torch.randn(2, block.conv1.in_channels, 5, 5)
    nn.init.zeros_(last_convolution(block).weight)
    expected = x if block.downsample is None else block.downsample(x)
    assert torch.equal(block.eval()(x), expected)


def test_pre_activation_normalizes_once_more_at_the_end() -> None:
    model = build("resnet20", pre_activation=True)
    assert isinstance(model.norm, nn.BatchNorm2d)
    assert model.norm.num_features == 64
    seen: list[Tensor] = []
    model.fc.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model(torch.randn(2, 3, 32, 32))
    assert (seen[0] >= 0).all()
    assert build("resnet20").norm is None


@pytest.mark.parametrize("pre_activation", [False, True])
@pytest.mark.parametrize(("name", "excited"), [("resnet20", False), ("resnet20", True), ("resnet50", False)])
@torch.no_grad()
def test_zero_init_starts_branches_as_zero(name: str, excited: bool, pre_activation: bool) -> None:
    options: dict[str, Any] = {"pre_activation": pre_activation, "squeeze_excitation": excited, "width": WIDTH}
    for zero_init in (False, True):
        model = build(name, zero_init=zero_init, **options)
        silent = []
        for block in blocks_of(model):
            if block.downsample is not None:
                continue
            x = torch.rand(2, block.conv1.in_channels, 4, 4)
            silent.append(torch.equal(block(x), x))
        assert len(silent) > 5
        assert all(silent) if zero_init else not any(silent)


@torch.no_grad()
def test_squeeze_excitation_is_torchvisions() -> None:
    found, peer = SqueezeExcitation(6, 3), torchvision.ops.SqueezeExcitation(6, 3)
    found.load_state_dict(peer.state_dict())
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(found(x), peer(x))
    expected = x * torch.sigmoid(found.fc2(F.relu(found.fc1(x.mean((2, 3), keepdim=True)))))
    torch.testing.assert_close(found(x), expected)


@torch.no_grad()
@pytest.mark.parametrize(("channels", "squeezed"), [(32, 4), (128, 8)])
def test_squeeze_excitation_reweighs_the_branch_alone(channels: int, squeezed: int) -> None:
    block: Any = disturb(BasicBlock(channels, channels, squeeze_excitation=True))
    assert tuple(block.excitation.fc1.weight.shape[:2]) == (squeezed, channels)
    x = torch.randn(2, channels, 5, 5)
    branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    torch.testing.assert_close(block(x), F.relu(x + block.excitation(branch)))
    block.excitation.fc2.weight.zero_()
    block.excitation.fc2.bias.zero_()
    torch.testing.assert_close(block(x), F.relu(x + branch / 2))


@pytest.mark.parametrize(
    ("size", "stem", "expected"),
    [(28, "auto", 28), (32, "auto", 32), (63, "auto", 63), (64, "auto", 16), (32, "imagenet", 8), (64, "small", 64)],
)
def test_stem(size: int, stem: str, expected: int) -> None:
    seen: list[tuple[int, ...]] = []
    model = build("resnet18", size, width=WIDTH, stem=stem)
    model.get_submodule("layer1").register_forward_pre_hook(
        lambda _module, inputs: seen.append(tuple(inputs[0].shape[1:]))
    )
    model(torch.zeros(1, 3, size, size))
    assert seen == [(WIDTH, expected, expected)]


@torch.no_grad()
def test_small_stem_is_all_that_differs_from_torchvisions() -> None:
    model = disturb(build("resnet18", 32))
    peer = torchvision.models.resnet18(num_classes=5)
    peer.conv1, peer.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    peer.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 29)
    torch.testing.assert_close(model(x), peer.eval()(x), rtol=1e-5, atol=1e-4)


def test_width_doubles_with_each_stage() -> None:
    model = build("resnet50", width=4)
    widths = [len(block.state_dict()["conv2.weight"]) for block in blocks_of(model)]
    assert widths == [4] * 3 + [8] * 4 + [16] * 6 + [32] * 3
    assert model.fc.in_features == 4 * 32


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"width": 0}, r"^model\.options\.width: wanted a whole number above 0, found 0$"),
        ("resnet1d18", {"width": -1}, r"^model\.options\.width: wanted a whole number above 0, found -1$"),
        ("resnet1d18", {"embedding": 0}, r"^model\.options\.embedding: wanted a whole number above 0, found 0$"),
        ("resnet1d18", {"dropout": 1.0}, r"^model\.options\.dropout: wanted a fraction from 0 to below 1, found 1\.0$"),
    ],
)
def test_options_with_no_such_value(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize(
    ("name", "option", "nearest"),
    [
        ("resnet18", "zeroinit", "did you mean zero_init"),
        ("resnet20", "stem", "unknown option of resnet20 'stem'"),
        ("resnet50", "blocks", "unknown option of resnet50 'blocks'"),
        ("resnet1d18", "pre_activation", "unknown option of resnet1d18 'pre_activation'"),
    ],
)
def test_unknown_option(name: str, option: str, nearest: str) -> None:
    options: dict[str, Any] = {option: "small"}
    with pytest.raises(UnknownNameError, match=nearest):
        create_model(name, **options)


def build_steps(kind: ModalityName, stem: str, **options: Any) -> ResNet1d:
    channels = VOCABULARY if kind == "text" else CHANNELS
    sizes: dict[str, Any] = {"width": WIDTH, "embedding": 6, **options}
    model = create_model(
        "resnet1d18", kind=kind, num_classes=5, in_channels=channels, input_size=70, stem=stem, **sizes
    )
    assert isinstance(model, ResNet1d)
    disturb(model)
    return model


def draw(kind: ModalityName, steps: int) -> Tensor:
    return torch.randint(1, VOCABULARY, (1, steps)) if kind == "text" else torch.randn(1, CHANNELS, steps)


def pad(x: Tensor, count: int) -> Tensor:
    filling = torch.nan if x.is_floating_point() else 0
    return torch.cat([x, torch.full((*x.shape[:-1], count), filling, dtype=x.dtype)], dim=-1)


every_stem = pytest.mark.parametrize("stem", ["imagenet", "small"])
every_kind = pytest.mark.parametrize("kind", ["series", "text"])


@every_stem
@every_kind
@given(steps=st.integers(1, 70) | st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33]), more=st.data())
@settings(deadline=None, max_examples=12)
@torch.no_grad()
def test_padding_never_changes_an_answer(kind: ModalityName, stem: str, steps: int, more: st.DataObject) -> None:
    torch.manual_seed(steps)
    model = build_steps(kind, stem)
    x = draw(kind, steps)
    padded = pad(x, more.draw(st.integers(1, 70)))
    torch.testing.assert_close(model(padded), model(x), rtol=1e-4, atol=1e-4)
    others = torch.cat([padded, draw(kind, padded.shape[-1])])
    torch.testing.assert_close(model(others)[:1], model(x), rtol=1e-4, atol=1e-4)


@every_stem
@every_kind
@torch.no_grad()
def test_padding_changes_no_training(kind: ModalityName, stem: str) -> None:
    """Neither logits nor the statistics that are gathered for later."""
    torch.manual_seed(0)
    model = build_steps(kind, stem).train()
    x = torch.cat([draw(kind, 20), draw(kind, 20)])
    other = copy.deepcopy(model)
    torch.testing.assert_close(other(pad(x, 50)), model(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5)
    assert model.bn1.num_batches_tracked == 1


@every_stem
@every_kind
@torch.no_grad()
def test_every_step_counts(kind: ModalityName, stem: str) -> None:
    model, x = build_steps(kind, stem), draw(kind, 9)
    for step in range(9):
        changed = x.clone()
        changed[..., step] = changed[..., step] % (VOCABULARY - 1) + 1
        assert not torch.allclose(model(changed), model(x), rtol=0, atol=1e-5)


@every_stem
@pytest.mark.parametrize("steps", [1, 2, 33, 64])
@torch.no_grad()
def test_network_for_steps_is_torchvisions_on_images_of_one_row(stem: str, steps: int) -> None:
    model = build_steps("series", stem, width=64)
    peer = torchvision.models.resnet18(num_classes=5)
    side = 7 if stem == "imagenet" else 3
    peer.conv1 = nn.Conv2d(CHANNELS, 64, side, stride=side // 3, padding=side // 2, bias=False)
    if stem == "small":
        peer.maxpool = nn.Identity()
    for (_, ours), theirs in zip(model.state_dict().items(), peer.state_dict().values(), strict=True):
        if theirs.ndim == 4:
            # Rows above and below are padding: of a kernel, the middle row alone sees something.
            theirs[:, :, theirs.shape[2] // 2] = ours
        else:
            theirs.copy_(ours)
    x = draw("series", steps)
    torch.testing.assert_close(model(x), peer.eval()(x[:, :, None]), rtol=1e-4, atol=1e-4)
