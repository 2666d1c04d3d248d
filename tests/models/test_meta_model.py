"""Networks without memory for their weights, and what becomes of them when a file's weights fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from falconet.errors import ConfigError
from falconet.models import MODELS, create_model
from falconet.models.meta_model import allocate_weights, create_meta_model, find_state_dict_mismatch, outline_tensor

SMALL: dict[str, dict[str, Any]] = {
    "image": {"in_channels": 3, "input_size": 32},
    "series": {"in_channels": 2, "input_size": 70},
    "text": {"in_channels": 300, "input_size": 20},
}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("lenet5", {"output": "linear"}),
    ("lenet_relu", {"batch_norm": True, "cosine": True}),
    ("resnet20", {"pre_activation": True, "squeeze_excitation": True, "zero_init": True}),
    ("lstm", {"layers": 2, "bidirectional": True}),
    ("transformer", {"positions": "learned", "pooling": "token"}),
]
QUICK = [
    (name, {"kind": kind, **SMALL[kind]})
    for name, entry in MODELS.items()
    for kind in entry.kinds
    if name not in ("alexnet", "resnet50", "resnet101", "resnet152") and not name.startswith("efficientnet_")
]


@pytest.mark.parametrize(("name", "structure"), [*QUICK, *OPTIONS], ids=str)
def test_an_outline_becomes_the_network_that_is_built(name: str, structure: dict[str, Any]) -> None:
    built = create_model(name, **{"num_classes": 3, **structure}).eval()
    outline = create_meta_model(name, **{"num_classes": 3, **structure})
    assert all(parameter.is_meta for parameter in outline.parameters())
    assert (
        find_state_dict_mismatch(outline, {key: outline_tensor(tensor) for key, tensor in built.state_dict().items()})
        is None
    )
    made = allocate_weights(outline).eval()
    made.load_state_dict(built.state_dict())
    assert not any(tensor.is_meta for tensor in [*made.parameters(), *made.buffers()])
    wanted = dict(built.named_buffers())
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in made.named_buffers())
    assert [parameter.requires_grad for parameter in made.parameters()] == [
        parameter.requires_grad for parameter in built.parameters()
    ]
    assert repr(made) == repr(built)


@torch.no_grad()
@pytest.mark.parametrize("name", ["lenet5", "gru", "transformer", "resnet20"])
def test_a_materialized_network_answers_as_the_one_that_was_built(name: str) -> None:
    kind = MODELS[name].kinds[0]
    structure: dict[str, Any] = {"num_classes": 3, **SMALL[kind]}
    built, made = create_model(name, **structure).eval(), allocate_weights(create_meta_model(name, **structure)).eval()
    made.load_state_dict(built.state_dict())
    inputs = torch.randint(1, 300, (2, 20)) if kind == "text" else torch.randn(2, 3, 32, 32)
    assert torch.equal(made(inputs), built(inputs))


def test_outlining_takes_no_memory_and_changes_nothing_behind_it() -> None:
    outline = create_meta_model("lenet_relu", in_channels=1, input_size=(4096, 4096), width=1 << 12)
    assert sum(parameter.numel() for parameter in outline.parameters()) > 10**12
    assert torch.empty(2).device.type == "cpu"  # Outside, all is as ever.


@pytest.mark.parametrize(("found", "message"), [
    ({}, "wanted fc1.weight, found no such tensor"),
    ({"fc1.weight": torch.zeros(2)}, "wanted fc1.weight of shape [300, 784], found [2]"),
    ({"fc1.weight": torch.zeros(300, 784, dtype=torch.int32)}, "wanted fc1.weight as float values, found integer"),
    ({"fc1.weight": torch.zeros(300, 784, dtype=torch.complex64)}, "as float values, found strided complex64"),
    ({"fc4.weight": torch.zeros(2)}, "found fc4.weight, which it does not have"),
])  # fmt: skip
def test_misfits_are_named(found: dict[str, torch.Tensor], message: str) -> None:
    outline = create_meta_model("lenet300_100")
    whole = {key: outline_tensor(tensor) for key, tensor in outline.state_dict().items()} if len(message) < 45 else {}
    if not found:
        whole = {}
    assert message in str(
        find_state_dict_mismatch(outline, whole | {key: outline_tensor(value) for key, value in found.items()})
    )
    assert (
        find_state_dict_mismatch(outline, {key: outline_tensor(value) for key, value in outline.state_dict().items()})
        is None
    )


def test_a_network_of_far_more_tensors_than_it_may_have_is_given_up() -> None:
    assert isinstance(create_meta_model("resnet110", tensors=500), nn.Module)
    with pytest.raises(ConfigError, match="wanted a network of fewer layers"):
        create_meta_model("resnet110", tensors=2)


@pytest.mark.parametrize("tensors", range(6))
def test_a_network_too_large_to_outline_leaves_gradients_on(tensors: int) -> None:
    # Initial values are drawn within `no_grad`, which is left while the calls of torch are used up already.
    with pytest.raises(ConfigError, match="wanted a network of fewer layers"):
        create_meta_model("torchvision:resnet152", tensors=tensors, num_classes=2, in_channels=3, input_size=(32, 32))
    assert torch.is_grad_enabled()
