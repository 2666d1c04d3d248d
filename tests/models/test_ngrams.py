"""Bags of n-grams against a count by hand, and the hash against Python's integers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from falconet.errors import ConfigError
from falconet.models import create_model
from falconet.models.ngrams import _MULTIPLIER, MAX_BUCKETS, NGrams

TOKENS, BUCKETS = 50, 97


def build(**options: Any) -> NGrams:
    settings = {"dimension": 6, "buckets": BUCKETS, **options}
    model = create_model("ngrams", num_classes=3, in_channels=TOKENS, input_size=9, **settings)
    assert isinstance(model, NGrams)
    return model.eval()


def list_by_hand(text: list[int], n: int) -> list[int]:
    """Return the rows of the table that a text without padding has."""
    rows = list(text)
    for length in range(2, n + 1):
        for begin in range(len(text) - length + 1):
            value = text[begin]
            for token in text[begin + 1 : begin + length]:
                value = (value % BUCKETS * _MULTIPLIER + token) % BUCKETS
            rows.append(TOKENS + value)
    return rows


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("text", [[7, 7, 3, 49, 1], [4, 9], [5], []], ids=str)
def test_a_text_is_the_mean_of_its_tokens_and_n_grams(text: list[int], n: int) -> None:
    model = build(n=n)
    padded = torch.tensor([text + [0] * (9 - len(text))])
    rows = list_by_hand(text, n)
    assert sorted(model.list_rows(padded)[0].tolist()) == sorted(
        rows + [0] * (model.list_rows(padded).numel() - len(rows))
    )
    vectors = model.embedding.weight[rows]
    wanted = vectors.mean(dim=0) if rows else torch.zeros(6)
    torch.testing.assert_close(model.features(padded)[0], wanted)
    torch.testing.assert_close(model(padded), model.output(wanted[None]))


@torch.no_grad()
def test_order_is_seen_from_two_tokens_on() -> None:
    text, other = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[4, 3, 6, 5]])
    bag, ordered = build(n=1), build(n=2)
    torch.testing.assert_close(bag.features(text), bag.features(other))
    assert not torch.allclose(ordered.features(text), ordered.features(other))


def test_hashes_stay_within_32_bits() -> None:
    largest = (MAX_BUCKETS - 1) * _MULTIPLIER + (1 << 24)
    assert largest < 1 << 31
    model = create_model(
        "ngrams", num_classes=2, in_channels=8000, input_size=12, n=5, buckets=MAX_BUCKETS, dimension=1
    )
    assert isinstance(model, NGrams)
    tokens = torch.randint(1, 8000, (100, 12))
    assert torch.equal(model.list_rows(tokens), model.list_rows(tokens.int()).long())


def test_padding_stays_zero_in_training() -> None:
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.tensor([[3, 4, 0, 0], [5, 0, 0, 0]])).square().sum().backward()
    optimizer.step()
    assert not model.embedding.weight[0].any()
    assert model.embedding.weight[3].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": MAX_BUCKETS + 1}, rf"^model\.options\.buckets: wanted at most {MAX_BUCKETS}, found more$"),
        ({"dimension": 0}, r"^model\.options\.dimension: wanted a whole number above 0, found 0$"),
        ({"n": 6}, r"^model\.options\.n: wanted at most 5, found more$"),
        ({"dropout": 1.0}, r"^model\.options\.dropout: wanted a fraction from 0 to below 1, found 1\.0$"),
    ],
)
def test_options_that_make_no_network(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)
