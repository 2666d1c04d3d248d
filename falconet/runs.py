"""execute(): from a plan to a run folder, which is a trained, evaluated and reported artifact."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
    load_artifact,
)
from falconet.data import Unreadable
from falconet.data.dataset import concatenate
from falconet.data.drawing import write_figure
from falconet.data.loader import load_inputs
from falconet.errors import (
    ArtifactError,
    ConfigError,
    DivergedError,
    InterruptedRunError,
    OutOfTimeError,
    PathError,
    UsageError,
)
from falconet.escaping import escape_line
from falconet.evaluation import Evaluation, SplitLogits, calibrate
from falconet.leaderboard import (
    PROBE_FILE,
    ProbeScore,
    choose_best_row,
    describe_row,
    load_probe_score,
    make_row,
    score_probe,
    write_leaderboard,
    write_or_read_leaderboard,
)
from falconet.modalities import modality_of
from falconet.models.forward_cost import measure_forward
from falconet.models.info import get_model_info
from falconet.models.weights.loading import load_pretrained
from falconet.models.weights.pretrained import Pretrained
from falconet.planning import (
    CHECKPOINT_FOLDER,
    LEADERBOARD_FILE,
    STUDENT_FOLDER,
    SYNTHETIC_FILE,
    SYNTHETIC_FOLDER,
    Plan,
    check_again,
    holds_run,
    write_config,
)
from falconet.preparation import (
    PRETRAINED_FILE,
    DataBundle,
    ExtraSamples,
    Seen,
    add_samples,
    build,
    find_teacher,
    find_weights,
    fit_statistics,
    has_checkpoint,
    number_groups,
    prepare,
    replace_batch,
)
from falconet.report import LeaderboardRow, ModelReport, TrainingLog
from falconet.report.curves import draw_rates
from falconet.reporting import HISTORY_FILE, LAYER_STATS_FILE, diagnose_run, report_on, save_report
from falconet.schema import to_mapping
from falconet.storage import check_held, hold, prepare_folder, read_json, remove_tree, write_json, write_text
from falconet.tasks.losses import compute_class_weights
from falconet.training import Callback, EpochRow
from falconet.training.autotuning import find_batch_size, find_epochs, lr_range_test, measure_inference_throughput
from falconet.training.checkpoints import remove_checkpoints
from falconet.training.config import TrainConfig, warn_balance
from falconet.training.diagnoses import Diagnosis, LayerStats, load_layer_stats, save_layer_stats
from falconet.training.distillation import Teacher
from falconet.training.distributed import ProcessGroup, init_process_group
from falconet.training.energy import ENERGY_FILE, load_energy, watch_energy
from falconet.training.layer_monitor import LayerMonitor
from falconet.training.linear_probe import LinearProbe, find_linear_classifier, limit_samples
from falconet.training.loggers import find_events
from falconet.training.loop import MIN_LR_SCALE, FitResult, check_fit, fit, fit_linear_probe, notify
from falconet.training.state import clone
from falconet.training.usefulness import Outcome, diagnose_outcome
from falconet.units import format_epochs, format_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run."""

    out: Path
    """The run's folder."""
    architecture: str
    """Name of the architecture in the registry: the requested one, or the best of the candidates."""
    epochs: int
    """Number of trained epochs."""
    seconds: float
    """Duration from the plan to the report."""
    best_epoch: int
    """Epoch whose weights were kept, counted from 1."""
    val: Evaluation
    """Evaluation on the validation split, which may have chosen the epoch."""
    test: Evaluation
    """Evaluation on the test split, which chose nothing."""
    report: ModelReport
    """Content of `report.html`."""
    unreadable: tuple[Unreadable, ...]
    """Files and rows of the source that were skipped."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of the source that were no samples, counted by extension."""

    def __repr__(self) -> str:
        figures = f"test accuracy {self.test.accuracy:.1%}, epochs {self.epochs}"
        return f"{type(self).__name__}({self.architecture}, {figures}, {escape_line(str(self.out))})"


class _MetricsFiles(Callback):
    """A callback that writes `metrics.csv`, one row an epoch, and `vitals.csv`, one for each epoch and layer."""

    def __init__(self, out: Path, layer_monitor: LayerMonitor) -> None:
        self.out = out
        self.layer_monitor = layer_monitor
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
        write_text(self.out / HISTORY_FILE, buffer.getvalue())
        save_layer_stats(self.out / LAYER_STATS_FILE, self.layer_monitor.layer_stats)


