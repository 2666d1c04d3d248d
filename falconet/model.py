"""A trained model as an object: train, load, predict, compress, export. Heavy imports are done when needed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float32

from falconet.errors import BudgetError, DataError, DivergedError, InterruptedRunError, UnknownNameError, UsageError
from falconet.renames import accept_renamed, rename_section
from falconet.runs import RunResult, execute
from falconet.storage import make_temporary_folder, remove_tree, remove_when_collected

if TYPE_CHECKING:
    from torch import nn

    from falconet.artifact import AnyModel, Artifact
    from falconet.data import Dataset
    from falconet.evaluation import Evaluation
    from falconet.evaluation.evaluation import AnySource
    from falconet.explanation import Explanations
    from falconet.exporters.exporting import Export
    from falconet.planning import IfExists, Settings
    from falconet.predictions import Predictions
    from falconet.spec import InputSpec, OutputSpec
    from falconet.training import Callback, TrainConfig


class Model:
    """A trained model with all that is needed to use it; functions take one in place of its folder.

    It lives in memory: what `train` and `compress` return needs no folder, and `save` writes one.
    """

    def __init__(self, artifact: Artifact, dataset: Dataset | None = None, lender: object = None) -> None:
        from falconet.artifact import Artifact

        if not isinstance(artifact, Artifact):
            raise UsageError(
                f"artifact: wanted an Artifact, found {type(artifact).__name__}; use falconet.load(path), or "
                "falconet.train(...).model"
            )
        self._artifact = artifact
        # Its own samples where they are at hand, since arrays cannot be read again from anywhere.
        self._dataset = dataset
        # Whoever lives as long as a temporary folder that it was read from.
        self._keep_alive = lender

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.spec.shape))
        return f"Model({self._artifact.config.architecture}, {self.spec.kind} {shape}, {len(self.classes)} classes)"

    @property
    def artifact(self) -> Artifact:
        """The model's artifact: configuration, weights and tokenizer, as in its folder.

        Where the weights of `module` were changed, it has the new ones, not calibrated; its origin is that of the old.
        """
        self._artifact = self._artifact.follow_module()
        return self._artifact

    @property
    def spec(self) -> InputSpec:
        """The model's input: kind, shape, mean and standard deviation."""
        return self._artifact.config.input

    @property
    def output(self) -> OutputSpec:
        """The model's output: labels in the order of its logits."""
        return self._artifact.config.output

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.output.labels

    @property
    def module(self) -> nn.Module:
        """The network with its weights, in eval mode, from prepared inputs to logits.

        What it learns in a loop of one's own is the model's: each method uses, and `save` writes, the weights it has.
        Methods that predict leave it in eval mode, so that one's own epochs begin with `train()`, as usual in torch.
        """
        return self._artifact.model

    def predict(self, inputs: object) -> np.ndarray:
        """Return the class of each sample, as an array of names, also where labels were numbers: `.astype(int)`.

        `inputs` are what `falconet.predict` takes: paths, PIL images, arrays, for a model of texts a list of strings,
        or a split of a data set. Raises DataError where a sample cannot be read, since predictions are in the order of
        the samples; `falconet.predict` lists it and predicts the others.
        """
        return np.array([prediction.label for prediction in self._answer(inputs).predictions])

    def predict_proba(self, inputs: object) -> Float32[np.ndarray, "samples classes"]:
        """Return the probabilities of all classes, in the order of `classes`, for each sample; see `predict`."""
        answers = self._answer(inputs, probabilities=True).predictions
        rows = [list((answer.probabilities or {}).values()) for answer in answers]
        return np.array(rows, dtype=np.float32)

    def _answer(self, inputs: object, *, probabilities: bool = False) -> Predictions:
        from falconet.evaluation import predict

        found = predict(self, inputs, top=1, probabilities=probabilities)
        if found.skipped:
            first = found.skipped[0]
            raise DataError(f"{first.file}: {first.reason}; leave it out, or let falconet.predict answer the others")
        return found

    @accept_renamed(precision=lambda value: {"target_accuracy": value})
    def evaluate(  # noqa: PLR0913 - those of `falconet.evaluate`
        self,
        source: AnySource,
        *,
        split: str | None = None,
        data_root: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        against: AnyModel | None = None,
        by: str | None = None,
        ood: str | Path | None = None,
        target_accuracy: float | None = None,
        corruptions: bool = False,
        costs: bool = False,
        number_format: str = "fp32",
    ) -> Evaluation:
        """Evaluate the model on a data set, one of its splits such as `dataset.test`, or a source.

        See `falconet.evaluate` for what may be asked besides.
        """
        from falconet.evaluation import evaluate

        return evaluate(
            self,
            source,
            split=split,
            data_root=data_root,
            settings=settings,
            against=against,
            by=by,
            ood=ood,
            target_accuracy=target_accuracy,
            corruptions=corruptions,
            costs=costs,
            number_format=number_format,
        )

    def explain(
        self,
        inputs: object,
        *,
        method: str | None = None,
        out: str | Path | None = None,
        classes: int = 1,
        samples: int = 8,
        split: str = "test",
        data_root: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Explanations:
        """Explain the model's predictions in pictures, by `method="gradcam"` or another.

        `inputs` are what `predict` takes; see `falconet.explain` for the rest. Without `out`, the pictures lie in a
        temporary folder that lives as long as what is returned.
        """
        from falconet.explanation import explain

        return explain(
            self,
            inputs,
            method=method,
            out=out,
            classes=classes,
            samples=samples,
            split=split,
            data_root=data_root,
            settings=settings,
        )

    def compress(
        self,
        dataset: str | Path | Dataset,
        *,
        max_size: str | int | None = None,
        max_drop: float | None = None,
        max_latency: str | None = None,
        max_macs: str | int | None = None,
        time: str | None = None,
        epochs: int | None = None,
        out: str | Path | None = None,
        progress: bool = True,
        **options: Any,
    ) -> Model:
        """Return the smallest model without too much loss of accuracy, or the most accurate one within a size.

        Parameters
        ----------
        dataset
            The data that the model was trained on.
        max_size
            Size of the coded file, at most, as `40kB` or in bytes.
        max_drop
            Points of accuracy that may be lost on the validation split; 0.5 where nothing else is asked for.
        max_latency, max_macs
            Limits for one sample, as `1ms` on one thread of this machine, and as `1.5M` multiply-accumulates.
        time
            Time for all trials, such as `10m`. Measuring the layers before them and evaluating the result after them
            come on top.
        epochs
            Epochs of training in each trial.
        out
            The search's folder; None: a temporary one that lives as long as the model that is returned.
        progress
            Whether to show the trials on standard error.
        options
            Further options of `falconet.compress`: `recipe`, `settings`, `if_exists`, `data_root`.

        Raises BudgetError where no trial keeps within the limits, and what `falconet.compress` raises.

        """
        from falconet import terminal
        from falconet.artifact import load_artifact
        from falconet.compression import Budget, Watcher, compress
        from falconet.schema import merge
        from falconet.units import parse_count, parse_latency, parse_size, parse_time

        budget = Budget(
            max_bytes=None if max_size is None else parse_size(str(max_size), "max_size"),
            max_drop=max_drop,
            max_latency_ms=None if max_latency is None else parse_latency(max_latency, "max_latency"),
            max_macs=None if max_macs is None else parse_count(str(max_macs), "max_macs"),
            seconds=None if time is None else parse_time(time, "time"),
        )
        if epochs is not None:
            options["settings"] = merge(options.get("settings") or {}, {"compression": {"epochs": epochs}})
        watcher = Watcher(terminal.print_note, terminal.print_trial, terminal.watch) if progress else None
        folder = Path(out) if out is not None else make_temporary_folder()
        try:
            compress(self, dataset, folder, budget=budget, watcher=watcher, **options)
        except BaseException as error:
            # A trial that came near, which the error names, is kept.
            if out is None and not (isinstance(error, BudgetError) and [*folder.rglob("*.fnet")]):
                remove_tree(folder)
            raise
        model = Model(load_artifact(folder), self._dataset if isinstance(dataset, str | Path) else dataset)
        if out is None:
            remove_when_collected(model, folder)
        return model

    @accept_renamed(raw=lambda value: {"preprocessing": not value})
    def export(
        self,
        to: str,
        out: str | Path,
        *,
        preprocessing: bool = True,
        max_drop: float = 0.5,
        source: AnySource | None = None,
        data_root: str | Path | None = None,
        license: str = "not stated",  # noqa: A002 - what it is called everywhere
    ) -> Export:
        """Write the model as a file of the format `to`, such as "onnx", and check that its runtime predicts the same.

        See `falconet.export` for what may be asked besides. Without `source`, predictions are compared on its own
        validation samples; of a format of integers, at most `max_drop` points of accuracy may be lost. Raises
        UnknownNameError for a format that is not known, and ExportError where its packages are missing, where the
        network cannot be written in it, and where predictions differ.
        """
        from falconet.exporters.exporting import export

        return export(
            self,
            to,
            out,
            preprocessing=preprocessing,
            max_drop=max_drop,
            source=self._dataset if source is None else source,
            data_root=data_root,
            license=license,
        )

    def save(self, folder: str | Path) -> None:
        """Write the model into a folder, which `falconet.load` reads: configuration, weights, and reports.

        An existing model is replaced. Raises StorageError, and RunExistsError where a process is at work there.
        """
        from falconet.artifact import read_derived

        self.artifact.save(folder, read_derived(self.artifact))


def load(model: str | Path) -> Model:
    """Return the trained model in a folder or a coded file (`.fnet`), or from the Hugging Face Hub.

    A model there is named `hf:owner/name` or `hf:owner/name@revision`. Raises what `load_artifact` raises.
    """
    from falconet.artifact import open_artifact

    return Model(open_artifact(model))


@dataclass(frozen=True, eq=False, repr=False)
class Run(RunResult):
    """A finished run, as `train` returns it."""

    dataset: Dataset = field(kw_only=True)
    """The data set that the run was trained on."""

    @cached_property
    def model(self) -> Model:
        """The trained model; it keeps the temporary folder of a run without one of its own."""
        from falconet.artifact import load_artifact

        return Model(load_artifact(self.out), self.dataset, lender=self)


def read_measured(names: Iterable[str]) -> dict[str, Any]:
    """Return arguments of `train` for the `measured` settings of the first edition.

    Raises UnknownNameError for others.
    """
    values: dict[str, dict[str, Any]] = {
        "batch_size": {"batch_size": "auto"},
        "learning_rate": {"find_lr": True},
        "epochs": {},  # As many as fit into `seconds`, always.
    }
    found: dict[str, Any] = {}
    for name in names:
        if name not in values:
            raise UnknownNameError("measured setting", name, values)
        found |= values[name]
    return found


@accept_renamed(existing=lambda value: {"if_exists": value}, measured=read_measured)
def train(  # noqa: PLR0913 - one for each thing that a run follows from
    source: str | Path | Dataset,
    *,
    model: str | None = None,
    epochs: int | None = None,
    batch_size: int | Literal["auto"] | None = None,
    seed: int | None = None,
    training: TrainConfig | Mapping[str, Any] | None = None,
    recipe: str | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    if_exists: IfExists = "refuse",
    data_root: str | Path | None = None,
    find_lr: bool = False,
    seconds: float | None = None,
    refit: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train, evaluate and report a classifier of `source`.

    Parameters
    ----------
    source
        A data set, or what `falconet.load_dataset` reads: a name or a path.
    model
        A name of `falconet.list_models`; None: those that suit the data are tried, and the best is kept; see
        `falconet.defaults`.
    epochs, batch_size, seed
        Short for `training={"epochs": ..., "batch_size": ..., "seed": ...}`; a batch size of `auto` is the smallest
        nearly fastest one, measured before training begins.
    training
        Training settings: a mapping of those that differ from the defaults for the data, or a TrainConfig, which
        replaces all of them.
    recipe
        A name of the recipes that come with Falconet, or the path of a YAML file.
    settings
        Nested sections and values, such as `{"model": {"input_size": 64}, "augmentation": "light"}`.
    out
        The run's folder. None: nothing is left on disk; the run lies in a temporary folder that lives as long as what
        is returned, and stays where a run is interrupted or diverges, as the error's message says.
    if_exists
        What to do where `out` has a run: refuse, resume or overwrite it.
    data_root
        Where named data sets are kept and downloaded to.
    find_lr
        Whether to find the learning rate by a range test before training begins.
    seconds
        Time limit of the run, about: there are fewer epochs where they would take longer. None: ten minutes where no
        model is named, else no limit.
    refit
        Whether to train again on training and validation samples together, for as many epochs as the run kept, and to
        keep that model, evaluated on the test split; validation figures are those of the run.
    progress
        Whether to show progress: a bar on a terminal and in a notebook, a line per epoch on standard error elsewhere.
    callbacks
        Callbacks of the run; see `falconet.Callback`.

    The same seed gives the same weights, on the same machine with the same number of threads. Raises UsageError,
    DataError, StorageError; DivergedError and InterruptedRunError after saving the best weights until then.

    """
    from falconet import terminal
    from falconet.data.sources import require_source
    from falconet.planning import normalize_settings, plan_run
    from falconet.schema import merge
    from falconet.training.callbacks import list_callbacks

    require_source(source)
    callbacks = list_callbacks(callbacks)
    if out is None and if_exists != "refuse":
        raise UsageError(f"if_exists: wanted a run's folder to {if_exists}, found none; name it as out")
    asked = merge(normalize_settings(settings or {}), {"training": _read_training(training)})
    folder = Path(out) if out is not None else make_temporary_folder()
    try:
        plan = plan_run(
            source,
            model=model,
            recipe=recipe,
            epochs=epochs,
            seed=seed,
            settings=asked,
            out=folder,
            if_exists=if_exists,
            data_root=data_root,
            batch_size=batch_size,
            find_lr=find_lr,
            seconds=seconds,
        )
        # Of several processes that torchrun has started, the first one speaks.
        shown = progress and os.environ.get("RANK", "0") == "0"
        bars = terminal.watch(plan.config.model.name) if shown else ()
        if shown:
            for note in plan.dataset.notes:
                terminal.print_note(note)
            terminal.print_left_out(plan.dataset.ignored, plan.dataset.unreadable)
        result = execute(plan, callbacks=(*bars, *callbacks), refit=refit)
    except BaseException as error:
        if out is None and not isinstance(error, InterruptedRunError | DivergedError):
            remove_tree(folder)
        raise
    known = {entry.name: getattr(result, entry.name) for entry in dataclasses.fields(result)}
    run = Run(**known, dataset=plan.dataset)
    if out is None:
        remove_when_collected(run, folder)
    return run


def _read_training(training: TrainConfig | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the section of training settings. Raises UsageError for any other type."""
    from falconet.schema import to_mapping
    from falconet.training import TrainConfig

    if isinstance(training, TrainConfig):
        return dict(to_mapping(training))
    if training is not None and not isinstance(training, Mapping):
        raise UsageError(f"training: wanted a TrainConfig or a mapping of its fields, found {type(training).__name__}")
    return rename_section("training", training or {})
