"""MiniRocket: a dense layer on how often each of ten thousand fixed convolutions of a series exceeds a threshold.

Dempster, Schmidt, Webb: MiniRocket: a very fast (almost) deterministic transform for time series classification. KDD
2021. What is fixed: the 84 kernels have nine weights, six of them -1 and three 2; dilations grow exponentially, up to
the one at which a kernel is as long as the series; thresholds ("biases") are quantiles of a kernel's outputs for
training samples; every other kernel sees zeros around the series, the rest stay within it. A feature is the proportion
of positive values (PPV): of outputs above the threshold. Series of several channels are as in the authors' code: each
kernel and dilation sees the sum of one to nine channels.

Series of different lengths, which the paper leaves open: after its end a series is zero, which is the mean, as around
any series, and outputs there do not count. Of a series that is shorter than a kernel, all outputs count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from falconet.errors import ConfigError, DataError
from falconet.models.options import check_count
from falconet.models.sequences import measure_lengths

KERNELS = tuple(itertools.combinations(range(9), 3))
"""Positions of the three weights 2 in each of the 84 kernels."""
_REACH = 4
"""Steps from a kernel's middle to its end, at dilation 1."""
_NEIGHBORS = (0, 1, 2, 3, 5, 6, 7, 8)
"""Positions in a kernel except its middle."""
_MAX_COMBINED = 9
"""Most channels whose sum a kernel sees."""
_MAX_CHANNELS, _MAX_FEATURES, _MAX_DILATIONS = 1 << 12, 1 << 20, 1 << 10
_SAMPLES, _MEASURED = 4096, 512
"""Training samples from which those that give thresholds are drawn, and those that give each feature's mean and std."""
MIN_STD = 0.02
"""Smallest std that a feature is divided by, since one that is nearly constant in these samples may vary in others."""
_VALUES_AT_ONCE = 1 << 22
"""Values that are compared with thresholds in one call: within a CPU's cache, it is several times as fast."""


