"""Metadata: what an exported file says of itself, whatever its format. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from falconet.errors import ConfigError, ExportError, UsageError, abridge
from falconet.modalities import modality_of
from falconet.schema import from_mapping, to_mapping
from falconet.spec import InputSpec, OutputSpec, upgrade_record

_FORMAT_VERSION = 2
METADATA_KEY = "falconet"
"""Under which formats with named properties hold the metadata, as JSON."""
UNSTATED = "not stated"


@dataclass(frozen=True)
class Metadata:
    """What a user of an exported file must know."""

    architecture: str
    input: InputSpec
    output_spec: OutputSpec
    """What its outputs mean: the names of classes in their order."""
    output: Literal["probabilities", "logits"]
    """Of the whole way from raw samples, or of the bare network on normalized input."""
    versions: Mapping[str, Any]
    """Of falconet and torch."""
    data: str
    """Fingerprint of the data that the model was trained on."""
    license: str = UNSTATED
    batch: int | None = None
    """Samples that are asked at once; None: as many as one likes."""
    steps: tuple[int, int] | None = None
    """Fewest and most tokens or steps of a sequence; None: images, or as many as `input` says and no others."""
    sides: int | None = None
    """Most pixels of an image's height and width; None: there is no limit."""
    tokenizer_sha256: str | None = None
    """Hash of the tokenizer's file beside a model of texts."""
    format_version: int = _FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in ("batch", "sides"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: wanted 1 or more, or null, found {value}")
        if self.steps is not None and not 1 <= self.steps[0] <= self.steps[1]:
            raise ConfigError(f"steps: wanted fewest and most, 1 or more, found {list(self.steps)}")

    @property
    def preprocessing(self) -> bool:
        """Whether the file takes raw samples; else it holds the bare network."""
        return self.output == "probabilities"

    def to_json(self) -> str:
        """Return all of it on one line."""
        return json.dumps(to_mapping(self), ensure_ascii=False)

    def to_properties(self) -> dict[str, str]:
        """Return what a format with named properties holds: all of it, and again what people look for."""
        return {
            METADATA_KEY: self.to_json(),
            "labels": json.dumps(self.output_spec.labels, ensure_ascii=False),
            "license": self.license,
            "version": self.versions["falconet"],
        }


def read_metadata(text: str | None, where: str) -> Metadata:
    """Return what a file says of itself. Raises ExportError for a file that falconet did not write, or a newer one."""
    if text is None:
        raise ExportError(f"{where}: wanted a file that `falconet export` wrote, found one without its metadata")
    try:
        record: dict[str, Any] = json.loads(text)
        version = record["format_version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ExportError(f"{where}: its metadata are damaged: {error}") from error
    if not isinstance(version, int) or version > _FORMAT_VERSION:
        found = abridge(version)
        raise ExportError(f"{where}: wanted format version {_FORMAT_VERSION} or lower, found {found}: update falconet")
    try:
        metadata = from_mapping(Metadata, upgrade_record(record, "output_spec"))
    except UsageError as error:
        raise ExportError(f"{where}: its metadata are damaged: {error}") from error
    if modality_of(metadata.input).has_tokens != (metadata.tokenizer_sha256 is not None):
        raise ExportError(f"{where}: its metadata are damaged: wanted a tokenizer for texts, and for nothing else")
    return metadata
