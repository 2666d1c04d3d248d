"""Callbacks of a training run. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from falconet.errors import UsageError

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
    """An observer of a run: override the methods that are needed. None of them may change the run."""

    hooked: bool = False
    """Whether the callback has hooks in the network for the next forward pass, which is then not compiled."""

    def on_model(self, model: nn.Module) -> None:
        """Called once before `on_start`, with the network to be trained, in the state in which the run begins."""

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        """Called once before the first step; `history` holds the earlier epochs of a resumed run."""

    def on_note(self, line: str) -> None:
        """Called with each line that the user should know, before the start or during the run."""

    def on_batch(self, step: int) -> None:
        """Called before the forward pass of each step, counted from 1."""

    def on_gradients(self, step: int) -> None:
        """Called in each step, counted from 1, between the backward pass and the weight update."""

    def on_step(self, step: int, loss: float) -> None:
        """Called after each step, counted from 1."""

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        """Called after each epoch's validation; `best`: no earlier epoch was better or as good."""

    def on_end(self) -> None:
        """Called once, however the run ended."""


def list_callbacks(given: object) -> tuple[Callback, ...]:
    """Return the callbacks that a run was given. Raises UsageError for one alone, and for what is none."""
    wanted = "callbacks: wanted a list of callbacks"
    if isinstance(given, Callback) or (isinstance(given, type) and issubclass(given, Callback)):
        name = given.__name__ if isinstance(given, type) else type(given).__name__
        raise UsageError(f"{wanted}, found {name} alone; give [{name}()]")
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise UsageError(f"{wanted}, found {type(given).__name__}; give objects of falconet.Callback in a list")
    callbacks = tuple(given)
    for callback in callbacks:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise UsageError(f"{wanted}, found the class {callback.__name__} in it; give {callback.__name__}()")
        if not isinstance(callback, Callback):
            found = type(callback).__name__
            raise UsageError(f"{wanted}, found {found} in it; derive its class from falconet.Callback")
    return callbacks
