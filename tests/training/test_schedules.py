import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from falconet import TrainConfig
from falconet.training.schedules import learning_rate, training_side

Schedule = Literal["constant", "cosine", "one_cycle"]


def trace(config: TrainConfig, steps: int) -> list[float]:
    return [learning_rate(step, steps, config) for step in range(steps)]


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.3), (50, 0.1), (7, 0.5)])
def test_one_cycle_equals_torch(steps: int, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=steps, pct_start=warmup)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        peer.step() if len(expected) < steps else None
    config = TrainConfig(schedule="one_cycle", learning_rate=0.4, warmup=warmup)
    assert trace(config, steps) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_cosine_without_warmup_is_half_a_cosine_down_to_zero() -> None:
    config = TrainConfig(schedule="cosine", learning_rate=0.1, warmup=0.0)
    expected = [0.1 * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(10)]
    assert trace(config, 10) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_rises_in_equal_steps_to_the_peak(schedule: Schedule) -> None:
    rates = trace(TrainConfig(schedule=schedule, learning_rate=1.0, warmup=0.4), 10)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_constant_stays_at_its_peak() -> None:
    assert trace(TrainConfig(schedule="constant", learning_rate=0.3, warmup=0.0), 5) == [0.3] * 5


@given(
    schedule=st.sampled_from(["constant", "cosine", "one_cycle"]),
    steps=st.integers(1, 300),
    warmup=st.floats(0, 0.99),
)
def test_rates_stay_between_zero_and_the_peak(schedule: Schedule, steps: int, warmup: float) -> None:
    rates = trace(TrainConfig(schedule=schedule, learning_rate=0.5, warmup=warmup), steps)
    assert all(0 <= rate <= 0.5 * (1 + 1e-12) for rate in rates)
    assert max(rates) > 0


@given(st.integers(1, 600), st.integers(1, 500), st.floats(0.05, 1))
def test_sides_grow_in_few_sizes_to_the_whole(side: int, steps: int, initial_scale: float) -> None:
    sides = [training_side(side, step, steps, initial_scale) for step in range(steps + 1)]
    assert sides == sorted(sides)
    assert sides[-1] == side
    assert all(value % 4 == 0 or value == side for value in sides)
    assert abs(sides[0] - side * initial_scale) <= 4


def test_the_last_quarter_sees_whole_images() -> None:
    sides = [training_side(32, step, 16, 0.5) for step in range(16)]
    assert sides[:9] == [16, 16, 20, 20, 20, 24, 24, 24, 28]
    assert sides[12:] == [32] * 4
