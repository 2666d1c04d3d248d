"""compress(): from a trained model to its smallest file within a budget."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from falconet.artifact import UNKNOWN, AnyModel, Artifact, open_artifact
from falconet.catalog import check_source
from falconet.compression.budget import Budget
from falconet.compression.config import RECOVERY, SearchConfig
from falconet.compression.constants import CONSTANTS
from falconet.compression.frontier import (
    FRONTIER_FILES,
    SENSITIVITY_FILES,
    describe_miss,
    write_frontier,
    write_sensitivity,
)
from falconet.compression.result import Compression, finish
from falconet.compression.search import Trial, TrialSpec, choose_best, propose
from falconet.compression.steps import Sensitivity, choose_bits
from falconet.compression.trial import (
    CLAIM_FILE,
    TRIAL_CHECKPOINT_FOLDER,
    MakeCallbacks,
    SearchContext,
    add_latency,
    find_macs_fractions,
    measure_accuracy,
    measure_layers,
    run_trial,
)
from falconet.data import DataConfig, Dataset, load_dataset
from falconet.data.augmentation import default_policy
from falconet.data.loader import Loader, load_inputs
from falconet.data.sources import require_source
from falconet.errors import ArtifactError, BudgetError, ConfigError, DataError, RunExistsError, UsageError
from falconet.evaluation import match_labels
from falconet.evaluation.evaluation import check_evaluable, restore_data_config
from falconet.model_files import CODED_FILE, check_artifact
from falconet.planning import (
    RUN_CONFIG_FILE,
    IfExists,
    Settings,
    check_outside,
    check_sections,
    expand_policy,
    load_recipe,
    normalize_settings,
    read_settings,
)
from falconet.renames import accept_renamed, ignore, split_momentum
from falconet.schema import KEY, flatten, from_mapping, merge, to_mapping
from falconet.storage import hold, is_vacant, prepare_folder, read_json, write_json
from falconet.training.checkpoints import remove_checkpoints
from falconet.training.config import CHANGEABLE_ON_RESUME
from falconet.training.loop import check_fit

_SEARCH_FILE = "search.json"
_SEARCH_FOLDER = "search"
"""Subfolder of the compressed model's with the coded networks and results of all trials."""
RECIPES = "compress"
"""Subfolder of the recipes for searches, within that of all recipes."""


@dataclass(frozen=True)
class Watcher:
    """Callbacks that report the progress of a search."""

    notify: Callable[[str], None] = lambda line: None
    """Called with each line that the user should read."""
    on_trial: Callable[[Trial, Trial], None] = lambda trial, best: None
    """Called with each finished trial, those of an earlier call too, and the best one so far."""
    make_callbacks: MakeCallbacks = lambda title: ()
    """Returns the callbacks of a trial's training, given the trial's title."""


