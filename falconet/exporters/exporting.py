"""export(): a trained model as a file for another runtime, proven to answer as the model does before it is written."""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falconet.artifact import Artifact, ArtifactConfig, current_versions, load_artifact
from falconet.data import Samples
from falconet.errors import ConfigError, DataError
from falconet.evaluation.costs import answer, read_some
from falconet.exporters.asking import Prepare, make_prepare, read_tokenizer, tokenizer_path, trim
from falconet.exporters.graphs import Draft, Written, make_graph
from falconet.exporters.metadata import UNSTATED, Metadata
from falconet.exporters.parity import Parity, check_parity, check_tokens, compare_answers, find_kept, part_kept
from falconet.exporters.programs import find_steps, trace
from falconet.exporters.runtimes import open_session
from falconet.exporters.targets import Target, check_out, find_target
from falconet.latency import measure_latency, pinned_threads
from falconet.schema import to_mapping
from falconet.storage import write_bytes

Writer = Callable[[Draft, Path], Written]
"""Writes a draft to a path whose folder exists. Raises ExportError for what the format cannot hold."""
MAX_DROP = 0.5
"""Points of accuracy that integers may cost."""


@dataclass(frozen=True)
class Export:
    """An exported model, and how it answers beside the one that it was made from."""

    path: str
    target: str
    bytes: int
    """Of all files."""
    runtime: str
    parity: Parity
    latency_ms: float
    """Median of one raw sample in memory to its probabilities, on one thread of this machine; so are the next two."""
    artifact_latency_ms: float
    baseline_latency_ms: float | None
    """Of the same format in single precision, for one with integers."""

    @property
    def slower(self) -> bool:
        """Whether integers take longer than single precision does."""
        return self.baseline_latency_ms is not None and self.latency_ms > self.baseline_latency_ms

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain data on one level."""
        facts: dict[str, Any] = to_mapping(self)
        return {**facts.pop("parity"), **facts, "slower": self.slower}


def export(
    model: str | Path | Artifact,
    to: str,
    out: str | Path,
    *,
    raw: bool = False,
    max_drop: float = MAX_DROP,
    source: str | Path | None = None,
    data_root: str | Path | None = None,
    license: str = UNSTATED,  # noqa: A002 - what it is called everywhere
) -> Export:
    """Write a trained model as a file of the format `to` that its runtime answers with as the model does.

    Parameters
    ----------
    model, to, out
        A trained model; a name of `falconet.exporters.targets.TARGETS`; a path with the format's ending, or a folder
        for `triton`. What stands there is replaced.
    raw
        The bare network, from normalized input to logits, instead of the whole way from raw samples to probabilities.
    max_drop
        Points of accuracy that integers may cost; other formats must give the model's probabilities within 1e-4.
    source, data_root
        Samples to compare on, as `falconet.evaluate` takes them; the validation split of the model's own data if None.
    license
        What the file says of its license, such as an SPDX identifier.

    The file is made and asked in a temporary folder; it gets its name only if it passes. Raises UnknownNameError,
    MissingExtraError, ConfigError and StorageError for what was asked, ExportError for a network that the format cannot
    hold or an export that does not pass, DataError where samples are needed and there are none.

    """
    target, out = find_target(to), Path(out)
    check_out(to, out)
    if not 0 <= max_drop <= 100:
        raise ConfigError(f"--max-drop: wanted points of accuracy from 0 to 100, found {max_drop:g}")
    artifact = model if isinstance(model, Artifact) else load_artifact(model)
    kept = find_kept(artifact, source, data_root, exact=target.exact)
    calibrating, judging = part_kept(kept, exact=target.exact)
    with tempfile.TemporaryDirectory() as scratch:
        place, aside = Path(scratch) / "export", Path(scratch) / "aside"
        place.mkdir()
        aside.mkdir()
        path = place / out.name if target.suffix else place
        written = write(artifact, target, path, calibrating.samples, aside, raw=raw, license_name=license)
        session = open_session(target.runtime, written.main)
        prepare = choose_prepare(artifact, session.metadata, read_tokenizer(written.main, session.metadata))
        check_tokens(artifact, prepare, judging.samples)
        parity = compare_answers(artifact, session, prepare, judging)
        check_parity(parity, target, max_drop)
        latency, own, baseline = time_beside(artifact, target, written, prepare, judging.samples)
        size = publish(place, out.parent if target.suffix else out)
    return Export(str(out), to, size, target.runtime, parity, latency, own, baseline)


def write(
    artifact: Artifact,
    target: Target,
    path: Path,
    calibrating: Samples,
    scratch: Path,
    *,
    raw: bool,
    license_name: str,
) -> Written:
    """Trace a model and write it, with the tokenizer of one of texts beside."""
    graph = make_graph(artifact, raw=raw, matrices=target.matrices)
    program = trace(graph, target.most)
    config = artifact.config
    metadata = Metadata(
        architecture=config.architecture,
        input=config.input,
        output="logits" if raw else "probabilities",
        versions=current_versions(),
        data=config.provenance.data.fingerprint,
        license=license_name,
        batch=target.most.get("batch"),
        steps=find_steps(program, graph),
        sides=target.most.get("height") if graph.input == "image" else None,
        tokenizer_sha256=None if artifact.tokenizer is None else sha256(artifact.tokenizer.encode()).hexdigest(),
    )
    prepare = choose_prepare(artifact, metadata, artifact.tokenizer)
    inputs = list(prepare_readable(calibrating, prepare))
    module, _, function = target.writer.partition(":")
    writer: Writer = getattr(importlib.import_module(module), function)
    written = writer(Draft(graph, program, metadata, name_model(config), inputs, scratch), path)
    if artifact.tokenizer is not None:
        tokenizer_path(written.main).write_bytes(artifact.tokenizer.encode())
    return written


def choose_prepare(artifact: Artifact, metadata: Metadata, tokenizer: str | None) -> Prepare:
    """Return what turns a raw sample into what a file takes; bare networks take what the model's own takes."""
    if not metadata.raw:
        return make_prepare(metadata, tokenizer)
    preprocess = artifact.preprocess
    return lambda sample: np.ascontiguousarray(preprocess.normalize(preprocess.prepare([sample]))[0].numpy())


