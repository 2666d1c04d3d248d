"""Which part of a network learns, and how fast, by training tiny networks and watching each tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falconet import Callback, TrainConfig, create_model, fit
from falconet.models.info import find_classifiers
from falconet.training import EpochRow
from falconet.training.finetuning import find_block, freeze, is_frozen, scale_rates
from falconet.training.optimizers import make_optimizer

FROZEN = TrainConfig(epochs=3, batch_size=8, learning_rate=0.05, schedule="constant", warmup=0.0, freeze="backbone")


class Images:
    """Three batches of dark and light images, the same in each epoch."""

    def __len__(self) -> int:
        return 3

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for index in range(3):
            labels = torch.arange(8) % 2
            images = torch.randn(8, 1, 8, 8, generator=generator) + labels[:, None, None, None]
            if index >= start:
                yield images, labels


def make_network() -> nn.Module:
    """A backbone with both kinds of normalization, and an output layer of which all outputs learn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        return nn.Sequential(first, nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 2))


class Watcher(Callback):
    """Keeps the network's tensors as they are after each step and epoch."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.states = [copy(network)]

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        self.states.append(copy(self.network))


def copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def find_changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def watch(**changes: Any) -> list[set[str]]:
    """Train; return the names of the tensors that changed in each epoch."""
    network = make_network()
    watcher = Watcher(network)
    config = TrainConfig(**{**vars(FROZEN), **changes})
    fit(network, Images(), Images(), config, callbacks=(watcher,))
    return [find_changed(*pair) for pair in zip(watcher.states, watcher.states[1:], strict=False)]


OUTPUT = {"4.weight", "4.bias"}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_a_frozen_backbone_stays_as_it_is_to_the_bit(optimizer: str, weight_decay: float) -> None:
    """Its weights, which decay must not reach either, and the statistics of its batch normalization."""
    assert watch(optimizer=optimizer, weight_decay=weight_decay) == [OUTPUT] * 3


def test_all_layers_learn_when_the_backbone_is_unfrozen() -> None:
    changed = watch(unfreeze_after=1)
    assert changed == [OUTPUT, set(make_network().state_dict()), set(make_network().state_dict())]


def test_without_freezing_all_layers_learn() -> None:
    assert watch(freeze=None) == [set(make_network().state_dict())] * 3


@pytest.mark.parametrize("unfreeze_after", [None, 1, 2])
def test_all_parameters_can_learn_again_after_training(unfreeze_after: int | None) -> None:
    network = make_network()
    config = TrainConfig(**{**vars(FROZEN), "unfreeze_after": unfreeze_after})
    fit(network, Images(), Images(), config)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_parameters_can_learn_again_after_a_run_that_was_broken_off() -> None:
    class Stop(Callback):
        def on_step(self, step: int, loss: float) -> None:
            raise KeyboardInterrupt

    network = make_network()
    assert fit(network, Images(), Images(), FROZEN, callbacks=(Stop(),)).ending == "interrupted"
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_the_caller_froze_stays_frozen() -> None:
    network = make_network()
    before = copy(network)
    network.get_submodule("0").requires_grad_(False)
    fit(network, Images(), Images(), TrainConfig(**{**vars(FROZEN), "freeze": None}))
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == [
        name for name, _ in network.named_parameters() if name.startswith("0.")
    ]
    changed = find_changed(before, copy(network))
    assert changed >= {"1.weight", "2.weight", "4.weight"}
    assert not changed & {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"}


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("lenet_relu", None),
        ("resnet18", "fc"),
        ("squeezenet1_1", "classifier.1"),
        ("efficientnet_b0", "classifier.1"),
        ("timm:resnet10t", "fc"),
        ("torchvision:mobilenet_v3_small", "classifier.3"),
    ],
)
def test_the_output_layer_is_the_one_that_makes_the_logits(name: str, output: str | None) -> None:
    with torch.device("meta"):
        network = create_model(name, num_classes=7)
    (found,) = find_classifiers(network)
    assert output in (None, found)
    assert len(network.get_parameter(f"{found}.weight")) == 7


def test_distilled_networks_of_timm_have_two_output_layers() -> None:
    network = create_model("timm:deit_tiny_distilled_patch16_224", num_classes=7)
    assert find_classifiers(network) == ("head", "head_dist")
    freeze(network, TrainConfig(freeze="backbone"), 1)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}


@pytest.mark.parametrize(
    ("freezing", "after", "frozen"),
    [(None, None, [False, False, False]), ("backbone", None, [True, True, True]), ("backbone", 2, [True, True, False])],
)
def test_epochs_count_from_one(freezing: Any, after: int | None, frozen: list[bool]) -> None:
    config = TrainConfig(epochs=3, freeze=freezing, unfreeze_after=after)
    assert [is_frozen(config, epoch) for epoch in (1, 2, 3)] == frozen


def test_only_normalization_of_batches_is_held() -> None:
    """Dropout, for one, goes on in a frozen network."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.Linear(2, 2)).train()
    freeze(network, FROZEN, 1)
    assert [module.training for module in network] == [True, False, True, True]
    network.train()
    freeze(network, TrainConfig(freeze="backbone", unfreeze_after=1), 2)
    assert all(module.training for module in network)