@accept_renamed(existing=lambda value: {"if_exists": value})
def compress(
    model: AnyModel,
    source: str | Path | Dataset,
    out: str | Path,
    *,
    budget: Budget | None = None,
    recipe: str | None = None,
    settings: Settings | None = None,
    if_exists: IfExists = "refuse",
    data_root: str | Path | None = None,
    watcher: Watcher | None = None,
) -> Compression:
    """Find the smallest file of a trained model that keeps within a budget, or the most accurate one of a size.

    Parameters
    ----------
    model
        A trained model; one that was compressed before is compressed further.
    source, data_root
        The data that it was trained on. The search learns from the training split and chooses by the validation split;
        the test split is used once, at the end.
    out
        A folder for the compressed model: `config.json`, `model.fnet`, the report and the Pareto front of all trials,
        which are kept in `search/`.
    budget
        Limits of the result's size, cost and lost accuracy; None: at most half a point of accuracy.
    recipe, settings
        Sections `compression` (see `CompressConfig`), `training` (of the remaining weights; see `TrainConfig`) and
        `augmentation`, from a YAML file or a recipe by name, and as nested mappings.
    if_exists
        What to do where `out` holds a search: refuse, go on with it (also to another budget), or begin anew.
    watcher
        Callbacks that report the progress of the search.

    The search may be killed at any moment and goes on with `if_exists="resume"`, in the middle of a trial too.
    Raises BudgetError where no trial keeps within the budget: the front is written all the same, and the message names
    the nearest trial. Raises UsageError for invalid arguments, RunExistsError for a folder that is in use, DataError
    where the data are not the model's own, ArtifactError, StorageError; DivergedError and InterruptedRunError, after
    which the search can be resumed.

    """
    budget, watcher, out = budget or Budget(), watcher or Watcher(), Path(out)
    home = Path(model) if isinstance(model, str | Path) else open_artifact(model).path
    name = source.source if isinstance(source, Dataset) else source
    if isinstance(model, str | Path):  # A loaded one is whole, even if its folder is not any more.
        check_artifact(model)
    require_source(source)
    if not isinstance(source, Dataset):
        check_source(source)
    _check_out(out, if_exists, home, name)
    overrides = merge(_load_settings(recipe), normalize_settings(settings or {}))
    artifact = open_artifact(model)
    dataset = read_data(artifact, source, data_root)
    config = _configure(artifact, home, dataset, overrides)
    with hold(out):
        _check_out(out, if_exists, home, name)  # Another process may have ended a search there meanwhile.
        session = _prepare(_open_session(out, config, artifact, dataset, if_exists, watcher, budget))
        trials = run_trials(session, budget)
        best = choose_best(trials, budget)
        if not best.fits(budget):
            raise BudgetError(describe_miss(best, trials, budget, session.context.trial_file(best.number)))
        watcher.notify(f"trial {best.number} is chosen: evaluating it on the test split, timing it, writing its report")
        return finish(session.context, dataset, out, budget, trials, best, data_root)


def _check_out(out: Path, if_exists: IfExists, home: Path | None, source: str | Path) -> None:
    """Raise RunExistsError or UsageError where `out` holds what must not be lost."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: wanted a folder to write to, found a file")
    if home is not None and home.is_dir() and out.resolve().is_relative_to(home.resolve()):
        raise UsageError(f"{out} lies in the folder of the model that is to be compressed: choose another --out")
    check_outside(out, source)
    if is_vacant(out):
        return
    if not (out / _SEARCH_FOLDER / _SEARCH_FILE).is_file():
        raise RunExistsError(f"{out} holds files that are no search: choose a new or empty folder with --out")
    if if_exists == "refuse":
        raise RunExistsError(
            f"{out} already holds a search: go on with if_exists='resume', replace it with if_exists='overwrite'"
        )


def _load_settings(recipe: str | None) -> dict[str, Any]:
    """Return the settings of a recipe for searches, by name or by path."""
    return load_recipe(recipe, RECIPES) if recipe else {}


def read_data(artifact: Artifact, source: str | Path | Dataset, data_root: str | Path | None) -> Dataset:
    """Return the data that a model was trained on, with the same splits. Raises DataError for others."""
    origin = artifact.config.provenance.data
    if artifact.config.provenance == UNKNOWN:
        raise DataError("a coded file alone does not tell what it was trained on: name the folder that it lies in")
    if artifact.config.provenance.refit:
        raise DataError(
            "wanted a model that has not learned from its validation samples, by which compression chooses, found one "
            "trained with --refit: train it without"
        )
    config = (source.config or DataConfig()) if isinstance(source, Dataset) else restore_data_config(origin, source)
    dataset = load_dataset(source, data_root=data_root, config=config)
    check_evaluable(artifact, dataset, config, "all")  # Of the right kind; the fingerprint says the rest.
    known, found = set(artifact.config.output.labels), set(dataset.classes)
    if known != found:
        strange = ", ".join(sorted(known ^ found))
        raise DataError(f"{dataset.source}: wanted the model's classes, found a difference in {strange}")
    if dataset.fingerprint != origin.fingerprint:
        raise DataError(
            f"{dataset.source}: wanted the data that the model was trained on ({origin.source}), found others: samples "
            "that it learned from would evaluate what becomes of it"
        )
    if isinstance(source, Dataset):  # It may be split otherwise than the model's own data.
        check_evaluable(artifact, dataset, config, "train")
    return dataset


_FIXED = {
    "freeze": "would leave weights as they are that are to change",
    "unfreeze_after": "goes with freeze",
    "layer_decay": "is for networks that begin with published weights",
    "class_weights": "is not applied; use training.sampler=balanced",
    "epochs": "is compression.epochs",
    "restore": "is the last epoch, when no weight goes any more",
    "patience": "has no use where the last epoch counts",
}
"""Settings of training that the search determines -> the reason for an error message."""


def _configure(artifact: Artifact, home: Path | None, dataset: Dataset, overrides: Settings) -> SearchConfig:
    """Return the complete configuration: the overrides, then the augmentation of the model's own training."""
    trained = {} if home is None or not (home / RUN_CONFIG_FILE).is_file() else read_settings(home / RUN_CONFIG_FILE)
    check_sections(overrides)
    policy = {"policy": default_policy(dataset.source, dataset.kind)}
    defaults = {
        "augmentation": trained.get("augmentation") or policy,
        "training": to_mapping(replace(RECOVERY, seed=artifact.config.provenance.seed)),
    }
    settings = merge(defaults, overrides)
    augmentation = expand_policy(settings["augmentation"], dataset.kind)
    for key in _FIXED.keys() & (overrides.get("training") or {}).keys():
        raise ConfigError(f"training.{key}: {_FIXED[key]}; leave it out")
    return from_mapping(SearchConfig, {**settings, "augmentation": augmentation})


