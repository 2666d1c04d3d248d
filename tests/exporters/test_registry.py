"""Every architecture of the table answers as an export as it does in torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from falconet.artifact import Artifact
from falconet.models import MODELS
from falconet.spec import ModalityName
from tests.exporters.builders import ask_exported, ask_own, draw_raw, make_artifact, make_spec, open_exports
from tests.test_registry_wide import HUGE

QUICK = ("lenet_relu", "image")
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"width": 8} for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet1d18")},
    **{name: {"width": 4} for name in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")},
    **{name: {"hidden": 16} for name in ("rnn", "lstm", "gru")},
    "transformer": {"width": 16, "layers": 2},
    "efficientnet": {"phi": -6},
}
"""Options that make large networks small, where there are such."""
KIN: set[tuple[str, ModalityName]] = {
    ("lenet5_caffe", "image"),
    ("squeezenet_se", "image"),
    ("resnet18", "image"),
    ("efficientnet_b0", "image"),
    ("efficientnet_lite0", "image"),
    ("resnet50", "image"),
    ("rnn", "series"),
    ("rnn", "image"),
    ("lstm", "text"),
    ("lstm", "image"),
    ("gru", "text"),
    ("gru", "series"),
    ("linear", "series"),
    ("transformer", "text"),
    ("transformer", "series"),
    ("resnet1d18", "series"),
    ("resnet1d18", "text"),
}
"""Made of the same layers as others here, or exported in test_targets.py: of each way to compute, CI exports one."""
LEAST = 1e-30
"""Probability below which single precision holds no digits."""


def list_cases() -> list[Any]:
    cases = [(name, kind) for name, entry in MODELS.items() for kind in entry.kinds]
    return [pytest.param(*case, marks=mark(*case), id="-".join(case)) for case in cases]


def mark(name: str, kind: ModalityName) -> tuple[pytest.MarkDecorator, ...]:
    """Return when a case is tested: exporting the largest of a family takes minutes, and finds no other fault."""
    if name in HUGE or (name, kind) in KIN:
        return (pytest.mark.slow, pytest.mark.full)
    return () if (name, kind) == QUICK else (pytest.mark.slow,)


def shake(artifact: Artifact, seed: int) -> Artifact:
    """Move every weight by its last bit, up or down."""
    generator = torch.Generator().manual_seed(seed)

    def move(weight: torch.Tensor) -> torch.Tensor:
        if not weight.is_floating_point():
            return weight
        up = torch.rand(weight.shape, generator=generator) < 0.5
        return weight.nextafter(torch.where(up, torch.inf, -torch.inf))

    return dataclasses.replace(artifact, weights={name: move(weight) for name, weight in artifact.weights.items()})


@pytest.mark.usefixtures("two_blocks")
@pytest.mark.parametrize(("name", "kind"), list_cases())
def test_every_model_answers_as_in_torch(name: str, kind: ModalityName, tmp_path: Path) -> None:
    spec = make_spec(name, kind)
    artifact = make_artifact(name, spec, **SMALL.get(name, {}))
    raw = draw_raw(spec)
    own = ask_own(artifact, raw)
    # Of untrained networks, which may be as good as certain of one class, logarithms tell samples apart.
    logs = np.log(own.clip(min=LEAST))
    assert logs.std(axis=0).max() > 0.05, "these samples do not tell exports apart"
    # Some also magnify rounding: what single precision costs them in torch is what an export may differ by. A single
    # rounding may be a lucky one, so that networks whose weights differ in their last bit are asked as well.
    exact = ask_own(artifact, raw, torch.float64)
    others = [exact, *(ask_own(shake(artifact, seed), raw) for seed in range(3))]
    lost = [
        max(np.abs(own - other).max() for other in others),
        max(np.abs(logs - np.log(other.clip(min=LEAST))).max() for other in others),
    ]
    assert lost[0] < 1e-3, "these answers are rounding alone"
    for _, session in open_exports(artifact, ("onnx", "torch"), tmp_path):
        found = ask_exported(artifact, session, raw)
        np.testing.assert_allclose(found, own, rtol=0, atol=max(1e-4, 4 * lost[0]))
        np.testing.assert_allclose(np.log(found.clip(min=LEAST)), logs, rtol=0, atol=max(5e-3, 4 * lost[1]))
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
