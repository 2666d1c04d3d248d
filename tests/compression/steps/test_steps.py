"""Steps: what they choose, against torch's pruning, scikit-learn's clusters and naive searches; chains; settings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from falconet.compression import (
    Chain,
    Constrained,
    PruneWeights,
    chain,
    cluster,
    materialize,
    prune,
    quantize,
    quantize_floats,
)
from falconet.compression.steps import pruning
from falconet.compression.steps.constraints import Codebook, FakeQuantize, Mask
from falconet.compression.steps.fitting import find_members, fit_centroids, fit_scales
from falconet.compression.steps.pruning import RAMP, keep_highest, rank_adaptively
from falconet.errors import ConfigError, UnknownNameError, UsageError


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))


WEIGHTS = ("0.weight", "4.weight")


def find_mask(model: nn.Module, name: str) -> Mask:
    assert isinstance(model, Constrained)
    mask = model.list_constraints(name)[0]
    assert isinstance(mask, Mask)
    return mask


def measure_sparsities(model: nn.Module, names: tuple[str, ...] = WEIGHTS) -> float:
    values = torch.cat([materialize(model).get_parameter(name).detach().flatten() for name in names])
    return float((values == 0).float().mean())


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.5, 0.97])
def test_layers_are_pruned_as_torch_does(amount: float) -> None:
    model, theirs = make_network(), make_network()
    theirs.load_state_dict(model.state_dict())
    pruned = prune(amount)(model)
    for name in WEIGHTS:
        layer = theirs.get_submodule(name.split(".")[0])
        torch_prune.l1_unstructured(layer, "weight", amount)  # type: ignore[no-untyped-call]
        assert torch.equal(find_mask(pruned, name).kept, layer.get_buffer("weight_mask").bool())
        assert torch.equal(
            materialize(pruned).get_parameter(name),
            layer.get_parameter("weight_orig") * layer.get_buffer("weight_mask"),
        )


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.97])
def test_global_pruning_is_torchs(amount: float) -> None:
    model, theirs = make_network(), make_network()
    theirs.load_state_dict(model.state_dict())
    pruned = prune(amount, scope="global")(model)
    layers = [theirs.get_submodule(name.split(".")[0]) for name in WEIGHTS]
    wanted = [(layer, "weight") for layer in layers]
    torch_prune.global_unstructured(wanted, pruning_method=torch_prune.L1Unstructured, amount=amount)
    for name, layer in zip(WEIGHTS, layers, strict=True):
        assert torch.equal(find_mask(pruned, name).kept, layer.get_buffer("weight_mask").bool())


def test_lamp_scores_are_the_papers() -> None:
    weights = torch.randn(4, 6)
    wanted = torch.empty(4, 6)
    for place, weight in enumerate(weights.flatten().tolist()):
        rest = sum(other**2 for other in weights.flatten().tolist() if abs(other) >= abs(weight))
        wanted.view(-1)[place] = weight**2 / rest
    torch.testing.assert_close(rank_adaptively(weights.abs()).float(), wanted)
    assert torch.equal(rank_adaptively(torch.zeros(3)), torch.zeros(3).double())


def test_lamp_keeps_some_of_each_layer_where_one_threshold_keeps_none() -> None:
    model = make_network()
    with torch.no_grad():
        model.get_parameter("4.weight").mul_(1e-3)
    for scope, empty in (("global", True), ("lamp", False)):
        pruned = PruneWeights(0.96, scope=scope)(model)  # type: ignore[arg-type]
        assert (measure_sparsities(pruned, WEIGHTS[1:]) == 1) is empty
        assert measure_sparsities(pruned) == pytest.approx(0.96, abs=0.001)


@given(
    st.floats(0, 0.999),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.sampled_from(["layer", "global", "lamp"]),
    st.booleans(),
)
def test_share_of_zeros_is_exact_within_one_weight(amount: float, shape: list[int], scope: Any, regrow: bool) -> None:
    model = nn.ParameterList([nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape))])
    plain = materialize(prune(amount, scope=scope, regrow=regrow)(model))
    parts = list(plain.parameters())
    tensors = parts if scope == "layer" else [torch.cat([part.flatten() for part in parts])]
    for tensor in tensors:
        assert abs(int((tensor == 0).sum()) - amount * tensor.numel()) <= 1
        assert tensor.any()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.floats(0, 0.99))
def test_what_goes_is_no_larger_than_what_stays(sizes: list[int], fraction: float) -> None:
    values = torch.tensor(sizes).float().abs()
    kept = keep_highest(values, None, fraction)
    assert not (~kept).any() or values[~kept].max() <= values[kept].min()
    kept = keep_highest(values, -values, fraction)
    assert not (~kept).any() or values[~kept].min() >= values[kept].max()


def test_amounts_by_name() -> None:
    model = make_network()
    step = prune({"4.weight": 0.75})
    pruned = step(model)
    assert measure_sparsities(pruned, ("4.weight",)) == pytest.approx(0.75, abs=1e-3)
    assert measure_sparsities(pruned, ("0.weight",)) == 0
    assert step.find_untouched(model)["0.weight"] == "is not named in amount"


def test_cubic_schedule_has_the_papers_values() -> None:
    model = nn.Linear(100, 100)
    with torch.no_grad():
        model.weight[:10] = 0
    pruned = prune(0.9, schedule="cubic")(model)
    assert isinstance(pruned, Constrained)
    fractions = []
    for fraction in (0.0, 0.25, 0.5, 0.5, 1.0, 1.0):
        pruned.advance(fraction)
        fractions.append(measure_sparsities(pruned, ("weight",)))
    # The ramp ends before the training does.
    done = [min(fraction / RAMP, 1.0) for fraction in (0.0, 0.25, 0.5, 0.5, 1.0, 1.0)]
    wanted = [0.9 + (0.1 - 0.9) * (1 - fraction) ** 3 for fraction in done]
    assert fractions == pytest.approx(wanted, abs=1e-4)
    pruned.advance(0.0)
    assert measure_sparsities(pruned, ("weight",)) == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize("scope", ["layer", "global", "lamp"])
@pytest.mark.parametrize("regrow", [True, False])
def test_only_regrowing_masks_give_weights_back(scope: Any, regrow: bool) -> None:
    model = make_network()
    pruned = prune(0.8, scope=scope, schedule="cubic", regrow=regrow)(model)
    assert isinstance(pruned, Constrained)
    pruned.advance(0.5)
    before = {name: find_mask(pruned, name).kept.clone() for name in WEIGHTS}
    with torch.no_grad():
        for name in WEIGHTS:
            weights = pruned.model.get_parameter(name)
            weights.copy_(torch.where(before[name], weights, 10.0))
    pruned.advance(0.6)
    back = [bool((find_mask(pruned, name).kept & ~before[name]).any()) for name in WEIGHTS]
    assert any(back) is regrow
    pruned.advance(1.0)
    assert measure_sparsities(pruned) == pytest.approx(0.8, abs=0.01)


def test_movement_keeps_the_highest_scores() -> None:
    model = nn.Linear(8, 8)
    pruned = prune(0.75, criterion="movement")(model)
    assert isinstance(pruned, Constrained)
    mask = find_mask(pruned, "weight")
    # Before scores are trained, sizes decide.
    assert torch.equal(mask.kept, find_mask(prune(0.75)(model), "weight").kept)
    assert mask.scores is not None
    with torch.no_grad():
        mask.scores.copy_(torch.arange(64.0).view(8, 8))
    pruned.advance(1.0)
    assert torch.equal(mask.kept, torch.arange(64).view(8, 8) >= 48)


def test_movement_finds_what_training_wants() -> None:
    """Large weights that the task drives to zero go; small ones that it lets grow stay, unlike by size."""
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.3]]))
    pruned = prune(0.5, criterion="movement", schedule="cubic")(layer)
    assert isinstance(pruned, Constrained)
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.05)
    for step in range(20):
        pruned.advance(step / 40)
        x = torch.randn(64, 2)
        loss = (pruned(x)[:, 0] - x[:, 1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pruned.advance(1.0)
    assert find_mask(pruned, "weight").kept.tolist() == [[False, True]]


@pytest.mark.parametrize("levels", [1, 3, 7, 31, 127])
def test_steps_have_nearly_the_least_squared_error(levels: int) -> None:
    weights = torch.randn(3, 2000) * torch.tensor([[0.01], [1.0], [30.0]])
    weights[1].masked_fill_(torch.rand(2000) < 0.5, 0.0)
    fitted = fit_scales(weights, levels)
    assert torch.equal(fitted, fitted.bfloat16().float())

    def measure(row: Tensor, step: float) -> float:
        return float(((row / step).round().clamp(-levels, levels) * step - row).square().sum())

    for row, step in zip(weights, fitted.tolist(), strict=True):
        tried = np.linspace(0.02, 1.1, 500) * float(row.abs().max()) / levels
        assert measure(row, step) <= 1.1 * min(measure(row, float(candidate)) for candidate in tried)


def test_steps_of_many_weights_are_found_from_some() -> None:
    weights = torch.randn(1, 1_500_000)
    assert float(fit_scales(weights, 7)) == pytest.approx(float(fit_scales(weights[:, :500_000], 7)), rel=0.1)
    weights = (weights * 2).round().clamp(-7, 7) * 0.375
    assert float(fit_scales(weights, 7)) == 0.375


@settings(max_examples=30)
@given(st.integers(1, 15), st.integers(1, 255), st.lists(st.integers(-15, 15), min_size=1, max_size=20))
def test_values_on_a_grid_keep_it(levels: int, step: int, multiples: list[int]) -> None:
    values = torch.tensor(multiples).clamp(-levels, levels)[None] * (step / 1024)
    steps = fit_scales(values, levels)
    assert torch.equal(FakeQuantize(steps, levels)(values), values)


def test_channels_without_weights_are_quantized_to_zeros() -> None:
    layer = nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    plain = materialize(quantize(4, per="channel")(layer))
    assert not plain.get_parameter("weight")[1].any()
    assert plain.get_parameter("weight")[0].any()


@pytest.mark.parametrize("levels", [2, 4, 16, 64])
@pytest.mark.parametrize("draw", [torch.randn, torch.rand])
def test_clusters_are_about_as_tight_as_scikit_learns(levels: int, draw: Callable[[int], Tensor]) -> None:
    values = draw(3000)
    centroids = fit_centroids(values, levels)
    assert len(centroids) <= levels
    inertia = float((values[:, None] - centroids).abs().amin(dim=1).square().sum())
    reference = KMeans(levels, n_init=3, random_state=0).fit(values.numpy()[:, None])
    assert inertia <= 1.05 * float(reference.inertia_)


@given(st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=60), st.integers(1, 9))
def test_members_have_the_nearest_centroid(items: list[float], levels: int) -> None:
    values = torch.tensor([item for item in items if item] or [1.0])
    centroids = fit_centroids(values, levels)
    assert len(centroids) <= levels
    assert (centroids.diff() > 0).all()
    members = find_members(values, centroids)
    distances = (values[:, None] - centroids).abs()
    torch.testing.assert_close(distances.gather(1, members[:, None] - 1)[:, 0], distances.amin(dim=1))
    assert set(members.tolist()) == set(range(1, len(centroids) + 1))


def test_few_values_are_their_own_centroids() -> None:
    values = torch.tensor([0.5, -1.0, 0.5, 2.0])
    assert fit_centroids(values, 3).tolist() == [-1.0, 0.5, 2.0]
    assert find_members(torch.tensor([0.0, -1.0, 2.0]), torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0, 1, 3]


def test_clusters_leave_zeros_out() -> None:
    clustered = cluster({"4.weight": 4})(prune(0.5)(make_network()))
    value = materialize(clustered).get_parameter("4.weight")
    assert (value == 0).float().mean() == pytest.approx(0.5, abs=1e-3)
    assert len(torch.unique(value[value != 0])) == 4


def test_clusters_follow_a_mask_that_changes() -> None:
    clustered = chain(prune(0.8, schedule="cubic"), cluster(4))(make_network())
    assert isinstance(clustered, Constrained)
    assert measure_sparsities(clustered) == 0
    clustered.advance(1.0)
    assert measure_sparsities(clustered) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("bits", "levels"), [("ternary", 3), (2, 3), (3, 7), (8, 255)])
def test_bits_are_levels(bits: Any, levels: int) -> None:
    plain = materialize(quantize(bits)(make_network()))
    found = len(torch.unique(plain.get_parameter("4.weight")))
    assert found <= levels
    assert found > levels / 2


def test_bits_by_name() -> None:
    step = quantize({"0.weight": 2, "4.weight": "ternary"}, per="channel", learn_step=False)
    quantized = step(make_network())
    assert isinstance(quantized, Constrained)
    for name, steps in (("0.weight", 6), ("4.weight", 5)):
        grid = quantized.list_constraints(name)[0]
        assert isinstance(grid, FakeQuantize)
        assert (grid.levels, len(grid.start)) == (1, steps)
        assert not list(grid.parameters())


def test_order_of_constraints_is_the_order_of_steps() -> None:
    constrained = chain(prune(0.5), quantize(4), cluster(3))(make_network())
    assert isinstance(constrained, Constrained)
    assert [type(item) for item in constrained.list_constraints("4.weight")] == [Mask, FakeQuantize, Codebook]
    assert constrained.list_constraints("4.bias") == []
    assert constrained.names == WEIGHTS


def test_untouched_ones_have_reasons() -> None:
    model = make_network()
    model.register_parameter("whole", nn.Parameter(torch.ones(2, 2, dtype=torch.int64), requires_grad=False))
    model.register_parameter("broken", nn.Parameter(torch.full((2, 2), torch.nan)))
    model.register_parameter("empty", nn.Parameter(torch.ones(0, 3)))
    model.register_parameter("zero", nn.Parameter(torch.zeros(2, 2)))
    flat = dict.fromkeys(["0.bias", "1.weight", "1.bias", "4.bias"], "has fewer than two dimensions")
    odd = {
        "whole": "is not floating-point",
        "broken": "holds values that are not finite",
        "empty": "has no elements",
    }
    assert prune(0.5).find_untouched(model) == flat | odd
    for step in (quantize(4), cluster(4)):
        assert step.find_untouched(model) == flat | odd | {"zero": "holds zeros only"}
        assert set(step(model).get_submodule("constraints")._modules) == {"0/weight", "4/weight"}
    weight = "is a weight, for quantize or cluster"
    assert quantize_floats().find_untouched(model) == {
        "1.num_batches_tracked": "is not floating-point",
        **dict.fromkeys([*WEIGHTS, "whole", "broken", "empty", "zero"], weight),
    }


def test_steps_leave_their_model_alone() -> None:
    model = make_network()
    before = deepcopy(model.state_dict())
    constrained = chain(prune(0.5), quantize(2), quantize_floats())(model)
    state = deepcopy(constrained.state_dict())
    chain(prune(0.9), cluster(2), quantize_floats(4))(constrained)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(state[name], tensor) for name, tensor in constrained.state_dict().items())


def test_steps_are_values() -> None:
    assert prune(0.5) == PruneWeights(0.5)
    assert quantize(4) == quantize(4)
    assert quantize(4) != quantize(5)
    with pytest.raises(AttributeError):
        quantize_floats().bits = 4  # type: ignore[misc]


class Halve:
    """A stand-in for a step that changes layers: the last one answers for half of the classes."""

    structural = True

    def __call__(self, model: nn.Module) -> nn.Module:
        copied = deepcopy(model)
        assert isinstance(copied, nn.Sequential)
        copied[-1] = nn.Linear(216, 2)
        return copied

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        return {"0": "is not the last layer"}


def test_chains_recover_after_each_step() -> None:
    seen: list[tuple[type, float]] = []

    def recover(model: nn.Module) -> None:
        seen.append((type(model), measure_sparsities(model, ("4.weight",))))
        with torch.no_grad():
            next(model.parameters()).add_(1.0)

    model = make_network()
    before = deepcopy(model.state_dict())
    step = chain(Halve(), prune(0.5), chain(quantize(4)), recover=recover)
    result = step(model)
    assert [kind for kind, _ in seen] == [nn.Sequential, Constrained, Constrained]
    assert [fraction for _, fraction in seen][:2] == pytest.approx([0.0, 0.5], abs=0.01)
    assert result(torch.randn(1, 1, 8, 8)).shape == (1, 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_chains_are_steps() -> None:
    assert not chain(Halve(), prune(0.5)).structural
    assert chain(Halve(), chain(Halve())).structural
    model = make_network()
    reasons = chain(Halve(), prune({"0.weight": 0.5}), quantize(2)).find_untouched(model)
    assert reasons["0"] == "Halve: is not the last layer"
    assert reasons["4.weight"] == "PruneWeights: is not named in amount"
    assert reasons["4.bias"] == "PruneWeights: has fewer than two dimensions; Quantize: has fewer than two dimensions"
    assert chain()(model) is not model


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(prune(0.5), Halve()),
        lambda: chain(chain(Halve(), quantize(2)), Halve()),
        lambda: chain(quantize_floats(), chain(chain(Halve()))),
    ],
)
def test_layers_change_before_values(make: Callable[[], Chain]) -> None:
    with pytest.raises(UsageError, match=r"^chain: wanted steps that change layers before .* put it first$"):
        make()


def test_pruning_channels_is_another_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PruneChannels", lambda amount: Halve() if amount == 0.5 else None)
    assert isinstance(prune(0.5, structure="channel"), Halve)
    with pytest.raises(ConfigError, match="structure: wanted weight for criterion, scope, schedule or regrow"):
        prune(0.5, structure="channel", regrow=True)


SETTINGS = """
import math
from falconet.compression import *
from falconet.errors import ConfigError
from torch import nn
for name, make in (
    *(("amount", lambda value=value: prune(value)) for value in (1, -0.1, 1.5, math.nan, True, None, "x", [0.5])),
    ("amount.a", lambda: prune({"a": 1.0})),
    ("criterion", lambda: prune(0.5, criterion="size")),
    ("structure", lambda: prune(0.5, structure="row")),
    ("scope", lambda: prune(0.5, scope="all")),
    ("scope", lambda: prune({"a": 0.5}, scope="global")),
    ("scope", lambda: prune(0.5, criterion="movement", scope="lamp")),
    ("schedule", lambda: prune(0.5, schedule="linear")),
    ("regrow", lambda: prune(0.5, regrow=1)),
    *(("bits", lambda value=value: quantize(value)) for value in (1, 9, 4.0, True, "binary", None)),
    ("bits.a", lambda: quantize({"a": 1})),
    ("per", lambda: quantize(4, per="row")),
    ("learn_step", lambda: quantize(4, learn_step=None)),
    *(("levels", lambda value=value: cluster(value)) for value in (0, 5000, 2.5, True, "x")),
    *(("bits", lambda value=value: quantize_floats(value)) for value in (1, 17, "ternary", 8.0)),
    ("amount.bias", lambda: prune({"bias": 0.5})(nn.Linear(2, 2))),
):
    try:
        make()
    except ConfigError as error:
        message = str(error)
        assert message.startswith(name + ": wanted "), message
        assert "found " in message or "but it " in message, message
    else:
        raise AssertionError(name)
"""


@pytest.mark.slow
def test_bad_settings_are_named() -> None:
    """In a process without checks at run time, which would refuse most of them before."""
    done = subprocess.run([sys.executable, "-c", SETTINGS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown parameter '4\.weigt': did you mean 4\.weight"):
        quantize({"4.weigt": 4})(make_network())
    with pytest.raises(ConfigError, match=r"^amount\.4\.bias: wanted a weight, but it has fewer than two dimensions$"):
        prune({"4.bias": 0.5})(make_network())
