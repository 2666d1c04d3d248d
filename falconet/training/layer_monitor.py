"""LayerMonitor: a callback that samples gradients, updates and dead units of each layer during training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from falconet.training.callbacks import Callback, EpochRow
from falconet.training.diagnoses import LayerStats

_MAX_STRIDE, MIN_STRIDE = 32, 16
"""Largest and smallest number of steps between samples; `benchmarks/doctor.py` measures their cost."""
_SAMPLES_PER_EPOCH = 4
"""Sampled steps to aim at in a short epoch; the shortest have only their first step sampled."""
_LARGEST = 1 << 16
"""Values of a weight that are looked at, at most: larger ones have rows skipped, since copying all of AlexNet's weights
takes as long as a step."""
_LOOKED_AT = 32
"""Samples of a batch of feature maps that are looked at, up to twice as many where they do not divide evenly. With all
64 of them, a sampled step of ResNet-20 took half as long again."""


@dataclass
class _Tally:
    """Statistics of one layer over an epoch's sampled steps so far."""

    samples: int = 0
    gradients: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    activations: list[float] = field(default_factory=list)
    units: int = 0
    """Number of units into which the features of the layer's input are grouped."""
    alive: Bool[Tensor, " features"] | None = None
    """Mask of the input's features that were not zero for some sample; None: not evaluated."""

    def summarize(self, epoch: int, layer: str) -> LayerStats:
        """Return the epoch's row."""
        dead = math.nan
        if self.alive is not None:
            dead = 1 - float(self.alive.view(self.units, -1).any(dim=1).float().mean())
        gradient, update, activation = map(mean, (self.gradients, self.updates, self.activations))
        return LayerStats(epoch, layer, self.samples, gradient, update, activation, dead)