def execute(
    plan: Plan, *, callbacks: Sequence[Callback] = (), refit: bool = False, added: ExtraSamples | None = None
) -> RunResult:
    """Carry out a plan; see `falconet.train`. All processes that `torchrun` has started do it together.

    Where samples are `added` to those of training, an epoch still takes as many steps; where they come with a teacher's
    logits, the teacher predicts all samples beforehand.
    """
    started = time.perf_counter()
    with init_process_group() as process_group, interruption.watched(), ExitStack() as held:
        plan = sync_plan(plan, process_group)
        callbacks = callbacks if process_group.is_main else ()
        if process_group.is_main:
            # A folder that cannot be written to is told before the data are read, which may take long.
            held.enter_context(hold(plan.out))
            check_again(plan)
            _check_teacher(plan)
            prepare_folder(plan.out)
        trials = _try_fast_candidates(plan, callbacks) if process_group.world_size == 1 else ()
        plan, weights = find_weights(plan, process_group)
        began = time.perf_counter()
        bundle = prepare(plan, weights, process_group)
        model, notes = build(plan.config.model, bundle.spec, bundle.output, plan.config.training.seed, weights)
        size = "x".join(map(str, bundle.spec.shape))
        notify(
            callbacks,
            *warn_balance(plan.config.training),
            *notes,
            f"input {size} (--set model.input_size=... changes it)",
        )
        teacher, bundle = find_teacher(plan, bundle, beforehand=added is not None and added.teacher_logits is not None)
        if added is not None:
            bundle = add_samples(bundle, added, plan.config.training)
        # Before anything is measured, or a run that is to be overwritten loses what it could go on from.
        check_fit(model, bundle.train, plan.config.training, teacher, process_group)
        measure_forward(model.eval(), get_model_info(model).make_blank())
        if not has_checkpoint(plan):
            fit_statistics(model, bundle.train)
        plan, bundle, lr_figure = autotune(plan, bundle, model, teacher, callbacks, process_group, started)
        if process_group.is_main:
            init_run_folder(plan, weights, lr_figure)
            if trials:
                write_leaderboard(plan.out, [trial.row for trial in trials])
        solution, probe = _solve_linear_probe(plan, bundle, model, callbacks, process_group)
        result, layer_stats = _fit_monitored(plan, bundle, model, teacher, solution, callbacks, process_group)
        if not process_group.is_main:
            _check_ending(plan, result)
        last = TrainedCandidate(
            plan, weights, bundle, model, result, make_row(plan, len(bundle.val.labels), result, probe, began)
        )
        kept, leaderboard = _choose_candidate((*trials, last), callbacks)
        if process_group.is_main:
            leaderboard = write_or_read_leaderboard(plan, leaderboard)
        second = None
        if kept.result.ending in {"completed", "early_stopped"} and (refit or _is_refit(plan, process_group)):
            if process_group.is_main:
                _save_best(kept)
            second = _refit_network(kept, callbacks, process_group)
        done = None
        if process_group.is_main:
            seen = TrainingLog(layer_stats if kept is last else (), leaderboard=leaderboard)
            done = _finish_run(kept, seen, started, second)
        answer = process_group.broadcast(done)
        assert answer is not None
        return answer


def _fit_monitored(
    plan: Plan,
    bundle: DataBundle,
    model: torch.nn.Module,
    teacher: Teacher | None,
    solution: LinearProbe | None,
    callbacks: Sequence[Callback],
    process_group: ProcessGroup,
) -> tuple[FitResult, tuple[LayerStats, ...]]:
    """Train in a run's folder; return the result, and the statistics of the layers."""
    layer_monitor = LayerMonitor(load_layer_stats(plan.out / LAYER_STATS_FILE) if plan.if_exists == "resume" else ())
    watchers: Sequence[Callback] = ()
    if process_group.is_main:
        energy = watch_energy(plan.out, plan.if_exists == "resume")
        watchers = [layer_monitor, _MetricsFiles(plan.out, layer_monitor), *energy, *callbacks]
    result = fit(
        model,
        bundle.train,
        bundle.val,
        plan.config.training,
        class_weights=bundle.class_weights,
        teacher=teacher,
        solution=solution,
        groups=bundle.groups,
        callbacks=watchers,
        checkpoints=plan.out / CHECKPOINT_FOLDER,
        process_group=process_group,
    )
    return result, layer_monitor.layer_stats


