"""LeNet-5 on the embedded digits: accuracy over seeds, whether a seed repeats bit for bit, and the time of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from record import Row, decide, mean, run_json, save, seed_interval

SEEDS = (0, 1, 2, 3, 4)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folders = {seed: Path(scratch) / str(seed) for seed in SEEDS}
        command = ("train", "digits", "--model", "lenet5")
        runs = [run_json(*command, "--seed", str(seed), "--out", str(folder)) for seed, folder in folders.items()]
        again = Path(scratch) / "again"
        run_json(*command, "--seed", "0", "--out", str(again))
        same = (again / "model.safetensors").read_bytes() == (folders[0] / "model.safetensors").read_bytes()
    save("digits", [describe_accuracy(runs), describe_repetition(same)])
    save("digits-time", [describe_time(runs)])


def describe_accuracy(runs: Sequence[Mapping[str, Any]]) -> Row:
    accuracies = [100 * run["test"]["accuracy"] for run in runs]
    value, std = mean(accuracies)
    interval = seed_interval(accuracies)
    met = decide(value, interval, least=98.0)
    return Row("lenet5, digits: test accuracy", value, "%", len(runs), std, "at least 98.0 %", met,
               interval=interval, over="seeds")  # fmt: skip


def describe_repetition(same: bool) -> Row:
    """Return whether two runs of the same seed have the same weights, which is not left to chance."""
    count = 2.0 if same else 1.0
    return Row("lenet5, digits: runs of one seed with equal weights", count, "of 2", 2, 0.0, "2 of 2", same,
               interval=(count, count))  # fmt: skip


def describe_time(runs: Sequence[Mapping[str, Any]]) -> Row:
    seconds = [run["seconds"] for run in runs]
    value, std = mean(seconds)
    interval = seed_interval(seconds)
    met = decide(value, interval, most=20.0)
    return Row("lenet5, digits: time of a run", value, "s", len(runs), std, "under 20 s", met, interval=interval,
               over="seeds")  # fmt: skip


if __name__ == "__main__":
    main()
