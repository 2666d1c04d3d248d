"""Groups of channels that must be pruned together, by torch-pruning's dependency graph, and the pruning itself.

Fang, Ma, Song, Mi and Wang, "DepGraph: towards any structural pruning" (CVPR 2023). The graph only says which entries
of which layers belong to one channel; layers are cut by `falconet.models.widths.resize_layer`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from falconet.errors import ConfigError, MissingExtraError
from falconet.models.info import ModelInfo, find_trainable_classifiers, get_model_info
from falconet.models.widths import ConvOrLinear, count_widths, is_depthwise, resize_layer

_CHANNELWISE = frozenset(
    (
        *("Relu", "LeakyRelu", "Elu", "Silu", "Gelu", "Mish", "Tanh", "Sigmoid"),
        *("Hardtanh", "Hardswish", "Hardsigmoid", "Softplus", "NativeDropout"),
        *("Add", "Sub", "Mul", "Div", "MaskedFill", "Mean", "Sum"),
        *("AvgPool2D", "AdaptiveAvgPool2D", "MaxPool2DWithIndices", "AdaptiveMaxPool2D", "ConstantPadNd"),
        *("Clone", "Alias", "Squeeze", "Unsqueeze", "Select", "Transpose", "Permute"),
        *("T", "Addmm", "Mm"),
    )
)
"""Operations, by autograd's names, that treat all channels alike and each by itself.

The matrix products are those of dense layers, which autograd shows beside them.
"""
_JOINTS = frozenset({"_ConcatOp", "_ReshapeOp"})
"""Operations, by torch-pruning's names, through which it follows single channels: concatenation and flattening."""
_EXAMPLES = 4
_TOLERANCE = 1e-6
"""Largest difference of logits in double precision, as a fraction of the largest one. Set by hand: far above rounding,
far below a lost channel."""


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels of one or several layers that can only be pruned together."""

    name: str
    """Name of the first layer that produces the channels."""
    scores: Float[Tensor, " channels"]
    """Importance: the channels' squared weights in all layers, the group's mean 1."""
    outs: Mapping[str, Int64[Tensor, "_"]]
    """Layer or normalization -> index in this group of each of its output channels; -1: none."""
    ins: Mapping[str, Int64[Tensor, "_"]]
    """Layer -> index in this group of each of its input channels; -1: none."""


@torch.inference_mode(mode=False)
def find_groups(model: nn.Module) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Return the groups of channels that can be cut, and why the other layers' cannot.

    Raises MissingExtraError without torch-pruning, and ConfigError where the network's input is not known.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtraError("compress", "pruning channels") from error
    network = copy.deepcopy(model).eval().requires_grad_()
    _simplify_recurrent_layers(network)
    names = {module: name for name, module in network.named_modules()}
    outputs = {network.get_submodule(name) for name in find_trainable_classifiers(network)}
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    graph = _build_graph(network, torch_pruning.DependencyGraph())
    groups: list[ChannelGroup] = []
    reasons: dict[str, str] = {}
    seen: set[str] = set()
    for module, name in names.items():
        if name in seen or not isinstance(module, ConvOrLinear) or module not in graph.module2node:
            continue
        try:
            found = graph.get_pruning_group(module, _choose_cut(module, graph), list(range(count_widths(module)[0])))
        except Exception:  # The library fails as it likes.
            reasons[name] = "torch-pruning cannot follow its channels"
            continue
        made = {names[item.dep.target.module] for item in found if _is_made(item, graph)}
        seen |= made
        reason = _find_obstacle(found, graph, outputs, names)
        if reason is None:
            groups.append(_translate(found, graph, importance(found), names))
        else:
            reasons |= dict.fromkeys(made, reason)
    grouped = {name for group in groups for name in group.outs}
    for name, module in model.named_modules():
        if has_matrix(module):
            reasons.setdefault(name, f"{type(module).__name__} keeps its width")
    return groups, {name: reason for name, reason in reasons.items() if name not in grouped}


def _simplify_recurrent_layers(network: nn.Module) -> None:
    """Let one matrix product stand for each recurrent layer, whose channels stay in any case.

    Torch-pruning would follow the operations of every time step, which takes minutes for some tens of them.
    """
    for name, module in [*network.named_modules()]:
        if isinstance(module, nn.RNNBase):
            network.set_submodule(name, _SimplifiedRecurrent(module))


class _SimplifiedRecurrent(nn.Module):
    """A product with the shapes of a recurrent layer's inputs, outputs and states, of which none is projected."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer_type = type(layer).__name__
        self.has_cell = layer.mode == "LSTM"
        self.directions = 2 if layer.bidirectional else 1
        self.num_layers = layer.num_layers
        self.time_axis = 1 if layer.batch_first else 0
        width = (layer.proj_size or layer.hidden_size) * self.directions
        self.weight = nn.Parameter(torch.zeros(layer.input_size, width))

    def forward(
        self, x: Float[Tensor, "_ _ features"], state: object = None
    ) -> tuple[Float[Tensor, "_ _ width"], Tensor | tuple[Tensor, Tensor]]:
        outputs = x @ self.weight
        ends = outputs.select(self.time_axis, -1).chunk(self.directions, dim=1)
        states = torch.stack(ends * self.num_layers)
        return outputs, (states, states) if self.has_cell else states


