"""Networks that are smaller than their architecture: what differs, as JSON, and how to build them from it.

Pruned channels, factorized layers and folded normalization leave ordinary modules of other sizes. `read_widths` says
which; `apply_widths` makes them of the architecture that `create_model` builds. Entries by kind of layer:

    convolution, dense      [out, in], or a mapping of what differs among out, in, rank (see `Factorized`) and bias
                            (true: the layer has one, unlike the architecture's)
    depthwise convolution   its number of channels, or a mapping of what differs among out and bias
    batch normalization     its number of channels, or "folded" (see `Folded`)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from falconet.errors import ConfigError, abridge

_FOLDED = "folded"
SPLITTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Types of layers that `Factorized` can replace; subclasses, which compute otherwise, are left alone."""

ConvOrLinear = nn.Conv1d | nn.Conv2d | nn.Linear


class Factorized(nn.Sequential):
    """A layer as two: one to `rank` units or channels, without bias, then a dense one or a convolution of 1x1.

    Zhang, Zou, He and Sun, "Accelerating very deep convolutional networks for classification and detection" (TPAMI
    2016), section 3.1. Built with fresh weights.
    """

    def __init__(self, layer: ConvOrLinear, rank: int) -> None:
        outs, ins = count_widths(layer)
        place: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        last = {"bias": layer.bias is not None, **place}
        if isinstance(layer, nn.Linear):
            super().__init__(nn.Linear(ins, rank, bias=False, **place), nn.Linear(rank, outs, **last))
            return
        kind: Any = type(layer)
        settings = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        first = kind(ins, rank, bias=False, **{name: getattr(layer, name) for name in settings}, **place)
        super().__init__(first, kind(rank, outs, 1, **last))


class Folded(nn.Identity):
    """An identity in the place of a normalization that is folded into its layer; it takes any arguments of that one."""

    def forward(self, input: Float[Tensor, "*shape"], *_: Any) -> Float[Tensor, "*shape"]:  # noqa: A002
        return input


def read_widths(model: nn.Module, dense: nn.Module) -> dict[str, Any] | None:
    """Return what `apply_widths` needs to make `dense`, the architecture, into a module such as `model`.

    None: they do not differ. Both stay as they are; `dense` may be on the device `meta`. Raises ConfigError where they
    differ in other ways than the head of this file knows.
    """
    modules = dict(model.named_modules())
    entries = {name: _describe(modules.get(name), whole) for name, whole in dense.named_modules()}
    widths = {name: entry for name, entry in entries.items() if entry is not None}
    wanted, found = _list_shapes(apply_widths(copy.deepcopy(dense), widths)), _list_shapes(model)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            shapes = f"wanted shape {wanted.get(name)}, found {found.get(name)}"
            raise ConfigError(f"model: {name} differs from the architecture by more than its width: {shapes}")
    return widths or None


def _describe(found: nn.Module | None, whole: nn.Module) -> Any:
    """Return the entry of a layer, or None where it is as the architecture has it, or of no kind that has one."""
    if isinstance(whole, _BatchNorm):
        if isinstance(found, Folded):
            return _FOLDED
        width = found.num_features if isinstance(found, _BatchNorm) else whole.num_features
        return None if width == whole.num_features else width
    first, last = found if isinstance(found, Factorized) else (found, found)
    if not isinstance(whole, ConvOrLinear) or not isinstance(first, ConvOrLinear) or not isinstance(last, ConvOrLinear):
        return None
    sizes = {"out": count_widths(last)[0], "in": count_widths(first)[1]}
    entry: dict[str, Any] = {key: sizes[key] for key, size in _find_sizes(whole).items() if sizes[key] != size}
    if first is not last:
        entry["rank"] = count_widths(first)[0]
    if whole.bias is None and last.bias is not None:
        entry["bias"] = True
    if not entry or not entry.keys() <= sizes.keys():
        return entry or None
    return entry["out"] if is_depthwise(whole) else list(sizes.values())


def apply_widths(model: nn.Module, widths: Mapping[str, Any]) -> nn.Module:
    """Make a module of the architecture's sizes into one of these sizes, in place, with meaningless weights; return it.

    No layer gets wider than the architecture has it. Raises ConfigError for a layer that is not there and for a size
    that it cannot have; whether layers fit each other shows when the module is called.
    """
    modules = dict(model.named_modules())
    for name, entry in widths.items():
        module, path = modules.get(name), f"widths.{name}"
        if isinstance(module, _BatchNorm) and entry == _FOLDED:
            replace_module(model, name, Folded())
        elif isinstance(module, _BatchNorm):
            _check_width(path, entry, module.num_features)
            resize_layer(module, outs=torch.arange(entry))
        elif isinstance(module, ConvOrLinear):
            replace_module(model, name, _shrink_layer(module, _spell_out(entry, module, path), path))
        else:
            raise ConfigError(f"{path}: wanted the name of a convolution, a dense layer or a batch normalization")
    return model


