"""How long a callable takes, with a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from falconet import latency
from falconet.latency import (
    Latency,
    SpeedRatio,
    compare_latencies,
    find_rank,
    measure_latencies,
    measure_latency,
)
from falconet.schema import to_mapping


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
    one, other = measure_latencies([make("a", 1.0), make("b", 2.0)], calls=105, warmup=2)
    assert (one.calls, other.calls) == (105, 105)
    assert one.p99 == pytest.approx(1.0)
    assert other.p99 == pytest.approx(2.0)
    assert order == "aabb" + ("a" * 11 + "b" * 11) * 10 + "a" * 6 + "b" * 6
    assert one.turns == pytest.approx((1.0,) * 11)
    assert other.turns == pytest.approx((2.0,) * 11)


@pytest.mark.parametrize(
    ("took", "turn", "turns"), [(1 / 1024, 10, 20), (1 / 64, 6, 19), (1 / 32, 3, 16), (3.0, 1, 10)]
)
def test_slow_calls_take_shorter_turns(monkeypatch: pytest.MonkeyPatch, took: float, turn: int, turns: int) -> None:
    clock = Clock(took)
    monkeypatch.setattr(latency, "time", clock)
    one, other = measure_latencies([clock.call, clock.call], calls=200, warmup=1, seconds=2.0)
    assert one.turns is not None
    assert (len(one.turns), one.calls) == (turns, turn * turns)
    assert other.calls == one.calls


def test_one_alone_has_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(monkeypatch, Clock(0.001), calls=50)
    assert found.turns is None
    assert to_mapping(found) == {"p50": found.p50, "p95": found.p95, "p99": found.p99, "calls": 50}


def make_latency(*turns: float) -> Latency:
    return Latency(1.0, 1.0, 1.0, len(turns), turns)


def test_ratios_are_of_the_same_turn() -> None:
    before = [1.0, 2.0, 4.0, 8.0, 1.0, 2.0, 4.0, 8.0, 16.0, 1.0]
    found = compare_latencies(make_latency(*before), make_latency(*(time / 1.25 for time in before)))
    assert found == SpeedRatio(1.25, 1.25, 1.25)
    assert found.measurable


def test_the_interval_is_that_of_the_sign_test() -> None:
    ones, ratios = make_latency(*[1.0] * 20), [1 + number / 10 for number in range(20)]
    found = compare_latencies(make_latency(*ratios[::-1]), ones)
    # Of 20 values, the 6th and the 15th: binomial tails of 2.07 % each.
    assert found is not None
    assert (found.times, found.low, found.high) == pytest.approx((1.95, 1.5, 2.4))


@pytest.mark.parametrize(("count", "rank"), [(1, None), (5, None), (6, 0), (8, 0), (9, 1), (10, 1), (20, 5), (100, 39)])
def test_ranks_of_the_sign_test(count: int, rank: int | None) -> None:
    assert find_rank(count) == rank


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (make_latency(*[1.0] * 5), make_latency(*[0.1] * 5)),
        (make_latency(*[1.0] * 10), make_latency(*[0.1] * 11)),
        (make_latency(*[1.0] * 10), Latency(0.1, 0.1, 0.1, 200)),
    ],
)
def test_no_ratio_without_an_interval(before: Latency, after: Latency) -> None:
    assert compare_latencies(before, after) is None


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (SpeedRatio(3.4, 3.2, 3.6), "3.40 times as fast (95%: 3.20 to 3.60)"),
        (SpeedRatio(0.5, 0.4, 0.8), "SLOWER: 2.00 times as long (95%: 1.25 to 2.50)"),
        (SpeedRatio(1.2, 1.0, 1.3), "no measurable difference (95%: 1.00 to 1.30 times as fast)"),
        (SpeedRatio(0.9, 0.8, 1.0), "no measurable difference (95%: 0.80 to 1.00 times as fast)"),
    ],
)
def test_words_of_a_ratio(ratio: SpeedRatio, words: str) -> None:
    assert ratio.describe() == words
