"""How long each runtime takes for one network's answer, measured alike; for reports and comparisons."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from falconet.artifact import Artifact, current_versions
from falconet.errors import ExportError
from falconet.exporters.graphs import Draft, make_graph
from falconet.exporters.metadata import Metadata
from falconet.exporters.programs import trace
from falconet.exporters.runtimes import Session, open_openvino, open_session
from falconet.exporters.targets import TARGETS, Runtime, is_installed
from falconet.latency import Latency, measure_latency, pinned_threads


def time_runtimes(artifact: Artifact) -> dict[Runtime, Latency]:
    """Return the latency of one normalized sample in each runtime that is installed, on one thread of this machine.

    Torch comes first; onnxruntime and OpenVINO are left out for a network that cannot be exported.
    """
    return {"torch": time_torch(artifact), **time_exported(artifact)}


def find_fastest(latencies: Mapping[Runtime, Latency]) -> Runtime:
    """Return the runtime with the least median."""
    return min(latencies, key=lambda runtime: latencies[runtime].p50)


def time_torch(artifact: Artifact) -> Latency:
    """Return the latency of the network as torch computes it."""
    sample = artifact.make_blank()
    with pinned_threads(1), torch.inference_mode():
        return measure_latency(lambda: artifact.model(sample))


def time_exported(artifact: Artifact) -> dict[Runtime, Latency]:
    """Return the latencies of the bare network as ONNX, in the runtimes that are installed."""
    if not is_installed(TARGETS["onnx"]):
        return {}
    sample = artifact.make_blank().numpy()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "network.onnx"
        try:
            write_network(artifact, path)
        except ExportError:
            return {}
        sessions: dict[Runtime, Session] = {"onnxruntime": open_session("onnxruntime", path)}
        if is_installed(TARGETS["openvino"]):
            sessions["openvino"] = open_openvino(path, 1)
        return {
            runtime: measure_latency(lambda session=session: session.ask(sample))  # type: ignore[misc]
            for runtime, session in sessions.items()
        }


def write_network(artifact: Artifact, path: Path) -> None:
    """Write the bare network as ONNX. Raises ExportError."""
    from falconet.exporters.onnx import write_onnx

    graph = make_graph(artifact, raw=True)
    metadata = Metadata(artifact.config.architecture, artifact.config.input, "logits", current_versions(), "")
    write_onnx(Draft(graph, trace(graph, {}), metadata, "network", (), path.parent), path)
