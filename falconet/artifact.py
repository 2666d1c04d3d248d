"""Artifact: the on-disk form of a trained model, all that verbs pass to each other. Imports torch late."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from falconet.errors import ArtifactError, PathError, UsageError
from falconet.models import create_model
from falconet.schema import from_mapping, to_mapping
from falconet.spec import InputSpec
from falconet.storage import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
DIGEST = "weights_sha256"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class DataOrigin:
    """The data set that a model was trained on, so that the same test set can be found again."""

    source: str
    fingerprint: str
    """Of the whole source; see `falconet.data.Dataset.fingerprint`."""
    split_seed: int | None
    """The seed with which missing splits were made; None where the source has its own."""
    val_fraction: float
    test_fraction: float


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from."""

    data: DataOrigin
    seed: int
    epochs: int
    best_epoch: int
    recipe: str | None = None


@dataclass(frozen=True)
class ArtifactConfig:
    """What `config.json` holds."""

    architecture: str
    input: InputSpec
    provenance: Provenance
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the architecture."""
    widths: Mapping[str, Any] | None = None
    """Kept channels by layer, after pruning; None: as the architecture has them."""
    task: Literal["classification"] = "classification"
    versions: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, eq=False)
class Artifact:
    """A trained model with all that is needed to use it."""

    config: ArtifactConfig
    weights: Mapping[str, Tensor]

    @cached_property
    def model(self) -> nn.Module:
        """The network with its weights, in eval mode. Raises ArtifactError where they do not fit each other."""
        import torch

        try:
            # Whoever asks first may be in inference mode; the weights must be fit for gradients all the same.
            with torch.inference_mode(mode=False):
                model = build_model(self.config)
                model.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise ArtifactError(f"the weights do not fit {self.config.architecture}: {first}") from error
        return model.eval()

    def serialize(self) -> bytes:
        """Return the content of `model.safetensors`."""
        import safetensors.torch

        return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in self.weights.items()})

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`, then `config.json`, each in one step. Raises StorageError."""
        content = self.serialize()
        write_bytes(Path(folder) / WEIGHTS_FILE, content)
        write_json(Path(folder) / CONFIG_FILE, {**to_mapping(self.config), DIGEST: sha256(content).hexdigest()})


def build_model(config: ArtifactConfig) -> nn.Module:
    """Return the network that a config describes, with weights of no use. Raises ArtifactError where there is none."""
    import torch

    if config.widths is not None:
        raise ArtifactError(
            f"{CONFIG_FILE} describes a pruned network, which this falconet cannot build: update falconet"
        )
    channels, height, width = config.input.shape
    try:
        with torch.random.fork_rng(devices=[]):
            return create_model(
                config.architecture,
                num_classes=len(config.input.labels),
                in_channels=channels,
                input_size=(height, width),
                **config.options,
            )
    except (UsageError, TypeError) as error:  # TypeError: an option of a reserved name, such as num_classes
        raise ArtifactError(f"{CONFIG_FILE} describes no model that this falconet can build: {error}") from error


def check_artifact(folder: str | Path) -> None:
    """Raise UsageError unless `folder` holds a trained model; reads no weights and imports no torch."""
    folder = Path(folder)
    if (folder / CONFIG_FILE).is_file():
        return
    if not folder.exists():
        raise PathError(f"no such folder: {folder}")
    found = (
        "an unfinished run (`falconet train --resume` goes on with it)"
        if (folder / "config.yaml").is_file()
        else "none"
    )
    raise PathError(f"{folder}: wanted a trained model ({CONFIG_FILE} and {WEIGHTS_FILE}), found {found}")


def load_artifact(folder: str | Path) -> Artifact:
    """Read an artifact. Raises PathError where the path holds none, ArtifactError where one is damaged or too new."""
    import safetensors.torch

    folder = Path(folder)
    check_artifact(folder)
    config, digest = read_config(folder / CONFIG_FILE)
    try:
        content = (folder / WEIGHTS_FILE).read_bytes()
        weights = safetensors.torch.load(content)
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder / WEIGHTS_FILE} is missing") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{folder / WEIGHTS_FILE} is damaged: {error}") from error
    if sha256(content).hexdigest() != digest:
        raise ArtifactError(f"{folder / WEIGHTS_FILE} is altered, or not the one that {CONFIG_FILE} was written with")
    return Artifact(config, weights)


def read_config(path: Path) -> tuple[ArtifactConfig, str]:
    """Read `config.json`; return it and the digest of the weights that belong to it."""
    record = read_json(path)
    digest = str(record.pop(DIGEST, ""))
    found = record.get("format_version")
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise ArtifactError(f"{path}: wanted format version {FORMAT_VERSION} or lower, found {found}: update falconet")
    try:
        return from_mapping(ArtifactConfig, record), digest
    except UsageError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def current_versions() -> dict[str, str]:
    """Return the versions that decide how a model answers."""
    packages = {name: version(name) for name in ("falconet", "torch", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages}
