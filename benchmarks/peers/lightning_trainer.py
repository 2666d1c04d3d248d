"""Lightning: a Trainer without logger, checkpoints and bars, on a DataLoader with two workers that stay alive.

It feeds on tensors in memory.
"""

from __future__ import annotations

import lightning  # type: ignore[import-not-found]
import torch
import torch.nn.functional as F
from task import EpochClock, answer, normalize, read_split, read_task
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch_network import build, count_params


class Classifier(lightning.LightningModule):  # type: ignore[misc]
    """The network, how it learns, and a word to the clock at each epoch's end."""

    def __init__(self, clock: EpochClock) -> None:
        super().__init__()
        self.network = build()
        self.clock = clock

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_train_epoch_end(self) -> None:
        self.clock.end_epoch()


def main() -> None:
    task = read_task(__doc__)
    lightning.seed_everything(task.seed)
    images, labels = read_split(task, "train")
    train_set = TensorDataset(torch.from_numpy(normalize(images)), torch.from_numpy(labels))
    loader = DataLoader(train_set, task.batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    clock = EpochClock(len(train_set))
    model = Classifier(clock)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=task.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader)
    answer(f"Lightning {lightning.__version__}", count_params(model), clock)


if __name__ == "__main__":
    main()
