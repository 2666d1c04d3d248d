"""What a forward pass costs is known before it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet import train
from falconet.complexity import count_complexity
from falconet.errors import ConfigError
from falconet.models import MODELS, create_model, forward_cost
from falconet.models.forward_cost import (
    ForwardCounter,
    estimate_convolution,
    estimate_module,
    estimate_recurrence,
    measure_forward,
)
from falconet.models.info import get_model_info


class Function(nn.Module):
    """A function as a network."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)
        return result


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(4, 6, 3), (9, 8)),
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (9, 8)),
        (nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=3), (9, 8)),
        (nn.Conv2d(4, 6, (3, 5), padding="same"), (9, 8)),
        (nn.Conv2d(4, 6, 4, padding="valid"), (9, 8)),
        (nn.Conv1d(4, 6, 5, stride=3, padding=2), (20,)),
    ],
)
def test_a_convolution_is_estimated(layer: nn.Conv2d, size: tuple[int, ...]) -> None:
    x = torch.ones(1, 4, *size)
    settings = layer.stride, layer.padding, layer.dilation, layer.groups
    values, macs = estimate_convolution(x, layer.weight, layer.bias, *settings)
    assert values == layer(x).numel()
    assert macs == count_complexity(layer, (4, *size)).macs


def test_the_module_of_attention_is_estimated() -> None:
    attention = nn.MultiheadAttention(8, 2)
    steps = torch.ones(5, 3, 8)
    values, macs = estimate_module(steps, steps, steps, 8, 2)
    assert values == 3 * 2 * 5 * 5  # Of each sample and head, each step with each.
    assert macs == 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    answer, _ = measure_forward(Function(lambda x: attention(x, x, x)[0]), steps)
    assert torch.equal(answer, attention(steps, steps, steps)[0])


@pytest.mark.parametrize("name", ["lenet_relu", "resnet20", "squeezenet_se", "efficientnet_lite0"])
def test_no_multiplication_is_missed_or_added(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_cost, "ELEMENT_MACS", 0)
    model = create_model(name, num_classes=3).eval()
    info = get_model_info(model)
    with torch.no_grad(), ForwardCounter() as counter:
        model(info.make_blank())
    assert counter.macs == count_complexity(model, info.shape, name, info.kind).macs


def test_the_largest_call_reads_and_writes() -> None:
    _, size = measure_forward(nn.Sequential(nn.Conv2d(1, 8, 1, bias=False), nn.ReLU()), torch.ones(1, 1, 10, 10))
    assert size == 4 * (800 + 800)  # The activation's.
    _, size = measure_forward(nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(inplace=True)), torch.ones(1, 1, 10, 10))
    assert size == 4 * (100 + 800)  # The convolution's.


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Conv2d(1, 20_000, 1), (1, 256, 256), r"at most 4 GiB for one sample, found 4.9"),
        (nn.Linear(1, 20_000), (1 << 16, 1), r"at most 4 GiB"),
        (nn.GRU(1, 1, batch_first=True), ((1 << 20) + 1, 1), "multiply-accumulates"),
        (nn.LSTM(1, 1, batch_first=True), ((1 << 20) + 1, 1), "multiply-accumulates"),
        (Function(lambda x: F.scaled_dot_product_attention(x, x, x)), (1, 1 << 19, 8), "multiply-accumulates"),
        (Function(lambda x: x @ x.transpose(-1, -2)), (1 << 16, 1), r"at most 4 GiB"),
    ],
)
def test_what_takes_too_much_is_refused_before_it_is_computed(
    model: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_forward(model, torch.ones(1, *shape))


def test_large_networks_and_long_series_are_within_bounds() -> None:
    """As the table counts the largest network of photographs, and a second of raw sound goes through the LSTM."""
    macs = MODELS["efficientnet_b7"].macs
    assert macs is not None
    assert 8 * macs < forward_cost.MAX_MACS
    model = create_model("lstm", kind="series", in_channels=1, input_size=16_000)
    layer = next(module for module in model.modules() if isinstance(module, nn.LSTM))
    work = sum(
        estimate_recurrence(torch.empty(1, 16_000, len(weights[0][0])), None, weights)[1]
        for weights in layer.all_weights
    )
    assert 0 < 4 * work < forward_cost.MAX_MACS


def test_a_network_that_could_not_be_loaded_again_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_cost, "MAX_MACS", 1000)
    with pytest.raises(ConfigError, match=r"wanted at most 1e\+03 multiply-accumulates .* found .*model.input_size"):
        train("digits", model="lenet_relu", epochs=1, out=tmp_path / "run")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_networks_of_other_libraries_are_measured_while_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_cost, "MAX_CALL_BYTES", 1 << 16)
    with pytest.raises(ConfigError, match="does not build squeezenet1_1 as asked: wanted layers of at most"):
        create_model("torchvision:squeezenet1_1", num_classes=2, in_channels=3, input_size=64)


def test_arguments_by_name_are_counted_once_the_call_is_made() -> None:
    weight = torch.ones(3, 4)
    with ForwardCounter() as counter:
        F.linear(input=torch.ones(2, 4), weight=weight)
    assert counter.most_bytes == 4 * (2 * 4 + 3 * 4 + 2 * 3)
