"""Optimizers, losses and the weight average, as TrainConfig names them."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel

from falconet.training.config import TrainConfig

Criterion = Callable[[Tensor, Tensor], Tensor]


def make_optimizer(model: nn.Module, config: TrainConfig) -> optim.Optimizer:
    """Return the optimizer for all trainable parameters; only those of two or more dimensions decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True)
    kind = optim.Adam if config.optimizer == "adam" else optim.AdamW
    return kind(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)


def make_criterion(config: TrainConfig, label_smoothing: float) -> Criterion:
    """Return the loss of a batch: the mean over its samples."""
    if config.loss == "cross_entropy":
        return lambda logits, labels: F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return lambda logits, labels: brier_loss(logits, labels, label_smoothing)


def brier_loss(
    logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"], label_smoothing: float
) -> Float[Tensor, ""]:
    """Squared distance of the predicted probabilities to the smoothed one-hot label, summed over the classes."""
    classes = logits.shape[1]
    target = F.one_hot(labels, classes) * (1 - label_smoothing) + label_smoothing / classes
    return (logits.softmax(dim=1) - target).square().sum(dim=1).mean()


def make_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a model's weights and of its floating-point buffers.

    The decay rises as (1 + n) / (10 + n) to its value, so that the first steps are soon forgotten.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], count: Tensor | int) -> None:
        warm = min(decay, (1 + int(count)) / (10 + int(count)))
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, 1 - warm)
            else:
                average.copy_(current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
