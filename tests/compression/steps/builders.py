"""Small networks for the tests of compression, with batch normalization that has seen a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from falconet.models import create_model
from falconet.spec import ModalityName
from tests.test_registry_wide import CHANNELS, CLASSES, choose_size, draw_inputs

SMALL: dict[str, dict[str, Any]] = {
    **{name: {"width": 8} for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet1d18")},
    "efficientnet": {"phi": -6},
}
"""Options that make a network quick to test."""


def build_settled(name: str, kind: ModalityName = "image", **options: Any) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a network in eval mode, its architecture on no device, and inputs of which it makes different logits.

    Normalization has weights and statistics unlike those that it starts with.
    """
    wanted: dict[str, Any] = {
        "num_classes": CLASSES,
        "in_channels": CHANNELS[kind][-1],
        "input_size": choose_size(name, kind),
        "kind": kind,
        **options,
    }
    torch.manual_seed(0)
    model = create_model(name, **wanted)
    with torch.device("meta"):
        dense = create_model(name, **wanted)
    inputs = draw_inputs(name, kind, CHANNELS[kind][-1])
    settle(model, inputs)
    return model, dense, inputs


@torch.no_grad()
def settle(model: nn.Module, inputs: Tensor) -> None:
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.momentum = None
            module.train()
    model(inputs)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.1
    model.eval()


def measure_change(before: Tensor, after: Tensor) -> float:
    """Return the largest difference of logits, as a fraction of the largest logit."""
    return float(((before - after).abs().max() / before.abs().max()).detach())
