"""Memory and time of a forward pass, estimated call by call while it is computed for a single sample.

Few weights can ask for giant feature maps or for millions of steps, so that a file of a kilobyte would take gigabytes
or hours. torch's own counting without values needs packages that take seconds to import, and unrolls recurrences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from falconet.errors import ConfigError

MAX_CALL_BYTES, BATCH_BYTES = 1 << 32, 1 << 31
"""Most bytes that one call of torch reads and writes, without weights: for one sample, and for a batch of several."""
MAX_MACS = 1 << 40
"""Most multiply-accumulates, or equivalents, for one sample: 29 times those of EfficientNet-B7, about a minute."""
ELEMENT_MACS, _STEP_MACS = 1 << 4, 1 << 20
"""Multiply-accumulates that take as long as writing a value, and as the calls for one step of a recurrence."""
_SMALLER = "train with a smaller model.input_size, or with model.bands"


def measure_forward(model: nn.Module, sample: Tensor) -> tuple[Tensor, int]:
    """Return a network's output for a batch of one, and the bytes of the call of torch that takes the most for it.

    Raises ConfigError where it needs more than MAX_CALL_BYTES or MAX_MACS: calls that have an estimate
    are checked before they are made, others after.
    """
    with torch.no_grad(), ForwardCounter() as counter:
        answer: Tensor = model(sample)
    return answer, max(counter.most_bytes, sample.nbytes)


class ForwardCounter(TorchFunctionMode):
    """Counts bytes and multiply-accumulates of torch's calls. Raises ConfigError beyond the bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.most_bytes, self.macs = 0, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        read = sum(_count_bytes(tensor) for tensor in _list_tensors([args, kwargs]))
        estimate = _ESTIMATES.get(getattr(func, "__name__", ""))
        if estimate is not None:
            with suppress(TypeError):  # Called by other names of its arguments: counted once it has been made.
                values, macs = estimate(*args, **kwargs)
                self.add(read + 4 * values, macs)
        result = func(*args, **kwargs)
        made = [tensor for tensor in _list_tensors([result]) if all(tensor is not arg for arg in args)]
        self.add(read + sum(map(_count_bytes, made)), ELEMENT_MACS * sum(tensor.numel() for tensor in made))
        return result

    def add(self, size: int, macs: int) -> None:
        self.most_bytes = max(self.most_bytes, size)
        self.macs += macs
        if size > MAX_CALL_BYTES:
            most = f"{MAX_CALL_BYTES >> 30} GiB"
            raise ConfigError(f"wanted layers of at most {most} for one sample, found {size / 2**30:.1f}: {_SMALLER}")
        if self.macs > MAX_MACS:
            raise ConfigError(
                f"wanted at most {MAX_MACS:.2g} multiply-accumulates for one sample, or what takes as long, found "
                f"{self.macs:.2g} or more: {_SMALLER}"
            )


def _list_tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors of a call, but for weights."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, list | tuple | dict):
            yield from _list_tensors(value)
        elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            yield value


def _count_bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor has; one that repeats its values has fewer than it shows."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def estimate_convolution(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[int, int]:
    """Return how many values a convolution writes, and its multiply-accumulates."""
    count = weight.ndim - 2

    def spell_out(setting: Any) -> tuple[int, ...]:
        return (setting,) * count if isinstance(setting, int) else tuple(setting) * (count // len(setting))

    kernel = [step * (size - 1) for step, size in zip(spell_out(dilation), weight.shape[2:], strict=True)]
    around = {"same": kernel, "valid": [0] * count}.get(padding) if isinstance(padding, str) else None
    around = [2 * size for size in spell_out(padding)] if around is None else around
    sides = [
        max(0, (size + more - less - 1) // step + 1)
        for size, more, less, step in zip(x.shape[-count:], around, kernel, spell_out(stride), strict=True)
    ]
    values = len(weight) * math.prod(sides)
    return values, values * math.prod(weight.shape[1:])


def _estimate_dense(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> tuple[int, int]:
    """Return how many values a dense layer writes, and its multiply-accumulates."""
    return x.numel() // max(x.shape[-1], 1) * len(weight), x.numel() * len(weight)


def _estimate_product(x: Tensor, other: Tensor) -> tuple[int, int]:
    """Return how many values a product of matrices has, and its multiply-accumulates."""
    columns = other.shape[-1] if other.ndim > 1 else 1
    return x.numel() // max(x.shape[-1], 1) * columns, x.numel() * columns


def _estimate_attention(query: Tensor, key: Tensor, *_: Any, **__: Any) -> tuple[int, int]:
    """Return both numbers for attention, by a kernel that does not keep the products of queries with keys."""
    return query.numel(), 2 * query.numel() * key.shape[-2]


def estimate_module(
    query: Tensor, key: Tensor, _value: Any, width: int, heads: int, *_: Any, **__: Any
) -> tuple[int, int]:
    """Return both numbers for torch's module of attention: steps come first, and products may be kept."""
    products = len(query) * len(key) * query[0].numel() // max(width, 1)
    return heads * products, 4 * query.numel() * width + 2 * products * width


def estimate_recurrence(x: Tensor, _state: Any, weights: Any, *_: Any, **__: Any) -> tuple[int, int]:
    """Return both numbers for one recurrent layer, which first multiplies all steps with the weights of its gates."""
    steps = math.prod(x.shape[:-1])
    return steps * len(weights[0]), steps * (_STEP_MACS + sum(weight.numel() for weight in weights))


_ESTIMATES: Mapping[str, Callable[..., tuple[int, int]]] = MappingProxyType(
    {
        **dict.fromkeys(("conv1d", "conv2d", "conv3d"), estimate_convolution),
        "linear": _estimate_dense,
        **dict.fromkeys(("matmul", "__matmul__", "bmm", "mm"), _estimate_product),
        "scaled_dot_product_attention": _estimate_attention,
        "multi_head_attention_forward": estimate_module,
        **dict.fromkeys(("rnn_tanh", "rnn_relu", "gru", "lstm"), estimate_recurrence),
    }
)
"""Estimators of values written and multiply-accumulates, by the names of functions that may write much from little."""
