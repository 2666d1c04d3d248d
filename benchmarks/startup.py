"""How soon the command line answers: help, the list of models, a mistyped path, and the first training step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Row, falconet, mean, save

REPEATS = 10

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


def main() -> None:
    quick = {
        "falconet --help": ["--help"],
        "falconet models": ["models"],
        "a mistyped path": ["train", "no/such/folder"],
    }
    rows = []
    for name, arguments in quick.items():
        times = [time_command(falconet(*arguments)) for _ in range(REPEATS + 1)][1:]
        value, std = mean(times)
        rows.append(Row(f"{name}: time to answer", value, "s", REPEATS, std, "under 0.5 s", value < 0.5))
    times = [time_first_step() for _ in range(4)][1:]
    value, std = mean(times)
    rows.append(Row("falconet train digits: time to the first step", value, "s", 3, std, "under 5 s", value < 5))
    save("startup", rows)


def time_command(command: list[str]) -> float:
    """Return the wall time of a command in seconds."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started


def time_first_step() -> float:
    """Return the seconds from the start of a process to the end of its first training step."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.time()
        command = [sys.executable, "-c", FIRST_STEP, str(Path(scratch) / "run")]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return float(done.stdout) - started


if __name__ == "__main__":
    main()
