"""LeNet-5 on the embedded digits: accuracy over three seeds, time of a run, and whether a seed repeats bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from record import Row, mean, run_json, save

SEEDS = (0, 1, 2)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folders = {seed: Path(scratch) / str(seed) for seed in SEEDS}
        command = ("train", "digits", "--model", "lenet5")
        runs = [run_json(*command, "--seed", str(seed), "--out", str(folder)) for seed, folder in folders.items()]
        again = Path(scratch) / "again"
        run_json(*command, "--seed", "0", "--out", str(again))
        same = (again / "model.safetensors").read_bytes() == (folders[0] / "model.safetensors").read_bytes()
    accuracy, spread = mean([100 * run["test"]["accuracy"] for run in runs])
    seconds, deviation = mean([run["seconds"] for run in runs])
    slowest = max(run["seconds"] for run in runs)
    rows = [
        Row("lenet5, digits: test accuracy", accuracy, "%", 3, spread, "at least 98.0 %", accuracy >= 98),
        Row("lenet5, digits: time of a run", seconds, "s", 3, deviation, "under 20 s each", slowest < 20),
        Row(
            "lenet5, digits: runs of one seed with equal weights", 2.0 if same else 1.0, "of 2", 2, 0.0, "2 of 2", same
        ),
    ]
    save("digits", rows)


if __name__ == "__main__":
    main()
