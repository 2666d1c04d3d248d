"""Constraints: values, gradients, and what they survive, evaluated by plain modules that hold the same values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from falconet.compression import chain, cluster, materialize, prune, quantize, quantize_floats
from falconet.compression.steps.constraints import Codebook, Constrained, FakeQuantize, Mask, Rounding
from falconet.training.config import TrainConfig
from falconet.training.optimizers import make_ema, make_optimizer


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Attending(nn.Module):
    """Attention of a sequence to itself; its weights are `in_proj_weight`, which is no layer's `weight`."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return mixed


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).relu())
        return result


class First(nn.Module):
    """The output of a recurrent layer without its last state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.layer(x)[0]
        return states


def make_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "convolutions": (make_convolutions, lambda: torch.randn(4, 1, 8, 8)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3)), lambda: torch.randint(0, 9, (4, 5))),
    "rnn": (lambda: First(nn.RNN(8, 6, batch_first=True)), lambda: torch.randn(4, 5, 8)),
    "lstm": (lambda: First(nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)), lambda: torch.randn(4, 5, 8)),
    "gru": (lambda: First(nn.GRU(8, 6, batch_first=True)), lambda: torch.randn(4, 5, 8)),
    "attention": (Attending, lambda: torch.randn(4, 5, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), lambda: torch.randn(4, 5, 8)),
    "tied": (Tied, lambda: torch.randn(4, 8)),
}
every_network = pytest.mark.parametrize("network", NETWORKS)


def perturb(model: nn.Module) -> nn.Module:
    """Move all values, so that none is at zero or one where layers start."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.1)
    return model


