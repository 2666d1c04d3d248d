"""What a report says of the speed of a compressed network."""

from __future__ import annotations

import pytest

from falconet.exporters.exporting import Export
from falconet.exporters.parity import Parity
from falconet.latency import Latency, SpeedRatio
from falconet.report import CompressionSummary
from tests.compression.test_resuming import make_hollow


def make_shrinking(macs: int, before: list[float], after: list[float]) -> CompressionSummary:
    first, second = ({"torch": Latency(turns[0], 9.0, 9.0, 100, tuple(turns))} for turns in (before, after))
    made: CompressionSummary = make_hollow(
        CompressionSummary, macs_before=100, macs_after=macs, before=first, after=second
    )
    return made


@pytest.mark.parametrize(
    ("macs", "factors", "words"),
    [
        (100, [0.5], "the same structure as the dense network, so as fast to a runtime"),
        (100, [2.0], "the same structure as the dense network, so as fast to a runtime"),
        (50, [0.95, 1.05], "no measurable difference (95%: 0.95 to 1.05 times as fast as the dense network)"),
        # Nearly always faster, which is not always enough, and a little, which always is.
        (50, [1.2, 1.2, 0.9], "no measurable difference (95%: 0.90 to 1.20 times as fast as the dense network)"),
        (50, [1.04, 1.05], "1.04 times as fast as the dense network (95%: 1.04 to 1.05)"),
        (50, [2.0], "2.00 times as fast as the dense network (95%: 2.00 to 2.00)"),
        (50, [0.5, 0.4], "SLOWER: 2.22 times as long as the dense network (95%: 2.00 to 2.50)"),
    ],
)
def test_which_network_is_faster(macs: int, factors: list[float], words: str) -> None:
    # The machine slows down by half in the midst of it, which concerns both.
    before = [1.0] * 10 + [1.5] * 10
    after = [time / factors[turn % len(factors)] for turn, time in enumerate(before)]
    assert make_shrinking(macs, before, after).describe_latency() == words


def test_no_verdict_without_turns() -> None:
    before, after = ({"torch": Latency(time, time, time, 10)} for time in (1.0, 0.5))
    found = make_hollow(CompressionSummary, macs_before=100, macs_after=50, before=before, after=after)
    assert found.speed is None
    assert found.describe_latency() == "not timed in turns: no ratio"


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (0.5, "8-bit integers in onnxruntime: 2.00 times as fast as single precision (95%: 2.00 to 2.00); 0.50 points"),
        (1.0, "8-bit integers in onnxruntime: no measurable difference (95%: 1.00 to 1.00 times as fast as single"),
        (2.0, "8-bit integers in onnxruntime: SLOWER: 2.00 times as long as single precision (95%: 2.00 to 2.00); 0.5"),
    ],
)
def test_integers_have_an_interval_too(after: float, words: str) -> None:
    speed = SpeedRatio(1 / after, 1 / after, 1 / after)
    parity = make_hollow(Parity, accuracy_drop=0.005)
    integers = make_hollow(Export, baseline_latency_ms=1.0, baseline_speed=speed, parity=parity)
    assert make_hollow(CompressionSummary, integers=integers).describe_int8().startswith(words)
