"""What every architecture of the table must do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, load_artifact
from falconet.complexity import summarize
from falconet.data.texts import train_tokenizer
from falconet.models import MODELS, create_model
from falconet.spec import ClassificationSpec, ImageSpec, InputSpec, ModalityName, SeriesSpec, TextSpec

CLASSES = 7
LABELS = tuple("abcdefg")
CHANNELS: dict[ModalityName, tuple[int, ...]] = {"image": (1, 3), "series": (1, 3), "text": (258,)}
"""Channels, or different tokens, of the inputs that models are tested with."""
STEPS = 24
"""Of sequences."""
SIDE = 28
"""Of the images that networks for photographs are tested with."""
LENGTHS = (STEPS, 2, 15, 9)

QUICK = {"squeezenet1_1", "resnet20", "efficientnet_lite0"}
"""One member of each large family, with one channel; the others are tested too, where there is time."""

VARIANTS: list[tuple[str, ModalityName, int, dict[str, Any]]] = [
    ("squeezenet1_1", "image", 3, {"bypass": "simple"}),
    ("squeezenet1_0", "image", 3, {"bypass": "complex", "squeeze_ratio": 0.75, "share_3x3": 0.25, "frequency": 1}),
    ("squeezenet_se", "image", 1, {"base_expand": 64, "expand_increment": 0, "stem": "small"}),
    ("resnet20", "image", 1, {"pre_activation": True, "squeeze_excitation": True, "width": 8}),
    ("resnet18", "image", 3, {"pre_activation": True, "width": 8}),
    ("resnet50", "image", 3, {"squeeze_excitation": True, "width": 16, "stem": "imagenet"}),
    ("resnet50", "image", 3, {"pre_activation": True, "width": 16}),
    ("efficientnet", "image", 1, {"phi": -3}),
    ("efficientnet_lite0", "image", 3, {"padding": "same", "norm_eps": 1e-3, "stem": "imagenet"}),
    ("rnn", "series", 3, {"nonlinearity": "relu", "pooling": "last"}),
    ("lstm", "text", 258, {"layers": 2, "bidirectional": True, "pooling": "last"}),
    ("transformer", "text", 258, {"positions": "learned", "pooling": "token", "layers": 1}),
    ("transformer", "series", 3, {"pooling": "token", "heads": 1, "width": 7}),
    ("transformer", "image", 3, {"patch": 7}),
    ("resnet1d18", "series", 3, {"stem": "imagenet", "width": 8}),
]


def mark_slow(name: str, *values: Any) -> Any:
    """Return a case of this model, which waits for `make test-slow` unless the model is quick."""
    quick = not MODELS[name].resizable or (name in QUICK and values == ("image", 1))
    return pytest.param(name, *values, marks=() if quick else pytest.mark.slow, id="-".join(map(str, (name, *values))))


TAKING = {*QUICK, "alexnet", "resnet50", "efficientnet"}
"""Of networks for photographs, one for each way to take channels; other members differ in depth and width alone."""
CASES = [
    (name, kind, channels)
    for name, entry in MODELS.items()
    for kind in entry.kinds
    for channels in CHANNELS[kind]
    if (kind, channels) != ("image", 1) or not entry.resizable or name in TAKING
]
every_model = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if not entry.resizable or name in QUICK else pytest.mark.slow)
        for name, entry in MODELS.items()
    ],
)
every_input = pytest.mark.parametrize(("name", "kind", "channels"), [mark_slow(*case) for case in CASES])
HUGE = {
    "alexnet",
    "squeezenet1_0",
    "resnet34",
    "resnet101",
    "resnet152",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    *(f"efficientnet_lite{size}" for size in range(1, 5)),
    *(f"efficientnet_b{size}" for size in range(1, 8)),
}
"""AlexNet, of 57 million weights, and deeper or wider kin of networks that are tested.

