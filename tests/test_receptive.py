"""Receptive fields against published ones, and against where gradients reach."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from falconet.complexity import count_complexity, summarize
from falconet.models import create_model


def last_field(name: str, prefix: str) -> tuple[int, ...]:
    """Return what the last layer sees whose name begins so."""
    return [layer.receptive_field for layer in summarize(name).layers if layer.name.startswith(prefix)][-1]


@pytest.mark.parametrize(
    ("name", "prefix", "expected"),
    [
        # Araujo, Norris and Sim, Distill 2019, table of popular networks.
        ("alexnet", "features", 195),
        # He et al., 2016, as commonly computed; 427 with the stride in the 3x3 convolution.
        ("resnet18", "layer4", 435),
        ("resnet50", "layer4", 427),
        ("efficientnet_b0", "features", 851),
        # LeCun et al., 1998: C5 covers the 32x32 input.
        ("lenet5", "c5", 32),
        ("squeezenet1_0", "features", 155),
    ],
)
def test_published_fields(name: str, prefix: str, expected: int) -> None:
    assert last_field(name, prefix) == (expected, expected)


@pytest.mark.parametrize("name", ["alexnet", "resnet20", "efficientnet_lite0", "lenet_relu"])
def test_outputs_of_classifiers_see_the_whole_image(name: str) -> None:
    found = summarize(name)
    assert found.layers[-1].receptive_field == found.input[1:]


@pytest.mark.parametrize(("name", "steps"), [("gru", 128), ("transformer", 128), ("resnet1d18", 1024)])
def test_outputs_for_sequences_see_all_steps(name: str, steps: int) -> None:
    assert summarize(name).layers[-1].receptive_field == (steps,)


def test_embeddings_see_one_token_and_attention_all() -> None:
    fields = {layer.name: layer.receptive_field for layer in summarize("transformer").layers}
    assert fields["encoder.embedding"] == fields["blocks.0.norm1"] == (1,)
    assert fields["blocks.0.attention.projection"] == fields["blocks.1.norm1"] == (128,)


class Branches(nn.Module):
    """Two branches of different width that meet, of which one is scaled by a factor for each map."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 5, padding=4, dilation=2)
        self.last = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.narrow(x) + self.wide(x) * x.mean(dim=(2, 3), keepdim=True))
        return found


def stack() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 3, (3, 1), padding=(1, 0), dilation=(2, 1)),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.Conv2d(3, 1, 3, padding=1),
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [(lambda: nn.Conv2d(2, 1, 3, padding=1), (3, 3)), (stack, (3 + 2 + 4 * (4 + 2 + 2), 3 + 2 + 4 * (0 + 2 + 2)))],
    ids=["convolution", "stack"],
)
def test_fields_are_as_wide_as_gradients_reach(make: Callable[[], nn.Module], expected: tuple[int, int]) -> None:
    model = make()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)
    x = torch.rand(1, 2, 121, 121, requires_grad=True)
    output = model(x)
    middle = output[0, 0, output.shape[2] // 2, output.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle, x)
    rows, columns = torch.nonzero(gradient[0].abs().sum(dim=0), as_tuple=True)
    reached = (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1)
    found = count_complexity(model, (2, 121, 121)).layers[-1].receptive_field
    assert found == expected
    # Max-pooling passes the gradient of one of its inputs only.
    assert all(seen <= wanted for seen, wanted in zip(reached, found, strict=True))
    if not any(isinstance(module, nn.MaxPool2d) for module in model.modules()):
        assert reached == found


def test_the_widest_branch_counts_and_a_factor_for_a_map_does_not() -> None:
    fields = {layer.name: layer.receptive_field for layer in count_complexity(Branches(), (2, 40, 40)).layers}
    assert (fields["narrow"], fields["wide"], fields["last"]) == ((1, 1), (9, 9), (11, 11))


def test_fields_along_one_dimension() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 7, stride=2), nn.MaxPool1d(3, stride=2), nn.Conv1d(2, 2, 3))
    fields = [layer.receptive_field for layer in count_complexity(model, (1, 100)).layers]
    assert fields == [(7,), (11,), (19,)]


def test_counting_leaves_no_trace_in_later_passes() -> None:
    model = create_model("resnet20").eval()
    x = torch.randn(1, 3, 32, 32)
    before = model(x)
    count_complexity(model, (3, 32, 32))
    assert torch.equal(model(x), before)
