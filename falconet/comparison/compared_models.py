"""The models and settings of a comparison, checked before data are read. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from falconet.catalog import HUB_PREFIX, check_source
from falconet.data import DataConfig, Dataset
from falconet.data.sources import require_source
from falconet.errors import ConfigError, PathError, RunExistsError, UsageError
from falconet.hub import fetch_model
from falconet.model_files import check_artifact
from falconet.models import MODELS, find_model
from falconet.models.registry import EXTERNAL
from falconet.planning import (
    Settings,
    check_outside,
    check_sections,
    load_recipe,
    normalize_settings,
    restore_reading,
)
from falconet.renames import ignore
from falconet.schema import flatten, from_mapping, merge, to_mapping
from falconet.storage import is_vacant, read_json, write_json
from falconet.training import TrainConfig
from falconet.training.config import CHANGEABLE_ON_RESUME

_TERMS_FILE = "terms.json"
"""File that marks the folder of a comparison and holds the settings that all its runs share."""
_RESERVED = {"model.name": "is what `models` says", "training.seed": "goes from 0 to seeds - 1"}
"""Settings that a comparison sets itself -> the reason for an error message."""


@dataclass(frozen=True)
class ComparedModel:
    """One of the models that are compared: an architecture to train, or a trained model's folder."""

    name: str
    """Name as the user wrote it; of an absolute path, the last parts."""
    model: str | None = None
    recipe: str | None = None
    """Recipe of this model alone, in place of the comparison's."""
    folder: Path | None = None

    @property
    def slug(self) -> str:
        """Name in characters that are safe in folder names."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)


@dataclass(frozen=True)
class _SharedConfig:
    """Settings that all runs of a comparison share."""

    source: str
    epochs: int | None = None
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def settings_for(self, compared: ComparedModel) -> tuple[str | None, dict[str, Any]]:
        """Return the recipe and the settings that a model is trained with.

        A recipe's section `model` counts for the model that it names; others take the rest of it.
        """
        recipe = compared.recipe or self.recipe
        if recipe is None:
            return None, dict(self.settings)
        loaded = load_recipe(recipe)
        if (loaded.get("model") or {}).get("name") == compared.model:
            return recipe, dict(self.settings)
        return None, merge(_without_model(loaded), self.settings)

    @property
    def data(self) -> DataConfig:
        """Settings by which the source is read and split. Raises ConfigError."""
        recipe = load_recipe(self.recipe) if self.recipe else {}
        return from_mapping(DataConfig, merge(recipe, self.settings).get("data") or {}, "data")


@dataclass(frozen=True, eq=False)
class ComparisonContext:
    """All that the runs of a comparison have in common."""

    terms: _SharedConfig
    seeds: int
    out: Path
    dataset: Dataset
    data_root: str | Path | None
    folds: int = 0
    """Number of cross-validation folds; 0: models are ranked by the validation split alone."""
    is_in_memory: bool = False
    """Whether the data set was given as an object, which cannot be read again from its name."""

    @property
    def source(self) -> str | Dataset:
        """What each run reads."""
        return self.dataset if self.is_in_memory else self.terms.source

    def folds_of(self, compared: ComparedModel) -> range:
        """Return the folds that a model is trained without, one after the other; a trained model has none."""
        return range(0 if compared.folder else self.folds)

    def seeds_of(self, compared: ComparedModel) -> range:
        """Return the seeds of a model's runs; a trained model is one run."""
        return range(1 if compared.folder else self.seeds)


def _without_model(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "model"}


def parse_compared_models(names: Sequence[str | Path]) -> tuple[ComparedModel, ...]:
    """Return the models of these names. Raises UsageError for fewer than two, one twice, and one that is unknown."""
    compared_models = tuple(parse_compared(str(name).strip()) for name in names)
    if len(compared_models) < 2:
        raise UsageError(f"models: wanted two or more to compare, found {len(compared_models)}")
    slugs = [compared.slug for compared in compared_models]
    for compared in compared_models:
        if slugs.count(compared.slug) > 1:
            raise UsageError(f"models: wanted each model once, found {compared.name} again; leave one out")
    return tuple(replace(one, name=_redact_name(one.name, compared_models)) for one in compared_models)


def _redact_name(name: str, compared_models: Sequence[ComparedModel]) -> str:
    """Return a model's name for others to read: of an absolute path, as many last parts as tell it from others."""
    parts = Path(name).parts
    if not Path(name).is_absolute():
        return name
    ends = (str(Path(*parts[place:])) for place in range(len(parts) - 1, 0, -1))
    return next((end for end in ends if sum(f"/{one.name}".endswith(f"/{end}") for one in compared_models) == 1), name)


def parse_compared(text: str) -> ComparedModel:
    """Return the model of a name: `MODEL`, `MODEL@RECIPE`, a trained model's folder, or `hf:owner/name` of the hub.

    A name of the table is never taken for a folder: one that is called so is written `./NAME`.
    """
    if text.startswith(HUB_PREFIX):
        return ComparedModel(text, folder=fetch_model(text))
    name, at, recipe = text.partition("@")
    if name not in MODELS and name.partition(":")[0] not in EXTERNAL and (Path(text).is_dir() or "/" in text):
        check_artifact(text)
        return ComparedModel(text, folder=Path(text))
    find_model(name)
    if at:
        load_recipe(recipe)
    return ComparedModel(text, name, recipe or None)


