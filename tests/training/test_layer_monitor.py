"""Doctor: what it measures against numbers worked out by hand, what it finds in networks that are built to be ill."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from falconet import Callback, ImageSpec, Loader, TrainConfig, create_model, fit, load_dataset
from falconet.data.loader import load_inputs
from falconet.data.preprocessing import ImagePreprocess
from falconet.training import EpochRow
from falconet.training.diagnoses import Diagnosis, LayerStats, diagnose
from falconet.training.layer_monitor import LayerMonitor, choose_stride

PLAIN = TrainConfig(
    epochs=1, optimizer="sgd", momentum=0, nesterov=False, learning_rate=0.5, weight_decay=0, schedule="constant",
    warmup=0, clip_norm=None, precision="fp32",
)  # fmt: skip


class Given:
    """The same batches in each epoch."""

    def __init__(self, *batches: tuple[Tensor, Tensor]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.batches[start:]


def examine(model: nn.Module, *inputs: Tensor, config: TrainConfig = PLAIN) -> dict[str, LayerStats]:
    """Train on the inputs, a batch each, all of class 0; return the last epoch's statistics."""
    data = Given(*((batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in inputs))
    layer_monitor = LayerMonitor()
    fit(model, data, data, config, callbacks=[layer_monitor])
    return {row.layer: row for row in layer_monitor.layer_stats if row.epoch == config.epochs}


def test_vitals_of_one_layer_worked_out_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    model[0].weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    layer_stats = examine(model, torch.ones(2, 2))["0"]
    # Logits 3 and 4 of class 0: their gradient is p - 1 and p, so that each of the weights has +-s, s = 1 / (1 + 1/e).
    slope = 1 / (1 + math.exp(-1))
    assert layer_stats.gradient == pytest.approx(2 * slope / 5)
    assert layer_stats.update == pytest.approx(0.5 * 2 * slope / 5, rel=1e-5)
    assert layer_stats.activation == pytest.approx(math.sqrt((9 + 16) / 2))
    assert layer_stats.samples == 2
    assert math.isnan(layer_stats.dead)  # Nobody trained what it sees.


def make_half_dead() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 9, 2)
    )
    for name, bias in (("0", (0.0, -100.0, 0.0, 0.0)), ("2", (0.0, -100.0))):
        model.get_submodule(name).load_state_dict({"bias": torch.tensor(bias)}, strict=False)
        nn.init.ones_(model.get_parameter(f"{name}.weight"))
    return model


def test_units_are_evaluated_where_they_are_read() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1  # All but the center are zero behind ReLU.
    layer_stats = examine(make_half_dead(), image, config=dataclasses.replace(PLAIN, learning_rate=1e-9))
    assert math.isnan(layer_stats["0"].dead)
    assert layer_stats["2"].dead == 0.25
    # A map that is awake at one of nine positions is one unit that lives, not eight that are dead.
    assert layer_stats["5"].dead == 0.5


@pytest.mark.parametrize(("sign", "dead"), [(1.0, 0.5), (-1.0, 0.0)])
def test_a_unit_is_dead_only_where_no_sampled_batch_wakes_it(sign: float, dead: float) -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data = torch.tensor([[1.0], [-1.0]])
    nn.init.zeros_(model.get_parameter("0.bias"))
    # Of 18 steps, the first and the 17th are sampled.
    inputs = [torch.ones(4, 1)] * 16 + [sign * torch.ones(4, 1)] * 2
    layer_stats = examine(model, *inputs, config=dataclasses.replace(PLAIN, learning_rate=1e-9))
    assert layer_stats["2"].dead == dead
    assert layer_stats["2"].samples == 8


def test_what_is_frozen_has_no_gradient() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    layer_stats = examine(model, torch.rand(5, 3), config=dataclasses.replace(PLAIN, freeze="backbone"))
    assert math.isnan(layer_stats["0"].gradient)
    assert layer_stats["0"].activation > 0
    assert layer_stats["2"].update > 0


