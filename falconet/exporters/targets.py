"""TARGETS, the one table of formats that models are exported to. Importing it imports neither torch nor a runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from falconet.errors import ConfigError, MissingExtraError, StorageError, UnknownNameError

Runtime = Literal["onnxruntime", "openvino", "executorch", "torch"]


@dataclass(frozen=True)
class Target:
    """One export format: a row of TARGETS."""

    writer: str
    """`module:function`; the function writes a `TracedModel` to a path whose folder exists, and returns `Written`."""

    runtime: Runtime
    """Runtime that the export is run with, here and in the parity check."""

    suffix: str
    """Suffix of the file's name; empty for a folder."""

    modules: tuple[str, ...] = ()
    """Modules of other packages that are needed."""

    extra: str = ""
    """Extra (optional dependencies) that installs `modules`; empty: none is needed."""

    exact: bool = True
    """Whether probabilities must be the model's own; False: integers, whose loss of accuracy is limited."""

    max_sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Bounds of dimensions by name, where the format plans its memory beforehand."""


_MAX_PIXELS = 1024
"""Most pixels of an image's side where memory is planned beforehand: 25 MB for one in color, in single precision twice
over."""
MAX_DROP = 0.5
"""Points of accuracy that integers may cost by default."""
_ONNX = ("onnx", "onnxscript", "onnxruntime")

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "onnx": Target("falconet.exporters.onnx:write_onnx", "onnxruntime", ".onnx", _ONNX, "export"),
        "onnx-int8": Target(
            "falconet.exporters.quantization:write_int8", "onnxruntime", ".onnx", _ONNX, "export", exact=False
        ),
        "openvino": Target(
            "falconet.exporters.openvino:write_openvino",
            "openvino",
            ".xml",
            (*_ONNX, "openvino"),
            "openvino",
        ),
        "executorch": Target(
            "falconet.exporters.executorch:write_executorch",
            "executorch",
            ".pte",
            ("executorch",),
            "executorch",
            max_sizes=MappingProxyType({"batch": 1, "height": _MAX_PIXELS, "width": _MAX_PIXELS}),
        ),
        "torch": Target("falconet.exporters.torch:write_program", "torch", ".pt2"),
        "triton": Target("falconet.exporters.triton:write_triton", "onnxruntime", "", _ONNX, "export"),
    }
)


def find_target(name: str) -> Target:
    """Return the target of a name. Raises UnknownNameError, and MissingExtraError without what it needs."""
    if name not in TARGETS:
        raise UnknownNameError("target", name, TARGETS)
    target = TARGETS[name]
    if not is_installed(target):
        raise MissingExtraError(target.extra, f"exporting to {name}")
    return target


def is_installed(target: Target) -> bool:
    """Tell whether the packages that a target needs are there; imports none of them."""
    return all(find_spec(module) for module in target.modules)


def check_export_path(name: str, out: Path) -> None:
    """Raise ConfigError unless a path is named as a target's files are, StorageError where it could not be written."""
    suffix = TARGETS[name].suffix
    if suffix and out.is_dir():
        raise ConfigError(f"out: wanted a file name ending in {suffix}, found the folder {out}")
    if suffix and out.suffix != suffix:
        raise ConfigError(f"out: wanted a file name ending in {suffix}, found {out}")
    if not suffix and out.is_file():
        raise ConfigError(f"out: wanted a folder, found the file {out}")
    folder = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.is_dir() or parent.is_file())
    if suffix and folder == out.absolute():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise StorageError(f"out: cannot write {out}: {folder} is no folder that may be written to")
