"""Graphs traced by torch.export, from which every format is written, and the layer to blame where tracing fails."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, _trace
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from falconet import interruption
from falconet.errors import ExportError
from falconet.exporters.graphs import Graph, InferenceModule

_CHATTY = ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor", "torch.utils._pytree")
"""Loggers that print pages about a layer that cannot be traced, before the error says so; the last one warns of how
another library, which ExecuTorch brings, calls torch."""
_QUIET = RLock()
"""Lock held while output is silenced."""
Attempt = Callable[[nn.Module, tuple[Any, ...]], object]
"""Function that tries to export a module on example inputs; it may raise any exception."""


def trace(graph: Graph, max_sizes: Mapping[str, int]) -> ExportedProgram:
    """Return a graph as torch.export sees it. Raises ExportError, which names the layer that cannot be traced.

    `max_sizes` are bounds of dimensions by name, for formats that plan their memory beforehand; a batch of 1 is fixed.
    """
    example = graph.example[:1] if max_sizes.get("batch") == 1 else graph.example
    dimensions = {
        axis: _bound_axis(graph, axis, max_sizes) for axis in graph.axes if max_sizes.get(graph.axes[axis]) != 1
    }
    try:
        # An exception out of Python's callbacks would end the process where C++ called them.
        with interruption.deferred(), quiet():
            program = torch.export.export(graph.module, (example,), dynamic_shapes=(dimensions,), strict=False)
    except Exception as error:  # Layers raise what they like when they are traced.
        raise refuse(graph, error, trace_layer) from error
    _forget_places(program)
    return program


def _forget_places(program: ExportedProgram) -> None:
    """Remove from each node which line of which file on this machine it comes from: formats would publish it."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)


def _bound_axis(graph: Graph, axis: int, max_sizes: Mapping[str, int]) -> Any:
    """Return torch.export's description of a dimension: any size, up to a bound where there is one."""
    longest = {graph.axes[graph.length[0]]: graph.length[1]} if graph.length else {}
    bound = {**max_sizes, **longest, "channels": 3}.get(graph.axes[axis])
    return Dim.DYNAMIC if bound is None else Dim.DYNAMIC(max=bound)


def find_steps(program: ExportedProgram, graph: Graph) -> tuple[int, int] | None:
    """Return the fewest and the most steps that a traced graph takes; None where they are fixed or there are none."""
    if graph.length is None:
        return None
    axis, most = graph.length
    placeholder = next(node for node in program.graph.nodes if node.name == program.graph_signature.user_inputs[0])
    symbol = placeholder.meta["val"].shape[axis].node.expr
    return int(program.range_constraints[symbol].lower), most


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch.export prints besides raising it."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    # Filters and levels are the whole process's: of two threads at once, one would keep the other's for good.
    with _QUIET, warnings.catch_warnings():
        # Recurrent layers keep their weights in a list too, which torch reads while it traces them.
        warnings.filterwarnings("ignore", message="The tensor attributes .*_flat_weights", category=UserWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            # It prints the graph as far as it came. Another standard error would be the whole process's.
            vars(_trace)["print"] = _ignore
            yield
        finally:
            vars(_trace).pop("print", None)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _ignore(*_: Any, **__: Any) -> None:
    """Print nothing."""


def trace_layer(module: nn.Module, inputs: tuple[Any, ...]) -> ExportedProgram:
    """Try to trace one layer of a network, for batches of any size."""
    batches = tree_map(lambda item: {0: Dim.DYNAMIC} if isinstance(item, Tensor) and item.ndim else None, inputs)
    with quiet():
        return torch.export.export(module, inputs, dynamic_shapes=batches, strict=False)


def refuse(graph: Graph, error: Exception, attempt: Attempt) -> ExportError:
    """Return the error of a graph that cannot be exported, with the layer that is to blame and the reason."""
    name, kind, reason = _find_culprit(graph, error, attempt)
    layer = f"the layer {name} ({kind})" if name else f"the network ({kind})"
    return ExportError(f"{layer} cannot be exported: {reason}; another target may know it")


def _find_culprit(graph: Graph, error: Exception, attempt: Attempt) -> tuple[str, str, str]:
    """Return name and class of the innermost layer of a network that `attempt` fails on, and why."""
    inputs = _record_inputs(graph.module, graph.example)
    name, module = (
        ("network", graph.module.network) if isinstance(graph.module, InferenceModule) else ("", graph.module)
    )
    while True:
        for child, layer in module.named_children():
            inner = f"{name}.{child}" if name else child
            found = _try_layer(layer, inputs.get(inner), attempt)
            if found is not None:
                name, module, error = inner, layer, found
                break
        else:
            return name.removeprefix("network").removeprefix("."), type(module).__name__, find_reason(error)


def _try_layer(layer: nn.Module, inputs: tuple[Any, ...] | None, attempt: Attempt) -> Exception | None:
    """Return what a layer raises when it is exported alone; None where it does not, or was never called."""
    if inputs is None:
        return None
    try:
        attempt(layer, inputs)
    except Exception as error:
        return error
    return None


def _record_inputs(module: nn.Module, example: Tensor) -> dict[str, tuple[Any, ...]]:
    """Return what each layer is first called with, by its name."""
    inputs: dict[str, tuple[Any, ...]] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.setdefault(name, given) and None)
        for name, layer in module.named_modules()
    ]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def find_reason(error: BaseException) -> str:
    """Return the class of what first went wrong and the first line of its message, without colors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
