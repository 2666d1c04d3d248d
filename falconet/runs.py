"""train(): from a source to a run folder, which is a trained, judged and reported artifact."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, current_versions
from falconet.data import Dataset
from falconet.data.augmentation import Affine
from falconet.data.loader import Loader
from falconet.data.preprocessing import Preprocess, cache_pixels, measure_pixels
from falconet.errors import DivergedError, InterruptedRunError
from falconet.evaluation import Evaluation, evaluate_split
from falconet.models import create_model, find_model
from falconet.planning import (
    CHECKPOINT_FOLDER,
    Existing,
    ModelConfig,
    Plan,
    Settings,
    plan_run,
    short_name,
    write_config,
)
from falconet.report import ModelReport, describe_model, render_card, render_html
from falconet.schema import to_mapping
from falconet.spec import InputSpec
from falconet.storage import prepare_folder, write_json, write_text
from falconet.training import Callback, EpochRow
from falconet.training.checkpoints import remove_checkpoints
from falconet.training.loop import FitResult, fit


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


class MetricsFile(Callback):
    """Keeps `metrics.csv` up to date: one row an epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        write_text(self.path, buffer.getvalue())


def train(
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
    )
    return execute(plan, callbacks=callbacks)


def execute(plan: Plan, *, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Carry out a plan; see `train`."""
    started = time.perf_counter()
    prepare_folder(plan.out)
    spec, loaders = prepare(plan)
    model = build(plan.config.model, spec, plan.config.training.seed)
    if plan.existing == "overwrite":
        # The old model stays until the new run has weights to put in its place.
        remove_checkpoints(plan.out / CHECKPOINT_FOLDER)
    write_config(plan)
    prepare_folder(plan.out / CHECKPOINT_FOLDER)
    watchers = [MetricsFile(plan.out / "metrics.csv"), *callbacks]
    result = fit(model, *loaders, plan.config.training, callbacks=watchers, checkpoints=plan.out / CHECKPOINT_FOLDER)
    artifact = make_artifact(plan, spec, result, {name: value.clone() for name, value in model.state_dict().items()})
    if result.best_epoch:
        artifact.save(plan.out)
    check_ending(plan, result)
    return judge_run(plan, artifact, result, started)


def prepare(plan: Plan) -> tuple[InputSpec, tuple[Loader, Loader]]:
    """Decode training and validation samples to the model's size; measure mean and deviation on the former."""
    dataset, config = plan.dataset, plan.config
    draft = draft_spec(dataset, config.model)
    pixels = {name: cache_pixels(dataset.splits[name].samples, draft) for name in ("train", "val")}
    mean, std = measure_pixels(pixels["train"])
    spec = dataclasses.replace(draft, mean=mean, std=std)
    preprocess, batch_size, seed = Preprocess(spec), config.training.batch_size, config.training.seed
    labels = {name: torch.from_numpy(dataset.splits[name].labels) for name in pixels}
    train = Loader(
        pixels["train"], labels["train"], preprocess, batch_size, config.augmentation, shuffle=True, seed=seed
    )
    val = Loader(pixels["val"], labels["val"], preprocess, max(batch_size, 256), Affine())
    return spec, (train, val)


def draft_spec(dataset: Dataset, model: ModelConfig) -> InputSpec:
    """Return what the model eats, with mean 0 and deviation 1 still."""
    entry = find_model(model.name)
    size = entry.input[1:] if model.input_size is None else model.input_size
    height, width = (size, size) if isinstance(size, int) else size
    channels = dataset.channels
    return InputSpec(
        shape=(channels, height, width),
        labels=dataset.classes,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        margin=entry.margin,
    )


def build(model: ModelConfig, spec: InputSpec, seed: int) -> torch.nn.Module:
    """Return the network with its initial weights, which follow from the seed."""
    channels, height, width = spec.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model(
            model.name,
            num_classes=len(spec.labels),
            in_channels=channels,
            input_size=(height, width),
            **model.options,
        )


def make_artifact(plan: Plan, spec: InputSpec, result: FitResult, weights: dict[str, torch.Tensor]) -> Artifact:
    """Return the artifact of a run."""
    data, dataset = plan.config.data, plan.dataset
    origin = DataOrigin(
        source=dataset.source,
        fingerprint=dataset.fingerprint,
        split_seed=dataset.split_seed,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
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
        input=spec,
        provenance=provenance,
        options=plan.config.model.options,
        versions=current_versions(),
    )
    return Artifact(config, weights)


def check_ending(plan: Plan, result: FitResult) -> None:
    """Raise where the run ended before its time; say what is kept."""
    best = result.best
    kept = (
        f"the best weights so far (epoch {best.epoch}, validation accuracy {best.val_accuracy:.2%}) are in {plan.out}"
        if best
        else "no epoch was completed, so nothing is kept"
    )
    if result.ending == "diverged":
        rate = plan.config.training.learning_rate
        raise DivergedError(f"{result.message}; {kept}; try a lower training.learning_rate than {rate:g}")
    if result.ending == "interrupted":
        done = len(result.history)
        raise InterruptedRunError(
            f"stopped after {done} of {plan.config.training.epochs} epochs; {kept}; --resume goes on"
        )


def judge_run(plan: Plan, artifact: Artifact, result: FitResult, started: float) -> RunResult:
    """Judge the artifact from raw pixels and write `metrics.json`, the report and the model card."""
    dataset = plan.dataset
    val, _ = evaluate_split(artifact, dataset.splits["val"], "val", dataset)
    test, logits = evaluate_split(artifact, dataset.splits["test"], "test", dataset)
    report = describe_model(
        artifact,
        result.history,
        val,
        test,
        split=dataset.splits["test"],
        logits=logits,
        settings=to_mapping(plan.config),
    )
    costs = {"params": report.params, "macs": report.macs, "bytes": report.bytes, "latency_ms": report.latency.p50}
    write_json(plan.out / "metrics.json", {**costs, "val": to_mapping(val), "test": to_mapping(test)})
    title = f"{report.name} on {short_name(dataset.source)}"
    write_text(plan.out / "report.html", render_html([report], title))
    write_text(plan.out / "README.md", render_card(report))
    seconds = time.perf_counter() - started
    name = artifact.config.architecture
    return RunResult(plan.out, name, len(result.history), seconds, result.best_epoch, val, test, report)
