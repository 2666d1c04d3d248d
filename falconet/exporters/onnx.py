"""The target `onnx`: one file that onnxruntime and many others read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import ExportedProgram

from falconet.errors import ExportError
from falconet.exporters.graphs import Graph
from falconet.exporters.metadata import Metadata
from falconet.exporters.programs import find_reason, quiet, refuse, trace_layer
from falconet.exporters.tracing import TracedModel, Written

SCOPES = "pkg.torch.onnx.name_scopes"
"""Key of the property in which the converter names the layer that a node comes from."""


def write_onnx(traced: TracedModel, path: Path) -> Written:
    """Write a `.onnx` file. Raises ExportError, which names the layer that ONNX does not know."""
    save_checked(convert(traced.program, traced.graph), traced.metadata, path)
    return Written(path)


def save_checked(model: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    """Write a graph with its metadata. Raises ExportError for one that is not valid, or too large for one file."""
    onnx.helper.set_model_props(model, metadata.to_properties())
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(f"{metadata.architecture} makes no valid ONNX file: {find_reason(error)}") from error


def convert(program: ExportedProgram, graph: Graph) -> onnx.ModelProto:
    """Return a traced graph as ONNX, its dimensions named."""
    try:
        with quiet():
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[graph.input], output_names=[graph.output]
            )
    except Exception as error:  # The converter raises what it likes.
        raise refuse(graph, error, _convert_layer) from error
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    _name_dimensions(model, graph.axes)
    for part in list_parts(model):
        # Files, lines and settings of the machine that converted it; whoever gets the file has no use for them.
        scopes = [entry for entry in part.metadata_props if entry.key == SCOPES]
        del part.metadata_props[:]
        part.metadata_props.extend(scopes)
        part.ClearField("doc_string")
    return model


def list_parts(model: onnx.ModelProto) -> Iterator[Any]:
    """Yield all parts that may have metadata of their own: graphs, functions, and their contents, at any depth."""
    graphs = [model.graph]
    holders: list[Any] = list(model.functions)
    while graphs or holders:
        if graphs:
            graph = graphs.pop()
            yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
            holders.append(graph)
        holder = holders.pop()
        yield from (holder, *holder.node)
        for attribute in (attribute for node in holder.node for attribute in node.attribute):
            attribute.ClearField("doc_string")
            graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _convert_layer(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Try to convert one layer of a network."""
    program = trace_layer(module, inputs)
    with quiet():
        torch.onnx.export(program, dynamo=True, verbose=False)


def _name_dimensions(model: onnx.ModelProto, axes: Mapping[int, str]) -> None:
    """Call the free dimensions of the graph by their names instead of the tracer's symbols."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    names = {dimensions[axis].dim_param: name for axis, name in axes.items()}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
