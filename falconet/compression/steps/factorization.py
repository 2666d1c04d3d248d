"""`factorize`: layers become two of lower rank."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from falconet.compression.steps.channel_groups import has_matrix
from falconet.errors import ConfigError
from falconet.models.info import find_trainable_classifiers
from falconet.models.widths import SPLITTABLE, ConvOrLinear, Factorized, count_factors, count_groups, replace_module


@dataclass(frozen=True)
class Factorize:
    """Replaces layers by two of lower rank, the nearest in least squares of weights, where these have fewer weights.

    A dense layer's matrix, or a convolution's of outputs by inputs times kernel, is cut to its largest singular values
    (Zhang et al., TPAMI 2016, section 3.1): a kxk convolution becomes one to as many channels as the rank,
    and one of 1x1.

    Parameters
    ----------
    rank
        A whole number: of each layer. A fraction: each layer gets the lowest rank that keeps this fraction of its
        squared singular values (its energy).

    Not factorized are the output, convolutions in groups, recurrent layers and embeddings.

    """

    rank: int | float
    structural: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole = isinstance(self.rank, int) and not isinstance(self.rank, bool) and self.rank >= 1
        if not whole and not (isinstance(self.rank, float) and 0 < self.rank <= 1):
            wanted = "a whole number above 0 or a fraction of energy above 0 and up to 1"
            raise ConfigError(f"rank: wanted {wanted}, found {self.rank!r}")

    @torch.inference_mode(mode=False)
    def __call__(self, model: nn.Module) -> nn.Module:
        """Return a copy with factors in the place of layers."""
        factorized = copy.deepcopy(model)
        for name, layer in _find_plain(model)[0].items():
            rank = _choose_rank(layer, self.rank)
            if count_factors(layer, rank) < layer.weight.numel():
                replace_module(factorized, name, split_layer(layer, rank))
        return factorized

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        """Return the layers that stay, each with the reason."""
        plain, reasons = _find_plain(model)
        for name, layer in plain.items():
            rank = _choose_rank(layer, self.rank)
            if count_factors(layer, rank) >= layer.weight.numel():
                reasons[name] = f"at rank {rank}, factors would not have fewer weights"
        return reasons


def _find_plain(model: nn.Module) -> tuple[dict[str, ConvOrLinear], dict[str, str]]:
    """Return the layers that can be factorized, and why the others with a matrix of weights cannot."""
    plain: dict[str, ConvOrLinear] = {}
    reasons = {}
    outputs = find_trainable_classifiers(model)
    factors = {
        f"{name}.{index}" for name, each in model.named_modules() if isinstance(each, Factorized) for index in "01"
    }
    for name, module in model.named_modules():
        if not has_matrix(module):
            continue
        if name in outputs:
            reasons[name] = "the output layer"
        elif name in factors:
            reasons[name] = "a factor already"
        elif type(module) not in SPLITTABLE:
            reasons[name] = f"{type(module).__name__} is no plain convolution or dense layer"
        elif isinstance(module, ConvOrLinear) and count_groups(module) > 1:
            reasons[name] = f"a convolution in {count_groups(module)} groups"
        elif isinstance(module, ConvOrLinear):
            plain[name] = module
    return plain, reasons


def _choose_rank(layer: ConvOrLinear, rank: int | float) -> int:
    """Return a layer's rank, or the lowest that keeps a fraction of its energy; never more than its full one."""
    full = min(len(layer.weight), layer.weight[0].numel())
    if isinstance(rank, int):
        return min(rank, full)
    energy = _decompose(layer)[1].square().cumsum(0)
    return min(int((energy < rank * energy[-1]).sum()) + 1, full)


def _decompose(
    layer: ConvOrLinear,
) -> tuple[Float[Tensor, "out full"], Float[Tensor, " full"], Float[Tensor, "full in"]]:
    """Return the singular vectors and values of a layer's matrix, the largest first, in double precision.

    By the eigenvectors of the matrix times itself, on its shorter side: ten times as fast, and as exact as single
    precision shows.
    """
    matrix = layer.weight.detach().double().flatten(1)
    tall = len(matrix) > matrix.shape[1]
    wide = matrix.T if tall else matrix
    squares, vectors = torch.linalg.eigh(wide @ wide.T)
    values, vectors = squares.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
    others = (vectors.T @ wide) / values.clamp(min=torch.finfo(values.dtype).tiny)[:, None]
    return (others.T, values, vectors.T) if tall else (vectors, values, others)


@torch.no_grad()
def split_layer(layer: ConvOrLinear, rank: int) -> Factorized:
    """Return a layer as two, with the best weights of this rank; square roots of singular values go to each."""
    factors = Factorized(layer, rank)
    left, values, right = _decompose(layer)
    roots = values[:rank].sqrt()
    first, last = factors
    assert isinstance(first, ConvOrLinear)
    assert isinstance(last, ConvOrLinear)
    first.weight.copy_((roots[:, None] * right[:rank]).view_as(first.weight))
    last.weight.copy_((left[:, :rank] * roots).view_as(last.weight))
    if last.bias is not None and layer.bias is not None:
        last.bias.copy_(layer.bias)
    return factors.train(layer.training)


def factorize(rank: int | float) -> Factorize:
    """Return the step that factorizes layers; see `Factorize`."""
    return Factorize(rank)
