"""Constraints that keep weights on a step's mask, grid or codebook while they train.

`Constrained` holds a plain module and, for each constrained tensor, small modules that map its latent values to the
ones that the network computes with. `torch.func.functional_call` puts those in the tensors' places, so that every kind
of layer works and names stay what they were; `torch.nn.utils.prune` and `parametrize` rename what they touch, which
breaks state dicts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

_SMALLEST = 2.0**-40
"""Least step; lower ones are those of dead channels, and their squares would underflow."""


class Schedule(nn.Module, ABC):
    """Base class of schedules, which change constraints as training goes on."""

    @abstractmethod
    def advance(self, constrained: Constrained, fraction: float) -> None:
        """Set constraints as they are to be after this fraction of the training, 0 to 1."""


class Constrained(nn.Module):
    """A module some of whose parameters and buffers go through constraints on each call.

    `model` holds the latent values, which an optimizer over `parameters()` trains together with what constraints learn
    themselves. Where an average of weights is taken by `AveragedModel`, masks are copied, as long as its buffers are
    not averaged (the default) or its averaging copies what is not floating-point.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.constraints = nn.ModuleDict()
        self.schedules = nn.ModuleList()
        self.training = self.constraints.training = self.schedules.training = model.training

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constrained tensors, as in `model`."""
        return tuple(key.replace("/", ".") for key in self.constraints)

    def list_constraints(self, name: str) -> list[nn.Module]:
        """Return the constraints of a tensor in the order in which they act; none for one that is free."""
        found = dict(self.constraints.items()).get(_to_key(name), ())
        assert isinstance(found, Iterable)
        return list(found)

    def append(self, name: str, constraint: nn.Module) -> None:
        """Let a constraint act on a tensor, after those that are there."""
        together = nn.ModuleList([*self.list_constraints(name), constraint])
        self.constraints[_to_key(name)] = together.train(self.training)

    def constrain(self, name: str, before: int | None = None) -> Float[Tensor, "*shape"]:
        """Return a tensor's values, differentiable; with `before`, those that its constraint of that index gets."""
        values = find_tensor(self.model, name)
        for constraint in self.list_constraints(name)[:before]:
            values = constraint(values)
        return values

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        values = {name: self.constrain(name) for name in self.names if not self.is_updated(name)}
        return functional_call(self.model, values, args, kwargs)

    def is_updated(self, name: str) -> bool:
        """Return whether a forward pass may write this tensor: a buffer, such as running statistics, in training."""
        owner = self.model.get_submodule(name.rpartition(".")[0])
        return owner.training and not isinstance(find_tensor(self.model, name), nn.Parameter)

    def advance(self, fraction: float) -> None:
        """Advance scheduled constraints to a fraction of the training, 0 to 1; call it before each step, or every few.

        Each schedule only goes forward: a smaller fraction than one before counts as that one.
        """
        for schedule in self.schedules:
            assert isinstance(schedule, Schedule)
            schedule.advance(self, fraction)


def _to_key(name: str) -> str:
    """Return the name that a tensor's constraints have as a submodule, which may hold no dot."""
    return name.replace(".", "/")


