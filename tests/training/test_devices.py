"""Which number format training computes in, and that weights stay in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from falconet import TrainConfig, create_model
from falconet.errors import ConfigError
from falconet.training.devices import DevicePolicy, choose_device, choose_device_policy, choose_precision

CPU = torch.device("cpu")


@pytest.fixture(params=["avx512_bf16", "amx_bf16", "bf16", None])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor, made up here, has instructions for bfloat16."""
    found = {} if request.param is None else {request.param: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **found})
    return request.param is not None


@pytest.mark.parametrize("name", ["lenet5", "lenet_relu", "squeezenet1_1", "resnet20"])
def test_full_convolutions_are_computed_in_bfloat16_where_the_processor_can(name: str, native: bool) -> None:
    expected = torch.bfloat16 if native else torch.float32
    assert choose_precision(TrainConfig(), create_model(name, num_classes=10), CPU) is expected


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
    assert choose_precision(TrainConfig(), create_model(name, num_classes=10, **options), CPU) is torch.float32


def test_what_is_asked_for_is_done_anywhere(native: bool) -> None:
    model = create_model("lenet5", num_classes=10)
    asked = TrainConfig(precision="fp32"), TrainConfig(precision="bf16"), TrainConfig(precision="fp16")
    found = [choose_precision(config, model, CPU) for config in asked]
    assert found == [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_rounded_and_weights_are_not(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(64, 8), torch.randn(16, 64)
    found = DevicePolicy(CPU, dtype).forward(model, x)
    expected = nn.functional.linear(x.to(dtype), model.weight.to(dtype), model.bias.to(dtype)).float()
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.equal(found, DevicePolicy(CPU, torch.float32).forward(model, x))
    found.square().mean().backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    assert model.weight.dtype is model.weight.grad.dtype is torch.float32


@pytest.mark.parametrize(("dtype", "enabled"), [(torch.float16, True), (torch.bfloat16, False), (torch.float32, False)])
def test_losses_are_scaled_in_float16_alone(dtype: torch.dtype, enabled: bool) -> None:
    scaler = DevicePolicy(CPU, dtype).scaler()
    assert scaler.is_enabled() is enabled
    assert scaler.scale(torch.tensor(2.0)).item() == (2.0 * 2**16 if enabled else 2.0)


def test_without_a_gpu_the_processor_is_chosen_and_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device(TrainConfig()) == choose_device(TrainConfig(device="cpu")) == CPU
    for name in ("cuda", "mps"):
        with pytest.raises(ConfigError, match=f"device: wanted {name}, found none on this machine; use auto"):
            choose_device(dataclasses.replace(TrainConfig(), device=name))


@pytest.mark.parametrize(("rank", "expected"), [(None, 0), ("1", 1), ("3", 1)])
@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_each_process_has_a_gpu_of_its_own(
    rank: str | None, expected: int, bf16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device_policy(TrainConfig(), nn.Linear(2, 2)) == DevicePolicy(torch.device("cuda", expected), dtype)
    assert choose_device_policy(TrainConfig(device="cpu"), nn.Linear(2, 2)) == DevicePolicy(CPU, torch.float32)


def test_draws_go_on_where_they_were() -> None:
    policy = DevicePolicy(CPU, torch.float32)
    draws = policy.get_rng_state()
    expected = torch.rand(3)
    policy.set_rng_state(draws)
    assert torch.equal(torch.rand(3), expected)


def test_a_batch_on_the_processor_is_not_copied() -> None:
    tensor = torch.zeros(3)
    assert DevicePolicy(CPU, torch.float32).to_device(tensor) is tensor
