"""The doctor: that it is silent about healthy recipes, and how much longer it makes the training of small networks."""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from noise import StepClock, train_on_noise
from record import Row, decide, mean, run_recipe, save, seed_interval

from falconet import LayerMonitor
from falconet.training.layer_monitor import MIN_STRIDE

RECIPES = (
    ("digits", "digits"),
    ("mnist", "mnist-fast"),
    ("mnist", "mnist-lenet5"),
    ("ucr/GunPoint_TRAIN.ts", "series-gru"),
    ("spoken-digits", "speech-gru"),
)
"""Source, which is a path below the data root where there is one, and recipe."""
NETWORKS = (("lenet300_100", 28, 64), ("lenet5", 32, 64), ("lenet_relu", 28, 64), ("resnet20", 32, 64))
"""Name, side in pixels and samples a batch."""
MOST = 3.0
"""Percent by which a step may take longer."""
STEPS = 1024
NEIGHBORS = 5
"""Steps before and behind one that is looked at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data-root", type=Path, required=True, help="folder that holds MNIST, ucr, spoken-digits, ..."
    )
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        save("doctor-cost", [measure_cost(*network) for network in NETWORKS])
        save("doctor-silence", [count_diagnoses(arguments.data_root, Path(arguments.out or scratch))])


def count_diagnoses(data_root: Path, out: Path) -> Row:
    """Train each recipe once, and count what the doctor says of all."""
    said = []
    for source, recipe in RECIPES:
        path = data_root / source
        (run,) = run_recipe(
            str(path) if path.exists() else source, recipe, (0,), out / recipe, "--data-root", str(data_root)
        )
        said += [f"{recipe}: {diagnosis['name']}" for diagnosis in run["diagnoses"]]
        print(recipe, run["diagnoses"], flush=True)
    name = f"what the doctor says of {len(RECIPES)} healthy recipes"
    return Row(name, len(said), "diagnoses", len(RECIPES), 0.0, "none", not said, interval=(len(said), len(said)),
               note="one run each")  # fmt: skip


def measure_cost(name: str, side: int, batch_size: int) -> Row:
    """Compare the seconds of steps that the doctor looks at with those of their neighbors, in one training.

    The machine's speed wanders from second to second, which neighbors share. Other steps cost nothing, and at least
    MIN_STRIDE lie between two, so that the share of all is at most that part of one.
    """
    layer_monitor, clock = LayerMonitor(), StepClock()
    train_on_noise(name, (1, side, side), batch_size, STEPS, [layer_monitor, clock])
    seconds = [end - begun for begun, end in itertools.pairwise(clock.ends)]
    # `seconds` begins with the second step.
    looked_at = [index for index in range(NEIGHBORS, len(seconds) - NEIGHBORS) if layer_monitor.is_due(index + 2)]
    longer = [seconds[index] / statistics.median(find_neighbors(seconds, index)) - 1 for index in looked_at]
    shares = [100 * share / MIN_STRIDE for share in longer]
    value, std = mean(shares)
    interval = seed_interval(shares)
    title = f"doctor, {name} at {side}x{side}, batches of {batch_size}: longer training, mean over steps looked at"
    met = decide(value, interval, most=MOST)
    return Row(title, value, "%", len(shares), std, f"at most {MOST:g} %", met, interval=interval, over="steps")


def find_neighbors(seconds: Sequence[float], index: int) -> list[float]:
    return [*seconds[index - NEIGHBORS : index], *seconds[index + 1 : index + 1 + NEIGHBORS]]


if __name__ == "__main__":
    main()
