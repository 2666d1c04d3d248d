"""Which number format training computes in, and that weights stay in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from falconet import TrainConfig, create_model
from falconet.training.loop import compute_logits
from falconet.training.precision import choose_precision


@pytest.fixture(params=["avx512_bf16", "amx_bf16", "bf16", None])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor, made up here, has instructions for bfloat16."""
    found = {} if request.param is None else {request.param: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **found})
    return request.param is not None


@pytest.mark.parametrize("name", ["lenet5", "lenet_relu", "squeezenet1_1", "resnet20"])
def test_full_convolutions_are_computed_in_bfloat16_where_the_processor_can(name: str, native: bool) -> None:
    expected = torch.bfloat16 if native else torch.float32
    assert choose_precision(TrainConfig(), create_model(name, num_classes=10)) is expected


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("efficientnet", {"input_size": 32, "phi": -6}),
        ("lenet300_100", {}),
        ("gru", {"kind": "text", "in_channels": 300}),
        ("resnet1d18", {"kind": "series", "in_channels": 1, "input_size": 32}),
        ("transformer", {"kind": "image", "input_size": 28, "in_channels": 1, "patch": 7}),
    ],
)
def test_all_else_is_computed_in_float32(name: str, options: dict[str, Any], native: bool) -> None:
    assert choose_precision(TrainConfig(), create_model(name, num_classes=10, **options)) is torch.float32


def test_what_is_asked_for_is_done_anywhere(native: bool) -> None:
    model = nn.Linear(2, 2)
    assert choose_precision(TrainConfig(precision="bf16"), model) is torch.bfloat16
    assert choose_precision(TrainConfig(precision="fp32"), create_model("lenet5", num_classes=10)) is torch.float32


def test_products_are_rounded_to_bfloat16_and_weights_are_not() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(64, 8), torch.randn(16, 64)
    found = compute_logits(model, x, torch.bfloat16)
    expected = nn.functional.linear(x.bfloat16(), model.weight.bfloat16(), model.bias.bfloat16()).float()
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.equal(found, compute_logits(model, x, torch.float32))
    found.square().mean().backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    assert model.weight.dtype is model.weight.grad.dtype is torch.float32
