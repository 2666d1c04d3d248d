"""Known sets as features that do not change, for benchmarks that ask many small models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from falconet import Dataset, load_dataset
from falconet.auditing import choose_fixed, embed_split, prepare_candidate
from falconet.training.linear_probe import ClassNumbers, Features, Solver

SOURCES = {
    "digits": "digits",
    "sign-digits": "sign-digits",
    "banking77": "banking77",
    "mnist": "mnist",
    "GunPoint": "ucr/GunPoint_TRAIN.ts",
    "ItalyPowerDemand": "ucr/ItalyPowerDemand_TRAIN.ts",
    "spoken-digits": "spoken-digits",
}
"""Where each set lies below the data root, or its name."""
MOST_CLASSES = {"banking77": 20}
"""The first so many classes of a set are taken."""
MAX_SAMPLES = {"mnist": 3000}
"""So many samples of a set are taken, drawn by a seed of their own."""


@dataclass(frozen=True, eq=False)
class EmbeddedSet:
    """A set whose samples are rows of features."""

    title: str
    features: Features
    labels: ClassNumbers
    num_classes: int
    solver: Solver


def load(name: str, data_root: Path) -> Dataset:
    """Return a set, or that part of it which is taken, its splits as published or as made."""
    path = data_root / SOURCES[name]
    dataset = load_dataset(path if path.exists() else SOURCES[name], data_root=data_root)
    count = MOST_CLASSES.get(name, len(dataset.classes))
    splits = {key: split.take(np.flatnonzero(split.labels < count)) for key, split in dataset.splits.items()}
    if name in MAX_SAMPLES:
        sizes = {key: MAX_SAMPLES[name] * len(split) // len(dataset.split("all")) for key, split in splits.items()}
        generator = np.random.default_rng(0)
        splits = {key: split.take(generator.permutation(len(split))[: sizes[key]]) for key, split in splits.items()}
    return replace(dataset, classes=dataset.classes[:count], splits=splits)


def embed_set(name: str, data_root: Path) -> EmbeddedSet:
    """Return a set as the features by which `falconet label` compares its samples."""
    dataset = load(name, data_root)
    candidate = choose_fixed(dataset, raw=True)
    prepared = prepare_candidate(dataset, dataset.split("all"), candidate)
    part = f", first {MOST_CLASSES[name]} classes" if name in MOST_CLASSES else ""
    solver = prepared.config.training.linear_probe or "logistic"
    labels = torch.from_numpy(prepared.loaded.split.labels)
    raw = "TF-IDF" if dataset.kind == "text" else "raw pixels"
    what = raw if candidate.model == "linear" else f"features of {candidate.model}"
    return EmbeddedSet(f"{name}{part}, {what}", embed_split(prepared), labels, len(dataset.classes), solver)