@dataclass(frozen=True, eq=False)
class _Session:
    """A search in a folder, and what it found so far."""

    context: SearchContext
    dataset: Dataset
    out: Path
    watcher: Watcher
    facts: Mapping[str, Any]
    """Facts that must stay the same when the search is resumed."""
    has_sensitivity: bool = False
    """Whether the layers that need more bits are known."""
    macs_fractions: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Limits of MACs and milliseconds -> fractions of the MACs that they leave; see `find_macs_fractions`."""
    trials: tuple[Trial, ...] = ()
    """Trials that ever ran in this folder, for any budget."""

    def add(self, trial: Trial) -> _Session:
        """Return the search with a trial added or replaced, and save it."""
        others = [other for other in self.trials if other.number != trial.number]
        session = replace(self, trials=tuple(sorted([*others, trial], key=lambda one: one.number)))
        session.save()
        return session

    def save(self) -> None:
        """Write the results so far, so that the search can be resumed from here."""
        found = {
            "sensed": self.has_sensitivity,
            "bits": dict(self.context.layer_bits),
            "shares": dict(self.macs_fractions),
            "trials": [to_mapping(trial) for trial in self.trials],
        }
        write_json(self.context.folder / _SEARCH_FILE, {**self.facts, **found})


@dataclass(frozen=True)
class Record:
    """Content of `search.json`; its keys are those of the first edition."""

    model: str
    fingerprint: str
    config: Mapping[str, Any]
    has_sensitivity: bool = field(metadata={KEY: "sensed"})
    layer_bits: Mapping[str, int] = field(metadata={KEY: "bits"})
    macs_fractions: Mapping[str, Sequence[float]] = field(metadata={KEY: "shares"})
    trials: tuple[Trial, ...]
    source: str = ""
    """Source of the model's data on this machine."""


