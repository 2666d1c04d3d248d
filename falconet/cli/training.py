"""The verb train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from falconet.cli.app import (
    Assignments,
    DataRoot,
    Debug,
    Follow,
    Groups,
    Json,
    Source,
    Strict,
    app,
    describe_evaluation,
    merge_data_flags,
    name_settings,
)
from falconet.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from falconet.data import Dataset
    from falconet.planning import Plan
    from falconet.runs import RunResult
    from falconet.synthetic import SyntheticTrial
    from falconet.training import Callback


_Model = Annotated[
    str | None,
    typer.Option(help="A name that `falconet models` lists; without one, those that suit the data are compared."),
]
Out = Annotated[Path | None, typer.Option(help="The run's folder; runs/<source>-<model> by default.")]
Recipe = Annotated[str | None, typer.Option(help="A named recipe, or a YAML file.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of training.")]
Seed = Annotated[int | None, typer.Option(help="Random seed of weights, shuffling and augmentation.")]
BatchSize = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Batch size; auto: the smallest that is nearly the fastest, measured."),
]
FindRate = Annotated[
    bool, typer.Option("--find-lr", help="Find the learning rate by a range test before training, with a picture.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings.")]
ClassWeights = Annotated[
    str | None,
    typer.Option(help="Class weights in the loss. balanced: n / (classes * n of the class); effective: less so."),
]
Balance = Annotated[str | None, typer.Option(help="balanced: an epoch draws all classes equally often.")]
_Weights = Annotated[
    str | None,
    typer.Option(help="Pretrained weights: embedded, wheel, torchvision, timm, a file, or a trained model's folder."),
]
Freeze = Annotated[
    str | None,
    typer.Option(help="backbone: only the output layer learns; norm: batch normalization keeps its statistics."),
]
UnfreezeAfter = Annotated[
    int | None, typer.Option(metavar="N", help="Let a frozen backbone learn too, after N epochs.")
]
TeacherFolder = Annotated[
    str | None, typer.Option(metavar="DIR", help="Knowledge distillation: folder of a trained model as the teacher.")
]
_Loss = Annotated[str | None, typer.Option(help="cross_entropy, brier, cosine, cosface or arcface.")]
Recover = Annotated[
    bool, typer.Option("--recover", help="Where the loss becomes NaN, go back an epoch and halve the learning rate.")
]

Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="T",
        help="Approximate time limit, which sets the epochs: 90s, 10m, 1h. Default without --model: 10m.",
    ),
]
Refit = Annotated[
    bool,
    typer.Option(
        "--refit", help="Then retrain on training and validation samples, for as many epochs as the best model had."
    ),
]
Synthetic = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Train again with N synthetic samples a class; keep that model where validation accuracy rises.",
        min=1,
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL|auto",
        help="Then distill the model into a smaller one; auto: one that suits the data.",
    ),
]
Log = Annotated[
    str | None, typer.Option(metavar="NAME", help="tensorboard: log to TensorBoard in the run's folder, too.")
]


@app.command()
def train(
    source: Source,
    model: _Model = None,
    out: Out = None,
    recipe: Recipe = None,
    epochs: Epochs = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    find_lr: FindRate = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    config: Config = None,
    settings: Assignments = None,
    class_weights: ClassWeights = None,
    sampler: Balance = None,
    pretrained: _Weights = None,
    freeze: Freeze = None,
    unfreeze_after: UnfreezeAfter = None,
    teacher: TeacherFolder = None,
    loss: _Loss = None,
    recover: Recover = False,
    refit: Refit = False,
    time: Time = None,
    synthetic: Synthetic = None,
    student: Student = None,
    log: Log = None,
    groups: Groups = None,
    follow: Follow = False,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train, evaluate, save and report a classifier."""
    from falconet.catalog import check_source
    from falconet.model_files import check_artifact
    from falconet.models import find_model
    from falconet.models.registry import check_pretrained

    check_source(source)
    if model:
        find_model(model)
    if model and pretrained:
        check_pretrained(model, pretrained)
    if teacher:
        check_artifact(teacher)
    if log:
        from falconet.training.loggers import check_logger

        check_logger(log)
    if synthetic and refit:
        raise UsageError(
            "--synthetic and --refit exclude each other: synthetic samples are tested on the validation split"
        )
    _check_student(student, synthetic, teacher)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    from falconet import planning, terminal
    from falconet.schema import merge
    from falconet.units import parse_time

    asked = planning.read_settings(config) if config else {}
    asked = merge(asked, planning.parse_assignments(settings or []))
    planning.check_sections(asked)
    flags = {
        "class_weights": class_weights,
        "sampler": sampler,
        "freeze": freeze,
        "unfreeze_after": unfreeze_after,
        "recover": recover or None,
        "loss": loss,
    }
    training = {key: value for key, value in flags.items() if value is not None}
    network = {key: value for key, value in (("pretrained", pretrained), ("teacher", teacher)) if value is not None}
    asked = merge(asked, {"training": training, "model": network})
    asked = merge_data_flags(asked, groups, follow, strict)
    plan = planning.plan_run(
        source,
        model=model,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        settings=asked,
        out=out,
        if_exists="resume" if resume else "overwrite" if overwrite else "refuse",
        data_root=data_root,
        batch_size=parse_batch_size(batch_size),
        find_lr=find_lr,
        seconds=parse_time(time, "--time") if time else None,
    )
    if synthetic is not None:
        plan = replace(plan, probe_candidates=())  # A linear probe takes no steps that could be compared.
    # Of several processes that torchrun has started, only the first one prints.
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main:
        _announce(plan, resume)
    from falconet.training.loggers import create_logger

    loggers = (create_logger(log, plan.out),) if log and is_main else ()
    watchers = (*terminal.watch(plan.config.model.name), *loggers) if is_main else ()
    facts = _run_plan(plan, synthetic, student, refit, watchers)
    if is_main:
        show_result(facts.result, json, facts.trial, facts.teacher)


