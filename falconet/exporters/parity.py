"""The gate: does an export answer as the model did, on samples that the model was not trained on?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from falconet import metrics
from falconet.artifact import Artifact
from falconet.data import ImageArray, Samples, SeriesArray, Texts
from falconet.data.preprocessing import TextPreprocess
from falconet.errors import DataError, ExportError, FalconetError, MissingExtraError
from falconet.evaluation import match_labels, predict_logits
from falconet.evaluation.answers import fit_recordings, scale_logits
from falconet.evaluation.judgement import find_split
from falconet.exporters.asking import Prepare, ask_batches
from falconet.exporters.metadata import Metadata
from falconet.exporters.runtimes import Session
from falconet.exporters.targets import Target
from falconet.spec import ImageSpec, SeriesSpec

TOLERANCE = 1e-4
"""Largest difference of a probability that counts as the same answer."""
COMPARED = 256
"""Samples on which exact formats are compared."""
JUDGED = 2000
"""Samples at most on which the accuracy of integers is weighed."""
CALIBRATED = 200
"""Samples at most by which ranges of integers are chosen; never those that are judged."""
MADE_UP = 32


@dataclass(frozen=True, eq=False)
class Kept:
    """Samples that a model was not trained on."""

    samples: Samples
    labels: Int64[np.ndarray, " samples"] | None
    """As positions in the model's own; None: made-up samples have none."""
    description: str

    def part(self, indices: Int64[np.ndarray, " kept"]) -> Kept:
        """Return some of them."""
        labels = None if self.labels is None else self.labels[indices]
        return Kept(self.samples.take(indices), labels, self.description)


@dataclass(frozen=True)
class Parity:
    """How an export's answers differ from the model's; fractions of 0 to 1."""

    n: int
    samples: str
    """Which ones."""
    max_abs_difference: float
    """Of any probability."""
    agreement: float
    """Share of the samples with the same answer."""
    accuracy_before: float | None = None
    """None for samples without labels; so are the next three."""
    accuracy_after: float | None = None
    accuracy_drop: float | None = None
    accuracy_drop_ci: tuple[float, float] | None = None
    """95%; see `bound_drop`."""


def find_kept(artifact: Artifact, source: str | Path | None, data_root: str | Path | None, *, exact: bool) -> Kept:
    """Return the validation samples of a model's own data, or of `source`, or all of a source without such a split.

    Where a model's own data cannot be read, exact formats are compared on made-up samples. Raises what reading `source`
    raises, and DataError where labels are needed and there are none.
    """
    try:
        return read_kept(artifact, source, data_root)
    except MissingExtraError:
        raise
    except FalconetError as error:
        if source is not None:
            raise
        if not exact:
            own = artifact.config.provenance.data.source or "its data"
            raise DataError(f"wanted validation samples of {own}, to choose ranges by; {error}; or --source") from error
        return make_up(artifact, str(error))


def read_kept(artifact: Artifact, source: str | Path | None, data_root: str | Path | None) -> Kept:
    """Return validation samples in an order that a fixed seed has mixed."""
    own = artifact.config.provenance.data.source
    if source is None and not own:
        raise DataError("a coded file alone does not tell what it was trained on: name the folder that it lies in")
    name, where = "val", own if source is None else source
    try:
        dataset, split, _ = find_split(artifact, where, name, data_root=data_root)
    except DataError:
        if source is None:
            raise
        name = "all"
        dataset, split, _ = find_split(artifact, where, name, data_root=data_root)
    if not len(split):
        raise DataError(f"{dataset.source}: its {name} split holds no samples")
    spec = artifact.config.input
    labels = match_labels(split, dataset.classes, spec.labels)
    words = "validation samples" if name == "val" else "samples"
    order = np.random.default_rng(0).permutation(len(split))
    return Kept(fit_recordings(split.samples, spec), labels, f"{words} of {dataset.source}").part(order)


