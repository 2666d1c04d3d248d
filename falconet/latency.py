"""How long a callable takes, measured well: after warm-up, many times, with the median to quote."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Times of single calls in milliseconds."""

    p50: float
    p95: float
    p99: float
    calls: int


def measure_latency(call: Callable[[], object], *, calls: int = 200, warmup: int = 20, seconds: float = 2.0) -> Latency:
    """Time `call` up to `calls` times, or until `seconds` have passed, after `warmup` calls that do not count.

    At least ten calls are timed, or `calls` where that is less, however long they take.
    """
    for _ in range(warmup):
        call()
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < calls and (len(times) < 10 or time.perf_counter() < deadline):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return Latency(float(p50), float(p95), float(p99), len(times))


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