@dataclass(frozen=True, eq=False)
class TrainedCandidate:
    """A trained network with all that its evaluation needs."""

    plan: Plan
    weights: Pretrained | None
    bundle: DataBundle
    model: torch.nn.Module
    result: FitResult
    row: LeaderboardRow


def try_network(plan: Plan, seconds: float | None = None) -> TrainedCandidate:
    """Train as a plan says, in memory alone, to compare plans, such as in a fold.

    Raises OutOfTimeError where extracting the features of a linear probe would take longer than `seconds`,
    DivergedError and InterruptedRunError, and what `execute` raises for settings and data.
    """
    began = time.perf_counter()
    with interruption.watched():
        plan, weights = find_weights(plan)
        teacher, bundle = find_teacher(plan, prepare(plan, weights))
        training = plan.config.training
        model, _ = build(plan.config.model, bundle.spec, bundle.output, training.seed, weights)
        fit_statistics(model, bundle.train)
        solution = None
        if training.linear_probe and seconds is not None:
            _check_time(model, bundle, seconds)
        if training.linear_probe:
            solution = fit_linear_probe(model, bundle.train, training, bundle.class_weights, bundle.groups)
        result = fit(
            model,
            bundle.train,
            bundle.val,
            training,
            class_weights=bundle.class_weights,
            teacher=teacher,
            solution=solution,
        )
    if result.ending == "diverged":
        raise DivergedError(result.message)
    if result.ending == "interrupted":
        raise InterruptedRunError(f"stopped after {len(result.history)} of {training.epochs} epochs")
    probe = None if solution is None else score_probe(solution)
    return TrainedCandidate(
        plan, weights, bundle, model, result, make_row(plan, len(bundle.val.labels), result, probe, began)
    )


_PROBE_TIME_FRACTION = 0.5
"""Fraction of the remaining time that extracting features for a linear probe may take; else it is left out."""


def _check_time(model: torch.nn.Module, bundle: DataBundle, seconds: float) -> None:
    """Raise OutOfTimeError where extracting features of training and validation samples takes longer than `seconds`."""
    learned = min(len(bundle.train.labels), limit_samples(find_linear_classifier(model)) or len(bundle.train.labels))
    count = learned + len(bundle.val.labels)
    needed = count / measure_inference_throughput(model, bundle.train, count / seconds)
    if needed > seconds:
        raise OutOfTimeError(
            f"its features of {count:,} samples take about {needed:,.0f} s, wanted at most {seconds:,.0f} s, which is "
            f"{_PROBE_TIME_FRACTION:.0%} of the time that is left; --time changes it"
        )


def _solve_linear_probe(
    plan: Plan, bundle: DataBundle, model: torch.nn.Module, callbacks: Sequence[Callback], process_group: ProcessGroup
) -> tuple[LinearProbe | None, ProbeScore | None]:
    """Solve the output layer where a run begins with that; return it, and its cross-validation score.

    A resumed run has it in its checkpoint. Of several processes, each solves it by itself in training.
    """
    training = plan.config.training
    if process_group.world_size > 1 or training.linear_probe is None:
        return None, None
    if has_checkpoint(plan):
        return None, load_probe_score(plan)
    notify(callbacks, f"linear probe: features of {len(bundle.train.labels):,} samples")
    solution = fit_linear_probe(model, bundle.train, training, bundle.class_weights, bundle.groups)
    probe = score_probe(solution)
    write_json(plan.out / CHECKPOINT_FOLDER / PROBE_FILE, to_mapping(probe))
    return solution, probe


