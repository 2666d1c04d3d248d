"""The target `torch`: a `.pt2` file, which `torch.export.load` reads and runs without Falconet."""

from __future__ import annotations

from pathlib import Path

import torch

from falconet.exporters.drafts import Draft, Written
from falconet.exporters.metadata import KEY


def write_program(draft: Draft, path: Path) -> Written:
    """Write a `.pt2` file; the metadata are its extra file `falconet`."""
    torch.export.save(draft.program, path, extra_files={KEY: draft.metadata.to_json()})
    return Written(path)
