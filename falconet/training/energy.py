"""The electricity that training takes, measured or estimated by codecarbon (the extra `energy`); nothing without it.

Figures are those of the whole machine: counters cannot tell processes apart. Importing this imports neither torch nor
codecarbon.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from falconet.errors import ArtifactError, UsageError
from falconet.schema import from_mapping, to_mapping
from falconet.storage import read_json, write_json
from falconet.training.callbacks import Callback, EpochRow

ENERGY_FILE = "energy.json"
"""Name of the file beside `metrics.csv` that sums up the energy of all parts of a resumed run."""
START_AFTER = 10.0
"""Seconds of training before codecarbon is imported, which itself takes seconds, more than a short run has."""
_READ_SECONDS = 60
"""Seconds between codecarbon's own readings, besides those at the ends of epochs, since counters overflow."""


@dataclass(frozen=True)
class PowerSource:
    """The source of the energy figures for a part of the machine."""

    part: str
    """Part of the machine: processor, memory or graphics."""
    basis: Literal["measured", "estimated", "unknown"]
    """Whether energy is measured by hardware counters, or estimated from the rated power of such hardware."""
    how: str


@dataclass(frozen=True)
class Energy:
    """The electricity that the whole machine took during training, in watt-hours (`wh`), by all that ran on it."""

    wh: float = 0.0
    co2_g: float = 0.0
    """Emissions in grams of CO2 equivalents."""
    seconds: float = 0.0
    """Seconds of training that the figures cover; 0 where there are none."""
    sources: tuple[PowerSource, ...] = ()
    grid: tuple[str, ...] = ()
    """Assumed carbon intensities of the electricity grid, in words, with the place."""

    @property
    def basis(self) -> str:
        """Basis of the figures of all parts together: measured, partly measured, estimated or unknown."""
        found = {source.basis for source in self.sources}
        if not found or "unknown" in found:
            return "unknown"
        return "partly measured" if len(found) > 1 else found.pop()

    def __add__(self, other: Energy) -> Energy:
        return Energy(
            self.wh + other.wh,
            self.co2_g + other.co2_g,
            self.seconds + other.seconds,
            tuple(dict.fromkeys((*self.sources, *other.sources))),
            tuple(dict.fromkeys((*self.grid, *other.grid))),
        )


@runtime_checkable
class Gauge(Protocol):
    """A meter of the energy since its start."""

    def read(self) -> Energy:
        """Return the energy since the start."""

    def stop(self) -> None:
        """Stop reading."""


class EnergyMeter(Callback):
    """A callback that updates `energy.json` after each epoch; `before` is the energy of earlier parts of the run.

    It starts reading after `wait` seconds: a run that has ended by then has no figures.

    The energy since the last completed epoch is lost where the process is killed.
    """

    def __init__(self, out: Path, before: Energy, start: Callable[[Path], Gauge], wait: float = 0.0) -> None:
        self.out = out
        self.before = before
        self.start = start
        self.wait = wait
        self.over = threading.Event()
        self.gauge: Gauge | None = None
        self.ended = False
        self.lock = threading.Lock()
        # To look for hardware takes seconds, which training does not wait for; `seconds` leaves them out.
        self.beginning = threading.Thread(target=self.begin, daemon=True)

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        self.beginning.start()

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        self.write()

    def on_end(self) -> None:
        try:
            self.write()
        finally:
            self.over.set()
            with self.lock:
                self.ended = True
                if self.gauge:
                    self.gauge.stop()

    def begin(self) -> None:
        if self.over.wait(self.wait):
            return
        try:
            gauge = self.start(self.out)
        except Exception:  # Whatever codecarbon stumbles over is no reason to stop training; the figures stay unknown.
            return
        with self.lock:
            if self.ended:
                gauge.stop()
            else:
                self.gauge = gauge

    def write(self) -> None:
        now = self.gauge.read() if self.gauge else Energy()
        write_json(self.out / ENERGY_FILE, to_mapping(self.before + now))


def watch_energy(out: Path, resumed: bool) -> tuple[EnergyMeter, ...]:
    """Return the energy meter of the run in the folder `out`, in a tuple, which is empty without the extra `energy`."""
    if find_spec("codecarbon") is None:
        return ()
    before = load_energy(out) if resumed else None
    return (EnergyMeter(out, before or Energy(), start_codecarbon, START_AFTER),)


def load_energy(out: Path) -> Energy | None:
    """Return the energy that a run has taken so far; None where it was not recorded, or the file is damaged."""
    try:
        return from_mapping(Energy, read_json(out / ENERGY_FILE))
    except (ArtifactError, UsageError):
        return None


def energy_facts(energy: Energy) -> dict[str, Any]:
    """Return energy as JSON values, with null for unknown figures."""
    facts = {**to_mapping(energy), "basis": energy.basis}
    return facts if energy.seconds else {**facts, "wh": None, "co2_g": None}