def _try_fast_candidates(plan: Plan, callbacks: Sequence[Callback]) -> tuple[TrainedCandidate, ...]:
    """Train the candidates that take seconds in memory, with a note about each; those that diverge are left out."""
    trials = []
    started = time.perf_counter()
    for config in plan.probe_candidates:
        left = None
        # A run that goes on tries what it tried when it began, whatever time there is now.
        if plan.seconds is not None and plan.if_exists != "resume":
            left = _PROBE_TIME_FRACTION * (plan.seconds - (time.perf_counter() - started))
        if left is not None and left <= 0:
            notify(callbacks, f"candidate {config.model.name} is left out: no time is left; --time changes it")
            continue
        try:
            trial = try_network(
                dataclasses.replace(plan, config=config, if_exists="overwrite", probe_candidates=()), left
            )
        except (DivergedError, OutOfTimeError) as error:
            notify(callbacks, f"candidate {config.model.name} is left out: {error}")
            continue
        notify(callbacks, f"candidate {describe_row(trial.row)}")
        trials.append(trial)
    return tuple(trials)


def _choose_candidate(
    trials: Sequence[TrainedCandidate], callbacks: Sequence[Callback]
) -> tuple[TrainedCandidate, tuple[LeaderboardRow, ...]]:
    """Return the best candidate, and the leaderboard; make the run's folder its own.

    An interrupted last candidate is kept, since it may become better.
    """
    last = trials[-1]
    if len(trials) == 1 or last.result.ending == "interrupted":
        return last, ()
    notify(callbacks, f"candidate {describe_row(last.row)}")
    kept = trials[choose_best_row([trial.row for trial in trials])]
    if kept is not last:
        _promote(kept)
    notify(callbacks, f"kept: {kept.row.model}")
    return kept, tuple(dataclasses.replace(trial.row, kept=trial is kept) for trial in trials)


def _promote(trial: TrainedCandidate) -> None:
    """Write a candidate's configuration and history into the run's folder, in place of the last one's."""
    remove_checkpoints(trial.plan.out / CHECKPOINT_FOLDER)
    write_config(trial.plan)
    files = _MetricsFiles(trial.plan.out, LayerMonitor())
    files.on_start(trial.plan.config.training.epochs, len(trial.bundle.train), trial.result.history)
    save_layer_stats(trial.plan.out / LAYER_STATS_FILE, ())


def sync_plan(plan: Plan, process_group: ProcessGroup) -> Plan:
    """Return the main process's plan: others may not see the folder of a resumed run.

    Raises ConfigError where the main process reads its data differently, since they were read already.
    """
    facts = plan.config, plan.recipe, plan.if_exists, plan.autotune, plan.seconds
    config, recipe, if_exists, autotune, seconds = process_group.broadcast(facts)
    if config.data != plan.config.data:
        raise ConfigError(f"data: wanted the first process's {config.data}, found {plan.config.data}; start all alike")
    return dataclasses.replace(
        plan, config=config, recipe=recipe, if_exists=if_exists, autotune=autotune, seconds=seconds
    )


_REPORT_SECONDS = 5.0
"""Seconds that are reserved for evaluation and report."""


_RATES_FILE = "learning-rate.png"


def autotune(
    plan: Plan,
    bundle: DataBundle,
    model: torch.nn.Module,
    teacher: Teacher | None,
    callbacks: Sequence[Callback],
    process_group: ProcessGroup,
    started: float,
) -> tuple[Plan, DataBundle, Figure | None]:
    """Measure the training settings that a plan leaves open; return the plan and its data with them.

    The third value is the plot of the range test, where there was one, to be saved once the run's folder is set up.
    """
    config, lr_figure = plan.config.training, None
    if "batch_size" in plan.autotune:
        make_train = partial(replace_batch, bundle.train)
        found = (
            find_batch_size(model, make_train, config, bundle.class_weights, teacher) if process_group.is_main else None
        )
        size, line = process_group.broadcast(found) or (config.batch_size, "")
        config = dataclasses.replace(config, batch_size=size * process_group.world_size)
        bundle = dataclasses.replace(bundle, train=replace_batch(bundle.train, size))
        notify(callbacks, line)
    if "learning_rate" in plan.autotune:
        scan = process_group.broadcast(
            lr_range_test(model, bundle.train, config, bundle.class_weights, teacher) if process_group.is_main else None
        )
        assert scan is not None
        config = dataclasses.replace(config, learning_rate=float(f"{scan.suggestion:.2g}"))
        lr_figure = draw_rates(scan.rates, scan.losses, config.learning_rate)
        notify(callbacks, f"learning rate {config.learning_rate:g} (picture: {plan.out / _RATES_FILE})")
    if "epochs" in plan.autotune and plan.seconds is not None and config.epochs > 1:
        left = max(plan.seconds - (time.perf_counter() - started) - _REPORT_SECONDS, 1.0)
        count = len(bundle.train.labels)
        timed = (
            find_epochs(model, bundle.train, config, count, left, bundle.class_weights, teacher)
            if process_group.is_main
            else None
        )
        epochs, line = process_group.broadcast(timed) or (config.epochs, "")
        config = _shorten(config, epochs)
        notify(callbacks, f"time: {line} (--time changes it)")
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, training=config)), bundle, lr_figure


