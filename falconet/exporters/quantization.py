"""The target `onnx-int8`: an ONNX file whose layers compute with 8-bit integers, between QuantizeLinear and back.

Jacob et al.: Quantization and training of neural networks for efficient integer-arithmetic-only inference. CVPR, 2018.
Ranges are the least and greatest values that the calibration samples show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from falconet.errors import ExportError
from falconet.exporters.onnx import SCOPES, save_checked, write_onnx
from falconet.exporters.tracing import TracedModel, Written

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose weights become integers."""
_CARRIED = frozenset({"Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Concat", "Mul", "Sigmoid"})
"""Operators between those with weights that compute with integers too."""
_SEQUENTIAL = frozenset({"Softmax", "LSTM", "GRU", "RNN"})
"""Operators of attention and recurrent layers."""


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Hands samples to the quantizer one by one."""

    def __init__(self, name: str, inputs: Iterable[np.ndarray]) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = ({name: array[None]} for array in inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def write_int8(traced: TracedModel, path: Path) -> Written:
    """Write a `.onnx` file with integer weights, a scale for each output channel, and integer activations.

    Preprocessing and the softmax stay in single precision, and so do attention, normalization and recurrent layers,
    for which there are no such operators. Weights take 7 bits: with 8, processors without instructions for dot products
    of integers add two products up in 16 bits, which overflow, so that results would depend on the machine. Raises
    ExportError where no layer is left.
    """
    baseline = traced.scratch / "baseline.onnx"
    write_onnx(traced, baseline)
    nodes = _choose_nodes(onnx.load(baseline).graph)
    if not nodes:
        raise ExportError(f"{traced.metadata.architecture} has no layer that could compute with integers")
    shaped = traced.scratch / "shaped.onnx"
    # Shapes are all that is missing; torch's converter has fused and folded what can be.
    quant_pre_process(baseline, shaped, skip_optimization=True, skip_symbolic_shape=True)
    quantize_static(
        shaped,
        path,
        _Calibration(traced.graph.input, traced.calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=nodes,
    )
    save_checked(onnx.load(path), traced.metadata, path)
    return Written(path, baseline)


def _choose_nodes(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes that are to compute with integers: the network's own, with weights or between.

    What lies between stays in single precision in networks with attention or recurrent layers, and in those without
    convolutions, which gain nothing by it.
    """
    nodes = [node for node in graph.node if not (_is_preprocessing(node) or graph.output[0].name in node.output)]
    kinds = {node.op_type for node in nodes}
    carried = _CARRIED if "Conv" in kinds and not kinds & _SEQUENTIAL else frozenset()
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in nodes
        if node.op_type in carried or (node.op_type in _WEIGHTED and weights.intersection(node.input))
    ]


def _is_preprocessing(node: onnx.NodeProto) -> bool:
    """Tell whether a node belongs to the preprocessing before the network."""
    scopes = {entry.key: entry.value for entry in node.metadata_props}.get(SCOPES, "")
    return "'preprocess'" in scopes
