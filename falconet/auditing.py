"""find_label_errors(): labels that confidently contradict predictions of networks trained on other samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from falconet import metrics
from falconet.data import Dataset, Split
from falconet.data.cache import PixelCache
from falconet.data.checks import LabelError
from falconet.data.dataset import to_text
from falconet.data.loader import LoadedInputs, Loader, load_inputs
from falconet.data.preprocessing import AnyPreprocess, create_preprocess
from falconet.data.splits import assign_group_folds, hash_with_seed, unite_split
from falconet.defaults import Candidate, choose_candidates, default_settings, find_data_facts
from falconet.errors import DataError
from falconet.inputs import add_statistics, draft_spec
from falconet.models.weights.loading import load_pretrained
from falconet.planning import RunConfig, configure
from falconet.preparation import build, fit_statistics
from falconet.spec import OutputSpec
from falconet.tasks import TASKS
from falconet.training import Callback
from falconet.training.linear_probe import Features, Solver, extract_features, solve
from falconet.training.loop import fit

_FOLDS = 5
_CHANCE = 0.05
"""One-sided p-value from which on agreement with the labels is not significant."""
_PATIENCE = 6
_BATCH_SIZE = 256


@dataclass(frozen=True)
class LabelAudit:
    """The result of an audit of labels by held-out predictions."""

    errors: tuple[LabelError, ...]
    """Samples whose label is likely wrong, the most suspicious first; empty where there is a caution."""
    caution: str | None = None
    """Why no label can be suspected, in a sentence: labels were not learned; None: there is no such reason."""


def find_label_errors(dataset: Dataset, callbacks: Sequence[Callback] = ()) -> LabelAudit:
    """Return the samples whose label is likely wrong, the most suspicious first.

    Each sample is predicted by a network that was neither trained nor validated on it: all splits together are divided
    into five folds, which keep groups and equal samples together. Of the candidates of `train` the first one with fixed
    features is taken, whose output layer is solved on four folds and predicts the fifth, and then again on samples
    without a suspected label; where there is none, the last candidate is trained on three, validated on one and
    predicts the last. As many labels are suspected as confident learning estimates to be wrong (Northcutt, Jiang,
    Chuang, JAIR 2021): of those less probable than another class, the least probable first. Where predictions agree
    with the labels no more than by chance, none is suspected. Raises DataError where a class has too few samples or
    groups for the folds, and where a network's outputs are not finite.
    """
    loaded, first, probabilities = predict_held_out(dataset, callbacks)
    labels, names = loaded.split.labels, np.repeat(list(dataset.splits), [len(s) for s in dataset.splits.values()])
    # The second round's answers would flatter: what was trusted there was chosen by networks that had seen the rest.
    if caution := warn_unlearnable(first, labels):
        return LabelAudit((), caution)
    return LabelAudit(
        tuple(
            LabelError(
                name=to_text(loaded.split.samples.name(index)),
                split=str(names[loaded.kept[index]]),
                label=dataset.classes[labels[index]],
                suggested=dataset.classes[answer],
                probability=float(probabilities[index, answer]),
            )
            for index, answer in find_contradictions(probabilities, labels)
        )
    )


def warn_unlearnable(
    probabilities: Float64[np.ndarray, "samples classes"], labels: Int64[np.ndarray, " samples"]
) -> str | None:
    """Return a sentence where held-out predictions agree with the labels no more than by chance, else None."""
    answers = probabilities.argmax(axis=1)
    confusion = metrics.count_confusion(answers, labels, probabilities.shape[1])
    if metrics.agreement_p_value(confusion) < _CHANCE:
        return None
    return (
        f"nothing was shown to be learned from these labels: of {len(labels):,} samples, a network that had not seen "
        f"them takes {(answers == labels).mean():.1%} for what they are labeled, no more than labels dealt out at "
        "random may come to; no single label can be called wrong"
    )


def predict_held_out(
    dataset: Dataset, callbacks: Sequence[Callback] = ()
) -> tuple[LoadedInputs, Float64[np.ndarray, "samples classes"], Float64[np.ndarray, "samples classes"]]:
    """Return the readable samples, and their held-out probabilities, twice.

    The first are by networks that learned from all other folds, the second by those that learned from samples without a
    suspected label; both are the same where networks are trained, not solved.
    """
    prepared = prepare_candidate(dataset, dataset.split("all"), choose_fixed(dataset))
    loaded, config = prepared.loaded, prepared.config
    folds = part(loaded.split, len(dataset.classes))
    solver = config.training.linear_probe
    if solver is not None:
        features, count = embed_split(prepared), len(dataset.classes)
        first = _predict_solved(features, loaded.split, folds, count, solver)
        trusted = choose_trusted(first, loaded.split.labels)
        return loaded, first, _predict_solved(features, loaded.split, folds, count, solver, trusted)
    probabilities = np.zeros((len(folds), len(dataset.classes)))
    for number in range(_FOLDS):
        probabilities[folds == number] = predict_fold(prepared, folds, number, callbacks)
    _check_finite(probabilities, loaded.split)
    return loaded, probabilities, probabilities


def choose_fixed(dataset: Dataset, raw: bool = False) -> Candidate:
    """Return the first candidate with fixed features, for a linear probe or to compare samples.

    Raw values (pixels, or a text's TF-IDF) are only taken with `raw`, and where there are no others. Without any, it is
    the last candidate, to be trained, or used with its initial weights as a random projection.
    """
    candidates = choose_candidates(find_data_facts(dataset))
    fixed = [candidate for candidate in candidates if "linear_probe" in candidate.settings.get("training", {})]
    better = [candidate for candidate in fixed if candidate.model != "linear"]
    ranked = [*better, *(fixed if raw else []), candidates[-1]]
    return ranked[0]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Samples prepared for a candidate."""

    config: RunConfig
    """Configuration of the candidate on these data."""
    loaded: LoadedInputs
    preprocess: AnyPreprocess
    output: OutputSpec
    tokenizer: str | None
    """Tokenizer of texts; None for other samples."""
    network: nn.Module
    """Network with published or initial weights, and statistics fitted to the samples."""


def prepare_candidate(dataset: Dataset, split: Split, candidate: Candidate) -> _Prepared:
    """Return samples of a data set prepared for a candidate, normalized by their own statistics, and its network.

    Raises DataError where nothing can be read, StorageError where decoded images find no room.
    """
    config = configure(dataset, default_settings(dataset, candidate))
    weights = None if config.model.pretrained is None else load_pretrained(config.model.name, config.model.pretrained)
    if weights is not None:
        model = dataclasses.replace(config.model, options={**weights.options, **config.model.options})
        config = dataclasses.replace(config, model=model)
    draft, tokenizer = draft_spec(dataset, config.model, weights)
    loaded = load_inputs(split, draft, tokenizer)
    spec = add_statistics(draft, loaded.inputs, dataset.channels, weights)
    preprocess = create_preprocess(spec, tokenizer)
    output = TASKS["classification"].make_output(dataset)
    network, _ = build(config.model, spec, output, config.training.seed, weights)
    fit_statistics(network, Loader(loaded.inputs, torch.from_numpy(loaded.split.labels), preprocess, _BATCH_SIZE))
    return _Prepared(config, loaded, preprocess, output, tokenizer, network)


def embed_split(prepared: _Prepared, loaded: LoadedInputs | None = None) -> Features:
    """Return the features of each sample, the input of the output layer, or of others loaded by the same spec."""
    loaded = loaded or prepared.loaded
    whole = Loader(loaded.inputs, torch.from_numpy(loaded.split.labels), prepared.preprocess, _BATCH_SIZE)
    features, _ = extract_features(prepared.network, whole.epoch(1), lambda batch: batch)
    return features


def _predict_solved(
    features: Features,
    split: Split,
    folds: Int64[np.ndarray, " samples"],
    num_classes: int,
    solver: Solver,
    trusted: Bool[np.ndarray, " samples"] | None = None,
) -> Float64[np.ndarray, "samples classes"]:
    """Return the probabilities of each fold's samples by an output layer that was solved on the other folds.

    `trusted` limits these to some samples; None: all.
    """
    labels = torch.from_numpy(split.labels)
    probabilities = np.zeros((len(labels), num_classes))
    for number in range(_FOLDS):
        held_out = torch.from_numpy(folds == number)
        learned = ~held_out if trusted is None else ~held_out & torch.from_numpy(trusted)
        solution = solve(features[learned], labels[learned], num_classes, solver, seed=number)
        probabilities[folds == number] = metrics.softmax(solution.apply(features[held_out]).numpy())
    _check_finite(probabilities, split)
    return probabilities


def _check_finite(probabilities: Float64[np.ndarray, "samples classes"], split: Split) -> None:
    """Raise DataError, with the first sample, where a network's output is not finite."""
    lost = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(lost):
        name = to_text(split.samples.name(int(lost[0])))
        raise DataError(
            f"label_errors: wanted a probability of each class, found none that is a number for {len(lost):,} "
            f"samples, the first {name}; its values may be infinite or far too large: mend it, or leave it out"
        )


def part(split: Split, num_classes: int) -> Int64[np.ndarray, " samples"]:
    """Return the fold of each sample; equal samples, and those of one group, share one, since they would leak labels.

    Raises DataError where too few folds get each class.
    """
    if split.groups is None:
        folds = (hash_with_seed(split.hashes, seed=0) % np.uint64(_FOLDS)).astype(np.int64)
    else:
        folds = assign_group_folds(unite_split(split), split.labels, _FOLDS)
    for label in range(num_classes):
        own = split.labels == label
        if len(np.unique(folds)) < _FOLDS or len(np.unique(folds[own])) < _FOLDS - 1:
            grouped = "" if split.groups is None else f" in {len(np.unique(unite_split(split)[own]))} groups"
            raise DataError(
                f"label_errors: wanted enough different samples{' and groups' if grouped else ''} of each class for "
                f"{_FOLDS} folds, found {int(own.sum())}{grouped} of one"
            )
    return folds


def predict_fold(
    prepared: _Prepared,
    folds: Int64[np.ndarray, " samples"],
    number: int,
    callbacks: Sequence[Callback],
) -> Float64[np.ndarray, "held_out classes"]:
    """Train without one fold; return the probabilities of its samples."""
    loaded, config, preprocess = prepared.loaded, prepared.config, prepared.preprocess
    # Each label is weighed alike, however many have it.
    training = dataclasses.replace(
        config.training, patience=_PATIENCE, seed=number, class_weights=None, sampler="shuffle"
    )
    chosen_on = (number + 1) % _FOLDS
    labels = torch.from_numpy(loaded.split.labels)

    def load(chosen: Bool[np.ndarray, " samples"], **options: object) -> Loader:
        inputs = _choose(loaded.inputs, chosen)
        return Loader(inputs, labels[torch.from_numpy(chosen)], preprocess, **options)  # type: ignore[arg-type]

    train = load(
        (folds != number) & (folds != chosen_on),
        batch_size=training.batch_size,
        augmentation=config.augmentation,
        sampler="shuffle",
        seed=number,
    )
    model, _ = build(config.model, preprocess.spec, prepared.output, seed=number)
    fit_statistics(model, train)
    fit(model, train, load(folds == chosen_on, batch_size=_BATCH_SIZE), training, callbacks=callbacks)
    with torch.inference_mode():
        held_out = load(folds == number, batch_size=_BATCH_SIZE)
        logits = torch.cat([model(inputs) for inputs, _ in held_out.epoch(1)])
    probabilities: np.ndarray = metrics.softmax(logits.numpy()).astype(np.float64)
    return probabilities


def _choose(inputs: Tensor | PixelCache, chosen: Bool[np.ndarray, " samples"]) -> Tensor | PixelCache:
    """Return the marked samples."""
    if isinstance(inputs, PixelCache):
        return dataclasses.replace(inputs, rows=inputs.rows[chosen])
    return inputs[torch.from_numpy(chosen)]


def choose_trusted(
    probabilities: Float64[np.ndarray, "samples classes"], labels: Int64[np.ndarray, " samples"]
) -> Bool[np.ndarray, " samples"]:
    """Return the mask of samples whose labels are not suspected; a class with mostly suspected ones is kept whole."""
    suspected = np.zeros(len(labels), dtype=bool)
    suspected[[index for index, _ in find_contradictions(probabilities, labels)]] = True
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    lost = np.bincount(labels[suspected], minlength=len(counts))
    trusted: np.ndarray = ~suspected | (2 * lost > counts)[labels]
    return trusted


def find_contradictions(
    probabilities: Float64[np.ndarray, "samples classes"], labels: Int64[np.ndarray, " samples"]
) -> list[tuple[int, int]]:
    """Return suspected samples with their most probable class, those with the least probable label first.

    They are as many as there are likely label errors, among those with a more probable other class. Probabilities must
    be finite, as those of `predict_held_out` are.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1.0
    contradicted = np.flatnonzero(others.max(axis=1) > own)
    order = contradicted[np.argsort(own[contradicted], kind="stable")]
    return [(index, int(others[index].argmax())) for index in order[: count_errors(probabilities, labels)].tolist()]


def count_errors(probabilities: Float64[np.ndarray, "samples classes"], labels: Int64[np.ndarray, " samples"]) -> int:
    """Return confident learning's estimate of the number of label errors: the calibrated joint off its diagonal.

    A sample is confidently of a class whose probability reaches its mean over samples with that label; the fraction of
    errors among the confident samples with a label is taken for all samples with it.
    """
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    # Nothing reaches the mean probability of a class without samples.
    typical = np.bincount(labels, weights=own, minlength=len(counts)) / np.maximum(counts, 1)
    typical[counts == 0] = np.inf
    confident = np.where(probabilities >= typical, probabilities, -1.0)
    sure = confident.max(axis=1) >= 0
    wrong = sure & (confident.argmax(axis=1) != labels)
    error_rates = np.bincount(labels[wrong], minlength=len(counts)) / np.maximum(
        np.bincount(labels[sure], minlength=len(counts)), 1
    )
    return round(float(counts @ error_rates))
