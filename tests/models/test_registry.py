"""The table of architectures and the functions that read it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from falconet.errors import ConfigError, UnknownNameError, UsageError
from falconet.modalities import MODALITIES
from falconet.models import MODELS, ModelEntry, create_model, find_model, list_models, models_for
from falconet.models.registry import list_options, native_input
from falconet.spec import ModalityName


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", list(MODELS)),
        ("lenet5*", ["lenet5", "lenet5_caffe"]),
        ("lenet5", ["lenet5", "lenet5_caffe"]),
        ("relu", ["lenet_relu"]),
        ("lenet?00_*", ["lenet300_100"]),
        ("squeezenet*", ["squeezenet1_0", "squeezenet1_1", "squeezenet_se"]),
        ("resnet??", [f"resnet{layers}" for layers in (18, 34, 50, 20, 32, 44, 56)]),
        ("lite", [f"efficientnet_lite{number}" for number in range(5)]),
        ("resnet1d", ["resnet1d18"]),
        ("nothing", []),
    ],
)
def test_list_models_takes_patterns_and_parts(pattern: str, expected: list[str]) -> None:
    assert list_models(pattern) == expected


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("lenet", "lenet5"),
        ("LeNet5", "lenet5"),
        ("lenet-relu", "lenet_relu"),
        ("lenet300", "lenet300_100"),
        ("resnet-50", "resnet50"),
        ("efficientnetb3", "efficientnet_b3"),
        ("squeezenet", "squeezenet_se"),
        ("transfomer", "transformer"),
    ],
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
    assert 0 <= 2 * entry.padding < min(entry.input[1:])


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
        ("lenet_relu", {"output": "linear"}, "unknown option of lenet_relu 'output': known: batch_norm, cosine, width"),
        ("efficientnet_b0", {"paddin": "same"}, "unknown option of efficientnet_b0 'paddin': did you mean padding?"),
    ],
)
def test_option_that_the_model_lacks(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UnknownNameError, ConfigError)) as caught:
        create_model(name, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_native_input_is_of_the_first_kind(entry: ModelEntry) -> None:
    assert len(entry.input) == 1 + MODALITIES[entry.kinds[0]].axes
    assert len(set(entry.kinds)) == len(entry.kinds)


SEQUENCES = ["rnn", "lstm", "gru", "transformer", "resnet1d18"]
SERIES, TEXTS = [*SEQUENCES, "linear", "minirocket"], [*SEQUENCES, "linear", "ngrams", "minilm"]
IMAGES = [
    *("lenet300_100", "lenet5", "lenet5_caffe", "lenet_relu", "cnn_small", "lenet_deep", "alexnet"),
    *("squeezenet1_0", "squeezenet1_1", "squeezenet_se"),
    *(f"resnet{layers}" for layers in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110)),
    *("efficientnet", *(f"efficientnet_b{number}" for number in range(8))),
    *(f"efficientnet_lite{number}" for number in range(5)),
    *("rnn", "lstm", "gru", "transformer", "linear"),
]


@pytest.mark.parametrize(("kind", "expected"), [("image", IMAGES), ("series", SERIES), ("text", TEXTS)])
def test_models_for_a_kind(kind: ModalityName, expected: list[str]) -> None:
    assert models_for(kind) == expected


def test_kind_that_a_model_does_not_eat() -> None:
    fitting = "rnn, lstm, gru, transformer, resnet1d18, linear, ngrams, minilm"
    with pytest.raises(ConfigError, match=rf"^model\.name: lenet5 takes image, not text: choose {fitting}$"):
        create_model("lenet5", kind="text")
    message = r"^model\.name: resnet1d18 takes series or text, not image: choose lenet300_100, .*, transformer, linear$"
    with pytest.raises(ConfigError, match=message):
        create_model("resnet1d18", kind="image")


def test_kind_that_does_not_exist() -> None:
    # In a process of its own, because the run-time checker of annotations would be first to refuse it here.
    code = "from falconet.models import create_model; create_model('gru', kind='txt')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("UnknownNameError: unknown kind 'txt': did you mean text?")


def test_first_kind_is_the_default() -> None:
    model, same = create_model("gru"), create_model("gru", kind="text", in_channels=8000, input_size=(128,))
    assert shapes_of(model) == shapes_of(same)
    assert shapes_of(model)["encoder.embedding.weight"] == (8000, 64)


def test_other_kind_needs_channels_and_size() -> None:
    model = create_model("gru", kind="series", in_channels=3, input_size=50)
    assert shapes_of(model)["encoder.projection.weight"] == (64, 3)
    halves: tuple[dict[str, Any], ...] = ({"in_channels": 3}, {"input_size": 50})
    for given in halves:
        with pytest.raises(
            ConfigError, match=r"in_channels, model\.input_size: wanted both, as gru has no native series"
        ):
            create_model("gru", kind="series", **given)


def test_images_are_rows_where_they_are_not_the_first_kind() -> None:
    model = create_model("gru", kind="image", in_channels=3, input_size=(10, 8))
    assert shapes_of(model)["encoder.projection.weight"] == (64, 3 * 8)
    with pytest.raises(ConfigError, match=r"wanted both, as gru has no native image input$"):
        create_model("gru", kind="image")


def test_native_input() -> None:
    assert native_input("lenet5") == native_input("lenet5", "image") == (1, 32, 32)
    assert native_input("lstm") == native_input("lstm", "text") == (8000, 128)
    with pytest.raises(ConfigError, match="lstm has no native series input"):
        native_input("lstm", "series")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("lenet_relu", (28,), r"wanted 2 numbers \(pixels\), found \[28\]"),
        ("gru", (28, 28), r"wanted one number \(tokens\), found \[28, 28\]"),
        ("gru", 0, "wanted tokens above 0, found 0"),
        ("resnet1d18", (64, 2), r"wanted one number \(steps\), found \[64, 2\]"),
    ],
)
def test_size_must_fit_the_kind(name: str, size: int | tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.input_size: {message}$"):
        create_model(name, input_size=size)


@pytest.mark.parametrize("size", [0, -3, (28, 0)])
def test_size_must_be_positive(size: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"model\.input_size: wanted pixels above 0"):
        create_model("lenet300_100", input_size=size)


def test_one_number_is_a_square() -> None:
    square, same = create_model("lenet300_100", input_size=20), create_model("lenet300_100", input_size=(20, 20))
    assert square.state_dict()["fc1.weight"].shape == same.state_dict()["fc1.weight"].shape == (300, 400)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_defaults_are_as_published() -> None:
    shapes = shapes_of(create_model("lenet300_100"))
    assert shapes["fc1.weight"] == (300, 28 * 28)
    assert shapes["fc3.weight"] == (10, 100)


@pytest.mark.parametrize(
    ("name", "absent", "present"),
    [
        ("efficientnet_b0", {"width", "depth", "lite", "phi"}, {"stem", "padding", "norm_eps"}),
        ("efficientnet", {"width", "depth", "lite"}, {"phi", "stem"}),
        ("resnet20", {"blocks", "bottleneck", "padded", "stem"}, {"width", "pre_activation"}),
        ("squeezenet_se", {"version", "squeeze_excitation"}, {"bypass", "squeeze_ratio"}),
        ("transformer", {"kind", "num_classes", "in_channels", "input_size"}, {"patch", "heads"}),
    ],
)
def test_options_that_make_a_member_are_not_the_users(name: str, absent: set[str], present: set[str]) -> None:
    options = set(list_options(name))
    assert not options & absent
    assert options >= present
    for option in absent - {"kind", "num_classes", "in_channels", "input_size"}:
        with pytest.raises(UnknownNameError, match=rf"^unknown option of {name} '{option}': "):
            create_model(name, **{option: MODELS[name].options[option]})


def test_defaults_of_a_member_give_way_to_the_users_options() -> None:
    cases: tuple[tuple[dict[str, Any], float], ...] = (({}, 0.5), ({"dropout": 0.1}, 0.1))
    with torch.device("meta"):
        for options, share in cases:
            classifier = create_model("efficientnet_b7", **options).get_submodule("classifier")
            assert [layer.p for layer in classifier.modules() if isinstance(layer, nn.Dropout)] == [share]


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_networks_of_other_libraries_have_an_entry(name: str) -> None:
    entry = find_model(name)
    assert entry.params is None
    assert entry.kinds == ("image",)
    assert name not in MODELS


@pytest.mark.parametrize("name", ["keras:resnet18", ":resnet18"])
def test_what_is_no_network_of_another_library(name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"^unknown model '{name}': "):
        find_model(name)


@pytest.mark.parametrize("name", ["timm:", "timm", "torchvision:"])
def test_another_librarys_network_needs_its_name(name: str) -> None:
    with pytest.raises(UsageError, match=rf"wanted (timm|torchvision):NAME, .*, found '{name}'"):
        find_model(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes: wanted a whole number above 0, found 0"),
        ({"in_channels": 0}, "in_channels: wanted a whole number above 0, found 0"),
        ({"in_channels": True}, "in_channels: wanted a whole number above 0, found True"),
    ],
)
def test_arguments_that_make_no_network(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model("resnet20", **arguments)


def test_arguments_of_other_types_are_told_from_numbers() -> None:
    """In a process of its own, since types are checked in this one."""
    script = """
import falconet.errors
for arguments in ({"num_classes": "ten"}, {"in_channels": 1.0}, {"input_size": "28"}, {"input_size": (28, 28.5)}):
    try:
        falconet.create_model("resnet20", **arguments)
    except falconet.errors.ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "num_classes: wanted a whole number above 0, found 'ten'",
        "in_channels: wanted a whole number above 0, found 1.0",
        "model.input_size: wanted whole numbers of pixels, found '28'",
        "model.input_size: wanted whole numbers of pixels, found (28, 28.5)",
    ]