def _spell_out(entry: Any, layer: ConvOrLinear, path: str) -> Mapping[str, Any]:
    """Return a layer's entry as a mapping of known keys. Raises ConfigError where it is none."""
    if is_depthwise(layer) and isinstance(entry, int):
        entry = {"out": entry}
    elif isinstance(entry, list | tuple) and len(entry) == 2 and not is_depthwise(layer):
        entry = dict(zip(("out", "in"), entry, strict=True))
    known = _find_sizes(layer)
    if type(layer) in SPLITTABLE and count_groups(layer) == 1:
        known["rank"] = min(known["out"], layer.weight[0].numel())
    if not isinstance(entry, Mapping) or not entry.keys() <= {*known, "bias"}:
        raise ConfigError(f"{path}: wanted widths among {', '.join((*known, 'bias'))}, found {abridge(entry)}")
    for key in entry.keys() & known.keys():
        _check_width(f"{path}.{key}", entry[key], known[key])
    if entry.get("bias", True) is not True:
        raise ConfigError(f"{path}.bias: wanted true or nothing, found {abridge(entry['bias'])}")
    return entry


def _check_width(path: str, width: Any, most: int) -> None:
    """Raise ConfigError unless a width is one that a layer of the architecture can be cut to."""
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= most:
        raise ConfigError(f"{path}: wanted a whole number from 1 to {most}, found {abridge(width)}")


def _shrink_layer(layer: ConvOrLinear, entry: Mapping[str, Any], path: str) -> nn.Module:
    """Return a layer, cut in place, or what stands for it. Raises ConfigError where factors are larger than it was."""
    dense = layer.weight.numel()
    outs, ins = (torch.arange(entry[key]) if key in entry else None for key in ("out", "in"))
    resize_layer(layer, outs=outs, ins=ins)
    if "bias" in entry:
        _add_bias(layer)
    if "rank" not in entry:
        return layer
    if count_factors(layer, entry["rank"]) > dense:
        raise ConfigError(f"{path}.rank: wanted factors smaller than the layer, found {abridge(entry['rank'])}")
    return Factorized(layer, entry["rank"])


def resize_layer(
    layer: ConvOrLinear | _BatchNorm,
    *,
    outs: Int64[Tensor, " out"] | None = None,
    ins: Int64[Tensor, " in"] | None = None,
) -> None:
    """Keep only these output and input channels of a layer, in place; None: all of them.

    A depthwise convolution, of which each channel is both, and a normalization take `outs` alone.
    """
    if outs is not None:
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if tensor.ndim:  # All but the number of batches that a normalization has seen.
                _keep_entries(layer, name, outs, 0)
    if ins is not None:
        _keep_entries(layer, "weight", ins, 1)
    if isinstance(layer, _BatchNorm):
        layer.num_features = layer.num_features if outs is None else len(outs)
        return
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
        return
    if is_depthwise(layer):
        layer.in_channels = layer.groups = len(layer.weight)
    elif layer.groups == 1:
        layer.in_channels = layer.weight.shape[1]
    layer.out_channels = len(layer.weight)


def _keep_entries(layer: nn.Module, name: str, kept: Int64[Tensor, " kept"], dim: int) -> None:
    """Put a tensor that has only some entries along a dimension in the place of a layer's own."""
    old: Tensor = getattr(layer, name)
    new = old.detach().index_select(dim, kept.to(old.device))
    setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _add_bias(layer: ConvOrLinear) -> None:
    """Give a layer without bias one of zeros."""
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), layer.weight.requires_grad)


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def count_widths(layer: ConvOrLinear) -> tuple[int, int]:
    """Return the numbers of a layer's output and input channels."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels


def _find_sizes(layer: ConvOrLinear) -> dict[str, int]:
    """Return the widths that a layer can be cut from; those of a convolution in groups stand."""
    outs, ins = count_widths(layer)
    if is_depthwise(layer):
        return {"out": outs}
    return {"out": outs, "in": ins} if count_groups(layer) == 1 else {}


def count_factors(layer: ConvOrLinear, rank: int) -> int:
    """Return the number of weights that a layer has as two of this rank."""
    return rank * (len(layer.weight) + layer.weight[0].numel())


def count_groups(layer: ConvOrLinear) -> int:
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether a convolution filters each channel by itself."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return False
    return 1 < layer.groups == layer.in_channels == layer.out_channels


def _list_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