def _shorten(config: TrainConfig, epochs: int) -> TrainConfig:
    """Return the configuration of a run with fewer epochs."""
    after = config.unfreeze_after
    return dataclasses.replace(config, epochs=epochs, unfreeze_after=after if after and after < epochs else None)


_TEACHER_FILE = "teacher.json"
"""File in the folder of a run with a hash of its teacher's weights, since others may replace them."""


_REFIT_FOLDER = f"{CHECKPOINT_FOLDER}/refit"
"""Folder of the checkpoints of a refit on training and validation samples; a run with some is refit when resumed."""


def init_run_folder(plan: Plan, weights: Pretrained | None, lr_figure: Figure | None) -> None:
    """Write a run's configuration into its folder, in place of a run that is to be overwritten.

    The preprocessing of published weights is kept beside the checkpoints.
    """
    check_held(plan.out)
    if plan.if_exists != "resume":
        _remove_others(plan.out)
    if plan.if_exists == "overwrite":
        # The old model stays until the new run has weights to put in its place.
        remove_checkpoints(plan.out / CHECKPOINT_FOLDER)
        remove_checkpoints(plan.out / _REFIT_FOLDER)
    if plan.if_exists != "resume":
        for path in (plan.out / ENERGY_FILE, *find_events(plan.out)):
            path.unlink(missing_ok=True)
        for name in (_RATES_FILE, LEADERBOARD_FILE, SYNTHETIC_FILE, _TEACHER_FILE):
            (plan.out / name).unlink(missing_ok=True)
    if plan.config.model.teacher is not None:
        digest = load_artifact(plan.config.model.teacher).digest
        write_json(plan.out / _TEACHER_FILE, {"weights_sha256": digest})
    write_config(plan)
    if lr_figure is not None:
        write_figure(lr_figure, plan.out / _RATES_FILE)
    prepare_folder(plan.out / CHECKPOINT_FOLDER)
    if weights is not None:
        seen = Seen(weights.mean, weights.std, weights.size, weights.vocabulary, weights.resize_mode)
        write_json(plan.out / CHECKPOINT_FOLDER / PRETRAINED_FILE, to_mapping(seen))


def _remove_others(out: Path) -> None:
    """Remove the runs within a run's folder, which learned from a model that is replaced.

    A folder of such a name without a run is left alone. Raises RunExistsError where a process is at work there.
    """
    for folder in (out / STUDENT_FOLDER, out / SYNTHETIC_FOLDER):
        if holds_run(folder):
            with hold(folder):
                remove_tree(folder)


def read_teacher(out: Path) -> str | None:
    """Return the SHA-256 of the weights of a run's teacher; None where it is unknown."""
    try:
        found = read_json(out / _TEACHER_FILE).get("weights_sha256")
    except ArtifactError:
        return None
    return found if isinstance(found, str) else None


def _check_teacher(plan: Plan) -> None:
    """Raise UsageError where a resumed run has a teacher with other weights than when it began."""
    teacher = plan.config.model.teacher
    if teacher is None or plan.if_exists != "resume" or (begun := read_teacher(plan.out)) is None:
        return
    if load_artifact(teacher).digest != begun:
        raise UsageError(
            f"if_exists='resume' goes on as the run in {plan.out} began, but its teacher, {teacher}, has other weights "
            "now: start anew with if_exists='overwrite'"
        )


