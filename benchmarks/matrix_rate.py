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
from noise import LABELS, StepClock, train_on_noise

from falconet import summarize

SHAPE = (3, 32, 32)
BATCH_SIZE = 128
WARM_UP = 2
"""Steps that are not timed."""
PRODUCTS = 5
"""Of matrices, timed before the training and again after it."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--steps", type=int, default=10, help="that are timed")
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of the matrices")
    arguments = parser.parse_args()
    cost = summarize("resnet18", input_shape=SHAPE, num_classes=len(LABELS), stem="small")
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
    clock = StepClock()
    train_on_noise("resnet18", SHAPE, BATCH_SIZE, WARM_UP + count, [clock], precision, stem="small")
    return [end - begun for begun, end in itertools.pairwise(clock.ends[WARM_UP - 1 :])]


if __name__ == "__main__":
    main()