def _open_session(
    out: Path,
    config: SearchConfig,
    artifact: Artifact,
    dataset: Dataset,
    if_exists: IfExists,
    watcher: Watcher,
    budget: Budget,
) -> _Session:
    """Return a new search, or the one in `out` to resume.

    Raises UsageError where that one had other settings, BudgetError for limits out of reach. Files of another search
    are removed once nothing prevents the new one.
    """
    folder = out / _SEARCH_FOLDER
    facts = {
        "source": artifact.config.provenance.data.source,
        "model": sha256(artifact.serialize()).hexdigest(),
        "fingerprint": dataset.fingerprint,
        "config": to_mapping(config),
    }
    resumed = if_exists == "resume" and (folder / _SEARCH_FILE).is_file()
    record = (
        _read_record(folder / _SEARCH_FILE, facts)
        if resumed
        else Record(**facts, has_sensitivity=False, layer_bits={}, macs_fractions={}, trials=())
    )
    train, val = _make_loaders(artifact, dataset, config)
    check_fit(artifact.model, train, config.training, artifact.model if config.compression.teach else None)
    accuracy = measure_accuracy(artifact.model, val)
    context = SearchContext(artifact, train, val, config, folder, record.layer_bits, accuracy, watcher.make_callbacks)
    limits = _name_limits(budget)
    fractions = dict(record.macs_fractions)
    if limits not in fractions:
        fractions[limits] = find_macs_fractions(budget, context)
    prepare_folder(folder)
    if not resumed:
        clear_search(out)
    session = _Session(context, dataset, out, watcher, facts, record.has_sensitivity, fractions, record.trials)
    session.save()  # From here on the folder is known as a search's.
    count = len(val.labels)
    one = f"of which each is {100 / count:.2g} points"
    watcher.notify(f"{artifact.config.architecture}: {accuracy:.2%} on {count:,} validation samples, {one}")
    if is_coarse(count):
        watcher.notify("so few samples tell small losses from luck badly: the result may lose more than was allowed")
    return session


def is_coarse(count: int) -> bool:
    """Return whether one of `count` validation samples is worth so many points that a loss may well be chance."""
    return 100 / count > CONSTANTS.default_drop


def _read_record(path: Path, facts: Mapping[str, Any]) -> Record:
    """Return an earlier call's record. Raises ArtifactError for a damaged file, UsageError for another search's."""
    try:
        record = from_mapping(Record, read_json(path))
        known = normalize_settings(record.config, ignore)
        training = split_momentum(known.get("training") or {}, ignore)
        config = from_mapping(SearchConfig, {**known, "training": training})
        record = replace(record, config=to_mapping(config))
    except UsageError as error:
        raise ArtifactError(f"{path} is damaged: {error}; begin anew with if_exists='overwrite'") from error
    except ArtifactError as error:
        raise ArtifactError(f"{error}; begin anew with if_exists='overwrite'") from error
    _check_unchanged(to_mapping(record), facts)
    return record


