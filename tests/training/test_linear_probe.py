"""The solved output layer, against scikit-learn and against leaving samples out one by one."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from falconet.data.loader import Loader
from falconet.data.preprocessing import create_preprocess
from falconet.errors import ConfigError, DivergedError
from falconet.spec import ImageSpec
from falconet.training import linear_probe
from falconet.training.config import TrainConfig
from falconet.training.linear_probe import (
    INVERSE_PENALTIES,
    RIDGES,
    LinearProbe,
    Solver,
    assign_folds,
    extract_features,
    fit_logistic,
    make_sparse,
    set_output_weights,
    solve,
    take_rows,
)
from falconet.training.loop import fit_linear_probe, without_augmentation


def make_clusters(samples: int, width: int, classes: int, seed: int = 0, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, width, generator=generator)
    labels = torch.arange(samples) % classes
    return centers[labels] + spread * torch.randn(samples, width, generator=generator), labels


@pytest.mark.parametrize("inverse", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_regression_is_that_of_scikit_learn(inverse: float, classes: int) -> None:
    features, labels = make_clusters(120, 6, classes)
    weights = torch.linspace(0.5, 1.5, 120)
    weight, bias = fit_logistic(features, labels, classes, weights, inverse)
    reference = LogisticRegression(C=inverse, tol=1e-10, max_iter=10_000).fit(features, labels, sample_weight=weights)
    expected = reference.predict_proba(features)
    found = (features @ weight.T + bias).softmax(dim=1)
    if classes == 2:  # scikit-learn penalizes one vector of weights where a softmax has two, of half its size each.
        reference = LogisticRegression(C=2 * inverse, tol=1e-10, max_iter=10_000)
        expected = reference.fit(features, labels, sample_weight=weights).predict_proba(features)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def to_rows(features: Tensor) -> Tensor:
    """A matrix in the layout of sparse rows."""
    present = features != 0
    ends = nn.functional.pad(present.sum(dim=1).cumsum(0), (1, 0))
    return make_sparse(ends, present.nonzero()[:, 1], features[present], (features.shape[0], features.shape[1]))


def test_sparse_features_give_the_same_solution() -> None:
    features, labels = make_clusters(90, 8, 3)
    features = features * (features > 0.5)
    dense = solve(features, labels, 3)
    sparse = solve(to_rows(features), labels, 3)
    torch.testing.assert_close(dense.weight, sparse.weight, atol=1e-4, rtol=1e-3)
    assert dense.accuracy == sparse.accuracy


def test_rows_of_sparse_features() -> None:
    features, _ = make_clusters(20, 8, 3)
    features = features * (features > 1)
    rows = torch.tensor([3, 19, 0, 3])
    torch.testing.assert_close(take_rows(to_rows(features), rows).to_dense(), features[rows])
    torch.testing.assert_close(linear_probe.transpose(to_rows(features)).to_dense(), features.T)


def solve_left_out(
    features: Tensor, labels: Tensor, classes: int, weights: Tensor, ridge: float, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression by the normal equations, without one sample."""
    kept = np.arange(len(labels)) != index
    x = np.hstack([features.numpy().astype(float), np.ones((len(labels), 1))])
    y = 2.0 * np.eye(classes)[labels.numpy()] - 1
    w = weights.numpy().astype(float)[:, None]
    penalty = ridge * np.eye(x.shape[1])
    penalty[-1, -1] = 0
    beta = np.linalg.solve(x[kept].T @ (w[kept] * x[kept]) + penalty, x[kept].T @ (w[kept] * y[kept]))
    return x[index] @ beta, y[index]


@pytest.mark.parametrize("width", [4, 60])
def test_ridge_knows_what_it_would_say_of_samples_left_out(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = make_clusters(40, width, 3)
    features = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    weights = torch.linspace(0.5, 1.5, 40)
    errors = {}
    answers = {}
    for ridge in RIDGES:
        pairs = [solve_left_out(features, labels, 3, weights, ridge, index) for index in range(40)]
        answers[ridge] = [pair[0].argmax() for pair in pairs]
        errors[ridge] = sum(
            weight * ((found - wanted) ** 2).sum()
            for weight, (found, wanted) in zip(weights.tolist(), pairs, strict=True)
        )
    solution = linear_probe.solve_ridge(features, labels, 3, weights)
    best = min(errors, key=errors.__getitem__)
    assert solution.penalty == best
    assert solution.accuracy == pytest.approx(np.mean(np.array(answers[best]) == labels.numpy()))


def test_ridge_weights_are_those_of_the_normal_equations() -> None:
    features, labels = make_clusters(50, 5, 3)
    features = 3 * features + 1
    solution = solve(features, labels, 3, "ridge")
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    x = torch.hstack([(features - mean) / deviation, torch.ones(50, 1)]).double()
    y = 2 * torch.eye(3)[labels].double() - 1
    penalty = solution.penalty * torch.diag(torch.tensor([1.0] * 5 + [0.0])).double()
    beta = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
    expected = (x @ beta).float()
    found = solution.apply(features)
    scale = (found * expected).sum() / expected.square().sum()
    torch.testing.assert_close(found, scale * expected, atol=1e-4, rtol=1e-4)
    assert scale > 1  # Least squares alone is far too unsure.


def test_probabilities_of_ridge_are_neither_too_sure_nor_too_unsure() -> None:
    features, labels = make_clusters(600, 20, 3, spread=2.5)
    solution = solve(features[:400], labels[:400], 3, "ridge")
    probabilities = solution.apply(features[400:]).softmax(dim=1)
    accuracy = (probabilities.argmax(dim=1) == labels[400:]).float().mean()
    assert abs(probabilities.amax(dim=1).mean() - accuracy) < 0.06


@pytest.mark.parametrize("solver", ["logistic", "ridge"])
def test_left_out_accuracy_is_that_on_new_samples(solver: Solver) -> None:
    features, labels = make_clusters(3000, 10, 3, spread=2.5)
    solution = solve(features[:1000], labels[:1000], 3, solver)
    new = (solution.apply(features[1000:]).argmax(dim=1) == labels[1000:]).float().mean()
    assert solution.accuracy == pytest.approx(float(new), abs=0.04)


@pytest.mark.parametrize("solver", ["logistic", "ridge"])
def test_noise_is_worth_chance(solver: Solver) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(300, 200, generator=generator)
    labels = torch.arange(300) % 2
    solution = solve(features, labels, 2, solver)
    assert solution.accuracy == pytest.approx(0.5, abs=0.1)
    assert solution.penalty == (INVERSE_PENALTIES[0] if solver == "logistic" else RIDGES[-1])


@pytest.mark.parametrize("solver", ["logistic", "ridge"])
def test_balanced_weights_find_the_rare_class(solver: Solver) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(600) % 20 == 0).long()
    features = torch.randn(600, 3, generator=generator) + 1.2 * labels[:, None]
    plain = solve(features, labels, 2, solver)
    balanced = solve(features, labels, 2, solver, class_weights=torch.tensor([600 / 1140, 600 / 60]))
    rare = labels == 1

    def recall(solution: LinearProbe) -> float:
        return float((solution.apply(features[rare]).argmax(dim=1) == 1).float().mean())

    assert recall(plain) < 0.6
    assert recall(balanced) > 0.75


