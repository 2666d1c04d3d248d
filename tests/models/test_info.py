"""What create_model notes on a network, and who makes the logits of networks on which nobody noted anything."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models import MODELS, create_model
from falconet.models.info import (
    ModelInfo,
    find_classifiers,
    find_trainable_classifiers,
    get_model_info,
    set_model_info,
)

SMALL = {"image": 64, "series": 64, "text": 64}
CHANNELS = {"image": 3, "series": 2, "text": 300}
EVERY = [(name, kind) for name, entry in MODELS.items() for kind in entry.kinds]


def build(name: str, kind: Any = None, **options: Any) -> nn.Module:
    chosen = MODELS[name].kinds[0] if kind is None else kind
    native = name == "minilm"  # Its vocabulary is that of its weights.
    size: dict[str, Any] = {} if native else {"in_channels": CHANNELS[chosen], "input_size": SMALL[chosen]}
    with torch.device("meta"):
        return create_model(name, num_classes=7, kind=kind, **size, **options)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_the_table_names_the_last_layer(name: str, kind: str) -> None:
    model = build(name, kind)
    info = get_model_info(model)
    assert info.kind == kind
    assert info.classifier == MODELS[name].classifier
    assert info.classifier is not None
    assert find_classifiers(model) == (info.classifier,)
    layer = model.get_submodule(info.classifier)
    assert not list(layer.children())
    told = find_classifiers(forget(model))
    assert told == find_classifiers(model), "as the order of parameters, or the network itself, tells"
    sizes = {tensor.shape[0] for tensor in layer.state_dict().values()} | {getattr(layer, "out_features", 7)}
    assert 7 in sizes


def forget(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    del other.model_info
    return other


def test_copies_know_what_they_are_and_states_do_not() -> None:
    model = create_model("lenet_relu", num_classes=3)
    assert get_model_info(copy.deepcopy(model)) == get_model_info(model) == ModelInfo("image", (1, 28, 28), "fc2")
    assert get_model_info(model).make_blank().shape == (1, 1, 28, 28)
    assert not [key for key in model.state_dict() if "info" in key]


def test_networks_of_users() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Softmax(dim=1))
    assert find_classifiers(model) == find_trainable_classifiers(model) == ("3",)
    with pytest.raises(ConfigError, match=r"^model: wanted a network of create_model, or .*, found Sequential$"):
        get_model_info(model)
    info = ModelInfo("image", (1, 2, 2))
    set_model_info(model, info)
    assert get_model_info(model) is info
    assert find_classifiers(model) == ("3",)
    set_model_info(model, ModelInfo("image", (1, 2, 2), "1"))
    assert find_classifiers(model) == ("1",)


def test_an_attribute_of_that_name_that_is_something_else() -> None:
    model = nn.Linear(2, 2)
    model.model_info = "mine"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"found Linear$"):
        get_model_info(model)


def test_a_head_of_several_layers_in_the_place_of_one() -> None:
    model: Any = create_model("resnet20")
    model.fc = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    assert find_classifiers(model) == ("fc.2",)
    assert find_classifiers(nn.Sequential(model)) == ("0.fc.2",)


def test_fixed_codes_make_the_logits_and_the_layer_before_them_learns() -> None:
    model = create_model("lenet5")
    assert find_classifiers(model) == ("output",)
    assert find_trainable_classifiers(model) == ("f6",)
    assert find_trainable_classifiers(create_model("lenet5", output="linear")) == ("output",)


class Wrapper(nn.Module):
    """Hands on the attributes of what it wraps, as compiled networks do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


@pytest.mark.parametrize(("name", "output"), [("resnet20", "inner.fc"), ("lenet5", "inner.output")])
def test_layers_within_a_wrapper_have_its_names(name: str, output: str) -> None:
    assert find_classifiers(Wrapper(create_model(name))) == (output,)
