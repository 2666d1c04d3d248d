"""train(): from a source to a run folder, which is a trained, judged and reported artifact."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from falconet import interruption
from falconet.artifact import (
    Artifact,
    ArtifactConfig,
    DataOrigin,
    Provenance,
    current_versions,
    describe_structure,
    load_artifact,
)
from falconet.data import Dataset, Unreadable
from falconet.data.drawing import write_figure
from falconet.data.loader import Loader, load_inputs, measure_inputs
from falconet.data.preprocessing import create_preprocess
from falconet.data.splits import check_training_classes
from falconet.data.texts import TextEncoder, train_tokenizer
from falconet.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DivergedError,
    InterruptedRunError,
    PathError,
    UsageError,
)
from falconet.evaluation import (
    Answers,
    Evaluation,
    calibrate,
    describe_calibration,
    evaluate_split,
    judge_answers,
)
from falconet.models import create_model, find_model
from falconet.models.forward_cost import measure_forward
from falconet.models.layers import find_sample
from falconet.models.pretrained import Pretrained, fit_weights, load_pretrained
from falconet.planning import (
    CHECKPOINT_FOLDER,
    Existing,
    Measured,
    ModelConfig,
    Plan,
    Settings,
    check_again,
    plan_run,
    short_name,
    write_config,
)
from falconet.report import Course, ModelReport, describe_model, render_card, render_html
from falconet.report.curves import draw_rates
from falconet.schema import from_mapping, to_mapping
from falconet.spec import ImageSpec, InputSpec, PixelType, ResizeMode, SeriesSpec, TextSpec
from falconet.storage import check_held, format_json, hold, prepare_folder, read_json, write_json, write_text
from falconet.training import Callback, EpochRow
from falconet.training.checkpoints import load_checkpoint, remove_checkpoints
from falconet.training.config import warn_balance
from falconet.training.diagnoses import Diagnosis, Vitals, diagnose, load_vitals, save_vitals
from falconet.training.distillation import Teacher
from falconet.training.distributed import ALONE, Team, join_team
from falconet.training.doctor import Doctor
from falconet.training.energy import ENERGY_FILE, energy_facts, load_energy, watch_energy
from falconet.training.loggers import find_events
from falconet.training.loop import LEAST_RATE, FitResult, check_fit, fit, tell
from falconet.training.optimizers import balance_classes
from falconet.training.probing import find_batch_size, scan_rates

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run."""

    out: Path
    model: str
    epochs: int
    """Epochs that were trained."""
    seconds: float
    """From the plan to the report."""
    best_epoch: int
    val: Evaluation
    test: Evaluation
    report: ModelReport
    unreadable: tuple[Unreadable, ...]
    """Files and rows of the source that were skipped."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of the source that were no samples, counted by extension."""


VITALS_FILE = "vitals.csv"


