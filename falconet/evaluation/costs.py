"""measure_costs(): time, memory and electricity of a trained model's inference."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.data import Samples
from falconet.data.files import adapt_samples
from falconet.errors import DataError, FalconetError, UsageError
from falconet.latency import Latency, measure_latency, pinned_threads
from falconet.storage import scratch
from falconet.training.energy import Energy, Gauge, start_codecarbon

_BATCH = 64
_STARTS = 5
"""Processes that are started to measure the cold start, of which the median counts."""
_ENERGY_SECONDS = 5.0
"""Seconds of inference to measure energy: counters tick about once a millisecond, codecarbon's estimates less often."""


@dataclass(frozen=True)
class Consumption:
    """The electricity that the whole machine took during inference, in watt-hours for 1,000 predictions."""

    wh_per_1000: float
    basis: str
    """Basis of the figures: measured, partly measured, estimated or unknown; see `falconet.training.energy`."""
    sources: tuple[str, ...]
    """Source of the figures for each part of the machine, in words."""
    predictions: int
    """Samples predicted during the measurement."""


@dataclass(frozen=True)
class Costs:
    """The costs of a model's inference, from raw samples in memory to logits, on the CPU."""

    threads: int
    """Threads with which torch computes."""
    batch: int
    latency_ms: Latency
    """Latency of a single sample, in milliseconds."""
    batch_latency_ms: Latency
    """Latency of `batch` samples at once, in milliseconds."""
    cold_start_seconds: float
    """Median seconds from the start of a process to its first prediction: imports, reading the artifact, one sample."""
    cold_starts: tuple[float, ...]
    """Seconds of each cold start."""
    peak_bytes: int | None
    """Peak memory of such a process after predicting `batch` samples; None: the system does not report it."""
    import_bytes: int | None
    """Peak memory of importing torch and falconet alone; None: the system does not report it."""
    energy: Consumption | None
    """Electricity; None without codecarbon, or where it gives no figures."""

    def __repr__(self) -> str:
        p50, start = self.latency_ms.p50, self.cold_start_seconds
        return f"Costs(latency p50 {p50:.3g} ms, cold start {start:.2f} s, threads {self.threads})"


def measure_costs(
    model: AnyModel,
    samples: Samples,
    *,
    batch: int = _BATCH,
    threads: int = 1,
    starts: int = _STARTS,
    energy_seconds: float = _ENERGY_SECONDS,
) -> Costs:
    """Measure the costs of inference on raw samples; where there are fewer than `batch`, they are repeated.

    Raises UsageError for counts below 1, DataError where none of the first `batch` samples can be read.
    """
    for name, count in (("batch", batch), ("threads", threads), ("starts", starts)):
        if count < 1:
            raise UsageError(f"{name}: wanted 1 or more, found {count}")
    artifact = open_artifact(model)
    batch = min(batch, artifact.batch_size)
    raw = _read_some(adapt_samples(samples, artifact.config.input), batch)
    with pinned_threads(threads):
        single = measure_latency(lambda: answer(artifact, raw[:1]))
        whole = measure_latency(lambda: answer(artifact, raw))
        energy = measure_energy(lambda: answer(artifact, raw), len(raw), energy_seconds)
    seconds, memory = _start_processes(artifact, raw, threads, starts)
    return Costs(
        threads=threads,
        batch=batch,
        latency_ms=single,
        batch_latency_ms=whole,
        cold_start_seconds=statistics.median(seconds),
        cold_starts=tuple(seconds),
        peak_bytes=memory["peak"],
        import_bytes=memory["imports"],
        energy=energy,
    )


def _read_some(samples: Samples, count: int) -> list[Any]:
    """Return `count` raw samples: the readable ones of the first `count`, repeated as needed."""
    read = []
    for index in range(min(count, len(samples))):
        try:
            read.append(samples.read(index))
        except DataError:
            continue
    if not read:
        raise DataError(f"none of the first {min(count, len(samples))} samples can be read")
    return [read[index % len(read)] for index in range(count)]


@torch.inference_mode()
def answer(artifact: Artifact, raw: Sequence[Any]) -> torch.Tensor:
    """Return the logits of raw samples, prepared in this thread."""
    logits: torch.Tensor = artifact.model(artifact.preprocess.normalize(artifact.preprocess.prepare(raw)))
    return logits


def measure_energy(
    call: Callable[[], object], size: int, seconds: float, start: Callable[[Path], Gauge] | None = None
) -> Consumption | None:
    """Return the electricity while `call`, which predicts `size` samples, is repeated for so many seconds.

    None without codecarbon, where it fails, and where it gives no figures. Its start-up does not count.
    """
    if start is None:
        if find_spec("codecarbon") is None:
            return None
        start = start_codecarbon
    with scratch() as folder:
        try:
            gauge = start(folder)
        except Exception:  # Whatever codecarbon stumbles over, the other costs are known all the same.
            return None
        try:
            before, calls = gauge.read(), 0
            deadline = time.perf_counter() + seconds
            while time.perf_counter() < deadline:
                call()
                calls += 1
            after = gauge.read()
        finally:
            gauge.stop()
    return _describe_consumption(before, after, calls * size)


def _describe_consumption(before: Energy, after: Energy, predictions: int) -> Consumption | None:
    """Return the difference of two readings of a gauge; None where nothing was measured."""
    wh = after.wh - before.wh
    if not predictions or wh <= 0:
        return None
    sources = tuple(f"{source.part}: {source.basis}, {source.how}" for source in after.sources)
    return Consumption(1000 * wh / predictions, after.basis, sources, predictions)


def _start_processes(
    artifact: Artifact, raw: Sequence[Any], threads: int, starts: int
) -> tuple[list[float], dict[str, int | None]]:
    """Start processes that predict, one after the other; return their seconds and the last one's memory.

    A first one does not count: it loads files from the disk into the cache.
    """
    with scratch() as folder:
        artifact.save(folder)
        np.savez(folder / "raw.npz", *[np.asarray(sample) for sample in raw])
        found = [_start_process(folder, threads) for _ in range(1 + starts)]
    return [seconds for seconds, _ in found[1:]], found[-1][1]


def _start_process(folder: Path, threads: int) -> tuple[float, dict[str, int | None]]:
    """Return a new process's seconds to its first prediction, and its memory; see `falconet.evaluation.coldstart`."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "falconet.evaluation.coldstart", str(folder)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
        assert process.stdout is not None
        first = process.stdout.readline()
        seconds = time.perf_counter() - started
        rest = process.stdout.read()
    if process.returncode or not first:
        raise FalconetError(f"measuring the cold start: the process ended with code {process.returncode}")
    memory: dict[str, int | None] = json.loads(rest)
    return seconds, memory
