"""Receptive fields: how much of an input a unit of each layer sees, followed through a forward pass.

A convolution or pooling with kernel k, dilation d and stride s, applied to units that see r of the input and lie j
apart, gives units that see r + (k - 1) d j and lie s j apart (Araujo, Norris and Sim, "Computing receptive fields of
convolutional neural networks", Distill 2019). Where branches meet, the largest counts, but for a factor that a map
has as a whole, as in squeeze-and-excitation. What joins all positions sees the whole input: a dense layer, a global
mean, recurrence, attention.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten
Mode = TypeVar("Mode", bound=TorchDispatchMode)
_POOLINGS = (aten.max_pool2d_with_indices.default, aten.avg_pool2d.default, aten.max_pool2d.default)
_PRODUCTS = (aten.addmm.default, aten.mm.default, aten.bmm.default, aten.baddbmm.default)
_MEANS = (aten.mean.dim, aten.sum.dim_IntList)


@dataclass(frozen=True)
class Field:
    """Receptive field of the units of a tensor, along each dimension of the input that has positions."""

    size: tuple[int, ...]
    """Size of the receptive field in pixels or steps."""
    jump: tuple[int, ...]
    """Pixels or steps between the centers of neighbors."""

    def widen(self, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Field:
        """Return what units after a convolution or pooling see."""
        count = len(self.size)
        # One number stands for all dimensions; one-dimensional layers may have another dimension before their own.
        k, s, d = ((tuple(values) * count)[-count:] for values in (kernel, stride, dilation))
        size = tuple(r + (a - 1) * b * j for r, a, b, j in zip(self.size, k, d, self.jump, strict=True))
        return Field(size, tuple(j * step for j, step in zip(self.jump, s, strict=True)))


def call_directly(mode: type[Mode]) -> type[Mode]:
    """Return a dispatch mode whose `__torch_dispatch__` is called as it stands.

    Torch wraps it so that `torch.compile` passes it by, and the first call of the wrapper imports torch._dynamo, for
    seconds.
    """
    mode.__torch_dispatch__ = inspect.unwrap(mode.__torch_dispatch__)  # type: ignore[method-assign]
    return mode


@call_directly
class FieldMode(TorchDispatchMode):
    """Follows what each tensor sees of one input, while it is active."""

    def __init__(self, sample: Tensor, dimensions: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.whole = Field(tuple(sample.shape[-dimensions:]), (1,) * dimensions)
        self.fields: MutableMapping[Tensor, Field] = WeakTensorKeyDictionary()
        self.fields[sample] = Field((1,) * dimensions, (1,) * dimensions)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        known = [tensor for tensor in _iterate_tensors(args) if tensor in self.fields]
        if known:
            field = self.follow(func, args, _merge([self.fields[tensor] for tensor in _drop_factors(known)]), found)
            for tensor in _iterate_tensors([found]):
                self.fields[tensor] = field
        return found

    def size_of(self, output: Any) -> tuple[int, ...]:
        """Return what an output, or the first of several, sees; empty where it does not depend on the input."""
        first = next(_iterate_tensors([output]), None)
        found = None if first is None else self.fields.get(first)
        return found.size if found else ()

    def follow(self, func: Any, args: Any, field: Field, found: Any) -> Field:
        """Return what the result of one operation sees, whose inputs together see `field`."""
        if func is aten.convolution.default:
            return field.widen(args[1].shape[2:], args[3], args[5])
        if func in _POOLINGS:
            return field.widen(args[1], args[2] if len(args) > 2 and args[2] else args[1], (1,))
        if func is aten._adaptive_avg_pool2d.default:
            kernels = [size - (out - 1) * (size // out) for size, out in zip(args[0].shape[2:], args[1], strict=True)]
            strides = [size // out for size, out in zip(args[0].shape[2:], args[1], strict=True)]
            return self.whole if 1 in args[1] else field.widen(kernels, strides, (1,))
        # Products of one row belong to the one sample as a whole, those of many to its positions.
        joins_rows = func in _PRODUCTS and (found.shape[0] == 1 or func is aten.bmm.default)
        return self.whole if joins_rows or (func in _MEANS and _joins_positions(args)) else field


def _joins_positions(args: Any) -> bool:
    """Whether a mean or sum goes over positions: dimensions after the channels, or the steps of (1, steps, width).

    Those of layer normalization go over the width alone.
    """
    tensor = args[0]
    dims = {dim % tensor.ndim for dim in args[1]}
    return bool(dims & {2, 3}) if tensor.ndim == 4 else tensor.ndim == 3 and 1 in dims


def _drop_factors(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors without those of one value a map where another has more."""
    sizes = [math.prod(tensor.shape[2:]) for tensor in tensors]
    return [tensor for tensor, size in zip(tensors, sizes, strict=True) if size > 1 or max(sizes) == 1]


def _merge(fields: Sequence[Field]) -> Field:
    """Return what a unit sees that depends on several."""
    size = tuple(max(values) for values in zip(*(field.size for field in fields), strict=True))
    jump = tuple(max(values) for values in zip(*(field.jump for field in fields), strict=True))
    return Field(size, jump)


def _iterate_tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _iterate_tensors(value)
