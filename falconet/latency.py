"""How long a callable takes, measured well: after warm-up, many times, with the median to quote."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

WARMUP_SHARE = 0.25
"""Of the time for measuring, which warming up may take at most."""


@dataclass(frozen=True)
class Latency:
    """Times of single calls in milliseconds."""

    p50: float
    p95: float
    p99: float
    calls: int


def measure_latency(call: Callable[[], object], *, calls: int = 200, warmup: int = 20, seconds: float = 2.0) -> Latency:
    """Time `call` up to `calls` times, or until `seconds` have passed, after `warmup` calls that do not count.

    Warming up takes a quarter of `seconds` at most, but one call. At least ten calls are timed, or `calls` where that
    is less, however long they take.
    """
    return measure_latencies([call], calls=calls, warmup=warmup, seconds=seconds)[0]


def measure_latencies(
    several: Sequence[Callable[[], object]], *, calls: int = 200, warmup: int = 20, seconds: float = 2.0
) -> list[Latency]:
    """Time each as `measure_latency` does, but in turns, so that what else the machine does slows all of them alike.

    A turn is ten calls, after one that does not count, since the others used the caches before it.
    """
    for call in several:
        begun = time.perf_counter()
        for done in range(warmup):
            if done and time.perf_counter() - begun >= WARMUP_SHARE * seconds:
                break
            call()
    alone = len(several) == 1
    times: list[list[float]] = [[] for _ in several]
    deadline = time.perf_counter() + seconds * len(several)
    while len(times[0]) < calls and (len(times[0]) < 10 or time.perf_counter() < deadline):
        for call, own in zip(several, times, strict=True):
            if not alone:
                call()
            own += [time_call(call) for _ in range(1 if alone else min(10, calls - len(own)))]
    return [summarize(own) for own in times]


def summarize(times: Sequence[float]) -> Latency:
    """Return the percentiles of several calls."""
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return Latency(float(p50), float(p95), float(p99), len(times))


def time_call(call: Callable[[], object]) -> float:
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