class MiniRocket(nn.Module):
    """The features of MiniRocket, standardized, and a dense output layer, which alone is trained.

    Parameters
    ----------
    num_classes, in_channels, input_size
        As in `falconet.create_model`; dilations and features follow from the number of steps, but shorter and longer
        series are taken.
    num_features
        Number of features, rounded down to a multiple of 84.
    max_dilations
        Most dilations of each kernel.
    seed
        Seed of the choice of summed channels, and of the training samples that give thresholds.

    Until `fit_statistics` is called, thresholds are those for white noise of mean 0 and std 1. A sample without
    any non-padding step gets finite logits, the same for each. Raises ConfigError for an option's value that makes no
    network.

    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, ...],
        *,
        num_features: int = 10_000,
        max_dilations: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count("num_features", num_features, _MAX_FEATURES)
        check_count("max_dilations", max_dilations, _MAX_DILATIONS)
        if num_features < len(KERNELS):
            raise ConfigError(f"model.options.num_features: wanted {len(KERNELS)} or more, found {num_features}")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 32:
            raise ConfigError(f"model.options.seed: wanted a whole number from 0 to below 2^32, found {seed!r}")
        if in_channels > _MAX_CHANNELS:
            raise ConfigError(f"minirocket: wanted series of at most {_MAX_CHANNELS} channels, found {in_channels}")
        self.seed = seed
        self.dilations, self.counts = spread_dilations(input_size[0], num_features // len(KERNELS), max_dilations)
        combined = _combine_channels(in_channels, len(self.dilations), seed)
        count = len(KERNELS) * sum(self.counts)
        self.weights: Tensor
        self.combined: Tensor
        self.biases: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("weights", torch.tensor(_make_weights()), persistent=False)
        self.register_buffer("combined", torch.tensor(combined), persistent=False)
        self.register_buffer("biases", torch.tensor(_guess_biases(combined, self.counts)))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("std", torch.ones(count))
        self.output = nn.Linear(count, num_classes)

    def forward(self, x: Float[Tensor, "batch channels steps"]) -> Float[Tensor, "batch classes"]:
        # Of unit length on average, so that learning rates of other networks suit this one.
        scale = self.std * math.sqrt(len(self.std))
        logits: Tensor = self.output((self.features(x) - self.mean) / scale)
        return logits

    @torch.no_grad()
    def features(self, x: Float[Tensor, "batch channels steps"]) -> Float[Tensor, "batch features"]:
        """Return the proportion of each kernel's outputs that are above each of its thresholds.

        They are in the order of the authors' code: by dilation, kernel and threshold.
        """
        if torch.compiler.is_compiling():  # An exported program takes batches of any size, whole.
            return self.measure(x)
        most = _VALUES_AT_ONCE // (len(KERNELS) * max(self.counts) * x.shape[2])
        # Thresholds are for outputs in full precision.
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
            return torch.cat([self.measure(part) for part in torch.split(x, max(most, 1))])

    def measure(self, x: Float[Tensor, "batch channels steps"]) -> Float[Tensor, "batch features"]:
        """Return the features of samples that are computed at once."""
        known, lengths = fill(x)
        steps = torch.arange(x.shape[2], device=x.device)
        columns = []
        for index, biases in enumerate(self.split_dilations(self.biases)):
            outputs = self.convolve(known, index)
            begins = self.find_begins(lengths, index)
            counted = (steps >= begins[:, :, None]) & (steps < (lengths[:, None] - begins)[:, :, None])
            # Neighbors among the kernels take turns: (batch, 84, steps) as (batch, 42, 2, steps).
            outputs = torch.unflatten(outputs, 1, (-1, 2)).masked_fill(~counted[:, None], -torch.inf).flatten(1, 2)
            above = (outputs[:, :, None] - biases[:, :, None]).sign_().relu_().sum(dim=3)
            totals = (lengths[:, None] - 2 * begins).clamp(min=1).repeat(1, len(KERNELS) // 2)
            columns.append((above / totals[:, :, None]).flatten(1))
        return torch.cat(columns, dim=1)

    def convolve(self, x: Float[Tensor, "batch channels steps"], index: int) -> Float[Tensor, "batch 84 steps"]:
        """Return the outputs of all kernels at one dilation, with zeros around the series.

        The weights of a kernel sum to zero, so that it may as well see by how much each step's neighbors are above it.
        Where a series does not change they are exactly zero on any machine, as a sum of products would not be, and fall
        on the same side of a threshold. One product of matrices computes all kernels, whose inputs are the same.
        """
        return self.spread_weights(index) @ _list_differences(x, self.dilations[index])

    def spread_weights(self, index: int) -> Float[Tensor, "84 inputs"]:
        """Return the kernels' weights for the differences of each channel, zero where a kernel does not see it."""
        return (self.weights[:, :, None] * self.combined[index][:, None, :]).flatten(1)

    def find_begins(self, lengths: Int64[Tensor, " batch"], index: int) -> Int64[Tensor, "batch 2"]:
        """Return the first step whose output counts, as many as do not at the end, for even and for odd kernels."""
        reach = _REACH * self.dilations[index]
        within = torch.where(lengths > 2 * reach, reach, 0)
        around = torch.zeros_like(within)
        return torch.stack([around, within] if index % 2 == 0 else [within, around], dim=1)

    def split_dilations(self, values: Float[Tensor, " features"]) -> list[Float[Tensor, "84 thresholds"]]:
        """Return the values of all features by dilation, one row for each kernel."""
        parts = torch.split(values, [len(KERNELS) * count for count in self.counts])
        return [part.view(len(KERNELS), -1) for part in parts]

    @torch.no_grad()
    def fit_statistics(self, batches: Iterable[Float[Tensor, "batch channels steps"]]) -> None:
        """Set the thresholds, and each feature's mean and std, by the first of some training samples.

        Samples must come as a trained network gets them, in random order. The same samples give the same values. Raises
        DataError where none has any content.
        """
        x = _take_samples(batches)
        rng = np.random.RandomState(self.seed)
        known, lengths = fill(x)
        quantiles = self.split_dilations(torch.from_numpy(_list_quantiles(len(self.biases))))
        fitted = []
        for index, levels in enumerate(quantiles):
            # Each kernel with a sample of its own.
            drawn = torch.from_numpy(rng.randint(len(x), size=len(KERNELS)))
            differences = _list_differences(known[drawn], self.dilations[index])
            outputs = torch.einsum("ki,kis->ks", self.spread_weights(index), differences).double()
            for values, length, row in zip(outputs, lengths[drawn].tolist(), levels, strict=True):
                fitted.append(torch.quantile(values[:length], row))
        self.biases.copy_(torch.cat(fitted))
        features = self.features(x[:_MEASURED])
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(features.std(dim=0, correction=0).clamp(min=MIN_STD))


