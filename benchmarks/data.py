"""How fast samples are fed, what that takes in memory, and whether known data sets are read as they are.

Peers take turns with falconet, on the same files: torchvision's ImageFolder and MNIST behind a DataLoader with two
workers that stay alive, and timm's loader. Each feed is timed in a process of its own. Falconet decodes in the first
epoch and keeps pixels; peers decode in every epoch, since they keep nothing unless their user writes that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import Row, compare_rounds, decide, mean, save

REPEATS = 5
SCRIPT = Path(__file__).with_name("feeds.py")
CACHED = "from the second epoch on, when falconet has pixels and peers decode again"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data-root", type=Path, required=True, help="folder that holds MNIST/, sign-digits/, ucr/, ..."
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--part", choices=["feeds", "memory", "sets"], help="measure only this")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], list[Row]]] = {
        "feeds": lambda: compare_feeds(arguments.data_root, arguments.repeats),
        "memory": measure_memory,
        "sets": lambda: check_sets(arguments.data_root),
    }
    for name in [arguments.part] if arguments.part else parts:
        save(f"data-{name}", parts[name]())


def compare_feeds(root: Path, repeats: int) -> list[Row]:
    """Time each feed against its peers, alternating; the files are read once before, so that no feed pays the disk."""
    for path in (root / "sign-digits").rglob("*.*"):
        path.read_bytes()
    photos, peers = ("falconet-photos", "torchvision-photos", "timm-photos"), ("falconet-mnist", "torchvision-mnist")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*photos, *peers)}
    for _ in range(repeats):
        for name, found in runs.items():
            found.append(run_feed(name, root))
    return [
        compare("photos, augmented: images fed a second", runs, "falconet-photos", "torchvision-photos", 4, 10),
        compare("photos, augmented: images fed a second", runs, "falconet-photos", "timm-photos", 4, 10),
        compare("MNIST in memory: images fed a second", runs, "falconet-mnist", "torchvision-mnist", 10, 30),
        compare("photos: first epoch, cache built", runs, "falconet-photos", "torchvision-photos", 1, 1.5, key="first"),
    ]


def compare(
    name: str,
    runs: dict[str, list[dict[str, float]]],
    ours: str,
    peer: str,
    least: float,
    goal: float,
    key: str = "rate",
) -> Row:
    """Return the row of one feed against one peer; the ratio is the mean of those within rounds."""
    figures, others = [run[key] for run in runs[ours]], [run[key] for run in runs[peer]]
    (value, std), (peer_value, peer_std) = mean(figures), mean(others)
    # Times are better when lower, rates when higher.
    first = key == "first"
    ratio, interval = compare_rounds(others, figures) if first else compare_rounds(figures, others)
    library = peer.partition("-")[0]
    target = f"{least:g}x {library} (goal {goal:g}x)"
    return Row(
        name,
        value,
        "s" if first else "images/s",
        len(figures),
        std,
        target,
        decide(ratio, interval, least=least),
        library,
        peer_value,
        ratio,
        interval=interval,
        over="rounds, of the ratio",
        peer_std=peer_std,
        note=CACHED if ours == "falconet-photos" and not first else None,
    )


def run_feed(name: str, root: Path, *more: str) -> dict[str, float]:
    """Run one feed in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, str(SCRIPT), name, str(root), *more]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "FALCONET_CACHE": cache}
        )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(name, *more, {key: round(value, 3) for key, value in result.items()}, flush=True)
    return result


def measure_memory() -> list[Row]:
    """Take the peak resident memory of training epochs over many images, and over a quarter of them."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, str(SCRIPT), "make-images", scratch, "100000"], check=True)
        few = run_feed("falconet-memory", Path(scratch) / "quarter", "25000")["peak"]
        many = run_feed("falconet-memory", Path(scratch) / "all", "100000")["peak"]
    growth = many - few
    return [
        describe_memory("100,000 images of 128x128: peak memory", many, 1.2),
        describe_memory("the same: more than for 25,000", growth, 0.1),
    ]


def describe_memory(name: str, size: float, most: float) -> Row:
    """Return the row of one run's memory: one run has no interval, so that it shows no target to be met."""
    met = decide(size / 1e9, None, most=most)
    return Row(name, size / 1e9, "GB", 1, 0.0, f"under {most:g} GB", met, note="one run")


def check_sets(root: Path) -> list[Row]:
    """Read known sets and compare what was found with what is published about them."""
    rows = []
    for name, source, wanted in known_sets(root):
        found = describe(source)
        print(name, found if found == wanted else f"found {found}, wanted {wanted}", flush=True)
        right = float(found == wanted)
        rows.append(
            Row(f"{name}: counts and labels as published", right, "", 1, 0.0, "1", found == wanted,
                interval=(right, right))
        )  # fmt: skip
    return rows


def known_sets(root: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    """Return name, source, and what is in it: kind, classes, counts of training and test samples, and lengths."""
    binaries = Path(tempfile.mkdtemp(prefix="cifar-10-"))
    subprocess.run(
        [sys.executable, str(root / "cifar10" / "unpack.py"), str(binaries)], check=True, stdout=subprocess.DEVNULL
    )

    def facts(kind: str, classes: int, train: int, test: int, least: int | None = None) -> dict[str, Any]:
        return {"kind": kind, "classes": classes, "train": train, "test": test, "fewest_in_test": least}

    return [
        ("banking77", root / "banking77", facts("text", 77, 10_003, 3_080, 40)),
        ("GunPoint", root / "ucr" / "GunPoint_TRAIN.ts", facts("series", 2, 50, 150, 74)),
        ("ItalyPowerDemand", root / "ucr" / "ItalyPowerDemand_TRAIN.ts", facts("series", 2, 67, 1_029, 513)),
        ("spoken-digits", root / "spoken-digits", facts("series", 10, 300, 300, 30)),
        ("cifar10", binaries, facts("image", 10, 50_000, 10_000, 1_000)),
        ("sign-digits", root / "sign-digits", facts("image", 10, 2_062, 0, None)),
    ]


def describe(source: Path) -> dict[str, Any]:
    """Return what falconet finds in a source: its own splits, the made ones put back into train."""
    import numpy as np

    from falconet import load_dataset

    dataset = load_dataset(source)
    count = {name: len(split) for name, split in dataset.splits.items()}
    own = "test" not in dataset.made_splits
    fewest = int(np.bincount(dataset.splits["test"].labels).min()) if own else None
    return {
        "kind": dataset.kind,
        "classes": len(dataset.classes),
        "train": sum(value for name, value in count.items() if name != "test" or not own),
        "test": count["test"] if own else 0,
        "fewest_in_test": fewest,
    }


if __name__ == "__main__":
    main()
