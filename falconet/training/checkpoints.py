"""The last states of a run on disk: safetensors and JSON, checked by hash, an older one kept beside the newest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from falconet.errors import ArtifactError
from falconet.storage import check_held, read_json, storage_error, write_bytes, write_json

_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training state: tensors by name, and JSON values beside them."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save_checkpoint(folder: Path, epoch: int, checkpoint: Checkpoint, step: int = 0) -> None:
    """Write the state after `epoch` epochs and `step` steps of the next, and remove all others but the one before it.

    A checkpoint is valid once its JSON file exists. Later ones come from before a rollback and are removed too.
    """
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
    stem = f"epoch-{epoch:06d}.{step:09d}"
    write_bytes(folder / f"{stem}.safetensors", content)
    facts = dict(checkpoint.facts)
    write_json(folder / f"{stem}.json", {"facts": facts, "digest": _digest(content, facts)})
    paths = sorted(folder.glob("epoch-*.json"))
    newest = paths.index(folder / f"{stem}.json")
    # From the last on: a process that is killed meanwhile must find none that is later than this one.
    for path in reversed(paths[: max(newest + 1 - _KEPT, 0)] + paths[newest + 1 :]):
        path.unlink()
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(folder: Path, warn: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """Return the newest valid checkpoint, or None where there is none.

    Truncated and altered ones are skipped, each with a line to `warn`.
    """
    paths = sorted(folder.glob("epoch-*.json"), reverse=True)
    for path in paths:
        try:
            record = read_json(path)
            content = path.with_suffix(".safetensors").read_bytes()
        except (ArtifactError, OSError):
            record, content = {}, b""
        if record.get("digest") == _digest(content, record.get("facts")):
            return Checkpoint(safetensors.torch.load(content), record["facts"])
        rest = "no whole one is left, so this run starts anew" if path == paths[-1] else "the one before it is used"
        warn(f"checkpoint {path.stem} is damaged: {rest}")
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run. Raises StorageError."""
    check_held(folder)
    try:
        for path in folder.glob("epoch-*"):
            path.unlink()
    except OSError as error:
        raise storage_error(folder, error) from error


def _digest(content: bytes, facts: Any) -> str:
    """Return a hash of tensors and values together."""
    return hashlib.sha256(content + json.dumps(facts, sort_keys=True).encode()).hexdigest()
