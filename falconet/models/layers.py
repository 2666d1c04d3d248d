"""Layers that several families share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models.info import find_classifiers, get_model_info

MIN_SQUEEZED = 4
"""Fewest squeezed channels, as in the narrowest published network; networks for small images would have only one."""


class SqueezeExcitation(nn.Module):
    """Weights each channel by what a small network sees in the means of all (Hu, Shen, Sun, CVPR 2018, equations 2 to
    4).

    `activation` stands between its two layers.
    """

    def __init__(self, channels: int, squeezed: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation(inplace=True)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(self.activation(self.fc1(means))))


class StochasticDepth(nn.Module):
    """Leaves out a branch for a fraction of the samples in training; scales the others up (Huang et al., ECCV 2016)."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, branch: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        if not self.training or self.drop_prob == 0:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.drop_prob
        return branch * (kept / (1 - self.drop_prob))

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"


@runtime_checkable
class FitsStatistics(Protocol):
    """A network with fixed features that follow from statistics of its inputs, beside layers that learn."""

    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Compute the statistics from shuffled training samples, as the network gets them; called before training."""


class SparseLinear(nn.Module):
    """Dense layer for inputs of which all but a few features are 0: it takes where these are, and what they are.

    `weight` has a row for each feature, so that those of a sample are looked up instead of multiplied; a feature may be
    named several times, and counts as the sum of its values.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(
        self, columns: Int[Tensor, "batch named"], values: Float[Tensor, "batch named"]
    ) -> Float[Tensor, "batch classes"]:
        if torch.compiler.is_compiling():  # Runtimes know no bag of vectors, which needs no memory for each of them.
            return (F.embedding(columns, self.weight) * values[:, :, None]).sum(dim=1) + self.bias
        return F.embedding_bag(columns, self.weight, per_sample_weights=values, mode="sum") + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


COSINE_SCALE = 16.0
"""Scale of the cosines: logits lie within +-16, so that a softmax can come close to certainty."""


class CosineOutput(nn.Linear):
    """Dense output layer whose logits are scaled cosines between features and each class's weights, without bias.

    Wang et al.: NormFace: L2 hypersphere embedding for face verification. ACM Multimedia, 2017.
    """

    def forward(self, input: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:  # noqa: A002
        return COSINE_SCALE * F.linear(F.normalize(input), F.normalize(self.weight))


def use_cosine_output(model: nn.Module) -> None:
    """Replace a network's dense output layer by one of cosines. Raises ConfigError where it ends otherwise."""
    outputs = find_classifiers(model)
    last, end = model.get_submodule(outputs[0]), list(model.modules())[-1]
    told = get_model_info(model).classifier is not None or hasattr(model, "get_classifier")
    # After the last weights of a network that does not tell may be a layer without any.
    if len(outputs) != 1 or type(last) is not nn.Linear or not (end is last or told):
        raise ConfigError("model.options.cosine: wanted a network that ends in one dense layer, found another end")
    parent, _, name = outputs[0].rpartition(".")
    fresh = CosineOutput(last.in_features, last.out_features, bias=False, device=last.weight.device)
    setattr(model.get_submodule(parent), name, fresh)
