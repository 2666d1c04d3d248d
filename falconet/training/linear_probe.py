"""The output layer as the solution of a convex problem: a linear probe on features that do not change.

    logistic    multinomial logistic regression with an L2 penalty, by L-BFGS
                (Nocedal, Wright: Numerical optimization, 2006, algorithm 7.5)
    ridge       least squares on targets of -1 and 1, whose leave-one-out answers are known in closed form
                (Rifkin, Lippert: Notes on regularized least squares. MIT, 2007)

Both choose their penalty by cross-validation, whose accuracy estimates how good the layer is before any validation
sample is seen. Solving takes seconds, with the same result on each run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from falconet.errors import ConfigError, DivergedError
from falconet.models.info import find_trainable_classifiers
from falconet.models.layers import SparseLinear

Solver = Literal["logistic", "ridge"]

_FOLDS = 5
"""Folds of cross-validation on training samples."""
_CV_SAMPLES = 4_000
"""Samples for cross-validation of logistic regression, at most; the final fit uses all."""
INVERSE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0)
"""Values of C of logistic regression, as in scikit-learn, for features whose rows have a mean squared norm of 1."""
_PATIENCE = 2
"""Weaker penalties without a gain after which the search stops."""
RIDGES = tuple(10.0**exponent for exponent in range(-3, 4))
"""Penalties of ridge regression that are tried, for features of variance 1, as MiniRocket's authors have them."""
_ROUGH, EXACT = 1e-3, 1e-5
"""Tolerances of the gradient's largest component: in cross-validation, and for the final solution."""
_ROUGH_PART = 0.03
"""Tolerance in cross-validation as a fraction of the gradient at weights 0: it is small for many or rare features."""
_STEPS = 500
"""Steps of L-BFGS, at most."""
_MEMORY = 10
"""Pairs of steps and gradient changes that L-BFGS keeps."""

_MAX_VALUES = 2**27
"""Values of a dense feature matrix, at most: half a gigabyte. Beyond that, a random subset of the samples is used."""
_MAX_SPARSE_VALUES = 2**25
"""Nonzero values of a sparse feature matrix, at most; with indices and copies, each took about 80 bytes."""
_PRECISION = 1e-6
"""Relative difference of two losses below which they are equal in single precision."""

Features = Float[Tensor, "samples features"]
ClassNumbers = Int64[Tensor, " samples"]
_Weights = Float[Tensor, " samples"]


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A solved output layer, with its accuracy and loss."""

    weight: Float[Tensor, "classes features"]
    bias: Float[Tensor, " classes"]
    penalty: float
    """Chosen penalty: C of logistic regression, or alpha of ridge regression."""
    accuracy: float | None
    """Accuracy on held-out training samples, by cross-validation; None: there are too few samples for that."""
    left_out: int
    """Number of these held-out samples."""
    train_loss: float
    """Mean log loss on the training samples."""
    train_accuracy: float

    def apply(self, features: Features) -> Float[Tensor, "samples classes"]:
        """Return the layer's logits."""
        return features @ self.weight.T + self.bias


def _make_solution(
    weight: Float[Tensor, "classes features"],
    bias: Float[Tensor, " classes"],
    penalty: float,
    left_out: tuple[float | None, int],
    features: Features,
    labels: ClassNumbers,
) -> LinearProbe:
    """Return a probe with its training loss and accuracy; `left_out`: held-out accuracy and number of samples."""
    logits = features @ weight.T + bias
    loss, hits = F.cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).double().mean()
    return LinearProbe(weight, bias, penalty, *left_out, float(loss), float(hits))


def solve(
    features: Features,
    labels: ClassNumbers,
    num_classes: int,
    solver: Solver = "logistic",
    class_weights: Float[Tensor, " classes"] | None = None,
    seed: int = 0,
    cv_samples: int = _CV_SAMPLES,
    groups: Int64[Tensor, " samples"] | None = None,
) -> LinearProbe:
    """Return the output layer that fits features to labels; `features` may be sparse (CSR) for `logistic`.

    `class_weights` weigh each sample by its class. The seed decides which samples share a fold, and which `cv_samples`
    of more choose the penalty of logistic regression. Samples with the same number in `groups`, such as those of one
    person, would leak each other's labels: they share a fold, and where there are some, ridge regression, which leaves
    out one sample at a time, has no held-out accuracy. Raises DivergedError for features that are not finite.
    """
    values = features.values() if features.layout == torch.sparse_csr else features
    if not bool(torch.isfinite(values).all()):
        raise DivergedError("linear probe: wanted finite features, found NaN or infinity; look at the samples' values")
    weights = torch.ones(len(labels)) if class_weights is None else class_weights[labels]
    weights = weights * (len(weights) / weights.sum())
    if solver == "ridge":
        if features.layout == torch.sparse_csr:
            raise ConfigError("training.linear_probe: wanted logistic, as features are sparse, found ridge")
        solution = solve_ridge(features, labels, num_classes, weights)
        alone = groups is None or len(torch.unique(groups)) == len(groups)
        return solution if alone else replace(solution, accuracy=None, left_out=0)
    return _solve_logistic(features, labels, num_classes, weights, seed, cv_samples, groups)


