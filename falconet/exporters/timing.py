"""Latencies of networks in each runtime, measured alike; for reports and comparisons."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from falconet import interruption
from falconet.artifact import Artifact
from falconet.errors import ExportError, MissingExtraError
from falconet.exporters.inference import infer
from falconet.exporters.runtimes import open_session
from falconet.exporters.targets import TARGETS, Runtime, is_installed
from falconet.latency import Latency, measure_latencies, measure_latency, pinned_threads
from falconet.storage import scratch

_LOGGER = logging.getLogger(__name__)
_Call = Callable[[], object]
"""Function that runs a network on one sample."""
_QUICK = 0.5
"""Seconds spent on the latency that every report has."""
_UNROLLED = 128
"""Most steps of recurrence that are exported just to be timed: 1,460 took 17 minutes."""


def time_torch(artifact: Artifact, *, seconds: float = _QUICK) -> Latency:
    """Return the latency of one normalized sample in torch, on one thread of this machine, measured within `seconds`.

    A network that takes longer than that is run once to warm up, and once more.
    """
    with pinned_threads(1), torch.inference_mode():
        return measure_latency(partial(artifact.model, artifact.make_blank()), seconds=seconds, least=1)


def time_runtimes(artifact: Artifact) -> dict[Runtime, Latency]:
    """Return the latency of one normalized sample in each runtime that is installed, on one thread of this machine.

    Torch comes first; onnxruntime and OpenVINO are left out, with a warning, for a network that they cannot run.
    """
    return time_together([artifact])[0]


def time_together(artifacts: Sequence[Artifact]) -> list[dict[Runtime, Latency]]:
    """Return the latencies of several networks as `time_runtimes` does.

    All take turns, in all runtimes, so that `falconet.latency.compare_latencies` can tell any two apart.
    """
    if not artifacts:
        return []
    with scratch() as folder:
        homes = [folder / str(index) for index in range(len(artifacts))]
        calls: list[dict[Runtime, _Call]] = [
            {"torch": partial(artifact.model, artifact.make_blank()), **open_exported(artifact, home)}
            for artifact, home in zip(artifacts, homes, strict=True)
        ]
        with pinned_threads(1), torch.inference_mode():
            latencies = iter(measure_latencies([call for own in calls for call in own.values()]))
    return [{runtime: next(latencies) for runtime in own} for own in calls]


def find_fastest(latencies: Mapping[Runtime, Latency]) -> Runtime:
    """Return the runtime with the least median."""
    return min(latencies, key=lambda runtime: latencies[runtime].p50)


def open_exported(artifact: Artifact, folder: Path) -> dict[Runtime, _Call]:
    """Return functions that run the bare network as ONNX on a sample, for each installed runtime that can run it.

    What cannot be exported, or not run, is logged and left out, as reports list the runtimes that there are; any
    other error comes through.
    """
    if not is_installed(TARGETS["onnx"]):
        return {}
    path, name, found = folder / "network.onnx", artifact.config.architecture, dict[Runtime, _Call]()
    unrolled = _count_unrolled(artifact)
    if unrolled > _UNROLLED:
        _LOGGER.warning(
            "%s is timed in torch alone: an export would unroll %d steps of recurrence, for minutes (limit: %d)",
            name,
            unrolled,
            _UNROLLED,
        )
        return {}
    folder.mkdir()
    try:
        write_network(artifact, path)
    except ExportError as error:
        _LOGGER.warning("%s is timed in torch alone: %s", name, error)
        return {}
    for runtime in _list_runtimes():
        try:
            found[runtime] = _open_call(runtime, path, artifact)
        except (ExportError, MissingExtraError) as error:
            _LOGGER.warning("%s is not timed in %s: %s", name, runtime, error)
    interruption.check()
    return found


@torch.inference_mode()
def _count_unrolled(artifact: Artifact) -> int:
    """Return over how many steps recurrent layers go for a sample, of all layers and directions together."""
    total = 0

    def count(layer: nn.RNNBase, inputs: tuple[Any, ...]) -> None:
        nonlocal total
        found = inputs[0].data if isinstance(inputs[0], PackedSequence) else inputs[0]
        steps = found.shape[0 if isinstance(inputs[0], PackedSequence) or not layer.batch_first else 1]
        total += steps * layer.num_layers * (2 if layer.bidirectional else 1)

    layers = [layer for layer in artifact.model.modules() if isinstance(layer, nn.RNNBase)]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        if layers:
            artifact.model(artifact.make_blank())
    finally:
        for hook in hooks:
            hook.remove()
    return total


def describe_plan() -> str:
    """Return what `time_runtimes` is about to do, and for how long."""
    if not is_installed(TARGETS["onnx"]):
        return "no other runtime is installed: timing torch alone, some seconds"
    names = " and ".join(_list_runtimes())
    return f"timing torch, {names}: an export, some ten seconds, up to some minutes for large networks"


def _list_runtimes() -> list[Runtime]:
    """Return the runtimes that read ONNX and are installed."""
    return ["onnxruntime", *(("openvino",) if is_installed(TARGETS["openvino"]) else ())]


def _open_call(runtime: Runtime, path: Path, artifact: Artifact) -> _Call:
    """Return a function that runs an exported network in a runtime, after one warm-up call. Raises ExportError."""
    session, sample = open_session(runtime, path, threads=1), artifact.make_blank().numpy()
    infer(session, sample)
    return partial(session.run, sample)


def write_network(artifact: Artifact, path: Path) -> None:
    """Write the bare network as ONNX. Raises ExportError."""
    # Both import the whole of torch.export, in seconds.
    from falconet.exporters.onnx import write_onnx
    from falconet.exporters.tracing import make_traced

    write_onnx(make_traced(artifact, path.parent, preprocessing=False), path)
