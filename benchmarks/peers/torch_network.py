"""falconet's `lenet_relu`, as those who use torch without falconet write it."""

from __future__ import annotations

from torch import nn


def build() -> nn.Sequential:
    """Return the network; pooling stands before ReLU, as in falconet's."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def count_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