def _solve_logistic(
    features: Features,
    labels: ClassNumbers,
    num_classes: int,
    weights: _Weights,
    seed: int = 0,
    cv_samples: int = _CV_SAMPLES,
    groups: Int64[Tensor, " samples"] | None = None,
) -> LinearProbe:
    """Return multinomial logistic regression, its penalty chosen by the log loss of held-out samples.

    The bias is not penalized. One factor scales all features, so that penalties do not depend on their scale.
    """
    scale = _measure_scale(features)
    scaled, columns = _drop_columns(features * (1 / scale))
    chosen, accuracy = _choose_penalty(scaled, labels, num_classes, weights, seed, cv_samples, groups)
    weight, bias = fit_logistic(scaled, labels, num_classes, weights, chosen)
    if columns is not None:
        weight = torch.zeros(num_classes, features.shape[1]).index_copy_(1, columns, weight)
    left_out = accuracy, min(len(labels), cv_samples) if accuracy is not None else 0
    return _make_solution(weight / scale, bias, chosen, left_out, features, labels)


def _drop_columns(
    features: Features,
) -> tuple[Float[Tensor, "samples kept"], Int64[Tensor, " kept"] | None]:
    """Return sparse features without empty columns, whose weights stay 0, and the indices of the other columns."""
    if features.layout != torch.sparse_csr:
        return features, None
    kept, columns = torch.unique(features.col_indices(), return_inverse=True)
    shape = len(features), max(len(kept), 1)
    if not len(kept):
        kept = torch.zeros(1, dtype=torch.long)
    return make_sparse(features.crow_indices(), columns, features.values(), shape), kept


def _measure_scale(features: Features) -> float:
    """Return the root mean square of the rows' norms; 1 where all are zero."""
    values = features.values() if features.layout == torch.sparse_csr else features
    norm = float(torch.linalg.vector_norm(values, dtype=torch.double)) / math.sqrt(len(features))
    return norm or 1.0


def _choose_penalty(
    features: Features,
    labels: ClassNumbers,
    num_classes: int,
    weights: _Weights,
    seed: int,
    cv_samples: int,
    groups: Int64[Tensor, " samples"] | None = None,
) -> tuple[float, float | None]:
    """Return the penalty with the least log loss over _FOLDS folds, and its accuracy; for few samples 1 and None.

    Penalties are tried from the strongest on until _PATIENCE are each worse than an earlier one: a weaker penalty takes
    longer, and where one already overfits, a weaker one is no better.
    """
    generator = torch.Generator().manual_seed(seed)
    subset = torch.randperm(len(labels), generator=generator)[:cv_samples]
    fold = assign_folds(labels[subset], generator, None if groups is None else groups[subset])
    if fold is None:
        return 1.0, None
    parts = [(subset[fold != number], subset[fold == number]) for number in range(_FOLDS)]
    gradients = [
        _measure_gradient(take_rows(features, inside), labels[inside], num_classes, weights[inside])
        for inside, _ in parts
    ]
    starts: list[Tensor | None] = [None] * _FOLDS
    best, least, accuracy = INVERSE_PENALTIES[0], math.inf, 0.0
    worse = 0
    for inverse in INVERSE_PENALTIES:
        loss, hits = 0.0, 0
        for number, (inside, out) in enumerate(parts):
            rough = min(_ROUGH, _ROUGH_PART * gradients[number])
            # Taken anew each time: the rows of all folds at once would be several times the features.
            known, unknown = take_rows(features, inside), take_rows(features, out)
            # From the strongest penalty on, each solution is near the next one's.
            solved = _minimize_logistic(
                known, labels[inside], num_classes, weights[inside], inverse, rough, starts[number]
            )
            starts[number] = solved
            logits = unknown @ solved[:-1] + solved[-1]
            entropy = F.cross_entropy(logits, labels[out], reduction="none")
            loss += float((weights[out] * entropy).double().sum())
            hits += int((logits.argmax(dim=1) == labels[out]).sum())
        if loss < least:
            best, least, accuracy, worse = inverse, loss, hits / len(subset), 0
            continue
        worse += 1
        if worse == _PATIENCE:
            break
    return best, accuracy


