"""Sensitivity of a network whose layers matter differently."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from falconet.compression import (
    Constrained,
    Sensitivity,
    choose_bits,
    choose_sparsities,
    materialize,
    measure_sensitivity,
    prune,
    quantize,
)
from falconet.errors import ConfigError


def make_network() -> nn.Sequential:
    """Return a network in which the first layer decides and the second one's large outputs hide all else."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


def measure() -> tuple[nn.Module, Sensitivity]:
    """Return a network, and what scores it, by how much `0.weight` is as it was, whatever `2.weight` is."""
    model = make_network()
    wanted = model.get_parameter("0.weight").detach()

    def evaluate(changed: nn.Module) -> float:
        assert not isinstance(changed, Constrained)
        assert not changed.training
        return 1 - float((changed.get_parameter("0.weight").detach() - wanted).norm() / wanted.norm())

    return model, measure_sensitivity(model, evaluate, (0.9, 0.5), ("ternary", 8, 4))


def test_rows_go_from_mild_to_harsh_tensor_by_tensor() -> None:
    _, found = measure()
    assert found.score == 1
    assert [(row.name, row.setting) for row in found.sparsities] == [
        (name, fraction) for name in ("0.weight", "2.weight") for fraction in (0.5, 0.9)
    ]
    assert [(row.name, row.setting) for row in found.bits] == [
        (name, bits) for name in ("0.weight", "2.weight") for bits in (8, 4, "ternary")
    ]
    assert all((row.score == 1) is (row.name == "2.weight") for row in found.sparsities + found.bits)


def test_scores_are_those_of_the_step_alone() -> None:
    model, found = measure()
    wanted = model.get_parameter("0.weight")
    for row in found.sparsities + found.bits:
        setting = {row.name: row.setting}
        step = prune(setting) if row in found.sparsities else quantize(setting)  # type: ignore[arg-type]
        changed = materialize(step(model)).get_parameter("0.weight")
        assert row.score == pytest.approx(1 - float((changed - wanted).detach().norm() / wanted.detach().norm()))


def test_choices_cost_no_more_than_they_may() -> None:
    _, found = measure()
    scores = {row.setting: row.score for row in found.sparsities if row.name == "0.weight"}
    assert scores[0.9] < scores[0.5] < 1
    assert choose_sparsities(found, 0.0) == {"2.weight": 0.9}
    assert choose_sparsities(found, 1 - scores[0.5] + 1e-9) == {"0.weight": 0.5, "2.weight": 0.9}
    assert choose_sparsities(found, 1.0) == {"0.weight": 0.9, "2.weight": 0.9}
    assert choose_bits(found, 0.0) == {"2.weight": "ternary"}
    assert choose_bits(found, 0.1)["0.weight"] in (8, 4)


def test_a_lucky_harsh_setting_behind_a_bad_one_is_not_chosen() -> None:
    model = nn.Linear(4, 4)
    scores = iter([1.0, 1.0, 0.2, 1.0])
    found = measure_sensitivity(model, lambda _: next(scores), (0.1, 0.5, 0.9), ())
    assert choose_sparsities(found, 0.1) == {"weight": 0.1}
    assert choose_bits(found, 0.1) == {}


def test_choices_go_into_steps() -> None:
    model, found = measure()
    constrained = quantize(choose_bits(found, 1.0))(prune(choose_sparsities(found, 1.0))(model))
    plain = materialize(constrained)
    assert len(torch.unique(plain.get_parameter("0.weight"))) <= 3
    assert measure_sensitivity(constrained, lambda changed: 0.0, (0.5,), ()).sparsities[0].name == "0.weight"


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"^sparsities: wanted a fraction from 0 to below 1, found 1\.5$"):
        measure_sensitivity(nn.Linear(2, 2), lambda _: 0.0, (1.5,))
    with pytest.raises(ConfigError, match=r"^bits: wanted a whole number from 2 to 8 or 'ternary', found 9$"):
        measure_sensitivity(nn.Linear(2, 2), lambda _: 0.0, (), (9,))
