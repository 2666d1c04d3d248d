"""Energy: what codecarbon says of it, how parts of a run add up, and what is not known."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import falconet
from falconet import cli
from falconet.errors import InterruptedRunError
from falconet.report import render_card, render_html
from falconet.training import Callback, EpochRow
from falconet.training.energy import (
    ENERGY_FILE,
    Energy,
    EnergyMeter,
    PowerSource,
    describe_energy,
    describe_source,
    energy_facts,
    load_energy,
    start_codecarbon,
    watch_energy,
)

ROW = EpochRow(1, 0.1, 1.0, 0.5, 1.0, 0.5, 2.0)
LOAD = PowerSource("processor", "estimated", "load of 65 W")
RAPL = PowerSource("processor", "measured", "RAPL")
MEMORY = PowerSource("memory", "estimated", "its size")
PART = Energy(2.0, 1.0, 10.0, (RAPL, MEMORY), ("500 g/kWh (world average)",))


class Gauge:
    """Ten seconds, two watt-hours and a gram more at each reading."""

    def __init__(self, *sources: PowerSource) -> None:
        self.sources = sources
        self.readings = 0
        self.stopped = False

    def read(self) -> Energy:
        self.readings += 1
        return replace(
            PART, wh=2.0 * self.readings, co2_g=1.0 * self.readings, seconds=10.0 * self.readings, sources=self.sources
        )

    def stop(self) -> None:
        self.stopped = True


def make_meter(out: Path, gauge: Gauge, before: Energy | None = None) -> EnergyMeter:
    """Return a meter that has begun."""
    meter = EnergyMeter(out, before or Energy(), start=lambda _: gauge)
    meter.on_start(3, 5, [])
    meter.beginning.join()
    return meter


def test_each_epoch_is_on_disk_when_it_ends(tmp_path: Path) -> None:
    gauge = Gauge(RAPL, MEMORY)
    meter = make_meter(tmp_path, gauge)
    meter.on_epoch(ROW, best=True)
    assert load_energy(tmp_path) == PART
    meter.on_epoch(ROW, best=True)
    assert load_energy(tmp_path) == replace(PART, wh=4.0, co2_g=2.0, seconds=20.0)
    meter.on_end()
    assert load_energy(tmp_path) == replace(PART, wh=6.0, co2_g=3.0, seconds=30.0)
    assert gauge.stopped


def test_steps_read_nothing(tmp_path: Path) -> None:
    gauge = Gauge(RAPL)
    meter = make_meter(tmp_path, gauge)
    for step in range(100):
        meter.on_gradients(step)
        meter.on_step(step, 0.0)
    assert gauge.readings == 0
    meter.on_end()


def test_parts_of_a_resumed_run_add_up(tmp_path: Path) -> None:
    make_meter(tmp_path, Gauge(RAPL, MEMORY)).on_epoch(ROW, best=True)  # and is killed
    (meter,) = watch_energy(tmp_path, resumed=True)
    again = make_meter(tmp_path, Gauge(LOAD, MEMORY), meter.before)
    again.on_end()
    found = load_energy(tmp_path)
    assert found is not None
    assert (found.wh, found.co2_g, found.seconds) == (4.0, 2.0, 20.0)
    assert found.sources == (RAPL, MEMORY, LOAD)
    assert found.grid == ("500 g/kWh (world average)",)


def test_a_new_run_begins_at_nothing(tmp_path: Path) -> None:
    make_meter(tmp_path, Gauge(RAPL)).on_end()
    (meter,) = watch_energy(tmp_path, resumed=False)
    assert meter.before == Energy()


@pytest.mark.parametrize(
    ("sources", "basis"),
    [
        ((RAPL,), "measured"),
        ((LOAD, MEMORY), "estimated"),
        ((RAPL, MEMORY), "partly measured"),
        ((), "unknown"),
    ],
)
def test_what_is_measured_is_told_from_what_is_estimated(sources: tuple[PowerSource, ...], basis: str) -> None:
    energy = replace(PART, sources=sources)
    assert energy.basis == basis
    assert energy_facts(energy)["basis"] == basis


def processor(mode: str, watts: float = 65.0, generic: bool = False) -> Any:
    return type("CPU", (), {"_mode": mode, "_tdp": watts, "_is_generic_tdp": generic, "_model": "Intel Core i7"})()


@pytest.mark.parametrize(
    ("hardware", "known", "expected"),
    [
        (processor("intel_rapl"), True, RAPL),
        (processor("windows_emi"), True, PowerSource("processor", "measured", "Windows EMI")),
        (processor("intel_power_gadget"), True, PowerSource("processor", "measured", "Intel Power Gadget")),
        (processor("cpu_load"), True, PowerSource("processor", "estimated", "load of 65 W")),
        (processor("constant"), True, PowerSource("processor", "estimated", "half of 65 W")),
        (processor("cpu_load", 8.0), False, PowerSource("processor", "estimated", "load of 8 W, a guess")),
        (
            processor("cpu_load", 85.0, generic=True),
            True,
            PowerSource("processor", "estimated", "load of 85 W, a guess"),
        ),
        (processor("new"), True, PowerSource("processor", "unknown", "new")),
        (type("GPU", (), {})(), True, PowerSource("graphics", "measured", "driver")),
        (type("RAM", (), {})(), True, PowerSource("memory", "estimated", "its size")),
        (
            type("AppleSiliconChip", (), {"chip_part": "GPU"})(),
            True,
            PowerSource("graphics", "measured", "powermetrics"),
        ),
        (type("Raspberry", (), {"chip_part": "RAM"})(), True, PowerSource("memory", "measured", "PMIC")),
        (type("Abacus", (), {})(), True, PowerSource("Abacus", "unknown", "codecarbon")),
    ],
)
def test_where_figures_come_from(
    hardware: Any, known: bool, expected: PowerSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falconet.training.energy._is_known", lambda model, watts: known)
    assert describe_source(hardware) == expected


def test_a_line_says_it_all() -> None:
    assert describe_energy(PART, 12.0) == (
        "2 Wh, partly measured (processor: RAPL; memory: estimated from its size), 1 g CO2e at 500 g/kWh "
        "(world average), over 10.0 s of training (12.0 s)"
    )


def test_what_is_not_known_is_not_invented(tmp_path: Path) -> None:
    def fail(out: Path) -> Gauge:
        raise RuntimeError("no counters, no names")

    meter = EnergyMeter(tmp_path, Energy(), start=fail)
    meter.on_start(1, 1, [])
    meter.beginning.join()
    meter.on_epoch(ROW, best=True)
    meter.on_end()
    energy = load_energy(tmp_path)
    assert energy == Energy()
    assert energy_facts(energy)["wh"] is None
    assert energy_facts(energy)["co2_g"] is None
    assert describe_energy(energy, 11.0) == "not known: codecarbon, asked after 10 s, gave no figures during training"
    assert describe_energy(energy, 1.0) == "not known: training took 1.0 s, and codecarbon is asked after 10 s"


def test_a_run_that_is_shorter_than_the_beginning(tmp_path: Path) -> None:
    gauge, begun = Gauge(RAPL), threading.Event()

    def dawdle(out: Path) -> Gauge:
        begun.set()
        time.sleep(0.2)
        return gauge

    meter = EnergyMeter(tmp_path, Energy(), start=dawdle)
    meter.on_start(1, 1, [])
    assert begun.wait(60)
    meter.on_end()
    meter.beginning.join()
    assert gauge.stopped
    assert load_energy(tmp_path) == Energy()


def test_a_short_run_does_not_begin_to_read(tmp_path: Path) -> None:
    begun: list[Path] = []

    def start(out: Path) -> Gauge:
        begun.append(out)
        return Gauge(RAPL)

    meter = EnergyMeter(tmp_path, Energy(), start=start, wait=600.0)
    meter.on_start(1, 1, [])
    meter.on_epoch(ROW, best=True)
    meter.on_end()
    meter.beginning.join(timeout=60)
    assert not meter.beginning.is_alive()
    assert begun == []
    assert load_energy(tmp_path) == Energy()


def test_a_damaged_file_is_no_figure(tmp_path: Path) -> None:
    for content in ("", "{", '{"wh": "many"}', '{"watts": 3}', "[]"):
        (tmp_path / ENERGY_FILE).write_text(content)
        assert load_energy(tmp_path) is None


@pytest.mark.slow
def test_without_the_extra_nothing_is_recorded_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.training.energy.find_spec", lambda name: None)
    assert watch_energy(tmp_path, resumed=False) == ()
    run = falconet.train("digits", model="lenet300_100", epochs=1, out=tmp_path)
    assert run.report.log.energy is None
    assert "energy" not in json.loads((tmp_path / "metrics.json").read_text())
    assert "energy" not in (tmp_path / "README.md").read_text()
    assert "nergy" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / ENERGY_FILE).exists()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let nobody out, and say who tried."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        tried.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in [name for name in os.environ if name.upper().startswith("CODECARBON_")]:
        monkeypatch.delenv(name)
    return tried


def wait_and_read(out: Path) -> Energy:
    gauge = start_codecarbon(out)
    try:
        time.sleep(0.3)
        return gauge.read()
    finally:
        gauge.stop()


def test_codecarbon_gives_figures_without_network_files_or_noise(
    tmp_path: Path, quiet: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home, out = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    out.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    # What a user may have set for other programs.
    monkeypatch.setenv("CODECARBON_SAVE_TO_API", "true")
    monkeypatch.setenv("CODECARBON_OUTPUT_METHODS", "csv,api")
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://localhost:9")
    monkeypatch.setenv("CODECARBON_ELECTRICITYMAPS_API_TOKEN", "secret")
    monkeypatch.setenv("CODECARBON_LOG_LEVEL", "debug")
    monkeypatch.setenv("CODECARBON_ALLOW_MULTIPLE_RUNS", "false")
    begun = time.perf_counter()
    energy = wait_and_read(out)
    assert energy.wh > 0
    assert 0 < energy.seconds <= time.perf_counter() - begun
    assert energy.co2_g == pytest.approx(energy.wh * 0.475)
    assert energy.grid == ("475 g/kWh (world average)",)
    assert energy.basis in ("measured", "partly measured", "estimated")
    assert {source.part for source in energy.sources} >= {"processor", "memory"}
    assert quiet == []
    assert list(tmp_path.rglob("*")) in ([home, out], [out, home])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "value", "grid"),
    [
        ("COUNTRY_ISO_CODE", "FRA", r"France"),
        ("COUNTRY_ISO_CODE", "XYZ", r"world average"),
        ("FORCE_CARBON_INTENSITY_G_CO2E_KWH", "123", r"as set for codecarbon"),
    ],
)
def test_the_grid_is_what_codecarbon_is_told(
    tmp_path: Path, quiet: list[Any], monkeypatch: pytest.MonkeyPatch, name: str, value: str, grid: str
) -> None:
    monkeypatch.setenv(f"CODECARBON_{name}", value)
    energy = wait_and_read(tmp_path)
    assert energy.grid == (f"{1000 * energy.co2_g / energy.wh:.0f} g/kWh ({grid})",)
    assert quiet == []


def test_counters_are_measured(tmp_path: Path, quiet: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine with RAPL, as codecarbon itself detects and reads it."""
    from codecarbon.core import cpu, hardware_cache

    domain = tmp_path / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True)
    (domain / "name").write_text("package-0\n")
    (domain / "energy_uj").write_text("1000000\n")
    (domain / "max_energy_range_uj").write_text("262143328850\n")
    assert cpu.is_rapl_available(str(tmp_path / "intel-rapl"))
    real: Any = cpu.IntelRAPL
    monkeypatch.setattr(
        "codecarbon.external.hardware.IntelRAPL",
        lambda rapl_dir, **options: real(rapl_dir=str(tmp_path / "intel-rapl"), **options),
    )
    monkeypatch.setattr(cpu, "is_rapl_available", lambda: True)
    forget: Any = hardware_cache.clear_cache
    forget()
    try:
        gauge = start_codecarbon(tmp_path)
        (domain / "energy_uj").write_text(f"{1_000_000 + 3_600_000_000}\n")
        time.sleep(0.1)
        energy = gauge.read()
        gauge.stop()
    finally:
        forget()
    assert RAPL in energy.sources
    assert energy.basis == "partly measured"
    assert energy.wh == pytest.approx(1.0, abs=0.05)


