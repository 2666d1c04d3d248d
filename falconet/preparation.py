"""Preparation of a planned run: the network, its data, and its teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from falconet.artifact import (
    Artifact,
    get_model_kwargs,
    load_artifact,
)
from falconet.data import Split, Unreadable
from falconet.data.augmentation import SeriesAugmentation
from falconet.data.dataset import concatenate
from falconet.data.files import adapt_samples
from falconet.data.loader import Loader, hold_inputs, load_inputs
from falconet.data.preprocessing import create_preprocess
from falconet.data.splits import check_training_classes, unite_split
from falconet.errors import (
    ArtifactError,
    ConfigError,
    UsageError,
)
from falconet.evaluation.baselines import Prepared
from falconet.evaluation.logits import predict_logits
from falconet.inputs import add_statistics, draft_spec
from falconet.models import create_model
from falconet.models.layers import FitsStatistics
from falconet.models.weights.loading import load_pretrained
from falconet.models.weights.pretrained import Pretrained, load_matching_weights
from falconet.planning import (
    CHECKPOINT_FOLDER,
    ModelConfig,
    Plan,
)
from falconet.schema import from_mapping
from falconet.spec import (
    InputSpec,
    OutputSpec,
    ResizeMode,
)
from falconet.storage import read_json
from falconet.tasks import TASKS
from falconet.tasks.losses import compute_class_weights
from falconet.training.checkpoints import load_checkpoint
from falconet.training.config import TrainConfig
from falconet.training.distillation import Teacher, can_convert
from falconet.training.distributed import SINGLE_PROCESS, ProcessGroup

PRETRAINED_FILE = "pretrained.json"
"""File beside the checkpoints of a run that began with published weights: their preprocessing, as `Seen`."""


@dataclass(frozen=True)
class Seen:
    """The preprocessing of samples for a network with published weights."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, ...] | None
    vocabulary: tuple[str, ...] | None = None
    resize_mode: ResizeMode = "stretch"
    """How images get their size; the default is that of older runs, which do not name it."""


def find_weights(plan: Plan, process_group: ProcessGroup = SINGLE_PROCESS) -> tuple[Plan, Pretrained | None]:
    """Return published weights where the plan names some, and the plan with the options that belong to them.

    A run that resumes from a checkpoint, which has all weights, gets them without tensors.
    """
    model = plan.config.model
    if model.pretrained is None:
        return plan, None
    seen = process_group.broadcast(_load_pretrained_input(plan) if process_group.is_main else None)
    if seen is not None:
        # The options are in the stored configuration.
        kept = Pretrained(model.name, {}, "checkpoint", mean=seen.mean, std=seen.std, size=seen.size)
        return plan, dataclasses.replace(kept, vocabulary=seen.vocabulary, resize_mode=seen.resize_mode)
    weights = load_pretrained(model.name, model.pretrained)
    model = dataclasses.replace(model, options={**weights.options, **model.options})
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, model=model)), weights


def _load_pretrained_input(plan: Plan) -> Seen | None:
    """Return the preprocessing of a run that can be resumed from a checkpoint; None for all others."""
    folder = plan.out / CHECKPOINT_FOLDER
    if plan.if_exists != "resume" or load_checkpoint(folder) is None:
        return None
    try:
        return from_mapping(Seen, read_json(folder / PRETRAINED_FILE))
    except (ArtifactError, UsageError):
        return None


def has_checkpoint(plan: Plan) -> bool:
    """Whether a run resumes from a checkpoint."""
    return plan.if_exists == "resume" and load_checkpoint(plan.out / CHECKPOINT_FOLDER) is not None


@dataclass(frozen=True, eq=False)
class DataBundle:
    """The data that a network is trained on."""

    spec: InputSpec
    output: OutputSpec
    tokenizer: str | None
    train: Loader
    val: Loader
    class_weights: torch.Tensor | None
    unreadable: tuple[Unreadable, ...]
    """Training and validation samples that cannot be read."""
    rows: Int64[np.ndarray, " real"]
    """Positions of the training samples in their split."""
    groups: torch.Tensor | None = None
    """Group number of each training sample, which equal ones share too; None: unknown."""
    num_synthetic: int = 0
    """Number of synthetic training samples, which follow the real ones."""

    @property
    def real(self) -> Prepared:
        """The real training samples, without synthetic ones."""
        count = len(self.train.labels) - self.num_synthetic
        # Inputs in a file have no synthetic ones; see `add_samples`.
        inputs = self.train.inputs[:count] if isinstance(self.train.inputs, torch.Tensor) else self.train.inputs
        return Prepared(inputs, self.train.labels[:count])


