"""Task: what all parts of Falconet must know of what is asked about a sample."""

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
    """What is asked about a sample."""

    name: TaskName
    output_type: type[OutputSpec]
    """What is written down about the meaning of outputs."""
    make_output: Callable[[Dataset], OutputSpec]
    """From a data set to what the outputs of a network that learns from it mean."""
    make_loss: Callable[[LossConfig, Tensor | None], Loss]
    """From how a network is trained, and weights of classes, to the loss of a training batch."""
    make_validation_loss: Callable[[LossConfig], Loss]
    """From how a network is trained to the loss by which epochs are compared."""
    activate: Callable[[Tensor], Tensor]
    """From a network's outputs to its answer, `(samples, outputs)`: of a classifier probabilities."""
    count_hits: Callable[[Tensor, Tensor], int]
    """From a network's outputs and the targets to how many answers are right."""