@dataclass(frozen=True)
class _Outcome:
    """Results of a run that are shown."""

    result: RunResult
    trial: SyntheticTrial | None = None
    """Result of training with synthetic samples."""
    teacher: RunResult | None = None
    """Run of the teacher that the result's network was distilled from."""


def _run_plan(
    plan: Plan, synthetic: int | None, student: str | None, refit: bool, watchers: Sequence[Callback]
) -> _Outcome:
    """Train as planned, with synthetic samples or a student where they are asked for."""
    from falconet.runs import execute
    from falconet.synthetic import check_begun, train_with_synthetic

    if synthetic is not None:
        return _Outcome(*train_with_synthetic(plan, synthetic, callbacks=watchers))
    check_begun(plan, None)
    if student is None:
        return _Outcome(execute(plan, callbacks=watchers, refit=refit))
    from falconet.students import train_with_student

    taught = train_with_student(plan, None if student == "auto" else student, callbacks=watchers, refit=refit)
    return _Outcome(taught.student, teacher=taught.teacher)


def _check_student(student: str | None, synthetic: int | None, teacher: str | None) -> None:
    """Raise UsageError unless a student is the name of a network, or `auto`, and nothing else is asked for with it."""
    from falconet.models import find_model

    if student is None:
        return
    if student != "auto":
        find_model(student)
    for flag, given in (("--synthetic", synthetic), ("--teacher", teacher)):
        if given is not None:
            raise UsageError(f"--student and {flag} exclude each other: the network that is kept is the teacher")


