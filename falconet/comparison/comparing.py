"""compare(): train and evaluate many models alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from falconet.comparison.compared_models import (
    ComparedModel,
    ComparisonContext,
    check_folder,
    check_folds,
    check_seeds,
    make_shared_config,
    parse_compared_models,
    record_terms,
)
from falconet.comparison.results import (
    Comparison,
    ComparisonRow,
    compare_pairs,
    mean_of,
    rank_rows,
    sample_std,
)
from falconet.data import Dataset, load_dataset
from falconet.data.splits import fold_dataset
from falconet.errors import DataError, FalconetError, UsageError
from falconet.planning import Settings
from falconet.renames import accept_renamed
from falconet.schema import to_mapping
from falconet.storage import hold

if TYPE_CHECKING:
    from falconet.comparison.trials import ModelRun


@dataclass(frozen=True)
class Evaluated:
    """Results of one model's runs."""

    trials: tuple[ModelRun, ...]
    """Runs of the model, one for each seed."""
    folds: tuple[float, ...] = ()
    """Accuracy on each fold of the cross-validation; empty where there was none."""


_Outcome = Evaluated | str
"""Results of one model, or why it failed."""


@accept_renamed(tell=lambda value: {"notify": value})
def compare(
    source: str | Path | Dataset,
    models: Sequence[str | Path],
    *,
    out: str | Path,
    seeds: int = 3,
    folds: int | None = None,
    epochs: int | None = None,
    recipe: str | None = None,
    settings: Settings | None = None,
    data_root: str | Path | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Train each model with each seed, evaluate all on the same test split, and write tables, plots and tests to `out`.

    Models are ranked by their validation accuracy, never by that on the test split, which is only shown beside it.

    Parameters
    ----------
    source
        A data set, or a name or a path; see `falconet.load_dataset`.
    models
        Two or more, each a name of `falconet.list_models`, `NAME@RECIPE` for a recipe of its own, or the folder of a
        trained model, which is evaluated as it is.
    out
        Holds the runs, in `runs/MODEL-SEED`, and `comparison.html`, `.md`, `.csv`, `.json` and the plots. A comparison
        that was stopped goes on; models and seeds may be added to one; other settings, and recipes that
        were edited since, are refused.
    seeds
        Runs of each model, with the seeds 0, 1, ... One run does not show the variance between runs.
    folds
        Rank by cross-validation: each model is also trained so many times, with seed 0, on training and validation
        samples but for one fold of these, which tests it. None: by the validation split, mean over seeds.
    epochs, recipe, settings
        As for `falconet.train`, the same for all models. A recipe's section `model` counts for the model it names only.
    data_root
        Where named data sets are kept and downloaded to.
    notify
        Called with a line for each model that cannot be trained, before any is, and for each run that has ended.

    A model of which a run fails is listed with the reason, without figures, since the mean of the runs that went well
    would flatter it. Raises UsageError before anything is trained for unknown names and settings, and for terms that
    are not those of the comparison in `out`; DataError for a trained model that has seen test samples; FalconetError
    where every model fails; RunExistsError where another process is at work in `out`; InterruptedRunError and
    StorageError, after which the same call goes on.

    """
    compared_models = parse_compared_models([models] if isinstance(models, str | Path) else models)
    check_seeds(seeds)
    check_folds(folds)
    terms, folder = make_shared_config(source, epochs, recipe, settings or {}), Path(out)
    check_folder(folder, terms, compared_models)
    dataset = load_dataset(source, data_root=data_root, config=terms.data)
    study = ComparisonContext(terms, seeds, folder, dataset, data_root, folds or 0, isinstance(source, Dataset))
    parts = fold_dataset(dataset, folds) if folds else ()
    notes = [*_check_compared_models(compared_models, study), *_describe_terms(compared_models, seeds)]
    failed = _find_unplannable(compared_models, study)
    with hold(folder):
        check_folder(folder, terms, compared_models)  # Another process may have begun one there meanwhile.
        record_terms(folder, terms, compared_models, study.dataset.fingerprint)
        for compared, reason in failed.items():
            notify(f"{compared.name} cannot be trained: {reason}")
        return _train_all(compared_models, study, parts, notify, failed, notes)


def _train_all(
    compared_models: Sequence[ComparedModel],
    study: ComparisonContext,
    parts: Sequence[Dataset],
    notify: Callable[[str], None],
    failed: Mapping[ComparedModel, str],
    notes: Sequence[str],
) -> Comparison:
    """Run a comparison whose terms are recorded; see `compare`."""
    runs = sum(len(study.seeds_of(compared)) + len(study.folds_of(compared)) for compared in compared_models)
    progress = _Progress(runs, notify)
    outcomes = {
        compared: _run_compared(compared, study, parts, progress, failed.get(compared)) for compared in compared_models
    }
    comparison = _summarize_runs(outcomes, study, notes)
    from falconet.comparison.pages import write_comparison

    write_comparison(comparison)
    if all(row.failed for row in comparison.rows):
        first = comparison.rows[0]
        raise FalconetError(
            f"all {len(comparison.rows)} models failed; {first.model}: {first.failed} ({study.out / 'comparison.md'} "
            "lists all)"
        )
    return comparison


class _Progress:
    """Counts the runs of a comparison and reports the result of each."""

    def __init__(self, total: int, notify: Callable[[str], None]) -> None:
        self.total, self.notify = total, notify
        self.done = 0

    def end(self, run: str, what: str, runs: int = 1) -> None:
        """Report the result of a run, and of those that follow from it."""
        self.done += runs
        self.notify(f"{self.done}/{self.total} {run}: {what}")


def _check_compared_models(compared_models: Sequence[ComparedModel], study: ComparisonContext) -> list[str]:
    """Raise DataError where a trained model cannot be evaluated on these data; return notes for the reader."""
    from falconet.comparison.trials import check_not_trained_on_test

    notes = [
        check_not_trained_on_test(compared, study.dataset, study.terms.data)
        for compared in compared_models
        if compared.folder
    ]
    return [note for note in notes if note]


def _describe_terms(compared_models: Sequence[ComparedModel], seeds: int) -> list[str]:
    """Return notes on how models were trained."""
    notes = []
    if seeds == 1:
        notes.append("One seed each: the tests speak of these networks, not of others that are trained alike.")
    if any(compared.folder for compared in compared_models):
        notes.append("Models that were trained before are evaluated as they are; their tests speak of these networks.")
    if any(compared.recipe for compared in compared_models):
        notes.append("Models with a recipe of their own (MODEL@RECIPE) were trained by it, not alike.")
    return notes


def _find_unplannable(compared_models: Sequence[ComparedModel], study: ComparisonContext) -> dict[ComparedModel, str]:
    """Return the models whose runs cannot even be planned, with the reason.

    Raises the first of the errors where it is so for all that are to be trained: then the terms are wrong, not the
    models. Raises UsageError where a model's recipe splits the data in another way.
    """
    from falconet.comparison.trials import load_trial, plan_trial

    errors: dict[ComparedModel, FalconetError] = {}
    waiting = [
        compared
        for compared in compared_models
        if not compared.folder
        and any(load_trial(compared, seed, study.out) is None for seed in study.seeds_of(compared))
    ]
    for compared in waiting:
        try:
            plan = plan_trial(compared, 0, study)
        except FalconetError as error:
            errors[compared] = error
            continue
        if plan.config.data != study.terms.data:
            raise UsageError(
                f"{compared.name}: wanted data read as for all others, found {to_mapping(plan.config.data)} in its "
                "recipe; give all the same, as settings of data"
            )
    if errors and len(errors) == sum(not compared.folder for compared in compared_models):
        raise next(iter(errors.values()))
    return {compared: " ".join(str(error).split()) for compared, error in errors.items()}


def _run_compared(
    compared: ComparedModel, study: ComparisonContext, parts: Sequence[Dataset], progress: _Progress, reason: str | None
) -> _Outcome:
    """Return the results of a model's runs, those kept from an earlier call included, or why it failed.

    `parts` are the data with each fold held out; `reason` is why it cannot be trained, where that is known already.
    """
    from falconet.comparison.trials import attempt, load_trial, validate_fold

    trials: list[ModelRun] = []
    seeds, folds = study.seeds_of(compared), study.folds_of(compared)
    for seed in seeds:
        kept = load_trial(compared, seed, study.out)
        trial = kept or reason or attempt(compared, seed, study)
        run = compared.name if compared.folder else f"{compared.name}, seed {seed}"
        if isinstance(trial, str):
            progress.end(run, f"failed: {trial}", len(seeds) - seed + len(folds))
            return trial if reason or compared.folder else f"seed {seed}: {trial}"
        took = f", trained in {trial.seconds:.1f} s" if trial.seconds is not None else ""
        seen = "" if trial.val_accuracy is None else f"validation accuracy {trial.val_accuracy:.2%}, "
        progress.end(run, f"{seen}test accuracy {trial.accuracy:.2%}{took}{' (kept)' if kept else ''}")
        trials.append(trial)
    accuracies: list[float] = []
    for fold in folds:
        accuracy = validate_fold(compared, fold, study, parts[fold])
        run = f"{compared.name}, fold {fold + 1} of {study.folds}"
        if isinstance(accuracy, str):
            progress.end(run, f"failed: {accuracy}", len(folds) - fold)
            return f"fold {fold + 1} of {study.folds}: {accuracy}"
        progress.end(run, f"validation accuracy {accuracy:.2%}")
        accuracies.append(accuracy)
    return Evaluated(tuple(trials), tuple(accuracies))


def _summarize_runs(
    outcomes: Mapping[ComparedModel, _Outcome], study: ComparisonContext, notes: Sequence[str]
) -> Comparison:
    """Return the comparison of the models' results."""
    from falconet.report import get_environment

    rows = _list_rows(outcomes)
    evaluated = {one.name: found.trials for one, found in outcomes.items() if not isinstance(found, str)}
    _check_same_samples(study.dataset, evaluated)
    right = {
        row.model: np.stack([trial.right for trial in evaluated[row.model]]) for row in rows if row.model in evaluated
    }
    count = next((answers.shape[1] for answers in right.values()), 0)
    skipped = len(study.dataset.splits["test"]) - count if right else 0
    return Comparison(
        out=study.out,
        source=study.terms.source,
        fingerprint=study.dataset.fingerprint,
        n=count,
        classes=len(study.dataset.classes),
        seeds=study.seeds,
        rows=rows,
        pairs=compare_pairs(right),
        notes=(
            *notes,
            *_describe_ranking(rows, study),
            *([f"{skipped} test samples cannot be read and were left out."] if skipped else []),
        ),
        settings={key: value for key, value in to_mapping(study.terms).items() if key != "source"},
        environment=get_environment(),
        folds=study.folds,
    )


def _describe_ranking(rows: Sequence[ComparisonRow], study: ComparisonContext) -> list[str]:
    """Return notes on how models were ranked, and on which figures are means of how many runs."""
    evaluated = [row for row in rows if row.failed is None]
    how = f"mean of {study.folds} folds" if study.folds else "the split that also chose the epoch"
    notes = [f"Ranked by validation accuracy ({how}); test accuracy is shown beside it and ranks nothing."]
    lone = [row.model for row in evaluated if row.seeds == 1]
    if lone and len(lone) < len(evaluated):
        single = f"{', '.join(lone)} {'is a single run' if len(lone) == 1 else 'are single runs'}"
        notes.append(f"{single}; the other figures are means over {study.seeds} seeds.")
    unfolded = [row.model for row in evaluated if study.folds and row.val_accuracy is not None and not row.folds]
    if unfolded:
        notes.append(
            f"{', '.join(unfolded)}: validation accuracy is that of the validation split, as trained models have no "
            "folds."
        )
    unknown = [row.model for row in evaluated if row.val_accuracy is None]
    if unknown:
        notes.append(
            f"{', '.join(unknown)}: not ranked, since no validation samples are known to be held out from its training."
        )
    return notes


def _check_same_samples(dataset: Dataset, evaluated: Mapping[str, Sequence[ModelRun]]) -> None:
    """Raise DataError unless all models have predictions for the same samples, as files may vanish meanwhile."""
    hashes = [trial.hashes for trials in evaluated.values() for trial in trials]
    if any(not np.array_equal(hashes[0], other) for other in hashes[1:]):
        raise DataError(f"{dataset.source}: its test samples have changed between the runs; choose another out")


def _list_rows(outcomes: Mapping[ComparedModel, _Outcome]) -> tuple[ComparisonRow, ...]:
    """Return each model's row, ranked: means over its seeds, and what its first network costs.

    All networks are timed in turns, so that none is measured while the machine had more to do.
    """
    from falconet.artifact import load_artifact
    from falconet.comparison.trials import measure_cost
    from falconet.exporters.timing import time_together

    evaluated = {compared.name: found for compared, found in outcomes.items() if not isinstance(found, str)}
    artifacts = {name: load_artifact(found.trials[0].folder) for name, found in evaluated.items()}
    timed = dict(zip(artifacts, time_together(list(artifacts.values())), strict=True))
    costs = {name: to_mapping(measure_cost(artifact, timed[name])) for name, artifact in artifacts.items()}
    rows = [replace(_summarize_trials(name, found), **costs[name]) for name, found in evaluated.items()]
    failed = [ComparisonRow(one.name, failed=reason) for one, reason in outcomes.items() if isinstance(reason, str)]
    return rank_rows([*rows, *failed], {name: latencies["torch"] for name, latencies in timed.items()})


def _summarize_trials(name: str, evaluated: Evaluated) -> ComparisonRow:
    """Return a model's row without what its network costs."""
    trials = evaluated.trials
    validated = evaluated.folds or [trial.val_accuracy for trial in trials]
    known = [value for value in validated if value is not None]
    accuracies, scores = [trial.accuracy for trial in trials], [trial.scores for trial in trials]
    return ComparisonRow(
        model=name,
        accuracy=mean_of(accuracies),
        accuracy_std=sample_std(accuracies),
        macro_recall=mean_of([score.recall for score in scores]),
        macro_f1=mean_of([score.f1 for score in scores]),
        seconds=mean_of([trial.seconds for trial in trials]),
        energy_wh=mean_of([trial.energy_wh for trial in trials]),
        seeds=len(trials),
        val_accuracy=mean_of(validated),
        val_accuracy_std=sample_std(known) if len(known) == len(validated) else None,
        folds=len(evaluated.folds),
    )
