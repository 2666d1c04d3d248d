"""The target `torch`: a `.pt2` file, which `torch.export.load` reads and runs without Falconet."""

from __future__ import annotations

from pathlib import Path

import torch

from falconet.exporters.metadata import METADATA_KEY
from falconet.exporters.tracing import TracedModel, Written


def write_program(traced: TracedModel, path: Path) -> Written:
    """Write a `.pt2` file; the metadata are its extra file `falconet`."""
    torch.export.save(traced.program, path, extra_files={METADATA_KEY: traced.metadata.to_json()})
    return Written(path)
