"""The doctor: that it is silent about healthy recipes, and how much longer it makes the training of small networks."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from record import Row, mean, run_recipe, save

from falconet import Callback, Doctor, ImageSpec, Loader, Preprocess, TrainConfig, create_model, fit

RECIPES = (
    ("digits", "digits"),
    ("mnist", "mnist-fast"),
    ("mnist", "mnist-lenet5"),
    ("ucr/GunPoint_TRAIN.ts", "series-gru"),
    ("spoken-digits", "speech-gru"),
    ("banking77", "text-gru"),
)
"""Source, which is a path below the data root where there is one, and recipe."""
NETWORKS = (("lenet300_100", 28, 64), ("lenet5", 32, 64), ("lenet_relu", 28, 64), ("resnet20", 32, 64))
"""Name, side in pixels and samples a batch."""
MOST = 3.0
"""Percent by which a step may take longer."""
ROUNDS = 15
STEPS = 64


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
    return Row(name, len(said), "diagnoses", len(RECIPES), 0.0, "none", not said)


def measure_cost(name: str, side: int, batch_size: int) -> Row:
    """Train epochs of STEPS steps with and without the doctor, in turns; compare the seconds of their steps."""
    shares = []
    time_steps(name, side, batch_size, [Doctor()])  # Neither pays for what is done once.
    for _ in range(ROUNDS):
        plain = time_steps(name, side, batch_size, [])
        shares.append(100 * (time_steps(name, side, batch_size, [Doctor()]) / plain - 1))
    _, std = mean(shares)
    value = statistics.median(shares)
    title = f"doctor, {name} at {side}x{side}, batches of {batch_size}: longer training, median"
    return Row(title, value, "%", ROUNDS, std, f"at most {MOST:g} %", value <= MOST)


class StepClock(Callback):
    """Takes the time from the first step's end to the last one's."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, step: int, loss: float) -> None:
        self.ends.append(time.perf_counter())


def time_steps(name: str, side: int, batch_size: int, callbacks: Sequence[Callback]) -> float:
    """Return the seconds of an epoch's steps but the first, on random images."""
    preprocess = Preprocess(ImageSpec((1, side, side), tuple("0123456789"), (0.5,), (0.25,)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size * STEPS, 1, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (len(images),), generator=generator)
    train = Loader(images, labels, preprocess, batch_size, None, "shuffle")
    val = Loader(images[:batch_size], labels[:batch_size], preprocess, batch_size)
    model = create_model(name, num_classes=10, in_channels=1, input_size=side)
    clock = StepClock()
    fit(model, train, val, TrainConfig(epochs=1, batch_size=batch_size), callbacks=[*callbacks, clock])
    return clock.ends[-1] - clock.ends[0]


if __name__ == "__main__":
    main()