def make_up(artifact: Artifact, reason: str) -> Kept:
    """Return random samples of the kind that a model eats."""
    generator, spec = np.random.default_rng(0), artifact.config.input
    names = np.array([f"made-up[{index}]" for index in range(MADE_UP)])
    samples: Samples
    if isinstance(spec, ImageSpec):
        height, width = (2 * side for side in spec.inner_size)
        samples = ImageArray(generator.integers(0, 256, (MADE_UP, height, width, 3), dtype=np.uint8), names)
    elif isinstance(spec, SeriesSpec):
        channels, steps = spec.raw_shape
        ends = generator.integers(1, steps + 1, MADE_UP).cumsum()
        walk = generator.normal(size=(channels, ends[-1])).cumsum(axis=1)
        samples = SeriesArray(walk.astype(np.float32), np.stack([np.r_[0, ends[:-1]], ends], axis=1), names)
    else:
        lengths = generator.integers(1, 4 * spec.shape[0], MADE_UP)
        samples = Texts(["".join(map(chr, generator.integers(32, 127, length))) for length in lengths], names)
    return Kept(samples, None, f"made-up samples, as the model's own cannot be read ({reason})")


@dataclass(frozen=True, eq=False)
class Thinned:
    """Images of which every second, third, ... pixel is read, so that no side is longer than a format takes."""

    samples: Samples
    sides: int

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def read(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        image: UInt8[np.ndarray, "height width channels"] = self.samples.read(index)
        step = -(-max(image.shape[:2]) // self.sides)
        return np.ascontiguousarray(image[::step, ::step])

    def take(self, indices: Int64[np.ndarray, " kept"]) -> Thinned:
        return Thinned(self.samples.take(indices), self.sides)

    def join(self, others: Sequence[Thinned]) -> Thinned:
        return Thinned(self.samples.join([part.samples for part in others]), self.sides)


def limit_sides(kept: Kept, artifact: Artifact, target: Target) -> Kept:
    """Return samples that a format takes: the model and its export are asked about the same ones."""
    sides = target.most.get("height")
    image = isinstance(artifact.config.input, ImageSpec)
    return replace(kept, samples=Thinned(kept.samples, sides)) if sides and image else kept


def part_kept(kept: Kept, *, exact: bool) -> tuple[Kept, Kept]:
    """Return the samples to calibrate by, and those to judge on. Raises DataError for fewer than two."""
    count = len(kept.samples)
    if exact:
        return kept.part(np.arange(0)), kept.part(np.arange(min(count, COMPARED)))
    if count < 2:
        raise DataError(f"wanted 2 samples or more, some to choose ranges by and some to judge, found {count}")
    chosen = min(CALIBRATED, count // 2)
    return kept.part(np.arange(chosen)), kept.part(np.arange(chosen, min(count, chosen + JUDGED)))


def compare_answers(artifact: Artifact, session: Session, prepare: Prepare, kept: Kept) -> Parity:
    """Ask the model and its export about the same raw samples, in batches and one alone.

    Raises DataError where none can be read, ExportError for a model that answers with NaN.
    """
    logits, lost = predict_logits(artifact, kept.samples)
    read = [index for index in range(len(kept.samples)) if index not in lost]
    if not read:
        raise DataError(f"none of {len(kept.samples)} {kept.description} can be read; the first: {lost[0]}")
    if not np.isfinite(logits).all():
        raise ExportError("the model itself answers with NaN or infinity: train it again")
    wanted = metrics.softmax(logits)
    inputs = (prepare(kept.samples.read(index)) for index in read)
    alone = session.ask(prepare(kept.samples.read(read[0]))[None])
    answers = np.concatenate([*ask_batches(session, inputs), alone])
    found = to_probabilities(answers, artifact, session.metadata)
    difference = float(np.abs(found - np.concatenate([wanted, wanted[:1]])).max())
    labels = None if kept.labels is None else kept.labels[read]
    return weigh(found[:-1], wanted, labels, difference, kept.description)


def to_probabilities(
    answers: Float[np.ndarray, "samples classes"], artifact: Artifact, metadata: Metadata
) -> Float[np.ndarray, "samples classes"]:
    """Return what an export answers as probabilities, which bare networks leave to whoever asks."""
    if not metadata.raw:
        return answers
    return metrics.softmax(scale_logits(answers, artifact.config.temperature))


def weigh(
    found: Float[np.ndarray, "samples classes"],
    wanted: Float[np.ndarray, "samples classes"],
    labels: Int64[np.ndarray, " samples"] | None,
    difference: float,
    samples: str,
) -> Parity:
    """Return how two models' probabilities of the same samples differ."""
    answers, own = found.argmax(axis=1), wanted.argmax(axis=1)
    parity = Parity(len(found), samples, difference, float((answers == own).mean()))
    if labels is None:
        return parity
    before, after = own == labels, answers == labels
    return replace(
        parity,
        accuracy_before=float(before.mean()),
        accuracy_after=float(after.mean()),
        accuracy_drop=float(before.mean() - after.mean()),
        accuracy_drop_ci=bound_drop(before, after),
    )


def bound_drop(before: Bool[np.ndarray, " samples"], after: Bool[np.ndarray, " samples"]) -> metrics.Interval:
    """Return the 95% interval of the accuracy lost.

    Where both are right on the same samples, resampling has nothing to vary: the share on which they differ, of which
    none was seen, is then at most the upper end of its score interval.
    """
    if (before == after).all():
        most = metrics.wilson_interval(0, len(before))[1]
        return -most, most
    drop = float(before.mean() - after.mean())
    return metrics.bootstrap_difference(before, after) or (drop, drop)


def check_tokens(artifact: Artifact, prepare: Prepare, samples: Samples) -> None:
    """Raise ExportError unless an export's tokenizer makes the tokens of texts that the model's own makes."""
    preprocess = artifact.preprocess
    if not isinstance(preprocess, TextPreprocess):
        return
    for text in read_all(samples):
        if not np.array_equal(prepare(text), preprocess.prepare([text])[0].numpy()):
            raise ExportError(f"the exported tokenizer makes other tokens than the model's own of {text[:40]!r}")


def read_all(samples: Samples) -> Iterator[Any]:
    """Yield all samples that can be read. Raises DataError where there is none."""
    reason, found = "", False
    for index in range(len(samples)):
        try:
            sample = samples.read(index)
        except DataError as error:
            reason = reason or str(error)
            continue
        found = True
        yield sample
    if not found and len(samples):
        raise DataError(f"none of {len(samples)} samples can be read; the first: {reason}")


def check_parity(parity: Parity, target: Target, max_drop: float) -> None:
    """Raise ExportError unless an export answers as the model does; `max_drop` is in points of accuracy."""
    if not np.isfinite(parity.max_abs_difference):
        raise ExportError(f"wanted probabilities, found NaN in the export's answers to {parity.samples}")
    if target.exact:
        if parity.max_abs_difference > TOLERANCE:
            raise ExportError(
                f"wanted the model's own probabilities within {TOLERANCE:g} on {parity.n} {parity.samples}, found a "
                f"difference of {parity.max_abs_difference:.2g}; nothing is written"
            )
        return
    assert parity.accuracy_drop is not None
    if 100 * parity.accuracy_drop > max_drop:
        assert parity.accuracy_drop_ci is not None
        low, high = (100 * bound for bound in parity.accuracy_drop_ci)
        raise ExportError(
            f"wanted at most {max_drop:g} points of accuracy lost, found {100 * parity.accuracy_drop:.2f} (95%: "
            f"{low:.2f} to {high:.2f}) on {parity.n} {parity.samples}; nothing is written; --max-drop allows more"
        )
