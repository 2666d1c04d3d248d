"""explain(): explanations of a model's predictions in pictures, with their faithfulness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.catalog import FILE_SUFFIXES, SOURCE_NAMES, check_place, check_source, is_hub_source, list_paths
from falconet.data import Dataset, Samples, Split, Unreadable
from falconet.data.adapters import ADAPTERS as DATA
from falconet.data.adapters import is_array
from falconet.data.drawing import encode_figure
from falconet.data.files import adapt_samples, open_files
from falconet.data.unlabeled import iterate_inputs
from falconet.errors import ArtifactError, ConfigError, DataError
from falconet.escaping import escape_line
from falconet.evaluation.evaluation import find_split
from falconet.explanation.adapters import ADAPTERS
from falconet.explanation.faithfulness import POINTS, Score, draw_networks, measure_faithfulness, measure_randomization
from falconet.explanation.layers import read_attention
from falconet.explanation.methods import METHODS, attribute, find_method, fitting_methods
from falconet.explanation.page import PageFigure, Section, render_explanations
from falconet.explanation.panels import Panel, draw_panel
from falconet.explanation.pictures import EXPLANATION_DPI, Shown, draw_attention, to_shades
from falconet.explanation.positions import Inputs, mark_present
from falconet.modalities import MODALITIES
from falconet.model_files import redact_name, redact_settings
from falconet.predictions import find_files
from falconet.renames import accept_renamed
from falconet.schema import to_mapping
from falconet.spec import ModalityName
from falconet.storage import (
    format_json,
    hold,
    make_temporary_folder,
    prepare_folder,
    read_json,
    remove_when_collected,
    swap,
)

BASELINE = "random"
_CANDIDATES = 5
"""Classes in the bar chart of a picture, at most."""
_ATTENDED = 64
"""Steps in an attention map, at most, so that it is legible."""
_SLUG = 60
"""Bytes of a name in a picture's file name, at most; file systems allow 255 in all."""
_CONFIDENCE = 0.05
"""Significance level at which a method is better than a random order."""
_FLIPS = 4096
_FACTS_FILE = "explanations.json"
_PICTURE = re.compile(rf"[0-9]{{3,}}-[^/\\]+-({'|'.join([*METHODS, 'attention'])})\.png")
"""Pattern of the file names of samples' pictures."""
_OVERVIEWS = tuple(f"report-{name}.png" for name in ("mistakes", "doubts", "embedding", "filters", "maps", "units"))
"""File names of the overviews that `examine` draws."""


@dataclass(frozen=True)
class Item:
    """An explanation of one sample by one method."""

    file: str
    label: str
    """The explained class."""
    probability: float
    """Predicted probability of the explained class."""
    method: str
    picture: str
    """Path of the picture, a PNG."""
    deletion_auc: float
    insertion_auc: float
    randomization: float
    """Mean rank correlation with the same method's explanations of untrained networks, -1 to 1."""
    tokens: tuple[tuple[str, float], ...] = field(default=(), repr=False)
    """Parts of a text, each with its relevance from -1, against the class, to 1, for it; empty for other samples."""


