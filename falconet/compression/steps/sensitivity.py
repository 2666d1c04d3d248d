"""Sensitivity of each layer by itself: a score against sparsity and against bits, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Generic, TypeVar

from torch import nn

from falconet.compression.steps.checks import check_bits, check_step_fraction, find_zeros, select_weights
from falconet.compression.steps.constraints import materialize
from falconet.compression.steps.pruning import PruneWeights
from falconet.compression.steps.quantization import Bits, Quantize

_Setting = TypeVar("_Setting", float, Bits)
_SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_BITS: tuple[Bits, ...] = (8, 6, 5, 4, 3, 2)


@dataclass(frozen=True)
class SensitivityRow(Generic[_Setting]):
    """Score of a model with one weight tensor alone changed."""

    name: str
    """Name of the parameter."""
    setting: _Setting
    """Fraction of zeros, or bits."""
    score: float
    """Score that `evaluate` returned."""


@dataclass(frozen=True)
class Sensitivity:
    """Rows for each weight tensor in the model's order, and for each from mild to harsh."""

    score: float
    """Score of the unchanged model."""
    sparsities: tuple[SensitivityRow[float], ...]
    bits: tuple[SensitivityRow[Bits], ...]


def measure_sensitivity(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    sparsities: Sequence[float] = _SPARSITIES,
    bits: Sequence[Bits] = _BITS,
) -> Sensitivity:
    """Return the scores of `evaluate` as one weight tensor after the other is pruned, or quantized, without training.

    `evaluate` gets plain modules, in the mode that `model` is in, and returns a score, higher for better, such as the
    accuracy. It is called once for the model and once for each tensor and setting. Raises ConfigError for bad settings.
    """
    for fraction in sparsities:
        check_step_fraction("sparsities", fraction)
    for width in bits:
        check_bits("bits", width)
    empty = find_zeros(model)
    names = [name for name in select_weights(model, 0.0, "sparsities") if name not in empty]
    return Sensitivity(
        evaluate(materialize(model)),
        tuple(
            SensitivityRow(name, fraction, evaluate(materialize(PruneWeights({name: fraction})(model))))
            for name in names
            for fraction in sorted(sparsities)
        ),
        tuple(
            SensitivityRow(name, width, evaluate(materialize(Quantize({name: width})(model))))
            for name in names
            for width in sorted(bits, key=_count_bits, reverse=True)
        ),
    )


def _count_bits(bits: Bits) -> int:
    return 2 if bits == "ternary" else bits


def choose_sparsities(sensitivity: Sensitivity, max_drop: float) -> dict[str, float]:
    """Return for `prune` the harshest fraction of each tensor that, as all milder ones, costs at most `max_drop`.

    The drop is in the unit of `evaluate`, and of each tensor alone: together they cost more. A tensor that can spare
    nothing is left out.
    """
    return _choose_harshest(sensitivity.sparsities, sensitivity.score - max_drop)


def choose_bits(sensitivity: Sensitivity, max_drop: float) -> dict[str, Bits]:
    """Return for `quantize` the fewest bits of each tensor, as `choose_sparsities` does."""
    return _choose_harshest(sensitivity.bits, sensitivity.score - max_drop)


def _choose_harshest(rows: Iterable[SensitivityRow[_Setting]], least: float) -> dict[str, _Setting]:
    """Return for each name the last setting before the score falls below `least`; rows go from mild to harsh."""
    chosen: dict[str, _Setting] = {}
    for name, group in groupby(rows, key=lambda row: row.name):
        for row in takewhile(lambda row: row.score >= least, group):
            chosen[name] = row.setting
    return chosen
