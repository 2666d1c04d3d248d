"""What each program here is asked and answers: arguments, MNIST as arrays, and one line of JSON on standard output.

It needs no more than NumPy, which every peer's environment has.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MEAN, STD = 0.1307, 0.3081
"""Of MNIST's training pixels, in units of 0..1."""
FILES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Task:
    """What a program is asked."""

    data_root: Path
    epochs: int
    batch_size: int
    seed: int
    every: int
    """Steps between two looks at the test accuracy; 0: training is timed by the epoch, and nothing is looked at."""
    aim: float
    """Test accuracy at which training ends, with `every`."""
    started: float
    """When the process was started, as `time.time()` has it."""
    precision: str
    recipe: str


def read_task(description: str | None) -> Task:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds MNIST/raw, its files unpacked")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=0, help="judge after so many steps; 0: time epochs instead")
    parser.add_argument("--aim", type=float, default=0.99, help="test accuracy that ends the training")
    parser.add_argument("--started", type=float, default=time.time(), help="when the process was started")
    parser.add_argument("--precision", default="fp32", help="falconet's")
    parser.add_argument("--recipe", default="mnist-fast", help="falconet's")
    return Task(**vars(parser.parse_args()))


def read_split(task: Task, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images as uint8 `(samples, 28, 28)` and labels as int64."""
    folder = task.data_root / "MNIST" / "raw"
    images = np.fromfile(folder / f"{FILES[name]}-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.fromfile(folder / f"{FILES[name]}-labels-idx1-ubyte", np.uint8, offset=8)
    return images, labels.astype(np.int64)


def normalize(images: np.ndarray) -> np.ndarray:
    """Return images as float32 `(samples, 1, 28, 28)` of mean 0 and deviation 1."""
    return ((images[:, None].astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


@dataclass
class EpochClock:
    """Times epochs, each from the end of the one before it, so that all of their costs count."""

    samples: int
    """That an epoch trains on."""
    ends: list[float] = field(default_factory=list)

    def end_epoch(self) -> None:
        self.ends.append(time.perf_counter())

    def report(self) -> dict[str, Any]:
        """Return samples a second in each epoch but the first."""
        return {"rates": [self.samples / (end - start) for start, end in itertools.pairwise(self.ends)]}


class Race:
    """Times training up to an accuracy; its clock stands still while the network is judged."""

    def __init__(self, task: Task, judge: Callable[[], float]) -> None:
        """`judge` returns the test accuracy; training begins now."""
        self.task = task
        self.judge = judge
        self.before = time.time() - task.started
        self.judging = 0.0
        self.looks: list[dict[str, float]] = []
        self.begun = time.perf_counter()

    def end_step(self, step: int) -> bool:
        """Judge where it is time to, after `step` steps; return whether the aim has been reached."""
        if step % self.task.every:
            return False
        paused = time.perf_counter()
        accuracy = self.judge()
        self.looks.append({"step": step, "seconds": paused - self.begun - self.judging, "accuracy": accuracy})
        self.judging += time.perf_counter() - paused
        return accuracy >= self.task.aim

    def report(self) -> dict[str, Any]:
        """Return what was seen, and the seconds between the start of the process and that of training."""
        return {"before": self.before, "looks": self.looks}


def answer(library: str, params: int, clock: EpochClock | Race) -> None:
    """Print the answer, the last line of a program's output: with `library`'s versions and the network's parameters."""
    print(json.dumps({"library": library, "params": params, **clock.report()}), flush=True)
