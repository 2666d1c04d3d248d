"""Training with synthetic samples beside the real ones, kept only where they help on the validation split.

There are images from a generator (`falconet.generation.flow`), series as barycenters of pairs
(`falconet.data.barycenters`), texts by edits of their tokens (`falconet.data.transforms`). Whether such samples help
differs from data set to data set: so the same network is trained with and without them, for the same number of steps,
and the validation split decides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from falconet.artifact import load_artifact
from falconet.data import Dataset
from falconet.data.augmentation import TextAugmentation
from falconet.data.barycenters import average_pairs
from falconet.data.loader import Loader, draw_partners, epoch_seed, hold_inputs
from falconet.data.preprocessing import ImagePreprocess, SeriesPreprocess, to_levels, to_unit
from falconet.data.transforms import augment_tokens
from falconet.errors import ConfigError, DataError, UsageError
from falconet.evaluation.logits import predict_split
from falconet.generation.flow import MAX_SIDE, FlowConfig, draw_images, train_flow
from falconet.metrics.significance import compare_models
from falconet.planning import (
    RUN_CONFIG_FILE,
    SYNTHETIC_FILE,
    SYNTHETIC_FOLDER,
    IfExists,
    Plan,
    RunConfig,
    read_settings,
)
from falconet.preparation import ExtraSamples, check_synthetic, find_weights, prepare
from falconet.runs import RunResult, execute
from falconet.schema import from_mapping, to_mapping
from falconet.storage import format_json, hold, read_json, write_json, write_text
from falconet.training import Callback
from falconet.training.loop import notify

SIGNIFICANT = 0.05
"""Two-sided p-value below which a gain is significant."""

_EDITS = TextAugmentation(delete=0.1, swap=0.1)
"""Edits of texts, each of a tenth of the tokens, about where Wei and Zou (EDA. EMNLP, 2019) found most gain."""

_CHUNK = 64
"""Series in a batch of barycenters."""


@dataclass(frozen=True)
class SyntheticTrial:
    """The effect of synthetic samples on the validation split; fractions of 0 to 1."""

    per_class: int
    """Number of synthetic samples requested for each class."""
    made: int
    """Number of synthetic samples of all classes."""
    n: int
    """Number of validation samples, all real."""
    accuracy_without: float
    accuracy_with: float
    difference: float
    """Accuracy with synthetic samples minus accuracy without."""
    difference_ci: tuple[float, float]
    """95% interval of the difference of these two networks on new samples."""
    p_value: float
    """Two-sided p-value of the difference: the probability that equally good networks differ as much or more."""
    kept: bool
    """Whether the run's model is the one that was trained with synthetic samples."""

    def describe(self) -> str:
        """Return the outcome in a line."""
        low, high = self.difference_ci
        found = (
            f"{self.made} synthetic samples: validation accuracy {self.accuracy_with:.2%} with and "
            f"{self.accuracy_without:.2%} without them, {self.difference:+.2%} (95%: {low:+.2%} to {high:+.2%}, "
            f"n = {self.n}, p = {self.p_value:.2g})"
        )
        end = "significant gain: kept" if self.kept else "no significant gain: not kept"
        return f"{found}; {end}"