def sum_up(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return a loss to which every output counts differently."""
    outputs: Tensor = model(inputs)
    return (outputs * torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)).sum()


def train(model: nn.Module, inputs: Tensor, steps: int = 5) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for step in range(steps):
        if isinstance(model, Constrained):
            model.advance((step + 1) / steps)
        loss = sum_up(model, inputs)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@every_network
@pytest.mark.parametrize("training", [True, False])
def test_answers_and_gradients_are_those_of_the_values(network: str, training: bool) -> None:
    make, draw = NETWORKS[network]
    model, inputs = perturb(make()).train(training), draw()
    constrained = chain(prune(0.5), quantize(4, per="channel"))(model)
    plain = materialize(constrained)
    assert plain.training is training
    assert isinstance(constrained, Constrained)
    wanted = torch.autograd.grad(sum_up(plain, inputs), list(plain.parameters()))
    torch.testing.assert_close(constrained(inputs), plain(inputs), rtol=0, atol=0)
    sum_up(constrained, inputs).backward()  # type: ignore[no-untyped-call]
    for (name, parameter), gradient in zip(constrained.model.named_parameters(), wanted, strict=True):
        assert parameter.grad is not None
        value = plain.get_parameter(name)
        if parameter.ndim < 2:
            torch.testing.assert_close(parameter.grad, gradient)
            continue
        mask, grid = constrained.list_constraints(name)
        assert isinstance(mask, Mask)
        assert isinstance(grid, FakeQuantize)
        steps = grid.compute_scales(1).detach().view(-1, *[1] * (value.ndim - 1))
        inside = mask.kept & (parameter.detach().abs() <= grid.levels * steps)
        torch.testing.assert_close(parameter.grad, gradient * inside)


@every_network
def test_training_leaves_zeros_and_grids(network: str) -> None:
    make, draw = NETWORKS[network]
    model, inputs = perturb(make()), draw()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    constrained = chain(prune(0.5), quantize(3), quantize_floats(8))(model)
    zeros = {name: value == 0 for name, value in materialize(constrained).named_parameters() if value.ndim > 1}
    train(constrained, inputs)
    plain = materialize(constrained.eval())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert any(not torch.equal(before[name], tensor) for name, tensor in plain.state_dict().items())
    assert isinstance(constrained, Constrained)
    for name, zero in zeros.items():
        value = plain.get_parameter(name)
        assert not value[constrained.list_constraints(name)[0].get_buffer("kept").logical_not()].any()
        assert zero.float().mean() >= 0.5
        assert not value.signbit()[value == 0].any()
        grid = constrained.list_constraints(name)[1]
        assert isinstance(grid, FakeQuantize)
        step = float(grid.compute_scales(value.numel()).detach())
        ratio = value.detach() / step
        assert torch.equal(ratio, ratio.round())
        assert ratio.abs().max() <= 3
        assert step.as_integer_ratio()[0].bit_length() <= 8 or step == int(step)
    torch.testing.assert_close(plain(inputs), constrained(inputs), rtol=0, atol=0)


@every_network
def test_training_leaves_a_table(network: str) -> None:
    make, draw = NETWORKS[network]
    model, inputs = perturb(make()), draw()
    constrained = chain(prune(0.5), cluster(4))(model)
    members = {name: find_table(constrained, name).members.clone() for name in list_weights(model)}
    train(constrained, inputs)
    plain = materialize(constrained)
    for name, assigned in members.items():
        value, centroids = plain.get_parameter(name).detach(), find_table(constrained, name).centroids.detach()
        table = torch.cat([torch.zeros(1), centroids.bfloat16().float()])
        assert torch.equal(value, table[assigned.long()])
        assert len(torch.unique(value)) <= 5


def list_weights(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]


def find_table(constrained: nn.Module, name: str) -> Codebook:
    assert isinstance(constrained, Constrained)
    table = constrained.list_constraints(name)[-1]
    assert isinstance(table, Codebook)
    return table


def test_running_statistics_go_on_in_training_and_are_rounded_in_eval() -> None:
    model, inputs = perturb(make_convolutions()), torch.randn(4, 1, 8, 8)
    constrained, same = quantize_floats(4)(model), deepcopy(model)
    constrained(inputs), same(inputs)
    assert isinstance(constrained, Constrained)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        if name != "1.num_batches_tracked":
            # The bias of the convolution, which is rounded, is in the mean.
            torch.testing.assert_close(constrained.model.get_buffer(name), same.get_buffer(name), rtol=0, atol=0.01)
        assert not torch.equal(constrained.model.get_buffer(name), model.get_buffer(name))
    plain = materialize(constrained.eval())
    torch.testing.assert_close(plain(inputs), constrained(inputs), rtol=0, atol=0)
    variance = plain.get_buffer("1.running_var")
    assert not torch.equal(variance, constrained.model.get_buffer("1.running_var"))
    assert variance.min() > 0


def test_a_variance_never_becomes_zero() -> None:
    values = torch.tensor([1e-9, 0.5, 100.0])
    rounded = Rounding(4, positive=True)(values)
    assert rounded.min() > 0
    assert Rounding(4)(values)[0] == 0


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_rounding_is_to_the_nearest_of_a_grid(bits: int, shift: float) -> None:
    values = (torch.randn(500) + shift).requires_grad_()
    rounded = Rounding(bits)(values)
    levels = 2 ** (bits - 1) - 1 if values.min() < 0 else 2**bits - 1
    step = float(Rounding(bits).compute_step(values.detach()))
    assert step == pytest.approx(float(values.detach().abs().max()) / levels, rel=0.01)
    ratio = rounded.detach().double() / step
    assert torch.equal(ratio, ratio.round())
    assert ratio.abs().max() <= levels
    assert (rounded - values).abs().max() <= step * 0.5001
    rounded.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.ones(500))


@pytest.mark.parametrize("values", [torch.zeros(3), torch.ones(3), torch.tensor([-0.5, 0.5, 0.0])])
def test_values_that_differ_in_sign_alone_stay(values: Tensor) -> None:
    assert torch.equal(Rounding(8)(values), values)


def test_learned_steps_have_the_papers_gradient() -> None:
    """Against the derivative by hand, arXiv 1902.08153, equations 3 and 5."""
    weights, step, levels = torch.randn(40, 5), 0.25, 3
    grid, latent = FakeQuantize(torch.tensor([step]), levels), weights.clone().requires_grad_()
    upper = torch.randn(40, 5)
    (grid(latent) * upper).sum().backward()
    by_step, by_weight = 0.0, torch.zeros(40, 5)
    for place, weight in enumerate(weights.flatten().tolist()):
        ratio = weight / step
        if abs(ratio) < levels:
            by_weight.view(-1)[place] = upper.flatten()[place]
            by_step += (-ratio + round(ratio)) * float(upper.flatten()[place])
        else:
            by_step += math.copysign(levels, ratio) * float(upper.flatten()[place])
    scaled = by_step / math.sqrt(200 * levels)
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, by_weight)
    # A step of gradient descent moves the step as if itself were trained.
    torch.optim.SGD(grid.parameters(), lr=0.1).step()
    moved = float(grid.start * grid.ratio.detach())
    assert moved - step == pytest.approx(-0.1 * scaled, rel=1e-4)


@pytest.mark.parametrize("levels", [1, 3, 7, 127])
def test_grids_are_torchs(levels: int) -> None:
    weights = torch.randn(6, 4, 3)
    steps = (torch.rand(6) * 0.1 + 0.05).bfloat16().float()
    zero = torch.zeros(6, dtype=torch.int32)
    wanted = torch.fake_quantize_per_channel_affine(weights, steps, zero, 0, -levels, levels)
    assert torch.equal(FakeQuantize(steps, levels)(weights), wanted)
    wanted = torch.fake_quantize_per_tensor_affine(weights, float(steps[0]), 0, -levels, levels)
    assert torch.equal(FakeQuantize(steps[:1], levels)(weights), wanted)


def test_adam_moves_a_step_by_its_rate_in_relation_to_its_size() -> None:
    for step in (1e-4, 1.0, 100.0):
        grid = FakeQuantize(torch.tensor([step]), 7)
        optimizer = torch.optim.Adam(grid.parameters(), lr=0.01)
        (grid(torch.randn(50) * 4 * step) * torch.randn(50)).sum().backward()
        optimizer.step()
        assert abs(float(grid.start * grid.ratio.detach()) / step - 1) == pytest.approx(0.01, rel=1e-3)


def test_a_step_stays_above_zero() -> None:
    grid = FakeQuantize(torch.tensor([0.1]), 7)
    for ratio in (0.0, -1e-20, -1.0):
        with torch.no_grad():
            grid.ratio.fill_(ratio)
        assert grid(torch.randn(9)).isfinite().all()
        assert float(grid.compute_scales(9).detach()) > 0


@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e10])
def test_weights_of_any_size_have_finite_gradients(size: float) -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.mul_(size)
    constrained = quantize(4, per="channel")(layer)
    constrained(torch.randn(2, 4)).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in constrained.parameters())
    plain = materialize(constrained)
    assert isinstance(plain, nn.Linear)
    torch.testing.assert_close(plain.weight, layer.weight, rtol=0.6, atol=size / 7)


def test_movement_scores_get_the_gradient_times_the_weight() -> None:
    values = torch.randn(5, 5, requires_grad=True)
    mask = Mask(torch.rand(5, 5) > 0.5, scored=True)
    upper = torch.randn(5, 5)
    (mask(values) * upper).sum().backward()
    assert mask.scores is not None
    assert mask.scores.grad is not None
    assert values.grad is not None
    torch.testing.assert_close(mask.scores.grad, upper * values.detach())
    torch.testing.assert_close(values.grad, upper * mask.kept)


def test_regrowing_masks_pass_gradients_to_all() -> None:
    values = torch.randn(5, 5, requires_grad=True)
    mask = Mask(torch.rand(5, 5) > 0.5, regrow=True)
    masked = mask(values)
    assert torch.equal(masked, values.detach() * mask.kept)
    masked.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.ones(5, 5))


def test_centroids_get_the_sum_over_their_members() -> None:
    members = torch.tensor([[0, 1, 2], [2, 2, 1]])
    table = Codebook(members, torch.tensor([-1.0, 2.0]))
    upper = torch.arange(6.0).view(2, 3)
    (table(torch.ones(2, 3)) * upper).sum().backward()
    assert table.centroids.grad is not None
    torch.testing.assert_close(table.centroids.grad, torch.tensor([1.0 + 5.0, 2.0 + 3.0 + 4.0]))


STEPS = {
    "mask": prune(0.6),
    "grid": chain(prune(0.6), quantize(4, per="channel")),
    "table": chain(prune(0.6), cluster(6)),
    "movement": prune(0.6, criterion="movement", schedule="cubic"),
    "all": chain(prune(0.6, scope="lamp"), quantize("ternary"), quantize_floats()),
}
every_step = pytest.mark.parametrize("step", STEPS)


def make_trained(step: str) -> tuple[Constrained, Tensor]:
    inputs = torch.randn(4, 1, 8, 8)
    constrained = STEPS[step](perturb(make_convolutions()))
    assert isinstance(constrained, Constrained)
    train(constrained, inputs)
    return constrained, inputs


@every_step
def test_copies_and_states(step: str) -> None:
    constrained, inputs = make_trained(step)
    other = STEPS[step](perturb(make_convolutions()))
    assert not torch.equal(other.eval()(inputs), constrained.eval()(inputs))
    other.load_state_dict({name: tensor.clone() for name, tensor in constrained.state_dict().items()})
    copied = deepcopy(constrained)
    for same in (other, copied):
        assert torch.equal(same.eval()(inputs), constrained(inputs))
    train(copied.train(), inputs, steps=1)
    assert not torch.equal(copied.eval()(inputs), constrained(inputs))
    assert torch.equal(other(inputs), constrained(inputs))


@every_step
@pytest.mark.parametrize("kind", ["mean", "ema", "ema of buffers", "ours"])
def test_averages_keep_zeros_and_levels(step: str, kind: str) -> None:
    constrained, inputs = make_trained(step)
    exponential = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
    average = {
        "mean": lambda: AveragedModel(constrained),
        "ema": lambda: AveragedModel(constrained, multi_avg_fn=exponential),
        "ema of buffers": lambda: AveragedModel(constrained, multi_avg_fn=exponential, use_buffers=True),
        "ours": lambda: make_ema(constrained, 0.9),
    }[kind]()
    for _ in range(3):
        train(constrained, inputs, steps=3)
        average.update_parameters(constrained)
    assert isinstance(average.module, Constrained)
    plain, wanted = materialize(average.module), materialize(constrained)
    assert not torch.equal(plain.get_parameter("4.weight"), wanted.get_parameter("4.weight"))
    for name in list_weights(plain):
        value, mask = plain.get_parameter(name), constrained.list_constraints(name)[0]
        assert isinstance(mask, Mask)
        # Masks that change are followed where they are copied; averaging buffers would blur them.
        if not (kind == "ema of buffers" and step == "movement"):
            assert not value[~mask.kept].any()
        if step == "grid":
            assert all(len(torch.unique(row)) <= 15 for row in value)
        if step == "table":
            assert len(torch.unique(value)) <= 7
            assert torch.equal(find_table(average.module, name).members, find_table(constrained, name).members)
    assert torch.equal(average.eval()(inputs), plain.eval()(inputs))


def test_our_optimizer_trains_scores_steps_and_centroids() -> None:
    for step, kind in (("movement", "scores"), ("grid", "ratio"), ("table", "centroids")):
        constrained = STEPS[step](perturb(make_convolutions()))
        before = {name: value.clone() for name, value in constrained.named_parameters() if name.endswith(kind)}
        optimizer = make_optimizer(constrained, TrainConfig())
        sum_up(constrained, torch.randn(4, 1, 8, 8)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert len(before) == 2
        assert all(not torch.equal(value, constrained.get_parameter(name)) for name, value in before.items())


def test_arguments_and_names_pass_through() -> None:
    constrained = quantize(8)(nn.MultiheadAttention(8, 2, batch_first=True))
    x = torch.randn(1, 3, 8)
    mixed, weights = constrained(x, x, value=x, average_attn_weights=False)
    assert mixed.shape == (1, 3, 8)
    assert weights.shape == (1, 2, 3, 3)
    assert isinstance(constrained, Constrained)
    assert constrained.names == ("in_proj_weight", "out_proj.weight")
    assert constrained.model.get_submodule("out_proj") is not None


def test_modes_go_through() -> None:
    constrained = prune(0.5)(make_convolutions().eval())
    assert not constrained.training
    assert not [name for name, module in constrained.named_modules() if module.training]
    assert all(module.training for module in constrained.train().modules())


def test_plain_modules_are_copied() -> None:
    layer = nn.Linear(3, 3)
    copied = materialize(layer)
    assert copied is not layer
    assert torch.equal(copied.get_parameter("weight"), layer.weight)


def test_double_precision() -> None:
    layer = nn.Linear(6, 6).double()
    constrained = chain(prune(0.5), quantize(4), quantize_floats())(layer)
    x = torch.randn(2, 6, dtype=torch.float64)
    assert torch.equal(materialize(constrained)(x), constrained(x))
    assert constrained(x).dtype == torch.float64


def test_autocast_computes_with_the_same_values() -> None:
    constrained, x = quantize(4)(nn.Linear(6, 6)), torch.randn(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(constrained(x), materialize(constrained)(x))
        loss = F.mse_loss(constrained(x).float(), torch.ones(2, 6))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in constrained.parameters())
