"""How benchmarks run the command line and keep their results.

A target counts as met only where the whole interval of what was measured keeps to it: `decide` says so, of intervals
over seeds, rounds or samples. Settings are chosen by validation data; the test split is asked once, by what was chosen.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import falconet as package
from falconet.metrics.significance import student_quantile
from falconet.report import get_environment
from falconet.storage import write_json

RESULTS = Path(__file__).parent / "results"
CODE = ("falconet", "benchmarks", ":!benchmarks/results")
"""What a figure depends on, as git takes paths."""
UNKNOWN = "not recorded"
Interval = tuple[float, float]


def find_commit() -> tuple[str, bool | None]:
    """Return the commit of the code that runs, and whether files differ from it; the latter None outside of git."""
    return ask_git(("rev-parse", "HEAD"), CODE)


def find_change(code: Sequence[str]) -> tuple[str, bool | None]:
    """Return the last commit that changed a part of the code, and whether files of it differ from that."""
    return ask_git(("log", "-1", "--format=%H", "--", *code), code)


def ask_git(question: Sequence[str], code: Sequence[str]) -> tuple[str, bool | None]:
    """Return the answer, UNKNOWN outside of git and for none, and whether files of the code differ from the commit."""
    root = Path(package.__file__).parent.parent

    def ask(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607

    try:
        return ask(*question) or UNKNOWN, bool(ask("status", "--porcelain", "--", *code))
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN, None


RUNNING = find_commit()
"""Asked at the start, since files may change while a benchmark runs."""


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
    """False: the figure itself is beyond the target. None: it keeps to it, but its interval does not."""
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    params: int | None = None
    """Of the network that the claim is about."""
    macs: int | None = None
    """Multiply-accumulates of one sample."""
    interval: Interval | None = None
    """95 % of what the target is about. Both ends are equal where nothing is left to chance; None: it is not known."""
    over: str | None = None
    """What the interval is of, and what it is over: `seeds`, `rounds, of the ratio`."""
    peer_std: float | None = None
    note: str | None = None
    """What a reader must know to take the figure for what it is."""
    withdrawn: str | None = None
    """Why the figure no longer stands; it is shown with this reason."""


def decide(value: float, interval: Interval | None, *, least: float = -math.inf, most: float = math.inf) -> bool | None:
    """Return whether a figure is shown to be within bounds: None where it is, but not its whole interval."""
    if not least <= value <= most:
        return False
    return True if interval is not None and least <= interval[0] and interval[1] <= most else None


def decide_all(*parts: bool | None) -> bool | None:
    """Return what `decide` would of a target with several parts."""
    if False in parts:
        return False
    return None if None in parts else True


def seed_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean over seeds or rounds, by Student's t; None for a single one."""
    if len(values) < 2:
        return None
    center, std = mean(values)
    half = student_quantile(0.975, len(values) - 1) * std / math.sqrt(len(values))
    return center - half, center + half


def compare_rounds(ours: Sequence[float], peers: Sequence[float]) -> tuple[float, Interval | None]:
    """Return the geometric mean of the ratios within rounds, ours to the peer's, and its 95 % interval."""
    logs = [math.log(first / second) for first, second in zip(ours, peers, strict=True)]
    interval = seed_interval(logs)
    return math.exp(statistics.fmean(logs)), interval and (math.exp(interval[0]), math.exp(interval[1]))


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
    """Train and evaluate a recipe for every seed in `folder-SEED`; what is there already goes on or stands."""
    command = ("train", source, "--recipe", recipe, "--resume", *more)
    return [run_json(*command, "--seed", str(seed), "--out", f"{folder}-{seed}") for seed in seeds]


def latest_runs(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the last run of each method, task and seed that a file of one run a line holds."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    runs = [json.loads(line) for line in lines]
    return {(run["method"], run["task"], run["seed"]): run for run in runs}


def mean(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (0 for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def save(name: str, rows: Sequence[Row], packages: Sequence[str] = ()) -> None:
    """Write `results/NAME.json`, with the commit and the versions of these packages too, and print the rows."""
    environment = get_environment() | {package: version(package) for package in packages}
    hardware = {key: environment.pop(key) for key in ("processor", "cores", "threads", "system")}
    hardware["threads"] = os.environ.get("OMP_NUM_THREADS", hardware["threads"])
    commit, dirty = RUNNING
    content = {
        "commit": commit,
        "dirty": dirty,
        "hardware": hardware,
        "versions": environment,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "rows": [asdict(row) for row in rows],
    }
    write_json(RESULTS / f"{name}.json", content)
    for row in rows:
        asked = f"; target {row.target}: {name_verdict(asdict(row))}" if row.target else ""
        print(f"{row.name}: {row.value:.4g} ± {row.std:.2g} {row.unit} (n = {row.n}{asked})")


def name_verdict(row: dict[str, Any]) -> str:
    """Return what is said of a recorded row with a target."""
    if row.get("withdrawn"):
        return "withdrawn"
    return {True: "met", False: "missed", None: "not shown"}[row["met"]]
