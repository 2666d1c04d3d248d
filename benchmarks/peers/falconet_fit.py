"""Falconet: `fit` with the defaults of TrainConfig but the precision, on a Loader without augmentation.

`fit` cannot do without validation; it gets a single batch, and the time of that counts.
"""

from __future__ import annotations

from typing import Any

import torch
from task import MEAN, STD, EpochClock, answer, read_split, read_task
from torch_network import count_params

from falconet import Callback, ImagePreprocess, ImageSpec, Loader, TrainConfig, create_model, fit


class Watch(Callback):
    """Tells the clock that an epoch has ended."""

    def __init__(self, clock: EpochClock) -> None:
        self.clock = clock

    def on_epoch(self, row: Any, best: bool) -> None:
        self.clock.end_epoch()


def main() -> None:
    task = read_task(__doc__)
    torch.manual_seed(task.seed)
    config = TrainConfig(
        epochs=task.epochs,
        batch_size=task.batch_size,
        precision=task.precision,  # type: ignore[arg-type]  # checked by TrainConfig
        seed=task.seed,
    )
    preprocess = ImagePreprocess(ImageSpec((1, 28, 28), (MEAN,), (STD,)))
    images, labels = (torch.from_numpy(values) for values in read_split(task, "train"))
    train = Loader(images[:, None], labels, preprocess, task.batch_size, None, "shuffle", task.seed)
    clock = EpochClock(len(labels))
    images, labels = (torch.from_numpy(values[: task.batch_size]) for values in read_split(task, "test"))
    val = Loader(images[:, None], labels, preprocess, task.batch_size)
    model = create_model("lenet_relu", num_classes=10, in_channels=1, input_size=28)
    fit(model, train, val, config, callbacks=[Watch(clock)])
    answer("falconet", count_params(model), clock)


if __name__ == "__main__":
    main()