def assign_folds(
    labels: ClassNumbers, generator: torch.Generator, groups: Int64[Tensor, " samples"] | None = None
) -> Int64[Tensor, " samples"] | None:
    """Return each sample's fold, stratified by class with groups kept whole; None where no class has two groups."""
    numbers = torch.arange(len(labels)) if groups is None else groups
    names, members = torch.unique(numbers, return_inverse=True)
    # A family counts as its last sample's class: which one does not matter, as long as it is one.
    own = torch.zeros(len(names), dtype=torch.long)
    own[members] = labels
    if int(torch.bincount(own).max()) < 2:
        return None
    shuffled = torch.randperm(len(names), generator=generator)
    order = shuffled[torch.sort(own[shuffled], stable=True).indices]
    folds = torch.empty(len(names), dtype=torch.long)
    folds[order] = torch.arange(len(names)) % _FOLDS
    return folds[members]


def take_rows(features: Features, rows: Int64[Tensor, " chosen"]) -> Float[Tensor, "chosen features"]:
    """Return some rows of dense or sparse features."""
    if features.layout != torch.sparse_csr:
        return features[rows]
    starts, columns, values = features.crow_indices(), features.col_indices(), features.values()
    lengths = (starts[1:] - starts[:-1])[rows]
    ends = F.pad(lengths.cumsum(0), (1, 0))
    places = torch.repeat_interleave(starts[rows] - ends[:-1], lengths) + torch.arange(int(ends[-1]))
    return make_sparse(ends, columns[places], values[places], (len(rows), features.shape[1]))


def fit_logistic(
    features: Features, labels: ClassNumbers, num_classes: int, weights: _Weights, inverse: float
) -> tuple[Float[Tensor, "classes features"], Float[Tensor, " classes"]]:
    """Return the weight and bias that minimize the mean weighted log loss plus |weight|^2 / (2 inverse samples)."""
    solution = _minimize_logistic(features, labels, num_classes, weights, inverse, EXACT)
    return solution[:-1].T.contiguous(), solution[-1].clone()


def _minimize_logistic(
    features: Features,
    labels: ClassNumbers,
    num_classes: int,
    weights: _Weights,
    inverse: float,
    tolerance: float,
    start: Float[Tensor, "features+1 classes"] | None = None,
) -> Float[Tensor, "features+1 classes"]:
    """Return the weights, with the biases as last row, that minimize the penalized loss; see `fit_logistic`."""
    samples, width = features.shape
    transposed = features.T if features.layout != torch.sparse_csr else transpose(features)
    penalty = 1 / (inverse * samples)
    rows = torch.arange(samples)
    weights = weights / samples

    def evaluate(point: Tensor) -> tuple[float, Tensor]:
        log = F.log_softmax(features @ point[:-1] + point[-1], dim=1)
        loss = -(weights * log[rows, labels]).sum() + penalty / 2 * point[:-1].square().sum()
        residual = log.exp_()
        residual[rows, labels] -= 1
        residual *= weights[:, None]
        gradient = torch.cat([transposed @ residual + penalty * point[:-1], residual.sum(dim=0, keepdim=True)])
        return float(loss), gradient

    return _minimize(evaluate, torch.zeros(width + 1, num_classes) if start is None else start, tolerance)


def _measure_gradient(features: Features, labels: ClassNumbers, num_classes: int, weights: _Weights) -> float:
    """Return the largest component of the gradient of the mean weighted log loss where all weights are 0."""
    transposed = features.T if features.layout != torch.sparse_csr else transpose(features)
    residual = (1 / num_classes - F.one_hot(labels, num_classes).float()) * (weights / len(labels))[:, None]
    return float((transposed @ residual).abs().max())


def transpose(features: Features) -> Float[Tensor, "features samples"]:
    """Return the transpose of a sparse matrix (CSR), as CSR."""
    samples, width = features.shape
    lengths = features.crow_indices().diff()
    rows = torch.repeat_interleave(torch.arange(samples), lengths)
    columns, order = torch.sort(features.col_indices(), stable=True)
    ends = F.pad(torch.bincount(columns, minlength=width).cumsum(0), (1, 0))
    return make_sparse(ends, rows[order], features.values()[order], (width, samples))


def make_sparse(
    ends: Int64[Tensor, " ends"],
    columns: Int64[Tensor, " values"],
    values: Float[Tensor, " values"],
    shape: tuple[int, int],
) -> Float[Tensor, "rows columns"]:
    """Return a sparse matrix of rows (CSR); row i has the values from `ends[i]` to `ends[i + 1]`."""
    with warnings.catch_warnings():
        # That this layout is in beta, and that its indices are not checked, which are made here.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(ends, columns, values, shape)


