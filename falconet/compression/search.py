"""Which network is tried next: a pure function of the budget and of what came of the trials so far. Imports no torch.

The search goes down a config. First whole channels go, as far as MACs or milliseconds demand; then the weights that are
left become 8-bit integers, which costs no training; then each rung keeps half as many weights as the one before, on a
grid of few bits, and begins with the best weights that are at hand. Where a rung loses too much, or is smaller than it
need be, the next ones lie between it and the last that did not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from falconet.compression.budget import Budget
from falconet.compression.config import CompressConfig

FIRST_BITS = 8
LEAST_KEPT = 2.0**-14
HALF = 0.5
CLOSE, AIMED = 0.9, 0.96
"""Shares of the wanted size: from the one on, a file fills it; the other is what is aimed at, since aim errs."""


@dataclass(frozen=True)
class TrialSpec:
    """How one trial compresses."""

    macs: float = 1.0
    """Share of the dense network's multiply-accumulates that pruning channels leaves."""
    kept: float = 1.0
    """Share of the weights that are not zero."""
    bits: int = FIRST_BITS
    """Of each weight that is left."""
    epochs: int = 0
    """Of training on the way there."""
    start: int | None = None
    """Number of the trial whose weights it begins with; None: the model that is compressed."""
    polish: bool = False
    """Whether it is the last one, which trains the best one longer, with a few weights less where size is scarce."""


@dataclass(frozen=True)
class Trial:
    """What came of a scheme."""

    number: int
    scheme: TrialSpec
    bytes: int
    """Of the coded file."""
    accuracy: float
    """Of the decoded network on the validation split, 0 to 1."""
    drop: float
    """Points of accuracy that it lost there."""
    macs: int
    latency_ms: float | None
    """In the fastest runtime; None: not asked for, and so not measured."""
    seconds: float

    def fits(self, budget: Budget) -> bool:
        """Whether it keeps within all limits."""
        return self.excess(budget) <= 0

    def excess(self, budget: Budget) -> float:
        """Return how far it is beyond the limits, 0 where it is within: the sum of each relative excess.

        Of the drop, a point counts as one.
        """
        pairs = (
            (self.bytes, budget.max_bytes),
            (self.macs, budget.max_macs),
            (self.latency_ms, budget.max_latency_ms),
        )
        relative = sum(max((found or 0) / limit - 1, 0.0) for found, limit in pairs if limit is not None)
        return relative + max(self.drop - budget.allowed_drop - ROUNDING, 0.0)


ROUNDING = 1e-9


def propose(
    trials: Sequence[Trial], budget: Budget, config: CompressConfig, shares: Sequence[float] = (1.0,)
) -> TrialSpec | None:
    """Return the next scheme; None at the end of the search.

    `shares` of the MACs are what removing channels may leave: first the most that the budget allows, then less. Trials
    for which the budget's time is too short are not proposed, but for the first one.
    """
    if not trials:
        # A network that lost channels must learn again; integers of 8 bits cost next to nothing.
        return TrialSpec(macs=shares[0], epochs=config.epochs if shares[0] < 1 else 0)
    if is_spent(trials, budget):
        return None
    share = choose_share(trials, budget, shares)
    if share is not None:
        return TrialSpec(macs=share, epochs=config.epochs, start=trials[-1].number)
    base = find_base(trials, budget)
    rungs = [trial for trial in trials if trial.scheme.macs == base]
    kept = choose_kept([trial for trial in rungs if not trial.scheme.polish], budget, config)
    if kept is not None:
        bits = choose_bits(rungs, budget, config) if kept == 1 else config.bits
        return TrialSpec(base, kept, bits, config.epochs, find_start(rungs, kept))
    best = choose_best(trials, budget)
    if not config.polish or best.scheme.polish or not best.scheme.epochs:
        return None
    scheme = replace(best.scheme, kept=leave_room(best, budget), epochs=config.polish, start=best.number, polish=True)
    return None if any(trial.scheme == scheme for trial in trials) else scheme