@pytest.mark.parametrize("solver", ["logistic", "ridge"])
@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 0, 0, 1], [0], [1, 1, 1]])
def test_few_samples_still_give_finite_weights(solver: Solver, labels: list[int]) -> None:
    features = torch.zeros(len(labels), 3) if len(labels) == 1 else torch.randn(len(labels), 3)
    solution = solve(features, torch.tensor(labels), 2, solver)
    assert torch.isfinite(solution.weight).all()
    assert torch.isfinite(solution.bias).all()


def test_folds_spread_classes_evenly() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10)
    folds = assign_folds(labels, torch.Generator().manual_seed(0))
    for number in range(5):
        assert torch.bincount(labels[folds == number], minlength=2).tolist() == [10, 2]
    assert assign_folds(torch.arange(4), torch.Generator()) is None


def test_the_same_seed_gives_the_same_solution() -> None:
    features, labels = make_clusters(200, 5, 3)
    first, second = solve(features, labels, 3, seed=1), solve(features, labels, 3, seed=1)
    assert torch.equal(first.weight, second.weight)


def test_samples_that_belong_together_are_left_out_together() -> None:
    generator = torch.Generator().manual_seed(0)
    # 40 people with 5 almost equal samples each, whose labels are drawn: nobody can know those of another person.
    people = torch.arange(40).repeat_interleave(5)
    features = torch.randn(40, 30, generator=generator)[people] + 0.01 * torch.randn(200, 30, generator=generator)
    labels = torch.randint(0, 2, (40,), generator=generator)[people]
    apart, together = solve(features, labels, 2), solve(features, labels, 2, groups=people)
    assert apart.accuracy is not None
    assert apart.accuracy > 0.9
    assert together.accuracy is not None
    assert together.accuracy < 0.7
    assert solve(features, labels, 2, "ridge").accuracy is not None
    assert solve(features, labels, 2, "ridge", groups=people).accuracy is None
    assert solve(features, labels, 2, "ridge", groups=torch.arange(200)).left_out == 200
    folds = assign_folds(labels, generator, people)
    assert folds is not None
    assert all(len(set(folds[people == person].tolist())) == 1 for person in range(40))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("solver", ["logistic", "ridge"])
def test_features_that_are_not_finite_are_told(value: float, solver: Solver) -> None:
    features, labels = make_clusters(20, 4, 2)
    features[3, 1] = value
    with pytest.raises(DivergedError, match="wanted finite features"):
        solve(features, labels, 2, solver)


def test_features_are_what_the_output_layer_sees() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)).train()
    inputs, labels = torch.randn(10, 4), torch.arange(10) % 3
    features, found = extract_features(model, [(inputs[:7], labels[:7]), (inputs[7:], labels[7:])], lambda x: x)
    torch.testing.assert_close(features, model[0](inputs).relu())
    assert torch.equal(found, labels)
    solution = solve(features, labels, 3)
    set_output_weights(model, solution)
    torch.testing.assert_close(model.eval()(inputs), solution.apply(features))


def test_of_more_features_than_fit_in_memory_some_samples_are_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (30, 1, 2, 2), dtype=torch.uint8)
    spec = ImageSpec((1, 2, 2), (0.5,), (0.25,))
    train = Loader(images, torch.arange(30) % 3, create_preprocess(spec, None), 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    config = TrainConfig(epochs=1, linear_probe="logistic")
    assert fit_linear_probe(model, train, config).left_out == 30
    monkeypatch.setattr("falconet.training.linear_probe._MAX_VALUES", 4 * 21)
    assert fit_linear_probe(model, train, config).left_out == 21
    drawn = torch.cat([labels for _, labels in without_augmentation(train, 21).epoch(1)])
    assert len(drawn) == 21
    assert not torch.equal(drawn, torch.arange(21) % 3)


def test_a_network_with_another_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="one dense layer"):
        extract_features(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()), [], lambda x: x)