def make_shared_config(
    source: str | Path | Dataset, epochs: int | None, recipe: str | None, settings: Settings
) -> _SharedConfig:
    """Return the terms of a comparison. Raises UsageError for settings that no run could have."""
    require_source(source)
    if not isinstance(source, Dataset):
        check_source(source)
    check_sections(settings)
    asked = normalize_settings(settings)
    if isinstance(source, Dataset):
        asked = merge(asked, restore_reading(source, asked))
    for key in flatten(asked):
        if key in _RESERVED:
            raise ConfigError(f"settings: {key} {_RESERVED[key]}; leave it out")
    loaded = load_recipe(recipe) if recipe else {}
    given = {} if epochs is None else {"training": {"epochs": epochs}}
    settings = merge(merge(loaded, asked), given)
    from_mapping(TrainConfig, settings.get("training") or {}, "training")
    # Written down in any case: comparisons of before split otherwise.
    data = from_mapping(DataConfig, settings.get("data") or {}, "data")
    asked = merge({"data": {"near_duplicates": data.near_duplicates}}, asked)
    name = source.source if isinstance(source, Dataset) else str(source)
    return _SharedConfig(name, epochs, recipe, asked)


def check_seeds(seeds: int) -> None:
    """Raise UsageError unless there is at least one seed."""
    if seeds < 1:
        raise UsageError(f"seeds: wanted 1 or more (3 or more show the spread between seeds), found {seeds}")


def check_folds(folds: int | None) -> None:
    """Raise UsageError unless there are two or more folds, or None: no cross-validation."""
    if folds is not None and folds < 2:
        raise UsageError(f"folds: wanted 2 or more (5 or 10 are usual), found {folds}")


def check_folder(out: Path, terms: _SharedConfig, compared_models: Sequence[ComparedModel]) -> None:
    """Raise UsageError where `out` holds something else, or a comparison on other terms.

    A recipe may be a file that was edited since: what was trained by it then was not trained alike.
    """
    if out.exists() and not out.is_dir():
        raise PathError(f"{out}: wanted a folder to write to, found a file")
    check_outside(out, terms.source)
    if not (out / _TERMS_FILE).is_file():
        if not is_vacant(out):
            raise RunExistsError(f"{out} holds files that are no comparison: choose another out")
        return
    check_recipes(out, terms, compared_models)
    record = read_json(out / _TERMS_FILE)
    settings = record.get("settings")
    record = {**record, "settings": normalize_settings(settings, ignore)} if isinstance(settings, dict) else record
    before = flatten({key: value for key, value in record.items() if key != "recipes"})
    before.setdefault("settings.data.near_duplicates", "apart")
    now = flatten(to_mapping(terms))
    free = {f"settings.training.{name}" for name in CHANGEABLE_ON_RESUME}
    for key in sorted((before.keys() | now.keys()) - free - {"fingerprint"}):
        if before.get(key) != now.get(key):
            name = key.removeprefix("settings.")
            raise UsageError(
                f"{out} was begun with {name}={before.get(key)}, but now it is {now.get(key)}: undo that (models and "
                "seeds may be added), or choose another out"
            )


def check_recipes(out: Path, terms: _SharedConfig, compared_models: Sequence[ComparedModel]) -> None:
    """Raise UsageError for a recipe that has changed since a comparison was begun with it."""
    if not (out / _TERMS_FILE).is_file():
        return
    recipes = _read_recipes(read_json(out / _TERMS_FILE))
    for name, found in _hash_recipes(terms, compared_models).items():
        if recipes.get(name, found) != found:
            raise UsageError(
                f"{out} was begun with another {name}, which was changed since, or came with an earlier version of "
                "Falconet: undo that, or choose another out"
            )


def _hash_recipes(terms: _SharedConfig, compared_models: Sequence[ComparedModel]) -> dict[str, str]:
    """Return a hash of each recipe that models are trained by, by its name."""
    names = {terms.recipe, *(compared.recipe for compared in compared_models)} - {None}
    loaded = {name: json.dumps(load_recipe(name), sort_keys=True, default=str) for name in map(str, names)}
    return {name: sha256(text.encode("utf-8", "backslashreplace")).hexdigest() for name, text in loaded.items()}


def _read_recipes(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hashes of recipes in a record of terms; those of earlier versions have none."""
    found = record.get("recipes")
    return dict(found) if isinstance(found, dict) else {}


def record_terms(out: Path, terms: _SharedConfig, compared_models: Sequence[ComparedModel], fingerprint: str) -> None:
    """Write the terms into the folder. Raises UsageError where it was begun with other data."""
    path = out / _TERMS_FILE
    record = read_json(path) if path.is_file() else {}
    before = record.get("fingerprint", fingerprint)
    if before != fingerprint:
        raise UsageError(
            f"{terms.source} has changed since {out} was begun (fingerprint {before}, now {fingerprint}): choose "
            "another out"
        )
    recipes = {**_read_recipes(record), **_hash_recipes(terms, compared_models)}
    write_json(path, {**to_mapping(terms), "fingerprint": fingerprint, "recipes": recipes})
