"""LeNet-5 of 1998 on MNIST, with and without small affine distortions, against the errors that the paper reports."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from record import Row, decide, mean, run_recipe, save, seed_interval

SEEDS = (0, 1, 2)
CASES: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("LeNet-5, MNIST, with distortions: test error", (), 0.80),
    ("LeNet-5, MNIST, without distortions: test error", ("--set", "augmentation=none"), 0.95),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="the folder that holds MNIST/raw; downloaded where it is missing")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.out or scratch)
        save(
            "mnist-lenet5", [measure(name, options, error, arguments.data_root, out) for name, options, error in CASES]
        )


def measure(name: str, options: tuple[str, ...], published: float, data_root: str | None, out: Path) -> Row:
    """Train and evaluate one case for every seed."""
    root = ("--data-root", data_root) if data_root else ()
    kind = "plain" if options else "distorted"
    runs = run_recipe("mnist", "mnist-lenet5", SEEDS, out / kind, *options, *root)
    errors = [100 * (1 - run["test"]["accuracy"]) for run in runs]
    value, std = mean(errors)
    interval = seed_interval(errors)
    return Row(
        name=name,
        value=value,
        unit="%",
        n=len(errors),
        std=std,
        target=f"at most {published:.2f} %",
        met=decide(value, interval, most=published),
        peer="LeCun et al., 1998",
        peer_value=published,
        ratio=value / published,
        interval=interval,
        over="seeds",
    )


if __name__ == "__main__":
    main()
