"""Pruning of single weights by size, by layer-adaptive size, or by learned scores, at once or gradually."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from falconet.compression.steps.channels import PruneChannels
from falconet.compression.steps.checks import (
    check_step_choice,
    check_step_fraction,
    check_step_switch,
    explain_skipped,
    select_weights,
)
from falconet.compression.steps.constraints import Constrained, Mask, Schedule, constrain
from falconet.compression.steps.step import Step
from falconet.errors import ConfigError

Criterion = Literal["magnitude", "movement"]
_Scope = Literal["layer", "global", "lamp"]
PruneSchedule = Literal["now", "cubic"]
Structure = Literal["weight", "channel"]
_Scores = dict[str, Tensor]

RAMP = 0.6
"""Fraction of the training in which the cubic schedule prunes; the remaining weights learn in the rest. Set by hand,
not tuned."""
_SETTLED = 0.8
"""Fraction of the training after which no weight is pruned or comes back any more. Set by hand, not tuned."""
_UPDATES = 200
"""Most times that weights are ranked during training: ranking all takes longer than a small network's step. Set by
hand, not tuned."""


@dataclass(frozen=True)
class PruneWeights:
    """Single weights become zero, in all parameters of two or more dimensions. Raises ConfigError for bad settings."""

    amount: float | Mapping[str, float]
    """Fraction of these weights that are zero in the end, from 0 to below 1; or the fraction for each parameter's name,
    with those that are not named left dense. Rounded to whole weights; where layers are alike, one is always kept."""
    criterion: Criterion = "magnitude"
    """`magnitude`: the smallest go (Han et al.: Learning both weights and connections. NeurIPS 2015). `movement`: those
    with the lowest trained scores go (Sanh et al., 2020), which is for fine-tuning; until trained, the smallest."""
    scope: _Scope = "layer"
    """`layer`: the same fraction of each. `global`: one threshold for all, which may empty a layer whose weights are
    small. `lamp`: one threshold for squares divided by the sum of all squares of their layer that are not smaller (Lee
    et al.: Layer-adaptive sparsity for the magnitude-based pruning. ICLR 2021), which keeps some of each."""
    schedule: PruneSchedule = "now"
    """`now`, or `cubic`: with the calls of `Constrained.advance`, from the present zeros to `amount`, fast at first."""
    regrow: bool = False
    """Whether latent weights behind zeros go on learning, and come back when they outgrow others."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_step_fraction("amount", self.amount)
        for name, known in (("criterion", Criterion), ("scope", _Scope), ("schedule", PruneSchedule)):
            check_step_choice(name, getattr(self, name), get_args(known))
        check_step_switch("regrow", self.regrow)
        if isinstance(self.amount, Mapping) and self.scope != "layer":
            raise ConfigError(f"scope: wanted layer, since amounts are given by name, found {self.scope}")
        if self.criterion == "movement" and self.scope == "lamp":
            raise ConfigError("scope: wanted layer or global, since lamp ranks sizes, found lamp with movement")

    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        amounts = select_weights(constrained, self.amount, "amount")
        places = {}
        for name in amounts:
            places[name] = len(constrained.list_constraints(name))
            kept = torch.ones_like(constrained.constrain(name), dtype=torch.bool)
            mask = Mask(kept, regrow=self.regrow, scored=self.criterion == "movement")
            constrained.append(name, mask)
        if places:
            pruning = _Pruning(self, amounts, places, constrained)
            constrained.schedules.append(pruning.train(constrained.training))
            pruning.update(constrained)
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        return explain_skipped(model, self.amount, "amount")


def prune(
    amount: float | Mapping[str, float],
    structure: Structure = "weight",
    criterion: Criterion = "magnitude",
    scope: _Scope = "layer",
    schedule: PruneSchedule = "now",
    regrow: bool = False,
) -> Step:
    """Return the step that takes single weights (see `PruneWeights`) or whole channels (see `PruneChannels`).

    All but `amount` is for weights. Raises ConfigError for bad settings.
    """
    check_step_choice("structure", structure, get_args(Structure))
    weights = PruneWeights(amount, criterion, scope, schedule, regrow)
    if structure == "weight":
        return weights
    if weights != PruneWeights(amount):
        raise ConfigError("structure: wanted weight for criterion, scope, schedule or regrow, found channel")
    return PruneChannels(amount)


