"""Where grids and tables start: the step, or the centroids, that the values are nearest to."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from falconet.compression.constraints import round_significand

FINEST = 5
"""Steps are tried down to the one that covers the largest value, divided by two to the power of this."""
TRIALS = 8
"""Steps are tried for each factor of two."""
LARGEST_MULTIPLE = 15
"""Grids of up to so many levels are tried with each of them as the largest value's."""
ITERATIONS = 300
"""At most so many of Lloyd's; as in scikit-learn."""


def fit_steps(values: Float[Tensor, "channels weights"], levels: int) -> Float[Tensor, " channels"]:
    """Return for each channel the step of 8 significant bits whose grid of |q| <= levels has the least squared error.

    Steps are searched among those that put the largest value on a level, which finds the step of values that lie on a
    grid already, and smaller ones, which cut large values off. A channel of zeros gets the step 1.
    """
    largest = values.abs().amax(dim=1)
    multiples = [float(multiple) for multiple in range(1, min(levels, LARGEST_MULTIPLE) + 1)]
    finer = [levels * 2 ** (trial / TRIALS) for trial in range(FINEST * TRIALS + 1)]
    best, least = torch.ones_like(largest), torch.full_like(largest, torch.inf)
    for divisor in [*multiples, *finer]:
        steps = round_significand(largest / divisor)
        steps = torch.where(steps > 0, steps, 1.0)[:, None]
        errors = ((values / steps).round_().clamp_(-levels, levels) * steps - values).square_().sum(dim=1)
        best = torch.where(errors < least, steps[:, 0], best)
        least = torch.minimum(errors, least)
    return best


def fit_centroids(values: Float[Tensor, " weights"], levels: int) -> Float[Tensor, " centroids"]:
    """Return at most `levels` ascending centroids by k-means in one dimension, from a linear start (Han et al., 2016).

    Lloyd's iterations on sorted values: a cluster is what lies between the middles of neighboring centroids, and its
    mean is a difference of cumulative sums. Clusters that are left empty are dropped.
    """
    ordered = values.double().sort().values
    distinct = torch.unique_consecutive(ordered)
    if len(distinct) <= levels:
        return distinct.to(values.dtype)
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    centroids = torch.linspace(float(ordered[0]), float(ordered[-1]), levels, dtype=ordered.dtype)
    for _ in range(ITERATIONS):
        inner = torch.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(ordered))])
        counts = edges.diff()
        moved = torch.where(counts > 0, sums[edges].diff() / counts.clamp(min=1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids[counts > 0].to(values.dtype)


def find_members(values: Float[Tensor, "*shape"], centroids: Float[Tensor, " centroids"]) -> Int64[Tensor, "*shape"]:
    """Return for each value 0 where it is zero, else the number, from 1, of its nearest centroid."""
    nearest = torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2)
    return (nearest + 1).masked_fill(values == 0, 0)
