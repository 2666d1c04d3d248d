"""`quantize` puts weights on grids of small integers; `quantize_floats` does so with all other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from falconet.compression.steps.checks import (
    check_bits,
    check_step_choice,
    check_step_switch,
    check_whole,
    explain_skipped,
    explain_value,
    find_zeros,
    select_weights,
    unwrap,
)
from falconet.compression.steps.constraints import Constrained, FakeQuantize, Rounding, constrain, find_tensor
from falconet.compression.steps.fitting import fit_scales

Per = Literal["tensor", "channel"]
Bits = int | Literal["ternary"]
_WEIGHT = "is a weight, for quantize or cluster"


@dataclass(frozen=True)
class Quantize:
    """Weights are small integers times a step; see `FakeQuantize`. Raises ConfigError for bad settings."""

    bits: Bits | Mapping[str, Bits]
    """Bits of the integers, 2 to 8, from -(2^(bits-1) - 1) to 2^(bits-1) - 1, or `ternary` for -1, 0 and 1, which are
    those of 2 bits; or the bits for each parameter's name, with those that are not named left as they are."""
    per: Per = "tensor"
    """Granularity of steps: one for each `tensor`, or one for each output `channel` (axis 0)."""
    learn_step: bool = True
    """Whether training adapts the steps."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_bits("bits", self.bits)
        check_step_choice("per", self.per, get_args(Per))
        check_step_switch("learn_step", self.learn_step)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        empty = find_zeros(constrained)
        chosen: dict[str, Bits] = select_weights(constrained, self.bits, "bits")
        for name, bits in chosen.items():
            if name not in empty:
                levels = 1 if bits == "ternary" else 2 ** (bits - 1) - 1
                values = constrained.constrain(name)
                rows = values.flatten(1) if self.per == "channel" else values.reshape(1, -1)
                constrained.append(name, FakeQuantize(fit_scales(rows, levels), levels, learn=self.learn_step))
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        return find_zeros(model) | explain_skipped(model, self.bits, "bits")


@dataclass(frozen=True)
class QuantizeFloats:
    """Biases, normalization and saved buffers are integers times a step; see `Rounding`.

    Meant for after training; parameters go on learning all the same. Raises ConfigError for bad settings.
    """

    bits: int = 8
    """Bits of the integers, 2 to 16."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, 2, 16)

    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        untouched = self.find_untouched(constrained)
        for name in _list_saved(constrained):
            if name not in untouched:
                # A variance of zero would divide by the square root of almost nothing.
                positive = name.rpartition(".")[2] == "running_var"
                constrained.append(name, Rounding(self.bits, positive=positive))
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        reasons = {}
        for name in _list_saved(model):
            values = find_tensor(unwrap(model), name)
            weight = isinstance(values, nn.Parameter) and values.ndim >= 2
            reason = _WEIGHT if weight else explain_value(values)
            if reason is not None:
                reasons[name] = reason
        return reasons


def _list_saved(model: nn.Module) -> list[str]:
    """Return the names of a plain module's parameters and of the buffers that its state holds, shared ones once."""
    plain = unwrap(model)
    parameters = dict(plain.named_parameters())
    state = plain.state_dict()
    return [*parameters, *(name for name, _ in plain.named_buffers() if name in state)]


def quantize(bits: Bits | Mapping[str, Bits], per: Per = "tensor", learn_step: bool = True) -> Quantize:
    """Return the step that puts weights on grids."""
    return Quantize(bits, per, learn_step)


def quantize_floats(bits: int = 8) -> QuantizeFloats:
    """Return the step that puts all but weights on grids."""
    return QuantizeFloats(bits)
