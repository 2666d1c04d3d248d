"""How soon the command line answers: help, the list of models, a mistyped path, and the first training step.

An answer counts only with the exit code and the words that it should have: a crash is quick, too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Row, decide, falconet, mean, save, seed_interval

REPEATS, FIRST_STEPS = 10, 5

FIRST_STEP = """
import os, sys, time
from falconet import Callback, cli, terminal

class First(Callback):
    def on_step(self, step, loss):
        print(time.time())
        sys.stdout.flush()
        os._exit(0)

terminal.watch = lambda model: (First(),)
cli.run(["train", "digits", "--out", sys.argv[1]])
"""


QUICK: dict[str, tuple[list[str], int, str]] = {
    "falconet --help": (["--help"], 0, "evaluate"),
    "falconet models": (["models"], 0, "lenet5"),
    "a mistyped path": (["train", "no/such/folder"], 1, "no/such/folder"),
}
"""Arguments, the exit code and a part of the answer."""


def main() -> None:
    rows = []
    for name, (arguments, code, words) in QUICK.items():
        times = [time_command(falconet(*arguments), code, words) for _ in range(REPEATS + 1)][1:]
        rows.append(describe(f"{name}: time to answer", times, 0.5))
    times = [time_first_step() for _ in range(FIRST_STEPS + 1)][1:]
    rows.append(describe("falconet train digits: time to the first step", times, 5))
    save("startup", rows)


def describe(name: str, times: list[float], most: float) -> Row:
    """Return the row of a command."""
    value, std = mean(times)
    interval = seed_interval(times)
    met = decide(value, interval, most=most)
    return Row(name, value, "s", len(times), std, f"under {most:g} s", met, interval=interval, over="runs")


def time_command(command: list[str], code: int, words: str) -> float:
    """Return the wall time of a command in seconds; exit where it does not end with this code, saying these words."""
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != code or words not in done.stdout:
        raise SystemExit(
            f"{command}: wanted exit code {code} and the words {words!r}, found {done.returncode} and\n{done.stdout}"
        )
    return seconds


def time_first_step() -> float:
    """Return the seconds from the start of a process to the end of its first training step."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.time()
        command = [sys.executable, "-c", FIRST_STEP, str(Path(scratch) / "run")]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return float(done.stdout) - started


if __name__ == "__main__":
    main()
