"""Pretrained weights of one architecture, and how they are fitted to a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models.info import find_classifiers
from falconet.models.meta_model import create_meta_model
from falconet.models.registry import find_model
from falconet.models.weights.formats import State
from falconet.models.weights.key_formats import IMAGENET_MEAN, IMAGENET_STD
from falconet.spec import ImageSpec, ResizeMode


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights of one architecture, in its own names, and what they were trained with."""

    name: str
    """Name of the architecture."""
    state: State
    layout: str
    """Layout in which the weights were found."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the architecture that the weights need."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    """Std of each channel, in units of 0..1, as inputs were normalized in training."""
    labels: tuple[str, ...] | None = None
    """Classes in the order of the outputs; None: not known."""
    size: tuple[int, ...] | None = None
    """Height and width in pixels, or the most tokens of a text; None: the architecture's native ones."""
    resize_mode: ResizeMode = "crop"
    """How images were resized in training; nearly all published networks saw the center crop of photographs."""
    notes: tuple[str, ...] = ()
    """Assumptions that were made."""
    vocabulary: tuple[str, ...] | None = None
    """Tokens of a network for texts, in the order of their IDs; None: a network for images."""

    @property
    def num_classes(self) -> int | None:
        """Number of outputs of the weights; None: they have no output layer."""
        output = list(_list_shapes(self))[-1]
        return len(self.state[output]) if output in self.state else None

    @property
    def in_channels(self) -> int:
        """Channels of an image, or vocabulary size."""
        return len(self.mean if self.vocabulary is None else self.vocabulary)

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and std for images of so many channels; for another number, the means of both."""
        if channels == len(self.mean):
            return self.mean, self.std
        return (sum(self.mean) / len(self.mean),) * channels, (sum(self.std) / len(self.std),) * channels

    @property
    def input(self) -> ImageSpec:
        """What the network takes with these weights. Raises ConfigError where its classes have no names."""
        if self.labels is None:
            raise ConfigError(f"{self.name}: the weights do not say what their classes are called")
        height, width = self.size or find_model(self.name).input[1:]
        shape = len(self.mean), height, width
        return ImageSpec(shape, self.mean, self.std, resize_mode=self.resize_mode)


def check_weights_fit(found: Pretrained, source: str) -> None:
    """Raise ConfigError unless the weights are those of the network, name by name and shape by shape."""
    mismatch = find_pretrained_mismatch(found)
    if mismatch:
        raise ConfigError(f"model.pretrained: {source} holds no weights of {found.name}: {mismatch}")


def find_pretrained_mismatch(found: Pretrained) -> str:
    """Return how the weights first differ from the network's in name or shape; empty where they do not."""
    state = _drop_counters(found.state)
    if not state:
        return "no tensors"
    wanted = _list_shapes(found, **_measure_ends(found))
    output = list(wanted)[-1].rpartition(".")[0]
    # A network for texts may come without an output layer, which then is made anew.
    bare = found.vocabulary is not None and not any(key.startswith(f"{output}.") for key in state)
    for key, shape in wanted.items():
        if bare and key.startswith(f"{output}."):
            continue
        if key not in state:
            return f"wanted {key}, found {next((other for other in state if other not in wanted), 'no more')}"
        if state[key].shape != shape:
            return f"wanted {key} of shape {list(shape)}, found {list(state[key].shape)}"
        if state[key].layout != torch.strided or not state[key].is_floating_point():
            return f"wanted {key} as dense real numbers, found {state[key].dtype}, {state[key].layout}"
    return next((f"found {key}, which it does not have" for key in state if key not in wanted), "")


def _measure_ends(found: Pretrained) -> dict[str, int]:
    """Return the channels and classes that the weights were trained for, where their first and last tensors tell."""
    shapes = _list_shapes(found)
    kernel, output = _find_kernel(shapes), list(shapes)[-1]
    ends: dict[str, int] = {} if found.vocabulary is None else {"in_channels": len(found.vocabulary)}
    if kernel is not None and kernel in found.state and found.state[kernel].ndim == len(shapes[kernel]):
        ends["in_channels"] = found.state[kernel].shape[1]
    if output in found.state and found.state[output].ndim:
        ends["num_classes"] = len(found.state[output])
    return {key: value for key, value in ends.items() if value}


