"""Models without training and raw samples for them, made for these tests."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from falconet.artifact import Artifact, ArtifactConfig, DataOrigin, Provenance, build_model
from falconet.data.preprocessing import create_preprocess
from falconet.data.texts import train_tokenizer
from falconet.exporters.exporting import choose_preprocess, write
from falconet.exporters.inference import infer_batches
from falconet.exporters.parity import draw_random_samples
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import find_target
from falconet.exporters.tracing import make_traced
from falconet.models import MODELS
from falconet.models.layers import SparseLinear
from falconet.spec import ClassificationSpec, ImageSpec, InputSpec, ModalityName, SeriesSpec, TextSpec

LABELS = ("zero", 'a "quoted" one', "zwei\\", "три", "四", "five", "six", "seven", "eight", "nine ")
STEPS = 24
TEMPERATURE = 1.3
WORDS = ["plum and pear", "iron, zinc, lead", "Äpfel 苹果", "one two three four five six seven eight nine ten eleven"]
TOKENIZER = train_tokenizer(WORDS, 270)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def make_spec(name: str, kind: ModalityName, **changes: Any) -> InputSpec:
    """Return what an architecture takes here: color images of its native size, or of 32 pixels where it has no say."""
    if kind == "text":
        return TextSpec((STEPS,), 270)
    if kind == "series":
        return SeriesSpec(**{"shape": (3, STEPS), "mean": (0.1,) * 3, "std": (1.5,) * 3, **changes})
    entry = MODELS[name]
    side = 32 if entry.resizable or entry.kinds[0] != "image" else entry.input[1]
    shape = (3, side, side)
    return ImageSpec(shape, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), padding=entry.padding)


def make_artifact(
    name: str, spec: InputSpec, source: str = "no/such/folder", labels: tuple[str, ...] = LABELS, **options: Any
) -> Artifact:
    """Return a model that was never trained, but answers differently about different samples."""
    origin = Provenance(DataOrigin(source, "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    config = ArtifactConfig(
        name, spec, ClassificationSpec(labels), origin, options=options, calibration_temperature=TEMPERATURE
    )
    tokenizer = TOKENIZER if spec.kind == "text" else None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_model(config)
        inputs = prepare_raw(Artifact(config, {}, tokenizer))
        settle(network, inputs)
        spread(network, inputs)
    return Artifact(config, network.state_dict(), tokenizer)


def prepare_raw(artifact: Artifact) -> torch.Tensor:
    """Return a batch of raw samples as the network takes them."""
    spec = artifact.config.input
    preprocess = create_preprocess(spec, artifact.tokenizer)
    return preprocess.normalize(preprocess.prepare(draw_raw(spec)))


def settle(network: nn.Module, inputs: torch.Tensor) -> None:
    """Let batch normalization see a batch: without, deep networks make logits of tens of thousands."""
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    network.eval()
    for norm in norms:
        norm.momentum = None
        norm.train()
    network(inputs)
    network.eval()


def spread(network: nn.Module, inputs: torch.Tensor) -> None:
    """Scale the last layer so that probabilities are neither all alike nor all 0 and 1."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d | SparseLinear)][-1]
    factor = 1 / network(inputs).std(dim=0).mean().clamp(min=1e-6)
    last.weight *= factor
    if last.bias is not None:
        last.bias *= factor


def draw_raw(spec: InputSpec) -> list[Any]:
    """Return raw samples of many sizes, neighbors of one size among them."""
    generator = np.random.default_rng(1)
    if isinstance(spec, TextSpec):
        return [*WORDS, "a", " ".join(WORDS) * 3, "b", "pear", "plum"]
    if isinstance(spec, SeriesSpec):
        channels, steps = spec.raw_shape
        series = [walk(generator, channels, length) for length in (steps, steps, 2, 2 * steps, steps // 2, 1)]
        series[0][:, steps // 3 :] = np.nan
        series[1][0, 1:3] = np.nan
        return series
    height, width = spec.inner_size
    sizes = [(height, width, 3)] * 3 + [(height, width, 1), (17, 45, 1), (17, 45, 1), (5, 3, 3), (2 * height, 70, 3)]
    levels = generator.integers(16, 256, len(sizes))
    return [generator.integers(0, level, size, dtype=np.uint8) for level, size in zip(levels, sizes, strict=True)]


def walk(generator: np.random.Generator, channels: int, steps: int) -> np.ndarray:
    """Return a random walk."""
    return generator.normal(size=(channels, steps)).cumsum(axis=1).astype(np.float32)


def open_export(artifact: Artifact, target: str, folder: Path, *, preprocessing: bool = True) -> tuple[Path, Session]:
    """Write a model without evaluating it, and open the file."""
    return next(open_exports(artifact, (target,), folder, preprocessing=preprocessing))


def open_exports(
    artifact: Artifact, targets: Sequence[str], folder: Path, *, preprocessing: bool = True
) -> Iterator[tuple[Path, Session]]:
    """Trace a model once for targets that bound it alike; write it for each without any check, and open the file."""
    lines = [find_target(target) for target in targets]
    folder.mkdir(parents=True, exist_ok=True)
    traced = make_traced(
        artifact, folder, preprocessing=preprocessing, max_sizes=lines[0].max_sizes, license_name="apache-2.0"
    )
    none = draw_random_samples(artifact, "").samples.take(np.arange(0))
    for line in lines:
        assert line.max_sizes == lines[0].max_sizes
        written = write(traced, artifact, line, folder / f"model{line.suffix}", none)
        yield written.main, open_session(line.runtime, written.main)


def ask_own(artifact: Artifact, raw: Sequence[Any], dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Return the probabilities that the model gives each sample alone, its network computing in a precision."""
    preprocess, network = artifact.preprocess, copy.deepcopy(artifact.model).to(dtype)
    with torch.inference_mode():
        inputs = [preprocess.normalize(preprocess.prepare([sample])) for sample in raw]
        logits = [network(one.to(dtype) if one.is_floating_point() else one) for one in inputs]
        probabilities: np.ndarray = (torch.cat(logits) / artifact.config.calibration_temperature).softmax(dim=1).numpy()
    return probabilities


def ask_exported(artifact: Artifact, session: Session, raw: Sequence[Any]) -> np.ndarray:
    """Return what an export answers."""
    prepare = choose_preprocess(artifact, session.metadata, artifact.tokenizer)
    return np.concatenate(list(infer_batches(session, map(prepare, raw))))
