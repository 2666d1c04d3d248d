"""Steps that act on weights' values: `prune`, `cluster`, `quantize`, `shorten`; and `chain`, which combines steps.

A step is a value that is called: it returns another module, mutates nothing and trains nothing. Those of values return
a `Constrained`, which training leaves where the step put it, and which `materialize` makes a plain module of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import nn

from falconet.compression.steps.checks import (
    check_bits,
    check_choice,
    check_switch,
    check_whole,
    explain_free,
    explain_value,
    find_zeros,
    get_plain,
    pick,
)
from falconet.compression.steps.constraints import Constrained, Grid, Rounding, Table, constrain, find_tensor
from falconet.compression.steps.fitting import find_members, fit_centroids, fit_steps
from falconet.compression.steps.pruning import Criterion, PruneWeights, Scope, When
from falconet.errors import ConfigError, UsageError

Per = Literal["tensor", "channel"]
Structure = Literal["weight", "channel"]
Bits = int | Literal["ternary"]
WEIGHT = "is a weight, for quantize or cluster"


@runtime_checkable
class Step(Protocol):
    """What makes a module smaller, or its weights simpler."""

    @property
    def structural(self) -> bool:
        """Whether it changes layers; if not, it constrains values."""

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return another module; `model` stays as it is."""

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        """Return why parameters or modules are left as they are, by name."""


@dataclass(frozen=True)
class Cluster:
    """Weights share few values; see `Table`. Raises ConfigError for bad settings."""

    levels: int | Mapping[str, int]
    """How many values besides zero a parameter may have, 1 to 256, or the number for each parameter's name."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole("levels", self.levels, 1, 256)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        empty = find_zeros(constrained)
        for name, levels in pick(constrained, self.levels, "levels").items():
            if name not in empty:
                values = constrained.constrain(name)
                centroids = fit_centroids(values[values != 0], levels)
                constrained.append(name, Table(find_members(values, centroids), centroids))
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        return find_zeros(model) | explain_free(model, self.levels, "levels")


@dataclass(frozen=True)
class Quantize:
    """Weights are small integers times a step; see `Grid`. Raises ConfigError for bad settings."""

    bits: Bits | Mapping[str, Bits]
    """Of the integers, 2 to 8, from -(2^(bits-1) - 1) to 2^(bits-1) - 1, or `ternary` for -1, 0 and 1, which are those
    of 2 bits; or the bits for each parameter's name, with those that are not named left as they are."""
    per: Per = "tensor"
    """What has one step: a `tensor`, or each output `channel` (axis 0) of it."""
    learn_step: bool = True
    """Whether training adapts the steps."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_bits("bits", self.bits)
        check_choice("per", self.per, get_args(Per))
        check_switch("learn_step", self.learn_step)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        empty = find_zeros(constrained)
        chosen: dict[str, Bits] = pick(constrained, self.bits, "bits")
        for name, bits in chosen.items():
            if name not in empty:
                levels = 1 if bits == "ternary" else 2 ** (bits - 1) - 1
                values = constrained.constrain(name)
                rows = values.flatten(1) if self.per == "channel" else values.reshape(1, -1)
                constrained.append(name, Grid(fit_steps(rows, levels), levels, learn=self.learn_step))
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        return find_zeros(model) | explain_free(model, self.bits, "bits")


@dataclass(frozen=True)
class QuantizeFloats:
    """Biases, normalization and saved buffers are integers times a step; see `Rounding`.

    Meant for after training; parameters go on learning all the same. Raises ConfigError for bad settings.
    """

    bits: int = 8
    """Of the integers, 2 to 16."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, 2, 16)

    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        untouched = self.find_untouched(constrained)
        for name in list_saved(constrained):
            if name not in untouched:
                # A variance of zero would divide by the square root of almost nothing.
                positive = name.rpartition(".")[2] == "running_var"
                constrained.append(name, Rounding(self.bits, positive=positive))
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        reasons = {}
        for name in list_saved(model):
            values = find_tensor(get_plain(model), name)
            weight = isinstance(values, nn.Parameter) and values.ndim >= 2
            reason = WEIGHT if weight else explain_value(values)
            if reason is not None:
                reasons[name] = reason
        return reasons


def list_saved(model: nn.Module) -> list[str]:
    """Return the names of a plain module's parameters and of the buffers that its state holds, shared ones once."""
    plain = get_plain(model)
    parameters = dict(plain.named_parameters())
    state = plain.state_dict()
    return [*parameters, *(name for name, _ in plain.named_buffers() if name in state)]


@dataclass(frozen=True)
class Chain:
    """Steps one after another. Raises UsageError where one that changes layers comes after one that constrains."""

    steps: tuple[Step, ...]
    recover: Callable[[nn.Module], None] | None = None
    """Called with what each step returns; may train it in place."""

    def __post_init__(self) -> None:
        constraining: Step | None = None
        for step in iterate_steps(self.steps):
            if not step.structural:
                constraining = step
            elif constraining is not None:
                raise UsageError(
                    f"chain: wanted steps that change layers before those that constrain weights, found {step} after "
                    f"{constraining}; put it first"
                )

    @property
    def structural(self) -> bool:
        return all(step.structural for step in self.steps)

    def __call__(self, model: nn.Module) -> nn.Module:
        model = model if self.steps else deepcopy(model)
        for step in self.steps:
            model = step(model)
            if self.recover is not None:
                self.recover(model)
        return model

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        """Return for each name what the steps have to say, of the module as it is before the first one."""
        reasons: dict[str, list[str]] = {}
        for step in self.steps:
            for name, reason in step.find_untouched(model).items():
                reasons.setdefault(name, []).append(f"{type(step).__name__}: {reason}")
        return {name: "; ".join(lines) for name, lines in reasons.items()}


def iterate_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Return the steps, with those of chains among them."""
    for step in steps:
        if isinstance(step, Chain):
            yield from iterate_steps(step.steps)
        else:
            yield step


def prune(
    amount: float | Mapping[str, float],
    structure: Structure = "weight",
    criterion: Criterion = "magnitude",
    scope: Scope = "layer",
    schedule: When = "now",
    regrow: bool = False,
) -> Step:
    """Return the step that takes single weights (see `PruneWeights`) or whole channels (see `PruneChannels`).

    All but `amount` is for weights. Raises ConfigError for bad settings.
    """
    check_choice("structure", structure, get_args(Structure))
    weights = PruneWeights(amount, criterion, scope, schedule, regrow)
    if structure == "weight":
        return weights
    if weights != PruneWeights(amount):
        raise ConfigError("structure: wanted weight for criterion, scope, schedule or regrow, found channel")
    from falconet.compression.steps.channels import PruneChannels

    channels: Step = PruneChannels(amount)
    return channels


def cluster(levels: int | Mapping[str, int]) -> Cluster:
    """Return the step that lets weights share values."""
    return Cluster(levels)


def quantize(bits: Bits | Mapping[str, Bits], per: Per = "tensor", learn_step: bool = True) -> Quantize:
    """Return the step that puts weights on grids."""
    return Quantize(bits, per, learn_step)


def shorten(bits: int = 8) -> QuantizeFloats:
    """Return the step that puts all but weights on grids."""
    return QuantizeFloats(bits)


def chain(*steps: Step, recover: Callable[[nn.Module], None] | None = None) -> Chain:
    """Return the step that applies steps in order and calls `recover`, if any, with what each returns."""
    return Chain(steps, recover)
