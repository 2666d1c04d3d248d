from typing import Any, Literal

import pytest
import torch
from torch import nn

from falconet import MODELS, TrainConfig, create_model
from falconet.training.optimizers import make_ema, make_optimizer


def test_only_weights_of_two_or_more_dimensions_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decaying, free = make_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in decaying["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert len(free["params"]) == 4
    assert decaying["scale"] == free["scale"] == 1.0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_each_group_has_one_factor_and_one_decay(optimizer: Literal["sgd", "adam", "adamw"]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    config = TrainConfig(optimizer=optimizer, layer_decay=0.5, weight_decay=0.3)
    groups = make_optimizer(model, config).param_groups
    found = {(group["scale"], group["weight_decay"]): {id(p) for p in group["params"]} for group in groups}
    assert found == {
        (0.25, 0.3): {id(model[0].weight)},
        (0.25, 0.0): {id(model[0].bias)},
        (0.5, 0.0): {id(model[1].weight), id(model[1].bias)},
        (1.0, 0.3): {id(model[3].weight)},
        (1.0, 0.0): {id(model[3].bias)},
    }


@pytest.mark.parametrize("name", MODELS)
def test_no_bias_and_nothing_per_channel_decays(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, _ = make_optimizer(model, TrainConfig()).param_groups
    assert decaying["params"]
    for parameter in decaying["params"]:
        last = names[id(parameter)].rpartition(".")[2]
        assert last.startswith("weight")
        assert parameter[0].numel() > 1


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    groups = make_optimizer(model, TrainConfig()).param_groups
    assert [id(p) for group in groups for p in group["params"]] == [id(model.bias)]


@pytest.mark.parametrize(
    ("config", "peer"),
    [
        (TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.9), torch.optim.SGD),
        (TrainConfig(optimizer="adam", learning_rate=0.1, betas=(0.8, 0.999)), torch.optim.Adam),
        (TrainConfig(optimizer="adamw", learning_rate=0.1, betas=(0.8, 0.999)), torch.optim.AdamW),
    ],
)
def test_each_optimizer_steps_as_torch_does_it(config: TrainConfig, peer: Any) -> None:
    options = {"momentum": 0.9, "nesterov": True} if config.optimizer == "sgd" else {"betas": (0.8, 0.999)}
    ours, theirs = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    model = nn.ParameterList([ours])
    pairs = [(make_optimizer(model, config), ours), (peer([theirs], lr=0.1, weight_decay=0.01, **options), theirs)]
    for optimizer, parameter in pairs:
        for _ in range(3):
            parameter.grad = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("config", "peer", "options"),
    [
        (TrainConfig(optimizer="sgd", momentum=0.0), torch.optim.SGD, {}),
        (TrainConfig(optimizer="sgd"), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (TrainConfig(optimizer="adam"), torch.optim.Adam, {"betas": (0.9, 0.999)}),
        (TrainConfig(optimizer="adamw"), torch.optim.AdamW, {"betas": (0.9, 0.999)}),
    ],
)
def test_twenty_steps_give_the_weights_of_torch_to_the_last_bit(
    config: TrainConfig, peer: Any, options: dict[str, Any]
) -> None:
    """With a scaler that leaves a step out, clipped gradients, a changing rate, and moments that went to disk."""
    found = []
    for kind in ("ours", "theirs"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        ours = make_optimizer(model, config)
        groups = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in ours.param_groups]
        make: Any = {"ours": lambda m=model: make_optimizer(m, config), "theirs": None}[kind] or (
            lambda g=groups: peer([dict(group) for group in g], lr=config.learning_rate, fused=True, **options)
        )
        optimizer, scaler = make(), torch.amp.GradScaler("cpu", init_scale=8.0)
        for step in range(20):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + step)
            inputs = torch.randn(4, 6) * (torch.inf if step == 3 else 1)
            scaler.scale(model(inputs).square().mean()).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if step == 9:
                stored = optimizer.state_dict()
                optimizer = make()
                optimizer.load_state_dict(stored)
        found.append([parameter.detach().clone() for parameter in model.parameters()])
        assert scaler.get_scale() == 4.0
    for own, other in zip(*found, strict=True):
        assert own.isfinite().all()
        assert torch.equal(own, other)


def test_average_follows_its_formula_and_leaves_integers_alone() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("position", torch.tensor([7, 4999]))
    average = make_ema(model, decay=0.5)
    averaged: Any = average.module
    expected, values = 0.0, [1.0, 2.0, 4.0, 8.0]
    for count, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if count == 0 else decay * expected + (1 - decay) * value
    assert averaged.weight.item() == pytest.approx(expected)
    assert averaged.position.tolist() == [7, 4999]
