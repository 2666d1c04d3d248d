"""examine(): errors, doubtful predictions and layers of a model, explained on a whole source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from falconet import metrics
from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.data import DataConfig, Dataset, Samples, Split
from falconet.data.drawing import encode_figure
from falconet.data.files import adapt_samples
from falconet.errors import ConfigError
from falconet.escaping import escape_line
from falconet.evaluation.evaluation import evaluate_split, find_changed_setting, find_split
from falconet.evaluation.logits import SplitLogits
from falconet.explanation.explaining import (
    Explanations,
    Item,
    compare_methods,
    explain_all,
    list_items,
    plan,
    publish,
    read_subject,
)
from falconet.explanation.layers import embed_samples, find_nearest, list_maps, project, rank_units, read_filters
from falconet.explanation.page import PageFigure, Section
from falconet.explanation.pictures import EXPLANATION_DPI, draw_embedding, draw_samples, draw_tiles, spread
from falconet.explanation.reasons import choose_cases
from falconet.modalities import MODALITIES
from falconet.storage import hold, prepare_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NEIGHBORS = 5
_MAPS, _LAYERS = 8, 10
"""Feature maps of a layer that are drawn, and number of layers, at most."""
_FILTERS, _FILTER_COLUMNS = 64, 16
_UNITS, _EXCITING = 6, 8
"""Units that are drawn, and number of the most exciting samples of each, at most."""


@dataclass(frozen=True)
class Neighbor:
    """A training sample near another in the embedding."""

    file: str
    label: str
    cosine: float


@dataclass(frozen=True)
class _Case:
    """An examined sample, with its nearest training samples in the embedding."""

    file: str
    truth: str
    answer: str
    probability: float
    """Probability of the predicted class."""
    neighbors: tuple[Neighbor, ...]


@dataclass(frozen=True)
class Examination:
    """The result of `examine`."""

    out: str
    page: str
    """Path of the HTML page with all pictures."""
    items: tuple[Item, ...]
    """Explanations of mistakes, then of doubts."""
    mistakes: tuple[_Case, ...]
    """Wrong predictions, the most confident first."""
    doubts: tuple[_Case, ...]
    """Correct predictions, the least confident first."""
    explanations: Explanations
    """Explanations with scores of the methods' faithfulness."""

    def __repr__(self) -> str:
        counts = f"mistakes {len(self.mistakes):,}, doubts {len(self.doubts):,}"
        return f"Examination({counts}, best method {self.explanations.best or 'none'}, {escape_line(self.page)})"


@dataclass(frozen=True, eq=False)
class _ExaminationContext:
    """A model, its logits on a split, and its embeddings of the samples."""

    artifact: Artifact
    dataset: Dataset
    config: DataConfig
    answers: SplitLogits
    pictures: dict[str, bytes]
    """The explainer's pictures: PNGs by file name."""

    @cached_property
    def samples(self) -> Samples:
        """The samples of the split, adapted to the model's input."""
        return adapt_samples(self.answers.split.samples, self.artifact.config.input)

    @cached_property
    def features(self) -> Float[Tensor, "samples features"]:
        """The samples' embeddings."""
        return embed_samples(self.artifact, self.samples)[1]

    @cached_property
    def training(self) -> tuple[Split, Float[Tensor, "training features"]] | None:
        """The readable training samples, and their embeddings; None: the source is not the model's own."""
        origin = self.artifact.config.provenance.data
        if self.dataset.fingerprint != origin.fingerprint or find_changed_setting(self.config, origin):
            return None
        split = self.dataset.split("train")
        kept, features = embed_samples(self.artifact, adapt_samples(split.samples, self.artifact.config.input))
        return split.take(np.array(kept, dtype=np.int64)), features

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "samples classes"]:
        """The predicted probabilities."""
        return metrics.softmax(self.answers.logits)

    def draw(self, name: str, figure: Figure, alt: str, caption: str) -> PageFigure:
        """Draw a figure as `name`.png and return it for the page."""
        png = encode_figure(figure, EXPLANATION_DPI)
        self.pictures[f"{name}.png"] = png
        return PageFigure(png, alt, caption)