_VALIDATED = 4
"""Samples in a validation batch for one in a training batch, which keeps gradients and activations too."""


def prepare(plan: Plan, weights: Pretrained | None = None, process_group: ProcessGroup = SINGLE_PROCESS) -> DataBundle:
    """Decode training and validation samples to the model's input; each of several processes gets its part of a batch.

    Mean and std are those of published weights, else measured on the training samples.
    """
    dataset, config = plan.dataset, plan.config
    draft, tokenizer = draft_spec(dataset, config.model, weights)
    train, val = (load_inputs(dataset.splits[name], draft, tokenizer) for name in ("train", "val"))
    check_training_classes(dataset, train.split)
    spec = add_statistics(draft, train.inputs, dataset.channels, weights)
    output = TASKS["classification"].make_output(dataset)
    preprocess, training = create_preprocess(spec, tokenizer), config.training
    labels = {name: torch.from_numpy(part.split.labels) for name, part in (("train", train), ("val", val))}
    return DataBundle(
        spec,
        output,
        tokenizer,
        Loader(
            train.inputs,
            labels["train"],
            preprocess,
            split_batch(training.batch_size, process_group),
            config.augmentation,
            sampler=training.sampler,
            seed=training.seed,
            rank=process_group.rank,
            world_size=process_group.world_size,
            num_classes=output.num_outputs,
        ),
        Loader(
            val.inputs,
            labels["val"],
            preprocess,
            _VALIDATED * split_batch(training.batch_size, process_group),
            sampler="by_length",
            rank=process_group.rank,
            world_size=process_group.world_size,
        ),
        compute_class_weights(labels["train"], output.num_outputs, training),
        (*train.unreadable, *val.unreadable),
        train.kept,
        number_groups(train.split),
    )


def number_groups(split: Split) -> torch.Tensor:
    """Return a number for each sample, the same for equal ones and for those of a group."""
    names = split.hashes if split.groups is None else unite_split(split)
    return torch.from_numpy(np.unique(names, return_inverse=True)[1])


def split_batch(batch_size: int, process_group: ProcessGroup) -> int:
    """Return each process's part of a batch. Raises ConfigError where parts would differ."""
    if batch_size % process_group.world_size:
        raise ConfigError(
            f"training.batch_size: wanted a multiple of the {process_group.world_size} processes, found {batch_size}"
        )
    return batch_size // process_group.world_size


def replace_batch(train: Loader, batch_size: int) -> Loader:
    """Return the same samples in batches of another size."""
    return dataclasses.replace(train, batch_size=batch_size)


def build(
    model: ModelConfig, spec: InputSpec, output: OutputSpec, seed: int, weights: Pretrained | None = None
) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Return the network with its initial weights, random by seed or published, and notes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create_model(model.name, **get_model_kwargs(spec, output), **model.options)
    return network, load_matching_weights(network, weights, output.labels) if weights and weights.state else ()


def fit_statistics(model: torch.nn.Module, train: Loader) -> None:
    """Fit the fixed features of a network to training samples, without augmentation and in random order.

    Each of several processes uses all of them, so that networks stay equal.
    """
    if isinstance(model, FitsStatistics):
        whole = dataclasses.replace(
            train, augmentation=None, teacher_logits=None, sampler="shuffle", rank=0, world_size=1, limit=None
        )
        model.fit_statistics(inputs for inputs, _ in whole.epoch(1))


@dataclass(frozen=True, eq=False)
class ExtraSamples:
    """Synthetic samples for training beside the real ones."""

    inputs: torch.Tensor
    """Inputs, prepared as the real ones; see `Loader`."""
    labels: torch.Tensor
    """Class numbers."""
    teacher_logits: torch.Tensor | None = None
    """A teacher's logits; None: no teacher predicted these samples beforehand."""


def add_samples(bundle: DataBundle, added: ExtraSamples, config: TrainConfig) -> DataBundle:
    """Return a bundle whose epochs draw as many training samples as before, from real and synthetic ones.

    Raises ConfigError where only one kind has a teacher's logits.
    """
    logits = bundle.train.teacher_logits
    if logits is not None and added.teacher_logits is not None:
        logits = torch.cat([logits, added.teacher_logits])
    elif logits is not None or added.teacher_logits is not None:
        asked = "training" if added.teacher_logits is None else "synthetic"
        raise ConfigError(
            f"model.teacher: wanted logits of training and synthetic samples, found those of {asked} ones"
        )
    inputs = torch.cat([hold_inputs(bundle.train.inputs), added.inputs])
    labels = torch.cat([bundle.train.labels, added.labels])
    train = dataclasses.replace(
        bundle.train, inputs=inputs, labels=labels, limit=len(bundle.train.labels), teacher_logits=logits
    )
    weights = compute_class_weights(labels, bundle.output.num_outputs, config)
    made = bundle.num_synthetic + len(added.labels)
    # It is unknown which real samples the synthetic ones are related to.
    return dataclasses.replace(bundle, train=train, class_weights=weights, groups=None, num_synthetic=made)


