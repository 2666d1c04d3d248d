"""How long each runtime takes for one network's answer, measured alike; for reports and comparisons."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from falconet.artifact import Artifact
from falconet.exporters.drafts import make_draft
from falconet.exporters.runtimes import open_session
from falconet.exporters.targets import TARGETS, Runtime, is_installed
from falconet.latency import Latency, measure_latency, pinned_threads


def time_runtimes(artifact: Artifact) -> dict[Runtime, Latency]:
    """Return the latency of one normalized sample in each runtime that is installed, on one thread of this machine.

    Torch comes first; onnxruntime and OpenVINO are left out for a network that they cannot run.
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
    """Return the latencies of the bare network as ONNX, in the runtimes that are installed and can run it."""
    if not is_installed(TARGETS["onnx"]):
        return {}
    found: dict[Runtime, Latency] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        try:
            write_network(artifact, path)
            for runtime in list_runtimes():
                found[runtime] = time_session(runtime, path, artifact.make_blank().numpy())
        except Exception as error:  # Runtimes raise what they like, and a report must be written all the same.
            logging.getLogger(__name__).info("not timed: %s", error)
    return found


def list_runtimes() -> list[Runtime]:
    """Return those that read ONNX and are installed."""
    return ["onnxruntime", *(("openvino",) if is_installed(TARGETS["openvino"]) else ())]


def time_session(runtime: Runtime, path: Path, sample: np.ndarray) -> Latency:
    """Return the latency of an exported network in a runtime."""
    session = open_session(runtime, path, threads=1)
    return measure_latency(lambda: session.ask(sample))


def write_network(artifact: Artifact, path: Path) -> None:
    """Write the bare network as ONNX. Raises ExportError."""
    from falconet.exporters.onnx import write_onnx

    write_onnx(make_draft(artifact, path.parent, raw=True), path)
