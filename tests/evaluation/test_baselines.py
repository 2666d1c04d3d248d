"""Baselines, against scikit-learn and by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import Bool
from sklearn.feature_extraction.text import TfidfVectorizer

from falconet.evaluation.baselines import (
    LINEAR,
    MAJORITY,
    Baseline,
    BaselineInputs,
    Prepared,
    describe_verdict,
    fit_linear,
    measure_baselines,
)
from falconet.evaluation.features import fit_tfidf
from falconet.spec import ModalityName


def make_images(count: int, seed: int = 0) -> Prepared:
    """Images of three classes that a linear model tells apart: a bright row at one of three heights."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 120, (count, 1, 30, 30), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        images[index, 0, 10 * label : 10 * label + 3] += 100
    return Prepared(images, labels)


def make_series(count: int, seed: int = 0) -> Prepared:
    """Series of two classes that differ in frequency, at any phase; some end early."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
    values = torch.sin((0.3 + 0.4 * labels[:, None, None]) * torch.arange(120.0) + phase)
    values[::3, :, 90:] = float("nan")
    return Prepared(values, labels)


def make_texts(count: int, seed: int = 0) -> Prepared:
    """Texts of two classes: whether token 5 comes before 6, which pairs alone tell."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(7, 40, (count, 12), generator=generator, dtype=torch.int32)  # As loaders hold them.
    labels = torch.arange(count) % 2
    tokens[:, 3] = 5 + labels
    tokens[:, 4] = 6 - labels
    tokens[::2, 9:] = 0
    return Prepared(tokens, labels)


def find_baselines(
    train: Prepared, test: Prepared, kind: ModalityName, num_classes: int, hits: Bool[np.ndarray, " samples"]
) -> tuple[Baseline, ...]:
    return measure_baselines(
        train, fit_linear(train, kind, num_classes, tokens=40), BaselineInputs(test, hits), num_classes
    )


@pytest.mark.parametrize(("kind", "make"), [("image", make_images), ("series", make_series), ("text", make_texts)])
def test_a_linear_model_learns_what_is_linear(kind: ModalityName, make: Callable[..., Prepared]) -> None:
    train, test = make(240), make(90, seed=1)
    num_classes = int(train.labels.max()) + 1
    wrong = np.zeros(90, bool)
    majority, linear = find_baselines(train, test, kind, num_classes, wrong)
    assert (majority.name, linear.name) == (MAJORITY, LINEAR[kind])
    assert majority.accuracy == pytest.approx(1 / num_classes)
    assert linear.accuracy > 0.95
    assert linear.difference == pytest.approx(-linear.accuracy)
    assert linear.is_better
    assert linear.n == 90
    assert linear.fitted == 240


def test_the_majority_is_that_of_the_training_samples() -> None:
    train, test = make_images(30), make_images(30, seed=1)
    train = Prepared(train.inputs, torch.tensor([2] * 16 + [0] * 14))
    majority = find_baselines(train, test, "image", 3, np.ones(30, bool))[0]
    assert majority.accuracy == pytest.approx(10 / 30)
    low, high = majority.accuracy_ci
    assert low < 1 / 3 < high
    assert majority.is_beaten


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_series_of_any_size_have_a_linear_model(scale: float) -> None:
    parts = make_series(240), make_series(90, seed=1)
    train, test = (Prepared(torch.as_tensor(part.inputs) * scale, part.labels) for part in parts)
    _, linear = find_baselines(train, test, "series", 2, np.zeros(90, bool))
    assert linear.accuracy > 0.95 if scale > 1 else linear.accuracy > 0.4


def test_test_samples_are_scaled_as_those_of_training_were() -> None:
    train = make_series(240)
    model = fit_linear(train, "series", 2)
    assert model is not None
    inputs = torch.as_tensor(train.inputs)
    torch.testing.assert_close(model.describe(inputs[:5]), model.describe(inputs)[:5])


def test_one_class_has_no_linear_model() -> None:
    train = Prepared(make_images(5).inputs, torch.zeros(5, dtype=torch.long))
    found = find_baselines(train, train, "image", 3, np.ones(5, bool))
    assert [baseline.name for baseline in found] == [MAJORITY]
    assert not found[0].is_better
    assert not found[0].is_beaten


def test_tf_idf_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b c a", "b b d", "c", "e a e b"]
    words = {word: index + 1 for index, word in enumerate("abcde")}
    tokens = torch.zeros(4, 6, dtype=torch.long)
    for row, text in enumerate(texts):
        for column, word in enumerate(text.split()):
            tokens[row, column] = words[word]
    reference = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    expected = reference.fit_transform(texts).toarray()
    monkeypatch.setattr("falconet.models.linear._BYTES", 0)  # Six tokens would be taken for bytes.
    describe = fit_tfidf(tokens, 6)
    dense = describe(tokens).to_dense().numpy()
    # The columns stand in another order; what texts have in common does not depend on it.
    np.testing.assert_allclose(dense @ dense.T, expected @ expected.T, atol=1e-6)
    np.testing.assert_allclose(describe(tokens[:2]).to_dense().numpy(), dense[:2], atol=1e-7)


def make_baseline(name: str, difference: float, interval: tuple[float, float]) -> Baseline:
    return Baseline(name, 0.8, (0.7, 0.9), 0.7, 1.5, 100, 50, difference, interval)


def test_the_verdict_says_what_is_better() -> None:
    far = make_baseline(MAJORITY, 0.3, (0.2, 0.4))
    near = make_baseline(LINEAR["image"], 0.02, (-0.03, 0.07))
    better = make_baseline(LINEAR["image"], -0.05, (-0.1, -0.01))
    assert describe_verdict([far]) == ""
    assert "not shown to be better than the linear model on pixels: +2.00 points" in describe_verdict([far, near])
    assert (
        describe_verdict([far, better])
        == "worse than the linear model on pixels, which takes 2 s: -5.00 points (95%: -10.00 to -1.00)"
    )
