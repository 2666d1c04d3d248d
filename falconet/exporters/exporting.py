"""export(): a trained model as a file for another runtime, checked to predict alike before it is written."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falconet import interruption
from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.catalog import as_name
from falconet.data import Samples
from falconet.errors import ConfigError, DataError, ExportError, FalconetError
from falconet.escaping import escape_line
from falconet.evaluation.costs import answer
from falconet.evaluation.evaluation import AnySource
from falconet.exporters.adapters import Prepare
from falconet.exporters.inference import make_preprocess, read_tokenizer, tokenizer_path, trim
from falconet.exporters.metadata import UNSTATED, Metadata
from falconet.exporters.parity import (
    HeldOut,
    Parity,
    check_parity,
    check_tokens,
    compare_with_export,
    find_held_out,
    limit_sides,
    read_all,
    split_held_out,
)
from falconet.exporters.programs import find_reason, quiet
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import MAX_DROP, TARGETS, Target, check_export_path, find_target
from falconet.exporters.tracing import TracedModel, Written, make_traced
from falconet.latency import Latency, SpeedRatio, compare_latencies, measure_latencies, pinned_threads
from falconet.renames import accept_renamed
from falconet.schema import to_mapping
from falconet.storage import hold, scratch, swap
from falconet.units import format_size

_Writer = Callable[[TracedModel, Path], Written]
"""Function that writes a traced model to a path in an existing folder. Raises ExportError where the format cannot."""
_SUFFIXES = frozenset(target.suffix for target in TARGETS.values())
"""Suffixes of the files that runtimes open."""


@dataclass(frozen=True)
class Export:
    """An exported model, and how it compares with the original one."""

    path: str
    target: str
    bytes: int
    """Total bytes of all files."""
    files: Mapping[str, int]
    """Path of each file that was written -> its bytes; the main one comes first.

    Paths are relative to the folder that `path` is in, or to `path` itself where that is a folder.
    """
    coded_bytes: int | None
    """Bytes of the compressed model's own file; None for a model that is not compressed."""
    runtime: str
    parity: Parity
    latency_ms: float
    """Median milliseconds from one raw sample in memory to its probabilities, on one thread of this machine."""
    model_latency_ms: float
    """Median milliseconds of the model itself, measured alike."""
    baseline_latency_ms: float | None
    """Median milliseconds of the format in single precision, measured alike; None for formats without integers."""
    speed: SpeedRatio | None = None
    """Speed of the export as a multiple of the model's; None where they were not timed in turns."""
    baseline_speed: SpeedRatio | None = None
    """Speed of the export as a multiple of the baseline's; None without one, or where they were not timed in turns."""

    def __repr__(self) -> str:
        agreement = f"agreement {self.parity.agreement:.1%} of {self.parity.n:,} samples"
        return f"Export({self.target}, {format_size(self.bytes)}, {agreement}, {escape_line(self.path)})"

    @property
    def speedup(self) -> float | None:
        """Speed of the export as a multiple of the model's, without the interval."""
        return self.speed.times if self.speed else None

    @property
    def grown(self) -> str:
        """Reason why a compressed model's export is larger than the model, in words; empty where it is not."""
        if self.coded_bytes is None or self.bytes <= self.coded_bytes:
            return ""
        why = f"larger than the compressed model ({self.coded_bytes:,} bytes)"
        if TARGETS[self.target].exact:
            return f"{why}: this format holds each weight in 32 bits; --to onnx-int8 takes 8"
        return f"{why}: this format holds each weight in 8 bits, zeros too; only model.fnet keeps the coded size"

    def facts(self) -> dict[str, Any]:
        """Return all fields as flat plain data."""
        facts: dict[str, Any] = to_mapping(self)
        ratios = {name: facts.pop(name) or {} for name in ("speed", "baseline_speed")}
        told = {f"{name}up": ratio.get("times") for name, ratio in ratios.items()}
        intervals = {f"{name}up_ci": [ratio["low"], ratio["high"]] if ratio else None for name, ratio in ratios.items()}
        return {**facts.pop("parity"), **facts, **told, **intervals}


