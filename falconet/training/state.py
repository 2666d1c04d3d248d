"""The state of training, and its conversion to a checkpoint and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from falconet.errors import ConfigError
from falconet.renames import ignore, rename_section, split_momentum
from falconet.schema import to_mapping
from falconet.training.callbacks import EpochRow
from falconet.training.checkpoints import Checkpoint
from falconet.training.config import TrainConfig
from falconet.training.devices import DevicePolicy

_Weights = dict[str, Tensor]
Forward = Callable[[Tensor], Any]
"""A network, or a function that computes the same."""


@runtime_checkable
class TracksProgress(Protocol):
    """A network that changes during training, such as one whose weights are pruned step by step."""

    def advance(self, fraction: float) -> None:
        """Called before each step with the fraction of all steps that are done once it is taken, 0 to 1."""


@dataclass
class Progress:
    """Steps of the current epoch so far, and the sums for its row."""

    steps: int = 0
    loss: float = 0.0
    hits: int = 0
    samples: int = 0

    def update(self, loss: float, hits: int, samples: int) -> None:
        """Add a step: its mean loss, number of correct predictions, and number of samples."""
        self.steps += 1
        self.loss += loss * samples
        self.hits += hits
        self.samples += samples


@dataclass
class TrainState:
    """Everything that changes from step to step."""

    model: nn.Module
    optimizer: Optimizer
    ema_model: AveragedModel | None
    best_weights: _Weights
    best_epoch: int = 0
    history: list[EpochRow] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    lr_scale: float = 1.0
    """Factor of all learning rates, halved at each rollback after a loss that is not finite."""
    last_good: Checkpoint | None = None
    """State for a rollback, with `recover`; None: there is none."""
    wrapped_model: nn.Module | None = None
    """The model in training: wrapped in DistributedDataParallel where there are several processes."""
    compiled_model: Forward | None = None
    """The compiled wrapped model, with `compile`; None: it is not compiled."""
    trainable_mask: list[bool] = field(default_factory=list)
    """Whether each parameter required gradients when the model was wrapped."""
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    rng_state: Mapping[str, Tensor] = field(default_factory=dict)
    """States of torch's generators, which dropout uses, where an epoch is resumed; empty elsewhere."""

    @property
    def eval_model(self) -> nn.Module:
        """The module that is validated and kept: the weight average where there is one."""
        return self.model if self.ema_model is None else self.ema_model.module


def clone(weights: Mapping[str, Tensor]) -> _Weights:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def make_checkpoint(state: TrainState, identity: dict[str, Any], policy: DevicePolicy) -> Checkpoint:
    """Return a state as a checkpoint: tensors and JSON values."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best_weights.items()}
    if state.ema_model is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in state.ema_model.state_dict().items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in slots.items() if tensor is not None}
    if state.progress.steps:
        tensors |= {f"draws.{name}": tensor for name, tensor in policy.get_rng_state().items()}
    if state.progress.steps and state.last_good is not None:
        tensors |= {f"good.{name}": tensor for name, tensor in state.last_good.tensors.items()}
    facts = {
        "run": identity,
        "best_epoch": state.best_epoch,
        "history": [dataclasses.asdict(row) for row in state.history],
        "progress": dataclasses.asdict(state.progress),
        "rate": state.lr_scale,
        "scaler": state.scaler.state_dict(),
        "good": dict(state.last_good.facts) if state.progress.steps and state.last_good is not None else None,
    }
    return Checkpoint(tensors, facts)


def restore(state: TrainState, checkpoint: Checkpoint | None, identity: dict[str, Any]) -> None:
    """Restore a checkpoint; do nothing where there is none. Raises ConfigError for that of another run."""
    if checkpoint is None:
        return
    # Settings that an older checkpoint lacks had today's defaults.
    run = split_momentum(rename_section("training", checkpoint.facts["run"], ignore), ignore)
    before = to_mapping({**vars(TrainConfig()), **run})
    for key, value in identity.items():
        if before.get(key) != value:
            raise ConfigError(f"checkpoint: wanted one with {key}={value}, found {key}={before.get(key)}; remove it")
    parts: dict[str, _Weights] = {"model": {}, "best": {}, "average": {}, "optimizer": {}, "draws": {}, "good": {}}
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    state.model.load_state_dict(parts["model"])
    if state.ema_model is not None:
        state.ema_model.load_state_dict(parts["average"])
    _restore_optimizer(state.optimizer, parts["optimizer"])
    state.best_weights = clone(parts["best"])
    state.best_epoch = checkpoint.facts["best_epoch"]
    state.history = [EpochRow(**row) for row in checkpoint.facts["history"]]
    state.progress = Progress(**checkpoint.facts["progress"])
    state.lr_scale = checkpoint.facts["rate"]
    if checkpoint.facts["good"] is not None:
        state.last_good = Checkpoint(parts["good"], checkpoint.facts["good"])
    state.rng_state = parts["draws"]
    state.scaler.load_state_dict(checkpoint.facts["scaler"])


def _restore_optimizer(optimizer: Optimizer, tensors: _Weights) -> None:
    """Restore an optimizer's moments, each with its parameter's memory layout."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, _Weights] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        parameter = parameters[int(index)]
        # Fused optimizers go through both in memory order: another layout would pair up the wrong elements.
        fitting = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        slots.setdefault(int(index), {})[slot] = fitting
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
