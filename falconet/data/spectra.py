"""Recordings to logarithmic mel spectra: what changes slowly in a sound, in a hundredth of the steps.

S. Davis, P. Mermelstein: Comparison of parametric representations for monosyllabic word recognition. IEEE Trans. ASSP,
1980. Mel scale: D. O'Shaughnessy, Speech communication, 1987: 2595 log10(1 + f / 700).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.spec import SeriesSpec

_FLOOR = 1e-8
"""Power that counts as silence: 80 dB below a sine of amplitude 1, which has 1."""


class LogMel(nn.Module):
    """Raw series at `spec.rate` to one row for each mel band, and a step for each of the spec's frames.

    Each frame is weighted by Hann's window; the Fourier transform is a convolution with fixed kernels, which every
    exported format knows. Bands are triangles, equally wide in mel from 0 to half the rate; the result is the natural
    logarithm of their power, at least that of _FLOOR. Channels keep their order, each with all its bands. Frames that
    reach over a series' end are NaN, but for the first, in which silence follows.

    Raises ConfigError for so many bands that one of them would hold no frequency.
    """

    def __init__(self, spec: SeriesSpec) -> None:
        super().__init__()
        if spec.bands is None or spec.rate is None:
            raise ConfigError("bands: wanted a number of mel bands and a rate")
        self.window, self.hop = spec.window, spec.hop
        self.kernels: Tensor
        self.filters: Tensor
        kernels, filters = _make_kernels(spec.window), _make_filters(spec.bands, spec.window, spec.rate)
        self.register_buffer("kernels", kernels, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, series: Float32[Tensor, "batch channels steps"]) -> Float32[Tensor, "batch rows frames"]:
        batch, channels, steps = series.shape
        lengths = (torch.arange(1, steps + 1) * ~series.isnan().all(dim=1)).amax(dim=1)
        waves = series.nan_to_num(0.0).reshape(batch * channels, 1, steps)
        parts = F.conv1d(waves, self.kernels, stride=self.hop)
        power = parts.square().view(batch * channels, 2, -1, parts.shape[2]).sum(dim=1)
        rows = (self.filters @ power).clamp(min=_FLOOR).log().view(batch, -1, parts.shape[2])
        frames = ((lengths - self.window) // self.hop + 1).clamp(min=1)
        padded = torch.arange(parts.shape[2]) >= frames[:, None]
        return rows.masked_fill(padded[:, None], torch.nan)


def _make_kernels(window: int) -> Float32[Tensor, "kernels 1 window"]:
    """Return cosines, then sines, of all frequencies of a Fourier transform, under Hann's window.

    Scaled so that a sine of amplitude 1 has power 1 at its frequency.
    """
    points = _count_points(window)
    steps = torch.arange(window, dtype=torch.float64)
    hann = torch.hann_window(window, dtype=torch.float64)
    angles = 2 * math.pi / points * torch.arange(points // 2 + 1, dtype=torch.float64)[:, None] * steps
    return (torch.cat([angles.cos(), angles.sin()]) * hann * (2 / hann.sum()))[:, None].float()


def _make_filters(bands: int, window: int, rate: int) -> Float32[Tensor, "bands frequencies"]:
    """Return each band's weight of each frequency: triangles of height 1, each from its neighbors' middles."""
    points = _count_points(window)
    frequencies = torch.arange(points // 2 + 1, dtype=torch.float64) * rate / points
    edges = _to_hertz(torch.linspace(0, _to_mel(rate / 2), bands + 2, dtype=torch.float64))
    low, middle, high = (edges[start : start + bands, None] for start in range(3))
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    filters = torch.minimum(rising, falling).clamp(min=0).float()
    if not filters.any(dim=1).all():
        raise ConfigError(f"bands: wanted so few that each holds a frequency at {rate} Hz, found {bands}")
    return filters


def _count_points(window: int) -> int:
    """Return the length of the Fourier transform: the power of two at or above a window's."""
    return 1 << (window - 1).bit_length()


def _to_mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _to_hertz(mel: Float64[Tensor, " edges"]) -> Float64[Tensor, " edges"]:
    return 700 * (10 ** (mel / 2595) - 1)
