"""MiniRocket against convolutions by definition and numbers of aeon's, series of different lengths, statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from falconet.errors import ConfigError, DataError
from falconet.models import create_model
from falconet.models.layers import FitsStatistics
from falconet.models.minirocket import KERNELS, MIN_STD, MiniRocket, spread_dilations


def build(channels: int = 1, steps: int = 40, **options: Any) -> MiniRocket:
    settings = {"num_features": 336, **options}
    model = create_model("minirocket", num_classes=3, in_channels=channels, input_size=steps, **settings)
    assert isinstance(model, MiniRocket)
    return model.eval()


def make_waves() -> Tensor:
    """Return four series of three channels."""
    t = np.arange(40)
    waves = [[np.sin(t * t * a / 50 + c) + np.cos(t * a + 2 * c) for c in range(3)] for a in (0.3, 0.7, 1.1, 1.9)]
    return torch.tensor(np.array(waves), dtype=torch.float32)


def transform_by_definition(model: MiniRocket, series: np.ndarray) -> np.ndarray:
    """Return the features of one series without padding, each convolution a sum of nine products."""
    steps, features, place = series.shape[1], [], 0
    biases, combined = model.biases.double().numpy(), model.combined.numpy()
    for index, (dilation, count) in enumerate(zip(model.dilations, model.counts, strict=True)):
        for kernel, places in enumerate(KERNELS):
            seen = (series * combined[index, kernel][:, None]).sum(axis=0)
            outputs = np.zeros(steps)
            for step in range(steps):
                for weight in range(9):
                    other = step + (weight - 4) * dilation
                    if 0 <= other < steps:
                        outputs[step] += (2 if weight in places else -1) * seen[other]
            if (index + kernel) % 2 and steps > 8 * dilation:
                outputs = outputs[4 * dilation : steps - 4 * dilation]
            features += [(outputs > bias).mean() for bias in biases[place : place + count]]
            place += count
    return np.array(features)


@pytest.mark.parametrize(
    ("channels", "every_41st", "sums"),
    [
        (
            1,
            [
                [0.375, 0.0, 1.0, 0.3125, 0.025, 0.9, 0.29167, 0.0, 0.575],
                [0.3, 0.0, 1.0, 0.25, 0.0, 0.8, 0.0, 0.125, 0.675],
                [0.35, 0.05, 1.0, 0.34375, 0.0, 0.675, 0.125, 0.0, 0.625],
                [0.2, 0.325, 0.6875, 0.375, 0.0, 0.675, 0.29167, 0.125, 0.55],
            ],
            [165.87083, 166.72917, 169.67917, 168.25626],
        ),
        (
            3,
            [
                [0.375, 0.0, 1.0, 0.3125, 0.025, 0.825, 0.45833, 0.0, 0.7],
                [0.35, 0.0, 1.0, 0.25, 0.05, 0.8, 0.16667, 0.25, 0.675],
                [0.375, 0.05, 1.0, 0.34375, 0.0, 0.7, 0.33333, 0.0, 0.65],
                [0.25, 0.125, 0.6875, 0.375, 0.0, 0.675, 0.29167, 0.0, 0.6],
            ],
            [166.56458, 167.87291, 168.87709, 169.56665],
        ),
    ],
)
def test_features_are_those_of_aeon(channels: int, every_41st: list[list[float]], sums: list[float]) -> None:
    """Made by aeon 1.6.0: `MiniRocket(n_kernels=336, random_state=0)`, fitted on the four series."""
    model, waves = build(channels), make_waves()[:, :channels]
    model.fit_statistics([waves])
    features = model.features(waves)
    assert (model.dilations, model.counts) == ((1, 2, 4), (2, 1, 1))
    torch.testing.assert_close(features[:, ::41], torch.tensor(every_41st), rtol=0, atol=1e-5)
    torch.testing.assert_close(features.sum(dim=1), torch.tensor(sums), rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_proportions_of_convolutions_by_definition(channels: int) -> None:
    model = build(channels)
    waves = make_waves()[:, :channels]
    wanted = np.stack([transform_by_definition(model, series) for series in waves.double().numpy()])
    np.testing.assert_allclose(model.double().features(waves.double()).numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("length", [1, 9, 20, 39])
def test_a_short_series_has_the_features_that_it_has_alone(length: int) -> None:
    model = build(3).double()
    waves = make_waves().double()
    wanted = np.stack([transform_by_definition(model, series) for series in waves[:, :, :length].numpy()])
    waves[:, :, length:] = torch.nan
    np.testing.assert_allclose(model.features(waves).numpy(), wanted, atol=1e-6)


def test_where_a_series_does_not_change_outputs_are_exactly_zero() -> None:
    outputs = build().convolve(torch.full((1, 1, 40), 0.1), 0)
    assert not outputs[:, :, 4:-4].any()
    assert outputs[:, :, :4].any()


def test_statistics_standardize_features_and_are_the_same_each_time() -> None:
    model, other = build(3), build(3)
    waves = make_waves()
    assert isinstance(model, FitsStatistics)
    model.fit_statistics(iter([waves[:3], waves[3:]]))
    other.fit_statistics([waves])
    assert all(torch.equal(tensor, dict(other.named_buffers())[name]) for name, tensor in model.named_buffers())
    scaled = (model.features(waves) - model.mean) / model.std
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(336), rtol=0, atol=1e-4)
    varied = model.features(waves).std(dim=0, correction=0) > MIN_STD
    assert varied.float().mean() > 0.5
    torch.testing.assert_close(
        scaled.std(dim=0, correction=0)[varied], torch.ones(int(varied.sum())), atol=1e-3, rtol=0
    )


@torch.no_grad()
def test_a_feature_that_no_sample_varies_does_not_rule_the_logits() -> None:
    model = build()
    model.fit_statistics([make_waves()[:1, :1]])
    assert torch.allclose(model.std, torch.tensor(MIN_STD))
    assert model(make_waves()[1:, :1]).abs().max() < 100


def test_statistics_need_content() -> None:
    with pytest.raises(DataError, match=r"^fit_statistics: wanted training samples with content, found none$"):
        build().fit_statistics([torch.full((2, 1, 40), torch.nan)])


@pytest.mark.parametrize("steps", [1, 5, 9, 24, 150, 1024])
def test_dilations_reach_the_length_of_the_series(steps: int) -> None:
    dilations, counts = spread_dilations(steps, 119, 32)
    assert sum(counts) == 119
    assert min(counts) > 0
    assert dilations[0] == 1
    assert 8 * dilations[-1] <= max(steps - 1, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_features": 83}, r"^model\.options\.num_features: wanted 84 or more, found 83$"),
        ({"max_dilations": 0}, r"^model\.options\.max_dilations: wanted a whole number above 0, found 0$"),
        ({"seed": -1}, r"^model\.options\.seed: wanted a whole number from 0 to below 2\^32, found -1$"),
        ({"channels": 5000}, r"^minirocket: wanted series of at most 4096 channels, found 5000$"),
    ],
)
def test_options_that_make_no_network(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)