class MetricsFiles(Callback):
    """Keeps `metrics.csv` up to date, one row an epoch, and `vitals.csv`, one for each epoch and layer."""

    def __init__(self, out: Path, doctor: Doctor) -> None:
        self.out = out
        self.doctor = doctor
        self.rows: list[EpochRow] = []

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        self.rows = list(history)
        # A run may have been killed after its last checkpoint, before its row was written.
        self.write()

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [field.name for field in dataclasses.fields(EpochRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in self.rows)
        write_text(self.out / "metrics.csv", buffer.getvalue())
        save_vitals(self.out / VITALS_FILE, self.doctor.vitals)


def train(  # noqa: PLR0913 - one for each thing that a run follows from
    source: str | Path,
    *,
    model: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    existing: Existing = "refuse",
    data_root: str | Path | None = None,
    measured: Iterable[Measured] = (),
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Train, judge, save and report a classifier of `source`.

    Parameters
    ----------
    source
        A name or a path; see `falconet.load_dataset`.
    model
        A name of `falconet.list_models`; None: chosen by the images' size.
    recipe
        A name of the recipes that come with Falconet, or the path of a YAML file.
    epochs, seed
        Short for `settings={"training": {"epochs": ..., "seed": ...}}`.
    settings
        Nested sections and values, such as `{"training": {"learning_rate": 0.01}, "augmentation": "light"}`.
    out
        The run's folder; None: `runs/<source>-<model>`.
    existing
        What to do where `out` holds a run: refuse, resume it, or overwrite it.
    data_root
        Where named data sets are kept and downloaded to.
    measured
        Settings of training that are measured before it begins: `batch_size`, `learning_rate`.
    callbacks
        Watch the run; see `falconet.Callback`.

    The same seed gives the same weights, on the same machine with the same number of threads. Raises UsageError,
    DataError, StorageError; DivergedError and InterruptedRunError after saving the best weights until then.

    """
    plan = plan_run(
        source,
        model=model,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        settings=settings,
        out=out,
        existing=existing,
        data_root=data_root,
        measured=measured,
    )
    return execute(plan, callbacks=callbacks)


def execute(plan: Plan, *, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Carry out a plan; see `train`. Processes that `torchrun` has started do it together; all return the same."""
    started = time.perf_counter()
    with join_team() as team, interruption.watched(), ExitStack() as held:
        plan = follow(plan, team)
        callbacks = callbacks if team.leads else ()
        if team.leads:
            # A folder that cannot be written to is told before the data are read, which may take long.
            held.enter_context(hold(plan.out))
            check_again(plan)
            prepare_folder(plan.out)
        plan, weights = find_weights(plan, team)
        feed = prepare(plan, weights, team)
        model, notes = build(plan.config.model, feed.spec, plan.config.training.seed, weights)
        size = "x".join(map(str, feed.spec.shape))
        tell(
            callbacks,
            *warn_balance(plan.config.training),
            *notes,
            f"input {size} (--set model.input_size=... changes it)",
        )
        teacher = find_teacher(plan, feed)
        # Before anything is measured, or a run that is to be overwritten loses what it could go on from.
        check_fit(model, feed.train, plan.config.training, teacher, team)
        measure_forward(model.eval(), find_sample(model).make_blank())
        plan, feed, rates = settle(plan, feed, model, teacher, callbacks, team)
        if team.leads:
            begin(plan, weights, rates)
        doctor = Doctor(load_vitals(plan.out / VITALS_FILE) if plan.existing == "resume" else ())
        watchers: Sequence[Callback] = ()
        if team.leads:
            energy = watch_energy(plan.out, plan.existing == "resume")
            watchers = [doctor, MetricsFiles(plan.out, doctor), *energy, *callbacks]
        result = fit(
            model,
            feed.train,
            feed.val,
            plan.config.training,
            class_weights=feed.class_weights,
            teacher=teacher,
            callbacks=watchers,
            checkpoints=plan.out / CHECKPOINT_FOLDER,
            team=team,
        )
        if not team.leads:
            check_ending(plan, result)
        done = conclude(plan, feed, model, result, doctor.vitals, started) if team.leads else None
        answer = team.hear(done)
        assert answer is not None
        return answer


def follow(plan: Plan, team: Team) -> Plan:
    """Return the plan as the leader has it: others may not see the folder of a run that goes on.

    Raises ConfigError where the leader reads its data in another way, which was done already.
    """
    facts = plan.config, plan.recipe, plan.existing, plan.measured
    config, recipe, existing, measured = team.hear(facts)
    if config.data != plan.config.data:
        raise ConfigError(f"data: wanted the first process's {config.data}, found {plan.config.data}; start all alike")
    return dataclasses.replace(plan, config=config, recipe=recipe, existing=existing, measured=measured)


def settle(
    plan: Plan,
    feed: Feed,
    model: torch.nn.Module,
    teacher: Teacher | None,
    callbacks: Sequence[Callback],
    team: Team,
) -> tuple[Plan, Feed, Figure | None]:
    """Measure the settings of training that a plan leaves to that; return it and its batches with them.

    With them comes the picture of learning rates, where these were measured, which is for a folder that is known as a
    run's.
    """
    config, rates = plan.config.training, None
    if "batch_size" in plan.measured:
        make_train = partial(replace_batch, feed.train)
        found = find_batch_size(model, make_train, config, feed.class_weights, teacher) if team.leads else None
        size, line = team.hear(found) or (config.batch_size, "")
        config = dataclasses.replace(config, batch_size=size * team.size)
        feed = dataclasses.replace(feed, train=replace_batch(feed.train, size))
        tell(callbacks, line)
    if "learning_rate" in plan.measured:
        scan = team.hear(scan_rates(model, feed.train, config, feed.class_weights, teacher) if team.leads else None)
        assert scan is not None
        config = dataclasses.replace(config, learning_rate=float(f"{scan.suggestion:.2g}"))
        rates = draw_rates(scan.rates, scan.losses, config.learning_rate)
        tell(callbacks, f"learning rate {config.learning_rate:g} (picture: {plan.out / RATES_FILE})")
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, training=config)), feed, rates


