"""Outlines: networks without memory for their weights, by which a file's tensors are checked before there is any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from falconet.errors import ConfigError
from falconet.models.registry import create_model
from falconet.models.table import MODELS
from falconet.models.widths import apply_widths

_MIN_CALLS, _CALLS_A_TENSOR, _MAX_CALLS = 2_000, 40, 100_000
"""Most calls of torch for building a network; the largest of timm take 13,000, 5 to 15 for each tensor."""
_MAX_SHRUNK_WEIGHTS = 1 << 26
"""Most weights of another library's network that is built whole, only to be cut to smaller widths."""


@dataclass(frozen=True)
class TensorMeta:
    """Shape and type of a tensor."""

    shape: tuple[int, ...]
    kind: str
    """Type of the values: `float`, `integer`, `bool`, or any other, which no network has."""


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of floating point of networks; those of 8 bits have no infinity or no sign, and no arithmetic in torch."""


def outline_tensor(tensor: Tensor) -> TensorMeta:
    """Return the shape and type of a tensor."""
    strange = tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in _FLOATS)
    if strange or tensor.layout != torch.strided or tensor.is_quantized:
        return TensorMeta(tuple(tensor.shape), f"{tensor.layout} {tensor.dtype}".replace("torch.", ""))
    kinds = {torch.bool: "bool"} | dict.fromkeys(_FLOATS, "float")
    return TensorMeta(tuple(tensor.shape), kinds.get(tensor.dtype, "integer"))


def create_meta_model(
    name: str, widths: Mapping[str, Any] | None = None, *, tensors: int | None = None, **structure: Any
) -> nn.Module:
    """Return a network as `create_model` and `apply_widths` make it, with weights that take no memory.

    What modules compute when they are made, and no file holds, is there. Raises what `create_model` raises, and
    ConfigError for a network too large to be built, or for one of far more tensors than it may have.
    """
    most = _MAX_CALLS if tensors is None else min(_MIN_CALLS + _CALLS_A_TENSOR * tensors, _MAX_CALLS)
    try:
        # Outside, since the mode sees, and may refuse, the call by which `no_grad` within is left.
        with torch.set_grad_enabled(torch.is_grad_enabled()), _MetaMode(most):
            model = create_model(name, **structure)
            whole = sum(parameter.numel() for parameter in model.parameters())
            if widths is None:
                return model
            if name not in MODELS and whole > _MAX_SHRUNK_WEIGHTS:
                raise ConfigError(f"widths: wanted a network of at most {_MAX_SHRUNK_WEIGHTS} weights, found {whole}")
            return apply_widths(model, widths)
    except (RuntimeError, OverflowError) as error:  # Sizes beyond what torch can count.
        raise ConfigError(f"model: {name} cannot be built as asked: {' '.join(str(error).split())}") from error


def allocate_weights(model: nn.Module) -> nn.Module:
    """Give an outline's weights memory, without values; return the same module."""
    # As Module.to_empty does, which would also empty the buffers that have their values already.
    model._apply(lambda tensor: _allocate(tensor) if tensor.is_meta else tensor)  # type: ignore[no-untyped-call]
    return model


def _allocate(outline: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return memory for a tensor that has none."""
    # Not `empty_like`, which for such tensors imports sympy: 0.3 s with bytecode, and seconds without.
    return torch.empty_strided(outline.shape, outline.stride(), dtype=outline.dtype)


_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


_INITIALIZERS = frozenset({"normal_", "uniform_", "trunc_normal_", "bernoulli_", "orthogonal_"})


class _MetaMode(TorchFunctionMode):
    """Makes tensors for weights without memory, and leaves out drawing their first values.

    Everything else, such as indices that layers compute, is made as ever. torch's own device `meta` would fail where
    modules read what they computed, and its random numbers import packages for seconds. Raises ConfigError where
    building goes on for too long, as with millions of layers.
    """

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.calls -= 1
        if self.calls < 0:
            raise ConfigError("model: wanted a network of fewer layers")
        if func in _FACTORIES and kwargs.get("device") is None:
            return func(*args, **{**kwargs, "device": "meta"})
        if getattr(func, "__name__", "") in _INITIALIZERS:
            target = args[0] if args else kwargs["tensor"]
            if target.is_meta:
                return target
        return func(*args, **kwargs)


def find_state_dict_mismatch(model: nn.Module, found: Mapping[str, TensorMeta]) -> str | None:
    """Return how tensors differ from a network's state in names, shapes or types; None where they do not."""
    wanted = {name: outline_tensor(tensor) for name, tensor in model.state_dict().items()}
    for name, outline in wanted.items():
        if name not in found:
            return f"wanted {name}, found no such tensor"
        if found[name].shape != outline.shape:
            return f"wanted {name} of shape {list(outline.shape)}, found {list(found[name].shape)}"
        if found[name].kind != outline.kind:
            return f"wanted {name} as {outline.kind} values, found {found[name].kind}"
    return next((f"found {name}, which it does not have" for name in found if name not in wanted), None)