def train_with_synthetic(
    plan: Plan, per_class: int, *, config: FlowConfig | None = None, callbacks: Sequence[Callback] = ()
) -> tuple[RunResult, SyntheticTrial]:
    """Run a plan, then again with `per_class` synthetic samples of each class, and keep the better model.

    Both runs take the same number of steps from the same initial weights: an epoch of the second draws as many samples
    as there are real ones. Synthetic samples follow from training samples and seed alone, and neither validation nor
    test has any. The second model replaces the first one in `plan.out` where its validation accuracy is significantly
    higher (see `compare_models`); `metrics.json` and `synthetic.json` there have the result either way.
    `config` is that of the generator of images; None: its defaults, with the plan's seed. Raises what `execute` and
    `train_flow` do, ConfigError for images too large to generate, DataError where no class has what it takes,
    UsageError for several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("synthetic: wanted one process, found several; leave out torchrun")
    if per_class < 1:
        raise UsageError(f"synthetic: wanted 1 or more samples a class, found {per_class}")
    check_begun(plan, per_class)
    # One network, with and without: linear probes are solved at once and take no steps to compare by.
    plan = replace(plan, probe_candidates=())
    weights_plan, weights = find_weights(plan)
    bundle = prepare(weights_plan, weights)
    train = bundle.train
    _check_size(train)
    check_synthetic(weights_plan, bundle)
    first = execute(plan, callbacks=callbacks)
    with hold(plan.out):
        write_json(plan.out / SYNTHETIC_FILE, {"per_class": per_class})
    seed = plan.config.training.seed
    added = _make_samples(train, per_class, seed, config or FlowConfig(seed=seed))
    # What the first run measured or took over from published weights holds for both.
    settled = from_mapping(RunConfig, read_settings(plan.out / RUN_CONFIG_FILE))
    again: IfExists = "resume" if plan.if_exists == "resume" else "overwrite"
    other = replace(plan, out=plan.out / SYNTHETIC_FOLDER, config=settled, if_exists=again, autotune=frozenset())
    notify(callbacks, f"again, with {len(added.labels)} synthetic samples")
    second = execute(other, callbacks=callbacks, added=added)
    trial = _compare_runs(plan.dataset, plan.out, other.out, per_class, len(added.labels))
    _finish_trial(plan.out, other.out, trial)
    notify(callbacks, trial.describe())
    return (replace(second, out=plan.out) if trial.kept else first), trial


def check_begun(plan: Plan, per_class: int | None) -> None:
    """Raise UsageError where a resumed run was begun with another number of synthetic samples, or without them."""
    file = plan.out / SYNTHETIC_FILE
    if not file.is_file():
        return
    if plan.if_exists == "resume" and (begun := read_json(file).get("per_class")) != per_class:
        raise UsageError(
            f"if_exists='resume' goes on as the run in {plan.out} began, with synthetic={begun}: say so again, or "
            "start anew with if_exists='overwrite'"
        )


def _check_size(train: Loader) -> None:
    """Raise ConfigError for images that are too large to generate."""
    if isinstance(train.preprocess, ImagePreprocess) and max(train.preprocess.spec.shape[1:]) > MAX_SIDE:
        _, height, width = train.preprocess.spec.shape
        raise ConfigError(
            f"synthetic: wanted images of at most {MAX_SIDE} pixels a side, found {height}x{width}; set "
            "model.input_size, or leave it out"
        )


def _make_samples(train: Loader, per_class: int, seed: int, config: FlowConfig) -> ExtraSamples:
    """Return synthetic samples of each class for which training has enough samples, prepared like these.

    Barycenters need two samples of a class. Raises DataError where nothing can be made.
    """
    counts = torch.bincount(train.labels)
    least = 2 if isinstance(train.preprocess, SeriesPreprocess) else 1
    labels = (counts >= least).nonzero().flatten().repeat_interleave(per_class)
    if not len(labels):
        raise DataError(f"synthetic: wanted a class of {least} training samples or more, found none")
    inputs = hold_inputs(train.inputs)
    stream = epoch_seed(seed, 0, "data")  # Epochs count from 1: no batch has this one.
    generator = torch.Generator().manual_seed(stream)
    if isinstance(train.preprocess, ImagePreprocess):
        flow = train_flow(to_unit(inputs), train.labels, int(train.labels.max()) + 1, config)
        return ExtraSamples(to_levels(draw_images(flow, labels, stream), inputs.dtype), labels)
    origins = _draw_origins(labels, train.labels, generator)
    if isinstance(train.preprocess, SeriesPreprocess):
        partners = draw_partners(origins, train.labels, generator)
        mean, std = train.preprocess.mean, train.preprocess.std
        pairs = zip(torch.split(origins, _CHUNK), torch.split(partners, _CHUNK), strict=True)
        averages = [
            average_pairs((inputs[mine] - mean) / std, (inputs[theirs] - mean) / std, generator)
            for mine, theirs in pairs
        ]
        return ExtraSamples(torch.cat(averages) * std + mean, labels)
    edited = augment_tokens(inputs[origins].long(), _EDITS, generator)
    return ExtraSamples(edited.to(inputs.dtype), labels)


def _draw_origins(
    labels: Int64[Tensor, " made"], known: Int64[Tensor, " samples"], generator: torch.Generator
) -> Int64[Tensor, " made"]:
    """Draw a training sample of each label's class; those of a class are drawn equally often, or once more or less."""
    origins = torch.empty_like(labels)
    for label in torch.unique(labels).tolist():
        wanted = labels == label
        own = (known == label).nonzero().flatten()
        rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(int(wanted.sum()) // len(own) + 1)]
        origins[wanted] = torch.cat(rounds)[: int(wanted.sum())]
    return origins


def _compare_runs(dataset: Dataset, without: Path, with_: Path, per_class: int, made: int) -> SyntheticTrial:
    """Compare two runs' models on their common validation split."""
    first, second = (_find_right(dataset, folder) for folder in (without, with_))
    test = compare_models(second[None], first[None])
    return SyntheticTrial(
        per_class=per_class,
        made=made,
        n=len(first),
        accuracy_without=float(first.mean()),
        accuracy_with=float(second.mean()),
        difference=test.difference,
        difference_ci=test.interval,
        p_value=test.p_value,
        kept=test.difference > 0 and test.p_value < SIGNIFICANT,
    )


def _find_right(dataset: Dataset, folder: Path) -> Bool[np.ndarray, " samples"]:
    """Return which validation samples a run's model predicts correctly."""
    answers = predict_split(load_artifact(folder), dataset, "val")
    right: Bool[np.ndarray, " samples"] = answers.logits.argmax(axis=1) == answers.split.labels
    return right


def _finish_trial(out: Path, other: Path, trial: SyntheticTrial) -> None:
    """Write the result of synthetic samples, and replace the first model by theirs where it is kept."""
    facts = to_mapping(trial)
    with hold(out):
        if trial.kept:
            metrics = {**read_json(other / "metrics.json"), "synthetic": facts}
            card = (other / "README.md").read_text(encoding="utf-8")
            page = (other / "report.html").read_text(encoding="utf-8")
            files = {"metrics.json": format_json(metrics), "report.html": page}
            load_artifact(other).save(out, {**files, "README.md": f"{card.rstrip()}\n\n{trial.describe()}.\n"})
            for name in ("metrics.csv", "vitals.csv"):
                write_text(out / name, (other / name).read_text(encoding="utf-8"))
        else:
            write_json(out / "metrics.json", {**read_json(out / "metrics.json"), "synthetic": facts})
        write_json(out / SYNTHETIC_FILE, facts)