class _Pruning(Schedule):
    """The masks of one step: how many weights they take, and which, as training goes on."""

    def __init__(
        self, step: PruneWeights, amounts: Mapping[str, float], places: Mapping[str, int], constrained: Constrained
    ) -> None:
        super().__init__()
        self.step = step
        self.amounts = dict(amounts)
        self.places = dict(places)
        zeros = {name: int((constrained.constrain(name) == 0).sum()) for name in places}
        self.start = self.measure_sparsities(zeros, constrained)
        self.progress: Tensor
        self.register_buffer("progress", torch.tensor(1.0 if step.schedule == "now" else 0.0))
        # The fraction of the training at which weights were ranked last; checkpoints know it by this name.
        self.heard: Tensor
        self.register_buffer("heard", torch.tensor(-1.0))

    def measure_sparsities(self, zeros: Mapping[str, int], constrained: Constrained) -> dict[str, float]:
        """Return the fraction of zeros in each tensor, or in all of them where they are ranked together."""
        sizes = {name: self.find_mask(constrained, name).kept.numel() for name in zeros}
        if self.step.scope == "layer":
            return {name: zeros[name] / sizes[name] for name in zeros}
        return dict.fromkeys(zeros, sum(zeros.values()) / sum(sizes.values()))

    @torch.no_grad()
    def advance(self, constrained: Constrained, fraction: float) -> None:
        done = min(max(fraction, 0.0), 1.0)
        settled = float(self.progress) >= 1 and not self.step.regrow and self.step.criterion == "magnitude"
        # Ranking all weights takes longer than a small network's step; masks hardly change from one to the next.
        if settled or float(self.heard) >= _SETTLED or (done < float(self.heard) + 1 / _UPDATES and done < _SETTLED):
            return
        self.heard.fill_(done)
        self.progress.clamp_(min=min(done / RAMP, 1.0))
        self.update(constrained)

    @torch.no_grad()
    def update(self, constrained: Constrained) -> None:
        """Compute the masks anew from the weights or scores as they are."""
        fractions = {name: self.find_sparsity(name) for name in self.places}
        masks = {name: self.find_mask(constrained, name) for name in self.places}
        values = {name: constrained.constrain(name, place) for name, place in self.places.items()}
        if self.step.scope == "layer":
            kept = {name: self.choose({name: masks[name]}, values, fractions[name])[name] for name in masks}
        else:
            kept = self.choose(masks, values, next(iter(fractions.values())))
        for name, mask in masks.items():
            mask.kept.copy_(kept[name])

    def choose(self, masks: dict[str, Mask], values: _Scores, fraction: float) -> dict[str, Bool[Tensor, "..."]]:
        """Return which weights are kept in tensors that are ranked together."""
        final = not (self.step.regrow or self.step.criterion == "movement")
        sizes = {name: values[name].abs() for name in masks}
        if final:
            sizes = {name: sizes[name] * masks[name].kept for name in masks}
        if self.step.scope == "lamp":
            sizes = {name: rank_adaptively(size) for name, size in sizes.items()}
        first = torch.cat([size.flatten() for size in sizes.values()])
        scores = [mask.scores.flatten() for mask in masks.values() if mask.scores is not None]
        kept = keep_highest(first, torch.cat(scores) if scores else None, fraction)
        parts = torch.split(kept, [mask.kept.numel() for mask in masks.values()])
        chosen = {name: part.view(masks[name].kept.shape) for name, part in zip(masks, parts, strict=True)}
        return {name: chosen[name] & masks[name].kept for name in masks} if final else chosen

    def find_sparsity(self, name: str) -> float:
        """Return the fraction of zeros at this point of training (Zhu, Gupta: To prune, or not. 2017, equation 1)."""
        amount = self.amounts[name]
        return amount + (self.start[name] - amount) * (1 - float(self.progress)) ** 3

    def find_mask(self, constrained: Constrained, name: str) -> Mask:
        mask = constrained.list_constraints(name)[self.places[name]]
        assert isinstance(mask, Mask)
        return mask

    def extra_repr(self) -> str:
        return f"{self.step}"


def keep_highest(
    sizes: Float[Tensor, " weights"], scores: Float[Tensor, " weights"] | None, fraction: float
) -> Bool[Tensor, " weights"]:
    """Return which weights stay when a fraction of them goes: those of the lowest scores, among equals the smallest."""
    order = sizes.argsort(stable=True)
    if scores is not None:
        order = order[scores[order].argsort(stable=True)]
    count = min(round(fraction * len(sizes)), len(sizes) - 1)
    kept = torch.ones_like(sizes, dtype=torch.bool)
    kept[order[:count]] = False
    return kept


def rank_adaptively(sizes: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return LAMP's scores: each square divided by the sum of it and all larger ones (Lee et al., 2021, equation 2)."""
    squares, order = sizes.double().square().flatten().sort()
    rest = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = (squares / rest).nan_to_num(0.0)
    return scores.view(sizes.shape)
