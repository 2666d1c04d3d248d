"""Series in memory: packing, brought to a model's number of steps, and their statistics.

A series is float32 `(channels, steps)`, NaN where a value is missing. Importing this does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from falconet.data.dataset import Dataset, SeriesArray, Split, Unreadable, hash_bytes
from falconet.errors import DataError
from falconet.spec import SeriesSpec

NO_VALUES = "no values"


def pack_series(series: Sequence[Float32[np.ndarray, "_ _"]], names: Shaped[np.ndarray, " samples"]) -> SeriesArray:
    """Put series of any lengths one after the other. Raises DataError for none, or unlike numbers of channels."""
    channels = sorted({len(values) for values in series})
    if len(channels) != 1:
        found = f"series of {' and '.join(map(str, channels))} channels" if channels else "none"
        raise DataError(f"wanted series of one number of channels, found {found}")
    ends = np.cumsum([values.shape[1] for values in series], dtype=np.int64)
    bounds = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return SeriesArray(np.concatenate(series, axis=1), bounds, names)


def split_series(
    series: Sequence[Float32[np.ndarray, "_ _"]],
    names: Shaped[np.ndarray, " samples"],
    labels: Int64[np.ndarray, " samples"],
) -> Split:
    """Return series in memory as a split. Raises what `pack_series` raises."""
    hashes = np.array([hash_bytes(values.tobytes()) for values in series], dtype=np.uint64)
    return Split(pack_series(series, names), labels, hashes)


def series_dataset(
    source: str, splits: Mapping[str, Split], classes: tuple[str, ...], unreadable: Sequence[Unreadable] = ()
) -> Dataset:
    """Wrap splits of series in memory. Raises DataError where their channels differ."""
    channels: dict[str, int] = {}
    steps: list[int] = []
    for name, split in splits.items():
        series = [split.samples.read(index) for index in range(len(split))]
        channels[name] = len(series[0])
        steps += [int(count_steps(values)) for values in series]
    if len(set(channels.values())) > 1:
        found = ", ".join(f"{number} in {name}" for name, number in channels.items())
        raise DataError(f"{source}: wanted the same number of channels in all splits, found {found}")
    size = (int(np.median(steps)),)
    return Dataset(source, classes, splits, next(iter(channels.values())), size, tuple(unreadable), kind="series")


# Number of steps


def resample(series: Float32[np.ndarray, "channels steps"], steps: int) -> Float32[np.ndarray, "channels new_steps"]:
    """Return a band-limited series of finite values at another rate: its spectrum is cut, or followed by zeros.

    As any method of Fourier's it takes the series for one period, which does not matter for recordings that begin and
    end in silence; what does not is for `stretch`.
    """
    old = series.shape[1]
    if old == steps:
        return series
    spectrum = np.fft.rfft(series.astype(np.float64), axis=1)[:, : steps // 2 + 1]
    shorter = min(old, steps)
    if shorter % 2 == 0:
        # The highest frequency of an even number of steps stands for itself and its mirror image.
        spectrum[:, shorter // 2] *= 2 if steps < old else 0.5
    # The inverse adds the zeros of a longer series.
    resampled: Float32[np.ndarray, "channels new_steps"] = np.fft.irfft(spectrum, steps, axis=1).astype(np.float32)
    return resampled * np.float32(steps / old)


def stretch(series: Float32[np.ndarray, "channels steps"], steps: int) -> Float32[np.ndarray, "channels new_steps"]:
    """Return a series of finite values at `steps` equally spaced places from its first value to its last.

    Linear interpolation; a series that shrinks by a factor f is first averaged over windows of about f steps, narrower
    towards its ends, so that what is too fast for the new steps does not fold into them. Ends and straight lines stay
    as they are. (Fourier's method would ring, as a series in general ends elsewhere than it begins.)
    """
    old = series.shape[1]
    if steps == 1:
        mean: Float32[np.ndarray, "channels 1"] = series.mean(axis=1, keepdims=True, dtype=np.float64).astype(
            np.float32
        )
        return mean
    half = max(round(((old - 1) / (steps - 1) - 1) / 2), 0)
    places = np.linspace(0, old - 1, steps)
    rows = [np.interp(places, np.arange(old), row) for row in _smooth(series, half)]
    return np.stack(rows).astype(np.float32)


def _smooth(series: Float32[np.ndarray, "channels steps"], half: int) -> Float64[np.ndarray, "channels steps"]:
    """Return the mean over each step and `half` steps on both sides, or as many as there are on the shorter side."""
    steps = np.arange(series.shape[1])
    reach = np.minimum(np.minimum(steps, steps[::-1]), half)
    sums = np.cumsum(np.pad(series.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    means: Float64[np.ndarray, "channels steps"] = (sums[:, steps + reach + 1] - sums[:, steps - reach]) / (
        2 * reach + 1
    )
    return means


def count_steps(series: Float32[np.ndarray, "*batch channels steps"]) -> Int64[np.ndarray, "*batch"]:
    """Return the steps up to the last that has a value in any channel; what follows is not part of the series."""
    steps = series.shape[-1]
    if steps == 0:
        return np.zeros(series.shape[:-2], dtype=np.int64)
    known = ~np.isnan(series).all(axis=-2)
    return np.where(known.any(axis=-1), steps - known[..., ::-1].argmax(axis=-1), 0)


def fill_missing(series: Float32[np.ndarray, "channels steps"]) -> Float32[np.ndarray, "channels steps"]:
    """Replace NaN in each channel: between two values linearly, at the ends by the nearest, by 0 where none is."""
    missing = np.isnan(series)
    if not missing.any():
        return series
    filled = series.copy()
    for row, gaps in zip(filled, missing, strict=True):
        row[gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), row[~gaps]) if not gaps.all() else 0
    return filled


def pad_or_resample(
    series: Float32[np.ndarray, "channels steps"], spec: SeriesSpec
) -> Float32[np.ndarray, "channels model_steps"]:
    """Return a raw series with the steps that a model takes: without its trailing NaN, filled, then fitted.

    Where `spec.length_mode` is "pad" it is cut at the end, or followed by NaN in all channels; where it is "resample"
    it is stretched (see `stretch`). Raises DataError for a series of another number of channels or without values.
    """
    channels, steps = spec.raw_shape
    if len(series) != channels:
        raise DataError(f"wanted a series of {channels} channels, found {len(series)}")
    length = int(count_steps(series))
    if length == 0:
        raise DataError(NO_VALUES)
    filled = fill_missing(series[:, :length])
    if spec.length_mode == "resample":
        return stretch(filled, steps)
    fitted = np.full((channels, steps), np.nan, dtype=np.float32)
    fitted[:, :length] = filled[:, :steps]
    return fitted


def measure_series(
    block: Float32[np.ndarray, "samples channels steps"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation, NaN left out; 1.0 as the std of equal values."""
    means, stds = [], []
    for channel in range(block.shape[1]):
        rows = block[:, channel]
        values = rows[~np.isnan(rows)].astype(np.float64)
        means.append(float(values.mean()) if values.size else 0.0)
        # Of equal values it is exactly zero: float64 holds their sum without rounding.
        stds.append((float(values.std()) if values.size else 0.0) or 1.0)
    return tuple(means), tuple(stds)