class Stop(Callback):
    """Presses Ctrl-C after an epoch."""

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_records_it_and_a_resumed_one_adds_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.training.energy.start_codecarbon", lambda out: Gauge(RAPL, MEMORY))
    monkeypatch.setattr("falconet.training.energy.START_AFTER", 0.0)
    with pytest.raises(InterruptedRunError):
        falconet.train("digits", model="lenet300_100", epochs=2, out=tmp_path, callbacks=[Stop()])
    before = load_energy(tmp_path)
    assert before is not None
    assert before.wh > 0
    run = falconet.train("digits", model="lenet300_100", epochs=2, out=tmp_path, if_exists="resume")
    energy = run.report.log.energy
    assert energy is not None
    assert energy.wh > before.wh
    facts = json.loads((tmp_path / "metrics.json").read_text())["energy"]
    assert facts == energy_facts(energy)
    assert facts["basis"] == "partly measured"
    assert run.report.energy == describe_energy(energy, sum(row.seconds for row in run.report.history))
    assert f"Energy of training: {run.report.energy}." in render_html([run.report], "one")
    card = render_card(run.report)
    assert f"| energy of training | {run.report.energy} |" in card
    assert f"co2_eq_emissions:\n  emissions: {energy.co2_g}\n  source: codecarbon" in card
    again = falconet.train("digits", model="lenet300_100", epochs=1, out=tmp_path, if_exists="overwrite")
    assert again.report.log.energy is not None
    assert again.report.log.energy.wh < energy.wh


@pytest.mark.slow
def test_the_command_line_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("falconet.training.energy.start_codecarbon", lambda out: Gauge(RAPL, MEMORY))
    monkeypatch.setattr("falconet.training.energy.START_AFTER", 0.0)
    command = ["train", "digits", "--model", "lenet300_100", "--epochs", "1", "--out", str(tmp_path)]
    assert cli.run(command) == 0
    assert "\nenergy: 4 Wh, partly measured (processor: RAPL;" in capsys.readouterr().out
    assert cli.run([*command, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["energy"]["basis"] == "partly measured"


def test_codecarbons_logger_is_silent(tmp_path: Path, quiet: list[Any]) -> None:
    wait_and_read(tmp_path)
    assert not logging.getLogger("codecarbon").isEnabledFor(logging.ERROR)