def find_tensor(model: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer by its full name."""
    owner, _, last = name.rpartition(".")
    found = getattr(model.get_submodule(owner), last)
    assert isinstance(found, Tensor)
    return found


def constrain(model: nn.Module) -> Constrained:
    """Return a copy of a module to which constraints can be added."""
    copied = deepcopy(model)
    return copied if isinstance(copied, Constrained) else Constrained(copied)


@torch.no_grad()
def materialize(model: nn.Module) -> nn.Module:
    """Return a plain module with the constrained values written into it, or a copy of one that is plain already.

    In float32 it answers as the `Constrained` does in eval mode. Nothing constrains the values from then on.
    """
    if not isinstance(model, Constrained):
        return deepcopy(model)
    plain = deepcopy(model.model)
    for name in model.names:
        find_tensor(plain, name).copy_(model.constrain(name))
    return plain


class Mask(nn.Module):
    """Zeros where a weight is not kept.

    The gradient reaches kept weights only; with `regrow` all of them, straight through, so that latent weights go on
    learning and may come back (Guo, Yao, Chen: Dynamic network surgery. NeurIPS 2016, equation 3). With `scored`, each
    weight has a score whose gradient is that of the masked weight times the latent weight (Sanh, Wolf, Rush: Movement
    pruning. NeurIPS 2020, equation 3).
    """

    def __init__(self, kept: Bool[Tensor, "*shape"], *, regrow: bool = False, scored: bool = False) -> None:
        super().__init__()
        self.kept: Tensor
        self.register_buffer("kept", kept)
        self.regrow = regrow
        self.scores = nn.Parameter(torch.zeros(kept.shape, device=kept.device)) if scored else None

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        masked = regrow(values, self.kept) if self.regrow else values.masked_fill(~self.kept, 0.0)
        if self.scores is not None:
            masked = masked + (self.scores - self.scores.detach()) * values.detach()
        return masked

    def extra_repr(self) -> str:
        return f"kept={self.kept.float().mean():.4f}, regrow={self.regrow}"


class FakeQuantize(nn.Module):
    """Integer multiples q s of a step, |q| <= levels: one step for the tensor, or one for each output channel (axis 0).

    Gradients are those of Esser et al.: Learned step size quantization. ICLR 2020 (arXiv 1902.08153): straight through
    to the weights within the grid (equation 5), and to the step (equation 3) times 1 / sqrt(weights x levels) (section
    2.2). The step is rounded to bfloat16's 8 significant bits, so that with 16 bits of q each product is exact in
    float32.

    What is trained is the step's ratio to its initial value. Its gradient is scaled such that plain gradient descent
    moves the step exactly as if it were trained itself, while an optimizer that normalizes gradients, such as Adam,
    changes it by its learning rate in relation to its size; else one update could be larger than the step.
    """

    def __init__(self, steps: Float[Tensor, " channels"], levels: int, *, learn: bool = True) -> None:
        super().__init__()
        self.levels = levels
        self.start: Tensor
        self.register_buffer("start", steps)
        ratio = torch.ones_like(steps)
        self.ratio: Tensor
        if learn:
            self.ratio = nn.Parameter(ratio)
        else:
            self.register_buffer("ratio", ratio)

    def compute_scales(self, weights: int) -> Float[Tensor, " channels"]:
        """Return the rounded steps of a grid for this number of weights."""
        scale = 1 / math.sqrt(weights / len(self.start) * self.levels)
        ratio = _scale_gradient(self.ratio, scale / self.start.clamp(min=_SMALLEST).square())
        steps = (self.start * ratio).abs().clamp(min=torch.finfo(torch.bfloat16).tiny)
        return _straight_through(steps, round_significand(steps))

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        steps = self.compute_scales(values.numel()).to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        return _round_to_grid(values, steps, self.levels)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, channels={len(self.start)}"


class Codebook(nn.Module):
    """Values shared by many weights; zeros stay zeros (Han, Mao, Dally: Deep compression. ICLR 2016, section 3).

    `members` holds 0 for zero and k for the k-th centroid. They stay as they are, and the gradient of a centroid is the
    sum over its members; the weights themselves get none. Centroids are rounded to bfloat16.
    """

    def __init__(self, members: Int64[Tensor, "*shape"], centroids: Float[Tensor, " levels"]) -> None:
        super().__init__()
        # As floats, since averages of integer buffers are rounded down, which would put weights into the next cluster.
        self.members: Tensor
        self.register_buffer("members", members.float())
        self.centroids = nn.Parameter(centroids)

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        rounded = _straight_through(self.centroids, round_significand(self.centroids)).to(values.dtype)
        table = torch.cat([rounded.new_zeros(1), rounded])
        # A mask before this one may have changed since.
        shared = table.index_select(0, self.members.long().flatten()).view(values.shape)
        return shared.masked_fill(values == 0, 0.0)

    def extra_repr(self) -> str:
        return f"levels={len(self.centroids)}"


class Rounding(nn.Module):
    """Integer multiples of a step that follows the largest value, with gradients straight through.

    The integers have `bits` bits, and a sign among them where any value is below 0. With `positive` nothing becomes 0.
    The step is rounded to 8 significant bits. Values that differ in sign alone, such as all ones, have their size as
    the step.
    """

    def __init__(self, bits: int, *, positive: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.positive = positive

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        step = self.compute_step(values.detach())
        ratio = values / step
        rounded = _straight_through(ratio, ratio.round())
        return (rounded.clamp(min=1) if self.positive else rounded) * step

    def compute_step(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        """Return the step for values of this size."""
        sizes = values.abs()
        largest = sizes.max()
        levels = torch.where(values.min() < 0, 2 ** (self.bits - 1) - 1, 2**self.bits - 1)
        alike = ((sizes == largest) | (sizes == 0)).all()
        # So much larger that the rounded step covers the largest value.
        step = round_significand(torch.where(alike, largest, largest / levels * (1 + 2**-8)))
        return torch.where(step > 0, step, 1.0)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, positive={self.positive}"


def _straight_through(values: Float[Tensor, "*shape"], rounded: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return `rounded` with the gradient of `values` (Bengio, Léonard, Courville, 2013: straight-through estimator).

    Exact where `rounded` is `values` rounded or zero, since the difference of such floats is one; never -0.
    """
    return values + (rounded - values).detach()


class _Regrow(torch.autograd.Function):
    """Zeros where a weight is not kept, with the gradient of all: `_straight_through` in one pass over memory."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kept: Tensor) -> Tensor:
        return values.masked_fill(~kept, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _RoundToGrid(torch.autograd.Function):
    """Integer multiples of steps, with the gradients that `FakeQuantize` states.

    What autograd would derive from rounding and clamping takes twice as long, which small networks feel.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, steps: Tensor, levels: int) -> Tensor:
        ratios = values / steps
        multiples = ratios.round().clamp_(-levels, levels).add_(0.0)  # never -0
        ctx.save_for_backward(ratios, multiples)
        ctx.levels, ctx.shape = levels, steps.shape
        return multiples * steps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient,), (ratios, multiples) = gradients, ctx.saved_tensors
        inside = ratios.abs() <= ctx.levels
        to_steps = None
        if ctx.needs_input_grad[1]:
            errors = multiples.addcmul(ratios, inside.to(ratios.dtype), value=-1)
            to_steps = (gradient * errors).sum_to_size(ctx.shape)
        return gradient * inside, to_steps, None


def regrow(values: Float[Tensor, "*shape"], kept: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return zeros where a weight is not kept, with the gradient of all weights."""
    masked: Tensor = _Regrow.apply(values, kept)
    return masked


def _round_to_grid(
    values: Float[Tensor, "*shape"], steps: Float[Tensor, "*ones"], levels: int
) -> Float[Tensor, "*shape"]:
    """Return the nearest multiples of steps, which are broadcast, of -levels to levels."""
    rounded: Tensor = _RoundToGrid.apply(values, steps, levels)
    return rounded


def _scale_gradient(values: Float[Tensor, "*shape"], scale: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return `values` with their gradient times `scale`."""
    return values.detach() + (values - values.detach()) * scale


def round_significand(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Round to bfloat16's 8 significant bits."""
    return values.bfloat16().to(values.dtype)
