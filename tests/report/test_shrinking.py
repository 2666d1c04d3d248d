"""What a report says of the speed of a compressed network."""

from __future__ import annotations

import pytest

from falconet.latency import Latency
from falconet.report import Shrinking
from tests.budget.test_resuming import make_hollow


@pytest.mark.parametrize(
    ("macs", "milliseconds", "words"),
    [
        (100, 0.5, "as fast as the dense network, with as many MACs"),
        (100, 2.0, "as fast as the dense network, with as many MACs"),
        (50, 0.95, "as fast as the dense network"),
        (50, 0.5, "2.00 times as fast as the dense network"),
        (50, 1.5, "SLOWER: 1.50 times as long"),
    ],
)
def test_which_network_is_faster(macs: int, milliseconds: float, words: str) -> None:
    before, after = ({"torch": Latency(time, time, time, 10)} for time in (1.0, milliseconds))
    found = make_hollow(Shrinking, macs_before=100, macs_after=macs, before=before, after=after)
    assert found.name_fastest() == words
