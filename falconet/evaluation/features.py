"""Features of the linear baseline, which need no training: pixels, values and spectra, or TF-IDF."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from falconet.data.cache import PixelCache
from falconet.data.preprocessing import to_unit
from falconet.models.linear import HashedTfidf
from falconet.training.linear_probe import stack_rows, sum_columns

_SIDE = 24
"""Pixels of each side to which images are averaged down."""
_STEPS = 256
"""Values of a series after averaging over neighbors, and coefficients of its spectrum, at most."""
_AT_ONCE = 256
"""Texts in a batch for TF-IDF."""

PreparedInputs = Tensor | PixelCache
"""Samples prepared as a model's inputs, but not normalized."""
Describe = Callable[[PreparedInputs], Tensor]
"""A feature extractor: it returns features of samples, `(samples, features)`, sparse (CSR) for texts."""


def fit_pixels(inputs: PreparedInputs) -> Describe:
    """Return a feature extractor for images: their pixels minus the mean over `inputs`."""
    mean = _flatten_images(inputs).mean(dim=0)
    return lambda others: (_flatten_images(others) - mean).float()


def fit_spectra(inputs: PreparedInputs) -> Describe:
    """Return a feature extractor for series: values and spectra, minus the mean over `inputs`.

    Both are divided by their stds over `inputs`, so that they weigh alike whatever their units.
    """
    parts = _flatten_series(inputs)
    stds = [float(part.std()) if part.numel() > 1 else 1.0 for part in parts]
    scales = [1 / std if std > 0 else 1.0 for std in stds]

    def join(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)], dim=1)

    mean = join(parts).mean(dim=0)
    return lambda others: (join(_flatten_series(others)) - mean).float()


def fit_tfidf(inputs: PreparedInputs, tokens: int) -> Describe:
    """Return a feature extractor for texts: TF-IDF as in the model `linear`, with the IDF of `inputs`."""
    tfidf = HashedTfidf(tokens)
    tfidf.fit_statistics(torch.split(_to_tensor(inputs), _AT_ONCE))

    def describe(others: PreparedInputs) -> Tensor:
        parts = torch.split(_to_tensor(others), _AT_ONCE)
        return stack_rows([sum_columns(tfidf(part), len(tfidf.idf)) for part in parts])

    return describe


def _flatten_images(inputs: PreparedInputs) -> Float[Tensor, "samples features"]:
    """Return the pixels of images from 0 to 1, averaged down to _SIDE pixels a side."""
    parts = []
    for rows in torch.split(torch.arange(len(inputs)), 256):
        images = to_unit(take(inputs, rows))
        size = min(images.shape[2], _SIDE), min(images.shape[3], _SIDE)
        parts.append(F.adaptive_avg_pool2d(images, size).flatten(1))
    return torch.cat(parts)


def _flatten_series(inputs: PreparedInputs) -> list[Tensor]:
    """Return the values of series, 0 where missing, and their log power spectra."""
    # In double precision, which holds the square of whatever single precision holds.
    values = _to_tensor(inputs).double().nan_to_num(0.0, 0.0, 0.0)
    size = min(values.shape[-1], _STEPS)
    powers = torch.fft.rfft(values, dim=-1).abs().square().add(1e-6).log()
    spectrum = F.adaptive_avg_pool1d(powers, min(powers.shape[-1], _STEPS)).flatten(1)
    return [F.adaptive_avg_pool1d(values, size).flatten(1), spectrum]


def take(inputs: PreparedInputs, rows: Int64[Tensor, " chosen"]) -> Tensor:
    """Return the samples of some rows."""
    return inputs.take(rows) if isinstance(inputs, PixelCache) else inputs[rows]


def _to_tensor(inputs: PreparedInputs) -> Tensor:
    """Return all samples in memory."""
    return inputs if isinstance(inputs, Tensor) else inputs.take(torch.arange(len(inputs)))
