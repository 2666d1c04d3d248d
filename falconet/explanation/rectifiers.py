"""ReLU whose gradient is guided, without a change to the network.

Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity: the all convolutional net" (ICLR workshop
2015), section 3.4: a gradient passes a ReLU only where its input and the gradient itself are positive.

Captum's GuidedBackprop hooks modules of the class nn.ReLU. Here every call of ReLU is found, as a module or as a
function, in place or not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CEILINGS = {
    F.relu: math.inf,
    F.relu_: math.inf,
    torch.relu: math.inf,
    torch.relu_: math.inf,
    Tensor.relu: math.inf,
    Tensor.relu_: math.inf,
    F.relu6: 6.0,
}
"""Rectifying functions and their upper bounds; nn.ReLU6 calls `F.hardtanh` from 0 to 6 instead."""


class _GuidedRectifier(torch.autograd.Function):
    """ReLU up to a ceiling; its backward pass keeps positive gradients where it was active."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < ceiling))
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (open_,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * open_, None


class GuidedMode(TorchFunctionMode):
    """A mode in which each ReLU is a guided one; `count` is the number of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        clipped = func is F.hardtanh and kwargs.get("min_val") == 0
        if func not in _CEILINGS and not clipped:
            return func(*args, **kwargs)
        self.count += 1
        return _GuidedRectifier.apply(args[0], kwargs["max_val"] if clipped else _CEILINGS[func])
