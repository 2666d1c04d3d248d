"""`cluster`: weights share few values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from falconet.compression.steps.checks import check_whole, explain_skipped, find_zeros, select_weights
from falconet.compression.steps.constraints import Codebook, Constrained, constrain
from falconet.compression.steps.fitting import find_members, fit_centroids


@dataclass(frozen=True)
class Cluster:
    """Weights share few values; see `Codebook`. Raises ConfigError for bad settings."""

    levels: int | Mapping[str, int]
    """Number of values besides zero that a parameter may have, 1 to 256; or the number for each parameter's name."""
    structural: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole("levels", self.levels, 1, 256)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Constrained:
        constrained = constrain(model)
        empty = find_zeros(constrained)
        for name, levels in select_weights(constrained, self.levels, "levels").items():
            if name not in empty:
                values = constrained.constrain(name)
                centroids = fit_centroids(values[values != 0], levels)
                constrained.append(name, Codebook(find_members(values, centroids), centroids))
        return constrained

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        return find_zeros(model) | explain_skipped(model, self.levels, "levels")


def cluster(levels: int | Mapping[str, int]) -> Cluster:
    """Return the step that lets weights share values."""
    return Cluster(levels)
