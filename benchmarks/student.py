"""A student of banking77 in 350 kB: `train --student`, then `compress` to the size.

The teacher is the candidate that a run without a named network keeps. Settings of the student were chosen on a
validation split; the test split is asked about what they came to.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from record import Row, decide, mean, run_json, save, seed_interval

LARGEST, LEAST = 350_000, 90.0
"""Bytes of the file, and accuracy in percent."""
COMPRESSION = ("--max-size", f"{LARGEST // 1000}kB", "--epochs", "8", "--set", "compression.sensitivity=false")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds banking77/")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.out or scratch)
        source = str(arguments.data_root / "banking77")
        save("student", evaluate([measure(source, out, seed) for seed in range(arguments.seeds)]))


def measure(source: str, out: Path, seed: int) -> dict[str, Any]:
    """Train teacher and student, compress the student, and return what all three came to."""
    run, small = out / f"run-{seed}", out / f"small-{seed}"
    taught = run_json("train", source, "--student", "ngrams", "--resume", "--seed", str(seed), "--out", str(run))
    found = run_json("compress", str(run / "student"), source, *COMPRESSION, "--resume", "--out", str(small))
    return {"taught": taught, "small": found}


def evaluate(runs: list[dict[str, Any]]) -> list[Row]:
    """Return a row for the teacher, for the student and for its file."""
    rows = []
    for name, facts in (
        ("teacher", [run["taught"]["teacher"] for run in runs]),
        ("student", [run["taught"] for run in runs]),
    ):
        value, std = mean([100 * each["test"]["accuracy"] for each in facts])
        models = ", ".join(sorted({each["model"] for each in facts}))
        size = max(each["bytes"] for each in facts)
        note = f"{models}, {size:,} bytes"
        rows.append(Row(f"banking77, {name}: test accuracy", value, "%", len(runs), std, note=note))
    accuracies = [100 * run["small"]["accuracy_after"] for run in runs]
    value, std = mean(accuracies)
    size = max(run["small"]["bytes_after"] for run in runs)
    interval = seed_interval(accuracies)
    met = decide(value, interval, least=LEAST) if size <= LARGEST else False
    asked = f"at least {LEAST:g} % in {LARGEST:,} bytes"
    name, note = "banking77, compressed student: test accuracy", f"{size:,} bytes"
    rows.append(Row(name, value, "%", len(runs), std, asked, met, interval=interval, over="seeds", note=note))
    return rows


if __name__ == "__main__":
    main()