def spread_dilations(steps: int, features: int, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the dilations for series of so many steps, and how many of a kernel's features each gets.

    Exponents of 2 are equally spaced from 0 to that of the dilation at which a kernel is as long as the series;
    dilations are truncated to whole numbers, and the remaining features go to the smallest dilations.
    """
    spaced = min(features, most)
    largest = math.log2(max((steps - 1) / (2 * _REACH), 1))
    dilations, repeats = np.unique(np.logspace(0, largest, spaced, base=2).astype(np.int64), return_counts=True)
    counts = (repeats * (features / spaced)).astype(np.int64)
    for place in range(features - int(counts.sum())):
        counts[place % len(counts)] += 1
    return tuple(dilations.tolist()), tuple(counts.tolist())


def _make_weights() -> np.ndarray:
    """Return the weights of the 84 kernels, without those of their middles."""
    weights = np.full((len(KERNELS), 2 * _REACH + 1), -1.0, dtype=np.float32)
    for row, places in zip(weights, KERNELS, strict=True):
        row[list(places)] = 2.0
    return np.ascontiguousarray(weights[:, list(_NEIGHBORS)])


def _combine_channels(channels: int, dilations: int, seed: int) -> np.ndarray:
    """Return which channels each kernel sees at each dilation: 1 or 0, `(dilations, 84, channels)`.

    Numbers of channels are drawn so that all powers of 2 are equally likely.
    """
    rng = np.random.RandomState(seed)
    combined = np.zeros((dilations * len(KERNELS), channels), dtype=np.float32)
    largest = math.log2(min(channels, _MAX_COMBINED) + 1)
    for row, count in zip(combined, (2 ** rng.uniform(0, largest, len(combined))).astype(np.int64), strict=True):
        row[rng.choice(channels, count, replace=False)] = 1.0
    return combined.reshape(dilations, len(KERNELS), channels)


def _list_quantiles(count: int) -> np.ndarray:
    """Return as many numbers between 0 and 1, spread evenly however many: multiples of the golden ratio, modulo 1."""
    golden = (math.sqrt(5) + 1) / 2
    return np.arange(1, count + 1) * golden % 1


def _guess_biases(combined: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Return the thresholds for white noise: quantiles of a normal distribution.

    The squared weights of a kernel sum to 18, and so does the variance of its output for each channel.
    """
    quantiles = torch.from_numpy(_list_quantiles(len(KERNELS) * sum(counts)))
    stds = np.sqrt(18 * combined.sum(axis=2))
    spread = np.concatenate([row.repeat(count) for row, count in zip(stds, counts, strict=True)])
    biases: np.ndarray = torch.special.ndtri(quantiles).numpy() * spread
    return biases.astype(np.float32)


def fill(
    x: Float[Tensor, "batch channels steps"],
) -> tuple[Float[Tensor, "batch channels steps"], Int64[Tensor, " batch"]]:
    """Return series with 0, the mean, in the place of what is missing, and the number of steps of each."""
    missing = x.isnan()
    return x.masked_fill(missing, 0.0), measure_lengths(~missing.all(dim=1))


def _list_differences(
    x: Float[Tensor, "batch channels steps"], dilation: int
) -> Float[Tensor, "batch 8*channels steps"]:
    """Return by how much the neighbors that a kernel sees of each step are above it; around a series is zero."""
    steps = x.shape[2]
    padded = F.pad(x, (_REACH * dilation, _REACH * dilation))
    return torch.cat([padded[:, :, place * dilation :][:, :, :steps] - x for place in _NEIGHBORS], dim=1)


def _take_samples(batches: Iterable[Float[Tensor, "batch channels steps"]]) -> Float[Tensor, "batch channels steps"]:
    """Return the first 4,096 samples that have any content. Raises DataError where there is none."""
    taken: list[Tensor] = []
    for batch in batches:
        taken.append(batch[~batch.isnan().flatten(1).all(dim=1)])
        if sum(map(len, taken)) >= _SAMPLES:
            break
    if not sum(map(len, taken)):
        raise DataError("fit_statistics: wanted training samples with content, found none")
    return torch.cat(taken)[:_SAMPLES]
