"""The transformer against torch's own attention and encoder layer, and against plain formulas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models import create_model
from falconet.models.sequences import make_attention_mask
from falconet.models.transformer import (
    EncoderBlock,
    LearnedPositions,
    PatchEncoder,
    SelfAttention,
    SinusoidalPositions,
    Transformer,
)
from falconet.spec import ModalityName

VOCABULARY, CHANNELS, STEPS = 30, 3, 12
LENGTHS = torch.tensor([7, 1, 4, 6])

every_kind = pytest.mark.parametrize("kind", ["text", "series"])
every_pooling = pytest.mark.parametrize("pooling", ["mean", "token"])
every_position = pytest.mark.parametrize("positions", ["sinusoidal", "learned"])


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(kind: ModalityName = "text", **options: Any) -> Transformer:
    channels = VOCABULARY if kind == "text" else CHANNELS
    sizes: dict[str, Any] = {"input_size": STEPS, "in_channels": channels, "width": 16, **options}
    model = create_model("transformer", kind=kind, num_classes=5, **sizes)
    assert isinstance(model, Transformer)
    return model.eval()


def draw(kind: ModalityName, steps: int = STEPS) -> Tensor:
    return torch.randint(1, VOCABULARY, (1, steps)) if kind == "text" else torch.randn(1, CHANNELS, steps)


def pad(x: Tensor, count: int) -> Tensor:
    filling = torch.nan if x.is_floating_point() else 0
    return torch.cat([x, torch.full((*x.shape[:-1], count), filling, dtype=x.dtype)], dim=-1)


@pytest.mark.parametrize(("width", "heads"), [(12, 1), (12, 3), (12, 12)])
@torch.no_grad()
def test_attention_is_torchs(width: int, heads: int) -> None:
    attention, peer = SelfAttention(width, heads), nn.MultiheadAttention(width, heads, batch_first=True)
    nn.init.normal_(peer.in_proj_bias)
    nn.init.normal_(peer.out_proj.bias)
    attention.qkv.load_state_dict({"weight": peer.in_proj_weight, "bias": peer.in_proj_bias})
    attention.projection.load_state_dict(peer.out_proj.state_dict())
    x, attention_mask = torch.randn(4, 7, width), make_attention_mask(LENGTHS, 7)
    expected, _ = peer(x, x, x, key_padding_mask=~attention_mask)
    torch.testing.assert_close(attention(x, attention_mask), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_block_is_torchs_encoder_layer() -> None:
    block = EncoderBlock(12, heads=3, expansion=4, dropout=0.3).eval()
    peer = nn.TransformerEncoderLayer(12, 3, 48, 0.3, "gelu", batch_first=True, norm_first=True).eval()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.3)
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "linear1": "fc1",
        "linear2": "fc2",
        "self_attn.out_proj": "attention.projection",
    }
    state = {
        f"{names[layer]}.{part}": value
        for key, value in peer.state_dict().items()
        for layer, _, part in [key.rpartition(".")]
        if layer in names
    }
    state |= {f"attention.qkv.{part}": peer.state_dict()[f"self_attn.in_proj_{part}"] for part in ("weight", "bias")}
    block.load_state_dict(state)
    x, attention_mask = torch.randn(4, 7, 12), make_attention_mask(LENGTHS, 7)
    expected = peer(x, src_key_padding_mask=~attention_mask)
    torch.testing.assert_close(block(x, attention_mask)[attention_mask], expected[attention_mask], rtol=1e-5, atol=1e-5)


@given(width=st.integers(1, 33), steps=st.integers(1, 50))
@settings(deadline=None)
def test_sinusoidal_positions_are_the_papers(width: int, steps: int) -> None:
    expected = np.zeros((steps, width))
    for position in range(steps):
        for index in range(width):
            angle = position / 10_000 ** (2 * (index // 2) / width)
            expected[position, index] = np.cos(angle) if index % 2 else np.sin(angle)
    found = SinusoidalPositions(width)(torch.ones(2, steps, width)) - 1
    np.testing.assert_allclose(found.numpy(), np.stack([expected, expected]), atol=2e-5)


def test_learned_positions_are_added_to_the_steps_that_are_there() -> None:
    layer = LearnedPositions(6, 3)
    nn.init.normal_(layer.table)
    x = torch.randn(2, 4, 3)
    for steps in (1, 4):
        assert torch.equal(layer(x[:, :steps]), x[:, :steps] + layer.table[:steps])


def test_learned_positions_are_no_more_than_were_built() -> None:
    model = build(positions="learned", input_size=5)
    assert model(draw("text", 5)).shape == (1, 5)
    with pytest.raises(ConfigError, match=r"^model\.input_size: wanted up to 5 steps, found 6$"):
        model(draw("text", 6))
    assert build(input_size=5)(draw("text", 60)).isfinite().all()


@every_kind
@every_pooling
@given(lengths=st.lists(st.integers(0, 10), min_size=1, max_size=4), more=st.integers(0, 9))
@settings(deadline=None, max_examples=15)
@torch.no_grad()
def test_padding_never_changes_an_answer(kind: ModalityName, pooling: str, lengths: list[int], more: int) -> None:
    torch.manual_seed(sum(lengths))
    model = build(kind, pooling=pooling)
    samples = [pad(draw(kind, length), max(1 - length, 0)) for length in lengths]
    widest = max(sample.shape[-1] for sample in samples) + more
    batch = torch.cat([pad(sample, widest - sample.shape[-1]) for sample in samples])
    expected = torch.cat([model(sample) for sample in samples])
    assert expected.isfinite().all()
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)


@every_kind
@every_pooling
@every_position
@torch.no_grad()
def test_order_matters(kind: ModalityName, pooling: str, positions: str) -> None:
    model, x = build(kind, pooling=pooling, positions=positions), draw(kind)
    if kind == "text":
        x[..., [3, 7]] = torch.tensor([4, 9])  # Of few tokens, two that are drawn may be the same.
    swapped = x.clone()
    swapped[..., [3, 7]] = x[..., [7, 3]]
    assert not torch.equal(x, swapped)
    assert not torch.allclose(model(swapped), model(x), rtol=0, atol=1e-5)
    model.positions = nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(model(swapped), model(x), rtol=1e-5, atol=1e-5)


@every_kind
@torch.no_grad()
def test_pooling(kind: ModalityName) -> None:
    for pooling in ("mean", "token"):
        model, x = build(kind, pooling=pooling), pad(draw(kind, 5), 3)
        states: list[Tensor] = []
        model.norm.register_forward_hook(lambda _module, _inputs, output, states=states: states.append(output))
        logits = model(x)
        pooled = states[0][:, :5].mean(dim=1) if pooling == "mean" else states[0][:, 0]
        assert states[0].shape[1] == (8 if pooling == "mean" else 9)
        torch.testing.assert_close(logits, model.output(pooled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 12, 4), (9, 7, 2), (5, 5, 5), (6, 4, 1)])
@torch.no_grad()
def test_patches_are_unfolded_and_projected(height: int, width: int, patch: int) -> None:
    encoder, images = PatchEncoder(3, patch, 10), torch.randn(2, 3, height, width)
    weight, bias = encoder.projection.weight.flatten(1), encoder.projection.bias
    assert bias is not None
    expected = F.unfold(images, patch, stride=patch).mT @ weight.T + bias
    vectors, lengths = encoder(images)
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)
    assert lengths.tolist() == [(height // patch) * (width // patch)] * 2


@every_position
@every_pooling
@torch.no_grad()
def test_images_are_rows_or_patches(positions: str, pooling: str) -> None:
    images = torch.randn(2, CHANNELS, 10, 8)
    for patch, steps in ((None, 10), (4, 4)):
        model = build("image", input_size=(10, 8), positions=positions, pooling=pooling, patch=patch)
        if isinstance(model.positions, LearnedPositions):
            assert tuple(model.positions.table.shape) == (steps, 16)
        seen: list[tuple[int, ...]] = []
        model.positions.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(output.shape))
        assert model(images).shape == (2, 5)
        assert seen == [(2, steps, 16)]


def test_dropout_is_for_training_alone() -> None:
    model, x = build(dropout=0.5), draw("text")
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))
    quiet = build(dropout=0.0).train()
    assert torch.equal(quiet(x), quiet(x))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("text", {"heads": 3}, "heads: wanted a divisor of the width, 16, found 3"),
        ("text", {"heads": 0}, "heads: wanted a whole number above 0, found 0"),
        ("text", {"width": -4}, "width: wanted a whole number above 0, found -4"),
        ("text", {"layers": 0}, "layers: wanted a whole number above 0, found 0"),
        ("text", {"expansion": 0}, "expansion: wanted a whole number above 0, found 0"),
        ("text", {"dropout": 1.0}, "dropout: wanted a fraction from 0 to below 1, found 1.0"),
        ("text", {"patch": 2}, "patch: wanted the side of a square within an image, found 2 for text of 12"),
        ("image", {"patch": 0, "input_size": (10, 8)}, "patch: wanted a whole number above 0, found 0"),
        (
            "image",
            {"patch": 9, "input_size": (10, 8)},
            "patch: wanted the side of a square within an image, found 9 for image of 10x8",
        ),
    ],
)
def test_options_with_no_such_value(kind: ModalityName, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(kind, **options)
    assert str(caught.value) == f"model.options.{message}"


def test_series_have_no_patches() -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.options\.patch: wanted the side of a square within an image, found 2 "
    ):
        build("series", patch=2)