In CI they are only run and trained; `make test-full` saves, exports and compresses them, too, which takes minutes.
"""
every_input_by_size = pytest.mark.parametrize(
    ("name", "kind", "channels"),
    [
        pytest.param(*case, marks=(pytest.mark.slow, pytest.mark.full), id="-".join(map(str, case)))
        if case[0] in HUGE
        else mark_slow(*case)
        for case in CASES
    ],
)
every_sequence = pytest.mark.parametrize(
    ("name", "kind", "channels"), [case for case in CASES if case[1] in ("series", "text")]
)
every_variant = pytest.mark.parametrize(("name", "kind", "channels", "options"), VARIANTS)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def choose_size(name: str, kind: ModalityName) -> tuple[int, ...]:
    """Return the size that a model is tested with: the native one of small networks."""
    entry = MODELS[name]
    if kind != "image":
        return (STEPS,)
    return (SIDE, SIDE) if entry.resizable or entry.kinds[0] != "image" else entry.input[1:]


def build(name: str, kind: ModalityName, channels: int, **options: Any) -> nn.Module:
    size = choose_size(name, kind)
    return create_model(name, kind=kind, num_classes=CLASSES, in_channels=channels, input_size=size, **options)


def draw_inputs(name: str, kind: ModalityName, channels: int, lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    """Return four samples: images, or sequences of these lengths with padding behind them."""
    if kind == "image":
        return torch.randn(4, channels, *choose_size(name, kind))
    padding = torch.arange(STEPS) >= torch.tensor(lengths)[:, None]
    if kind == "text":
        return torch.randint(1, channels, (4, STEPS)).masked_fill(padding, 0)
    return torch.randn(4, channels, STEPS).masked_fill(padding[:, None], torch.nan)


def make_spec(name: str, kind: ModalityName, channels: int) -> InputSpec:
    if kind == "text":
        return TextSpec((STEPS,), channels)
    mean, std = (0.5,) * channels, (0.25,) * channels
    if kind == "series":
        return SeriesSpec((channels, STEPS), mean, std)
    height, width = choose_size(name, kind)
    return ImageSpec((channels, height, width), mean, std, padding=MODELS[name].padding)


def check_gradients(model: nn.Module, inputs: Tensor) -> None:
    """Assert that the loss of a batch depends on every parameter."""
    loss = nn.functional.cross_entropy(model(inputs), torch.arange(4) % CLASSES)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all(), parameter
        assert gradient.any(), parameter


@every_input
def test_forward_gives_finite_logits(name: str, kind: ModalityName, channels: int) -> None:
    logits = build(name, kind, channels)(draw_inputs(name, kind, channels))
    assert logits.shape == (4, CLASSES)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert len(logits.unique(dim=0)) == 4


@every_model
def test_parameters_and_macs_are_the_tables(name: str) -> None:
    entry = MODELS[name]
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == entry.params
    cost = summarize(name)
    assert (cost.params, cost.macs) == (entry.params, entry.macs)
    assert sum(layer.params for layer in cost.layers) == entry.params
    assert sum(layer.macs for layer in cost.layers) == entry.macs


@every_input
def test_a_gradient_reaches_every_parameter(name: str, kind: ModalityName, channels: int) -> None:
    check_gradients(build(name, kind, channels), draw_inputs(name, kind, channels))


@every_variant
def test_variants_of_a_model(name: str, kind: ModalityName, channels: int, options: dict[str, Any]) -> None:
    model, inputs = build(name, kind, channels, **options), draw_inputs(name, kind, channels)
    check_gradients(model, inputs)
    logits = model.eval()(inputs)
    assert logits.shape == (4, CLASSES)
    assert logits.isfinite().all()
    assert len(logits.unique(dim=0)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.resizable])
@torch.no_grad()
def test_native_size(name: str) -> None:
    model = create_model(name).eval()
    logits = model(torch.randn(1, *MODELS[name].input))
    assert logits.shape == (1, MODELS[name].num_classes)
    assert logits.isfinite().all()
    assert logits.std() > 0


@every_input_by_size
def test_one_seed_gives_one_model(name: str, kind: ModalityName, channels: int) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build(name, kind, channels).state_dict())
    first, same, other = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_input_by_size
def test_state_goes_through_safetensors(name: str, kind: ModalityName, channels: int) -> None:
    model, other = build(name, kind, channels).eval(), build(name, kind, channels).eval()
    inputs = draw_inputs(name, kind, channels)
    assert not torch.equal(model(inputs), other(inputs))
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())))
    assert torch.equal(model(inputs), other(inputs))


@every_input_by_size
def test_artifact_answers_as_the_model(name: str, kind: ModalityName, channels: int, tmp_path: Path) -> None:
    model = build(name, kind, channels).eval()
    spec = make_spec(name, kind, channels)
    origin = Provenance(DataOrigin("digits", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    tokenizer = train_tokenizer([], 258) if kind == "text" else None
    Artifact(ArtifactConfig(name, spec, ClassificationSpec(LABELS), origin), model.state_dict(), tokenizer).save(
        tmp_path
    )
    loaded = load_artifact(tmp_path)
    inputs = draw_inputs(name, kind, channels)
    assert loaded.config.input == spec
    # Sums in another layout of memory end in other last bits.
    assert torch.equal(loaded.model(inputs), model.to(memory_format=torch.channels_last)(inputs))


@every_input_by_size
def test_a_sample_is_answered_alike_in_any_batch(name: str, kind: ModalityName, channels: int) -> None:
    # In double precision, since deep networks without training make logits of tens of thousands.
    model = build(name, kind, channels).double().eval()
    inputs = draw_inputs(name, kind, channels)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    together = model(inputs)
    alone = torch.cat([model(sample[None]) for sample in inputs])
    torch.testing.assert_close(together, alone, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(model(inputs.flip(0)), together.flip(0), rtol=1e-7, atol=1e-7)


@every_sequence
def test_padding_of_one_sample_is_no_content_of_another(name: str, kind: ModalityName, channels: int) -> None:
    model = build(name, kind, channels).eval()
    short = draw_inputs(name, kind, channels, (5, 5, 5, 5))
    full = draw_inputs(name, kind, channels, (STEPS, STEPS, STEPS, STEPS))
    mixed = torch.cat([short[:2], full[2:]])
    torch.testing.assert_close(model(mixed)[:2], model(short)[:2], rtol=1e-4, atol=1e-4)


@every_sequence
def test_a_sample_without_content_has_finite_logits(name: str, kind: ModalityName, channels: int) -> None:
    model = build(name, kind, channels).eval()
    logits = model(draw_inputs(name, kind, channels, (0, 3, 0, STEPS)))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[0], logits[2], rtol=1e-4, atol=1e-4)