def leave_room(trial: Trial, budget: Budget) -> float:
    """Return the share of weights that a trial should keep when it trains longer, so that it still has its size after.

    Weights spread over more values as they learn, and take more bytes: in the smallest files up to a thirteenth.
    """
    scheme = trial.scheme
    if budget.max_bytes is None or scheme.kept == 1 or trial.bytes > budget.max_bytes:
        return scheme.kept
    wanted = ROOM * budget.max_bytes / trial.bytes * count_bits(scheme.kept, scheme.bits)
    return solve(wanted, scheme.bits, HALF * scheme.kept, scheme.kept)


ROOM = 0.9
"""Share of the wanted size that a network may take before it is trained longer."""


def choose_share(trials: Sequence[Trial], budget: Budget, shares: Sequence[float]) -> float | None:
    """Return the share of the MACs that the next trial leaves to whole channels; None once that costs too much."""
    last = trials[-1]
    begun = last.scheme.kept < 1 or last.scheme.polish or (len(trials) > 1 and is_thin(last, budget))
    if begun or trials[0].drop > budget.allowed_drop or last.scheme.bits < FIRST_BITS or is_small(last, budget):
        return None
    return max((share for share in shares if share < last.scheme.macs), default=None)


def find_base(trials: Sequence[Trial], budget: Budget) -> float:
    """Return the least share of the MACs at which whole channels could go at little cost."""
    whole = [trial for trial in trials if trial.scheme.kept == 1]
    return min(trial.scheme.macs for trial in whole if trial is whole[0] or not is_thin(trial, budget))


def is_thin(trial: Trial, budget: Budget) -> bool:
    """Whether removing channels cost so much that single weights should go instead: half of what may be lost."""
    return trial.drop > (budget.allowed_drop / 2 if by_drop(budget) else SPARE)


SPARE = 0.3
"""Points of accuracy that channels may cost where only the size is limited."""


def is_small(trial: Trial, budget: Budget) -> bool:
    """Whether a network in 8-bit integers is so near to the wanted size that its channels had better stay."""
    return budget.max_bytes is not None and trial.bytes <= NEAR * budget.max_bytes


NEAR = 4.0


def is_spent(trials: Sequence[Trial], budget: Budget) -> bool:
    """Whether another trial like the last one would take longer than the budget leaves."""
    spent = sum(trial.seconds for trial in trials)
    return budget.seconds is not None and spent + trials[-1].seconds > budget.seconds


def choose_kept(trials: Sequence[Trial], budget: Budget, config: CompressConfig) -> float | None:
    """Return the share of weights that the next rung keeps; None where the ladder has ended.

    Trials on one side of the wanted share went beyond the limit that is sought, those on the other did not.
    """
    if any(is_enough(trial, budget) for trial in trials):
        return None
    before = [trial for trial in trials if not is_beyond(trial, budget)]
    if not before:  # Even the first one lost too much; it may do better with more training.
        return 1.0 if by_drop(budget) and len(trials) == 1 else None
    high = min(trial.scheme.kept for trial in before)
    beyond = [trial for trial in trials if is_beyond(trial, budget) and trial.scheme.kept < high]
    if not beyond:
        if high == 1 and choose_bits(trials, budget, config) < min(trial.scheme.bits for trial in trials):
            return 1.0
        kept = high * HALF if by_drop(budget) else aim(find_trial(before, high), budget, config.bits)
        return kept if kept >= LEAST_KEPT else None
    refined = len(trials) - trials.index(beyond[0]) - 1
    if refined >= config.refinements:
        return None
    small, large = find_trial(beyond, max(trial.scheme.kept for trial in beyond)), find_trial(before, high)
    return math.sqrt(small.scheme.kept * high) if by_drop(budget) else interpolate(small, large, budget)


def choose_bits(trials: Sequence[Trial], budget: Budget, config: CompressConfig) -> int:
    """Return the bits that bring a network with all its weights to the wanted size; 8 where weights must go instead."""
    first = trials[0]
    if by_drop(budget) or budget.max_bytes is None or first.bytes <= budget.max_bytes:
        return FIRST_BITS
    bits = int(FIRST_BITS * AIMED * budget.max_bytes / first.bytes)
    return bits if bits >= config.bits else FIRST_BITS


def find_trial(trials: Sequence[Trial], kept: float) -> Trial:
    """Return the newest trial that kept this share of the weights."""
    return [trial for trial in trials if trial.scheme.kept == kept][-1]


