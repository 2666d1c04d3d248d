from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.generation.flow import Flow, FlowConfig, VelocityNet, draw_images, flow_loss, train_flow

CONFIG = FlowConfig(epochs=30, batch_size=16, width=8, learning_rate=5e-3, ema_decay=0.9, euler_steps=10)


def make_images(side: int = 8) -> tuple[Tensor, Tensor]:
    """Dark images of class 0 and bright ones of class 1, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 2
    levels = torch.where(labels == 0, 0.2, 0.8)[:, None, None, None]
    return (levels + 0.05 * torch.randn(48, 1, side, side, generator=generator)).clamp(0, 1), labels


def test_made_images_are_of_their_class() -> None:
    flow = train_flow(*make_images(), 2, CONFIG)
    labels = torch.tensor([0, 1] * 10)
    levels = draw_images(flow, labels, seed=1).mean(dim=(1, 2, 3))
    assert float(levels[labels == 0].max()) < 0.4
    assert float(levels[labels == 1].min()) > 0.6
    assert flow.losses[-1] < flow.losses[0]
    assert (len(flow.losses), flow.steps) == (30, 90)


def test_the_same_seed_makes_the_same_images_and_another_makes_others() -> None:
    config = FlowConfig(epochs=1, width=8, euler_steps=2)
    images, labels = make_images(6)
    first, again = (draw_images(train_flow(images, labels, 2, config), labels[:4], seed=3) for _ in range(2))
    assert torch.equal(first, again)
    other = draw_images(train_flow(images, labels, 2, config), labels[:4], seed=4)
    assert not torch.equal(first, other)
    assert first.shape == (4, 1, 6, 6)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


class Exact(nn.Module):
    """The velocity towards one image from anywhere: (image - x) / (1 - t)."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = nn.Parameter(image)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return (self.image - x) / (1 - times[:, None, None, None])


def test_the_exact_velocity_has_no_loss_and_leads_to_the_image() -> None:
    """Where there is but one image, the flow of all lines to it is known."""
    image = torch.rand(3, 5, 7) * 2 - 1
    network = Exact(image)
    batch = image.expand(4, 3, 5, 7)
    loss = flow_loss(network, batch, torch.zeros(4).long(), torch.randn(4, 3, 5, 7), torch.tensor([0.0, 0.2, 0.5, 0.9]))
    assert loss.item() == pytest.approx(0, abs=1e-8)
    flow = Flow(network, (3, 5, 7), FlowConfig(euler_steps=7), (0.0,), 1)
    found = draw_images(flow, torch.zeros(2).long(), seed=0)
    torch.testing.assert_close(found, ((image + 1) / 2).expand(2, 3, 5, 7))


def test_the_loss_is_that_of_straight_lines() -> None:
    """Of a network that answers 0, the mean square of the velocity."""
    images, noise = torch.rand(2, 3, 1, 4, 4)

    class Still(nn.Module):
        def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
            return torch.zeros_like(x)

    loss = flow_loss(Still(), images, torch.zeros(3).long(), noise, torch.rand(3))
    assert loss.item() == pytest.approx(float((images - noise).square().mean()), rel=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 12), (28, 28)])
def test_any_size_stays(size: tuple[int, int]) -> None:
    network = VelocityNet(3, 4, 8)
    found = network(torch.rand(2, 3, *size), torch.rand(2), torch.tensor([0, 3]))
    assert found.shape == (2, 3, *size)


def test_time_is_kept_to() -> None:
    images, labels = make_images(4)
    flow = train_flow(images, labels, 2, FlowConfig(epochs=10_000, seconds=0.05, width=8))
    assert 1 <= flow.steps < 10_000


@pytest.mark.parametrize(
    ("field", "value"), [("epochs", 0), ("width", 12), ("width", 0), ("seconds", 0.0), ("euler_steps", 0)]
)
def test_impossible_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: wanted .*, found {value}"):
        FlowConfig(**{field: value})


def test_large_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="wanted at most 64 pixels a side to generate, found 65x8"):
        train_flow(torch.rand(2, 1, 65, 8), torch.tensor([0, 1]), 2, CONFIG)