def _find_kernel(shapes: Mapping[str, Any]) -> str | None:
    """Return the name of the first convolution's kernels, (out, in, height, width); None without a convolution."""
    return next((name for name, shape in shapes.items() if len(shape) == 4), None)


def _list_shapes(found: Pretrained, **ends: int) -> Mapping[str, torch.Size]:
    """Return the names and shapes of the network's tensors, with other channels and classes than native ones."""
    return _list_network(found.name, json.dumps({**found.options, **ends}, sort_keys=True), found.size)


@lru_cache(maxsize=16)
def _list_network(name: str, options: str, size: tuple[int, ...] | None) -> Mapping[str, torch.Size]:
    """Return the names and shapes of a network's tensors."""
    state = create_meta_model(name, input_size=size, **json.loads(options)).state_dict()
    return {key: tensor.shape for key, tensor in _drop_counters(state).items()}


def _drop_counters(state: State) -> dict[str, Tensor]:
    """Return a state without batch normalization's counters, which decide nothing and are absent from many files."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def load_matching_weights(
    model: nn.Module, found: Pretrained, labels: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Copy published weights into a network; return a line for each part that had to be made to fit.

    The output layer stays fresh unless its classes are those of the weights: as many, and called `labels` where these
    are given. A first convolution for another number of channels gets the sum of the kernels of all channels, or equal
    fractions of the kernels of one. Raises ConfigError where anything else differs in shape.
    """
    notes = [f"weights of {found.name} ({found.layout} layout)", *found.notes]
    own, state = _drop_counters(model.state_dict()), _drop_counters(found.state)
    outputs = tuple(f"{name}." for name in find_classifiers(model))
    _check_names(own, state, outputs)
    kernel = _find_kernel({key: tensor.shape for key, tensor in own.items()})
    if kernel is not None and own[kernel].shape[1] != state[kernel].shape[1]:
        notes.append(f"{kernel}: {state[kernel].shape[1]} channels to {own[kernel].shape[1]}")
        state[kernel] = adapt_channels(state[kernel], own[kernel].shape[1])
    for output in outputs:
        last = {key: tensor for key, tensor in own.items() if key.startswith(output)}
        others = {key: tensor.shape for key, tensor in state.items() if key.startswith(output)}
        anew = others != {key: tensor.shape for key, tensor in last.items()}
        if anew or (labels is not None and labels != found.labels):
            notes.append(f"{output.removesuffix('.')}: made anew for {len(list(last.values())[-1])} classes")
            state |= last
    for key, tensor in own.items():
        if state[key].shape != tensor.shape:
            raise ConfigError(
                f"model.pretrained: wanted {key} of shape {list(tensor.shape)}, found {list(state[key].shape)}; "
                "the network's size and options must be those of the weights"
            )
    model.load_state_dict(state, strict=False)
    return tuple(notes)


def _check_names(own: State, state: State, outputs: tuple[str, ...]) -> None:
    """Raise ConfigError for the first tensor that only one of both has, as options that add layers make it.

    Those of output layers, whose names begin with `outputs`, can be made anew.
    """
    for key in sorted(key for key in own.keys() ^ state.keys() if not key.startswith(outputs)):
        has = "the network has" if key in own else "the weights have"
        raise ConfigError(f"model.pretrained: only {has} {key}; wanted the options that the weights were trained with")


def adapt_channels(kernels: Tensor, channels: int) -> Tensor:
    """Return kernels (out, in, height, width) for another number of channels.

    A gray image in all channels of the original network gives the same sums.
    """
    gray = kernels.sum(dim=1, keepdim=True)
    return gray if channels == 1 else gray.expand(-1, channels, -1, -1) / channels
