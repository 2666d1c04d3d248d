"""Metadata of an exported file, the same in all formats. Imports no torch."""

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
"""Name of the property that holds the metadata, as JSON, in formats with named properties."""
UNSTATED = "not stated"


@dataclass(frozen=True)
class Metadata:
    """Metadata that a user of an exported file needs."""

    architecture: str
    input: InputSpec
    output_spec: OutputSpec
    """Meaning of the outputs: the names of classes in their order."""
    output: Literal["probabilities", "logits"]
    """Output: `probabilities` from raw samples, or `logits` of the bare network from normalized input."""
    versions: Mapping[str, Any]
    """Versions of Python, falconet, torch, numpy and pillow that wrote the file."""
    data: str
    """Fingerprint of the data that the model was trained on."""
    license: str = UNSTATED
    batch: int | None = None
    """Fixed number of samples in a batch; None: any number."""
    steps: tuple[int, int] | None = None
    """Fewest and most tokens or steps of a sequence; None: images, or exactly as many as `input` states."""
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
        """Return the metadata as one line of JSON."""
        return json.dumps(to_mapping(self), ensure_ascii=False)

    def to_properties(self) -> dict[str, str]:
        """Return properties for a format with named ones: all metadata, and again those that people look for."""
        return {
            METADATA_KEY: self.to_json(),
            "labels": json.dumps(self.output_spec.labels, ensure_ascii=False),
            "license": self.license,
            "version": self.versions["falconet"],
        }


def read_metadata(text: str | None, where: str) -> Metadata:
    """Return a file's metadata. Raises ExportError for a file that falconet did not write, or a newer one."""
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
