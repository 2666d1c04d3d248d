"""Training on random images, for programs that ask what a step costs and not what it learns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import torch

from falconet import Callback, ImagePreprocess, ImageSpec, Loader, TrainConfig, create_model, fit

LABELS = tuple("0123456789")


class StepClock(Callback):
    """Takes the time at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, step: int, loss: float) -> None:
        self.ends.append(time.perf_counter())


def train_on_noise(
    name: str,
    shape: tuple[int, int, int],
    batch_size: int,
    steps: int,
    callbacks: Sequence[Callback],
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    **options: Any,
) -> None:
    """Train a network of the registry for one epoch of `steps` steps on images of `(channels, height, width)`."""
    channels, height, _ = shape
    preprocess = ImagePreprocess(ImageSpec(shape, (0.5,) * channels, (0.25,) * channels))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size * steps, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(len(LABELS), (len(images),), generator=generator)
    train = Loader(images, labels, preprocess, batch_size, None, "shuffle")
    val = Loader(images[:batch_size], labels[:batch_size], preprocess, batch_size)
    model = create_model(name, num_classes=len(LABELS), in_channels=channels, input_size=height, **options)
    fit(model, train, val, TrainConfig(epochs=1, batch_size=batch_size, precision=precision), callbacks=callbacks)
