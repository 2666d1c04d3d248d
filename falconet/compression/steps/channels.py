"""Pruning of whole channels, the least important first.

The result is an ordinary module, which trains, saves, reloads (see `falconet.models.widths`) and exports as any
other. The network must be one of `create_model`, which knows its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from falconet.complexity import count_complexity
from falconet.compression.steps.channel_groups import (
    ChannelGroup,
    check_removal,
    cut_channels,
    find_groups,
    mark_removed,
)
from falconet.compression.steps.checks import is_fraction
from falconet.errors import ConfigError, UnknownNameError
from falconet.models.info import get_model_info
from falconet.models.widths import (
    ConvOrLinear,
)

ChannelScope = Literal["layer", "global"]

_MIN_CHANNELS = 0.1
"""Fraction of a group's channels that a ranking over all groups leaves at least: a layer of few channels is a
bottleneck. Set by hand, not tuned."""
_FINENESS = 256
"""Number of steps in which fractions of channels are tried to reach a fraction of MACs. Set by hand, not tuned."""


@dataclass(frozen=True)
class PruneChannels:
    """Removes the least important channels, whole layers' at a time where layers are tied to each other.

    Importance is the squared weights of a channel in all its layers (Fang et al., CVPR 2023, equation 4).

    Parameters
    ----------
    amount
        Fraction of channels that go, rounded down; or layer -> fraction, other layers whole. Of several layers whose
        channels are tied, the least fraction given counts.
    macs
        Instead: as few channels go as leave at most this fraction of the network's multiply-accumulates.
    scope
        `layer`: of each group of tied layers the same fraction, or a channel or block more where `macs` asks for it;
        `global`: of all groups together, each ranked by its own mean, so that some lose more than others, but none more
        than nine tenths.
    multiple
        Layers of so many channels or more keep a multiple of it, rounded up, or all: processors compute channels in
        blocks, of 8 or 16, and a block that is not full takes as long as one that is.

    Not pruned are the output, recurrent layers, embeddings, attention and what it adds to (of a transformer, the dense
    layers inside its blocks are), convolutions in groups other than depthwise, and what shortcuts without parameters
    tie (of resnet20 to 110, each block's inner channels are pruned).

    """

    amount: float | Mapping[str, float] | None = None
    macs: float | None = None
    scope: ChannelScope = "layer"
    multiple: int = 1
    structural: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ConfigError(f"multiple: wanted a number of channels from 1, found {self.multiple!r}")
        if (self.amount is None) == (self.macs is None):
            raise ConfigError(f"amount, macs: wanted one of them, found {self.amount!r} and {self.macs!r}")
        fractions = self.amount if isinstance(self.amount, Mapping) else {"amount": self.amount}
        for name, fraction in fractions.items():
            if fraction is not None and not is_fraction(fraction):
                raise ConfigError(f"{name}: wanted a fraction of channels from 0 to below 1, found {fraction!r}")
        if self.macs is not None and not (is_fraction(self.macs) and self.macs > 0):
            raise ConfigError(f"macs: wanted a fraction of MACs between 0 and 1, found {self.macs!r}")
        if self.scope not in get_args(ChannelScope):
            raise ConfigError(f"scope: wanted {' or '.join(get_args(ChannelScope))}, found {self.scope!r}")

    @torch.inference_mode(mode=False)
    def __call__(self, model: nn.Module) -> nn.Module:
        """Return a smaller copy.

        Raises MissingExtraError without torch-pruning; UnknownNameError for a layer that is not there; ConfigError for
        one that cannot be pruned, for a fraction of MACs out of reach, and for a network whose channels cannot be
        followed.
        """
        groups, reasons = find_groups(model)
        chosen = self.choose(model, groups, reasons)
        check_removal(model, groups, chosen)
        return cut_channels(model, groups, chosen)

    @torch.inference_mode(mode=False)
    def find_least(self, model: nn.Module) -> float:
        """Return about the least fraction of the MACs that removing channels leaves.

        Raises MissingExtraError without torch-pruning, and ConfigError where no channels can be found.
        """
        groups, _ = find_groups(model)
        costs = _count_costs(model)
        most = self.choose_fraction(groups, (_FINENESS - 1) / _FINENESS)
        return _estimate_macs(costs, groups, most) / max(sum(costs.values()), 1)

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        """Return the layers whose output channels all stay, each with the reason. Raises as a call does."""
        groups, reasons = find_groups(model)
        for group, channels in zip(groups, self.choose(model, groups, reasons), strict=True):
            if not len(channels):
                reasons |= {
                    name: f"none of {len(group.scores)} channels goes by this fraction"
                    for name in group.outs
                    if isinstance(model.get_submodule(name), ConvOrLinear)
                }
        return reasons

    def choose(self, model: nn.Module, groups: Sequence[ChannelGroup], reasons: Mapping[str, str]) -> list[Tensor]:
        """Return the channels of each group that go."""
        if self.macs is not None:
            return self.choose_for_macs(self.macs, model, groups)
        if isinstance(self.amount, Mapping):
            _check_names(self.amount, model, groups, reasons)
            chosen = [_choose_least(group, _find_fraction(self.amount, group)) for group in groups]
            return _fill_blocks(groups, chosen, self.multiple)
        assert self.amount is not None
        return self.choose_fraction(groups, self.amount)

    def choose_fraction(self, groups: Sequence[ChannelGroup], fraction: float) -> list[Tensor]:
        """Return the least important channels of each group, or of all together."""
        return _fill_blocks(groups, _choose_fraction(groups, fraction, self.scope), self.multiple)

    def choose_for_macs(self, macs: float, model: nn.Module, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Return few channels without which at most this fraction of MACs is left, by halving the interval.

        At the step that comes below it, only as many groups lose more as it takes, those of the least important first.
        """
        costs = _count_costs(model)

        def choose(step: int) -> list[Tensor]:
            return self.choose_fraction(groups, step / _FINENESS)

        def measure(chosen: Sequence[Tensor]) -> float:
            return _estimate_macs(costs, groups, chosen) / max(sum(costs.values()), 1)

        few, many = 0, _FINENESS - 1
        if measure(choose(many)) > macs:
            least = math.ceil(100 * measure(choose(many))) / 100
            raise ConfigError(f"macs: wanted a fraction from {least}, of this network, found {macs:.3g}")
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if measure(choose(middle)) <= macs else (middle, many)
        return _mix(choose(few), choose(many), groups, lambda chosen: measure(chosen) <= macs)


def _mix(
    chosen: Sequence[Tensor],
    rest: Sequence[Tensor],
    groups: Sequence[ChannelGroup],
    is_enough: Callable[[Sequence[Tensor]], bool],
) -> list[Tensor]:
    """Return one choice of channels, but another's in as many groups as it takes, the least important ones first."""
    lost = [
        group.scores[more].sum() - group.scores[gone].sum()
        for group, gone, more in zip(groups, chosen, rest, strict=True)
    ]
    made = list(chosen)
    for index in sorted(range(len(groups)), key=lost.__getitem__):
        if is_enough(made):
            break
        made[index] = rest[index]
    return made


def _count_costs(model: nn.Module) -> dict[str, int]:
    """Return layer -> multiply-accumulates for one input."""
    info = get_model_info(model)
    return {layer.name: layer.macs for layer in count_complexity(model, info.shape, kind=info.kind).layers}


def _estimate_macs(costs: Mapping[str, int], groups: Sequence[ChannelGroup], chosen: Sequence[Tensor]) -> float:
    """Return the MACs that are left: a layer's are in proportion to its outputs and to its inputs."""
    left: dict[str, float] = dict(costs)
    for side in ("outs", "ins"):
        for name, gone in mark_removed(groups, chosen, side).items():
            if name in left:
                left[name] *= 1 - float(gone.double().mean())
    return sum(left.values())


def _check_names(
    fractions: Mapping[str, float], model: nn.Module, groups: Sequence[ChannelGroup], reasons: Mapping[str, str]
) -> None:
    """Raise unless each layer is there and can be pruned."""
    known = {name for group in groups for name in group.outs}
    for name in fractions:
        if name in reasons:
            raise ConfigError(f"amount.{name}: wanted a layer that can be pruned, found {reasons[name]}")
        if name not in known:
            raise UnknownNameError("layer", name, known)


def _find_fraction(fractions: Mapping[str, float], group: ChannelGroup) -> float:
    return min((fractions[name] for name in group.outs if name in fractions), default=0.0)


def _choose_fraction(groups: Sequence[ChannelGroup], fraction: float, scope: ChannelScope) -> list[Tensor]:
    """Return the least important channels of each group, or of all together."""
    if scope == "layer":
        return [_choose_least(group, fraction) for group in groups]
    ranks = [_protect(group, _MIN_CHANNELS) for group in groups]
    everything = torch.cat([*ranks, torch.empty(0)])
    gone = torch.zeros(len(everything), dtype=torch.bool)
    gone[everything.argsort(stable=True)[: _round_down(fraction * len(everything))]] = True
    gone &= everything.isfinite()
    return [part.nonzero().flatten() for part in torch.split(gone, [len(scores) for scores in ranks])]


def _choose_least(group: ChannelGroup, fraction: float) -> Int64[Tensor, " removed"]:
    scores = _protect(group)
    most = min(_round_down(fraction * len(scores)), int(scores.isfinite().sum()))
    return scores.argsort(stable=True)[:most]


def _fill_blocks(groups: Sequence[ChannelGroup], chosen: Sequence[Tensor], multiple: int) -> list[Tensor]:
    """Return the channels that go, without the best ones of each layer whose last block would not be full."""
    return [_fill_block(group, gone, multiple) for group, gone in zip(groups, chosen, strict=True)]


def _fill_block(group: ChannelGroup, gone: Tensor, multiple: int) -> Int64[Tensor, " removed"]:
    """Return the channels of one group that go; layers over several others' channels come after them."""
    going = torch.zeros(len(group.scores), dtype=torch.bool).index_fill(0, gone, True)
    layers = [torch.unique(owners[owners >= 0]) for owners in group.outs.values()]
    for own in sorted(layers, key=len):
        removed = own[going[own]]
        missing = -(len(own) - len(removed)) % multiple if len(own) >= multiple else 0
        going[removed[group.scores[removed].argsort(descending=True, stable=True)[:missing]]] = False
    return going.nonzero().flatten()


def _protect(group: ChannelGroup, least: float = 0.0) -> Float[Tensor, " channels"]:
    """Return a group's scores, infinite where a channel must stay: the best ones and each layer's last one.

    Layers that are concatenated make different channels of one group, so that some could lose all.
    """
    scores = group.scores.clone()
    scores[group.scores.topk(math.ceil(least * len(scores))).indices] = math.inf
    for owners in group.outs.values():
        own = owners[owners >= 0]
        scores[own[group.scores[own].argmax()]] = math.inf
    return scores


def _round_down(number: float) -> int:
    """Return the whole number below, where 0.7 * 10 counts as 7."""
    return math.floor(number + 1e-9)