RATES_FILE = "learning-rate.png"


def replace_batch(train: Loader, batch_size: int) -> Loader:
    """Return the same samples in batches of another size."""
    return dataclasses.replace(train, batch_size=batch_size)


def begin(plan: Plan, weights: Pretrained | None, rates: Figure | None) -> None:
    """Write a run's configuration into its folder, in place of a run that is to be overwritten.

    What else of published weights than what is trained decides how samples are seen stands beside the checkpoints.
    """
    check_held(plan.out)
    if plan.existing == "overwrite":
        # The old model stays until the new run has weights to put in its place.
        remove_checkpoints(plan.out / CHECKPOINT_FOLDER)
    if plan.existing != "resume":
        for path in (plan.out / ENERGY_FILE, *find_events(plan.out)):
            path.unlink(missing_ok=True)
        (plan.out / RATES_FILE).unlink(missing_ok=True)
    write_config(plan)
    if rates is not None:
        write_figure(rates, plan.out / RATES_FILE)
    prepare_folder(plan.out / CHECKPOINT_FOLDER)
    if weights is not None:
        seen = Seen(weights.mean, weights.std, weights.size, weights.resize_mode)
        write_json(plan.out / CHECKPOINT_FOLDER / PRETRAINED_FILE, to_mapping(seen))


def conclude(
    plan: Plan, feed: Feed, model: torch.nn.Module, result: FitResult, vitals: tuple[Vitals, ...], started: float
) -> RunResult:
    """Save and judge what was trained; raise where training ended before its time."""
    artifact = make_artifact(plan, feed, result, {name: value.clone() for name, value in model.state_dict().items()})
    # What is there of the same weights says more: their temperature, and how they were judged.
    if result.best_epoch and not is_kept(artifact, plan.out):
        artifact.save(plan.out)
    labels = plan.dataset.splits["val"].labels
    chance = float(np.bincount(labels).max() / len(labels))
    diagnoses = diagnose(result.history, vitals, chance, diverged=result.ending == "diverged")
    check_ending(plan, result, diagnoses)
    artifact, answers = calibrate(artifact, plan.dataset)
    course = Course(vitals, diagnoses, load_energy(plan.out))
    return judge_run(plan, artifact, answers, result, course, feed.unreadable, started)


def is_kept(artifact: Artifact, folder: Path) -> bool:
    """Whether a run's folder holds these very weights already, as that of a finished run that is gone on with."""
    try:
        return load_artifact(folder).digest == artifact.digest
    except (PathError, ArtifactError):
        return False


PRETRAINED_FILE = "pretrained.json"
"""Beside the checkpoints of a run that began with published weights: how samples are seen, as `Seen` says."""


