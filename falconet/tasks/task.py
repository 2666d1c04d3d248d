"""Task: what all parts of Falconet must know of what is predicted for a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from falconet.data import Dataset
from falconet.spec import OutputSpec, TaskName

if TYPE_CHECKING:
    from torch import Tensor

    from falconet.tasks.losses import Loss, LossConfig


@dataclass(frozen=True)
class Task:
    """A task: what is predicted for a sample."""

    name: TaskName
    output_type: type[OutputSpec]
    """Class of the output spec: what the outputs of a network mean."""
    make_output: Callable[[Dataset], OutputSpec]
    """Returns the output spec of a network that is trained on a data set."""
    make_loss: Callable[[LossConfig, Tensor | None], Loss]
    """Returns the loss of a training batch, given settings and class weights."""
    make_validation_loss: Callable[[LossConfig], Loss]
    """Returns the validation loss, by which epochs are compared, given settings."""
    activate: Callable[[Tensor], Tensor]
    """Turns a network's outputs into predictions, `(samples, outputs)`: for a classifier, probabilities."""
    count_hits: Callable[[Tensor, Tensor], int]
    """Counts the correct predictions, given a network's outputs and the targets."""
