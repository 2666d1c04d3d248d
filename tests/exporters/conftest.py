"""Exports that several tests use; do not write to their folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from falconet import RunResult
from falconet.artifact import Artifact
from falconet.exporters.exporting import export
from falconet.exporters.targets import TARGETS
from tests.exporters.builders import make_artifact, make_spec

Exporter = Callable[..., Path]
"""Kind of samples, target and `preprocessing` to a file that was exported."""


@pytest.fixture(scope="session")
def text_artifact() -> Artifact:
    """A small transformer for texts, never trained."""
    return make_artifact("transformer", make_spec("transformer", "text"), width=16, layers=1)


@pytest.fixture(scope="session")
def exported(trained: RunResult, text_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Return a function that exports a model of a kind, once for each way."""

    @cache
    def make(kind: str, target: str, preprocessing: bool = True) -> Path:
        folder = tmp_path_factory.mktemp(f"{kind}-{target}")
        out = folder / f"model{TARGETS[target].suffix}"
        model = trained.out if kind == "image" else text_artifact
        # So few samples cannot show that integers cost little; what checks them has tests of its own.
        most = 0.5 if TARGETS[target].exact else 100
        export(model, target, out, preprocessing=preprocessing, license="apache-2.0", max_drop=most)
        return next(out.glob("*/1/model.onnx")) if target == "triton" else out

    return make
