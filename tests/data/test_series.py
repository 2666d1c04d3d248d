from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import signal

from falconet.data.series import (
    count_steps,
    fill_missing,
    measure_series,
    pack_series,
    pad_or_resample,
    resample,
    stretch,
)
from falconet.errors import DataError
from falconet.spec import SeriesSpec
from tests.data.builders import noise, series_of

NAN = math.nan
VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)
CELLS = VALUES | st.just(NAN)


# Packing


def test_packed_series_come_back_with_their_names() -> None:
    series = [noise(2, steps) for steps in (3, 1, 5)]
    packed = pack_series(series, np.array(["x", "y", "z"]))
    assert len(packed) == 3
    assert all(np.array_equal(packed.read(index), values) for index, values in enumerate(series))
    assert packed.name(2) == "z"


@pytest.mark.parametrize(
    ("channels", "message"), [((1, 2), "found series of 1 and 2 channels"), ((), "found none")], ids=["mixed", "none"]
)
def test_series_of_different_channels_are_not_packed(channels: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pack_series([noise(number, 3) for number in channels], np.array(["x"] * len(channels)))


# Number of steps


@settings(deadline=None, max_examples=150)
@given(old=st.integers(1, 60), new=st.integers(1, 60))
def test_resampling_is_that_of_scipy(old: int, new: int) -> None:
    series = noise(2, old)
    resampled = resample(series, new)
    assert resampled.dtype == np.float32
    assert np.allclose(resampled, signal.resample(series.astype(np.float64), new, axis=1), atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(old=st.integers(2, 300), new=st.integers(2, 300), slope=st.floats(-3, 3), start=st.floats(-100, 100))
def test_straight_lines_stay_straight_when_stretched(old: int, new: int, slope: float, start: float) -> None:
    line = series_of(np.linspace(start, start + slope, old).tolist())
    assert np.allclose(stretch(line, new), np.linspace(start, start + slope, new), atol=1e-4)


@settings(deadline=None, max_examples=100)
@given(old=st.integers(1, 60), new=st.integers(2, 90))
def test_stretching_keeps_ends_and_stays_in_range(old: int, new: int) -> None:
    series = noise(3, old)
    stretched = stretch(series, new)
    assert stretched.shape == (3, new)
    assert np.allclose(stretched[:, [0, -1]], series[:, [0, -1]])
    assert (stretched.max(axis=1) <= series.max(axis=1) + 1e-5).all()
    assert (stretched.min(axis=1) >= series.min(axis=1) - 1e-5).all()


def test_growing_series_are_interpolated() -> None:
    assert stretch(series_of([0, 2, 0], [1, 1, 5]), 5).tolist() == [[0, 1, 2, 1, 0], [1, 1, 1, 3, 5]]


def test_a_shrinking_series_loses_what_is_too_fast_and_keeps_what_is_slow() -> None:
    steps = np.arange(1001)
    # One step in ten remains: a period of 9 steps would fold into one of 90.
    fast = stretch(series_of(np.sin(2 * np.pi * steps / 9).tolist()), 101)[0, 1:-1]
    slow = stretch(series_of(np.sin(2 * np.pi * steps / 200).tolist()), 101)[0]
    assert np.abs(fast[1:-1]).max() < 0.2
    assert np.abs(slow - np.sin(2 * np.pi * steps[::10] / 200)).max() < 0.05


def test_one_step_is_the_mean() -> None:
    assert stretch(series_of([1, 2, 6], [0, 0, 0]), 1).tolist() == [[3], [0]]


@pytest.mark.parametrize(
    ("row", "filled"),
    [
        ([1, NAN, 3], [1, 2, 3]),
        ([1, NAN, NAN, NAN, 3], [1, 1.5, 2, 2.5, 3]),
        ([NAN, NAN, 4, 5, NAN], [4, 4, 4, 5, 5]),
        ([NAN, NAN], [0, 0]),
        ([1, 2], [1, 2]),
    ],
)
def test_missing_values_are_filled_in_each_channel(row: list[float], filled: list[float]) -> None:
    other = list(range(len(row)))
    series = series_of(row, other)
    before = series.copy()
    assert fill_missing(series).tolist() == [filled, other]
    assert np.array_equal(series, before, equal_nan=True)


@settings(deadline=None, max_examples=100)
@given(series=hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=CELLS))
def test_filling_leaves_no_gaps_and_changes_no_value(series: np.ndarray) -> None:
    filled = fill_missing(series)
    assert np.isfinite(filled).all()
    assert np.array_equal(filled[~np.isnan(series)], series[~np.isnan(series)])


def make_spec(channels: int, steps: int, fit: str) -> SeriesSpec:
    return SeriesSpec((channels, steps), (0.0,) * channels, (1.0,) * channels, fit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "fit", "expected"),
    [
        ([1, 2], "pad", [1, 2, NAN, NAN]),
        ([1, 2, 3, 4, 5, 6], "pad", [1, 2, 3, 4]),
        ([NAN, 1, NAN, 3, NAN, NAN, NAN], "pad", [1, 1, 2, 3]),
        ([1, NAN, 3, NAN, NAN], "pad", [1, 2, 3, NAN]),
        ([1, 4], "resample", [1, 2, 3, 4]),
        ([1, NAN, 7, NAN, NAN], "resample", [1, 3, 5, 7]),
        ([5], "resample", [5, 5, 5, 5]),
        ([5], "pad", [5, NAN, NAN, NAN]),
    ],
)
def test_series_are_fitted_to_the_steps_of_a_model(row: list[float], fit: str, expected: list[float]) -> None:
    fitted = pad_or_resample(series_of(row), make_spec(1, 4, fit))
    assert fitted.dtype == np.float32
    assert np.allclose(fitted, [expected], equal_nan=True)