class LayerMonitor(Callback):
    """Samples gradients, updates, activations and dead units of each layer with weights; changes nothing in the run.

    A layer is a module with parameters of two or more dimensions of its own and none within it. A unit is dead
    when the layer after it gets exactly zero from it for all samples and positions of all sampled steps of an epoch:
    functions such as `F.relu` are no modules, but their output is a layer's input. Inputs that no weight before could
    have changed, such as the network's own, are not evaluated.

    `layer_stats` are those of the earlier epochs of a resumed run; new ones are appended.
    """

    def __init__(self, layer_stats: Sequence[LayerStats] = ()) -> None:
        self.layer_stats: tuple[LayerStats, ...] = tuple(layer_stats)
        """A row for each epoch and layer; once the run has ended, also for an epoch that was broken off."""
        self.layers: dict[str, nn.Module] = {}
        self.hooks: list[RemovableHandle] = []
        self.tallies: dict[str, _Tally] = {}
        self.weights: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.channels = 0
        self.step = 0
        self.epoch = 1
        self.stride = _MAX_STRIDE

    def on_model(self, model: nn.Module) -> None:
        self.layers = _find_layers(model)

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        # A run may have been killed after rows were written that its checkpoint does not have.
        self.layer_stats = tuple(row for row in self.layer_stats if row.epoch <= len(history))
        self.stride = choose_stride(steps_per_epoch)
        self.epoch, self.step, self.tallies = len(history) + 1, 0, {}

    def on_batch(self, step: int) -> None:
        if step <= self.step:
            # What was seen belongs to steps that are taken anew.
            self.tallies = {}
        self.step = step
        if self.is_due(step):
            self.watch()

    def on_gradients(self, step: int) -> None:
        if not self.hooked:
            return
        self.unwatch()
        for name, layer in self.layers.items():
            learning = [weight for weight in _own_weights(layer) if weight.grad is not None]
            if learning:
                weights = [_thin(weight.detach()) for weight in learning]
                gradients = [_thin(weight.grad) for weight in learning if weight.grad is not None]
                self.tallies.setdefault(name, _Tally()).gradients.append(_divide(norm(gradients), norm(weights)))
                self.weights[name] = [(weight, weight.clone()) for weight in weights]

    def on_step(self, step: int, loss: float) -> None:
        for name, pairs in self.weights.items():
            change = norm(weight - before for weight, before in pairs)
            self.tallies[name].updates.append(_divide(change, norm(before for _, before in pairs)))
        self.weights = {}

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        self.close_epoch()
        self.epoch = row.epoch + 1

    def on_end(self) -> None:
        self.close_epoch()
        self.unwatch()
        self.layers, self.weights = {}, {}

    def is_due(self, step: int) -> bool:
        """Return whether a step, counted from 1, is sampled."""
        return (step - 1) % self.stride == 0

    def close_epoch(self) -> None:
        """Turn an epoch's tallies into rows."""
        self.layer_stats += tuple(tally.summarize(self.epoch, layer) for layer, tally in self.tallies.items())
        self.tallies = {}

    def watch(self) -> None:
        """Add hooks that look at the layers' inputs and outputs in the next step."""
        # A loss that was not finite may have ended the last step early.
        self.unwatch()
        self.channels, self.hooked = 0, True
        self.hooks = [layer.register_forward_hook(partial(self.look, name)) for name, layer in self.layers.items()]

    def unwatch(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks, self.hooked = [], False

    @torch.no_grad()
    def look(self, name: str, layer: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        """Record a layer's input and output; a hook of `nn.Module`."""
        if not layer.training:
            return
        tally = self.tallies.setdefault(name, _Tally())
        given, made = (_thin_images(_find_tensor(values)) for values in (inputs, outputs))
        if made is not None and made.is_floating_point():
            tally.activations.append(_finite(norm([made]) / math.sqrt(max(made.numel(), 1))))
        if given is not None:
            tally.samples += len(given)
            if given.is_floating_point() and given.requires_grad:
                _evaluate_units(tally, given, _find_axis(layer, given), self.channels)
        self.channels = layer.out_channels if isinstance(layer, _ConvNd) else 0


def _evaluate_units(tally: _Tally, given: Tensor, axis: int, channels: int) -> None:
    """Add an input to the mask of a layer's units that are not dead; units lie along `axis`.

    A dense layer after a convolution of `channels` channels sees each of them at several positions, channel by channel;
    these are one unit. So positions that are always zero, such as corners, do not count as dead.
    """
    rows = given.detach().movedim(axis, -1)
    alive = rows.reshape(-1, rows.shape[-1]).ne(0).any(dim=0)
    tally.alive = alive if tally.alive is None else tally.alive | alive
    grouped = axis == -1 and channels > 0 and len(alive) % channels == 0
    tally.units = tally.units or (channels if grouped else len(alive))


def choose_stride(steps_per_epoch: int) -> int:
    """Return the number of steps from one sampled step to the next: each epoch has at least one."""
    stride = min(max(steps_per_epoch // _SAMPLES_PER_EPOCH, MIN_STRIDE), _MAX_STRIDE)
    return min(stride, steps_per_epoch)


def _find_axis(layer: nn.Module, given: Tensor) -> int:
    """Return the axis of an input's channels: after the batch for layers over images, else the last one."""
    over_images = isinstance(layer, _ConvNd) or (given.ndim > 3 and not isinstance(layer, nn.Linear))
    return 1 if over_images else -1


def _find_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a network by name; a network that is a single layer has the name of its class.

    Attention counts although it has a module within it, which it does not call.
    """
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if _own_weights(module) and (isinstance(module, nn.MultiheadAttention) or not any(module.children()))
    }


def _own_weights(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters(recurse=False) if parameter.ndim > 1]


def _thin_images(values: Tensor | None) -> Tensor | None:
    """Return a view of samples of a batch of images, _LOOKED_AT or more where it has them; other tensors unchanged."""
    return values if values is None or values.ndim < 4 else values[:: max(len(values) // _LOOKED_AT, 1)]


def _thin(weight: Tensor) -> Tensor:
    """Return a view of evenly spaced rows of a weight, with _LARGEST values at most, about."""
    return weight[:: math.ceil(weight.numel() / _LARGEST)]


def _find_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in nested tuples, such as a recurrent layer's states or a packed sequence."""
    while isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all tensors together, computed in float32."""
    parts = (float(torch.linalg.vector_norm(tensor, dtype=torch.float32)) for tensor in tensors)
    return math.hypot(*parts)


def _divide(value: float, by: float) -> float:
    """Return a ratio; infinite where the value is not finite, NaN for layers that are zero."""
    return math.nan if by == 0 else _finite(value / by)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