def _check_unchanged(record: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raise UsageError where a search would be resumed with other settings."""
    names = {"model": "another model", "fingerprint": "other data", "config": "other settings"}
    record, facts = (_drop_free_settings(side) for side in (record, facts))
    for key, what in names.items():
        if record.get(key) != facts[key]:
            change = _describe_change(record[key], facts[key]) if key == "config" else ""
            raise UsageError(
                f"if_exists='resume': the search began with {what}{change}; undo that, or begin anew with "
                "if_exists='overwrite'"
            )


def _drop_free_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts of a search without the settings of training that do not change its result."""
    config = dict(facts["config"])
    training = {key: value for key, value in (config.get("training") or {}).items() if key not in CHANGEABLE_ON_RESUME}
    return {**facts, "config": {**config, "training": training}}


def _describe_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the first setting that differs, in words; nothing where only empty ones do."""
    old, new = flatten(before), flatten(now)
    for key in {**old, **new}:
        was, found = (side.get(key, "not there") for side in (old, new))
        if was != found:
            return f": {key} was {was}, and now is {found}"
    return ""


def clear_search(out: Path) -> None:
    """Remove an earlier search's files; the model that it chose stays until this one has chosen."""
    for name in (*FRONTIER_FILES, *SENSITIVITY_FILES):
        (out / name).unlink(missing_ok=True)
    folder = out / _SEARCH_FOLDER
    # Trials first: without its record, the folder would be nobody's.
    for path in (folder / CLAIM_FILE, *folder.glob("trial-*.fnet")):
        path.unlink(missing_ok=True)
    remove_checkpoints(folder / TRIAL_CHECKPOINT_FOLDER)


def _make_loaders(artifact: Artifact, dataset: Dataset, config: SearchConfig) -> tuple[Loader, Loader]:
    """Return batches of the training and the validation split, as the model takes them."""
    spec, labels = artifact.config.input, artifact.config.output.labels
    train, val = (load_inputs(dataset.splits[name], spec, artifact.tokenizer) for name in ("train", "val"))
    known = [torch.from_numpy(match_labels(part.split, dataset.classes, labels)) for part in (train, val)]
    training = config.training
    train_loader = Loader(
        train.inputs,
        known[0],
        artifact.preprocess,
        training.batch_size,
        config.augmentation,
        sampler=training.sampler,
        seed=training.seed,
        num_classes=artifact.config.output.num_outputs,
    )
    return train_loader, Loader(val.inputs, known[1], artifact.preprocess, CONSTANTS.validation_batch)


def find_layer_bits(session: _Session) -> _Session:
    """Measure which layers need more bits than others, and save that."""
    context = session.context
    session.watcher.notify("measuring what each layer alone can lose")
    found = measure_layers(context)
    write_sensitivity(found, session.out)
    bits = _choose_layer_bits(found)
    needy = [f"{name} ({count})" for name, count in bits.items() if count > context.config.compression.bits]
    if needy:
        session.watcher.notify(f"layers that need more bits than others: {', '.join(needy)}")
    session = replace(session, context=replace(context, layer_bits=bits), has_sensitivity=True)
    session.save()
    return session


def _choose_layer_bits(found: Sensitivity) -> dict[str, int]:
    """Return the bits that each weight needs so as not to cost too much by itself, 8 at most."""
    chosen = choose_bits(found, CONSTANTS.layer_tolerance)
    names = dict.fromkeys(row.name for row in found.bits)
    return {name: 2 if chosen.get(name) == "ternary" else int(chosen.get(name, CONSTANTS.first_bits)) for name in names}


def run_trials(session: _Session, budget: Budget) -> tuple[Trial, ...]:
    """Return the trials of a search that has begun; each is kept as soon as it has ended, and never run twice.

    Another budget gets the trials that a search from nothing would have run for it.
    """
    config, fractions = session.context.config.compression, session.macs_fractions[_name_limits(budget)]
    trials: list[Trial] = []
    while (spec := propose(trials, budget, config, fractions)) is not None:
        session, trial = _reuse_or_run(session, spec, budget)
        trials.append(trial)
        session.watcher.on_trial(trial, choose_best(trials, budget))
    if propose(trials, replace(budget, seconds=None), config, fractions) is not None:
        session.watcher.notify("the time is up, though there is more to try; --resume with more --time goes on")
    write_frontier(session.trials, budget, session.out)
    return tuple(trials)


def _prepare(session: _Session) -> _Session:
    """Return the search with all that is measured before any trial."""
    config, notify = session.context.config.compression, session.watcher.notify
    if (session.out / CODED_FILE).is_file():
        notify(f"{session.out / CODED_FILE} stays what was found before, until this search ends with another")
    if config.channels != "none" and importlib.util.find_spec("torch_pruning") is None:
        notify("channels stay: removing them needs pip install 'falconet[compress]'")
    if session.trials:
        notify(f"{len(session.trials)} trials are there; those that this budget needs are not run again")
    return session if session.has_sensitivity or not config.sensitivity else find_layer_bits(session)


def _name_limits(budget: Budget) -> str:
    """Return a key for the limits that removing channels depends on."""
    return f"{budget.max_macs} MACs, {budget.max_latency_ms} ms"


def _reuse_or_run(session: _Session, spec: TrialSpec, budget: Budget) -> tuple[_Session, Trial]:
    """Return the session and the trial of a spec: an earlier one where there is one, else a new one."""
    context = session.context
    known = next((trial for trial in session.trials if trial.spec == spec), None)
    if known is None or not context.trial_file(known.number).is_file():
        trial = run_trial(known.number if known else len(session.trials) + 1, spec, context)
        session = session.add(trial)  # Before it is timed, which takes seconds in which much may happen.
    else:
        trial = known
    timed = add_latency(trial, budget, context, session.trials)
    session = session if timed == trial else session.add(timed)
    if timed is not known:
        write_frontier(session.trials, budget, session.out)
    return session, timed