def by_drop(budget: Budget) -> bool:
    """Whether the search is for the smallest file of an accuracy, not for the best of a size."""
    return budget.max_drop is not None or budget.max_bytes is None


def is_beyond(trial: Trial, budget: Budget) -> bool:
    """Whether a trial lost too much; where only the size counts, whether it is small enough."""
    if by_drop(budget):
        return trial.drop > budget.allowed_drop + ROUNDING
    return budget.max_bytes is not None and trial.bytes <= budget.max_bytes


def is_enough(trial: Trial, budget: Budget) -> bool:
    """Whether nothing better is wanted: a file of both the size and the accuracy, or one that fills its size."""
    if budget.max_bytes is None or trial.bytes > budget.max_bytes:
        return False
    whole = trial.scheme.kept == 1 and trial.scheme.bits < FIRST_BITS
    return not is_beyond(trial, budget) if by_drop(budget) else whole or trial.bytes >= CLOSE * budget.max_bytes


def aim(trial: Trial, budget: Budget, bits: int) -> float:
    """Return the share of weights, of so many bits each, that should bring a trial's network to the wanted size.

    A quarter of the trial's share at least, since so large a step is hard to learn, and nine tenths at most.
    """
    assert budget.max_bytes is not None
    wanted = AIMED * budget.max_bytes / trial.bytes * count_bits(trial.scheme.kept, trial.scheme.bits)
    return solve(wanted, bits, LARGEST_STEP * trial.scheme.kept, SMALLEST_STEP * trial.scheme.kept)


LARGEST_STEP, SMALLEST_STEP = 0.25, 0.9
BISECTIONS = 30


def solve(wanted: float, bits: int, low: float, high: float) -> float:
    """Return the share of weights, from `low` to `high`, that takes so many bits a weight of the network, or nearly.

    Beyond the share at which bits are most, more weights would take less again.
    """
    high = max(low, min(high, 1 / (1 + 2 ** (-bits * FILLED))))
    for _ in range(BISECTIONS):
        kept = math.sqrt(low * high)
        low, high = (kept, high) if count_bits(kept, bits) < wanted else (low, kept)
    return high


def count_bits(kept: float, bits: int) -> float:
    """Return about how many bits of a file one weight takes: the entropy of where weights are, and their values."""
    positions = -sum(share * math.log2(share) for share in (kept, 1 - kept) if share > 0)
    return positions + kept * bits * FILLED


FILLED = 0.82
"""Bits that a coded value takes for each bit of its grid, as measured: most values are small."""


def interpolate(small: Trial, large: Trial, budget: Budget) -> float:
    """Return the share of weights at which a line between two trials, in logarithms, comes to the wanted size."""
    assert budget.max_bytes is not None
    share = math.log(AIMED * budget.max_bytes / small.bytes) / math.log(large.bytes / small.bytes)
    inside = min(max(share, MARGIN), 1 - MARGIN)
    return math.exp(math.log(small.scheme.kept) * (1 - inside) + math.log(large.scheme.kept) * inside)


MARGIN = 0.1
"""How near to a trial the next one may be, as a share of the way to the other."""


def find_start(trials: Sequence[Trial], kept: float) -> int:
    """Return the number of the trial that kept least of those that kept at least so many weights."""
    above = [trial for trial in trials if trial.scheme.kept >= kept]
    return min(above, key=lambda trial: (trial.scheme.kept, -trial.number)).number


def choose_best(trials: Sequence[Trial], budget: Budget) -> Trial:
    """Return the trial that serves a budget best, or comes nearest where none keeps within it."""
    fitting = [trial for trial in trials if trial.fits(budget)]
    if not fitting:
        return min(trials, key=lambda trial: (trial.excess(budget), trial.bytes))
    if by_drop(budget):
        return min(fitting, key=lambda trial: (trial.bytes, -trial.accuracy))
    return max(fitting, key=lambda trial: (trial.accuracy, -trial.bytes))


def find_frontier(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other beats in size without being less accurate, smallest first."""
    frontier: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.bytes, -trial.accuracy)):
        if not frontier or trial.accuracy > frontier[-1].accuracy:
            frontier.append(trial)
    return frontier
