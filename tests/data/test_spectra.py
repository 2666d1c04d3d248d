"""Logarithmic mel spectra, against scipy's Fourier transform and a band matrix written anew."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from falconet.data.preprocessing import SeriesPreprocess
from falconet.data.spectra import _FLOOR, LogMel
from falconet.errors import ConfigError
from falconet.spec import SeriesSpec


def make_spec(rate: int = 8000, bands: int = 40, frames: int = 30, channels: int = 1) -> SeriesSpec:
    rows = bands * channels
    return SeriesSpec((rows, frames), (0.0,) * rows, (1.0,) * rows, rate=rate, bands=bands)


def expect(wave: np.ndarray, spec: SeriesSpec) -> np.ndarray:
    """The same, band by band, from scipy's short-time Fourier transform."""
    assert spec.rate
    assert spec.bands
    points = 2 ** int(np.ceil(np.log2(spec.window)))
    window = scipy.signal.windows.hann(spec.window, sym=False)
    transform = scipy.signal.ShortTimeFFT(window, spec.hop, spec.rate, mfft=points)
    padded = np.concatenate([wave, np.zeros(points - spec.window)])
    starts = range(0, len(wave) - spec.window + 1, spec.hop)
    frames = np.stack([np.fft.rfft(padded[start : start + spec.window] * window, points) for start in starts], axis=1)
    assert np.allclose(transform.f, np.arange(points // 2 + 1) * spec.rate / points)
    power = np.abs(frames * 2 / window.sum()) ** 2
    edges = 700 * (np.exp(np.linspace(0, np.log(1 + spec.rate / 1400), spec.bands + 2)) - 1)
    bands = [np.interp(transform.f, edges[i : i + 3], [0, 1, 0], 0, 0) @ power for i in range(spec.bands)]
    return np.log(np.maximum(bands, _FLOOR))


@pytest.mark.parametrize(("rate", "bands"), [(8000, 40), (16000, 80), (44100, 64), (1000, 8)])
def test_spectra_are_those_of_a_second_implementation(rate: int, bands: int) -> None:
    spec = make_spec(rate, bands)
    wave = np.random.default_rng(0).normal(0, 0.1, spec.raw_shape).astype(np.float32)
    found = LogMel(spec)(torch.from_numpy(wave)[None])[0].numpy()
    assert found.shape == spec.shape
    np.testing.assert_allclose(found, expect(wave[0].astype(np.float64), spec), atol=2e-3)


def test_a_tone_lights_the_band_of_its_frequency_at_full_power() -> None:
    spec = make_spec(8000, 20)
    tone = np.sin(2 * np.pi * 1000 * np.arange(spec.raw_shape[1]) / 8000).astype(np.float32)
    rows = LogMel(spec)(torch.from_numpy(tone)[None, None])[0]
    middles = 700 * (10 ** (np.arange(1, 21) * 2595 * np.log10(1 + 4000 / 700) / 21 / 2595) - 1)
    assert (rows.argmax(dim=0) == np.abs(middles - 1000).argmin()).all()
    assert rows.max().item() == pytest.approx(0, abs=0.5)


def test_silence_is_the_floor_and_channels_stay_apart() -> None:
    spec = make_spec(bands=12, channels=2)
    series = torch.zeros(1, *spec.raw_shape)
    series[0, 1] = torch.randn(spec.raw_shape[1], generator=torch.Generator().manual_seed(0))
    rows = LogMel(spec)(series)[0]
    assert rows[:12].numpy() == pytest.approx(np.log(_FLOOR))
    assert (rows[12:] > np.log(_FLOOR)).all()
    alone = LogMel(make_spec(bands=12))(series[:, 1:])[0]
    torch.testing.assert_close(rows[12:], alone)


@given(length=st.integers(1, 2600))
def test_frames_end_with_the_recording(length: int) -> None:
    spec = make_spec()
    wave = np.random.default_rng(length).normal(0, 0.1, (1, length)).astype(np.float32)
    rows = SeriesPreprocess(spec).prepare([wave])[0]
    within = min(max((length - spec.window) // spec.hop + 1, 1), spec.shape[1])
    assert rows[:, :within].isfinite().all()
    assert rows[:, within:].isnan().all()


def test_padding_changes_no_frame_of_a_recording() -> None:
    spec = make_spec()
    wave = np.random.default_rng(0).normal(0, 0.1, (1, 1000)).astype(np.float32)
    short = make_spec(frames=(1000 - spec.window) // spec.hop + 1)
    alone, padded = SeriesPreprocess(short).prepare([wave])[0], SeriesPreprocess(spec).prepare([wave])[0]
    torch.testing.assert_close(padded[:, : alone.shape[1]], alone)


def test_prepared_and_raw_series_meet() -> None:
    """Exports begin with raw series, where training keeps prepared ones."""
    spec = make_spec()
    preprocess = SeriesPreprocess(spec)
    wave = np.random.default_rng(0).normal(0, 0.1, spec.raw_shape).astype(np.float32)
    prepared = preprocess.normalize(preprocess.prepare([wave]))
    torch.testing.assert_close(preprocess(torch.from_numpy(wave)[None]), prepared)


def test_too_many_bands_are_refused() -> None:
    with pytest.raises(ConfigError, match="bands: wanted so few that each holds a frequency at 8000 Hz, found 128"):
        LogMel(make_spec(bands=128))
