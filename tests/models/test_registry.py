"""The table of architectures and the functions that read it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from falconet.errors import ConfigError, UnknownNameError
from falconet.models import MODELS, ModelEntry, create_model, find_model, list_models


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", list(MODELS)),
        ("lenet5*", ["lenet5", "lenet5_caffe"]),
        ("lenet5", ["lenet5", "lenet5_caffe"]),
        ("relu", ["lenet_relu"]),
        ("lenet?00_*", ["lenet300_100"]),
        ("nothing", []),
    ],
)
def test_list_models_takes_patterns_and_parts(pattern: str, expected: list[str]) -> None:
    assert list_models(pattern) == expected


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("lenet", "lenet5"), ("LeNet5", "lenet5"), ("lenet-relu", "lenet_relu"), ("lenet300", "lenet300_100")],
)
def test_unknown_model_offers_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"unknown model '{name}': did you mean .*{nearest}\b.*falconet models"):
        find_model(name)


def test_find_model_returns_the_line_of_the_table() -> None:
    assert find_model("lenet5") is MODELS["lenet5"]


def test_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MODELS["lenet5"] = MODELS["lenet_relu"]  # type: ignore[index]


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_margin_leaves_something_of_the_native_input(entry: ModelEntry) -> None:
    assert 0 <= 2 * entry.margin < min(entry.input[1:])


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from falconet.models import find_model, list_models; "
        "find_model(list_models()[0]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet5", {"ouput": "linear"}, "unknown option of lenet5 'ouput': did you mean output?"),
        ("lenet_relu", {"output": "linear"}, "model.options.output: lenet_relu has no options"),
    ],
)
def test_option_that_the_model_lacks(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UnknownNameError, ConfigError)) as caught:
        create_model(name, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("size", [0, -3, (28, 0)])
def test_size_must_be_positive(size: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"model\.input_size: wanted pixels above 0"):
        create_model("lenet300_100", input_size=size)


def test_one_number_is_a_square() -> None:
    square, same = create_model("lenet300_100", input_size=20), create_model("lenet300_100", input_size=(20, 20))
    assert square.state_dict()["fc1.weight"].shape == same.state_dict()["fc1.weight"].shape == (300, 400)


def test_defaults_are_as_published() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in create_model("lenet300_100").state_dict().items()}
    assert shapes["fc1.weight"] == (300, 28 * 28)
    assert shapes["fc3.weight"] == (10, 100)
