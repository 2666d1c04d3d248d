"""What every architecture of the table must do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, load_artifact
from falconet.complexity import count_complexity
from falconet.models import MODELS, create_model
from falconet.spec import InputSpec

CLASSES = 7

every_model = pytest.mark.parametrize("name", MODELS)
every_channels = pytest.mark.parametrize("channels", [1, 3])


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(name: str, channels: int) -> nn.Module:
    return create_model(name, num_classes=CLASSES, in_channels=channels)


def draw_images(name: str, channels: int, count: int = 4) -> Tensor:
    return torch.randn(count, channels, *MODELS[name].input[1:])


@every_model
@every_channels
def test_forward_gives_finite_logits(name: str, channels: int) -> None:
    logits = build(name, channels)(draw_images(name, channels))
    assert logits.shape == (4, CLASSES)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert len(logits.unique(dim=0)) == 4


@every_model
def test_parameters_and_macs_are_the_tables(name: str) -> None:
    entry = MODELS[name]
    model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == entry.params
    cost = count_complexity(model, entry.input)
    assert (cost.params, cost.macs) == (entry.params, entry.macs)
    assert sum(layer.params for layer in cost.layers) == entry.params
    assert sum(layer.macs for layer in cost.layers) == entry.macs


@every_model
@every_channels
def test_a_gradient_reaches_every_parameter(name: str, channels: int) -> None:
    model = build(name, channels)
    labels = torch.arange(4) % CLASSES
    loss = nn.functional.cross_entropy(model(draw_images(name, channels)), labels)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all(), parameter
        assert gradient.any(), parameter


@every_model
@every_channels
def test_one_seed_gives_one_model(name: str, channels: int) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build(name, channels).state_dict())
    first, same, other = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_model
@every_channels
def test_state_goes_through_safetensors(name: str, channels: int) -> None:
    model, other = build(name, channels).eval(), build(name, channels).eval()
    images = draw_images(name, channels)
    assert not torch.equal(model(images), other(images))
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())))
    assert torch.equal(model(images), other(images))


@every_model
@every_channels
def test_artifact_answers_as_the_model(name: str, channels: int, tmp_path: Path) -> None:
    model = build(name, channels).eval()
    spec = InputSpec(
        shape=(channels, *MODELS[name].input[1:]),
        labels=tuple("abcdefg"),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        margin=MODELS[name].margin,
    )
    origin = Provenance(DataOrigin("digits", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    Artifact(ArtifactConfig(name, spec, origin), model.state_dict()).save(tmp_path)
    loaded = load_artifact(tmp_path)
    images = draw_images(name, channels)
    assert loaded.config.input == spec
    assert torch.equal(loaded.model(images), model(images))


@every_model
@every_channels
def test_a_sample_is_answered_alike_in_any_batch(name: str, channels: int) -> None:
    model = build(name, channels).eval()
    images = draw_images(name, channels)
    together = model(images)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(images.flip(0)), together.flip(0), rtol=1e-4, atol=1e-4)
