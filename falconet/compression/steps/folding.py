"""`fold_batchnorm`: batch normalization becomes a part of the layer before it."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from falconet.models.efficientnet import SameConv2d
from falconet.models.info import get_model_info
from falconet.models.resnet import StepNorm
from falconet.models.widths import SPLITTABLE, ConvOrLinear, Folded, replace_module

_FOLDING = (*SPLITTABLE, SameConv2d)
_FOLDED_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, StepNorm)
"""Classes of normalization that are folded, without subclasses: these may do more, as timm's with an activation."""


@dataclass(frozen=True)
class FoldBatchNorm:
    """Takes batch normalization into the convolution or dense layer before it, where that one feeds nothing else.

    In eval mode, answers stay the same: the layer's outputs are scaled and moved as the running statistics say (Jacob
    et al., CVPR 2018, section 3.2), and an identity stands where the normalization was. Training then goes on without
    normalization.
    """

    structural: ClassVar[bool] = True

    @torch.inference_mode(mode=False)
    def __call__(self, model: nn.Module) -> nn.Module:
        """Return a copy with normalization folded. Raises ConfigError where the network's input is not known."""
        folded = copy.deepcopy(model)
        for norm_name, layer_name in _find_folds(model)[0].items():
            layer, norm = folded.get_submodule(layer_name), folded.get_submodule(norm_name)
            assert isinstance(layer, ConvOrLinear)
            assert isinstance(norm, _BatchNorm)
            _fold(layer, norm)
            replace_module(folded, norm_name, Folded())
        return folded

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        """Return the normalizations that stay, each with the reason."""
        return _find_folds(model)[1]


def _fold(layer: ConvOrLinear, norm: _BatchNorm) -> None:
    """Scale and move a layer's outputs as a normalization does, in place."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # Both functions take None for missing weights, which their annotations do not say.
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    layer.weight, layer.bias = fuse(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    layer.bias.requires_grad_(layer.weight.requires_grad)  # Of a layer that had none, they leave it frozen.


@torch.inference_mode(mode=False)
def _find_folds(model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Return normalization -> layer for those that can be folded, and why the other normalizations cannot.

    Followed by autograd's graph of a forward pass: a layer feeds its normalization alone where no other operation takes
    what the layer made.
    """
    network = copy.deepcopy(model).eval().requires_grad_()
    calls, consumers = _trace(network)
    makers = {
        call.made: (name, call)
        for name, module in network.named_modules()
        for call in calls.get(module, [])
        if type(module) in _FOLDING and len(calls[module]) == 1
    }
    folds, reasons = {}, {}
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
            continue
        found = [makers.get(call.taken) for call in calls.get(module, [])]
        if type(module) not in _FOLDED_NORMS or module.running_mean is None:
            reasons[name] = f"{type(module).__name__} is no plain batch normalization with running statistics"
        elif len(found) != 1:
            reasons[name] = f"called {len(found)} times in a forward pass"
        elif found[0] is None:
            reasons[name] = "follows no convolution or dense layer directly"
        elif consumers[found[0][1].made] > 1:
            reasons[name] = f"{found[0][0]} feeds more than this normalization"
        elif isinstance(network.get_submodule(found[0][0]), nn.Linear) and found[0][1].dimensions != 2:
            reasons[name] = f"normalizes the steps that {found[0][0]} makes, not its units"
        else:
            folds[name] = found[0][0]
    return folds, reasons


@dataclass(frozen=True)
class _Call:
    """A module's call, by the nodes of autograd's graph."""

    taken: Any
    """Node that made the input; None: the network's input."""
    made: Any
    dimensions: int
    """Number of dimensions of the output."""


def _trace(network: nn.Module) -> tuple[dict[nn.Module, list[_Call]], Counter[Any]]:
    """Return the calls of layers and normalizations in a forward pass, and how many nodes take what each node made."""
    calls: dict[nn.Module, list[_Call]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.setdefault(module, []).append(_Call(inputs[0].grad_fn, output.grad_fn, output.ndim))

    hooks = [
        each.register_forward_hook(note) for each in network.modules() if isinstance(each, ConvOrLinear | _BatchNorm)
    ]
    with torch.enable_grad():
        waiting = [network(get_model_info(network).make_blank()).grad_fn]
    for hook in hooks:
        hook.remove()
    consumers: Counter[Any] = Counter()
    seen = set(waiting)
    while waiting:
        for source, _ in waiting.pop().next_functions:
            consumers[source] += 1
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return calls, consumers


def fold_batchnorm() -> FoldBatchNorm:
    """Return the step that folds batch normalization into the layers before it; see `FoldBatchNorm`."""
    return FoldBatchNorm()
