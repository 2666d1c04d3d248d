from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data.barycenters import MIN_WEIGHT, average_pairs, average_series, sum_aligned

SERIES = np.array(
    [
        [0.0, 1.0, 3.0, 2.0, 0.5, -1.0, 0.2],
        [0.3, 0.2, 1.5, 2.8, 2.2, 0.1, -1.3],
        [0.1, 2.0, 3.5, 0.7, -0.6, -0.8, 0.0],
    ]
)


def cheapest(first: np.ndarray, second: np.ndarray, band: int) -> tuple[float, list[tuple[int, int]]]:
    """The best of all alignments, by trying each one; series are (channels, steps)."""
    ends = first.shape[1] - 1, second.shape[1] - 1

    def walk(at: int, other: int) -> list[list[tuple[int, int]]]:
        if abs(at - other) > band:
            return []
        if (at, other) == (0, 0):
            return [[(0, 0)]]
        before = [(at - 1, other - 1), (at - 1, other), (at, other - 1)]
        return [[*path, (at, other)] for one, two in before if min(one, two) >= 0 for path in walk(one, two)]

    costs = [(float(sum(((first[:, i] - second[:, j]) ** 2).sum() for i, j in path)), path) for path in walk(*ends)]
    return min(costs)


@settings(deadline=None, max_examples=60)
@given(
    steps=st.integers(1, 5), others=st.integers(1, 5), channels=st.integers(1, 2), band=st.integers(0, 5),
    seed=st.integers(0, 10_000),
)  # fmt: skip
def test_alignments_are_the_best_of_all(steps: int, others: int, channels: int, band: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((channels, steps)), rng.standard_normal((channels, others))
    band = max(band, abs(steps - others))
    _, path = cheapest(first, second, band)
    sums, counts = sum_aligned(first[None], np.array([steps]), second[None], np.array([others]), np.array([band]))
    expected, number = np.zeros_like(first), np.zeros(steps)
    for at, other in path:
        expected[:, at] += second[:, other]
        number[at] += 1
    np.testing.assert_allclose(sums[0], expected)
    np.testing.assert_array_equal(counts[0], number)


REFERENCES = [
    ((1.0, 1.0, 1.0), 3, 100, [0.15, 1.5, 3.1, 1.63333333, 0.43333333, -0.925, -0.36666667]),
    ((0.6, 0.3, 0.1), 1, 100, [0.12307692, 1.25, 2.99, 1.93, 0.4, -1.02727273, -0.27]),
    ((0.7, 0.3), 3, 1, [0.11538462, 1.15, 2.94, 2.06, 0.38, -1.09, -0.25]),
]
"""By tslearn 0.10.0, `dtw_barycenter_averaging_petitjean` from the first series, `tol=0`; the last with a band."""


@pytest.mark.parametrize(("weights", "iterations", "band", "expected"), REFERENCES)
def test_barycenters_are_those_of_tslearn(
    weights: tuple[float, ...], iterations: int, band: int, expected: list[float]
) -> None:
    members = [series[None, None] for series in SERIES[: len(weights)]]
    found = average_series(members[0], members, np.array(weights)[:, None], iterations, band)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-7)


def test_channels_are_aligned_together_as_by_tslearn() -> None:
    both = np.stack([SERIES, SERIES[:, ::-1] * 0.5 + 0.1], axis=1)
    members = [series[None] for series in both]
    found = average_series(members[0], members, np.array([[0.6], [0.3], [0.1]]), 2, 100)
    expected = [
        [0.12307692, 1.25, 2.99, 1.93, 0.27, -1.07, -0.27],
        [0.00769231, 0.09, 0.64, 0.96, 1.205, 0.545, 0.15],
    ]
    np.testing.assert_allclose(found[0], expected, atol=1e-7)


def test_a_batch_gives_what_each_series_gives_alone() -> None:
    rng = np.random.default_rng(0)
    lengths = [(9, 9), (4, 9), (9, 3), (1, 6)]
    first, second = (rng.standard_normal((4, 2, 9)) for _ in range(2))
    for row, (own, other) in enumerate(lengths):
        first[row, :, own:] = np.nan
        second[row, :, other:] = np.nan
    weights = np.stack([np.full(4, 0.7), np.full(4, 0.3)])
    found = average_series(first, [first, second], weights, 3, 2)
    for row, (own, other) in enumerate(lengths):
        longest = max(own, other)
        mine, theirs = (part[row : row + 1, :, :longest] for part in (first, second))
        alone = average_series(mine, [mine, theirs], weights[:, :1], 3, 2)
        np.testing.assert_allclose(found[row, :, :own], alone[0, :, :own])
        assert np.isnan(found[row, :, own:]).all()


def test_the_average_of_shifted_peaks_has_one_peak_of_full_height() -> None:
    """What a mean of steps would not: that is why series are aligned first."""
    steps = np.arange(40)
    peaks = [np.exp(-0.5 * ((steps - center) / 2) ** 2)[None, None] for center in (15, 21)]
    found = average_series(peaks[0], peaks, np.array([[0.5], [0.5]]), band=10)
    assert found.max() == pytest.approx(1, abs=0.02)
    assert np.mean(peaks, axis=0).max() < 0.7


def test_pairs_are_averaged_by_the_generator_alone() -> None:
    series, partners = torch.randn(2, 5, 1, 20, generator=torch.Generator().manual_seed(0))
    first, again, other = (average_pairs(series, partners, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(average_pairs(series, series, torch.Generator()), series)


def test_shares_of_constant_series_are_drawn_from_the_upper_half() -> None:
    """Of series of 0 and 1 each average is the share of the second, whatever the alignment."""
    zeros, ones = torch.zeros(400, 1, 3), torch.ones(400, 1, 3)
    found = average_pairs(zeros, ones, torch.Generator().manual_seed(0))
    share = 1 - found[:, 0, 0]
    assert MIN_WEIGHT <= float(share.min()) < MIN_WEIGHT + 0.02
    assert 0.98 < float(share.max()) <= 1
    assert all(torch.equal(found[:, 0, a], found[:, 0, b]) for a, b in itertools.pairwise(range(3)))
