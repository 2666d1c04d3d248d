"""One traceable module from raw samples to probabilities, which every format holds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from falconet.artifact import Artifact
from falconet.exporters.adapters import ADAPTERS
from falconet.modalities import modality_of
from falconet.spec import InputSpec
from falconet.tasks import Task, task_of


@dataclass(frozen=True, eq=False)
class Graph:
    """A module with all that is needed to trace it."""

    module: nn.Module
    input: str
    """Name of its only input."""
    output: str
    """Name of its only output."""
    example: Tensor
    axes: Mapping[int, str]
    """Names of the input's dimensions that are not fixed."""
    length: tuple[int, int] | None
    """Dimension of `axes` that counts tokens or steps, and the most of them; None: there is no such dimension."""


class InferenceModule(nn.Module):
    """Module from raw samples to the model's outputs: class probabilities of a classifier."""

    def __init__(self, preprocess: nn.Module, network: nn.Module, temperature: float, task: Task) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.temperature = temperature
        self.activate = task.activate

    def forward(self, x: Tensor) -> Float32[Tensor, "batch classes"]:
        logits: Tensor = self.network(self.preprocess(x)) / self.temperature
        return self.activate(logits)


def make_graph(artifact: Artifact, *, preprocessing: bool = True) -> Graph:
    """Return the graph to export: from raw samples to probabilities, or without `preprocessing` the bare network.

    Raw images are uint8 or uint16, of any height, width, and 1 or 3 channels last; series float32 as
    `pad_or_resample` returns them; texts are token numbers. The bare network takes normalized input and returns logits.
    """
    spec, network = artifact.config.input, copy.deepcopy(artifact.model)
    network.to(memory_format=torch.contiguous_format)
    if not preprocessing:
        example = modality_of(spec).make_blank(2, *spec.shape)
        axes, length = _name_axes(spec, network, spec.shape[-1], preprocessing=False)
        return Graph(network, "input", "logits", example, axes, length)
    adapter = ADAPTERS[spec.kind]
    example = adapter.make_example(spec)
    axes, length = _name_axes(spec, network, example.shape[-1], preprocessing=True)
    preprocess = adapter.make_preprocess(spec)
    _keep_buffers(preprocess)
    temperature, task = artifact.config.calibration_temperature, task_of(artifact.config.output)
    module = InferenceModule(preprocess, network, temperature, task).eval()
    return Graph(module, adapter.input, "probabilities", example, axes, length)


def _keep_buffers(module: nn.Module) -> None:
    """Let buffers that follow from the InputSpec be saved all the same: ExecuTorch's compiler stumbles over others."""
    for layer in module.modules():
        for name, buffer in layer.named_buffers(recurse=False):
            layer.register_buffer(name, buffer, persistent=True)


def _name_axes(
    spec: InputSpec, network: nn.Module, longest: int, *, preprocessing: bool
) -> tuple[dict[int, str], tuple[int, int] | None]:
    """Return the dimensions that are not fixed, with names, and which of them counts steps, with their most.

    The steps of recurrent networks are fixed: a traced graph holds as many as its example has. So are those of series
    that are stretched to a length.
    """
    adapter = ADAPTERS[spec.kind]
    sequence = adapter.find_sequence(spec)
    if sequence is None or any(isinstance(module, nn.RNNBase) for module in network.modules()):
        return {0: "batch", **(adapter.sides if preprocessing else {})}, None
    axis, name = sequence
    return {0: "batch", axis: name}, (axis, longest)