def describe_energy(energy: Energy, trained: float) -> str:
    """Return energy in words; `trained`: seconds of all epochs of the run."""
    if not energy.seconds and trained < START_AFTER:
        return f"not known: training took {trained:.1f} s, and codecarbon is asked after {START_AFTER:g} s"
    if not energy.seconds:
        return f"not known: codecarbon, asked after {START_AFTER:g} s, gave no figures during training"
    sources = "; ".join(
        f"{source.part}: {source.how if source.basis == 'measured' else f'{source.basis} from {source.how}'}"
        for source in energy.sources
    )
    emitted = f"{energy.co2_g:.3g} g CO2e at {' and '.join(energy.grid)}"
    covered = f"over {energy.seconds:.1f} s of training"
    if trained > energy.seconds:  # Else other candidates were trained in the same time.
        covered += f" ({trained:.1f} s)"
    return f"{energy.wh:.3g} Wh, {energy.basis} ({sources}), {emitted}, {covered}"


class _Codecarbon:
    """A tracker of codecarbon as a gauge, which is also its output handler."""

    def __init__(self, out: Path) -> None:
        from codecarbon import OfflineEmissionsTracker

        # Its messages are for those who run it by itself; the first of them come before `log_level` counts.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        # What would write, send or ask elsewhere is turned off here, since its own configuration may turn it on.
        tracker: Any = OfflineEmissionsTracker(
            output_dir=str(out),
            output_methods=[],
            output_handlers=[self],
            emissions_endpoint=False,
            electricitymaps_api_token=False,
            allow_multiple_runs=True,
            log_level="critical",
            measure_power_secs=_READ_SECONDS,
            api_call_interval=-1,
        )
        self.figures: Any = None
        tracker.start()
        self.tracker = tracker
        forced = tracker._force_cpu_power is not None
        self.sources = tuple(describe_source(hardware, forced) for hardware in tracker._hardware)

    def read(self) -> Energy:
        self.tracker.flush()
        found = self.figures
        if found is None:
            return Energy()
        wh, co2 = 1000 * found.energy_consumed, 1000 * found.emissions
        return Energy(wh, co2, found.duration, self.sources, (_describe_grid(found),) if wh else ())

    def stop(self) -> None:
        self.tracker.stop()

    def out(self, total: Any, delta: Any) -> None:
        """Take the figures since the start; codecarbon calls it."""
        self.figures = total

    def exit(self) -> None:
        """Do nothing; codecarbon calls it at the end."""


def start_codecarbon(out: Path) -> Gauge:
    """Return a started gauge, which uses no network and writes files in `out` alone."""
    return _Codecarbon(out)


_PARTS = {"CPU": "processor", "RAM": "memory", "GPU": "graphics"}
_COUNTERS = {"intel_rapl": "RAPL", "windows_emi": "Windows EMI", "intel_power_gadget": "Intel Power Gadget"}
"""Names of the CPU energy counters that codecarbon reads, by its name for them."""


def describe_source(hardware: Any, forced: bool = False) -> PowerSource:
    """Return the source of codecarbon's figures for a part of the machine; `forced`: the user configured its watts."""
    kind = type(hardware).__name__
    part = _PARTS.get(getattr(hardware, "chip_part", kind), kind)
    if kind == "CPU":
        return _describe_processor(hardware, forced)
    if kind == "RAM":
        return PowerSource(part, "estimated", "its size")
    meters = {"GPU": "driver", "AppleSiliconChip": "powermetrics", "Raspberry": "PMIC"}
    if kind in meters:
        return PowerSource(part, "measured", meters[kind])
    return PowerSource(part, "unknown", "codecarbon")


def _describe_processor(hardware: Any, forced: bool) -> PowerSource:
    """Return the basis of codecarbon's figures for a CPU, and a description of it."""
    mode, watts = hardware._mode, hardware._tdp
    if mode in _COUNTERS:
        return PowerSource("processor", "measured", _COUNTERS[mode])
    if mode not in ("cpu_load", "constant"):
        return PowerSource("processor", "unknown", mode)
    guess = not forced and (hardware._is_generic_tdp or not _is_known(hardware._model, watts))
    load = "load" if mode == "cpu_load" else "half"
    return PowerSource("processor", "estimated", f"{load} of {watts:g} W{', a guess' if guess else ''}")


def _is_known(model: str, watts: float) -> bool:
    """Return whether `watts` is from codecarbon's table of CPUs; else it is guessed from the number of threads."""
    from codecarbon.core import cpu, hardware_cache

    table: Any = hardware_cache.get_cached_tdp(cpu)  # type: ignore[no-untyped-call]
    power = table._get_cpu_power_from_registry(model)
    return power is not None and watts % power == 0


WORLD = 475
"""Grams of CO2 equivalents per kilowatt-hour, where codecarbon has no location (IEA, 2019)."""


def _describe_grid(figures: Any) -> str:
    """Return the assumed carbon intensity of the electricity grid, in words, with the place."""
    intensity = 1000 * figures.emissions / figures.energy_consumed
    told = "world average" if round(intensity) == WORLD else "as set for codecarbon"
    return f"{intensity:.0f} g/kWh ({figures.country_name or figures.cloud_region or told})"
