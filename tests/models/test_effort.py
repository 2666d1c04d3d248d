"""What one answer takes is foreseen before it is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.complexity import count_complexity
from falconet.errors import ConfigError
from falconet.models import create_model
from falconet.models.effort import ELEMENT_WORK, Counting, foresee_convolution, foresee_module, measure_effort


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
def test_a_convolution_is_foreseen(layer: nn.Conv2d, size: tuple[int, ...]) -> None:
    x = torch.ones(1, 4, *size)
    settings = layer.stride, layer.padding, layer.dilation, layer.groups
    values, macs = foresee_convolution(x, layer.weight, layer.bias, *settings)
    assert values == layer(x).numel()
    assert macs == count_complexity(layer, (4, *size)).macs


def test_the_module_of_attention_is_foreseen() -> None:
    attention = nn.MultiheadAttention(8, 2)
    steps = torch.ones(5, 3, 8)
    values, macs = foresee_module(steps, steps, steps, 8, 2)
    assert values == 3 * 2 * 5 * 5  # Of each sample and head, each step with each.
    assert macs == 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    answer, _ = measure_effort(Function(lambda x: attention(x, x, x)[0]), steps)
    assert torch.equal(answer, attention(steps, steps, steps)[0])


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "squeezenet_se", "transformer"])
def test_no_multiplication_is_missed(name: str) -> None:
    model = create_model(name, num_classes=3).eval()
    sample = vars(model)["built_for"]
    with torch.no_grad(), Counting() as counting:
        model(sample.make_blank())
    macs = count_complexity(model, sample.shape, name, sample.kind).macs
    assert macs <= counting.work <= macs + ELEMENT_WORK * 100 * counting.most_bytes


def test_the_largest_call_reads_and_writes() -> None:
    _, size = measure_effort(nn.Sequential(nn.Conv2d(1, 8, 1, bias=False), nn.ReLU()), torch.ones(1, 1, 10, 10))
    assert size == 4 * (800 + 800)  # The activation's.
    _, size = measure_effort(nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(inplace=True)), torch.ones(1, 1, 10, 10))
    assert size == 4 * (100 + 800)  # The convolution's.


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Conv2d(1, 20_000, 1), (1, 256, 256), r"at most 4294967296 bytes for one sample, found 52431"),
        (nn.Linear(1, 20_000), (1 << 16, 1), r"at most 4294967296 bytes"),
        (nn.GRU(1, 1, batch_first=True), ((1 << 21) + 1, 1), "multiply-accumulates"),
        (nn.LSTM(1, 1, batch_first=True), ((1 << 21) + 1, 1), "multiply-accumulates"),
        (Function(lambda x: F.scaled_dot_product_attention(x, x, x)), (1, 1 << 19, 8), "multiply-accumulates"),
        (Function(lambda x: x @ x.transpose(-1, -2)), (1 << 16, 1), r"at most 4294967296 bytes"),
    ],
)
def test_what_takes_too_much_is_refused_before_it_is_computed(
    model: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_effort(model, torch.ones(1, *shape))
