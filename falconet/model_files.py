"""The files of a trained model: their names, whether a path or a hub's name leads to them, and what they may tell.

Quick to import, for quick answers.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from falconet.catalog import HUB_PREFIX, as_name, is_hub_name, is_hub_source
from falconet.errors import PathError

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"
"""Files of a trained model's folder; the last one belongs to models of texts."""
CODED_FILE = "model.fnet"
"""The coded model, which takes the place of the weights after compression; it alone suffices to predict."""
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, CODED_FILE, TOKENIZER_FILE)
"""What is needed to use a trained model."""
DERIVED_FILES = ("metrics.json", "README.md", "report.html")
"""What is said of a trained model; each names the weights that it speaks of by their SHA-256."""
ARTIFACT_FILES = (*MODEL_FILES, *DERIVED_FILES)
"""All that is shared of a trained model; checkpoints and what else lies in a run's folder is not."""
_MODEL_SUFFIXES = (Path(CODED_FILE).suffix, ".onnx", ".xml")
"""Suffixes of files that hold a model by themselves: a coded one, and exported ones."""


def check_artifact(folder: str | Path) -> None:
    """Raise UsageError unless `folder` holds a trained model, is a coded one's file, or is a well-formed hub name.

    Reads no weights, asks no hub and imports no torch.
    """
    if is_hub_source(as_name(folder)):
        parse_model(folder)
        return
    folder = Path(folder)
    if (folder / CONFIG_FILE).is_file() or is_coded(folder):
        return
    if not folder.exists():
        name = as_name(folder)
        hint = f"; a model of the Hugging Face Hub is written {HUB_PREFIX}{name}" if is_hub_name(name) else ""
        what = "file" if folder.suffix.lower() in _MODEL_SUFFIXES else "folder"
        raise PathError(f"no such {what}: {folder}{hint}")
    found = (
        "an unfinished run (`falconet train --resume` goes on with it)"
        if (folder / "config.yaml").is_file()
        else "none"
    )
    raise PathError(
        f"{folder}: wanted a trained model ({CONFIG_FILE} and {WEIGHTS_FILE} or {CODED_FILE}), found {found}"
    )


def is_coded(path: Path) -> bool:
    """Tell whether a path is that of a coded model's file."""
    return path.suffix.lower() == Path(CODED_FILE).suffix and path.is_file()


REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_repository(name: str) -> None:
    """Raise PathError unless `name` is an owner's and a repository's name, as the Hugging Face Hub has them."""
    if not REPOSITORY.fullmatch(name):
        raise PathError(f"{name}: wanted owner/name (letters, digits, -, _ and .), as in jane/digits-lenet")


def parse_model(name: str | Path) -> tuple[str, str | None]:
    """Return repository and revision of `hf:owner/name` or `hf:owner/name@revision`. Raises PathError."""
    repository, at, revision = as_name(name).removeprefix(HUB_PREFIX).partition("@")
    check_repository(repository)
    if at and not revision:
        raise PathError(f"{name}: wanted a branch, a tag or a commit after @, found nothing")
    return repository, revision or None


def redact_name(source: str) -> str:
    """Return a source as others may read it: of an absolute path its last part, which tells nothing of this machine."""
    path = Path(source)
    return path.name or source if path.is_absolute() else source


def redact_settings(value: Any) -> Any:
    """Return settings as others may read them, at any depth; see `redact_name`."""
    if isinstance(value, Mapping):
        return {key: redact_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_settings(item) for item in value]
    return redact_name(value) if isinstance(value, str) else value
