"""What may watch a run. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class EpochRow:
    """One row of `metrics.csv`. Accuracies are fractions of 0 to 1, losses means over samples."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


class Callback:
    """What may watch a run; override what is wanted. Nothing here may change the run."""

    hooked: bool = False
    """Whether hooks of it wait in the network for the next forward pass, which is then not a compiled one."""

    def on_model(self, model: nn.Module) -> None:
        """Called once before `on_start`, with the network that is trained, in the state that the run begins with."""

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        """Called once; `history` holds the epochs that a resumed run had before."""

    def on_note(self, line: str) -> None:
        """Called before the start, with each thing about the network that the user should know."""

    def on_batch(self, step: int) -> None:
        """Called before the forward pass of each step, counted from 1."""

    def on_gradients(self, step: int) -> None:
        """Called in each step, counted from 1, between the backward pass and the change of the weights."""

    def on_step(self, step: int, loss: float) -> None:
        """Called after each step, counted from 1."""

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        """Called after each epoch's validation; `best` where none was better before."""

    def on_end(self) -> None:
        """Called once, however the run ended."""
