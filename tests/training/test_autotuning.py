"""What is measured before a run: learning rates against what is known of a quadratic, sizes of batches by a clock."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor, nn

from falconet import TrainConfig, runs, train
from falconet.data.loader import Loader
from falconet.data.preprocessing import create_preprocess
from falconet.errors import ConfigError, DivergedError, OutOfMemoryError, StorageError
from falconet.planning import Plan, plan_run, write_config
from falconet.spec import ImageSpec
from falconet.training import autotuning
from falconet.training.autotuning import LRRangeTest, _collect, find_batch_size, lr_range_test, take_steps
from falconet.training.batches import Batches


class Points:
    """Batches of two classes on a line, so that the loss of a linear model has a known curvature."""

    def __init__(self, size: int, count: int = 4096, scale: float = 1.0) -> None:
        self.size, self.count = size, count
        x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0)) * scale
        self.x, self.y = x, (x[:, 0] > 0).long()

    def __len__(self) -> int:
        return self.count // self.size

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(self)):
            part = slice(index * self.size, (index + 1) * self.size)
            yield self.x[part], self.y[part]


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_rate_falls_with_the_square_of_the_inputs(scale: float) -> None:
    """Plain gradient descent diverges above 2 / curvature, which for the Brier loss here is about 1 / scale**2."""
    config = TrainConfig(optimizer="sgd", momentum=0.0, clip_norm=None, loss="cross_entropy", weight_decay=0.0)
    scan = lr_range_test(nn.Linear(2, 2), Points(256, scale=scale), config)
    assert 1e-3 / scale**2 < scan.suggestion < 20 / scale**2
    assert list(scan.rates) == sorted(scan.rates)
    assert len(scan.rates) == len(scan.losses)


def test_the_network_stays_as_it_was() -> None:
    model = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    lr_range_test(model, Points(256), TrainConfig())
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_losses_are_smoothed_and_end_where_they_rise_too_far() -> None:
    scan = _collect([1.0, 2.0, 3.0, 4.0], iter([1.0, 0.5, 40.0, 0.1]))
    assert scan.rates == (1.0, 2.0)
    assert scan.losses == pytest.approx((1.0, (0.9 * 0.1 * 1.0 + 0.1 * 0.5) / 0.19))
    assert _collect([1.0, 2.0], iter([1.0, float("nan")])).rates == (1.0,)


def test_a_frozen_backbone_stays_frozen() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    first = model.get_parameter("0.weight").detach().clone()
    for config in (TrainConfig(), TrainConfig(freeze="backbone")):
        network = copy.deepcopy(model)
        assert len(list(take_steps(network, Points(256), config, [0.1] * 3))) == 3
        assert torch.equal(network.get_parameter("0.weight"), first) == (config.freeze is not None)


def test_a_loss_that_is_never_finite_has_no_rate_and_no_speed() -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(DivergedError, match="not finite even before the first step"):
        lr_range_test(model, Points(256), TrainConfig())
    with pytest.raises(DivergedError, match="not finite in the first steps"):
        find_batch_size(model, Points, TrainConfig())


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 64])
def test_sizes_that_memory_does_not_hold_are_left_out(room: int) -> None:
    class Hungry(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > room:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
            return super().forward(x)

    if not room:
        with pytest.raises(OutOfMemoryError, match="out of memory in batches of 16, the smallest"):
            find_batch_size(Hungry(2, 2), Points, TrainConfig())
    else:
        size, line = find_batch_size(Hungry(2, 2), Points, TrainConfig())
        assert size <= room
        assert "128:" not in line


def test_the_suggestion_is_a_tenth_of_the_lowest() -> None:
    assert LRRangeTest((1.0, 2.0, 4.0), (3.0, 1.0, 2.0)).suggestion == pytest.approx(0.2)


def test_the_fewest_samples_that_are_nearly_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {16: 100.0, 32: 500.0, 64: 910.0, 128: 1000.0, 256: 800.0}

    def measure(model: nn.Module, train: Batches, config: TrainConfig, *more: object) -> float:
        assert isinstance(train, Points)
        assert train.size == config.batch_size
        return speeds[train.size]

    monkeypatch.setattr(autotuning, "measure_training_throughput", measure)
    size, line = find_batch_size(nn.Linear(2, 2), Points, TrainConfig())
    assert size == 64
    assert line == "batch size 64 (samples a second by size: 16: 100, 32: 500, 64: 910, 128: 1,000, 256: 800)"


def test_speed_is_samples_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 10.25, 10.5, 11.5, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    assert autotuning.measure_training_throughput(nn.Linear(2, 2), Points(64), TrainConfig()) == pytest.approx(
        3 * 64 / 1.5
    )


@pytest.mark.parametrize(("enough", "rate"), [(8.0, 16 / 2), (9.0, 2 * 16 / 1.5)])
def test_speed_of_answers_is_that_of_the_first_batch_only_where_it_suffices(
    enough: float, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([10.0, 12.0, 12.5, 13.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    spec = ImageSpec((1, 2, 2), (0.5,), (0.5,))
    samples = Loader(torch.zeros(48, 1, 2, 2, dtype=torch.uint8), torch.zeros(48).long(), create_preprocess(spec), 16)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert autotuning.measure_inference_throughput(network, samples, enough) == pytest.approx(rate)


@pytest.mark.slow
def test_what_was_measured_is_written_down_and_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotuning, "SECONDS", 0.01)
    settings = {"model": {"name": "lenet300_100"}}
    run = train("digits", epochs=1, settings=settings, out=tmp_path, batch_size="auto", find_lr=True)
    plan = plan_run("digits", out=tmp_path, if_exists="resume", batch_size="auto", find_lr=True)
    config = plan.config.training
    assert plan.autotune == frozenset()
    assert config.batch_size in autotuning._SIZES
    assert config.learning_rate != TrainConfig().learning_rate
    assert (tmp_path / "learning-rate.png").read_bytes().startswith(b"\x89PNG")
    assert run.report.settings["training"]["learning_rate"] == config.learning_rate
    write_config(plan)


def test_a_run_that_ends_as_it_begins_leaves_a_folder_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(plan: Plan) -> NoReturn:
        raise StorageError("the disk is full")

    monkeypatch.setattr(autotuning, "SECONDS", 0.01)
    monkeypatch.setattr(runs, "write_config", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        train("digits", model="lenet300_100", out=tmp_path, find_lr=True)
    assert plan_run("digits", out=tmp_path).out == tmp_path


@pytest.mark.parametrize("text", ["0", "-3", "many", "2.5"])
def test_sizes_that_are_none(text: str) -> None:
    from falconet.cli.training import parse_batch_size

    with pytest.raises(ConfigError, match=rf"--batch-size: wanted 1 or more, or auto, found '{text}'"):
        parse_batch_size(text)