def prepare_readable(samples: Samples, prepare: Prepare) -> Iterator[np.ndarray]:
    """Yield what a file takes of each sample that can be read."""
    for index in range(len(samples)):
        try:
            yield prepare(samples.read(index))
        except DataError:
            continue


def name_model(config: ArtifactConfig) -> str:
    """Return a name of letters, digits, - and _ for formats that keep several models."""
    source = Path(config.provenance.data.source).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{source}-{config.architecture}").strip("-")


def time_beside(
    artifact: Artifact, target: Target, written: Written, prepare: Prepare, samples: Samples
) -> tuple[float, float, float | None]:
    """Return the median milliseconds of one sample's answer: by the export, the model, and the baseline if any."""
    raw = read_some(samples, 1)

    def time_session(path: Path) -> float:
        session = open_session(target.runtime, path, threads=1)
        return measure_latency(lambda: session.ask(trim(prepare(raw[0])[None], session.metadata))).p50

    with pinned_threads(1), torch.inference_mode():
        own = measure_latency(lambda: answer(artifact, raw)).p50
        latency = time_session(written.main)
        return latency, own, None if written.baseline is None else time_session(written.baseline)


def publish(folder: Path, out: Path) -> int:
    """Move all files below a folder to another one, each in one step, and return how many bytes they have."""
    size = 0
    # The file that was asked for comes last, so that it is never there without what belongs to it.
    for path in sorted(folder.rglob("*"), key=lambda path: path.name == out.name):
        if path.is_file():
            content = path.read_bytes()
            write_bytes(out / path.relative_to(folder), content)
            size += len(content)
    return size