def _minimize(evaluate: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, tolerance: float) -> Tensor:
    """Return the minimum of a smooth convex function by L-BFGS, with steps halved until the loss falls enough.

    `evaluate` returns value and gradient. It stops where the gradient's largest component is at most `tolerance`, after
    _STEPS, or at the limit of single precision.
    """
    point, (value, gradient) = start, evaluate(start)
    pairs: list[tuple[Tensor, Tensor, float]] = []
    for _ in range(_STEPS):
        if float(gradient.abs().max()) <= tolerance:
            break
        direction = -_apply_inverse(gradient, pairs)
        slope = float((direction * gradient).sum())
        # The first direction has no memory that scales it.
        step = 1.0 if pairs else min(1.0, 1 / float(gradient.norm()))
        while True:
            moved = point + step * direction
            new_value, new_gradient = evaluate(moved)
            if new_value <= value + 1e-4 * step * slope:
                break
            # Turned around, this would not end where any of them is NaN.
            if not -step * slope > _PRECISION * abs(value):
                return point
            step /= 2
        change, difference = moved - point, new_gradient - gradient
        curvature = float((change * difference).sum())
        if curvature > 1e-10:
            pairs = [*pairs[-_MEMORY + 1 :], (change, difference, curvature)]
        point, value, gradient = moved, new_value, new_gradient
    return point