def _is_refit(plan: Plan, process_group: ProcessGroup) -> bool:
    """Whether a resumed run had begun to be refit."""
    begun = plan.if_exists == "resume" and any((plan.out / _REFIT_FOLDER).glob("epoch-*.json"))
    return bool(process_group.broadcast(begun if process_group.is_main else None))


class _RefitProgress(Callback):
    """A callback that reports the progress of a refit to the run's callbacks, without its epochs."""

    def __init__(self, callbacks: Sequence[Callback], epochs: int) -> None:
        self.callbacks, self.epochs = callbacks, epochs

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        notify(
            self.callbacks, f"refit: epoch {row.epoch} of {self.epochs}, training loss {format_loss(row.train_loss)}"
        )


def _refit_network(
    kept: TrainedCandidate, callbacks: Sequence[Callback], process_group: ProcessGroup
) -> torch.nn.Module:
    """Return a network trained anew on training and validation samples, for as many epochs as a run kept.

    All else is as in the run: initial weights, settings, and normalization; the schedule is that of so many epochs. No
    sample is left to choose an epoch, so the last one is kept. Raises InterruptedRunError, after which `--resume`
    continues, and DivergedError; the folder has the model of the run then.
    """
    plan, weights, bundle = kept.plan, kept.weights, kept.bundle
    model = plan.config.model
    if weights is not None and not weights.state and model.pretrained is not None:
        weights = load_pretrained(model.name, model.pretrained)  # The run went on from a checkpoint, without them.
    training = plan.config.training
    epochs = kept.result.best_epoch
    training = _shorten(dataclasses.replace(training, restore="last", patience=None), epochs)
    pool = load_inputs(
        concatenate([plan.dataset.splits[name] for name in ("train", "val")]), bundle.spec, bundle.tokenizer
    )
    labels = torch.from_numpy(pool.split.labels)
    notify(callbacks, f"refit: {len(labels):,} training and validation samples, {format_epochs(epochs)}")
    network, _ = build(model, bundle.spec, bundle.output, training.seed, weights)
    train = dataclasses.replace(bundle.train, inputs=pool.inputs, labels=labels, teacher_logits=None, limit=None)
    weighed = compute_class_weights(labels, bundle.output.num_outputs, training)
    groups = number_groups(pool.split)
    bundle = dataclasses.replace(
        bundle, train=train, rows=pool.kept, class_weights=weighed, groups=groups, num_synthetic=0
    )
    teacher, bundle = find_teacher(plan, bundle, ("train", "val"))
    fit_statistics(network, bundle.train)
    if process_group.is_main:
        prepare_folder(plan.out / _REFIT_FOLDER)
    second = fit(
        network,
        bundle.train,
        bundle.val,
        training,
        class_weights=bundle.class_weights,
        teacher=teacher,
        callbacks=[_RefitProgress(callbacks, epochs)] if process_group.is_main else (),
        checkpoints=plan.out / _REFIT_FOLDER,
        process_group=process_group,
    )
    before = f"the model of the run before it, of epoch {epochs}, is in {plan.out}"
    if second.ending == "diverged":
        raise DivergedError(f"in the refit: {second.message}; {before}; try a lower training.learning_rate")
    if second.ending == "interrupted":
        done = len(second.history)
        raise InterruptedRunError(
            f"stopped after {done} of {epochs} epochs of the refit; {before}; if_exists='resume' goes on"
        )
    return network


def _save_best(kept: TrainedCandidate) -> Artifact:
    """Return the artifact of a run's kept epoch, and save it unless the folder has it already."""
    artifact = make_artifact(kept.plan, kept.bundle, kept.result, clone(kept.model.state_dict()))
    # What is there of the same weights says more: their temperature, and how they were evaluated.
    if kept.result.best_epoch and not _is_kept(artifact, kept.plan.out):
        artifact.save(kept.plan.out)
    return artifact


