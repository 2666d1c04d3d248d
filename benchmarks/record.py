"""How benchmarks run the command line and keep their results."""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from falconet.report import describe_environment
from falconet.storage import write_json

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One claim, or what explains one."""

    name: str
    value: float
    unit: str
    n: int
    std: float
    target: str | None = None
    """What was asked for, as text; None: the row explains another one."""
    met: bool | None = None
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    params: int | None = None
    """Of the network that the claim is about."""
    macs: int | None = None
    """Multiply-accumulates of one sample."""


def falconet(*arguments: str) -> list[str]:
    """Return the command that runs falconet in this environment, by its installed script where there is one."""
    script = Path(sys.executable).with_name("falconet")
    return [str(script), *arguments] if script.is_file() else [sys.executable, "-m", "falconet", *arguments]


def run_json(*arguments: str) -> dict[str, Any]:
    """Run `falconet ... --json`; return what it printed, and show its progress."""
    done = subprocess.run([*falconet(*arguments), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_recipe(source: str, recipe: str, seeds: Sequence[int], folder: Path, *more: str) -> list[dict[str, Any]]:
    """Train and judge a recipe for every seed in `folder-SEED`; what is there already goes on or stands."""
    command = ("train", source, "--recipe", recipe, "--resume", *more)
    return [run_json(*command, "--seed", str(seed), "--out", f"{folder}-{seed}") for seed in seeds]


def mean(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (0 for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def save(name: str, rows: Sequence[Row], packages: Sequence[str] = ()) -> None:
    """Write `results/NAME.json`, with the versions of these packages too, and print the rows."""
    environment = describe_environment() | {package: version(package) for package in packages}
    hardware = {key: environment.pop(key) for key in ("processor", "cores", "threads", "system")}
    hardware["threads"] = os.environ.get("OMP_NUM_THREADS", hardware["threads"])
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    content = {"hardware": hardware, "versions": environment, "date": today, "rows": [asdict(row) for row in rows]}
    write_json(RESULTS / f"{name}.json", content)
    for row in rows:
        asked = f"; target {row.target}: {'met' if row.met else 'MISSED'}" if row.target else ""
        print(f"{row.name}: {row.value:.4g} ± {row.std:.2g} {row.unit} (n = {row.n}{asked})")
