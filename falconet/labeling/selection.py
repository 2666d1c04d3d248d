"""Active learning: which samples to label next, uncertain ones that differ from each other.

The samples with the smallest margin between their two most probable classes (Scheffer, Decomain, Wrobel, IDA 2001) are
clustered, weighted by uncertainty, and the sample nearest to each center is chosen (Zhdanov: Diverse mini-batch active
learning, 2019, algorithm 1). Where no classes are known yet, all samples are clustered with equal weights, so that the
chosen ones represent the whole.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from falconet.training.linear_probe import Features

_CANDIDATES = 10
"""Clustered samples per chosen one, the most uncertain ones: beta of the paper."""
_COMPONENTS = 64
"""Principal components by which samples are compared, at most: distances in more of them say the same, more slowly.

Sparse features are projected by truncated singular value decomposition instead, since centering would make them dense:
latent semantic analysis (Deerwester et al., JASIS, 1990).
"""
_STEPS = 20
"""Steps of k-means, at most."""


def measure_uncertainty(
    probabilities: Float64[Tensor, "samples classes"],
) -> Float64[Tensor, " samples"]:
    """Return 1 minus the margin of the two highest probabilities: 1 where they are equal, 0 where one is certain."""
    highest = probabilities.topk(2, dim=1).values
    return 1 - (highest[:, 0] - highest[:, 1])


def choose_samples(
    features: Features,
    count: int,
    uncertainty: Float64[Tensor, " samples"] | None = None,
    seed: int = 0,
) -> Int64[Tensor, " chosen"]:
    """Return the positions of at most `count` samples, the first to be labeled first.

    `features` are `(samples, features)`, dense or sparse (CSR). `uncertainty`, from 0 to 1, weighs samples; None: it
    is unknown. The order is by uncertainty, or without it by the size of the sample's cluster. The seed decides the
    initial centers.
    """
    count = min(count, len(features))
    if uncertainty is None:
        pool, weights = torch.arange(len(features)), torch.ones(len(features), dtype=torch.float64)
    else:
        pool = uncertainty.argsort(descending=True, stable=True)[: _CANDIDATES * count]
        # Certain samples too may be all that there are.
        weights = uncertainty[pool].clamp(min=1e-6)
    points = reduce_features(features, seed)[pool]
    centers, members = _cluster(points, weights, count, torch.Generator().manual_seed(seed))
    chosen = _choose_nearest(points, centers)
    importance = members[: len(chosen)] if uncertainty is None else weights[chosen]
    return pool[chosen[importance.argsort(descending=True, stable=True)]]


def reduce_features(features: Features, seed: int) -> Float[Tensor, "samples components"]:
    """Return centered features in their first principal components."""
    sparse = features.layout == torch.sparse_csr
    whole = features if sparse else features.float() - features.float().mean(dim=0)
    components = min(_COMPONENTS, *whole.shape)
    if components == whole.shape[1] and not sparse:
        return whole
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, directions = torch.svd_lowrank(whole, q=components)
    reduced = whole @ directions
    return reduced - reduced.mean(dim=0)


def _cluster(
    points: Float[Tensor, "points components"],
    weights: Float64[Tensor, " points"],
    count: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "clusters components"], Float64[Tensor, " clusters"]]:
    """Return the centers of weighted k-means, begun as k-means++ (Arthur, Vassilvitskii, 2007), and their weights."""
    centers = points[_draw_centers(points, weights, count, generator)]
    weighted = weights[:, None].to(points.dtype) * points
    for _ in range(_STEPS):
        nearest = torch.cdist(points, centers).argmin(dim=1)
        total = torch.zeros(count, dtype=weights.dtype).index_add_(0, nearest, weights)
        sums = torch.zeros_like(centers).index_add_(0, nearest, weighted)
        # A center that lost all its points stays where it was.
        moved = torch.where(total[:, None] > 0, sums / total.clamp(min=1e-12)[:, None].to(sums.dtype), centers)
        still = torch.equal(moved, centers)
        centers = moved
        if still:
            break
    return centers, total


def _draw_centers(
    points: Float[Tensor, "points components"],
    weights: Float64[Tensor, " points"],
    count: int,
    generator: torch.Generator,
) -> list[int]:
    """Return points drawn one by one with probability proportional to weight times squared distance to those before."""
    drawn: list[int] = []
    distances = torch.ones_like(weights)
    for _ in range(count):
        chances = weights * distances
        # Of points that are all equal to one before, any will do.
        chances = chances if float(chances.sum()) > 0 else torch.ones_like(chances)
        drawn.append(int(torch.multinomial(chances, 1, generator=generator)))
        new = (points - points[drawn[-1]]).double().square().sum(dim=1)
        distances = new if len(drawn) == 1 else torch.minimum(distances, new)
    return drawn


def _choose_nearest(
    points: Float[Tensor, "points components"], centers: Float[Tensor, "clusters components"]
) -> Int64[Tensor, " clusters"]:
    """Return the nearest point of each center that no center before it took."""
    distances = torch.cdist(centers, points)
    chosen = []
    for row in distances:
        chosen.append(int(row.argmin()))
        distances[:, chosen[-1]] = torch.inf
    return torch.tensor(chosen, dtype=torch.int64)
