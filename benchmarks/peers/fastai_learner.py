"""fastai: `Learner.fit` on DataLoaders of tensors in memory, with fastai's own number of workers.

`fit` cannot do without validation; it gets a single batch, and the time of that counts.
"""

from __future__ import annotations

import fastai  # type: ignore[import-not-found]
import torch
from fastai.callback.core import Callback  # type: ignore[import-not-found]
from fastai.data.core import DataLoaders  # type: ignore[import-not-found]
from fastai.learner import Learner  # type: ignore[import-not-found]
from fastai.losses import CrossEntropyLossFlat  # type: ignore[import-not-found]
from task import EpochClock, answer, normalize, read_split, read_task
from torch.utils.data import TensorDataset
from torch_network import build, count_params


class Watch(Callback):  # type: ignore[misc]
    """Tells the clock that an epoch has ended."""

    def __init__(self, clock: EpochClock) -> None:
        super().__init__()
        self.clock = clock

    def after_epoch(self) -> None:
        self.clock.end_epoch()


def main() -> None:
    task = read_task(__doc__)
    torch.manual_seed(task.seed)
    images, labels = read_split(task, "train")
    train_set = TensorDataset(torch.from_numpy(normalize(images)), torch.from_numpy(labels))
    images, labels = (values[: task.batch_size] for values in read_split(task, "test"))
    valid_set = TensorDataset(torch.from_numpy(normalize(images)), torch.from_numpy(labels))
    loaders = DataLoaders.from_dsets(train_set, valid_set, bs=task.batch_size, device="cpu")
    model = build()
    # What fills no batch is dropped.
    clock = EpochClock(len(loaders.train) * task.batch_size)
    learner = Learner(loaders, model, loss_func=CrossEntropyLossFlat(), cbs=[Watch(clock)])
    learner.fit(task.epochs, lr=1e-3)
    answer(f"fastai {fastai.__version__}", count_params(model), clock)


if __name__ == "__main__":
    main()
