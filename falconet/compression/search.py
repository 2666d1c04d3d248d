"""The next trial of a search: a pure function of the budget and of the results so far. Imports no torch.

First whole channels go, as far as MACs or milliseconds demand; then the weights that are left become 8-bit integers,
which costs no training; then each trial is of half the density of the one before: it keeps half as many weights, on a
grid of few bits, and begins with the best weights that are at hand. Where a trial loses too much, or is smaller than it
need be, the next ones lie between it and the last that did not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from falconet.compression.budget import Budget
from falconet.compression.config import CompressConfig
from falconet.compression.constants import CONSTANTS
from falconet.schema import KEY


@dataclass(frozen=True)
class TrialSpec:
    """Specification of how one trial compresses."""

    macs_fraction: float = field(default=1.0, metadata={KEY: "macs"})
    """Fraction of the dense network's multiply-accumulates that pruning channels leaves."""
    density: float = field(default=1.0, metadata={KEY: "kept"})
    """Fraction of the weights that are not zero."""
    bits: int = CONSTANTS.first_bits
    """Bits of each remaining weight."""
    epochs: int = 0
    """Epochs of training in the trial."""
    start: int | None = None
    """Number of the trial whose weights this one begins with; None: the model that is compressed."""
    polish: bool = False
    """Whether this is the last trial, which trains the best one longer, with fewer weights where size is scarce."""


@dataclass(frozen=True)
class Trial:
    """Result of one trial."""

    number: int
    spec: TrialSpec = field(metadata={KEY: "scheme"})
    bytes: int
    """Bytes of the coded file."""
    accuracy: float
    """Accuracy of the decoded network on the validation split, 0 to 1."""
    drop: float
    """Points of validation accuracy lost."""
    macs: int
    latency_ms: float | None
    """Median milliseconds of one sample in the fastest runtime; None: not asked for, and so not measured."""
    seconds: float

    def fits(self, budget: Budget) -> bool:
        """Return whether the trial keeps within all limits."""
        return self.excess(budget) <= 0

    def excess(self, budget: Budget) -> float:
        """Return how far the trial is beyond the limits, 0 within: the sum of relative excesses.

        A point of drop counts as one.
        """
        pairs = (
            (self.bytes, budget.max_bytes),
            (self.macs, budget.max_macs),
            (self.latency_ms, budget.max_latency_ms),
        )
        relative = sum(max((found or 0) / limit - 1, 0.0) for found, limit in pairs if limit is not None)
        return relative + max(self.drop - budget.allowed_drop - CONSTANTS.drop_tolerance, 0.0)


def propose(
    trials: Sequence[Trial], budget: Budget, config: CompressConfig, macs_fractions: Sequence[float] = (1.0,)
) -> TrialSpec | None:
    """Return the next trial; None at the end of the search.

    `macs_fractions` are what removing channels may leave of the MACs: first the most that the budget allows, then less.
    Trials for which the budget's time is too short are not proposed, but for the first one.
    """
    if not trials:
        # A network that lost channels must learn again; integers of 8 bits cost next to nothing.
        return TrialSpec(macs_fraction=macs_fractions[0], epochs=config.epochs if macs_fractions[0] < 1 else 0)
    if _is_out_of_time(trials, budget):
        return None
    fraction = _choose_macs_fraction(trials, budget, macs_fractions)
    if fraction is not None:
        return TrialSpec(macs_fraction=fraction, epochs=config.epochs, start=trials[-1].number)
    base = _find_base(trials, budget)
    same_channels = [trial for trial in trials if trial.spec.macs_fraction == base]
    density = _choose_density([trial for trial in same_channels if not trial.spec.polish], budget, config)
    if density is not None:
        bits = _choose_uniform_bits(same_channels, budget, config) if density == 1 else config.bits
        return TrialSpec(base, density, bits, config.epochs, _find_start(same_channels, density))
    best = choose_best(trials, budget)
    if not config.polish or best.spec.polish or not best.spec.epochs:
        return None
    spec = replace(best.spec, density=leave_room(best, budget), epochs=config.polish, start=best.number, polish=True)
    return None if any(trial.spec == spec for trial in trials) else spec


