"""The target `executorch`: a `.pte` file for phones and microcontrollers, its layers computed by XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from falconet.errors import ExportError
from falconet.exporters.metadata import METADATA_KEY
from falconet.exporters.programs import refuse, trace_layer
from falconet.exporters.tracing import TracedModel, Written


def write_executorch(traced: TracedModel, path: Path) -> Written:
    """Write a `.pte` file; the metadata are what its method `falconet` returns.

    Raises ExportError, which names the layer that ExecuTorch does not know.
    """
    if traced.graph.example.dtype == torch.uint16:
        raise ExportError(
            "ExecuTorch takes no images of 16 bits, as this model's are: export with --no-preprocessing, or as onnx"
        )
    try:
        edge = to_edge_transform_and_lower(
            traced.program,
            partitioner=[XnnpackPartitioner()],
            constant_methods={METADATA_KEY: traced.metadata.to_json()},
        )
        path.write_bytes(edge.to_executorch().buffer)
    except Exception as error:  # The compiler raises what it likes.
        raise refuse(traced.graph, error, _lower_layer) from error
    return Written(path)


def _lower_layer(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Try to lower one layer of a network."""
    to_edge_transform_and_lower(trace_layer(module, inputs), partitioner=[XnnpackPartitioner()]).to_executorch()
