"""Batch normalization over a whole batch whose parts are on several processes.

Ioffe and Szegedy: Batch normalization. ICML, 2015, algorithm 1. torch's own SyncBatchNorm runs on GPUs alone and puts
other modules into the network, in place of subclasses that do more, such as those that leave padding out. Here the
network stays as it is: while it computes, each call of `F.batch_norm` is answered in torch's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode


class SynchronizedParallel(DistributedDataParallel):
    """DistributedDataParallel whose batch normalization sees the parts of all processes."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        with SynchronizedStatistics(self.process_group):
            return super().forward(*inputs, **options)  # type: ignore[no-untyped-call]


class SynchronizedStatistics(TorchFunctionMode):
    """A mode in which `F.batch_norm` computes over the parts of all processes of a group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.batch_norm:
            return normalize(self.group, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def normalize(
    group: dist.ProcessGroup,
    x: Float[Tensor, "part channels *positions"],
    running_mean: Float[Tensor, " channels"] | None,
    running_var: Float[Tensor, " channels"] | None,
    weight: Float[Tensor, " channels"] | None = None,
    bias: Float[Tensor, " channels"] | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "part channels *positions"]:
    """Return this process's part of `F.batch_norm` over the parts of all processes as one batch.

    Parts may differ in size: each weighs as many values as it has.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    mean, var, count = _measure_all(x.detach(), group)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (count / (count - 1)), momentum)
    normalized: Tensor = Normalize.apply(x, weight, bias, mean, var, count, eps, group)
    return normalized


def _measure_all(x: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, float]:
    """Return each channel's mean and variance over the parts of all processes, and the number of values."""
    start = torch.zeros(2, x.shape[1], device=x.device)
    # In float64 the difference of two squares loses nothing that float32 has.
    mean, var = (own.double() for own in torch.batch_norm_update_stats(x, start[0], start[1], 1.0))
    sums = torch.cat([mean, var + mean.square(), mean.new_ones(1)]) * (x.numel() // x.shape[1])
    dist.all_reduce(sums, group=group)
    mean, square = (sums[:-1] / sums[-1]).chunk(2)
    return mean.float(), (square - mean.square()).clamp(min=0).float(), float(sums[-1])


class Normalize(torch.autograd.Function):
    """Normalization of a part by mean and variance of the whole, which depend on every part."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: float,
        eps: float,
        group: dist.ProcessGroup,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.count, ctx.eps, ctx.group = count, eps, group
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of this part; those of weight and bias are averaged with all others'."""
        x, weight, mean, var = ctx.saved_tensors
        # As if mean and variance were given; the sums over the part come with it.
        into_x, into_weight, into_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, None, None, False, ctx.eps, [True] * 3
        )
        means = torch.stack([into_weight, into_bias])
        dist.all_reduce(means, group=ctx.group)
        means *= (var + ctx.eps).rsqrt() * (1 if weight is None else weight) / ctx.count
        # What goes through mean and variance is itself a normalization of x.
        into_x -= F.batch_norm(x, mean, var, means[0], means[1], False, 0.0, ctx.eps)
        learned = (None, None) if weight is None else (into_weight, into_bias)
        return into_x, *learned, *(None,) * 5