class Shared(nn.Module):
    """A layer that is called twice, a recurrent one, whose outputs are tuples, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(6, 2)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.cell = nn.LSTM(4, 6, batch_first=True)
        self.twice = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        states = self.cell(self.twice(self.twice(x)))[0]
        logits: Tensor = self.output(self.attention(states, states, states)[0].mean(dim=1))
        return logits


def test_layers_stand_in_the_order_of_their_calls() -> None:
    model = Shared()
    nn.init.eye_(model.twice.weight)
    model.twice.weight.data *= 2
    layer_stats = examine(model, torch.ones(3, 5, 4))
    # The projection within attention is not called as a layer, but learns.
    assert list(layer_stats) == ["twice", "cell", "attention", "output", "attention.out_proj"]
    assert layer_stats["twice"].samples == 6
    assert layer_stats["twice"].activation == pytest.approx(3.0)  # The mean of 2 and 4.
    assert layer_stats["cell"].dead == 0
    assert all(math.isfinite(row.update) and math.isfinite(row.gradient) for row in layer_stats.values())


class Drops(nn.Module):
    """Convolutions with dropout, normalization and functions that are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.output = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.conv2(nn.functional.relu(self.norm(self.conv1(x)), inplace=True)), inplace=True)
        logits: Tensor = self.output(nn.functional.dropout(x.flatten(1), 0.3, self.training))
        return logits


def make_rows() -> nn.Module:
    return create_model("lstm", num_classes=10, in_channels=1, input_size=(8, 8), kind="image", hidden=8)


@pytest.mark.parametrize("make", [Drops, make_rows])
@pytest.mark.parametrize(
    "changes", [{}, {"precision": "bf16"}, {"freeze": "backbone", "unfreeze_after": 1}, {"ema_decay": 0.9}]
)
def test_weights_are_the_same_bit_for_bit_without_it(make: Callable[[], nn.Module], changes: dict[str, Any]) -> None:
    config = TrainConfig(epochs=2, **changes)
    weights = []
    for callbacks in ((), (LayerMonitor(),)):
        model = build(make)
        fit(model, *load_digits(160, batch_size=16), config, callbacks=callbacks)
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


