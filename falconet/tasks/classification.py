"""Classification: a sample is of one class of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float, Int64

from falconet.data import Dataset
from falconet.spec import ClassificationSpec
from falconet.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from falconet.tasks.losses import Loss, LossConfig


def make_output(dataset: Dataset) -> ClassificationSpec:
    """Return the classes of a data set, in its order."""
    return ClassificationSpec(dataset.classes)


def _make_loss(config: LossConfig, class_weights: Tensor | None) -> Loss:
    """Return the loss of a training batch; see `falconet.tasks.losses`."""
    from falconet.tasks import losses

    return losses.make_loss(config, class_weights)


def _make_validation_loss(config: LossConfig) -> Loss:
    """Return the loss of a validation batch; see `falconet.tasks.losses`."""
    from falconet.tasks import losses

    return losses.make_validation_loss(config)


def activate(logits: Float[Tensor, "samples classes"]) -> Float[Tensor, "samples classes"]:
    """Return probabilities."""
    return logits.softmax(dim=1)


def _count_hits(
    logits: Float[Tensor, "samples classes"], labels: Int64[Tensor, " samples"] | Float[Tensor, "samples classes"]
) -> int:
    """Return how many samples are of the class with the highest logit; a mixed sample is of that it has most of."""
    truth = labels if labels.ndim == 1 else labels.argmax(dim=1)
    return int((logits.argmax(dim=1) == truth).sum())


CLASSIFICATION = Task(
    name="classification",
    output_type=ClassificationSpec,
    make_output=make_output,
    make_loss=_make_loss,
    make_validation_loss=_make_validation_loss,
    activate=activate,
    count_hits=_count_hits,
)