def leave_room(trial: Trial, budget: Budget) -> float:
    """Return the density that a trial should have when it trains longer, so that it keeps its size.

    Weights spread over more values as they learn, and take more bytes.
    """
    spec = trial.spec
    if budget.max_bytes is None or spec.density == 1 or trial.bytes > budget.max_bytes:
        return spec.density
    wanted = CONSTANTS.polish_size * budget.max_bytes / trial.bytes * estimate_bits(spec.density, spec.bits)
    return solve_density(wanted, spec.bits, CONSTANTS.step_down * spec.density, spec.density)


def _choose_macs_fraction(trials: Sequence[Trial], budget: Budget, macs_fractions: Sequence[float]) -> float | None:
    """Return the fraction of the MACs that the next trial leaves to whole channels; None once that costs too much."""
    last = trials[-1]
    begun = last.spec.density < 1 or last.spec.polish or (len(trials) > 1 and _channels_cost_too_much(last, budget))
    if (
        begun
        or trials[0].drop > budget.allowed_drop
        or last.spec.bits < CONSTANTS.first_bits
        or _is_near_size(last, budget)
    ):
        return None
    return max((fraction for fraction in macs_fractions if fraction < last.spec.macs_fraction), default=None)


def _find_base(trials: Sequence[Trial], budget: Budget) -> float:
    """Return the least fraction of the MACs at which whole channels could go at little cost."""
    whole = [trial for trial in trials if trial.spec.density == 1]
    return min(
        trial.spec.macs_fraction for trial in whole if trial is whole[0] or not _channels_cost_too_much(trial, budget)
    )


def _channels_cost_too_much(trial: Trial, budget: Budget) -> bool:
    """Whether removing channels cost so much that single weights should go instead."""
    return trial.drop > (
        CONSTANTS.channel_drop_fraction * budget.allowed_drop if _minimizes_size(budget) else CONSTANTS.channel_drop
    )


def _is_near_size(trial: Trial, budget: Budget) -> bool:
    """Whether a network in 8-bit integers is so near to the wanted size that its channels had better stay."""
    return budget.max_bytes is not None and trial.bytes <= CONSTANTS.near_size * budget.max_bytes


def _is_out_of_time(trials: Sequence[Trial], budget: Budget) -> bool:
    """Whether another trial like the last one would take longer than the budget leaves."""
    spent = sum(trial.seconds for trial in trials)
    return budget.seconds is not None and spent + trials[-1].seconds > budget.seconds


def _choose_density(trials: Sequence[Trial], budget: Budget, config: CompressConfig) -> float | None:
    """Return the fraction of weights that the next trial keeps; None where the search has ended.

    Trials on one side of the wanted density went beyond the limit that is sought, those on the other did not.
    """
    if any(_is_enough(trial, budget) for trial in trials):
        return None
    before = [trial for trial in trials if not _is_beyond(trial, budget)]
    if not before:  # Even the first one lost too much; it may do better with more training.
        return 1.0 if _minimizes_size(budget) and len(trials) == 1 else None
    high = min(trial.spec.density for trial in before)
    beyond = [trial for trial in trials if _is_beyond(trial, budget) and trial.spec.density < high]
    if not beyond:
        if high == 1 and _choose_uniform_bits(trials, budget, config) < min(trial.spec.bits for trial in trials):
            return 1.0
        density = (
            high * CONSTANTS.step_down
            if _minimizes_size(budget)
            else _aim_at_size(_find_trial(before, high), budget, config.bits)
        )
        return density if density >= CONSTANTS.least_density else None
    refined = len(trials) - trials.index(beyond[0]) - 1
    if refined >= config.refinements:
        return None
    small, large = _find_trial(beyond, max(trial.spec.density for trial in beyond)), _find_trial(before, high)
    return math.sqrt(small.spec.density * high) if _minimizes_size(budget) else _interpolate(small, large, budget)


def _choose_uniform_bits(trials: Sequence[Trial], budget: Budget, config: CompressConfig) -> int:
    """Return the bits that bring a network with all its weights to the wanted size; 8 where weights must go instead."""
    first = trials[0]
    if _minimizes_size(budget) or budget.max_bytes is None or first.bytes <= budget.max_bytes:
        return CONSTANTS.first_bits
    bits = int(CONSTANTS.first_bits * CONSTANTS.aimed_size * budget.max_bytes / first.bytes)
    return bits if bits >= config.bits else CONSTANTS.first_bits


