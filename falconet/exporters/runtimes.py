"""Exported files, opened and run by their own runtimes. Torch is imported only for files that are torch's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from falconet.errors import ExportError, MissingExtraError, PathError
from falconet.exporters.metadata import METADATA_KEY, Metadata, read_metadata
from falconet.exporters.targets import Runtime
from falconet.storage import settle


@dataclass(frozen=True, eq=False)
class Session:
    """An exported file that is ready for inference."""

    metadata: Metadata
    run: Callable[[np.ndarray], np.ndarray]
    """Returns the outputs, of shape (batch, classes), for a batch of the file's inputs."""


def open_session(runtime: Runtime, path: Path, *, threads: int = 1) -> Session:
    """Load an exported file. Raises PathError without one, ExportError for one that is damaged or not falconet's.

    `threads` are those of onnxruntime and OpenVINO; torch computes with as many as its process has set, and ExecuTorch
    with as many as it likes.
    """
    settle(path.parent, name=path.name)
    if path.is_dir():
        raise PathError(f"{path}: wanted a file that `falconet export` wrote, found a folder")
    if not path.is_file():
        raise PathError(f"no such file: {path}")
    try:
        return _OPENERS[runtime](path, threads)
    except (ExportError, MissingExtraError):
        raise
    except Exception as error:  # Runtimes raise classes of their own, without a common base.
        reason = " ".join(str(error).split())[:400]
        raise ExportError(f"{path}: {runtime} cannot read it: {reason}") from error


def _open_onnx(path: Path, threads: int) -> Session:
    """Open a file by onnxruntime, on the processor."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("export", "onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), str(path))
    name = session.get_inputs()[0].name
    return Session(metadata, lambda batch: np.asarray(session.run(None, {name: batch})[0]))


def _open_openvino(path: Path, threads: int) -> Session:
    """Open a file by OpenVINO, on the processor, in single precision even where the processor has a faster one."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "OpenVINO") from error
    core = openvino.Core()
    model = core.read_model(path)
    # In its own format as the target `openvino` writes it; in ONNX files where OpenVINO puts what they say.
    places = ([METADATA_KEY, "metadata"], ["framework", METADATA_KEY])
    found = next((model.get_rt_info(place).astype(str) for place in places if model.has_rt_info(place)), None)
    metadata = read_metadata(found, str(path))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    # A copy: the request writes each answer where the last one was.
    return Session(metadata, lambda batch: np.array(request.infer([batch])[0]))


def _open_program(path: Path, threads: int) -> Session:
    """Open a file by torch.export."""
    import torch

    extra = {METADATA_KEY: ""}
    module = torch.export.load(path, extra_files=extra).module()
    metadata = read_metadata(extra[METADATA_KEY] or None, str(path))

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answers: np.ndarray = module(torch.from_numpy(batch)).numpy()
        return answers

    return Session(metadata, run)


def _open_executorch(path: Path, threads: int) -> Session:
    """Open a file by ExecuTorch."""
    try:
        with warnings.catch_warnings():
            # Of its Python runtime, which is there to try what will run elsewhere: just what it is used for.
            warnings.filterwarnings("ignore", message="This API is experimental", module="executorch")
            from executorch.runtime import Runtime as ExecuTorch
    except ImportError as error:
        raise MissingExtraError("executorch", "ExecuTorch") from error
    import torch

    program = ExecuTorch.get().load_program(path)
    record = program.load_method(METADATA_KEY).execute([])[0] if METADATA_KEY in program.method_names else None
    metadata = read_metadata(record, str(path))
    method = program.load_method("forward")

    def run(batch: np.ndarray) -> np.ndarray:
        answers: np.ndarray = method.execute([torch.from_numpy(batch)])[0].numpy()
        return answers.copy()

    return Session(metadata, run)


_OPENERS: dict[Runtime, Callable[[Path, int], Session]] = {
    "onnxruntime": _open_onnx,
    "openvino": _open_openvino,
    "torch": _open_program,
    "executorch": _open_executorch,
}
