"""Cost of a network: parameters, multiply-accumulates and activations, layer by layer, nothing missed.

One MAC is one multiplication with its addition, in convolutions, dense layers, recurrences and attention. Pooling,
activations, normalization and biases are not counted, which is the convention of the architectures' papers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from falconet.modalities import MODALITIES
from falconet.models.registry import choose_kind, create_model, native_input
from falconet.models.table import MODELS
from falconet.receptive import FieldMode, call_directly
from falconet.spec import ModalityName


@dataclass(frozen=True)
class LayerCost:
    """Cost of one module, without its submodules."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    """Output shape of one sample, without the batch dimension; empty for a module that is read without being called."""
    params: int
    macs: int
    activation_bytes: int
    """Bytes of its outputs in float32, over all calls."""
    receptive_field: tuple[int, ...] = ()
    """Pixels or steps of the input that a unit of the output sees, away from the edges; see `falconet.receptive`."""


@dataclass(frozen=True)
class Complexity:
    """A model's cost for one sample."""

    model: str
    input: tuple[int, ...]
    layers: tuple[LayerCost, ...]
    params: int
    """Number of trainable parameters, shared ones counted once."""
    macs: int

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input))
        return f"Complexity({self.model}, input {shape}, {self.params:,} parameters, {self.macs:,} MACs)"

    @property
    def activation_bytes(self) -> int:
        """Bytes of all layers' outputs in float32."""
        return sum(layer.activation_bytes for layer in self.layers)


def summarize(
    name: str,
    *,
    input_shape: tuple[int, ...] | None = None,
    kind: ModalityName | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> Complexity:
    """Return the cost of a model of the registry, at its native input and published number of classes by default.

    `input_shape` is channels, height and width of an image, channels and steps of a series, or vocabulary size and
    tokens of a text; `kind` None is the first kind that the model takes.
    """
    kind = choose_kind(name, kind)
    channels, *size = native_input(name, kind) if input_shape is None else input_shape
    # No weights are needed, and those of the largest models take long to draw; other libraries may need real ones.
    with torch.device("meta" if name in MODELS else "cpu"), torch.random.fork_rng(devices=[]):
        model = create_model(
            name, num_classes=num_classes, in_channels=channels, input_size=tuple(size), kind=kind, **options
        )
    return count_complexity(model, MODALITIES[kind].input_shape(channels, tuple(size)), name, kind)


def count_complexity(
    model: nn.Module, input_shape: tuple[int, ...], name: str = "model", kind: ModalityName = "image"
) -> Complexity:
    """Return the cost of any module for one sample of `input_shape`, without the batch dimension.

    The sample is float32, or int64 for texts.
    """
    modes = {module: module.training for module in model.modules()}
    counter = _MacCounter()
    device = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0)).device
    # No token may be 0, which is padding.
    sample = MODALITIES[kind].make_blank(1, *input_shape).to(device)
    fields = FieldMode(sample, dimensions=2 if len(input_shape) == 3 else 1)
    trace = _Trace(model, counter, fields)
    try:
        with torch.no_grad(), _decomposed(), counter, fields:
            model.eval()(sample)
    finally:
        trace.remove()
        for module, mode in modes.items():
            module.training = mode
    layers = tuple(_iterate_layers(model, trace))
    params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Complexity(name, input_shape, layers, params, counter.macs)


def _count_bag(weight: Tensor, indices: Tensor, *others: Any, out_val: Any = None, **named: Any) -> int:
    """Return the operations of a bag of weighted vectors, for which torch has no formula; others are just added.

    Parameters stand as in `torch.ops.aten._embedding_bag`, where the weights of samples come seventh.
    """
    weighted = named.get("per_sample_weights", others[4] if len(others) > 4 else None) is not None
    return 2 * indices.numel() * weight.shape[1] if weighted else 0


@call_directly
class _MacCounter(TorchDispatchMode):
    """Counts multiply-accumulates by torch's own formulas of each operator, while it is active."""

    def __init__(self) -> None:
        # It imports triton where that is installed, in half a second that the first training step need not wait for.
        from torch.utils.flop_counter import flop_registry

        super().__init__()  # type: ignore[no-untyped-call]
        bags = dict.fromkeys((torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only), _count_bag)
        self.formulas = {**flop_registry, **bags}
        self.flops = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates so far; torch's formulas count a multiplication and its addition as two."""
        return self.flops // 2

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func.overloadpacket)
        if formula is None and func.namespace != "prim":
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        found = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=found)
        return found


class _Trace:
    """What each module does in a forward pass: its outputs' shapes and fields, and its MACs without its submodules'.

    The counter keeps its own account by module, but that goes astray where one module has two parents.
    """

    def __init__(self, model: nn.Module, counter: _MacCounter, fields: FieldMode) -> None:
        self.fields = fields
        self.seen: dict[str, tuple[int, ...]] = {}
        self.shapes: dict[str, list[tuple[int, ...]]] = {}
        self.macs: Counter[str] = Counter()
        self.counter = counter
        self.settled = 0
        self.running: list[str] = []
        self.hooks: list[RemovableHandle] = []
        for name, module in model.named_modules():
            self.hooks.append(module.register_forward_pre_hook(partial(self.enter, name)))
            self.hooks.append(module.register_forward_hook(partial(self.leave, name)))

    def enter(self, name: str, _module: nn.Module, _inputs: Any) -> None:
        self.settle()
        self.running.append(name)

    def leave(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.settle()
        self.running.pop()
        self.shapes.setdefault(name, []).append(_shape_of(output))
        self.seen[name] = self.fields.size_of(output)

    def settle(self) -> None:
        """Book what was computed since the last call on the innermost module that runs."""
        total = self.counter.macs
        if self.running:
            self.macs[self.running[-1]] += total - self.settled
        self.settled = total

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()


@contextmanager
def _decomposed() -> Iterator[None]:
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


def _iterate_layers(model: nn.Module, trace: _Trace) -> Iterator[LayerCost]:
    """Yield the modules that do something themselves, in order of definition."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen.update(id(parameter) for parameter in own)
        params = sum(parameter.numel() for parameter in own)
        shapes, macs = trace.shapes.get(name, []), trace.macs[name]
        # A container is a layer where it computes beside its children, as attention does; attention also reads the
        # weights of its output projection without calling it.
        if params or macs or (shapes and not list(module.children())):
            size = sum(4 * math.prod(shape) for shape in shapes)
            shape = shapes[-1] if shapes else ()
            yield LayerCost(name, type(module).__name__, shape, params, macs, size, trace.seen.get(name, ()))


def _shape_of(output: Any) -> tuple[int, ...]:
    """Return the shape, without the batch dimension, of a module's output or of the first of several."""
    while isinstance(output, tuple | list):
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
