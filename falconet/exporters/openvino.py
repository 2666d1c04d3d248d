"""The target `openvino`: OpenVINO's intermediate representation, a `.xml` file with its weights in a `.bin` beside."""

from __future__ import annotations

from pathlib import Path

import openvino

from falconet.exporters.metadata import METADATA_KEY
from falconet.exporters.onnx import write_onnx
from falconet.exporters.tracing import TracedModel, Written


def write_openvino(traced: TracedModel, path: Path) -> Written:
    """Write both files, by way of ONNX, weights in single precision. Raises ExportError as `write_onnx` does."""
    passage = traced.scratch / "passage.onnx"
    write_onnx(traced, passage)
    # Not convert_model, which sends telemetry.
    model = openvino.Core().read_model(passage)
    for name, value in traced.metadata.to_properties().items():
        model.set_rt_info(value, [METADATA_KEY, "metadata" if name == METADATA_KEY else name])
    openvino.save_model(model, path, compress_to_fp16=False)
    return Written(path)
