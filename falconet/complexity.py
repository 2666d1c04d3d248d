"""What a network costs: parameters, multiply-accumulates and activations, layer by layer, nothing missed.

One MAC is one multiplication with its addition, in convolutions, dense layers, recurrences and attention. Pooling,
activations, normalization and biases are not counted, which is the convention of the architectures' papers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from falconet.models import create_model, find_model


@dataclass(frozen=True)
class LayerCost:
    """One module, without what its submodules do."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    """Of one sample, without the batch dimension."""
    params: int
    macs: int
    activation_bytes: int
    """Of its outputs in float32, each call's counted."""


@dataclass(frozen=True)
class Complexity:
    """A model's cost for one sample."""

    model: str
    input: tuple[int, ...]
    layers: tuple[LayerCost, ...]
    params: int
    """Trainable parameters, shared ones once."""
    macs: int

    @property
    def activation_bytes(self) -> int:
        """All layers' outputs in float32."""
        return sum(layer.activation_bytes for layer in self.layers)


def summarize(
    name: str, *, input_shape: tuple[int, int, int] | None = None, num_classes: int | None = None, **options: Any
) -> Complexity:
    """Return the cost of a model of the registry, at its native input and published number of classes by default."""
    shape = find_model(name).input if input_shape is None else input_shape
    with torch.random.fork_rng(devices=[]):
        model = create_model(name, num_classes=num_classes, in_channels=shape[0], input_size=shape[1:], **options)
    return count_complexity(model, shape, name)


def count_complexity(model: nn.Module, input_shape: tuple[int, ...], name: str = "model") -> Complexity:
    """Return the cost of any module for one float32 sample of `input_shape` (without the batch dimension)."""
    outputs: dict[str, list[tuple[int, ...]]] = {}
    hooks = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.setdefault(name, []).append(shape_of(output))
        )
        for name, module in model.named_modules()
    ]
    training = model.training
    counter = FlopCounterMode(display=False)
    device = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0)).device
    try:
        with torch.no_grad(), decomposed(), counter:
            model.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    layers = tuple(iterate_layers(model, outputs, own_macs(counter)))
    params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Complexity(name, input_shape, layers, params, counter.get_total_flops() // 2)


@contextmanager
def decomposed() -> Iterator[None]:
    """Switch off the fused kernels that hide their matrix products from torch's dispatcher."""
    # `mkldnn.flags` would also set TF32, which warns on processors; the plain switch does not.
    mkldnn, fast_path = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mkldnn.enabled = mkldnn
        torch.backends.mha.set_fastpath_enabled(fast_path)


def own_macs(counter: FlopCounterMode) -> dict[str, int]:
    """Return MACs by module name as `named_modules` has it, without those of submodules."""
    totals = {
        full_name.partition(".")[2]: sum(operations.values()) // 2
        for full_name, operations in counter.get_flop_counts().items()
        if full_name != "Global"
    }
    own = dict(totals)
    for name, macs in totals.items():
        parts = name.split(".") if name else []
        # Containers such as ModuleList are never called, so that the nearest counted ancestor may be further up.
        ancestors = (".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1))
        parent = next((ancestor for ancestor in ancestors if ancestor in totals), None)
        if parent is not None:
            own[parent] -= macs
    return own


def iterate_layers(
    model: nn.Module, outputs: dict[str, list[tuple[int, ...]]], macs: dict[str, int]
) -> Iterator[LayerCost]:
    """Yield the modules that do something themselves, in order of definition."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen.update(id(parameter) for parameter in own)
        params = sum(parameter.numel() for parameter in own)
        # A container is a layer where it computes beside its children, as attention does with its projections.
        if name in outputs and (not list(module.children()) or params or macs.get(name, 0)):
            shapes = outputs[name]
            size = sum(4 * math.prod(shape) for shape in shapes)
            yield LayerCost(name, type(module).__name__, shapes[-1], params, macs.get(name, 0), size)


def shape_of(output: Any) -> tuple[int, ...]:
    """Return the shape, without the batch dimension, of a module's output or of the first of several."""
    while isinstance(output, tuple | list):
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
