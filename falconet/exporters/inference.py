"""Predictions of an exported file from raw samples. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from falconet.data import Samples
from falconet.data.texts import check_tokenizer
from falconet.data.unlabeled import iterate_inputs
from falconet.errors import DataError, ExportError, PathError
from falconet.exporters.adapters import ADAPTERS, Prepare
from falconet.exporters.metadata import Metadata
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import Runtime
from falconet.modalities import modality_of
from falconet.predictions import Predictions, answer_inputs, check_top, collect, resolve_data_config
from falconet.storage import read_regular

_BATCH = 32
_VALUES = 1 << 24
"""Most values in all samples of a batch: large photos are predicted one by one."""


def predict_exported(
    runtime: Runtime,
    path: str | Path,
    inputs: object,
    *,
    top: int = 3,
    probabilities: bool = False,
    settings: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
) -> Predictions:
    """Return an exported model's predictions, as `falconet.predict` does with the model itself.

    Raises PathError for what does not exist, ExportError for a file that holds a bare network or is none of falconet's,
    DataError where not one sample can be read.
    """
    return collect(
        iterate_exported(
            runtime, path, inputs, top=top, probabilities=probabilities, settings=settings, data_root=data_root
        )
    )


def iterate_exported(
    runtime: Runtime,
    path: str | Path,
    inputs: object,
    *,
    top: int = 3,
    probabilities: bool = False,
    settings: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
) -> Iterator[Predictions]:
    """Yield what `predict_exported` returns, some samples at a time."""
    session = open_session(runtime, Path(path))
    metadata = session.metadata
    if not metadata.preprocessing:
        raise ExportError(
            f"{path}: wanted a file that takes raw samples, found a bare network; export without --no-preprocessing"
        )
    check_top(top)
    config = resolve_data_config(settings)
    prepare = make_preprocess(metadata, read_tokenizer(Path(path), metadata))

    def answer(samples: Samples) -> tuple[Float[np.ndarray, "readable classes"], Mapping[int, str]]:
        return infer_samples(session, samples, prepare, path)

    parts = iterate_inputs(inputs, metadata.input, config, data_root=data_root)
    yield from answer_inputs(parts, answer, metadata.output_spec.labels, top=top, probabilities=probabilities)


def infer_samples(
    session: Session, samples: Samples, prepare: Prepare, path: str | Path
) -> tuple[Float[np.ndarray, "readable classes"], dict[int, str]]:
    """Return probabilities of all samples that can be read, in order, and why others cannot, by their positions.

    Raises ExportError where the file, which lies at `path`, gives none.
    """
    reasons: dict[int, str] = {}
    batches = infer_batches(session, _read_prepared(samples, prepare, reasons))
    answers = np.concatenate([np.empty((0, len(session.metadata.output_spec.labels))), *batches])
    if not np.isfinite(answers).all():
        raise ExportError(f"{path}: wanted probabilities, found NaN: the file is damaged; export again")
    return answers, reasons


def _read_prepared(samples: Samples, prepare: Prepare, reasons: dict[int, str]) -> Iterator[np.ndarray]:
    """Yield the samples that can be read as a file takes them; why others cannot is added to `reasons`."""
    for index in range(len(samples)):
        try:
            yield prepare(samples.read(index))
        except DataError as error:
            reasons[index] = str(error).rpartition(f"{samples.name(index)}: ")[2]


def make_preprocess(metadata: Metadata, tokenizer: str | None) -> Prepare:
    """Return the function from a raw sample to an exported file's input; of images, only the type may change."""
    return ADAPTERS[metadata.input.kind].open(metadata, tokenizer)


def infer_batches(
    session: Session, inputs: Iterable[np.ndarray], size: int = _BATCH
) -> Iterator[Float[np.ndarray, "batch classes"]]:
    """Yield the outputs for prepared samples in order, in batches of consecutive samples of equal shape.

    Where a file takes sequences of any length, padding common to all of a batch is left out.
    """
    metadata = session.metadata
    for shape, group in groupby(inputs, key=lambda array: array.shape):
        most = max(1, min(size, metadata.batch or size, _VALUES // math.prod(shape)))
        while rows := list(islice(group, most)):
            yield infer(session, trim(np.stack(rows), metadata))


def infer(session: Session, batch: np.ndarray) -> Float[np.ndarray, "batch classes"]:
    """Return the outputs for a batch. Raises ExportError where a file's inputs or outputs differ from its metadata."""
    try:
        answers = session.run(batch)
    except Exception as error:  # Runtimes raise classes of their own, without a common base.
        raise ExportError(f"the exported file cannot answer: {' '.join(str(error).split())[:400]}") from error
    wanted = (len(batch), len(session.metadata.output_spec.labels))
    if answers.shape != wanted:
        raise ExportError(f"the exported file's metadata are damaged: wanted {wanted} answers, found {answers.shape}")
    if answers.dtype.kind != "f":
        raise ExportError(f"the exported file is damaged: wanted answers as float32, found {answers.dtype}")
    return answers


def trim(batch: np.ndarray, metadata: Metadata) -> np.ndarray:
    """Return a batch of sequences without the padding at the end of all, as far as a file takes shorter ones."""
    if metadata.steps is None:
        return batch
    tokens = modality_of(metadata.input).has_tokens
    present = (batch != 0).any(axis=0) if tokens else (~np.isnan(batch)).any(axis=(0, 1))
    longest = int(np.flatnonzero(present).max(initial=0)) + 1
    return np.ascontiguousarray(batch[..., : max(longest, metadata.steps[0])])


def tokenizer_path(path: Path) -> Path:
    """Return the path of an exported text model's tokenizer."""
    return path.with_name(f"{path.stem}.tokenizer.json")


def read_tokenizer(path: Path, metadata: Metadata) -> str | None:
    """Return the tokenizer beside an exported file; None for one that needs none. Raises PathError, ExportError."""
    if metadata.tokenizer_sha256 is None:
        return None
    beside = tokenizer_path(path)
    try:
        content = read_regular(beside)
    except OSError as error:
        raise PathError(f"{beside}: wanted the tokenizer that was exported beside {path.name}, found none") from error
    if sha256(content).hexdigest() != metadata.tokenizer_sha256:
        raise ExportError(f"{beside} is altered, or not the one that {path.name} was exported with")
    try:
        text = content.decode()
        check_tokenizer(text, modality_of(metadata.input).in_channels(metadata.input))
    except (UnicodeDecodeError, DataError) as error:
        raise ExportError(f"{beside}: {error}") from error
    return text