def _build_graph(network: nn.Module, graph: Any) -> Any:
    """Return torch-pruning's graph of a network, followed through a forward pass. Raises ConfigError where it fails."""
    blank = get_model_info(network).make_blank()
    try:
        with torch.enable_grad():
            return graph.build_dependency(network, blank, verbose=False)
    except Exception as error:  # The library fails as it likes at operations that it does not know.
        raise _make_untraceable_error(f"{type(error).__name__}: {error}") from error


def _choose_cut(layer: ConvOrLinear, graph: Any) -> Any:
    """Return torch-pruning's operation that takes away outputs of a layer."""
    return graph.get_pruner_of_module(layer).prune_out_channels


def _is_made(item: Any, graph: Any) -> bool:
    """Tell whether an item of torch-pruning's group is about the outputs of a layer with weights."""
    return isinstance(item.dep.target.module, ConvOrLinear) and graph.is_out_channel_pruning_fn(item.dep.handler)


def has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def _find_obstacle(group: Any, graph: Any, outputs: set[nn.Module], names: Mapping[nn.Module, str]) -> str | None:
    """Return why the channels of torch-pruning's group must stay; None where they need not."""
    for item in group:
        node, module = item.dep.target, item.dep.target.module
        if isinstance(module, nn.Parameter):
            return _describe_owner(module, names)
        if _is_made(item, graph) and module in outputs:
            return "the output layer, whose classes stay"
        if module in names:
            if not _is_known(module):
                return f"tied to {names[module]} ({type(module).__name__})"
        elif not (type(module).__name__ in _JOINTS or _is_channelwise(node.grad_fn)):
            return f"tied to an operation that mixes or moves channels, {node.grad_fn.name().rpartition('Backward')[0]}"
    if any(len(set(item.idxs)) < len(item.idxs) for item in group):
        return "tied to a layer that sees its channels twice"
    return None


def _describe_owner(parameter: nn.Parameter, names: Mapping[nn.Module, str]) -> str:
    """Return why channels stay that torch-pruning ties to a parameter which it knows no layer of."""
    for module, name in names.items():
        if isinstance(module, _SimplifiedRecurrent) and module.weight is parameter:
            return f"tied to {name} ({module.layer_type})"
    return "tied to a parameter outside of layers"


def _is_known(module: nn.Module) -> bool:
    """Tell whether a module can be cut, or has nothing to cut."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return module.groups == 1 or is_depthwise(module)
    return isinstance(module, nn.Linear | _BatchNorm) or not [*module.parameters(), *module.buffers()]


def _is_channelwise(operation: Any) -> bool:
    """Tell whether an operation of autograd's treats all channels alike."""
    name = operation.name().rpartition("Backward")[0]
    if name == "ConstantPadNd":
        dimensions = len(operation._input_metadata[0].shape)
        return not any(operation._saved_pad[2 * (dimensions - 2) :])
    return name in _CHANNELWISE


