"""How long a callable takes, with a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from falconet import latency
from falconet.latency import Latency, measure_latencies, measure_latency


class Clock:
    """Stands still except while a call runs; call number n takes `durations[n]` seconds, the last one from then on."""

    def __init__(self, *durations: float) -> None:
        self.durations = list(durations)
        self.now = 100.0
        self.calls = 0

    def perf_counter(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self.durations[min(self.calls, len(self.durations) - 1)]
        self.calls += 1


def measure(monkeypatch: pytest.MonkeyPatch, clock: Clock, **options: float) -> Latency:
    monkeypatch.setattr(latency, "time", clock)
    return measure_latency(clock.call, **options)  # type: ignore[arg-type]


def test_warmup_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.1, 0.1, 0.1, 0.001)
    found = measure(monkeypatch, clock, warmup=3, calls=50)
    assert (found.p50, found.p95, found.p99) == pytest.approx((1.0, 1.0, 1.0))
    assert found.calls == 50
    assert clock.calls == 53


@pytest.mark.parametrize(("took", "warmed"), [(30.0, 1), (0.2, 3), (0.001, 20)])
def test_warmup_takes_a_quarter_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch, took: float, warmed: int) -> None:
    clock = Clock(took)
    found = measure(monkeypatch, clock, calls=10, seconds=2.0)
    assert clock.calls == warmed + found.calls


def test_time_limit_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(monkeypatch, Clock(0.125), warmup=0, calls=1000, seconds=2.0)
    assert found.calls == 16


def test_slow_calls_are_still_timed_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(monkeypatch, Clock(5.0), warmup=1, calls=200, seconds=2.0)
    assert found.calls == 10
    assert found.p50 == pytest.approx(5000.0)


def test_percentiles_are_of_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = [number / 1000 for number in range(101)]
    found = measure(monkeypatch, Clock(*durations[::-1]), warmup=0, calls=101, seconds=60.0)
    assert (found.p50, found.p95, found.p99) == pytest.approx((50.0, 95.0, 99.0))


def test_real_clock() -> None:
    found = measure_latency(lambda: sum(range(1000)), calls=20, warmup=2)
    assert 0 < found.p50 <= found.p95 <= found.p99
    assert found.calls == 20


def test_several_take_turns_and_the_first_call_of_each_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = Clock(0.0), ""

    def make(name: str, milliseconds: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal order
            cold = not order.endswith(name)
            order += name
            clock.now += (9.0 if cold else milliseconds) / 1000

        return call

    monkeypatch.setattr(latency, "time", clock)
    one, other = measure_latencies([make("a", 1.0), make("b", 2.0)], calls=25, warmup=2)
    assert (one.calls, other.calls) == (25, 25)
    assert one.p99 == pytest.approx(1.0)
    assert other.p99 == pytest.approx(2.0)
    assert order == "aabb" + "a" * 11 + "b" * 11 + "a" * 11 + "b" * 11 + "a" * 6 + "b" * 6
