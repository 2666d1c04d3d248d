"""The electricity that training takes, as the extra `energy`, codecarbon, measures or estimates it; nothing without it.

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
"""Kept beside `metrics.csv`, so that the parts of a resumed run add up."""
START_AFTER = 10.0
"""Seconds of training before codecarbon is imported: that takes seconds of its own, more than a short run has."""
_READ_SECONDS = 60
"""Between codecarbon's own readings, besides those at the ends of epochs: counters overflow when nobody looks."""


@dataclass(frozen=True)
class PowerSource:
    """Where the figures of a part of the machine come from."""

    part: str
    """processor, memory or graphics."""
    basis: Literal["measured", "estimated", "unknown"]
    """By counters of the hardware, or from what such hardware is said to take."""
    how: str


@dataclass(frozen=True)
class Energy:
    """The electricity that a machine took while a run was trained, by all that ran on it."""

    wh: float = 0.0
    co2_g: float = 0.0
    """Grams of carbon dioxide and of the equivalent in other gases."""
    seconds: float = 0.0
    """Of training that the figures cover; 0 where there are none."""
    sources: tuple[PowerSource, ...] = ()
    grid: tuple[str, ...] = ()
    """What a kilowatt-hour was taken to emit, and where."""

    @property
    def basis(self) -> str:
        """Whether all of it is measured, part of it, or nothing."""
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
    """What reads the energy since it was started."""

    def read(self) -> Energy:
        """Return it."""

    def stop(self) -> None:
        """Read no more."""


class EnergyMeter(Callback):
    """Keeps `energy.json` of a run up to date, at the end of each epoch; `before` is what earlier parts of it took.

    It starts reading after `wait` seconds: a run that is over by then has no figures.

    What a process takes after the last epoch that it ended is lost where it is killed.
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
    """Return what keeps the energy of the run in the folder `out`, as a tuple of one; of none without the extra."""
    if find_spec("codecarbon") is None:
        return ()
    before = load_energy(out) if resumed else None
    return (EnergyMeter(out, before or Energy(), start_codecarbon, START_AFTER),)


def load_energy(out: Path) -> Energy | None:
    """Return what a run has taken so far; None where that was not recorded, or the file is damaged."""
    try:
        return from_mapping(Energy, read_json(out / ENERGY_FILE))
    except (ArtifactError, UsageError):
        return None


def energy_facts(energy: Energy) -> dict[str, Any]:
    """Return energy as plain facts, with null for what is not known."""
    facts = {**to_mapping(energy), "basis": energy.basis}
    return facts if energy.seconds else {**facts, "wh": None, "co2_g": None}


def describe_energy(energy: Energy, trained: float) -> str:
    """Return energy in words; `trained`: seconds that the epochs of the run took."""
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
    """A tracker of codecarbon as a gauge, and the handler of its figures in one."""

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
    """Return a gauge that has been started; it asks no network and writes no file but in `out`."""
    return _Codecarbon(out)


_PARTS = {"CPU": "processor", "RAM": "memory", "GPU": "graphics"}
_COUNTERS = {"intel_rapl": "RAPL", "windows_emi": "Windows EMI", "intel_power_gadget": "Intel Power Gadget"}
"""Ways in which codecarbon reads a processor's own counters, and what these are called."""


def describe_source(hardware: Any, forced: bool = False) -> PowerSource:
    """Return where codecarbon's figures of a part of the machine come from; `forced`: the user told it the watts."""
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
    """Return where codecarbon's figures of a processor come from."""
    mode, watts = hardware._mode, hardware._tdp
    if mode in _COUNTERS:
        return PowerSource("processor", "measured", _COUNTERS[mode])
    if mode not in ("cpu_load", "constant"):
        return PowerSource("processor", "unknown", mode)
    guess = not forced and (hardware._is_generic_tdp or not _is_known(hardware._model, watts))
    load = "load" if mode == "cpu_load" else "half"
    return PowerSource("processor", "estimated", f"{load} of {watts:g} W{', a guess' if guess else ''}")


def _is_known(model: str, watts: float) -> bool:
    """Whether codecarbon's table has a processor, and `watts` from there; it guesses them from its threads else."""
    from codecarbon.core import cpu, hardware_cache

    table: Any = hardware_cache.get_cached_tdp(cpu)  # type: ignore[no-untyped-call]
    power = table._get_cpu_power_from_registry(model)
    return power is not None and watts % power == 0


WORLD = 475
"""Grams of CO2 equivalents a kilowatt-hour, where codecarbon is told no place (IEA, 2019)."""


def _describe_grid(figures: Any) -> str:
    """Return what a kilowatt-hour was taken to emit, and where."""
    intensity = 1000 * figures.emissions / figures.energy_consumed
    told = "world average" if round(intensity) == WORLD else "as set for codecarbon"
    return f"{intensity:.0f} g/kWh ({figures.country_name or figures.cloud_region or told})"
