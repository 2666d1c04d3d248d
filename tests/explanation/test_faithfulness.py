"""Deletion, insertion and randomization, against hand-worked cases and SciPy."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from falconet.explanation.faithfulness import (
    correlate_ranks,
    draw_networks,
    measure_faithfulness,
    measure_randomization,
    order_positions,
)
from falconet.explanation.methods import METHODS, attribute
from falconet.models import create_model
from tests.explanation.planted import SIDE, wrap


class FirstPixel(nn.Module):
    """Class 1 is certain while the first pixel is there, even odds without it."""

    def forward(self, x: Tensor) -> Tensor:
        value = 50.0 * x[:, 0, 0, 0]
        return torch.stack([torch.zeros_like(value), value], dim=1)


def test_areas_of_a_hand_worked_case() -> None:
    image = torch.ones(1, 1, 2, 2)
    right = measure_faithfulness(FirstPixel(), image, 1, torch.tensor([[[4.0, 3.0], [2.0, 1.0]]]))
    assert list(right.deletion.fractions) == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(right.deletion.probabilities, [1, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(right.insertion.probabilities, [0.5, 1, 1, 1, 1])
    # Trapezoids: a quarter of 0.75, three quarters of the rest.
    assert right.deletion.area == pytest.approx(0.25 * 0.75 + 0.75 * 0.5)
    assert right.insertion.area == pytest.approx(0.25 * 0.75 + 0.75 * 1)
    wrong = measure_faithfulness(FirstPixel(), image, 1, torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    assert wrong.deletion.area == pytest.approx(right.insertion.area)
    assert wrong.gain == pytest.approx(-right.gain)


def test_padding_is_never_removed() -> None:
    tokens = torch.tensor([[5, 6, 7, 0, 0]])
    sets = order_positions(tokens, torch.tensor([0.0, 2.0, 1.0, 9.0, 9.0]))
    assert sets.tolist() == [
        [False] * 5,
        [False, True, False, False, False],
        [False, True, True, False, False],
        [True, True, True, False, False],
    ]
    series = torch.tensor([[[1.0, 2.0, torch.nan], [1.0, torch.nan, torch.nan]]])
    assert order_positions(series, torch.tensor([1.0, 2.0, 3.0]))[:, 2].any().item() is False


def test_texts_lose_tokens_to_the_mask() -> None:
    class CountSevens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert ((x == 0) == (torch.tensor([[5, 7, 3, 0]]) == 0)).all()  # Padding stays where it is.
            sevens = 40.0 * (x == 7).sum(dim=1)
            return torch.stack([sevens, torch.zeros_like(sevens)], dim=1)

    found = measure_faithfulness(CountSevens(), torch.tensor([[5, 7, 3, 0]]), 0, torch.tensor([[0.0, 1.0, 0.5, 0.0]]))
    np.testing.assert_allclose(found.deletion.probabilities, [1, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(found.insertion.probabilities, [0.5, 1, 1, 1])


def test_ties_have_no_order_of_their_own() -> None:
    first = order_positions(torch.ones(1, 1, 8, 8), torch.zeros(64))[10]
    assert first.sum() == round(64 * 10 / 50)
    assert not first[: int(first.sum())].all()


@given(
    arrays.arrays(np.float64, st.integers(2, 30), elements=st.integers(-3, 3).map(float)),
    st.randoms(use_true_random=False),
)
def test_rank_correlation_is_scipys(values: np.ndarray, random: object) -> None:
    other = np.random.default_rng(len(values)).integers(-3, 4, size=len(values)).astype(float)
    found = correlate_ranks(values, other)
    if len(set(values.tolist())) > 1 and len(set(other.tolist())) > 1:
        assert found == pytest.approx(scipy.stats.spearmanr(values, other).statistic, abs=1e-12)
    else:
        assert found == 0.0


def test_rank_correlation_of_nothing() -> None:
    assert correlate_ranks(np.zeros(0), np.zeros(0)) == 0.0


def test_randomization_tells_an_explanation_that_ignores_the_network() -> None:
    artifact = wrap(create_model("cnn_small", num_classes=4, in_channels=1, input_size=SIDE), "cnn_small")
    images, targets, networks = torch.randn(2, 1, SIDE, SIDE), torch.tensor([0, 1]), draw_networks(artifact)
    noise = attribute(artifact, images, "random", targets)
    assert measure_randomization(networks, METHODS["random"], images, targets, noise) == pytest.approx([1.0, 1.0])
    gradients = attribute(artifact, images, "integrated_gradients", targets)
    found = measure_randomization(networks, METHODS["integrated_gradients"], images, targets, gradients)
    assert max(map(abs, found)) < 0.3


def test_networks_are_drawn_anew_but_always_alike() -> None:
    artifact = wrap(create_model("cnn_small", num_classes=4, in_channels=1, input_size=SIDE), "cnn_small")
    state = torch.get_rng_state()
    first, again = draw_networks(artifact), draw_networks(artifact)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [network.get_parameter("conv1.weight") for network in (*first, *again, artifact.model)]
    assert torch.equal(weights[0], weights[3])
    assert len({float(weight.sum().detach()) for weight in weights}) == len(first) + 1
