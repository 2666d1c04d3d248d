"""How fast a training step of ResNet-18 computes, and how fast this machine multiplies large matrices, in one format.

Prints one line of JSON with both rates, in operations a second. A multiply-accumulate is two operations, and a training
step is three forward passes: the backward pass takes two gradients for each product.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import Literal

import torch

from falconet import Callback, ImageSpec, Loader, Preprocess, TrainConfig, create_model, fit, summarize

BATCH_SIZE, SIDE, CLASSES = 128, 32, 10
WARM_UP = 2
"""Steps that are not timed."""
PRODUCTS = 5
"""Of matrices, timed before the training and again after it."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class StepClock(Callback):
    """Takes the time at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, step: int, loss: float) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--steps", type=int, default=10, help="that are timed")
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of the matrices")
    arguments = parser.parse_args()
    cost = summarize("resnet18", input_shape=(3, SIDE, SIDE), num_classes=CLASSES, stem="small")
    products = time_products(arguments.side, DTYPES[arguments.precision])
    steps = time_steps(arguments.precision, arguments.steps)
    products += time_products(arguments.side, DTYPES[arguments.precision])
    result = {
        "step": 3 * 2 * cost.macs * BATCH_SIZE / statistics.median(steps),
        "product": 2 * arguments.side**3 / statistics.median(products),
        "params": cost.params,
        "macs": cost.macs,
    }
    print(json.dumps(result))


def time_products(side: int, dtype: torch.dtype) -> list[float]:
    """Return the seconds of single products of square matrices, after one that is not timed."""
    left, right = (torch.randn(side, side).to(dtype) for _ in range(2))
    out = torch.mm(left, right)
    seconds = []
    for _ in range(PRODUCTS):
        begun = time.perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(time.perf_counter() - begun)
    return seconds


def time_steps(precision: Literal["fp32", "bf16"], count: int) -> list[float]:
    """Return the seconds of training steps, each from the end of the one before it, on random images."""
    preprocess = Preprocess(ImageSpec((3, SIDE, SIDE), tuple("0123456789"), (0.5,) * 3, (0.25,) * 3))
    images = torch.randint(256, (BATCH_SIZE * (WARM_UP + count), 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.randint(CLASSES, (len(images),))
    train = Loader(images, labels, preprocess, BATCH_SIZE, None, "shuffle")
    val = Loader(images[:BATCH_SIZE], labels[:BATCH_SIZE], preprocess, BATCH_SIZE)
    model = create_model("resnet18", num_classes=CLASSES, in_channels=3, input_size=SIDE, stem="small")
    clock = StepClock()
    fit(model, train, val, TrainConfig(epochs=1, batch_size=BATCH_SIZE, precision=precision), callbacks=[clock])
    return [end - begun for begun, end in itertools.pairwise(clock.ends[WARM_UP - 1 :])]


if __name__ == "__main__":
    main()