@dataclass(frozen=True)
class Seen:
    """How samples are seen by a network with published weights."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    resize_mode: ResizeMode = "stretch"
    """Runs of before, which do not say it, scaled so."""


def find_weights(plan: Plan, team: Team = ALONE) -> tuple[Plan, Pretrained | None]:
    """Return published weights where the plan asks for some, and the plan with the options that go with them.

    A run that goes on from a checkpoint, which holds all weights, asks for them no more: they come without tensors.
    """
    model = plan.config.model
    if model.pretrained is None:
        return plan, None
    seen = team.hear(recall_seen(plan) if team.leads else None)
    if seen is not None:
        # The options are in the stored configuration.
        kept = Pretrained(model.name, {}, "checkpoint", mean=seen.mean, std=seen.std, size=seen.size)
        return plan, dataclasses.replace(kept, resize_mode=seen.resize_mode)
    weights = load_pretrained(model.name, model.pretrained)
    model = dataclasses.replace(model, options={**weights.options, **model.options})
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, model=model)), weights


def recall_seen(plan: Plan) -> Seen | None:
    """Return how a run that can go on from a checkpoint sees its samples; None for all others."""
    folder = plan.out / CHECKPOINT_FOLDER
    if plan.existing != "resume" or load_checkpoint(folder) is None:
        return None
    try:
        return from_mapping(Seen, read_json(folder / PRETRAINED_FILE))
    except (ArtifactError, UsageError):
        return None


def find_teacher(plan: Plan, feed: Feed) -> Teacher | None:
    """Return the trained network that the plan names as teacher. Raises ConfigError where it cannot teach this one."""
    folder = plan.config.model.teacher
    if folder is None:
        return None
    artifact = load_artifact(folder)
    if artifact.tokenizer != feed.tokenizer:
        raise ConfigError(f"model.teacher: wanted one with the same tokenizer, found another in {folder}")
    return Teacher(artifact.model, artifact.preprocess, create_preprocess(feed.spec, feed.tokenizer))


@dataclass(frozen=True, eq=False)
class Feed:
    """What a network is trained on."""

    spec: InputSpec
    tokenizer: str | None
    train: Loader
    val: Loader
    class_weights: torch.Tensor | None
    unreadable: tuple[Unreadable, ...]
    """Training and validation samples that were left out."""


def prepare(plan: Plan, weights: Pretrained | None = None, team: Team = ALONE) -> Feed:
    """Decode training and validation samples to what the model eats; each process of a team gets its part of a batch.

    Mean and deviation are those that go with published weights, else measured on the training samples.
    """
    dataset, config = plan.dataset, plan.config
    draft, tokenizer = draft_spec(dataset, config.model, weights)
    train, val = (load_inputs(dataset.splits[name], draft, tokenizer) for name in ("train", "val"))
    check_training_classes(dataset, train.split)
    spec = draft
    if not isinstance(draft, TextSpec):
        mean, std = weights.statistics(dataset.channels) if weights else measure_inputs(train.inputs, draft)
        spec = dataclasses.replace(draft, mean=mean, std=std)
    preprocess, training = create_preprocess(spec, tokenizer), config.training
    labels = {name: torch.from_numpy(part.split.labels) for name, part in (("train", train), ("val", val))}
    balanced = training.class_weights == "balanced"
    return Feed(
        spec,
        tokenizer,
        Loader(
            train.inputs,
            labels["train"],
            preprocess,
            split_batch(training.batch_size, team),
            config.augmentation,
            sampler=training.sampler,
            seed=training.seed,
            rank=team.rank,
            world_size=team.size,
        ),
        Loader(
            val.inputs,
            labels["val"],
            preprocess,
            VALIDATED * split_batch(training.batch_size, team),
            rank=team.rank,
            world_size=team.size,
        ),
        balance_classes(labels["train"], len(spec.labels)) if balanced else None,
        (*train.unreadable, *val.unreadable),
    )


VALIDATED = 4
"""Times as many samples as a training step's, which keeps gradients and activations too."""


def split_batch(batch_size: int, team: Team) -> int:
    """Return each process's part of a batch. Raises ConfigError where parts would differ."""
    if batch_size % team.size:
        raise ConfigError(f"training.batch_size: wanted a multiple of the {team.size} processes, found {batch_size}")
    return batch_size // team.size


def draft_spec(dataset: Dataset, model: ModelConfig, weights: Pretrained | None = None) -> tuple[InputSpec, str | None]:
    """Return what the model eats, with mean 0 and deviation 1 still, and the tokenizer that texts need."""
    if dataset.kind == "text":
        return draft_text_spec(dataset, model)
    if dataset.kind == "series":
        return draft_series_spec(dataset, model), None
    mean, std = (0.0,) * dataset.channels, (1.0,) * dataset.channels
    height, width = image_size(dataset, model, weights)
    margin = find_model(model.name).margin
    shape, deep = (dataset.channels, height, width), dataset.value_range
    dtype: PixelType = "uint8" if deep is None else "uint16"
    mode: ResizeMode = model.resize_mode or (weights.resize_mode if weights else "stretch")
    spec = ImageSpec(shape, dataset.classes, mean, std, margin, dtype=dtype, value_range=deep, resize_mode=mode)
    return spec, None


