"""Optimizers and the weight average, as TrainConfig names them."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel

from falconet.training.config import TrainConfig
from falconet.training.finetuning import scale_rates


class Eager:
    """Methods of torch's optimizers without the wrappers that only `torch.compile` needs.

    Torch wraps each so that the compiler skips it, and the first call of a wrapper imports torch._dynamo, with half of
    torch and sympy: seconds before the first step. Falconet compiles networks, never an optimizer. Where a version of
    torch wraps nothing, these are the original methods.
    """

    add_param_group: Any = inspect.unwrap(optim.Optimizer.add_param_group)
    state_dict: Any = inspect.unwrap(optim.Optimizer.state_dict)
    load_state_dict: Any = inspect.unwrap(optim.Optimizer.load_state_dict)
    zero_grad: Any = inspect.unwrap(optim.Optimizer.zero_grad)


class SGD(Eager, optim.SGD):
    """torch.optim.SGD without wrappers for the compiler; see `Eager`."""

    step: Any = torch.no_grad()(inspect.unwrap(optim.SGD.step))


class Adam(Eager, optim.Adam):
    """torch.optim.Adam without wrappers for the compiler; see `Eager`."""

    step: Any = torch.no_grad()(inspect.unwrap(optim.Adam.step))


class AdamW(Eager, optim.AdamW):
    """torch.optim.AdamW without wrappers for the compiler; see `Eager`."""

    step: Any = torch.no_grad()(inspect.unwrap(optim.AdamW.step))


def make_optimizer(model: nn.Module, config: TrainConfig) -> optim.Optimizer:
    """Return the optimizer of all trainable parameters; only those of two or more dimensions have weight decay.

    Each group's `scale` is the factor of its learning rate.
    """
    found: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter, scale in scale_rates(model, config.layer_decay):
        if parameter.requires_grad:
            found.setdefault((parameter.ndim < 2, scale), []).append(parameter)
    groups = [
        {"params": found[key], "weight_decay": 0.0 if key[0] else config.weight_decay, "scale": key[1]}
        for key in sorted(found)
    ]
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True)
    kind = Adam if config.optimizer == "adam" else AdamW
    return kind(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a model's weights and of its floating-point buffers.

    The decay after n updates is at most (1 + n) / (10 + n), so that the first steps are soon forgotten.
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