def parse_batch_size(text: str | None) -> int | Literal["auto"] | None:
    """Return the samples of a step, or `auto`; None where they follow from the data. Raises ConfigError."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--batch-size: wanted 1 or more, or auto, found {text!r}")
    return int(text)


def _announce(plan: Plan, resume: bool) -> None:
    """Say what is about to be trained on what."""
    from falconet import planning, terminal

    if resume and not planning.has_weights(plan.out):
        terminal.print_note(f"nothing to resume in {plan.out}: this run starts anew")
    terminal.print_note(_describe_dataset(plan.dataset))
    if plan.dataset.columns:
        terminal.print_note(terminal.describe_columns(plan.dataset.columns))
    for note in plan.dataset.notes:
        terminal.print_note(name_settings(note))
    if plan.probe_candidates:
        names = [config.model.name for config in (*plan.probe_candidates, plan.config)]
        terminal.print_note(f"candidates: {', '.join(names)} (--model NAME trains one alone)")
        chosen = [setting for setting in plan.chosen if not setting.startswith("model.name=")]
        terminal.print_note(f"chosen for {plan.config.model.name}, the last of them: {', '.join(chosen)}")
    elif plan.chosen:
        terminal.print_note(f"chosen: {', '.join(plan.chosen)}")


def show_result(
    result: RunResult, json: bool, trial: SyntheticTrial | None = None, teacher: RunResult | None = None
) -> None:
    """Print the results of a run; those of a student beside its teacher's."""
    from falconet import terminal
    from falconet.training.energy import energy_facts
    from falconet.training.usefulness import warn_useless
    from falconet.units import format_epochs

    energy = result.report.log.energy

    terminal.print_left_out(result.ignored, result.unreadable)
    if json:
        from falconet.schema import to_mapping

        facts = {
            "out": str(result.out),
            "model": result.architecture,
            "epochs": result.epochs,
            "seconds": result.seconds,
        }
        facts |= {"params": result.report.params, "macs": result.report.macs, "bytes": result.report.bytes}
        facts["leaderboard"] = [to_mapping(row) for row in result.report.log.leaderboard]
        facts["baselines"] = [to_mapping(baseline) for baseline in result.report.log.baselines]
        facts["diagnoses"] = [to_mapping(diagnosis) for diagnosis in result.report.log.diagnoses]
        if energy:
            facts["energy"] = energy_facts(energy)
        if trial:
            facts["synthetic"] = to_mapping(trial)
        if teacher:
            own = {"out": str(teacher.out), "model": teacher.architecture, "bytes": teacher.report.bytes}
            facts["teacher"] = {**own, "val": to_mapping(teacher.val), "test": to_mapping(teacher.test)}
        evaluated = {"best_epoch": result.best_epoch, "val": to_mapping(result.val), "test": to_mapping(result.test)}
        terminal.print_json({**facts, **evaluated})
        return
    for diagnosis in result.report.log.diagnoses:
        terminal.print_line(f"{diagnosis.title}: {diagnosis.evidence} {name_settings(diagnosis.remedy)}")
    terminal.print_line(describe_evaluation(result.test))
    for baseline in result.report.log.baselines:
        low, high = baseline.accuracy_ci
        terminal.print_line(f"baseline: {baseline.name} {baseline.accuracy:.2%} (95%: {low:.2%} to {high:.2%})")
    if energy:
        terminal.print_line(f"energy: {result.report.energy}")
    if solver := result.report.linear_probe:
        made = f"linear probe: {solver} on frozen features, {result.seconds:.1f} s in all"
    else:
        made = f"{format_epochs(result.epochs)} in {result.seconds:.1f} s; kept epoch {result.best_epoch}"
    terminal.print_line(f"{made}; report: {result.out / 'report.html'}")
    if teacher:
        terminal.print_line(_describe_student(teacher, result))
    if caution := warn_useless(result.report.log.diagnoses):
        terminal.print_line(caution)
    elif result.report.verdict:
        terminal.print_line(f"caution: {result.report.verdict}")


def _describe_student(teacher: RunResult, student: RunResult) -> str:
    """Return a line with the accuracy and bytes of a teacher and its student."""
    runs = (("teacher", teacher), ("student", student))
    return "; ".join(
        f"{role} {run.architecture}: test accuracy {run.test.accuracy:.2%}, {run.report.bytes:,} bytes, in {run.out}"
        for role, run in runs
    )


def _describe_dataset(dataset: Dataset) -> str:
    """Return a line about a data set."""
    from falconet import terminal

    count = sum(len(split) for split in dataset.splits.values())
    return f"{dataset.source}: {count:,} {terminal.describe_kind(dataset)}, {len(dataset.classes)} classes"