def test_steps_count_as_long_as_any_channel_has_a_value() -> None:
    series = series_of([1, NAN, NAN, NAN], [NAN, 2, 3, NAN])
    fitted = pad_or_resample(series, make_spec(2, 4, "pad"))
    assert np.array_equal(fitted, series_of([1, 1, 1, NAN], [2, 2, 3, NAN]), equal_nan=True)
    assert count_steps(np.stack([series, np.full_like(series, NAN)])).tolist() == [3, 0]


@pytest.mark.parametrize("fit", ["pad", "resample"])
def test_series_that_do_not_fit_are_refused(fit: str) -> None:
    with pytest.raises(DataError, match="wanted a series of 2 channels, found 1"):
        pad_or_resample(series_of([1, 2]), make_spec(2, 4, fit))
    for empty in (series_of([]), series_of([NAN, NAN])):
        with pytest.raises(DataError, match="no values"):
            pad_or_resample(empty, make_spec(1, 4, fit))


@settings(deadline=None, max_examples=60)
@given(
    block=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.just(2), st.integers(1, 6)), elements=st.floats(-1e3, 1e3, width=32)
    )
)
def test_series_are_measured_in_double_precision_without_what_is_missing(block: np.ndarray) -> None:
    block[0, 1, 0] = NAN
    means, deviations = measure_series(block)
    for channel in range(2):
        values = block[:, channel].astype(np.float64)
        known = values[~np.isnan(values)]
        assert means[channel] == pytest.approx(known.mean() if known.size else 0, abs=1e-9)
        constant = known.size == 0 or np.ptp(known) == 0
        assert deviations[channel] == pytest.approx(1.0 if constant else known.std(), rel=1e-9)


def test_a_constant_channel_has_deviation_one_and_large_offsets_do_not_hurt() -> None:
    block = np.full((1000, 2, 50), 0.1, dtype=np.float32)
    block[:, 1] = 1e6 + np.tile([0, 1], 25)
    means, deviations = measure_series(block)
    assert means == pytest.approx((np.float32(0.1), 1e6 + 0.5), rel=1e-12)
    assert deviations == pytest.approx((1.0, 0.5), rel=1e-9)
