"""TF-IDF and logistic regression on texts, against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from falconet.data.loader import Loader
from falconet.data.preprocessing import create_preprocess
from falconet.data.texts import TextEncoder, train_tokenizer
from falconet.errors import ConfigError
from falconet.models import create_model
from falconet.models.layers import SparseLinear
from falconet.models.linear import HashedTfidf, Linear
from falconet.spec import TextSpec
from falconet.training.config import TrainConfig
from falconet.training.linear_probe import extract_features, set_output_weights, solve, sum_columns
from falconet.training.loop import fit_linear_probe

TEXTS = ["lost my card", "card lost again!", "top up failed", "why did my top up fail", "Ü lost lost", "a"]
LABELS = torch.tensor([0, 0, 1, 1, 0, 1])
LENGTH = 30


def encode(texts: list[str]) -> torch.Tensor:
    encoder = TextEncoder(train_tokenizer([], 258), LENGTH)
    return torch.from_numpy(encoder.encode(texts))


def build() -> Linear:
    model = create_model("linear", kind="text", num_classes=2, in_channels=258, input_size=LENGTH)
    assert isinstance(model, Linear)
    model.fit_statistics([encode(TEXTS[:4]), encode(TEXTS[4:])])
    return model.eval()


def evaluate() -> TfidfVectorizer:
    """Bytes and their n-grams, as Latin-1 has a character for each byte."""
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 5), sublinear_tf=True, lowercase=False)


def as_bytes(texts: list[str]) -> list[str]:
    return [text.encode().decode("latin-1") for text in texts]


def make_dense(model: Linear, texts: list[str]) -> np.ndarray:
    assert model.tfidf is not None
    found: np.ndarray = sum_columns(model.tfidf(encode(texts)), len(model.tfidf.idf)).to_dense().numpy()
    return found


@torch.no_grad()
def test_tf_idf_is_that_of_scikit_learn() -> None:
    fitted = evaluate().fit(as_bytes(TEXTS))
    wanted = fitted.transform(as_bytes(TEXTS)).toarray()
    found = make_dense(build(), TEXTS)
    # The columns stand in another order, of which what texts have in common does not depend.
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-6)


@torch.no_grad()
def test_padding_and_a_text_without_tokens() -> None:
    model = build()
    longer = torch.nn.functional.pad(encode(TEXTS), (0, 9))
    torch.testing.assert_close(model(longer), model(encode(TEXTS)))
    empty = torch.zeros(1, LENGTH, dtype=torch.long)
    torch.testing.assert_close(model(empty)[0], model.output.bias)


def test_the_solution_is_that_of_scikit_learn() -> None:
    model, inputs = build(), encode(TEXTS * 4)
    labels = LABELS.repeat(4)
    features, found = extract_features(model, [(inputs[:9], labels[:9]), (inputs[9:], labels[9:])], lambda x: x)
    assert features.layout == torch.sparse_csr
    assert torch.equal(found, labels)
    solution = solve(features, labels, 2)
    set_output_weights(model, solution)
    dense = make_dense(model, TEXTS * 4)
    with torch.no_grad():
        logits = model(inputs)
    np.testing.assert_allclose(logits.numpy(), solution.apply(features).numpy(), atol=1e-5)
    # Of two classes scikit-learn has one vector, which is the difference of both, of half its size each.
    expected = LogisticRegression(C=2 * solution.penalty, tol=1e-7, max_iter=1000).fit(dense, labels)
    difference = (logits[:, 1] - logits[:, 0]).numpy()
    np.testing.assert_allclose(difference, expected.decision_function(dense), rtol=0.02, atol=0.02)


def test_solve_output_of_a_loader() -> None:
    inputs = encode(TEXTS * 4).int()
    preprocess = create_preprocess(TextSpec((LENGTH,), 258), train_tokenizer([], 258))
    loader = Loader(inputs, LABELS.repeat(4), preprocess, 5, sampler="shuffle")
    solution = fit_linear_probe(build(), loader, TrainConfig(epochs=1, linear_probe="logistic"))
    assert solution.train_accuracy == 1
    with pytest.raises(ConfigError, match=r"^training\.linear_probe: wanted logistic, as features are sparse"):
        fit_linear_probe(build(), loader, TrainConfig(epochs=1, linear_probe="ridge"))


@torch.no_grad()
def test_a_sparse_layer_is_a_dense_one() -> None:
    layer = SparseLinear(7, 3)
    columns, values = torch.tensor([[1, 4, 1], [0, 6, 2]]), torch.randn(2, 3)
    dense = torch.zeros(2, 7).scatter_add(1, columns, values)
    torch.testing.assert_close(layer(columns, values), dense @ layer.weight + layer.bias)


def test_n_follows_from_the_vocabulary() -> None:
    assert (HashedTfidf(258).n, HashedTfidf(8000).n) == (5, 2)
    assert len(HashedTfidf(100, n=1).idf) == 100


@pytest.mark.parametrize("option", ["n", "buckets"])
def test_options_of_texts(option: str) -> None:
    three: dict[str, Any] = {option: 3}
    none: dict[str, Any] = {option: 0}
    with pytest.raises(ConfigError, match=rf"^model\.options\.{option}: wanted none, which is for texts, found 3$"):
        create_model("linear", **three)
    with pytest.raises(ConfigError, match=rf"^model\.options\.{option}: wanted a whole number above 0, found 0$"):
        create_model("linear", kind="text", in_channels=258, input_size=9, **none)