def _find_trial(trials: Sequence[Trial], density: float) -> Trial:
    """Return the newest trial of this density."""
    return [trial for trial in trials if trial.spec.density == density][-1]


def _minimizes_size(budget: Budget) -> bool:
    """Whether the search is for the smallest file of an accuracy, not for the best of a size."""
    return budget.max_drop is not None or budget.max_bytes is None


def _is_beyond(trial: Trial, budget: Budget) -> bool:
    """Whether a trial lost too much; where only the size counts, whether it is small enough."""
    if _minimizes_size(budget):
        return trial.drop > budget.allowed_drop + CONSTANTS.drop_tolerance
    return budget.max_bytes is not None and trial.bytes <= budget.max_bytes


def _is_enough(trial: Trial, budget: Budget) -> bool:
    """Whether nothing better is wanted: a file of both the size and the accuracy, or one that fills its size."""
    if budget.max_bytes is None or trial.bytes > budget.max_bytes:
        return False
    whole = trial.spec.density == 1 and trial.spec.bits < CONSTANTS.first_bits
    return (
        not _is_beyond(trial, budget)
        if _minimizes_size(budget)
        else whole or trial.bytes >= CONSTANTS.filled_size * budget.max_bytes
    )


def _aim_at_size(trial: Trial, budget: Budget, bits: int) -> float:
    """Return the fraction of weights of `bits` bits that should bring a trial's network to the wanted size.

    It lies between the largest and the smallest step from the trial's own.
    """
    assert budget.max_bytes is not None
    wanted = CONSTANTS.aimed_size * budget.max_bytes / trial.bytes * estimate_bits(trial.spec.density, trial.spec.bits)
    return solve_density(
        wanted, bits, CONSTANTS.largest_step * trial.spec.density, CONSTANTS.smallest_step * trial.spec.density
    )


def solve_density(wanted: float, bits: int, low: float, high: float) -> float:
    """Return the fraction of weights, from `low` to `high`, that takes about `wanted` bits a weight of the network.

    Beyond the density at which bits are most, more weights would take less again.
    """
    high = max(low, min(high, 1 / (1 + 2 ** (-bits * CONSTANTS.bits_per_grid_bit))))
    for _ in range(CONSTANTS.bisections):
        density = math.sqrt(low * high)
        low, high = (density, high) if estimate_bits(density, bits) < wanted else (low, density)
    return high


def estimate_bits(density: float, bits: int) -> float:
    """Return about how many bits of a file one weight takes: the entropy of where weights are, and their values."""
    positions = -sum(p * math.log2(p) for p in (density, 1 - density) if p > 0)
    return positions + density * bits * CONSTANTS.bits_per_grid_bit


def _interpolate(small: Trial, large: Trial, budget: Budget) -> float:
    """Return the fraction of weights at which a line between two trials, in logarithms, is at the wanted size."""
    assert budget.max_bytes is not None
    fraction = math.log(CONSTANTS.aimed_size * budget.max_bytes / small.bytes) / math.log(large.bytes / small.bytes)
    inside = min(max(fraction, CONSTANTS.interpolation_margin), 1 - CONSTANTS.interpolation_margin)
    return math.exp(math.log(small.spec.density) * (1 - inside) + math.log(large.spec.density) * inside)


def _find_start(trials: Sequence[Trial], density: float) -> int:
    """Return the number of the sparsest trial of those that are at least so dense."""
    above = [trial for trial in trials if trial.spec.density >= density]
    return min(above, key=lambda trial: (trial.spec.density, -trial.number)).number


def choose_best(trials: Sequence[Trial], budget: Budget) -> Trial:
    """Return the trial that serves a budget best, or comes nearest where none keeps within it."""
    fitting = [trial for trial in trials if trial.fits(budget)]
    if not fitting:
        return min(trials, key=lambda trial: (trial.excess(budget), trial.bytes))
    if _minimizes_size(budget):
        return min(fitting, key=lambda trial: (trial.bytes, -trial.accuracy))
    return max(fitting, key=lambda trial: (trial.accuracy, -trial.bytes))


def find_frontier(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other beats in size without being less accurate, smallest first."""
    frontier: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.bytes, -trial.accuracy)):
        if not frontier or trial.accuracy > frontier[-1].accuracy:
            frontier.append(trial)
    return frontier