class Watcher(Callback):
    """Stands before the monitor, and notes at which steps there are hooks."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_model(self, model: nn.Module) -> None:
        self.model = model

    def on_gradients(self, step: int) -> None:
        if any(module._forward_hooks for module in self.model.modules()):
            self.steps.append(step)


def test_few_steps_are_looked_at_and_no_hook_is_left() -> None:
    watcher, model = Watcher(), build(Drops)
    fit(model, *load_digits(160, batch_size=8), TrainConfig(epochs=3), callbacks=[watcher, LayerMonitor()])
    assert watcher.steps == [1, 17, 33, 49]  # Of 60, 20 an epoch.
    assert not any(module._forward_hooks for module in model.modules())


@settings(deadline=None)
@given(steps=st.integers(1, 5000), epoch=st.integers(1, 50))
def test_each_epoch_has_a_sampled_step_and_longer_ones_few(steps: int, epoch: int) -> None:
    stride = choose_stride(steps)
    sampled = [step for step in range((epoch - 1) * steps + 1, epoch * steps + 1) if (step - 1) % stride == 0]
    assert 1 <= len(sampled) <= math.ceil(steps / min(16, steps))


def test_validation_is_not_looked_at() -> None:
    model = nn.Sequential(nn.Linear(1, 2))
    train, val = (Given((value * torch.ones(3, 1), torch.zeros(3, dtype=torch.int64))) for value in (0.0, 1e6))
    nn.init.zeros_(model.get_parameter("0.bias"))
    layer_monitor = LayerMonitor()
    fit(model, train, val, dataclasses.replace(PLAIN, learning_rate=1e-6), callbacks=[layer_monitor])
    assert layer_monitor.layer_stats[0].activation == 0
    assert layer_monitor.layer_stats[0].samples == 3


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.last = step

    def on_step(self, step: int, loss: float) -> None:
        if step == self.last:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [20, 29])
def test_a_resumed_run_goes_on_with_the_vitals_before(tmp_path: Path, stop: int) -> None:
    config = TrainConfig(epochs=4)
    whole, first = LayerMonitor(), LayerMonitor()
    fit(build(Drops), *load_digits(160, batch_size=16), config, callbacks=[whole])
    arguments: dict[str, Any] = {"checkpoints": tmp_path}
    fit(build(Drops), *load_digits(160, batch_size=16), config, callbacks=[first, Stop(stop)], **arguments)
    # The epoch that was broken off is there to be looked at, but is begun anew.
    assert first.layer_stats[-1].epoch == 3 - (stop == 20)
    second = LayerMonitor(first.layer_stats)
    fit(build(Drops), *load_digits(160, batch_size=16), config, callbacks=[second], **arguments)
    assert [(row.epoch, row.layer) for row in second.layer_stats] == [
        (row.epoch, row.layer) for row in whole.layer_stats
    ]
    # NaN is not equal to itself, but written alike.
    assert list(map(repr, second.layer_stats)) == list(map(repr, whole.layer_stats))


def load_digits(
    count: int | None = None, side: int = 8, *, batch_size: int = 64, shuffled: bool = False
) -> tuple[Loader, Loader]:
    """Return training and validation samples of the embedded digits; `shuffled`: with each other's labels."""
    dataset = load_dataset("digits")
    spec = ImageSpec((1, side, side), (0.3,), (0.37,))
    loaders = []
    for name in ("train", "val"):
        split = dataset.splits[name]
        part = split.take(np.arange(min(count or len(split), len(split)), dtype=np.int64))
        labels = torch.from_numpy(part.labels)
        if shuffled:
            labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
        sampler: Literal["shuffle", "sequential"] = "shuffle" if name == "train" else "sequential"
        size = batch_size if name == "train" else 256
        loaders.append(Loader(load_inputs(part, spec).inputs, labels, ImagePreprocess(spec), size, sampler=sampler))
    return loaders[0], loaders[1]


def build(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def evaluate(
    make: Callable[[], nn.Module], config: TrainConfig, loaders: tuple[Loader, Loader]
) -> tuple[Diagnosis, ...]:
    """Train and return what the monitor finds."""
    layer_monitor = LayerMonitor()
    result = fit(build(make), *loaders, config, callbacks=[layer_monitor])
    labels = loaders[1].labels
    chance = float(torch.bincount(labels).max() / len(labels))
    return diagnose(result.history, layer_monitor.layer_stats, chance, diverged=result.ending == "diverged")


def make_sigmoids() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, 32), nn.Sigmoid()]
    for _ in range(28):
        layers += [nn.Linear(32, 32), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def make_small() -> nn.Module:
    convolutions = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU())
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(256, 10))


def make_dead() -> nn.Module:
    model = make_small()
    nn.init.constant_(model.get_parameter("2.bias"), -100.0)
    return model