def examine(
    model: AnyModel,
    source: str | Path,
    *,
    method: str | None = None,
    out: str | Path,
    classes: int = 1,
    samples: int = 8,
    split: str = "test",
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Examination:
    """Examine a model on a source: one HTML page and its pictures.

    It shows the `samples` most confident mistakes and as many least confident hits, each explained as by `explain` and
    with the training samples whose embeddings (what the last layer with weights sees) have the largest cosine to its
    own; a map of the split's embeddings by their two first principal components; and, of networks for images, the
    first layer's filters, feature maps layer by layer, and the images that excite units of the last maps most.
    Arguments and errors are those of `explain` and `falconet.evaluate`. Neighbors need the source that the model was
    trained on; for another they are left out.
    """
    artifact = open_artifact(model)
    explainer = plan(artifact, method, Path(out), classes)
    if samples < 1:
        raise ConfigError(f"samples: wanted 1 or more, found {samples}")
    dataset, chosen, config = find_split(artifact, source, split, data_root=data_root, settings=settings)
    _, answers = evaluate_split(artifact, chosen, split, dataset)
    with hold(explainer.out):
        prepare_folder(explainer.out)
        study = _ExaminationContext(artifact, dataset, config, answers, explainer.pictures)
        mistakes, doubts = choose_cases(study.probabilities, study.answers.split.labels, samples)
        wrong, right = _describe_cases(study, mistakes), _describe_cases(study, doubts)
        items, baseline = explain_all(explainer, [read_subject(artifact, study.samples, i) for i in mistakes + doubts])
        border = len(mistakes) * len(explainer.methods) * min(classes, len(artifact.config.output.labels))
        sections = [
            *_show_cases(study, "mistakes", mistakes, wrong, items[:border]),
            *_show_cases(study, "doubts", doubts, right, items[border:]),
            *_show_network(study),
        ]
        unreadable = (*dataset.unreadable, *answers.unreadable)
        result = compare_methods(explainer.out, items, baseline, (), unreadable)
        publish(result, artifact, sections, explainer.pictures)
    return Examination(result.out, result.page, result.items, wrong, right, result)


def _describe_cases(study: _ExaminationContext, positions: Sequence[int]) -> tuple[_Case, ...]:
    """Return the examined samples at some positions, with their neighbors."""
    labels, split = study.artifact.config.output.labels, study.answers.split
    near = find_neighbors(study, positions)
    return tuple(
        _Case(
            split.samples.name(index),
            labels[split.labels[index]],
            labels[study.probabilities[index].argmax()],
            float(study.probabilities[index].max()),
            tuple(neighbor for _, neighbor in neighbors),
        )
        for index, neighbors in zip(positions, near, strict=True)
    )


def find_neighbors(study: _ExaminationContext, positions: Sequence[int]) -> list[list[tuple[int, Neighbor]]]:
    """Return the nearest training samples of each sample, each with its position in the training split."""
    if study.training is None or not positions:
        return [[] for _ in positions]
    split, known = study.training
    own = study.answers.split.hashes[list(positions)]
    # A sample of the training split is its own neighbor, and so are its copies.
    copies = max(int((split.hashes == hash_).sum()) for hash_ in own)
    nearest, cosines = find_nearest(study.features[list(positions)], known, _NEIGHBORS + copies)
    names = study.dataset.classes
    return [
        [
            (index, Neighbor(split.samples.name(index), names[split.labels[index]], cosine))
            for index, cosine in zip(row, values, strict=True)
            if split.hashes[index] != hash_
        ][:_NEIGHBORS]
        for row, values, hash_ in zip(nearest.tolist(), cosines.tolist(), own, strict=True)
    ]


_TITLES = {
    "mistakes": ("Most confident errors", "No errors on this split."),
    "doubts": ("The least confident hits", "No right answer on this split."),
}


def _show_cases(
    study: _ExaminationContext, name: str, positions: Sequence[int], cases: Sequence[_Case], items: Sequence[Item]
) -> Iterator[Section]:
    """Yield the part of the page about some samples: their neighbors, then their explanations."""
    title, none = _TITLES[name]
    if not cases:
        yield Section(title, none, ())
        return
    rows = []
    for index, case, near in zip(positions, cases, find_neighbors(study, positions), strict=True):
        first = (study.samples.read(index), f"label {case.truth}\npredicted {case.answer} ({case.probability:.0%})")
        if case.truth == case.answer:
            first = (first[0], f"{case.truth} ({case.probability:.0%})")
        rows.append(("", [first, *(_read_neighbor(study, position, neighbor) for position, neighbor in near)]))
    said = "; ".join(f"{case.file} is {case.truth}, predicted {case.answer}" for case in cases)
    caption = "The sample, then the training samples nearest to it in the embedding, with their classes and cosines."
    if study.training is None:
        caption = "No training samples beside them, since this is not the source that the model was trained on."
    plate = study.draw(f"report-{name}", draw_samples(rows, study.dataset.kind), said, caption)
    yield Section(title, "", (plate, *list_items(items, study.pictures).plates))


def _read_neighbor(study: _ExaminationContext, position: int, neighbor: Neighbor) -> tuple[Any, str]:
    """Return a training sample and a line about it."""
    assert study.training is not None
    samples = adapt_samples(study.training[0].samples, study.artifact.config.input)
    return samples.read(position), f"{neighbor.label}\n{neighbor.cosine:.3f}"


def _show_network(study: _ExaminationContext) -> Iterator[Section]:
    """Yield the parts of the page about the network as a whole."""
    note = (
        "What the last layer with weights sees of each sample, by the two first principal components. Near points are "
        "alike to the network; two dimensions show only a part of that."
    )
    yield Section("Map of the embedding", note, (_draw_map(study),))
    if not _are_planes(study):
        return
    filters = read_filters(study.artifact.model)
    if filters is not None:
        yield Section("Filters of the first layer", "", (_draw_filters(study, filters),))
    maps = list_maps(study.artifact.model, read_subject(study.artifact, study.samples, 0).inputs)
    if maps:
        yield Section("Feature maps, layer by layer", "", (_draw_maps(study, maps),))
        yield Section("What excites units of the last maps most", "", (_draw_exciting(study, next(reversed(maps))),))


def _are_planes(study: _ExaminationContext) -> bool:
    """Whether samples, and so filters and feature maps, have rows and columns and can be drawn as pictures."""
    return MODALITIES[study.dataset.kind].axes == 2


def _draw_map(study: _ExaminationContext) -> PageFigure:
    """Draw the embedding of the split, with thumbnails of images that are far from one another."""
    plane = project(study.features).numpy()
    pictures = [(index, study.samples.read(index)) for index in spread(plane)] if _are_planes(study) else []
    labels = study.artifact.config.output.labels
    figure = draw_embedding(plane, study.answers.split.labels.tolist(), labels, pictures)
    return study.draw("report-embedding", figure, "map of the embedding", f"{len(plane):,} samples by true class")


def _draw_filters(study: _ExaminationContext, filters: Float[Tensor, "maps channels height width"]) -> PageFigure:
    """Draw the first layer's kernels: in color with three channels, else in gray, averaged over channels."""
    kernels = filters[:_FILTERS]
    low, high = kernels.amin(dim=(1, 2, 3), keepdim=True), kernels.amax(dim=(1, 2, 3), keepdim=True)
    shown = ((kernels - low) / (high - low).clamp(min=1e-12)).permute(0, 2, 3, 1)
    tiles = list((shown if shown.shape[3] == 3 else shown.mean(dim=3)).numpy())
    rows = [
        (f"{start} to {min(start + _FILTER_COLUMNS, len(tiles)) - 1}", tiles[start : start + _FILTER_COLUMNS])
        for start in range(0, len(tiles), _FILTER_COLUMNS)
    ]
    figure = draw_tiles(rows, min(_FILTER_COLUMNS, len(tiles)), "gray")
    side = "x".join(map(str, filters.shape[2:]))
    caption = f"{len(tiles)} of {len(filters)} kernels of {side}, each from its lowest to its highest weight"
    return study.draw("report-filters", figure, "filters of the first layer", caption)


def _draw_maps(study: _ExaminationContext, maps: Mapping[str, Float[Tensor, "1 _ _ _"]]) -> PageFigure:
    """Draw the feature maps with the highest means, of layers spread over the network, for the split's first sample."""
    names = list(maps)
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, _LAYERS).round().astype(int))]
    rows = []
    for name in chosen:
        values = maps[name][0]
        strongest = values.mean(dim=(1, 2)).topk(min(_MAPS, len(values))).indices
        rows.append((f"{name}  {'x'.join(map(str, values.shape))}", list(values[strongest].numpy())))
    caption = f"{study.samples.name(0)}: the {_MAPS} maps of each layer with the highest means, dark to bright"
    return study.draw("report-maps", draw_tiles(rows, _MAPS), "feature maps layer by layer", caption)


def _draw_exciting(study: _ExaminationContext, layer: str) -> PageFigure:
    """Draw the samples with the highest activations of a layer's units; units with the highest ones come first."""
    best, peaks = rank_units(study.artifact, study.samples, layer, _EXCITING)
    units = peaks[:, 0].topk(min(_UNITS, len(peaks))).indices.tolist()
    labels, split = study.artifact.config.output.labels, study.answers.split
    rows = [
        (
            f"unit {unit}",
            [
                (study.samples.read(index), f"{labels[split.labels[index]]}\n{peak:.2f}")
                for index, peak in zip(best[unit].tolist(), peaks[unit].tolist(), strict=True)
            ],
        )
        for unit in units
    ]
    caption = f"Units of {layer}, and the samples with the highest value anywhere in a unit's map: class and value"
    return study.draw("report-units", draw_samples(rows, study.dataset.kind), "samples that excite units most", caption)
