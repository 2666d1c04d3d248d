"""Rounding whose errors cancel out: against solving for the free weights anew, and against the nearest levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from falconet.codec import decode, encode
from falconet.compression import (
    Constrained,
    chain,
    compensate,
    fold_batchnorm,
    materialize,
    prune,
    quantize,
    quantize_floats,
)
from falconet.compression.steps.compensation import _UNKNOWN, _gather, round_nearest, round_rows
from falconet.compression.steps.constraints import FakeQuantize, find_tensor
from falconet.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def round_by_solving(weights: np.ndarray, inputs: np.ndarray, step: float, levels: int) -> np.ndarray:
    """Round one weight after the other, solving least squares for all that are left after each."""
    found = weights.copy()
    free = list(np.argsort(-(inputs**2).sum(axis=0), kind="stable"))
    while free:
        place = free.pop(0)
        found[place] = np.clip(np.round(found[place] / step), -levels, levels) * step
        fixed = [index for index in range(len(weights)) if index not in free]
        wanted = inputs[:, fixed] @ (weights[fixed] - found[fixed]) + inputs[:, free] @ weights[free]
        found[free] = np.linalg.lstsq(inputs[:, free], wanted, rcond=None)[0]
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from([1, 3, 127]))
def test_what_is_left_makes_up_as_least_squares_would(seed: int, count: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(40, count)) @ random.normal(size=(count, count))
    weights, step = random.normal(size=count), 2.0 / (levels + 1)
    solved = round_by_solving(weights, inputs, step, levels)
    found = round_rows(weights[None], inputs.T @ inputs, np.array([step]), levels, 1e-12)[0]
    nearest = round_nearest(weights, np.array(step), levels)
    errors = [((inputs @ (other - weights)) ** 2).sum() for other in (solved, nearest)]
    np.testing.assert_allclose(found, solved if errors[0] <= errors[1] else nearest, atol=1e-9)


LAYERS: list[tuple[type[nn.Module], tuple[int, ...], dict[str, Any]]] = [
    (nn.Linear, (5, 6), {"in_features": 6, "out_features": 4}),
    (nn.Linear, (3, 5, 6), {"in_features": 6, "out_features": 4}),
    (nn.Conv1d, (3, 4, 9), {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "dilation": 2, "padding": 1}),
    (nn.Conv1d, (3, 4, 9), {"in_channels": 4, "out_channels": 4, "kernel_size": 2, "groups": 4, "stride": 2}),
    (nn.Conv2d, (2, 4, 7, 6), {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "padding": (1, 0)}),
    (nn.Conv2d, (2, 4, 7, 6), {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "stride": (2, 1)}),
]


@pytest.mark.parametrize(("kind", "shape", "options"), LAYERS)
def test_gathered_inputs_times_weights_are_the_outputs(
    kind: type[nn.Module], shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    layer = kind(**options, bias=False)
    inputs = torch.randn(shape)
    columns = _gather(layer, inputs)  # type: ignore[arg-type]
    weights = find_tensor(layer, "weight").reshape(len(columns), -1, columns.shape[-1])
    products = (columns @ weights.mT).movedim(0, -2).flatten(-2)
    outputs = layer(inputs)
    last = outputs if kind is nn.Linear else outputs.flatten(2).mT
    torch.testing.assert_close(products, last.reshape(-1, products.shape[-1]))


def make_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 6 * 6, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip


def draw_smooth(count: int) -> Tensor:
    """Return pictures whose pixels are much alike, as those of real ones are."""
    return nn.functional.interpolate(torch.randn(count, 2, 3, 3), size=(8, 8), mode="bilinear")


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_answers_come_nearer_on_inputs_never_seen(per: Any) -> None:
    network, batches, unseen = make_network().eval(), [draw_smooth(100), draw_smooth(28)], draw_smooth(200)
    rounded = chain(prune(0.5), quantize(4, per=per))(network)
    pruned, mended = prune(0.5)(network), compensate(batches)(rounded)
    far, near = ((materialize(model)(unseen) - pruned(unseen)).square().mean() for model in (rounded, mended))
    assert near < 0.5 * far


def test_weights_stay_on_their_grids_and_zeros_zeros() -> None:
    network = make_network()
    before = chain(prune(0.7), quantize(3, per="channel"), quantize_floats(8))(network)
    after = compensate([draw_smooth(40)])(before)
    assert isinstance(before, Constrained)
    for name in ("0.weight", "2.weight", "5.weight", "7.weight"):
        grid = after.list_constraints(name)[-1]
        assert isinstance(grid, FakeQuantize)
        values, kept = after.constrain(name), before.constrain(name, before=-1) != 0
        steps = grid.compute_scales(values.numel()).view(-1, *[1] * (values.ndim - 1))
        assert (values[~kept] == 0).all()
        assert ((values / steps).round() * steps == values).all()
        assert (values / steps).abs().max() <= 3
        assert not torch.equal(values, before.constrain(name))
        latent, old = find_tensor(after.model, name), find_tensor(before.model, name)
        assert torch.equal(latent[~kept], old[~kept]), "what may come back is as it was"
    state = materialize(after).state_dict()
    coded = encode({}, {name: value.numpy() for name, value in state.items()})
    assert len(coded) < len(encode({}, {name: value.numpy() for name, value in network.state_dict().items()})) / 10
    assert all(np.array_equal(value.numpy(), decode(coded)[1][name]) for name, value in state.items())


def test_the_model_that_is_given_stays_as_it_is() -> None:
    before = quantize(3)(make_network().train())
    state = {name: value.clone() for name, value in before.state_dict().items()}
    assert compensate([draw_smooth(4)])(before).training
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())


def test_inputs_that_are_all_zero_leave_the_nearest_levels() -> None:
    before = quantize(3)(make_network())
    after = compensate([torch.zeros(4, 2, 8, 8)])(before)
    assert torch.equal(after.constrain("0.weight"), before.constrain("0.weight"))


class Answer(nn.Module):
    """Layers of all kinds, some of them never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.recurrent = nn.LSTM(4, 4, batch_first=True)
        self.mirrored = nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect")
        self.idle = nn.Linear(4, 4)
        self.output = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.recurrent(self.attention(inputs, inputs, inputs)[0])[0]
        logits: Tensor = self.output(self.mirrored(hidden.mT).mean(dim=2))
        return logits


def test_what_is_not_treated_is_named_and_rounded_to_the_nearest() -> None:
    network, step = Answer(), compensate([torch.randn(50, 6, 4)])
    before = quantize(3)(network)
    after = step(before)
    named = step.find_untouched(before)
    assert set(named.values()) == {_UNKNOWN}
    assert {name for name, _ in network.named_parameters()} - set(named) == {"idle.weight", "output.weight"}
    moved = {name for name in after.names if not torch.equal(after.constrain(name), before.constrain(name))}
    assert moved == {"output.weight"}


def test_settings_and_order_are_checked() -> None:
    with pytest.raises(ConfigError, match="inputs: wanted batches of samples, found none"):
        compensate([])
    with pytest.raises(ConfigError, match=r"inputs: .* an empty one"):
        compensate([torch.zeros(0, 2)])
    for damping in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="damping: wanted a number above 0"):
            compensate([torch.zeros(1, 2)], damping)
    with pytest.raises(UsageError, match="wanted weights on grids, found none; put it after quantize"):
        chain(compensate([torch.zeros(1, 2)]), quantize(4))(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="put it first"):
        chain(quantize(4), compensate([torch.zeros(1, 2)]), fold_batchnorm())