def image_size(dataset: Dataset, model: ModelConfig, weights: Pretrained | None) -> tuple[int, int]:
    """Return height and width in pixels: as asked for, as published weights want it, or what suits images and model.

    A model that takes any size gets that of the images, as a square of SMALLEST_SIDE pixels to its native size; above
    64 pixels a multiple of 32, since such networks divide the size by 32.
    """
    entry = find_model(model.name)
    if model.input_size is not None:
        sides = (model.input_size,) * 2 if isinstance(model.input_size, int) else tuple(model.input_size)
        if len(sides) != 2:
            raise ConfigError(f"model.input_size: wanted height and width in pixels, found {list(sides)}")
        return sides[0], sides[1]
    if weights is not None and weights.size is not None:
        return weights.size
    native = entry.input[1] if entry.kinds[0] == "image" else LARGEST_SEQUENCE
    if weights is not None or (entry.kinds[0] == "image" and not entry.resizable):
        return native, entry.input[2]
    side = min(max(*dataset.size, SMALLEST_SIDE), native)
    side = side if side <= 64 else side // 32 * 32
    return side, side


SMALLEST_SIDE = 24
"""Smaller images are enlarged to it for networks that take any size."""
LARGEST_SEQUENCE = 64
"""Larger images are scaled down to it for networks that read them as sequences."""


