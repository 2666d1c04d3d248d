"""The target `executorch`: a `.pte` file for phones and microcontrollers, its layers computed by XNNPACK."""

from __future__ import annotations

from pathlib import Path

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from falconet.exporters.graphs import Draft, Written
from falconet.exporters.metadata import KEY


def write_executorch(draft: Draft, path: Path) -> Written:
    """Write a `.pte` file; the metadata are what its method `falconet` returns."""
    edge = to_edge_transform_and_lower(
        draft.program, partitioner=[XnnpackPartitioner()], constant_methods={KEY: draft.metadata.to_json()}
    )
    path.write_bytes(edge.to_executorch().buffer)
    return Written(path)
