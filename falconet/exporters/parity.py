"""Parity check: whether an export predicts as the model does, on samples that it was not trained on."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from falconet import metrics
from falconet.artifact import Artifact
from falconet.data import Samples
from falconet.data.dataset import match_labels
from falconet.data.files import adapt_samples
from falconet.errors import DataError, ExportError, FalconetError, MissingExtraError
from falconet.evaluation import predict_logits
from falconet.evaluation.evaluation import AnySource, find_split
from falconet.evaluation.logits import scale_logits
from falconet.exporters.adapters import ADAPTERS, Prepare
from falconet.exporters.inference import infer_batches
from falconet.exporters.runtimes import Session
from falconet.exporters.targets import Target
from falconet.modalities import modality_of

_TOLERANCE = 1e-4
"""Largest allowed difference of a probability in exact formats."""
_COMPARED = 256
"""Samples on which exact formats are compared."""
_LOGIT_TOLERANCE = 1e-4
"""Largest allowed difference of a logit in exact formats, as a fraction of the largest logit."""
_LOGIT_NOISE = 0.25
"""Largest allowed root mean square of integers' changes of logits, as a fraction of the logits' own."""
_EVALUATED = 2000
"""Most samples on which the accuracy of integers is evaluated."""
_NEAR = 1e-6
"""Difference between a drop and its limit that no available number of samples can show."""
_MIN_EVALUATED = 30
"""Fewest samples on which integers can be evaluated."""
_MIN_AGREEMENT = 0.9
"""Least fraction of samples on which integers must predict the model's class, unless `max_drop` allows less."""
CALIBRATED = 200
"""Most samples by which ranges of integers are calibrated; never those that are evaluated."""
_MADE_UP = 32


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Samples that a model was not trained on."""

    samples: Samples
    labels: Int64[np.ndarray, " samples"] | None
    """Indices in the model's own labels; None: random samples have none."""
    description: str

    def part(self, indices: Int64[np.ndarray, " kept"]) -> HeldOut:
        """Return the samples at these indices."""
        labels = None if self.labels is None else self.labels[indices]
        return HeldOut(self.samples.take(indices), labels, self.description)


@dataclass(frozen=True)
class Parity:
    """Differences between an export's predictions and the model's; fractions of 0 to 1."""

    n: int
    samples: str
    """Description of the samples."""
    max_abs_difference: float
    """Largest difference of any probability."""
    agreement: float
    """Fraction of the samples with the same predicted class."""
    logit_difference: float | None = None
    """Largest difference of any logit, as a fraction of the largest one; None where the export gives probabilities."""
    logit_noise: float | None = None
    """Root mean square of all logits' differences, as a fraction of the logits' own; None likewise."""
    accuracy_before: float | None = None
    """Accuracy of the model; this and the next three fields are None for samples without labels."""
    accuracy_after: float | None = None
    accuracy_drop: float | None = None
    accuracy_drop_ci: tuple[float, float] | None = None
    """95% interval of the drop; see `metrics.paired_interval`."""


def find_held_out(
    artifact: Artifact, source: AnySource | None, data_root: str | Path | None, *, exact: bool
) -> HeldOut:
    """Return the validation samples of a model's own data, or of `source`, or all of a source without such a split.

    Where a model's own data cannot be read, exact formats are compared on random samples. Raises what reading `source`
    raises, and DataError where labels are needed and there are none.
    """
    try:
        return _read_held_out(artifact, source, data_root)
    except MissingExtraError:
        raise
    except FalconetError as error:
        if source is not None:
            raise
        if not exact:
            own = artifact.config.provenance.data.source or "its data"
            raise DataError(f"wanted validation samples of {own}, to choose ranges by; {error}; or --source") from error
        return draw_random_samples(artifact, str(error))


def _read_held_out(artifact: Artifact, source: AnySource | None, data_root: str | Path | None) -> HeldOut:
    """Return validation samples in an order that a fixed seed has mixed."""
    own = artifact.config.provenance.data.source
    if source is None and not own:
        raise DataError("a coded file alone does not tell what it was trained on: name the folder that it lies in")
    name: str
    where: AnySource
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
    labels = match_labels(split, dataset.classes, artifact.config.output.labels)
    words = "validation samples" if name == "val" else "samples"
    order = np.random.default_rng(0).permutation(len(split))
    return HeldOut(adapt_samples(split.samples, spec), labels, f"{words} of {dataset.source}").part(order)