def make_explosive() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(12):
        layers += [nn.Linear(64, 64, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=2.0)
    return model


def make_dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def make_lenet() -> nn.Module:
    return create_model("lenet_relu", num_classes=10, in_channels=1, input_size=16)


def test_vanishing_gradients_are_found_at_the_first_of_thirty_sigmoids() -> None:
    (found,) = evaluate(make_sigmoids, TrainConfig(epochs=3, optimizer="sgd", learning_rate=0.05), load_digits(600))
    assert (found.name, found.subject) == ("vanishing_gradients", "1")


@pytest.mark.parametrize("clip", [5.0, None])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_thousandfold_learning_rate_is_found(optimizer: Literal["sgd", "adamw"], clip: float | None) -> None:
    rate = {"sgd": 50.0, "adamw": 2.0}[optimizer]
    config = TrainConfig(epochs=4, optimizer=optimizer, learning_rate=rate, clip_norm=clip)
    (found,) = evaluate(make_small, config, load_digits(600))
    assert found.name in ("learning_rate_too_high", "exploding_gradients")


def test_a_thousandth_of_the_learning_rate_is_found() -> None:
    (found,) = evaluate(make_small, TrainConfig(epochs=4, learning_rate=2e-6), load_digits(600))
    assert found.name == "learning_rate_too_low"


def test_exploding_gradients_are_found() -> None:
    config = TrainConfig(epochs=3, optimizer="sgd", learning_rate=0.01, clip_norm=None)
    (found,) = evaluate(make_explosive, config, load_digits(600))
    assert found.name == "exploding_gradients"


def test_dead_units_are_found_before_the_layer_that_reads_them() -> None:
    (found,) = evaluate(make_dead, TrainConfig(epochs=3), load_digits(600))
    assert (found.name, found.subject, found.epoch) == ("dead_units", "5", 1)
    assert "100% of the units before layer 5" in found.evidence


def test_a_hundred_samples_for_many_epochs_are_overfitted() -> None:
    train, _ = load_digits(100)
    _, val = load_digits()
    (found,) = evaluate(make_small, TrainConfig(epochs=40, learning_rate=0.01, schedule="constant"), (train, val))
    assert found.name == "overfitting"
    assert 4 < found.epoch < 20


def test_shuffled_labels_are_found() -> None:
    loaders = load_digits(400, shuffled=True)
    (found,) = evaluate(make_dense, TrainConfig(epochs=40, learning_rate=0.01), loaders)
    assert found.name == "unlearnable_labels"


def make_series() -> tuple[Given, Given]:
    """Rising and falling series with noise."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for count in (20, 2):
        labels = torch.arange(count * 16) % 2
        slope = torch.linspace(-1, 1, 30) * (2.0 * labels - 1)[:, None]
        series = (slope + torch.randn(slope.shape, generator=generator))[:, None]
        parts.append(Given(*zip(torch.split(series, 16), torch.split(labels, 16), strict=True)))
    return parts[0], parts[1]


def test_nothing_is_said_of_a_healthy_network() -> None:
    assert evaluate(make_lenet, TrainConfig(epochs=4), load_digits(side=16)) == ()


def test_nothing_is_said_of_a_healthy_recurrent_network() -> None:
    layer_monitor = LayerMonitor()
    model = build(lambda: create_model("gru", num_classes=2, in_channels=1, input_size=30, kind="series", hidden=16))
    result = fit(model, *make_series(), TrainConfig(epochs=5), callbacks=[layer_monitor])
    assert result.history[-1].val_accuracy > 0.8
    assert diagnose(result.history, layer_monitor.layer_stats, 0.5) == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("lenet5", 16, {}),
        ("resnet20", 8, {"width": 4}),
        ("transformer", 8, {"width": 32, "kind": "image"}),
        ("lenet300_100", 8, {}),
        ("lenet_relu", 16, {}),
    ],
)
def test_nothing_is_said_of_healthy_networks(name: str, side: int, options: dict[str, Any]) -> None:
    def make() -> nn.Module:
        return create_model(name, num_classes=10, in_channels=1, input_size=(side, side), **options)

    for epochs in (3, 12):
        assert evaluate(make, TrainConfig(epochs=epochs), load_digits(side=side)) == ()


def test_rows_are_there_when_the_run_goes_back() -> None:
    """Steps that are taken anew count once."""
    layer_monitor, model = LayerMonitor(), nn.Sequential(nn.Linear(2, 2))
    layer_monitor.on_model(model)
    layer_monitor.on_start(2, 3, ())
    for step, size in ((1, 100), (2, 100), (3, 100), (1, 1), (2, 1), (3, 1)):
        layer_monitor.on_batch(step)
        model(size * torch.ones(4, 2)).sum().backward()
        layer_monitor.on_gradients(step)
        model.zero_grad()
        layer_monitor.on_step(step, 1.0)
    layer_monitor.on_epoch(EpochRow(1, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0), True)
    layer_monitor.on_end()
    (row,) = layer_monitor.layer_stats
    assert (row.epoch, row.layer) == (1, "0")
    assert row.gradient == pytest.approx(8 / float(model.get_parameter("0.weight").detach().norm()))
