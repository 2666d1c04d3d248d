"""How long each runtime takes for one network's answer, measured alike; for reports and comparisons."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from falconet import interruption
from falconet.artifact import Artifact
from falconet.exporters.drafts import make_draft
from falconet.exporters.runtimes import open_session
from falconet.exporters.targets import TARGETS, Runtime, is_installed
from falconet.latency import Latency, measure_latencies, pinned_threads


def time_runtimes(artifact: Artifact) -> dict[Runtime, Latency]:
    """Return the latency of one normalized sample in each runtime that is installed, on one thread of this machine.

    Torch comes first; onnxruntime and OpenVINO are left out for a network that they cannot run.
    """
    return time_together([artifact])[0]


def time_together(artifacts: Sequence[Artifact]) -> list[dict[Runtime, Latency]]:
    """Return the same for several networks that answer in turns, so that their ratio is told well.

    A runtime that cannot run all of them is left out.
    """
    found: dict[Runtime, list[Latency]] = {"torch": time_torch(artifacts), **time_exported(artifacts)}
    return [{runtime: latencies[index] for runtime, latencies in found.items()} for index in range(len(artifacts))]


def find_fastest(latencies: Mapping[Runtime, Latency]) -> Runtime:
    """Return the runtime with the least median."""
    return min(latencies, key=lambda runtime: latencies[runtime].p50)


def time_torch(artifacts: Sequence[Artifact]) -> list[Latency]:
    """Return the latencies of networks as torch computes them."""
    with pinned_threads(1), torch.inference_mode():
        return measure_latencies([partial(artifact.model, artifact.make_blank()) for artifact in artifacts])


def time_exported(artifacts: Sequence[Artifact]) -> dict[Runtime, list[Latency]]:
    """Return the latencies of the bare networks as ONNX, in the runtimes that are installed and can run them all."""
    if not is_installed(TARGETS["onnx"]):
        return {}
    found: dict[Runtime, list[Latency]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(index) / "network.onnx" for index in range(len(artifacts))]
        try:
            for artifact, path in zip(artifacts, paths, strict=True):
                path.parent.mkdir()
                write_network(artifact, path)
            samples = [artifact.make_blank().numpy() for artifact in artifacts]
            for runtime in list_runtimes():
                found[runtime] = time_sessions(runtime, paths, samples)
        except Exception as error:  # Runtimes raise what they like, and a report must be written all the same.
            logging.getLogger(__name__).info("not timed: %s", error)
    interruption.check()
    return found


def list_runtimes() -> list[Runtime]:
    """Return those that read ONNX and are installed."""
    return ["onnxruntime", *(("openvino",) if is_installed(TARGETS["openvino"]) else ())]


def time_sessions(runtime: Runtime, paths: Sequence[Path], samples: Sequence[np.ndarray]) -> list[Latency]:
    """Return the latencies of exported networks in a runtime."""
    sessions = [open_session(runtime, path, threads=1) for path in paths]
    return measure_latencies([partial(session.ask, one) for session, one in zip(sessions, samples, strict=True)])


def write_network(artifact: Artifact, path: Path) -> None:
    """Write the bare network as ONNX. Raises ExportError."""
    from falconet.exporters.onnx import write_onnx

    write_onnx(make_draft(artifact, path.parent, raw=True), path)
