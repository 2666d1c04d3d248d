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

BAND = 0.1
LONGEST_BAND = 64
"""How far an alignment may lead from the diagonal: as a share of the longest series, and in steps."""

ITERATIONS = 3
"""Of averaging; for two series it changes little after the second."""

LEAST_SHARE = 0.5
"""A sample weighs at least so much in the average of it and a partner."""

DIAGONAL, DOWN, RIGHT = 0, 1, 2
"""Where the best alignment up to a cell comes from: both series went on a step, the first alone, the second alone."""


def average_pairs(
    series: Float32[Tensor, "batch channels steps"],
    partners: Float32[Tensor, "batch channels steps"],
    generator: torch.Generator,
) -> Float32[Tensor, "batch channels steps"]:
    """Return a weighted barycenter of each series and its partner, as long as the series; NaN follows behind its end.

    The series' own weight is drawn evenly from LEAST_SHARE to 1, and averaging begins with the series itself.
    """
    shares = LEAST_SHARE + (1 - LEAST_SHARE) * torch.rand(len(series), generator=generator)
    members = [part.double().numpy() for part in (series, partners)]
    weights = torch.stack([shares, 1 - shares]).double().numpy()
    return torch.from_numpy(average_series(members[0], members, weights).astype(np.float32))


def average_series(
    center: Float64[np.ndarray, "batch channels steps"],
    members: Sequence[Float64[np.ndarray, "batch channels steps"]],
    weights: Float64[np.ndarray, "members batch"],
    iterations: int = ITERATIONS,
    band: int | None = None,
) -> Float64[np.ndarray, "batch channels steps"]:
    """Return weighted barycenters of `members`, found from `center` on; each row of the batch is one of its own.

    NaN stands behind the end of a series. Each iteration aligns the center with every member and replaces each of its
    steps by the weighted mean of all steps that are aligned with it (Petitjean et al. 2011, section 4). Alignments stay
    within `band` steps of the diagonal, None: as BAND says, and where lengths differ by more, within their difference.
    """
    missing = np.isnan(center).any(axis=1)
    values = np.nan_to_num(center)
    stacked = np.concatenate([np.nan_to_num(member) for member in members])
    lengths = np.concatenate([count_steps(member) for member in members])
    own = np.tile(count_steps(center), len(members))
    if band is None:
        band = min(max(round(BAND * int(max(own.max(), lengths.max()))), 1), LONGEST_BAND)
    for _ in range(iterations):
        repeated = np.tile(values, (len(members), 1, 1))
        sums, counts = sum_aligned(repeated, own, stacked, lengths, np.maximum(band, np.abs(own - lengths)))
        parts = (len(members), len(center))
        total = (weights[..., None, None] * sums.reshape(*parts, *sums.shape[1:])).sum(axis=0)
        share = (weights[..., None] * counts.reshape(*parts, -1)).sum(axis=0)[:, None]
        values = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    return np.where(missing[:, None], np.nan, values)


def count_steps(series: Float64[np.ndarray, "batch channels steps"]) -> Int64[np.ndarray, " batch"]:
    """Return how many steps each series has before its end, at least one."""
    numbers = np.arange(1, series.shape[2] + 1)
    steps: Int64[np.ndarray, " batch"] = (numbers * ~np.isnan(series).any(axis=1)).max(axis=1)
    return np.maximum(steps, 1)


def sum_aligned(
    first: Float64[np.ndarray, "batch channels steps"],
    first_lengths: Int64[np.ndarray, " batch"],
    second: Float64[np.ndarray, "batch channels others"],
    second_lengths: Int64[np.ndarray, " batch"],
    bands: Int64[np.ndarray, " batch"],
) -> tuple[Float64[np.ndarray, "batch channels steps"], Float64[np.ndarray, "batch steps"]]:
    """Return for each step of the first series the sum and the number of the second's steps aligned with it."""
    directions = align(first, second, bands)
    sums, counts = np.zeros_like(first), np.zeros(first.shape[::2])
    rows = np.arange(len(first))
    at, other = first_lengths - 1, second_lengths - 1
    while len(rows):
        sums[rows, :, at] += second[rows, :, other]
        counts[rows, at] += 1
        left = (at > 0) | (other > 0)
        rows, at, other = rows[left], at[left], other[left]
        came = directions[at + other, rows, at]
        at, other = at - (came != RIGHT), other - (came != DOWN)
    return sums, counts


def align(
    first: Float64[np.ndarray, "batch channels steps"],
    second: Float64[np.ndarray, "batch channels others"],
    bands: Int64[np.ndarray, " batch"],
) -> UInt8[np.ndarray, "diagonals batch steps"]:
    """Return where the cheapest alignment up to each pair of steps comes from, by their sum and the first's step.

    Costs are squared Euclidean distances over channels. Pairs of one sum depend on those of the two sums before alone,
    so that all of a batch, and of a diagonal within the widest band, are computed at once.
    """
    batch, _, steps = first.shape
    others, reach = second.shape[2], int(bands.max())
    directions = np.zeros((steps + others - 1, batch, steps), dtype=np.uint8)
    # Column i + 1 holds the step i; column 0 stays out of reach, as does all beyond the band.
    before, last = (np.full((batch, steps + 1), np.inf) for _ in range(2))
    for diagonal in range(steps + others - 1):
        low = max(0, diagonal - others + 1, (diagonal - reach + 1) // 2)
        high = min(steps - 1, diagonal, (diagonal + reach) // 2)
        at = np.arange(low, high + 1)
        cost = np.square(first[:, :, low : high + 1] - second[:, :, diagonal - at]).sum(axis=1)
        cost[np.abs(2 * at - diagonal) > bands[:, None]] = np.inf
        choices = np.stack([before[:, low : high + 1], last[:, low : high + 1], last[:, low + 1 : high + 2]])
        came = choices.argmin(axis=0)
        directions[diagonal, :, low : high + 1] = came
        current = np.full((batch, steps + 1), np.inf)
        current[:, low + 1 : high + 2] = cost + (choices.min(axis=0) if diagonal else 0)
        before, last = last, current
    return directions