def _translate(group: Any, graph: Any, scores: Tensor, names: Mapping[nn.Module, str]) -> ChannelGroup:
    """Return torch-pruning's group in this file's form, without its operations."""
    sides: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for item in group:
        module = item.dep.target.module
        if not isinstance(module, ConvOrLinear | _BatchNorm):
            continue
        made = graph.is_out_channel_pruning_fn(item.dep.handler)
        width = module.num_features if isinstance(module, _BatchNorm) else count_widths(module)[0 if made else 1]
        owners = sides[0 if made else 1].setdefault(names[module], torch.full((width,), -1))
        owners[item.idxs] = torch.tensor(item.root_idxs)
    # A group without any weights has no importance to be shared out.
    return ChannelGroup(names[group[0].dep.target.module], scores.nan_to_num(1.0).cpu(), *sides)


Chosen = Sequence[Int64[Tensor, "_"]]
"""Indices of the channels to remove, for each group."""


def cut_channels(model: nn.Module, groups: Sequence[ChannelGroup], chosen: Chosen) -> nn.Module:
    """Return a copy of a network without the chosen channels of each group."""
    pruned = copy.deepcopy(model)
    for side in ("outs", "ins"):
        for name, gone in mark_removed(groups, chosen, side).items():
            resize_layer(_find_cut(pruned, name), **{side: (~gone).nonzero().flatten()})
    return pruned


def zero_channels(model: nn.Module, groups: Sequence[ChannelGroup], chosen: Chosen) -> nn.Module:
    """Return a copy of a network of the same size, the weights of the chosen channels zero wherever they stand."""
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for side in ("outs", "ins"):
            for name, gone in mark_removed(groups, chosen, side).items():
                layer = _find_cut(silent, name)
                for parameter in layer.parameters(recurse=False):
                    if side == "outs":
                        parameter[gone] = 0
                    elif parameter.ndim > 1:
                        parameter[:, gone] = 0
    return silent


def mark_removed(groups: Sequence[ChannelGroup], chosen: Chosen, side: str) -> dict[str, Tensor]:
    """Return for each layer that loses something which of its outputs or inputs go."""
    marked: dict[str, Tensor] = {}
    for group, channels in zip(groups, chosen, strict=True):
        for name, owners in getattr(group, side).items():
            gone = torch.isin(owners, channels)
            if gone.any():
                marked[name] = marked[name] | gone if name in marked else gone
    return marked


def _find_cut(model: nn.Module, name: str) -> ConvOrLinear | _BatchNorm:
    module = model.get_submodule(name)
    assert isinstance(module, ConvOrLinear | _BatchNorm)
    return module


@torch.no_grad()
def check_removal(model: nn.Module, groups: Sequence[ChannelGroup], chosen: Chosen) -> None:
    """Raise ConfigError unless a network without channels gives the logits of the whole one with these at zero.

    So no mistake of the graph, which knows other libraries' networks by their traces alone, goes unseen.
    """
    example = _draw_example(get_model_info(model))
    answers = []
    for network in (cut_channels(model, groups, chosen), zero_channels(model, groups, chosen)):
        network.eval().double()
        for module in network.modules():
            if isinstance(module, _BatchNorm):  # By the batch's own statistics, or nothing would pass untrained layers.
                module.train()
        try:
            answers.append(network(example))
        except (RuntimeError, ValueError, IndexError) as error:
            raise _make_untraceable_error(" ".join(str(error).split())) from error
    pruned, silent = answers
    difference, most = float((pruned - silent).abs().max()), float(silent.abs().max())
    if not difference <= _TOLERANCE * most:
        raise _make_untraceable_error(f"logits off by {difference:.2g}, of up to {most:.2g}")


def _make_untraceable_error(reason: str) -> ConfigError:
    return ConfigError(f"model: wanted a network whose channels can be followed, found another: {reason}")


def _draw_example(info: ModelInfo) -> Tensor:
    """Return an example batch, in double precision unless it is text."""
    blank = info.make_blank().expand(_EXAMPLES, *info.shape)
    if not blank.is_floating_point():
        return blank
    return torch.randn(blank.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