def draft_series_spec(dataset: Dataset, model: ModelConfig) -> SeriesSpec:
    """Return what a model of series eats: as many steps or frames as asked for, else so many that few are cut."""
    rows = dataset.channels * (model.bands or 1)
    statistics = (0.0,) * rows, (1.0,) * rows
    spec = SeriesSpec((rows, 1), dataset.classes, *statistics, model.fit, dataset.rate, model.bands)
    if model.input_size is not None:
        return dataclasses.replace(spec, shape=(rows, one_number(model.input_size)))
    steps = measure_length(dataset)
    frames = steps if model.bands is None else max((steps - spec.window) // spec.hop + 1, 1)
    return dataclasses.replace(spec, shape=(rows, frames))


def measure_length(dataset: Dataset) -> int:
    """Return the steps that LONGEST of 100 training series stay within."""
    samples = dataset.splits["train"].samples
    lengths = []
    for index in range(len(samples)):
        with suppress(DataError):  # Left out, and listed, when the samples are loaded.
            lengths.append(samples.read(index).shape[1])
    if not lengths:
        raise DataError(f"{dataset.source}: not one training series can be read")
    return max(int(np.percentile(lengths, LONGEST, method="higher")), 1)


def draft_text_spec(dataset: Dataset, model: ModelConfig) -> tuple[TextSpec, str]:
    """Train a tokenizer on the training texts; return it and what the model eats then."""
    samples = dataset.splits["train"].samples
    texts = [samples.read(index) for index in range(len(samples))]
    tokenizer = train_tokenizer(texts, model.vocab_size)
    encoder = TextEncoder(tokenizer, 1)
    length = (
        max(int(np.percentile(encoder.count_tokens(texts), LONGEST)), 1)
        if model.input_size is None
        else one_number(model.input_size)
    )
    return TextSpec((length,), dataset.classes, encoder.vocab_size), tokenizer


LONGEST = 98
"""Percentile of the training samples' lengths that a model takes whole; longer ones are cut."""


def one_number(size: int | tuple[int, ...]) -> int:
    """Return the size of a sequence. Raises ConfigError for that of an image."""
    if isinstance(size, tuple) and len(size) != 1:
        raise ConfigError(f"model.input_size: wanted one number for a sequence, found {list(size)}")
    return size if isinstance(size, int) else size[0]


def build(
    model: ModelConfig, spec: InputSpec, seed: int, weights: Pretrained | None = None
) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Return the network with its initial weights, which follow from the seed or are published ones, and notes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create_model(model.name, **describe_structure(spec), **model.options)
    return network, fit_weights(network, weights, spec.labels) if weights and weights.state else ()


def make_artifact(plan: Plan, feed: Feed, result: FitResult, weights: dict[str, torch.Tensor]) -> Artifact:
    """Return the artifact of a run."""
    data, dataset = plan.config.data, plan.dataset
    origin = DataOrigin(
        source=dataset.source,
        fingerprint=dataset.fingerprint,
        split_seed=dataset.split_seed,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        kind=data.kind,
        columns=data.columns,
        follow=data.follow,
        near_duplicates=data.near_duplicates,
        splits_fingerprint=dataset.splits_fingerprint,
    )
    provenance = Provenance(
        data=origin,
        seed=plan.config.training.seed,
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        recipe=plan.recipe,
    )
    config = ArtifactConfig(
        architecture=plan.config.model.name,
        input=feed.spec,
        provenance=provenance,
        options=plan.config.model.options,
        versions=current_versions(),
    )
    return Artifact(config, weights, feed.tokenizer)


def check_ending(plan: Plan, result: FitResult, diagnoses: Sequence[Diagnosis] = ()) -> None:
    """Raise where the run ended before its time; say why, and what is kept."""
    best = result.best
    kept = (
        f"the best weights so far (epoch {best.epoch}, validation accuracy {best.val_accuracy:.2%}) are in {plan.out}"
        if best
        else "no epoch was completed, so nothing is kept"
    )
    if result.ending == "diverged":
        rate = plan.config.training.learning_rate
        seen = "".join(f". {diagnosis.evidence.rstrip('.')}" for diagnosis in diagnoses)
        advice = f"try a lower training.learning_rate than {rate:g}, or --recover"
        if plan.config.training.recover:
            least = f"down to {LEAST_RATE * rate:g}"
            advice = f"lower rates than {rate:g}, {least}, did not help: look at the data and the loss"
        raise DivergedError(f"{result.message}{seen}; {kept}; {advice}")
    if result.ending == "interrupted":
        done = len(result.history)
        raise InterruptedRunError(
            f"stopped after {done} of {plan.config.training.epochs} epochs; {kept}; --resume goes on"
        )


def judge_run(
    plan: Plan,
    artifact: Artifact,
    val_answers: Answers,
    result: FitResult,
    course: Course,
    unreadable: tuple[Unreadable, ...],
    started: float,
) -> RunResult:
    """Judge the artifact from raw samples and save it with `metrics.json`, the report and the model card, in one step.

    `val_answers` are those on the validation split.
    """
    dataset = plan.dataset
    val = judge_answers(artifact, val_answers, "val", dataset)
    test, answers = evaluate_split(artifact, dataset.splits["test"], "test", dataset)
    test = dataclasses.replace(test, notes=dataset.notes)
    calibration = describe_calibration(artifact, val_answers, answers)
    report = describe_model(
        artifact,
        result.history,
        val,
        test,
        answers=answers,
        calibration=calibration,
        course=course,
        settings=to_mapping(plan.config),
    )
    costs = {"params": report.params, "macs": report.macs, "bytes": report.bytes, "latency_ms": report.latency.p50}
    latencies = {"latencies_ms": {runtime: latency.p50 for runtime, latency in report.latencies.items()}}
    diagnoses = [to_mapping(diagnosis) for diagnosis in course.diagnoses]
    judged = {"val": to_mapping(val), "test": to_mapping(test), "calibration": to_mapping(calibration)}
    facts = {"weights_sha256": report.digest, **costs, **latencies, **judged, "diagnoses": diagnoses}
    facts["training_seconds"] = sum(row.seconds for row in result.history)
    if course.energy:
        facts["energy"] = energy_facts(course.energy)
    title = f"{report.name} on {short_name(dataset.source)}"
    page, card = render_html([report], title), render_card(report)
    artifact.save(plan.out, {"metrics.json": format_json(facts), "report.html": page, "README.md": card})
    seconds = time.perf_counter() - started
    name = artifact.config.architecture
    skipped = (*dataset.unreadable, *unreadable, *answers.unreadable)
    return RunResult(
        plan.out, name, len(result.history), seconds, result.best_epoch, val, test, report, skipped, dataset.ignored
    )
