"""What answers cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from falconet import RunResult, load_artifact, load_dataset
from falconet.errors import UsageError
from falconet.evaluation import measure_costs
from falconet.evaluation.costs import measure_energy
from falconet.latency import pinned_threads
from falconet.training.energy import Energy, PowerSource


class FakeGauge:
    """Says that each reading took another Wh."""

    def __init__(self, per_reading: float) -> None:
        self.wh, self.per_reading, self.stopped = 0.0, per_reading, False

    def read(self) -> Energy:
        self.wh += self.per_reading
        return Energy(self.wh, 0.0, 1.0, (PowerSource("processor", "estimated", "load of 15 W"),))

    def stop(self) -> None:
        self.stopped = True


def test_energy_is_that_between_readings() -> None:
    gauge = FakeGauge(0.5)
    calls: list[int] = []
    found = measure_energy(lambda: calls.append(1), 4, 0.01, lambda folder: gauge)
    assert found is not None
    assert found.predictions == 4 * len(calls)
    assert found.wh_per_1000 == pytest.approx(1000 * 0.5 / found.predictions)
    assert (found.basis, found.sources) == ("estimated", ("processor: estimated, load of 15 W",))
    assert gauge.stopped


def test_energy_is_not_known_without_figures() -> None:
    def fail(folder: Path) -> FakeGauge:
        raise OSError("no counters")

    assert measure_energy(int, 4, 0.01, lambda folder: FakeGauge(0.0)) is None
    assert measure_energy(int, 4, 0.01, fail) is None


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with pinned_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_counts_below_one_are_refused(trained: RunResult) -> None:
    with pytest.raises(UsageError, match="batch: wanted 1 or more, found 0"):
        measure_costs(trained.out, load_dataset("digits").splits["test"].samples, batch=0)


@pytest.mark.slow
def test_a_process_is_watched(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.evaluation.costs.find_spec", lambda name: None)
    samples = load_dataset("digits").splits["test"].samples
    found = measure_costs(load_artifact(trained.out), samples, batch=8, starts=1)
    assert found.energy is None
    assert len(found.cold_starts) == 1
    assert found.cold_start_seconds > found.latency_ms.p50 / 1000
    assert 0 < found.latency_ms.p50 <= found.latency_ms.p99
    if found.peak_bytes is not None:
        assert found.import_bytes is not None
        assert 10_000_000 < found.import_bytes < found.peak_bytes