def _finish_run(
    kept: TrainedCandidate, seen: TrainingLog, started: float, second: torch.nn.Module | None = None
) -> RunResult:
    """Save and evaluate the trained network; raise where training ended early.

    `second` is the refit that is kept instead: it has the first fit's temperature and validation figures.
    """
    plan, bundle, result = kept.plan, kept.bundle, kept.result
    artifact = _save_best(kept)
    diagnoses = diagnose_run(result.history, seen.layer_stats, plan.dataset, diverged=result.ending == "diverged")
    _check_ending(plan, result, diagnoses)
    artifact, answers = calibrate(artifact, plan.dataset)
    diagnoses += diagnose_outcome(_describe_outcome(plan, bundle, answers, result.best_epoch))
    if second is not None:
        provenance = dataclasses.replace(artifact.config.provenance, refit=True)
        config = dataclasses.replace(artifact.config, provenance=provenance)
        artifact = Artifact(config, clone(second.state_dict()), bundle.tokenizer)
    log = dataclasses.replace(seen, diagnoses=tuple(diagnoses), energy=load_energy(plan.out))
    return evaluate_run(plan, artifact, answers, result, log, bundle, started)


def _describe_outcome(plan: Plan, bundle: DataBundle, answers: SplitLogits, epoch: int) -> Outcome:
    """Return the outcome for the diagnoses of usefulness: predictions on validation samples, and training data."""
    dataset, training = plan.dataset, plan.config.training
    has_sides = modality_of(bundle.spec).axes == 2
    return Outcome(
        classes=dataset.classes,
        train_counts=np.bincount(dataset.splits["train"].labels, minlength=len(dataset.classes)),
        labels=answers.split.labels,
        predicted=answers.logits.argmax(axis=1),
        epoch=epoch,
        balanced=training.class_weights is not None or training.sampler == "balanced",
        image_side=max(dataset.size) if has_sides else None,
        input_side=max(bundle.spec.shape[1:]) if has_sides else None,
    )


def _is_kept(artifact: Artifact, folder: Path) -> bool:
    """Whether a run's folder has these weights already, as after resuming a finished run."""
    try:
        return load_artifact(folder).digest == artifact.digest
    except (PathError, ArtifactError):
        return False


def make_artifact(plan: Plan, bundle: DataBundle, result: FitResult, weights: dict[str, torch.Tensor]) -> Artifact:
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
        refit_teacher=_has_refit_teacher(plan) or None,
    )
    config = ArtifactConfig(
        architecture=plan.config.model.name,
        input=bundle.spec,
        output=bundle.output,
        provenance=provenance,
        options=plan.config.model.options,
        versions=current_versions(),
    )
    return Artifact(config, weights, bundle.tokenizer)


def _has_refit_teacher(plan: Plan) -> bool:
    """Whether a run's teacher was trained on the samples that validate the run."""
    if plan.config.model.teacher is None:
        return False
    origin = load_artifact(plan.config.model.teacher).config.provenance
    return bool(origin.refit) and origin.data.fingerprint == plan.dataset.fingerprint


def _check_ending(plan: Plan, result: FitResult, diagnoses: Sequence[Diagnosis] = ()) -> None:
    """Raise an error where the run ended early, with the reason and what is kept."""
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
            least = f"down to {MIN_LR_SCALE * rate:g}"
            advice = f"lower rates than {rate:g}, {least}, did not help: look at the data and the loss"
        raise DivergedError(f"{result.message}{seen}; {kept}; {advice}")
    if result.ending == "interrupted":
        done = len(result.history)
        raise InterruptedRunError(
            f"stopped after {done} of {plan.config.training.epochs} epochs; {kept}; if_exists='resume' goes on"
        )


def evaluate_run(
    plan: Plan,
    artifact: Artifact,
    val_answers: SplitLogits,
    result: FitResult,
    log: TrainingLog,
    bundle: DataBundle,
    started: float,
) -> RunResult:
    """Evaluate the artifact from raw samples and save it with `metrics.json`, report and model card, in one step.

    `val_answers` are the logits on the validation split. Latencies in other runtimes and explanations, which take
    longer, are added by `falconet.reporting.update_report`.
    """
    dataset = plan.dataset
    report, answers = report_on(
        artifact,
        dataset,
        val_answers,
        history=result.history,
        log=log,
        settings=to_mapping(plan.config),
        learned=bundle.real,
    )
    save_report(artifact, report, plan.out, dataset)
    return RunResult(
        plan.out,
        artifact.config.architecture,
        len(result.history),
        time.perf_counter() - started,
        result.best_epoch,
        report.val,
        report.test,
        report,
        (*dataset.unreadable, *bundle.unreadable, *answers.unreadable),
        dataset.ignored,
    )