def _apply_inverse(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Return the gradient times the inverse Hessian, estimated from the steps so far (algorithm 7.4)."""
    result = gradient.clone()
    factors = []
    for change, difference, curvature in reversed(pairs):
        factor = float((change * result).sum()) / curvature
        result -= factor * difference
        factors.append(factor)
    if pairs:
        _, difference, curvature = pairs[-1]
        result *= curvature / float(difference.square().sum())
    for (change, difference, curvature), factor in zip(pairs, reversed(factors), strict=True):
        result += (factor - float((difference * result).sum()) / curvature) * change
    return result


def solve_ridge(features: Features, labels: ClassNumbers, num_classes: int, weights: _Weights) -> LinearProbe:
    """Return ridge regression on targets of -1 and 1, its penalty chosen by the leave-one-out squared error.

    Features are standardized. The outputs are scaled so that their softmax has the least leave-one-out log loss: least
    squares alone gives no probabilities.
    """
    total = weights.double()
    x = features.double()
    mean = (total[:, None] * x).sum(dim=0) / total.sum()
    std = x.std(dim=0, correction=0)
    std = torch.where(std > 1e-8, std, 1.0)
    roots = total.sqrt()[:, None]
    x = roots * (x - mean) / std
    targets = 2 * F.one_hot(labels, num_classes).double() - 1
    center = (total[:, None] * targets).sum(dim=0) / total.sum()
    y = roots * (targets - center)
    values, left, right = _decompose(x)
    projected = left.T @ y
    # The bias sees each sample in the mean.
    own = total / total.sum()
    errors: list[float] = []
    left_out: list[Tensor] = []
    for ridge in RIDGES:
        shrink = values / (values + ridge)
        leverage = (left.square() @ shrink + own).clamp(max=1 - 1e-9)
        residual = (y - left @ (shrink[:, None] * projected)) / (1 - leverage)[:, None]
        errors.append(float(residual.square().sum()))
        left_out.append(targets - residual / roots)
    best = min(range(len(RIDGES)), key=errors.__getitem__)
    alone = len(labels) < 2 or num_classes < 2
    scale = 1.0 if alone else _fit_scale(left_out[best], labels, total)
    weight = right @ (projected * (values.sqrt() / (values + RIDGES[best]))[:, None]) / std[:, None]
    bias = center - mean @ weight
    accuracy = None if alone else float((left_out[best].argmax(dim=1) == labels).double().mean())
    output = (scale * weight.T).float().contiguous(), (scale * bias).float()
    cv_samples = 0 if alone else len(labels)
    return _make_solution(*output, RIDGES[best], (accuracy, cv_samples), features, labels)


def _decompose(
    x: Float[Tensor, "samples features"],
) -> tuple[Float[Tensor, " rank"], Float[Tensor, "samples rank"], Float[Tensor, "features rank"]]:
    """Return squared singular values, left and right singular vectors, from the smaller of the two Gram matrices."""
    wide = x.shape[1] > x.shape[0]
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = values > values.max() * max(x.shape) * torch.finfo(x.dtype).eps
    values, vectors = values[kept], vectors[:, kept]
    other = (x.T if wide else x) @ vectors / values.sqrt()
    return (values, vectors, other) if wide else (values, other, vectors)


def _fit_scale(scores: Float[Tensor, "samples classes"], labels: ClassNumbers, weights: _Weights) -> float:
    """Return the factor of scores, from 1/8 to 64, whose softmax has the least weighted log loss."""
    factors = torch.logspace(-3, 6, 91, base=2, dtype=scores.dtype)
    losses = [(weights * F.cross_entropy(scores * factor, labels, reduction="none")).sum() for factor in factors]
    return float(factors[int(torch.stack(losses).argmin())])


@torch.inference_mode()
def extract_features(
    model: nn.Module, batches: Iterable[tuple[Tensor, ...]], move: Callable[[Tensor], Tensor]
) -> tuple[Features, ClassNumbers]:
    """Return features and labels: the input of a network's output layer for each sample, in eval mode.

    `move` moves a tensor to the network's device. Features of a sparse output layer are sparse (CSR), and batches are
    taken until these hold _MAX_SPARSE_VALUES values. Raises ConfigError as `find_linear_classifier`.
    """
    output = find_linear_classifier(model)
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(take_features(output, inputs))

    hook = output.register_forward_pre_hook(keep)
    labels: list[Tensor] = []
    model.eval()
    try:
        for inputs, truth in batches:
            model(move(inputs))
            labels.append(truth)
            if isinstance(output, SparseLinear) and sum(len(part.values()) for part in seen) >= _MAX_SPARSE_VALUES:
                break
    finally:
        hook.remove()
    return join_features(seen), torch.cat(labels)


def take_features(output: nn.Linear | SparseLinear, inputs: tuple[Tensor, ...]) -> Features:
    """Return the input of an output layer, on the CPU; that of a sparse one, columns and values, as CSR."""
    return sum_columns(inputs, output.in_features) if isinstance(output, SparseLinear) else inputs[0].float().cpu()


def join_features(parts: Sequence[Tensor]) -> Features:
    """Return the features of batches as one matrix, in order."""
    return stack_rows(parts) if parts[0].layout == torch.sparse_csr else torch.cat(list(parts))


def sum_columns(named: tuple[Tensor, ...], width: int) -> Features:
    """Return the input of a sparse layer, column indices and values, as a sparse matrix (CSR) of `width` columns.

    Both inputs are of shape `(samples, named)`.
    """
    columns, values = named[0].cpu(), named[1].cpu().float()
    known = values != 0
    rows = torch.arange(len(columns))[:, None].expand_as(columns)[known]
    cells, places = torch.unique(rows * width + columns[known], return_inverse=True)
    sums = torch.zeros(len(cells)).index_add_(0, places, values[known])
    ends = F.pad(torch.bincount(cells // width, minlength=len(columns)).cumsum(0), (1, 0))
    return make_sparse(ends, cells % width, sums, (len(columns), width))


def stack_rows(parts: Sequence[Tensor]) -> Features:
    """Return sparse matrices of equal width, stacked in order."""
    lengths = torch.cat([part.crow_indices().diff() for part in parts])
    columns, values = (torch.cat([get(part) for part in parts]) for get in (Tensor.col_indices, Tensor.values))
    return make_sparse(F.pad(lengths.cumsum(0), (1, 0)), columns, values, (len(lengths), parts[0].shape[1]))


def find_linear_classifier(model: nn.Module) -> nn.Linear | SparseLinear:
    """Return a network's single linear output layer. Raises ConfigError where it ends otherwise."""
    outputs = find_trainable_classifiers(model)
    layer = model.get_submodule(outputs[0])
    if len(outputs) == 1 and isinstance(layer, SparseLinear):
        return layer
    if len(outputs) != 1 or type(layer) is not nn.Linear or layer.bias is None:
        raise ConfigError(
            "training.linear_probe: wanted a network that ends in one dense layer with biases, found another end"
        )
    return layer


def limit_samples(output: nn.Linear | SparseLinear) -> int | None:
    """Return for how many training samples features are taken, at most; None: until _MAX_SPARSE_VALUES is reached."""
    return None if isinstance(output, SparseLinear) else max(_MAX_VALUES // output.in_features, 1)


@torch.no_grad()
def set_output_weights(model: nn.Module, solution: LinearProbe) -> None:
    """Write a solution into a network's output layer."""
    layer = find_linear_classifier(model)
    assert layer.bias is not None
    layer.weight.copy_(solution.weight.T if isinstance(layer, SparseLinear) else solution.weight)
    layer.bias.copy_(solution.bias)
