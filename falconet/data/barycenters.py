"""Averages of series under dynamic time warping: new series between others of their class.

Alignment: H. Sakoe, S. Chiba: Dynamic programming algorithm optimization for spoken word recognition. IEEE Transactions
on Acoustics, Speech, and Signal Processing 26, 1978. Averaging: F. Petitjean, A. Ketterlin, P. Gançarski: A global
averaging method for dynamic time warping. Pattern Recognition 44, 2011. Weights, for new samples: G. Forestier,
F. Petitjean, H. A. Dau, G. I. Webb, E. Keogh: Generating synthetic time series to augment sparse datasets. ICDM, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

_BAND = 0.1
_MAX_BAND = 64
"""Half width of the warping band: as a fraction of the longest series, and at most in steps."""

_ITERATIONS = 3
"""Iterations of averaging: for pairs of random walks and of noise, 96 to 98 % of the way that ten iterations go."""

MIN_WEIGHT = 0.5
"""Smallest weight of a sample in the average of it and a partner."""

_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2
"""Last step of the best alignment up to a cell: in both series, in the first alone, in the second alone."""


def average_pairs(
    series: Float32[Tensor, "batch channels steps"],
    partners: Float32[Tensor, "batch channels steps"],
    generator: torch.Generator,
) -> Float32[Tensor, "batch channels steps"]:
    """Return a weighted barycenter of each series and its partner, as long as the series; NaN follows after its end.

    The series' own weight is drawn evenly from MIN_WEIGHT to 1, and averaging begins with the series itself.
    """
    mixes = MIN_WEIGHT + (1 - MIN_WEIGHT) * torch.rand(len(series), generator=generator)
    members = [part.double().numpy() for part in (series, partners)]
    weights = torch.stack([mixes, 1 - mixes]).double().numpy()
    return torch.from_numpy(average_series(members[0], members, weights).astype(np.float32))


def average_series(
    center: Float64[np.ndarray, "batch channels steps"],
    members: Sequence[Float64[np.ndarray, "batch channels steps"]],
    weights: Float64[np.ndarray, "members batch"],
    iterations: int = _ITERATIONS,
    band: int | None = None,
) -> Float64[np.ndarray, "batch channels steps"]:
    """Return weighted barycenters of `members`, found from `center` on; each row of the batch is one of its own.

    NaN stands after the end of a series. Each iteration aligns the center with every member and replaces each of its
    steps by the weighted mean of all steps that are aligned with it (Petitjean et al. 2011, section 4). Alignments stay
    within `band` steps of the diagonal (None: a tenth of the longest series, 64 at most), or within the difference of
    the lengths where that is more.
    """
    missing = np.isnan(center).any(axis=1)
    values = np.nan_to_num(center)
    stacked = np.concatenate([np.nan_to_num(member) for member in members])
    lengths = np.concatenate([_count_steps(member) for member in members])
    own = np.tile(_count_steps(center), len(members))
    if band is None:
        band = min(max(round(_BAND * int(max(own.max(), lengths.max()))), 1), _MAX_BAND)
    for _ in range(iterations):
        repeated = np.tile(values, (len(members), 1, 1))
        sums, counts = sum_aligned(repeated, own, stacked, lengths, np.maximum(band, np.abs(own - lengths)))
        parts = (len(members), len(center))
        total = (weights[..., None, None] * sums.reshape(*parts, *sums.shape[1:])).sum(axis=0)
        weight = (weights[..., None] * counts.reshape(*parts, -1)).sum(axis=0)[:, None]
        values = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return np.where(missing[:, None], np.nan, values)


def _count_steps(series: Float64[np.ndarray, "batch channels steps"]) -> Int64[np.ndarray, " batch"]:
    """Return how many steps each series has before its end, at least one."""
    numbers = np.arange(1, series.shape[2] + 1)
    ends: Int64[np.ndarray, " batch"] = (numbers * ~np.isnan(series).any(axis=1)).max(axis=1)
    return ends.clip(min=1)


def sum_aligned(
    first: Float64[np.ndarray, "batch channels steps"],
    first_lengths: Int64[np.ndarray, " batch"],
    second: Float64[np.ndarray, "batch channels others"],
    second_lengths: Int64[np.ndarray, " batch"],
    bands: Int64[np.ndarray, " batch"],
) -> tuple[Float64[np.ndarray, "batch channels steps"], Float64[np.ndarray, "batch steps"]]:
    """Return for each step of the first series the sum and the number of the second's steps aligned with it."""
    directions, lowest = _align(first, second, bands)
    sums, counts = np.zeros_like(first), np.zeros(first.shape[::2])
    rows = np.arange(len(first))
    at, other = first_lengths - 1, second_lengths - 1
    while len(rows):
        sums[rows, :, at] += second[rows, :, other]
        counts[rows, at] += 1
        left = (at > 0) | (other > 0)
        rows, at, other = rows[left], at[left], other[left]
        came = directions[at + other, rows, at - lowest[at + other]]
        at, other = at - (came != _RIGHT), other - (came != _DOWN)
    return sums, counts


def _align(
    first: Float64[np.ndarray, "batch channels steps"],
    second: Float64[np.ndarray, "batch channels others"],
    bands: Int64[np.ndarray, " batch"],
) -> tuple[UInt8[np.ndarray, "diagonals batch width"], Int64[np.ndarray, " diagonals"]]:
    """Return where the cheapest alignment up to each pair of steps comes from, and where each diagonal begins.

    A pair stands in the diagonal that is the sum of its steps, at the first's step less where that begins. Costs are
    squared Euclidean distances over channels. Pairs of one diagonal depend on those of the two before it alone, so that
    all of a batch, and of a diagonal within the widest band, are computed at once.
    """
    batch, _, steps = first.shape
    others, reach, uneven = second.shape[2], int(bands.max()), len(np.unique(bands)) > 1
    diagonals = np.arange(steps + others - 1)
    lows = np.maximum(0, np.maximum(diagonals - others + 1, (diagonals - reach + 1) // 2))
    highs = np.minimum(steps - 1, np.minimum(diagonals, (diagonals + reach) // 2))
    directions = np.zeros((len(diagonals), batch, int((highs - lows).max()) + 1), dtype=np.uint8)
    # The batch innermost: what belongs to a diagonal lies in one piece. The second series runs backward along it.
    forward, backward = (np.ascontiguousarray(part.transpose(1, 2, 0)) for part in (first, second[:, :, ::-1]))
    # Row i + 1 holds the step i; row 0 stays out of reach, as does all beyond the band.
    before, last, current = (np.full((steps + 1, batch), np.inf) for _ in range(3))
    before[0] = 0
    for diagonal, low, high in zip(diagonals.tolist(), lows.tolist(), highs.tolist(), strict=True):
        begin, end = others - 1 - diagonal + low, others - diagonal + high
        cost = np.square(forward[:, low : high + 1] - backward[:, begin:end]).sum(axis=0)
        best = before[low : high + 1]
        down, right = last[low : high + 1], last[low + 1 : high + 2]
        came = (down < best).astype(np.uint8)
        best = np.minimum(best, down)
        np.maximum(came, _RIGHT * (right < best).astype(np.uint8), out=came)
        directions[diagonal, :, : high + 1 - low] = came.T
        current[:] = np.inf
        np.add(cost, np.minimum(best, right), out=current[low + 1 : high + 2])
        if uneven:
            beyond = np.abs(2 * np.arange(low, high + 1) - diagonal)[:, None] > bands
            current[low + 1 : high + 2][beyond] = np.inf
        before, last, current = last, current, before
    return directions, lows