@dataclass(frozen=True)
class Explanations:
    """The result of `explain`: a sequence of explanations, and scores of the methods."""

    out: str
    page: str
    """Path of the HTML page with all pictures."""
    items: tuple[Item, ...]
    methods: tuple[Score, ...]
    """Scores of methods, the most trusted first; the baseline, `random`, is last."""
    best: str | None
    """The most trusted method that is significantly better than the baseline; None: none is."""
    attention: tuple[str, ...] = ()
    """Paths of attention maps; empty for networks without attention."""
    skipped: tuple[Unreadable, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of folders that were no samples, counted by extension."""

    def __repr__(self) -> str:
        return f"Explanations(items {len(self):,}, best method {self.best or 'none'}, {escape_line(self.page)})"

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...

    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


@dataclass(frozen=True, eq=False)
class ExplainedSample:
    """A sample to explain."""

    name: str
    raw: Any
    inputs: Inputs
    """The network's input: a batch of this sample alone."""
    title: str
    """Prefix of the file names of its pictures."""


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explains samples one by one into a folder."""

    artifact: Artifact
    methods: tuple[str, ...]
    out: Path
    classes: int = 1
    """Number of most probable classes that are explained."""
    points: int = POINTS
    """Steps of the deletion and insertion curves, at most."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """PNGs by file name, which are written together with the page."""

    @cached_property
    def networks(self) -> list[nn.Module]:
        """Networks of the same structure with random weights."""
        return draw_networks(self.artifact)

    def explain(self, subject: ExplainedSample) -> tuple[list[Item], list[Item]]:
        """Return the explanations of a sample, and draw their pictures, and those of the baseline, without pictures."""
        items, baseline = [], []
        probabilities = predict_sample(self.artifact, subject.inputs)
        ranking = probabilities.argsort(descending=True).tolist()
        for target in ranking[: self.classes]:
            for method in dict.fromkeys((*self.methods, BASELINE)):
                item, panel = self.evaluate(subject, method, target, probabilities)
                if method in self.methods:
                    self.pictures[Path(item.picture).name] = encode_figure(draw_panel(panel), EXPLANATION_DPI)
                    items.append(item)
                if method == BASELINE:
                    baseline.append(item)
        return items, baseline

    def evaluate(
        self, subject: ExplainedSample, method: str, target: int, probabilities: Float[Tensor, " classes"]
    ) -> tuple[Item, Panel]:
        """Explain one class of a sample by one method, and measure the faithfulness."""
        spec, labels, model = self.artifact.config.input, self.artifact.config.output.labels, self.artifact.model
        targets = torch.tensor([target])
        relevance = attribute(self.artifact, subject.inputs, method, targets)
        temperature = self.artifact.config.calibration_temperature
        faithfulness = measure_faithfulness(model, subject.inputs, target, relevance, temperature, self.points)
        found = find_method(method, spec.kind)
        # A random order is the same one for any network.
        (correlation,) = (
            [1.0]
            if method == BASELINE
            else measure_randomization(self.networks, found, subject.inputs, targets, relevance)
        )
        label = labels[target]
        # Names may differ in what a file's name cannot hold, as C, C++ and C# do.
        suffix = f"-as-{target}-{slug(label)}" if self.classes > 1 else ""
        shown, drawn = show_relevance(self.artifact, subject, relevance[0].numpy())
        item = Item(
            file=subject.name,
            label=label,
            probability=float(probabilities[target]),
            method=method,
            picture=str(self.out / f"{subject.title}{suffix}-{method}.png"),
            deletion_auc=faithfulness.deletion.area,
            insertion_auc=faithfulness.insertion.area,
            randomization=correlation,
            tokens=tuple(zip(shown.tokens, to_shades(drawn).tolist(), strict=True)) if shown.tokens else (),
        )
        best = probabilities.topk(min(_CANDIDATES, len(labels)))
        candidates = [(labels[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        return item, Panel(shown, drawn, f"{method}: {label}", candidates, faithfulness)

    def draw_attention(self, subject: ExplainedSample) -> str | None:
        """Draw the attention maps of a sample and return their path; None for a network without attention."""
        try:
            weights = read_attention(self.artifact.model, subject.inputs)[:, 0]
        except ConfigError:
            return None
        lead = max(weights.shape[-1] - subject.inputs.shape[-1], 0) if _is_sequence(subject.inputs) else 0
        count = lead + int(mark_present(subject.inputs).sum()) if _is_sequence(subject.inputs) else weights.shape[-1]
        count = min(count, _ATTENDED)
        # A class token, where there is one, stands before the sample's own.
        own = ADAPTERS[self.artifact.config.input.kind].name_positions(self.artifact, subject.raw)
        names = (*(["class"] * lead), *own)[:count] if own else ()
        path = self.out / f"{subject.title}-attention.png"
        self.pictures[path.name] = encode_figure(
            draw_attention(weights[:, :, :count, :count].numpy(), names), EXPLANATION_DPI
        )
        return str(path)


@accept_renamed(files=lambda value: {"inputs": value})
def explain(
    model: AnyModel,
    inputs: object,
    *,
    method: str | None = None,
    out: str | Path | None = None,
    classes: int = 1,
    samples: int = 8,
    split: str = "test",
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Explanations:
    """Explain a model's predictions: pictures, and scores of each method's faithfulness.

    Parameters
    ----------
    model
        A trained model or its folder.
    inputs
        Files of the kind that the model takes, folders of them, or one source (a name, or a table or file of series); a
        data set or one of its splits; or samples at hand, as `falconet.predict` takes them.
    method
        A name in `falconet.explanation.methods.METHODS`, or `all` that the network allows. None: `gradcam` for networks
        that allow it, else `integrated_gradients`.
    out
        Folder for the pictures, `explanations.html` and `explanations.json`; None: a temporary one, which lives as long
        as what is returned.
    classes
        Each sample's so many most probable classes are explained.
    samples, split
        Of a source or a data set: so many samples of this split, spread over its classes.
    data_root, settings
        Of a source; as in `falconet.evaluate`.

    Raises PathError for a path that does not exist, UnknownNameError for a method that does not exist, ConfigError for
    one that the network does not allow, DataError where nothing can be read, RunExistsError where another process is at
    work in `out`.

    """
    artifact = open_artifact(model)
    plan(artifact, method, Path(), classes)  # What cannot be done is told before anything is read.
    found, refused, ignored = _gather(artifact, inputs, samples, split, data_root, settings)
    subjects, unreadable = _read_subjects(artifact, found)
    skipped = [*refused, *unreadable]
    if skipped and (settings or {}).get("strict"):
        raise DataError(f"{skipped[0].file}: {skipped[0].reason}")
    if not subjects:
        raise DataError(f"none of {len(skipped)} files can be read; the first: {skipped[0].file} ({skipped[0].reason})")
    explainer = plan(artifact, method, Path(out) if out is not None else make_temporary_folder(), classes)
    with hold(explainer.out):
        prepare_folder(explainer.out)
        items, baseline = explain_all(explainer, subjects)
        attention = tuple(path for subject in subjects if (path := explainer.draw_attention(subject)))
        result = replace(compare_methods(explainer.out, items, baseline, attention, skipped), ignored=ignored)
        pictures = explainer.pictures
        publish(result, artifact, [list_items(items, pictures), *_list_attention(attention, pictures)], pictures)
    if out is None:
        remove_when_collected(result, explainer.out)
    return result


def plan(artifact: Artifact, method: str | None, out: Path, classes: int) -> Explainer:
    """Return an explainer with the requested methods. Raises UnknownNameError, ConfigError."""
    if classes < 1:
        raise ConfigError(f"classes: wanted 1 or more, found {classes}")
    kind = artifact.config.input.kind
    fitting = fitting_methods(artifact)
    if method == "all":
        return Explainer(artifact, tuple(fitting), out, classes)
    if method is None:
        # Occlusion fits every network.
        method = next(name for name in ("gradcam", "integrated_gradients", "occlusion") if name in fitting)
    find_method(method, kind)
    return Explainer(artifact, (method,), out, classes)


def _gather(
    artifact: Artifact,
    asked: object,
    samples: int,
    split: str,
    data_root: str | Path | None,
    settings: Mapping[str, Any] | None,
) -> tuple[Sequence[Samples], tuple[Unreadable, ...], Mapping[str, int]]:
    """Return the samples of files and folders, of one source, or at hand, and the files that were left out.

    Those are links, pipes and the like with reasons, and files that are no samples, counted by extension.
    """
    spec = artifact.config.input
    if isinstance(asked, Dataset):
        asked = find_split(artifact, asked, split, settings=settings)[1]
    if isinstance(asked, Split):
        asked = _choose_samples(asked, samples)
    elif not _holds_samples(asked, spec.kind):
        if DATA[spec.kind].takes_strings and isinstance(asked, str):
            check_place(asked, f"; {MODALITIES[spec.kind].plural} are given in a list")
        paths: list[str | Path] = [asked] if isinstance(asked, str) else [*list_paths(asked, "files or one source")]
        if len(paths) == 1 and _names_source(paths[0]):
            _, found, _ = find_split(artifact, paths[0], split, data_root=data_root, settings=settings)
            return [adapt_samples(_choose_samples(found, samples).samples, spec)], (), {}
        files = find_files(paths, spec.kind)
        return [open_files(files.files, spec)], files.refused, files.ignored
    parts = list(iterate_inputs(asked, spec, data_root=data_root))
    lost = tuple(item for part in parts for item in part.skipped)
    return [part.samples for part in parts if part.samples is not None], lost, {}


def _holds_samples(asked: object, kind: ModalityName) -> bool:
    """Whether samples are at hand: arrays, images, or among texts any that is not the name of a file or folder."""
    if is_array(asked):
        return True
    items = asked if isinstance(asked, list | tuple) else ()
    strings = DATA[kind].takes_strings and any(isinstance(item, str) and not exists(item) for item in items)
    return strings or any(is_array(item) for item in items)


def exists(name: str) -> bool:
    """Whether there is a file or folder of this name; False for an impossible name."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _names_source(asked: str | Path) -> bool:
    """Whether a string or path is a source of samples: a name, or a file that holds many.

    Folders hold files here, as for `falconet predict`. Raises UnknownNameError for neither a name nor a path.
    """
    name, path = str(asked), Path(asked)
    if path.exists():
        return path.is_file() and path.suffix.lower() in FILE_SUFFIXES
    if name not in SOURCE_NAMES:
        check_source(name)
    return name in SOURCE_NAMES or is_hub_source(name)


def _choose_samples(split: Split, count: int) -> Split:
    """Return `count` samples of a split, at most, in the proportions of its classes."""
    if count < 1:
        raise ConfigError(f"samples: wanted 1 or more, found {count}")
    by_class = np.argsort(split.labels, kind="stable")
    chosen = by_class[np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(np.int64)]
    return split.take(chosen)


def _read_subjects(artifact: Artifact, parts: Sequence[Samples]) -> tuple[list[ExplainedSample], list[Unreadable]]:
    """Return the samples that can be read, and the others with reasons."""
    subjects, skipped = [], []
    places = [(samples, index) for samples in parts for index in range(len(samples))]
    for number, (samples, index) in enumerate(places):
        try:
            subjects.append(read_subject(artifact, samples, index, number))
        except DataError as error:
            skipped.append(Unreadable(samples.name(index), str(error)))
    return subjects, skipped


def read_subject(artifact: Artifact, samples: Samples, index: int, number: int | None = None) -> ExplainedSample:
    """Read one sample, titled by a number, else by its position. Raises DataError where it cannot be read."""
    raw = samples.read(index)
    inputs = artifact.preprocess.normalize(artifact.preprocess.prepare([raw]))
    # Files of one name may come from several folders.
    title = f"{index if number is None else number:03d}-{slug(Path(samples.name(index)).name)}"
    return ExplainedSample(samples.name(index), raw, inputs, title)


def explain_all(explainer: Explainer, subjects: Sequence[ExplainedSample]) -> tuple[list[Item], list[Item]]:
    """Return the explanations of all samples, and those of the baseline."""
    pairs = [explainer.explain(subject) for subject in subjects]
    return [item for items, _ in pairs for item in items], [item for _, items in pairs for item in items]


@torch.inference_mode()
def predict_sample(artifact: Artifact, inputs: Inputs) -> Float[Tensor, " classes"]:
    """Return the class probabilities of one sample, as `falconet.predict` does. Raises DataError where they are NaN."""
    logits: Tensor = artifact.model(inputs)[0]
    if not logits.isfinite().all():
        raise DataError("wanted numbers, found NaN or infinity in the network's answers: its weights are of no use")
    return (logits / artifact.config.calibration_temperature).softmax(dim=0)


def compare_methods(
    out: Path, items: Sequence[Item], baseline: Sequence[Item], attention: Sequence[str], skipped: Sequence[Unreadable]
) -> Explanations:
    """Compare methods by all their explanations."""
    groups = {name: [item for item in items if item.method == name] for name in dict.fromkeys(i.method for i in items)}
    floor = average(BASELINE, baseline)
    scores = sorted((average(name, group) for name, group in groups.items()), key=lambda score: -score.trust)
    methods = groups.keys() - {BASELINE}
    better = [
        score.method
        for score in scores
        if score.method in methods and beats_chance(groups[score.method], baseline, len(methods))
    ]
    ranked = (*(score for score in scores if score.method != BASELINE), floor)
    best = better[0] if better else None
    return Explanations(
        str(out), str(out / "explanations.html"), tuple(items), ranked, best, tuple(attention), tuple(skipped)
    )


def beats_chance(items: Sequence[Item], baseline: Sequence[Item], methods: int = 1) -> bool:
    """Whether a method's gain is significantly higher than that of a random order.

    The significance level is divided by the number of `methods` (Bonferroni).
    """
    scores = [average("", group) for group in (items, baseline)]
    return scores[0].beats(scores[1]) and compare_gains(items, baseline) <= _CONFIDENCE / methods


def compare_gains(items: Sequence[Item], baseline: Sequence[Item]) -> float:
    """Return the one-sided p-value of a method's gains over a random order's on the same samples.

    It is that of a sign-flip permutation test: over all flips of the differences' signs, or many random ones
    (Fisher: The design of experiments, 1935, section 21).
    """
    gains = [np.array([item.insertion_auc - item.deletion_auc for item in group]) for group in (items, baseline)]
    differences = gains[0] - gains[1]
    count = len(differences)
    if 2**count <= _FLIPS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((signs @ differences >= differences.sum() - 1e-12).mean())
    signs = np.random.default_rng(0).choice([-1, 1], (_FLIPS, count))
    return float((1 + (signs @ differences >= differences.sum() - 1e-12).sum()) / (1 + _FLIPS))


def average(method: str, items: Sequence[Item]) -> Score:
    """Return the score of one method: means over its explanations."""
    figures = [(item.deletion_auc, item.insertion_auc, item.randomization) for item in items]
    deletion, insertion, randomization = np.mean(figures, axis=0).tolist()
    return Score(method, len(items), deletion, insertion, randomization)


def publish(
    result: Explanations, artifact: Artifact, sections: Sequence[Section], pictures: Mapping[str, bytes]
) -> None:
    """Write the page, its facts as JSON, and the pictures in one step, in place of earlier ones."""
    title = f"Why {artifact.config.architecture} answers so"
    page = render_explanations(title, result.methods, result.best, sections)
    facts = format_json(redact_settings(to_mapping(result)))
    texts = {Path(result.page).name: page.encode("utf-8", "backslashreplace"), _FACTS_FILE: facts.encode()}
    swap(Path(result.out), {**pictures, **texts}, _list_earlier(Path(result.out)))


def _list_earlier(out: Path) -> list[str]:
    """Return the file names of the earlier pictures in a folder, from the facts there.

    The facts may name other files: only names in the pattern of pictures count.
    """
    try:
        facts = read_json(out / _FACTS_FILE)
    except ArtifactError:
        return []
    items, attention = (found if isinstance(found, list) else [] for found in map(facts.get, ("items", "attention")))
    named = [*attention, *(item.get("picture") for item in items if isinstance(item, dict))]
    # A relative path to this folder, as it was given then, may stand before the name, which alone is looked at.
    names = [re.split(r"[/\\]", name)[-1] for name in named if isinstance(name, str)]
    return [name for name in names if _PICTURE.fullmatch(name)] + list(_OVERVIEWS)


def list_items(
    items: Sequence[Item], pictures: Mapping[str, bytes], title: str = "Explanations", note: str = ""
) -> Section:
    """Return the section of a page with the pictures of some explanations."""
    return Section(title, note, tuple(_plate_item(item, pictures[Path(item.picture).name]) for item in items))


def _plate_item(item: Item, png: bytes) -> PageFigure:
    """Return an explanation's picture with its alternative text and caption."""
    said = f"{item.method} for {item.label} ({item.probability:.1%})"
    figures = f"deletion {item.deletion_auc:.3f}, insertion {item.insertion_auc:.3f}"
    name = redact_name(item.file)
    caption = f"{name}: {said}; {figures}, correlation with random weights {item.randomization:.2f}"
    return PageFigure(png, f"{said} of {name}", caption, item.tokens)


def _list_attention(paths: Sequence[str], pictures: Mapping[str, bytes]) -> Iterator[Section]:
    """Yield the section of a page with attention maps, where there are any."""
    if paths:
        note = (
            "How much each row's step attends to each column's, by layer and head. Attention is not importance: what "
            "is attended to need not change the answer (Jain and Wallace, NAACL 2019)."
        )
        plates = (PageFigure(pictures[Path(path).name], "maps of attention", Path(path).stem) for path in paths)
        yield Section("Attention", note, tuple(plates))


def show_relevance(
    artifact: Artifact, subject: ExplainedSample, relevance: Float[np.ndarray, "*positions"]
) -> tuple[Shown, Float[np.ndarray, "*shown"]]:
    """Return a drawable sample, with relevance by drawn part."""
    adapter = ADAPTERS[artifact.config.input.kind]
    return adapter.show(artifact, subject.raw, subject.inputs, relevance)


def _is_sequence(inputs: Inputs) -> bool:
    """Whether inputs are sequences, which have padding, rather than images."""
    return inputs.ndim < 4


def slug(name: str) -> str:
    """Return a name with only characters that suit file names, cut at its beginning where it is long."""
    kept = "".join(mark if mark.isalnum() or mark in "-_" else "_" for mark in name).strip("_")
    return kept.encode()[-_SLUG:].decode(errors="ignore") or "sample"