@accept_renamed(raw=lambda value: {"preprocessing": not value})
def export(
    model: AnyModel,
    to: str,
    out: str | Path,
    *,
    preprocessing: bool = True,
    max_drop: float = MAX_DROP,
    source: AnySource | None = None,
    data_root: str | Path | None = None,
    license: str = UNSTATED,  # noqa: A002 - what it is called everywhere
) -> Export:
    """Write a trained model as a file of the format `to`, which predicts as the model does.

    Parameters
    ----------
    model, to, out
        A trained model; a name of `falconet.exporters.targets.TARGETS`; a path with the format's ending, or a folder
        for `triton`. Existing files are replaced.
    preprocessing
        Whether the file takes raw samples and gives probabilities; else it is the bare network, from normalized input
        to logits.
    max_drop
        Points of accuracy that integers may cost, at the upper end of a 95% interval; 100 allows anything. Others must
        give the model's probabilities within 1e-4; bare networks also its logits, within 1e-4 of the largest. Those of
        bare networks in integers may differ by a quarter, root mean square.
    source, data_root
        Samples to compare on, as `falconet.evaluate` takes them; the validation split of the model's own data if None.
    license
        License that the file states, such as an SPDX identifier.

    The file is made and checked in a temporary folder; it gets its name only if it passes. Raises UnknownNameError,
    MissingExtraError, ConfigError and StorageError for what was asked, RunExistsError where another process writes the
    same file, ExportError for a network that the format cannot hold or an export that does not pass, DataError where
    samples are needed and there are none.

    """
    target, out = find_target(to), Path(out)
    check_export_path(to, out)
    if not 0 <= max_drop <= 100:
        raise ConfigError(f"max_drop: wanted points of accuracy from 0 to 100, found {max_drop:g}")
    artifact = open_artifact(model)
    held_out = find_held_out(artifact, source, data_root, exact=target.exact)
    calibrating, evaluating = split_held_out(limit_sides(held_out, artifact, target), exact=target.exact)
    name = _name_model(artifact, model)
    # Exports into one folder do not get into each other's way; those to one file do, or of one name for Triton.
    home, file = (out.parent, out.name) if target.suffix else (out / name, "")
    with hold(home, name=file), scratch() as folder:
        place, rest = folder / "export", folder / "scratch"
        place.mkdir()
        rest.mkdir()
        traced = make_traced(
            artifact, rest, preprocessing=preprocessing, max_sizes=target.max_sizes, license_name=license
        )
        traced = replace(traced, name=name)
        written = write(traced, artifact, target, place / out.name if target.suffix else place, calibrating.samples)
        parity, timed = _verify(artifact, target, written, evaluating, max_drop)
        files = _publish(place if target.suffix else place / name, home, file)
    files = files if target.suffix else {f"{name}/{part}": size for part, size in files.items()}
    coded = None if artifact.coded is None else len(artifact.coded)
    own, latency, *baseline = timed
    return Export(
        path=str(out),
        target=to,
        bytes=sum(files.values()),
        files=files,
        coded_bytes=coded,
        runtime=target.runtime,
        parity=parity,
        latency_ms=latency.p50,
        model_latency_ms=own.p50,
        baseline_latency_ms=baseline[0].p50 if baseline else None,
        speed=compare_latencies(own, latency),
        baseline_speed=compare_latencies(baseline[0], latency) if baseline else None,
    )


def write(traced: TracedModel, artifact: Artifact, target: Target, path: Path, calibrating: Samples) -> Written:
    """Write a traced model, with the tokenizer of a text model beside it. Raises ExportError where that fails."""
    prepare = choose_preprocess(artifact, traced.metadata, artifact.tokenizer)
    module, _, function = target.writer.partition(":")
    with quiet():
        writer: _Writer = getattr(importlib.import_module(module), function)
    try:
        written = writer(replace(traced, calibration=_prepare_readable(calibrating, prepare)), path)
    except (FalconetError, OSError):
        raise
    except Exception as error:  # Libraries of other formats raise what they like.
        raise ExportError(f"{traced.metadata.architecture} cannot be written: {find_reason(error)}") from error
    interruption.check()
    if artifact.tokenizer is not None:
        tokenizer_path(written.main).write_bytes(artifact.tokenizer.encode())
    return written


def _verify(
    artifact: Artifact, target: Target, written: Written, held_out: HeldOut, max_drop: float
) -> tuple[Parity, list[Latency]]:
    """Compare an export with the model, and time both. Raises ExportError where their predictions differ."""
    session = open_session(target.runtime, written.main)
    prepare = choose_preprocess(artifact, session.metadata, read_tokenizer(written.main, session.metadata))
    check_tokens(artifact, prepare, held_out.samples)
    parity = compare_with_export(artifact, session, prepare, held_out)
    check_parity(parity, target, max_drop)
    return parity, _time_beside(artifact, target, written, prepare, held_out.samples)


def choose_preprocess(artifact: Artifact, metadata: Metadata, tokenizer: str | None) -> Prepare:
    """Return the function from a raw sample to a file's input; that of a bare network is the model's own."""
    if metadata.preprocessing:
        return make_preprocess(metadata, tokenizer)
    preprocess = artifact.preprocess
    return lambda sample: np.ascontiguousarray(preprocess.normalize(preprocess.prepare([sample]))[0].numpy())


def _prepare_readable(samples: Samples, prepare: Prepare) -> Iterator[np.ndarray]:
    """Yield a file's input for each sample that can be read."""
    for sample in read_all(samples):
        try:
            yield prepare(sample)
        except DataError:
            continue


def _name_model(artifact: Artifact, model: AnyModel) -> str:
    """Return the name of a model's folder, or of its data and architecture, in letters, digits, - and _."""
    config = artifact.config
    own = f"{Path(config.provenance.data.source).stem}-{config.architecture}"
    name = Path(as_name(model)).absolute().name if isinstance(model, str | Path) else own
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")


def _time_beside(
    artifact: Artifact, target: Target, written: Written, prepare: Prepare, samples: Samples
) -> list[Latency]:
    """Return the latencies of one sample: of the model, the export, and the baseline if any, timed in turns."""
    raw = next(read_all(samples))

    def ask(session: Session) -> np.ndarray:
        return session.run(trim(prepare(raw)[None], session.metadata))

    paths = [path for path in (written.main, written.baseline) if path is not None]
    with pinned_threads(1), torch.inference_mode():
        sessions = [open_session(target.runtime, path, threads=1) for path in paths]
        calls: list[Callable[[], object]] = [
            partial(answer, artifact, [raw]),
            *(partial(ask, session) for session in sessions),
        ]
        return measure_latencies(calls)


def _publish(folder: Path, home: Path, file: str) -> dict[str, int]:
    """Write all files below a folder into another one, in one step; return the bytes of each, the main one first."""
    # For whoever knows of no swaps, the file that was asked for comes last: never without what belongs to it.
    paths = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.suffix in _SUFFIXES)
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    swap(home, contents, name=file)
    return {path: len(content) for path, content in reversed(contents.items())}
