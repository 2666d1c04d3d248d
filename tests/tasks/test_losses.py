"""Losses of classifiers, against those of torch and scikit-learn."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from falconet import TrainConfig
from falconet.tasks.losses import (
    arcface_logits,
    balanced_class_weights,
    brier_loss,
    compute_class_weights,
    cosface_logits,
    cosine_loss,
    effective_class_weights,
    make_loss,
    make_validation_loss,
)


def test_cross_entropy_smooths_labels_as_torch_does() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    loss = make_loss(TrainConfig(label_smoothing=0.2))(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, label_smoothing=0.2))


def test_mean_squared_error_is_of_probabilities() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    labels = torch.tensor([0, 1])
    expected = ((0.25 + 0.0625 + 0.0625) + (0.04 + 0.64 + 0.36)) / 2
    assert brier_loss(logits, labels, 0.0).item() == pytest.approx(expected)
    assert make_loss(TrainConfig(loss="brier"))(logits, labels).item() == pytest.approx(expected)


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_balanced_weights_are_those_of_scikit_learn(labels: list[int]) -> None:
    weights = balanced_class_weights(torch.tensor(labels), num_classes=7)
    present = np.unique(labels)
    expected = np.zeros(7)
    expected[present] = compute_class_weight("balanced", classes=present, y=np.array(labels))
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert float(weights[labels].mean()) == pytest.approx(1, rel=1e-5)


WEIGHTS = torch.tensor([0.5, 2.0, 4.0])


def make_batch(soft: bool) -> tuple[Tensor, Tensor]:
    """Logits and labels of three classes, as numbers or as shares."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, generator=generator)
    shares = torch.rand(12, 3, generator=generator)
    return logits, shares / shares.sum(dim=1, keepdim=True) if soft else torch.arange(12) % 3


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_torch(soft: bool, weights: Tensor | None, smoothing: float) -> None:
    logits, labels = make_batch(soft)
    loss = make_loss(TrainConfig(label_smoothing=smoothing), weights)(logits, labels)
    expected = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    if soft and weights is not None:  # Torch then divides by the batch, as it does not for class numbers.
        expected = expected * len(labels) / (labels @ weights).sum()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_mean_squared_error_is_the_weighted_brier_score_of_scikit_learn(weights: Tensor | None) -> None:
    logits, labels = make_batch(soft=False)
    each = None if weights is None else weights[labels].numpy()
    expected = brier_score_loss(labels, logits.double().softmax(dim=1), sample_weight=each, scale_by_half=False)
    loss = make_loss(TrainConfig(loss="brier"), weights)(logits, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mean_squared_error_takes_numbers_and_shares_alike(weights: Tensor | None, smoothing: float) -> None:
    logits, labels = make_batch(soft=False)
    shares = F.one_hot(labels, 3).float()
    torch.testing.assert_close(
        brier_loss(logits, shares, smoothing, weights), brier_loss(logits, labels, smoothing, weights)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mean_squared_error_of_shares_follows_its_formula(smoothing: float) -> None:
    logits, shares = make_batch(soft=True)
    p, y, w = (tensor.double().numpy() for tensor in (logits.softmax(dim=1), shares, WEIGHTS))
    target = (1 - smoothing) * y + smoothing / 3
    expected = np.average(((p - target) ** 2).sum(axis=1), weights=(y * w).sum(axis=1))
    assert brier_loss(logits, shares, smoothing, WEIGHTS).item() == pytest.approx(expected, rel=1e-5)


def test_a_weighted_loss_is_the_same_for_class_numbers_and_their_shares() -> None:
    logits, labels = make_batch(soft=False)
    criterion = make_loss(TrainConfig(), WEIGHTS)
    torch.testing.assert_close(criterion(logits, labels), criterion(logits, F.one_hot(labels, 3).float()))


# Margins


ANGLES = torch.tensor([[0.3, 1.2, 2.0], [1.0, 0.4, 3.0]])
LABELS = torch.tensor([0, 2])


def test_cosface_lowers_the_true_cosine() -> None:
    found = cosface_logits(16 * ANGLES.cos(), LABELS, 0.25) / 16
    expected = ANGLES.cos() - 0.25 * F.one_hot(LABELS, 3)
    torch.testing.assert_close(found, expected)


def test_arcface_widens_the_true_angle_up_to_pi() -> None:
    found = arcface_logits(16 * ANGLES.cos(), LABELS, 0.25) / 16
    widened = ANGLES.clone()
    widened[0, 0], widened[1, 2] = 0.55, math.pi  # 3.25 would be less than opposite again
    torch.testing.assert_close(found, widened.cos(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("take", [cosface_logits, arcface_logits])
def test_margins_of_mixed_samples_are_shared_out(take: Any) -> None:
    logits, shares = 16 * ANGLES.cos(), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    whole = [take(logits, torch.tensor([number, 2]), 0.3)[0] for number in (0, 1)]
    expected = logits[0] + 0.5 * sum(part - logits[0] for part in whole)
    torch.testing.assert_close(take(logits, shares, 0.3)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("take", [cosface_logits, arcface_logits])
def test_gradients_stay_finite_where_vectors_meet(take: Any) -> None:
    logits = torch.tensor([[16.0, -16.0, 0.0]], requires_grad=True)
    F.cross_entropy(take(logits, torch.tensor([0]), 0.2), torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", ["cosface", "arcface"])
def test_validation_asks_for_no_margin(loss: Literal["cosface", "arcface"]) -> None:
    config = TrainConfig(loss=loss, margin=0.3, label_smoothing=0.1)
    logits, labels = 16 * ANGLES.cos(), torch.tensor([0, 1])
    assert make_validation_loss(config)(logits, labels).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    assert make_loss(config)(logits, labels) > make_validation_loss(config)(logits, labels)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cosine_loss_is_one_less_the_cosine_of_torch(soft: bool, weights: Tensor | None, smoothing: float) -> None:
    logits, labels = make_batch(soft)
    shares = labels if soft else F.one_hot(labels, 3).float()
    each = 1 - F.cosine_similarity(logits, shares * (1 - smoothing) + smoothing / 3)
    share = torch.ones(12) if weights is None else shares @ weights
    config = TrainConfig(loss="cosine", cross_entropy_weight=0.0, label_smoothing=smoothing)
    torch.testing.assert_close(make_loss(config, weights)(logits, labels), (each * share).sum() / share.sum())


def test_cosine_loss_adds_cross_entropy() -> None:
    logits, labels = make_batch(soft=False)
    config = TrainConfig(loss="cosine", cross_entropy_weight=0.25)
    # By hand: the one-hot label picks one of the normalized logits, and one of the log-probabilities.
    rows = np.arange(12)
    values = logits.double().numpy()
    cosines = values[rows, labels] / np.sqrt((values**2).sum(axis=1))
    logs = values[rows, labels] - np.log(np.exp(values).sum(axis=1))
    expected = (1 - cosines).mean() - 0.25 * logs.mean()
    assert make_loss(config)(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert make_validation_loss(config)(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_cosine_loss_knows_no_length_and_survives_zeros() -> None:
    logits, labels = make_batch(soft=False)
    torch.testing.assert_close(cosine_loss(logits, labels, 0.0), cosine_loss(1000 * logits, labels, 0.0))
    zeros = torch.zeros(2, 3, requires_grad=True)
    cosine_loss(zeros, torch.tensor([0, 1]), 0.1).backward()  # type: ignore[no-untyped-call]
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 300), min_size=1, max_size=7), beta=st.sampled_from([0.0, 0.9, 0.999, 0.9999]))
def test_effective_weights_are_those_of_the_paper(counts: list[int], beta: float) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    weights = effective_class_weights(labels, len(counts) + 1, beta)
    # The effective number is the sum of beta^(i - 1) over a class's samples, of which (1 - beta^n) / (1 - beta) is the
    # closed form (proposition 1); weights add up to the number of classes (section 4.1).
    effective = np.array([sum(beta**power for power in range(count)) for count in counts])
    expected = 1 / effective / (1 / effective).sum() * len(counts)
    np.testing.assert_allclose(weights.numpy(), [*expected, 0.0], rtol=1e-5)


def test_class_weights_are_as_the_configuration_says() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert compute_class_weights(labels, 2, TrainConfig()) is None
    balanced = compute_class_weights(labels, 2, TrainConfig(class_weights="balanced"))
    assert balanced is not None
    torch.testing.assert_close(balanced, balanced_class_weights(labels, 2))
    near = compute_class_weights(labels, 2, TrainConfig(class_weights="effective", effective_beta=0.999999))
    assert near is not None
    assert (near[1] / near[0]).item() == pytest.approx((balanced[1] / balanced[0]).item(), rel=1e-3)
    none = compute_class_weights(labels, 2, TrainConfig(class_weights="effective", effective_beta=0.0))
    assert none is not None
    torch.testing.assert_close(none, torch.ones(2))
