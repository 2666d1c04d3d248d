"""FGSM and PGD."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from falconet.evaluation.attacks import ATTACKS, attack_fgsm, attack_pgd

LABELS = torch.tensor([0, 1, 1, 0])


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3


@pytest.fixture
def linear() -> nn.Module:
    """Normalization, then a linear network of two classes."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 2))


def closed_form(linear: nn.Module, pixels: Tensor, epsilon: float) -> Tensor:
    """The worst within epsilon: against the difference of the rows of weights."""
    weight = linear[1].weight.detach()  # type: ignore[index]
    away = torch.sign(weight[1 - LABELS] - weight[LABELS]).view(pixels.shape)
    return (pixels + epsilon * away).clamp(0, 1)


@pytest.mark.parametrize("epsilon", [0.01, 0.5])
@pytest.mark.parametrize("attack", [attack_fgsm, attack_pgd])
def test_of_a_linear_network_both_find_the_worst(
    attack: object, linear: nn.Module, pixels: Tensor, epsilon: float
) -> None:
    def predict(x: Tensor) -> Tensor:
        logits: Tensor = linear((x - 0.2) / 0.05)
        return logits

    found = attack(predict, pixels, LABELS, epsilon)  # type: ignore[operator]
    torch.testing.assert_close(found, closed_form(linear, pixels, epsilon), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_no_pixel_leaves_its_bound(name: str, linear: nn.Module) -> None:
    pixels = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    found = ATTACKS[name](linear, pixels, LABELS, 0.1)
    assert float((found - pixels).abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(found, ATTACKS[name](linear, pixels, LABELS, 0.1))
    assert all(parameter.grad is None for parameter in linear.parameters())


def test_a_network_that_is_very_sure_is_attacked_too(linear: nn.Module, pixels: Tensor) -> None:
    """captum takes gradients below 1e-6 for zero where nothing else is said."""
    sure = linear(pixels).detach().argmax(dim=1)

    def predict(x: Tensor) -> Tensor:
        logits: Tensor = 1e-6 * linear(x)
        return logits

    found = attack_fgsm(predict, pixels, sure, 0.1)
    assert float((found - pixels).abs().min()) == pytest.approx(0.1, abs=1e-5)


def test_a_draw_of_the_attack_changes_no_other(linear: nn.Module, pixels: Tensor) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    attack_pgd(linear, pixels, LABELS, 0.1)
    assert torch.equal(torch.rand(3), wanted)
