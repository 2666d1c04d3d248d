"""What every architecture of the table must do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, load_artifact
from falconet.complexity import summarize
from falconet.models import MODELS, create_model
from falconet.spec import ImageSpec, InputSpec, Kind, SeriesSpec, TextSpec

CLASSES = 7
LABELS = tuple("abcdefg")
CHANNELS: dict[Kind, tuple[int, ...]] = {"image": (1, 3), "series": (1, 3), "text": (50,)}
"""Channels, or different tokens, of the inputs that models are tested with."""
STEPS = 24
"""Of sequences."""
LENGTHS = (STEPS, 2, 15, 9)

CASES = [
    (name, kind, channels) for name, entry in MODELS.items() for kind in entry.kinds for channels in CHANNELS[kind]
]
every_model = pytest.mark.parametrize("name", MODELS)
every_input = pytest.mark.parametrize(("name", "kind", "channels"), CASES)
every_sequence = pytest.mark.parametrize(
    ("name", "kind", "channels"), [case for case in CASES if case[1] in ("series", "text")]
)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(name: str, kind: Kind, channels: int) -> nn.Module:
    size = MODELS[name].input[1:] if kind == "image" else STEPS
    return create_model(name, kind=kind, num_classes=CLASSES, in_channels=channels, input_size=size)


def draw_inputs(name: str, kind: Kind, channels: int, lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    """Return four samples: images of the native size, or sequences of these lengths with padding behind them."""
    if kind == "image":
        return torch.randn(4, channels, *MODELS[name].input[1:])
    padding = torch.arange(STEPS) >= torch.tensor(lengths)[:, None]
    if kind == "text":
        return torch.randint(1, channels, (4, STEPS)).masked_fill(padding, 0)
    return torch.randn(4, channels, STEPS).masked_fill(padding[:, None], torch.nan)


def make_spec(name: str, kind: Kind, channels: int) -> InputSpec:
    if kind == "text":
        return TextSpec((STEPS,), LABELS, channels)
    mean, std = (0.5,) * channels, (0.25,) * channels
    if kind == "series":
        return SeriesSpec((channels, STEPS), LABELS, mean, std)
    _, height, width = MODELS[name].input
    return ImageSpec((channels, height, width), LABELS, mean, std, margin=MODELS[name].margin)


@every_input
def test_forward_gives_finite_logits(name: str, kind: Kind, channels: int) -> None:
    logits = build(name, kind, channels)(draw_inputs(name, kind, channels))
    assert logits.shape == (4, CLASSES)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert len(logits.unique(dim=0)) == 4


@every_model
def test_parameters_and_macs_are_the_tables(name: str) -> None:
    entry = MODELS[name]
    model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == entry.params
    cost = summarize(name)
    assert (cost.params, cost.macs) == (entry.params, entry.macs)
    assert sum(layer.params for layer in cost.layers) == entry.params
    assert sum(layer.macs for layer in cost.layers) == entry.macs


@every_input
def test_a_gradient_reaches_every_parameter(name: str, kind: Kind, channels: int) -> None:
    model = build(name, kind, channels)
    labels = torch.arange(4) % CLASSES
    loss = nn.functional.cross_entropy(model(draw_inputs(name, kind, channels)), labels)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all(), parameter
        assert gradient.any(), parameter


@every_input
def test_one_seed_gives_one_model(name: str, kind: Kind, channels: int) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build(name, kind, channels).state_dict())
    first, same, other = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_input
def test_state_goes_through_safetensors(name: str, kind: Kind, channels: int) -> None:
    model, other = build(name, kind, channels).eval(), build(name, kind, channels).eval()
    inputs = draw_inputs(name, kind, channels)
    assert not torch.equal(model(inputs), other(inputs))
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())))
    assert torch.equal(model(inputs), other(inputs))


@every_input
def test_artifact_answers_as_the_model(name: str, kind: Kind, channels: int, tmp_path: Path) -> None:
    model = build(name, kind, channels).eval()
    spec = make_spec(name, kind, channels)
    origin = Provenance(DataOrigin("digits", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    tokenizer = "{}" if kind == "text" else None
    Artifact(ArtifactConfig(name, spec, origin), model.state_dict(), tokenizer).save(tmp_path)
    loaded = load_artifact(tmp_path)
    inputs = draw_inputs(name, kind, channels)
    assert loaded.config.input == spec
    assert torch.equal(loaded.model(inputs), model(inputs))


@every_input
def test_a_sample_is_answered_alike_in_any_batch(name: str, kind: Kind, channels: int) -> None:
    model = build(name, kind, channels).eval()
    inputs = draw_inputs(name, kind, channels)
    together = model(inputs)
    alone = torch.cat([model(sample[None]) for sample in inputs])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(inputs.flip(0)), together.flip(0), rtol=1e-4, atol=1e-4)


@every_sequence
def test_padding_of_one_sample_is_no_content_of_another(name: str, kind: Kind, channels: int) -> None:
    model = build(name, kind, channels).eval()
    short = draw_inputs(name, kind, channels, (5, 5, 5, 5))
    full = draw_inputs(name, kind, channels, (STEPS, STEPS, STEPS, STEPS))
    mixed = torch.cat([short[:2], full[2:]])
    torch.testing.assert_close(model(mixed)[:2], model(short)[:2], rtol=1e-4, atol=1e-4)


@every_sequence
def test_a_sample_without_content_has_finite_logits(name: str, kind: Kind, channels: int) -> None:
    model = build(name, kind, channels).eval()
    logits = model(draw_inputs(name, kind, channels, (0, 3, 0, STEPS)))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[0], logits[2], rtol=1e-4, atol=1e-4)