def draw_random_samples(artifact: Artifact, reason: str) -> HeldOut:
    """Return random samples of the kind that a model takes."""
    generator, spec = np.random.default_rng(0), artifact.config.input
    names = np.array([f"made-up[{index}]" for index in range(_MADE_UP)])
    samples = ADAPTERS[spec.kind].make_random(spec, names, generator)
    return HeldOut(samples, None, f"made-up samples, as the model's own cannot be read ({reason})")


def limit_sides(held_out: HeldOut, artifact: Artifact, target: Target) -> HeldOut:
    """Return samples no larger than a format takes, so that the model and its export get the same ones."""
    sides = target.max_sizes.get("height")
    thin = ADAPTERS[artifact.config.input.kind].thin
    return replace(held_out, samples=thin(held_out.samples, sides)) if sides else held_out


def split_held_out(held_out: HeldOut, *, exact: bool) -> tuple[HeldOut, HeldOut]:
    """Return the samples to calibrate by, and those to evaluate on. Raises DataError for fewer than two."""
    count = len(held_out.samples)
    if exact:
        return held_out.part(np.arange(0)), held_out.part(np.arange(min(count, _COMPARED)))
    if count < 2:
        raise DataError(f"wanted 2 samples or more, some to choose ranges by and some to evaluate, found {count}")
    chosen = min(CALIBRATED, count // 2)
    return held_out.part(np.arange(chosen)), held_out.part(np.arange(chosen, min(count, chosen + _EVALUATED)))


def compare_with_export(artifact: Artifact, session: Session, prepare: Prepare, held_out: HeldOut) -> Parity:
    """Compare the outputs of the model and its export for the same raw samples, in batches and one alone.

    Raises DataError where none can be read, ExportError for a model whose output is NaN.
    """
    logits, lost = predict_logits(artifact, held_out.samples)
    read = [index for index in range(len(held_out.samples)) if index not in lost]
    if not read:
        raise DataError(f"none of {len(held_out.samples)} {held_out.description} can be read; the first: {lost[0]}")
    if not np.isfinite(logits).all():
        raise ExportError("the model itself answers with NaN or infinity: train it again")
    wanted = metrics.softmax(logits)
    preprocessing = session.metadata.preprocessing
    inputs = (prepare(held_out.samples.read(index)) for index in read)
    alone = session.run(prepare(held_out.samples.read(read[0]))[None])
    answers = np.concatenate([*infer_batches(session, inputs), alone])
    # Bare networks leave the temperature, and what follows from it, to whoever asks.
    scaled = scale_logits(answers, artifact.config.calibration_temperature) if not preprocessing else answers
    found = metrics.softmax(scaled) if not preprocessing else answers
    difference = _find_difference(found, wanted)
    labels = None if held_out.labels is None else held_out.labels[read]
    parity = measure_parity(found[:-1], wanted, labels, difference, held_out.description)
    if preprocessing:
        return parity
    # Probabilities alone would let pass what is added to all logits of a sample.
    return replace(
        parity,
        logit_difference=_find_difference(scaled, logits) / float(np.abs(logits).max() or 1.0),
        logit_noise=float(np.linalg.norm(scaled[:-1] - logits) / (np.linalg.norm(logits) or 1.0)),
    )


def _find_difference(found: Float[np.ndarray, "asked classes"], wanted: Float[np.ndarray, "samples classes"]) -> float:
    """Return the largest difference of outputs for all samples, and for the first one once more, alone."""
    return float(np.abs(found - np.concatenate([wanted, wanted[:1]])).max())


def measure_parity(
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
    """Return the 95% interval of the accuracy lost."""
    _, lost, gained, _ = metrics.count_pairs(before, after)
    return metrics.paired_interval(lost, gained, len(before))


def check_tokens(artifact: Artifact, prepare: Prepare, samples: Samples) -> None:
    """Raise ExportError unless an export's tokenizer makes the tokens of texts that the model's own makes."""
    preprocess = artifact.preprocess
    if not modality_of(artifact.config.input).has_tokens:
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
    """Raise ExportError unless an export predicts as the model does.

    Integers may lose at most `max_drop` points of accuracy, with 97.5% confidence, and logits of bare networks may
    differ by _LOGIT_NOISE; 100 allows anything.
    """
    if not np.isfinite(parity.max_abs_difference):
        raise ExportError(f"wanted probabilities, found NaN in the export's answers to {parity.samples}")
    if target.exact:
        if parity.max_abs_difference > _TOLERANCE:
            raise ExportError(
                f"wanted the model's own probabilities within {_TOLERANCE:g} on {parity.n} {parity.samples}, found a "
                f"difference of {parity.max_abs_difference:.2g}; nothing is written"
            )
        if parity.logit_difference is not None and parity.logit_difference > _LOGIT_TOLERANCE:
            raise ExportError(
                f"wanted the model's own logits within {_LOGIT_TOLERANCE:g} of the largest on {parity.n} "
                f"{parity.samples}, found a difference of {parity.logit_difference:.2g} of it; nothing is written"
            )
        return
    if max_drop < 100:
        _check_integers(parity, max_drop)


def _check_integers(parity: Parity, max_drop: float) -> None:
    """Raise ExportError unless at most `max_drop` points of accuracy are lost, as far as the samples can show.

    Neither accuracy nor agreement would change if all of a sample's logits were shifted, or scaled.
    """
    assert parity.accuracy_drop is not None
    assert parity.accuracy_drop_ci is not None
    if parity.n < _MIN_EVALUATED:
        raise ExportError(
            f"wanted {_MIN_EVALUATED} {parity.samples} or more to evaluate integers by, found {parity.n}: add "
            f"{_MIN_EVALUATED - parity.n} or more, or name others with --source; nothing is written"
        )
    least = min(_MIN_AGREEMENT, 1 - max_drop / 100)
    if parity.agreement < least:
        raise ExportError(
            f"wanted the model's own answers to {least:.0%} of {parity.n} {parity.samples}, found "
            f"{parity.agreement:.2%}; nothing is written; --to onnx answers as the model does"
        )
    if parity.logit_noise is not None and parity.logit_noise > _LOGIT_NOISE:
        raise ExportError(
            f"wanted logits that differ from the model's own by {_LOGIT_NOISE:.0%} of them at most (root mean square) "
            f"on {parity.n} {parity.samples}, found {parity.logit_noise:.0%}; nothing is written; --to onnx gives the "
            "model's own"
        )
    low, high = (100 * bound for bound in parity.accuracy_drop_ci)
    if high > max_drop:
        raise ExportError(
            f"wanted at most {max_drop:g} points of accuracy lost, found {100 * parity.accuracy_drop:.2f} (95%: "
            f"{low:.2f} to {high:.2f}) on {parity.n} {parity.samples}; nothing is written; "
            f"{_find_remedy(parity, max_drop)}"
        )


def _find_remedy(parity: Parity, max_drop: float) -> str:
    """Return what helps where the accuracy lost may be more than what is allowed."""
    wanted = count_wanted(parity, max_drop / 100)
    if wanted is None:
        return "--max-drop allows more"
    more = f"at this rate {wanted - parity.n:,} samples more would do"
    if wanted > _EVALUATED:
        return f"{more}, but {_EVALUATED:,} at most are evaluated: --max-drop allows more"
    return f"{more}: add some, name others with --source, or --max-drop allows more"


def count_wanted(parity: Parity, limit: float) -> int | None:
    """Return how many samples would show that at most `limit` of accuracy is lost, if more had these predictions.

    None: no number of samples would, as more is lost.
    """
    drop = parity.accuracy_drop
    assert drop is not None
    if drop > limit - _NEAR:
        return None
    # Answers that differ and are both wrong count among the differing ones here: rather too many than too few.
    differing = max(1 - parity.agreement, abs(drop))
    lost, gained = (differing + drop) / 2, (differing - drop) / 2

    def settles(count: int) -> bool:
        return metrics.paired_interval(lost * count, gained * count, count)[1] <= limit

    most = parity.n + 1
    while not settles(most):
        most *= 2
    return bisect.bisect_left(range(most), True, lo=parity.n + 1, key=settles)
