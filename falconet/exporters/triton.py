"""The target `triton`: a model repository of NVIDIA's Triton Inference Server, which runs it by onnxruntime.

REPOSITORY/NAME/config.pbtxt      what goes in and out, in protobuf's text form
REPOSITORY/NAME/labels.txt        class names, which the server returns where it is asked for classifications
REPOSITORY/NAME/1/model.onnx      the model, as `onnx` writes it; beside it the tokenizer of a model of texts
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from falconet.escaping import escape_line
from falconet.exporters.metadata import METADATA_KEY, Metadata
from falconet.exporters.onnx import write_onnx
from falconet.exporters.tracing import TracedModel, Written

_TYPES: dict[int, str] = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.UINT16: "TYPE_UINT16",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
}
_MOST = 64
"""Most samples that the server may gather into one batch."""


def write_triton(traced: TracedModel, path: Path) -> Written:
    """Write a folder for the model into a repository."""
    folder = path / traced.name
    main = folder / "1" / "model.onnx"
    main.parent.mkdir(parents=True)
    write_onnx(traced, main)
    graph = onnx.load(main).graph
    (folder / "config.pbtxt").write_text(_describe_model(traced.name, graph, traced.metadata), encoding="utf-8")
    # Blanks and breaks too are part of a name: two that differ in these alone stay two.
    labels = map(escape_line, traced.metadata.output_spec.labels)
    (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    return Written(main)


def _describe_model(name: str, graph: onnx.GraphProto, metadata: Metadata) -> str:
    """Return `config.pbtxt`; dimensions leave out the batch, which the server makes."""
    properties = "".join(
        f"parameters {{ key: {quote(key)} value {{ string_value: {quote(value)} }} }}\n"
        for key, value in metadata.to_properties().items()
        if key != METADATA_KEY  # The model itself has it, and whoever asks the server reads these.
    )
    return (
        f"name: {quote(name)}\n"
        'platform: "onnxruntime_onnx"\n'
        f"max_batch_size: {_MOST}\n"
        f"input [ {{ {_describe_tensor(graph.input[0])} }} ]\n"
        f'output [ {{ {_describe_tensor(graph.output[0])} label_filename: "labels.txt" }} ]\n'
        "dynamic_batching { }\n"
        f"{properties}"
    )


def _describe_tensor(value: onnx.ValueInfoProto) -> str:
    """Return the fields of an input or output."""
    tensor = value.type.tensor_type
    sizes = [str(-1 if dimension.dim_param else dimension.dim_value) for dimension in tensor.shape.dim][1:]
    return f"name: {quote(value.name)} data_type: {_TYPES[tensor.elem_type]} dims: [ {', '.join(sizes)} ]"


def quote(text: str) -> str:
    """Return a string as protobuf's text form has it, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)
