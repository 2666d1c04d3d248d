"""The model repository, read by the schema that the server itself reads it with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from falconet.exporters.triton import quote
from tests.exporters.conftest import Exporter

TYPES = {
    "TYPE_UINT8": onnx.TensorProto.UINT8,
    "TYPE_INT64": onnx.TensorProto.INT64,
    "TYPE_FP32": onnx.TensorProto.FLOAT,
}


def read_config(model: Path) -> Any:
    text = (model.parents[1] / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[int]]:
    """Return name, type, and sizes after the batch of what goes in or out, -1 where it is free."""
    tensor = value.type.tensor_type
    sizes = [dimension.dim_value if dimension.HasField("dim_value") else -1 for dimension in tensor.shape.dim]
    assert sizes[0] == -1
    return value.name, tensor.elem_type, sizes[1:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_config_describes_the_graph(kind: str, exported: Exporter) -> None:
    path = exported(kind, "triton")
    config, graph = read_config(path), onnx.load(path).graph
    for tensors, values in ((config.input, graph.input), (config.output, graph.output)):
        found = [(t.name, TYPES[model_config_pb2.DataType.Name(t.data_type)], list(t.dims)) for t in tensors]
        assert found == [describe(value) for value in values]
    assert config.name == path.parents[1].name
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_config_names_the_classes(kind: str, exported: Exporter) -> None:
    path = exported(kind, "triton")
    config = read_config(path)
    labels = json.loads(config.parameters["labels"].string_value)
    assert len(labels) == config.output[0].dims[0] == 10
    assert config.parameters["license"].string_value == "apache-2.0"
    lines = (path.parents[1] / config.output[0].label_filename).read_text(encoding="utf-8").splitlines()
    # A blank at the end of a label is part of it.
    assert lines == labels


@pytest.mark.slow
def test_the_tokenizer_lies_beside_a_model_of_texts(exported: Exporter) -> None:
    path = exported("text", "triton")
    assert {file.name for file in path.parent.iterdir()} == {"model.onnx", "model.tokenizer.json"}


@given(text=st.text())
def test_any_text_can_be_quoted(text: str) -> None:
    config = text_format.Parse(f"name: {quote(text)}", model_config_pb2.ModelConfig())
    assert config.name == text
