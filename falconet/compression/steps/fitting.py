"""Initial steps of grids and centroids of codebooks, by least squared error."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from falconet.compression.steps.constraints import round_significand

_FINEST = 5
"""Halvings of the step that covers the largest value, down to which steps are tried. Set by hand."""
_TRIALS = 16
"""Steps that are tried for each factor of two. Set by hand, not tuned."""
_MAX_MULTIPLE = 15
"""Levels, from 1 to this one, that are tried as the largest value's. Set by hand, not tuned."""
_SEARCHED = 2**19
"""Weights on which errors are measured, or nearly twice as many; larger tensors are subsampled. Set by hand: large
tensors would take long."""
_ITERATIONS = 300
"""Most iterations of Lloyd's algorithm; as in scikit-learn."""
_PIECES = 2
"""Pieces per cluster in the first partition: so many of equal numbers, and as many of equal widths. Set by hand, not
tuned."""
_MIN_PIECES = 64
"""Least number of pieces, so that few clusters have a good partition too. Set by hand, not tuned."""


def fit_scales(values: Float[Tensor, "channels weights"], levels: int) -> Float[Tensor, " channels"]:
    """Return for each channel the step of 8 significant bits whose grid of |q| <= levels has the least squared error.

    Steps are searched among those that put the largest value on a level, which finds the step of values that lie on a
    grid already, and smaller ones, which cut large values off. A channel of zeros gets the step 1. Errors are those of
    a part of the weights where they are many.
    """
    largest = values.abs().amax(dim=1)
    values = values[:, :: max(1, values.numel() // _SEARCHED)]
    multiples = [float(multiple) for multiple in range(1, min(levels, _MAX_MULTIPLE) + 1)]
    finer = [levels * 2 ** (trial / _TRIALS) for trial in range(_FINEST * _TRIALS + 1)]
    best, least = torch.ones_like(largest), torch.full_like(largest, torch.inf)
    for divisor in [*multiples, *finer]:
        steps = round_significand(largest / divisor)
        steps = torch.where(steps > 0, steps, 1.0)[:, None]
        errors = ((values / steps).round_().clamp_(-levels, levels) * steps - values).square_().sum(dim=1)
        best = torch.where(errors < least, steps[:, 0], best)
        least = torch.minimum(errors, least)
    return best


def fit_centroids(values: Float[Tensor, " weights"], levels: int) -> Float[Tensor, " centroids"]:
    """Return at most `levels` ascending centroids by k-means in one dimension.

    They start as the best partition of the sorted values into runs of short pieces, where a linear start (Han et al.,
    2016) ends with up to fifteen times the error for long tails, and are then moved by Lloyd's iterations. Clusters
    that are left empty are dropped.
    """
    ordered = values.double().sort().values
    distinct: Tensor = torch.unique_consecutive(ordered)
    if len(distinct) <= levels:
        return distinct.to(values.dtype)
    sums = accumulate(ordered)
    edges = partition(ordered, _cut_pieces(ordered, max(_PIECES * levels, _MIN_PIECES)), levels)
    centroids = sums[edges].diff() / edges.diff()
    for _ in range(_ITERATIONS):
        inner = torch.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = torch.cat([edges[:1], inner, edges[-1:]])
        counts = edges.diff()
        moved = torch.where(counts > 0, sums[edges].diff() / counts.clamp(min=1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    # Neighbors may have become one in fewer bits.
    fitted: Tensor = torch.unique_consecutive(centroids[counts > 0].to(values.dtype))
    return fitted


def _cut_pieces(ordered: Float[Tensor, " weights"], count: int) -> Int64[Tensor, " edges"]:
    """Return where sorted values are cut into about twice `count` pieces: of equal numbers, and of equal widths."""
    numbers = torch.linspace(0, len(ordered), count + 1, dtype=ordered.dtype, device=ordered.device).round().long()
    inner = torch.linspace(float(ordered[0]), float(ordered[-1]), count + 1, dtype=ordered.dtype, device=ordered.device)
    edges: Tensor = torch.unique(torch.cat([numbers, torch.searchsorted(ordered, inner[1:-1])]))
    return edges


def partition(
    ordered: Float[Tensor, " weights"], edges: Int64[Tensor, " edges"], levels: int
) -> Int64[Tensor, " chosen"]:
    """Return which edges bound the `levels` runs of pieces with the least squared error about their means.

    By dynamic programming over the last run's first piece (Wang, Song: Ckmeans.1d.dp. The R Journal, 2011, equation 1).
    """
    centered = ordered - ordered.mean()
    counts = edges[None] - edges[:, None]
    sums = (accumulate(centered)[edges][None] - accumulate(centered)[edges][:, None]).square()
    squares = accumulate(centered.square())[edges]
    errors = (squares[None] - squares[:, None] - sums / counts.clamp(min=1)).masked_fill(counts <= 0, torch.inf)
    least, firsts = errors[0], []
    for _ in range(min(levels, len(edges) - 1) - 1):
        least, first = (least[:, None] + errors).min(dim=0)
        firsts.append(first.tolist())
    chosen = [len(edges) - 1]
    for first in reversed(firsts):
        chosen.append(first[chosen[-1]])
    return edges[torch.tensor([0, *reversed(chosen)], device=edges.device)]


def accumulate(values: Float[Tensor, " weights"]) -> Float[Tensor, " edges"]:
    """Return the sums of the first 0, 1, ... values."""
    return torch.cat([values.new_zeros(1), values.cumsum(0)])


def find_members(values: Float[Tensor, "*shape"], centroids: Float[Tensor, " centroids"]) -> Int64[Tensor, "*shape"]:
    """Return for each value 0 where it is zero, else the number, from 1, of its nearest centroid."""
    nearest = torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2)
    return (nearest + 1).masked_fill(values == 0, 0)