def keep_samples(bundle: DataBundle, kept: Int64[np.ndarray, " kept"], config: TrainConfig) -> DataBundle:
    """Return a bundle with some of the training samples."""
    rows = torch.from_numpy(kept)
    labels = bundle.train.labels[rows]
    train = dataclasses.replace(bundle.train, inputs=hold_inputs(bundle.train.inputs)[rows], labels=labels)
    weights = compute_class_weights(labels, bundle.output.num_outputs, config)
    groups = None if bundle.groups is None else bundle.groups[rows]
    return dataclasses.replace(bundle, train=train, class_weights=weights, rows=bundle.rows[kept], groups=groups)


def find_teacher(
    plan: Plan, bundle: DataBundle, names: Sequence[str] = ("train",), *, beforehand: bool = False
) -> tuple[Teacher | None, DataBundle]:
    """Return the trained network that the plan names as teacher, or a bundle with its logits.

    It predicts batch by batch where a student's input can be converted: of images, and where both inputs are equal.
    Else, as with another tokenizer, and wherever logits are wanted `beforehand`, it predicts the samples of the splits
    `names` once, without augmentation; those that it cannot read are left out. Either way logits are the network's
    outputs, without a temperature. Raises ConfigError where it cannot teach this student.
    """
    folder, training = plan.config.model.teacher, plan.config.training
    if folder is None:
        return None, bundle
    artifact = load_artifact(folder)
    spec = artifact.config.input
    if artifact.config.output != bundle.output:
        wanted, found = list(bundle.output.labels), list(artifact.config.output.labels)
        raise ConfigError(f"model.teacher: wanted one that knows the classes {wanted}, found {found}")
    if _answers_batches(artifact, bundle) and not beforehand:
        return Teacher(artifact.model, artifact.preprocess, create_preprocess(bundle.spec, bundle.tokenizer)), bundle
    if training.feature_weight:
        raise ConfigError("training.feature_weight: wanted 0 with a teacher of another input, found more")
    augmentation = bundle.train.augmentation
    if isinstance(augmentation, SeriesAugmentation) and augmentation.barycenter:
        raise ConfigError("augmentation.barycenter: wanted 0 with a teacher of another input, found more")
    split = concatenate([plan.dataset.splits[name] for name in names]).take(bundle.rows)
    logits, reasons = predict_logits(uncalibrate(artifact), adapt_samples(split.samples, spec))
    if reasons:
        kept = np.setdiff1d(np.arange(len(split)), list(reasons)).astype(np.int64)
        lost = tuple(Unreadable(split.samples.name(index), reason) for index, reason in reasons.items())
        check_training_classes(plan.dataset, split.take(kept))
        bundle = dataclasses.replace(keep_samples(bundle, kept, training), unreadable=(*bundle.unreadable, *lost))
    return None, dataclasses.replace(
        bundle, train=dataclasses.replace(bundle.train, teacher_logits=torch.from_numpy(logits))
    )


def _answers_batches(artifact: Artifact, bundle: DataBundle) -> bool:
    """Whether a teacher can take its student's input."""
    same = (artifact.config.input, artifact.tokenizer) == (bundle.spec, bundle.tokenizer)
    other = artifact.config.input.kind != bundle.spec.kind  # Which is refused.
    return same or other or can_convert(artifact.preprocess, bundle.train.preprocess)


def check_synthetic(plan: Plan, bundle: DataBundle) -> None:
    """Raise ConfigError where a run's teacher cannot predict synthetic samples, made for the student's input."""
    folder = plan.config.model.teacher
    if folder is not None and not _answers_batches(load_artifact(folder), bundle):
        raise ConfigError(
            f"synthetic: wanted a teacher that is given what its student is, found one of another input, {folder}, "
            "which cannot answer about synthetic samples; leave out --synthetic or --teacher"
        )


def uncalibrate(artifact: Artifact) -> Artifact:
    """Return a model without its temperature: its logits are the outputs of its network."""
    return dataclasses.replace(artifact, config=dataclasses.replace(artifact.config, calibration_temperature=1.0))