# How fast each block learns.


def find_factors(name: str, decay: float, **options: Any) -> dict[str, float]:
    with torch.device("meta"):
        network = create_model(name, **options)
        factors = [factor for _, factor in scale_rates(network, decay)]
    return dict(zip(dict(network.named_parameters()), factors, strict=True))


def test_blocks_of_a_resnet_learn_ever_faster() -> None:
    factors = find_factors("resnet18", 0.5, num_classes=4)
    order = ["conv1", "bn1", *(f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)), "fc"]
    for name, factor in factors.items():
        block = next(block for block in order if name.startswith(f"{block}."))
        assert factor == 0.5 ** (len(order) - 1 - order.index(block)), name
    assert factors["fc.weight"] == factors["fc.bias"] == 1
    assert factors["conv1.weight"] == 0.5**10


def test_blocks_of_an_efficientnet_learn_ever_faster() -> None:
    factors = find_factors("efficientnet_b0", 0.9, num_classes=4)
    for name, factor in factors.items():
        stage = 9 if name.startswith("classifier.1.") else int(name.split(".")[1])
        assert factor == pytest.approx(0.9 ** (9 - stage)), name
    assert factors["classifier.1.bias"] == 1


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("conv1.weight", "conv1"),
        ("layer1.0.conv2.weight", "layer1.0"),
        ("features.denseblock2.denselayer1.conv1.weight", "features.denseblock2"),
        ("encoder.layers.encoder_layer_11.mlp.0.weight", "encoder.layers.encoder_layer_11"),
        ("encoder.ln.weight", "encoder.ln"),
        ("class_token", "class_token"),
    ],
)
def test_a_block_ends_with_the_first_number_of_a_name(name: str, block: str) -> None:
    assert find_block(name) == block


def test_blocks_of_a_vision_transformer_learn_ever_faster() -> None:
    factors = find_factors("torchvision:vit_b_16", 0.75, num_classes=4)
    layers = [factors[f"encoder.layers.encoder_layer_{index}.mlp.0.weight"] for index in range(12)]
    assert layers == sorted(set(layers))
    assert factors["encoder.layers.encoder_layer_11.self_attention.in_proj_weight"] == layers[11] < 1


def test_without_decay_all_learn_alike() -> None:
    assert set(find_factors("resnet18", 1.0).values()) == {1.0}


def test_a_step_of_plain_sgd_moves_each_parameter_by_its_own_rate() -> None:
    network = make_network()
    config = TrainConfig(
        **{**vars(FROZEN), "epochs": 1, "freeze": None, "layer_decay": 0.5, "learning_rate": 0.125},
    )
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None, "precision": "fp32"}
    config = TrainConfig(**{**vars(config), **plain})
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    images, labels = next(Images().epoch(1))
    peer = make_network().train()
    nn.functional.cross_entropy(peer(images), labels).backward()  # type: ignore[no-untyped-call]

    class One(Images):
        def __len__(self) -> int:
            return 1

        def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
            yield images, labels

    fit(network, One(), One(), config)
    scales = {"0": 0.125, "1": 0.25, "2": 0.5, "4": 1.0}
    for name, parameter in network.named_parameters():
        gradient = peer.get_parameter(name).grad
        assert gradient is not None
        assert gradient.any() or name == "0.0.bias", name
        expected = before[name] - 0.125 * scales[name.partition(".")[0]] * gradient
        # A few units in the last place of weights of 0.1: processors add gradients up in other orders.
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=5e-8)


def test_groups_hold_each_parameter_once_with_its_factor() -> None:
    network = make_network()
    groups = make_optimizer(network, TrainConfig(layer_decay=0.5, weight_decay=0.3)).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(p)]: (group["scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    scales = {"0": 0.125, "1": 0.25, "2": 0.5, "4": 1.0}
    for name, parameter in network.named_parameters():
        assert found[name] == (scales[name.partition(".")[0]], 0.3 if parameter.ndim > 1 else 0.0)
