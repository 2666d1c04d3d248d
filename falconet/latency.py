"""Latency of callables: measured after warm-up, many times, with the median to quote."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from falconet.schema import SPARSE

_WARMUP_FRACTION = 0.25
"""Largest fraction of the time for measuring that warm-up takes."""
_TURN_CALLS = 10
"""Most calls of one callable in a turn, before the next callable's."""
_MIN_TURNS = 10
"""Fewest turns, however long they take: with fewer, the interval of a ratio says little."""
_TURNS = 20
"""Turns into which the time for measuring is divided; slow callables make fewer calls in each."""


@dataclass(frozen=True)
class Latency:
    """Times of single calls in milliseconds."""

    p50: float
    p95: float
    p99: float
    calls: int
    turns: tuple[float, ...] | None = field(default=None, repr=False, metadata={SPARSE: True})
    """Median of each turn, where several took turns; see `compare_latencies`."""


@dataclass(frozen=True)
class SpeedRatio:
    """How many times as fast one thing is as another; below 1, it is slower."""

    times: float
    low: float
    """Lower end of the ratio's interval of 95% or more; `high` is the upper end."""
    high: float

    @property
    def measurable(self) -> bool:
        """Whether there is a difference: the interval leaves 1 out."""
        return not self.low <= 1 <= self.high

    def describe(self, other: str = "") -> str:
        """Return the ratio in words, with the name of the other thing where one is given."""
        beside = f" as {other}" if other else ""
        if not self.measurable:
            return f"no measurable difference (95%: {self.low:.2f} to {self.high:.2f} times as fast{beside})"
        if self.times > 1:
            return f"{self.times:.2f} times as fast{beside} (95%: {self.low:.2f} to {self.high:.2f})"
        return f"SLOWER: {1 / self.times:.2f} times as long{beside} (95%: {1 / self.high:.2f} to {1 / self.low:.2f})"


def compare_latencies(before: Latency, after: Latency) -> SpeedRatio | None:
    """Return how many times as fast `after` is as `before`, of two that `measure_latencies` timed in the same turns.

    The ratio is the median of those of the turns. Its interval reaches from one of the sorted ratios to another, as far
    as the sign test allows, so that nothing is assumed about how times are distributed. None where they did not take
    turns, or too few for an interval.
    """
    if before.turns is None or after.turns is None or len(before.turns) != len(after.turns):
        return None
    ratios = sorted(slow / fast for slow, fast in zip(before.turns, after.turns, strict=True))
    rank = find_rank(len(ratios))
    if rank is None:
        return None
    return SpeedRatio(float(np.median(ratios)), ratios[rank], ratios[-1 - rank])


def find_rank(count: int, confidence: float = 0.95) -> int | None:
    """Return how many of so many sorted values lie below a median's interval, and as many above; None for too few."""
    beyond, rank = 0.0, -1
    while (beyond := beyond + math.comb(count, rank + 1) / 2**count) <= (1 - confidence) / 2:
        rank += 1
    return rank if rank >= 0 else None


def measure_latency(
    call: Callable[[], object], *, calls: int = 200, warmup: int = 20, seconds: float = 2.0, least: int = _MIN_TURNS
) -> Latency:
    """Time `call` up to `calls` times, or until `seconds` have passed, after `warmup` calls that do not count.

    Warming up takes a quarter of `seconds` at most, but one call. At least `least` calls are timed, or `calls` where
    that is less, however long they take.
    """
    return measure_latencies([call], calls=calls, warmup=warmup, seconds=seconds, least=least)[0]


def measure_latencies(
    several: Sequence[Callable[[], object]],
    *,
    calls: int = 200,
    warmup: int = 20,
    seconds: float = 2.0,
    least: int = _MIN_TURNS,
) -> list[Latency]:
    """Time each as `measure_latency` does, but in turns, so that what else the machine does slows all of them alike.

    A turn is ten calls after one that does not count, since the others used the caches before it; fewer where they are
    slow, down to a single one, which counts. There are `least` turns at least, or as many as `calls` are, however long
    they take.
    """
    slowest = max([_warm_up(call, warmup, _WARMUP_FRACTION * seconds) for call in several])
    alone = len(several) == 1
    most = 1 if alone else max(1, min(_TURN_CALLS, calls // _MIN_TURNS, int(seconds / _TURNS / (slowest or 1e-9))))
    turns: list[list[list[float]]] = [[] for _ in several]
    deadline, done = time.perf_counter() + seconds * len(several), 0
    while done < calls and (len(turns[0]) < least or time.perf_counter() < deadline):
        for call, own in zip(several, turns, strict=True):
            if most > 1:
                call()
            own.append([_time_call(call) for _ in range(min(most, calls - done))])
        done += len(turns[0][-1])
    return [_summarize(own, alone=alone) for own in turns]


def _warm_up(call: Callable[[], object], calls: int, seconds: float) -> float:
    """Make calls that do not count, but for the first one within so many seconds; return what the quickest took."""
    begun, quickest = time.perf_counter(), 0.0
    for done in range(calls):
        if done and time.perf_counter() - begun >= seconds:
            break
        took = _time_call(call) / 1000
        quickest = min(quickest or took, took)
    return quickest


def _summarize(turns: Sequence[Sequence[float]], *, alone: bool) -> Latency:
    """Return the percentiles of all calls, and the median of each turn where there were others' between them."""
    times = [took for turn in turns for took in turn]
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    medians = None if alone else tuple(float(np.median(turn)) for turn in turns)
    return Latency(float(p50), float(p95), float(p99), len(times), medians)


def _time_call(call: Callable[[], object]) -> float:
    """Return how many milliseconds a call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


@contextmanager
def pinned_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads, until the end; times of different machines' cores compare only so."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
