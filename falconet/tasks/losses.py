"""Losses of classifiers, and the weights of their classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from falconet.models.layers import COSINE_SCALE

Loss = Callable[[Tensor, Tensor], Tensor]
"""Loss function: the mean over a batch, given a network's outputs and the targets."""


@runtime_checkable
class LossConfig(Protocol):
    """Settings of losses, which a TrainConfig has."""

    @property
    def loss(self) -> str: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def margin(self) -> float: ...
    @property
    def cross_entropy_weight(self) -> float: ...
    @property
    def class_weights(self) -> str | None: ...
    @property
    def effective_beta(self) -> float: ...


def make_loss(config: LossConfig, class_weights: Tensor | None = None) -> Loss:
    """Return the loss of a training batch: the mean over its samples, each weighted as its class.

    Labels are class numbers, or soft labels where samples are mixed.
    """
    return _choose_loss(config.loss, config, config.label_smoothing, class_weights)


def make_validation_loss(config: LossConfig) -> Loss:
    """Return the loss of a validation batch: without smoothing, weights and margins."""
    name = config.loss if config.loss in ("brier", "cosine") else "cross_entropy"
    return _choose_loss(name, config, smoothing=0.0)


def _choose_loss(name: str, config: LossConfig, smoothing: float, class_weights: Tensor | None = None) -> Loss:
    """Return the loss of this name."""
    if name == "brier":
        return lambda logits, labels: brier_loss(logits, labels, smoothing, class_weights)
    if name == "cosine":
        return lambda logits, labels: cosine_loss(logits, labels, config.cross_entropy_weight, smoothing, class_weights)
    if name == "cross_entropy":
        return lambda logits, labels: _weighted_cross_entropy(logits, labels, smoothing, class_weights)
    take = cosface_logits if name == "cosface" else arcface_logits
    return lambda logits, labels: _weighted_cross_entropy(
        take(logits, labels, config.margin), labels, smoothing, class_weights
    )


def cosface_logits(
    logits: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"],
    margin: float,
) -> Float[Tensor, "batch classes"]:
    """Lower the true class's cosine by a margin (Wang et al.: CosFace. CVPR, 2018, equation 4)."""
    return logits - COSINE_SCALE * margin * _to_soft_labels(labels, logits)


def arcface_logits(
    logits: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"],
    margin: float,
) -> Float[Tensor, "batch classes"]:
    """Widen the angle to the true class by a margin in radians (Deng et al.: ArcFace. CVPR, 2019, equation 3).

    Angles that would pass pi, where the cosine rises again, stay there.
    """
    # The derivative of the arc cosine is infinite at both ends.
    cosine = (logits / COSINE_SCALE).clamp(-1 + 1e-6, 1 - 1e-6)
    widened = torch.cos((cosine.acos() + margin).clamp(max=math.pi))
    return COSINE_SCALE * torch.lerp(cosine, widened, _to_soft_labels(labels, logits))


def _to_soft_labels(
    labels: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"], logits: Float[Tensor, "batch classes"]
) -> Float[Tensor, "batch classes"]:
    """Return labels as soft labels."""
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype) if labels.ndim == 1 else labels


def compute_class_weights(
    labels: Int64[Tensor, " samples"], num_classes: int, config: LossConfig
) -> Float[Tensor, " classes"] | None:
    """Return the weight of each class in the loss, as `config.class_weights` says; None where all weigh the same."""
    if config.class_weights is None:
        return None
    if config.class_weights == "effective":
        return effective_class_weights(labels, num_classes, config.effective_beta)
    return balanced_class_weights(labels, num_classes)


def balanced_class_weights(labels: Int64[Tensor, " samples"], num_classes: int) -> Float[Tensor, " classes"]:
    """Return n / (classes * samples of the class) for each class, as scikit-learn's `balanced`; 0 for an absent one."""
    counts = torch.bincount(labels, minlength=num_classes).double()
    weights = torch.where(counts > 0, len(labels) / (int((counts > 0).sum()) * counts), 0.0)
    return weights.float()


def effective_class_weights(
    labels: Int64[Tensor, " samples"], num_classes: int, beta: float
) -> Float[Tensor, " classes"]:
    """Return (1 - beta) / (1 - beta^n) for a class of n samples, scaled to a mean of 1; 0 for an absent class.

    Cui et al.: Class-balanced loss based on effective number of samples. CVPR, 2019, equation 3 and section 4.1.
    """
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = counts > 0
    # 1 - beta^n, without cancellation where beta is near 1.
    covered = -torch.expm1(counts * math.log(beta)) if beta else torch.ones_like(counts)
    weights = torch.where(present, 1 / covered, 0.0)
    return (weights * int(present.sum()) / weights.sum()).float()


def _weighted_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"],
    label_smoothing: float,
    class_weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy as torch has it, but divided by the sum of weights for soft labels too."""
    loss = F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)
    if class_weights is None or labels.ndim == 1:
        return loss
    return loss * len(labels) / (labels @ class_weights).sum()


def brier_loss(
    logits: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"],
    label_smoothing: float,
    class_weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """Squared distance of the predicted probabilities to the smoothed one-hot label, summed over the classes."""
    classes = logits.shape[1]
    soft_labels = _to_soft_labels(labels, logits)
    target = soft_labels * (1 - label_smoothing) + label_smoothing / classes
    losses = (logits.softmax(dim=1) - target).square().sum(dim=1)
    if class_weights is None:
        return losses.mean()
    weights = soft_labels @ class_weights
    return (losses * weights).sum() / weights.sum()


def cosine_loss(
    logits: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"],
    cross_entropy_weight: float,
    label_smoothing: float = 0.0,
    class_weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """1 less the cosine between logits and label, plus a part of cross-entropy (Barz, Denzler 2020, equations 4, 6).

    The cosine bounds the gradient of any sample and leaves the length of the logits free, which the cross-entropy then
    settles. The paper takes that of a dense layer of its own after the logits; here it is that of the logits, so that
    a model stays one network whose softmax is its answer.
    """
    soft_labels = _to_soft_labels(labels, logits)
    target = soft_labels * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    distances = 1 - (F.normalize(logits) * F.normalize(target)).sum(dim=1)
    weights = None if class_weights is None else soft_labels @ class_weights
    distance = distances.mean() if weights is None else (distances * weights).sum() / weights.sum()
    if not cross_entropy_weight:
        return distance
    return distance + cross_entropy_weight * _weighted_cross_entropy(logits, labels, label_smoothing, class_weights)
