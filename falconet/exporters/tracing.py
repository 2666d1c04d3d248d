"""TracedModel: a network as torch.export has it, with all that a format's file is written from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch.export import ExportedProgram

from falconet.artifact import Artifact, current_versions
from falconet.exporters.graphs import Graph, make_graph
from falconet.exporters.metadata import UNSTATED, Metadata
from falconet.exporters.programs import find_steps, trace

_NOWHERE: Mapping[str, int] = MappingProxyType({})
"""Empty mapping: no dimension is bounded."""


@dataclass(frozen=True, eq=False)
class TracedModel:
    """A traced graph, what the file says of itself, and what only some formats need."""

    graph: Graph
    program: ExportedProgram
    metadata: Metadata
    scratch: Path
    """Folder for files that are not part of the export."""
    name: str = "model"
    """Name of the model, for formats that keep several."""
    calibration: Iterable[np.ndarray] = ()
    """Inputs of single samples, by which ranges of integers are chosen; empty for formats without."""


@dataclass(frozen=True)
class Written:
    """Files that a writer has written."""

    main: Path
    """Path that the runtime opens; all other files written, except to `scratch`, belong to it."""
    baseline: Path | None = None
    """Path of the same model in single precision, in `scratch`; None: there is nothing to compare with."""


def make_traced(
    artifact: Artifact,
    scratch: Path,
    *,
    preprocessing: bool = True,
    max_sizes: Mapping[str, int] = _NOWHERE,
    license_name: str = UNSTATED,
) -> TracedModel:
    """Trace a model; `max_sizes` bounds dimensions by name. Raises ExportError, which names the layer to blame."""
    graph = make_graph(artifact, preprocessing=preprocessing)
    program = trace(graph, max_sizes)
    config, tokenizer = artifact.config, artifact.tokenizer
    metadata = Metadata(
        architecture=config.architecture,
        input=config.input,
        output_spec=config.output,
        output="probabilities" if preprocessing else "logits",
        versions=current_versions(),
        data=config.provenance.data.fingerprint,
        license=license_name,
        batch=max_sizes.get("batch"),
        steps=find_steps(program, graph),
        sides=max_sizes.get("height") if "height" in graph.axes.values() else None,
        tokenizer_sha256=None if tokenizer is None else sha256(tokenizer.encode()).hexdigest(),
    )
    return TracedModel(graph, program, metadata, scratch)
