"""label(): an offline page for labeling the most useful samples, and the same as Label Studio's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falconet.artifact import AnyModel, Artifact, open_artifact
from falconet.auditing import find_label_errors
from falconet.catalog import check_source
from falconet.data import DataConfig, Dataset, Unreadable
from falconet.data.checks import LabelError
from falconet.data.dataset import NO_LABEL
from falconet.data.files import SPLIT_FOLDERS
from falconet.data.label_studio import Control, find_control, format_labeling_config, make_prediction
from falconet.errors import ConfigError, DataError
from falconet.labeling.adapters import name_channels
from falconet.labeling.page import PageItem, render
from falconet.labeling.pool import Pool, Row, iterate_named, read_pool
from falconet.labeling.ranking import Choices, choose_next
from falconet.labeling.tasks import TaskMaker, choose_key, cut_task, format_task, show
from falconet.planning import short_name
from falconet.schema import from_mapping
from falconet.storage import hold, prepare_folder, swap
from falconet.training import Callback

_PAGE, _TASKS, _INTERFACE = "label.html", "tasks.json", "labeling-config.xml"
"""Names of the output files: the page, its tasks for Label Studio, and the labeling interface there."""


@dataclass(frozen=True)
class Labeling:
    """The result of `label`."""

    out: str
    page: str
    """Path of the page."""
    tasks: str
    """Path of Label Studio's tasks."""
    label_errors: tuple[LabelError, ...]
    """Likely label errors on the page, the most suspicious first."""
    next: tuple[str, ...]
    """Names of the samples to label next, by priority."""
    labeled: int
    """Number of the source's samples with labels."""
    unlabeled: int
    classes: tuple[str, ...]
    skipped: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()


def label(
    source: str | Path,
    *,
    model: AnyModel | None = None,
    out: str | Path | None = None,
    count: int = 100,
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Labeling:
    """Write a page on which a person labels samples, those first whose labels are worth most; return what is on it.

    `source` is what `train` reads, what `predict` reads, or both in one: rows of a table or tasks of Label Studio of
    which some have no label, or a folder with files beside those of the classes. Of samples with labels, those come
    first that `find_label_errors` suspects. Of samples without, those come first about which the model is uncertain and
    which differ from each other (see `falconet.labeling.selection`): the model is `model`, else an output layer on
    fixed features that learned the samples with labels; where there are none, that they differ is all that counts. At
    most `count` of each are on the page.

    `out` is a folder, by default `runs/<source>-labels`: it gets the page, which is one file and asks no network,
    `tasks.json`, which Label Studio imports, and, where classes are known, `labeling-config.xml`, its interface. The
    page downloads `tasks.json` with the new labels in it, which `train` reads. It holds all samples with labels; tasks
    of Label Studio keep whatever else they hold.

    `settings` are those of the section `data`; `callbacks` see the training where labels are checked by a network that
    is trained for it. Raises ConfigError for a count below 1, DataError for a source that cannot be read or a model
    of other samples.
    """
    if count < 1:
        raise ConfigError(f"count: wanted 1 or more, found {count}")
    check_source(source)
    artifact = None if model is None else open_artifact(model)
    config = from_mapping(DataConfig, dict(settings or {}), "data")
    pool = read_pool(source, artifact.config.input if artifact else None, data_root, config)
    if artifact is not None and artifact.config.input.kind != pool.kind:
        raise DataError(f"{source}: wanted {artifact.config.input.kind} data, as the model takes, found {pool.kind}")
    folder = Path(out) if out is not None else Path("runs") / f"{short_name(source)}-labels"
    key = choose_key(pool.first.samples, pool.kind)
    control = _choose_control(pool, config, key)
    with hold(folder):
        prepare_folder(folder)
        errors, notes = _suspect(pool.labeled, callbacks)
        errors = errors[:count]
        following = choose_next(pool, artifact, count)
        path = Path(source)
        split_key = (pool.labeled.columns.get("split") if pool.tasks and pool.labeled else None) or "split"
        maker = TaskMaker(path if path.is_dir() else path.parent, pool.kind, control, split_key)
        classes = _list_classes(pool, artifact)
        drafts = [*_list_errors(pool, errors, maker), *_list_next(pool, following, maker)]
        items = [draft.item for draft in drafts]
        rest = _list_rest(pool, drafts, maker)
        title = f"Labels of {short_name(source)}"
        tasks = "[\n" + ",\n".join([*("".join(cut_task(item.task)) for item in items), *rest]) + "\n]\n"
        contents = {_PAGE: render(title, items, rest, classes, control), _TASKS: tasks}
        if classes and not pool.tasks:
            channels = name_channels(pool.any.channels) if key == "series" else ()
            contents[_INTERFACE] = format_labeling_config(key, control, classes, channels)
        encoded = {name: content.encode("utf-8", "backslashreplace") for name, content in contents.items()}
        swap(folder, encoded, {_INTERFACE} - {*contents})
    unlabeled = pool.unlabeled.splits["train"] if pool.unlabeled else ()
    return Labeling(
        str(folder),
        str(folder / _PAGE),
        str(folder / _TASKS),
        errors,
        tuple(item.name for item in items[len(errors) :]),
        sum(map(len, pool.labeled.splits.values())) if pool.labeled else 0,
        len(unlabeled) - len(following.unreadable),
        classes,
        (*(item for item in pool.skipped if item.reason != NO_LABEL), *following.unreadable),
        notes,
    )


def _suspect(dataset: Dataset | None, callbacks: Sequence[Callback]) -> tuple[tuple[LabelError, ...], tuple[str, ...]]:
    """Return likely label errors, or a note where there are too few labels, or they cannot be learned."""
    if dataset is None or len(dataset.classes) < 2:
        return (), ()
    try:
        audit = find_label_errors(dataset, callbacks)
    except DataError as error:
        return (), (f"labels were not checked: {str(error).removeprefix('label_errors: ')}",)
    return audit.errors, () if audit.caution is None else (f"caution: {audit.caution}",)


def _list_classes(pool: Pool, artifact: Artifact | None) -> tuple[str, ...]:
    """Return the classes that can be chosen: those of the labels, then those of the model."""
    known = pool.labeled.classes if pool.labeled else ()
    return tuple(dict.fromkeys([*known, *(artifact.config.output.labels if artifact else ())]))


def _choose_control(pool: Pool, config: DataConfig, key: str) -> Control:
    """Return the control tag of the page's labels: that of the source's. Raises DataError where it is ambiguous."""
    if not pool.tasks:
        return Control(target=key)
    name = (pool.labeled.columns.get("label") if pool.labeled else None) or config.columns.label
    return find_control(pool.tasks, name) or Control(name or Control.name, key)


@dataclass(frozen=True, eq=False)
class Draft:
    """A sample on the page, with its origin."""

    item: PageItem
    row: Row | None
    place: tuple[str, int] | None = None
    """Split and position of a sample with a label; None: it has no label."""


def _list_errors(pool: Pool, errors: Sequence[LabelError], maker: TaskMaker) -> list[Draft]:
    """Return the page's samples with likely label errors."""
    if pool.labeled is None:
        return []
    wanted = {(error.split, error.name, error.label) for error in errors}
    places: dict[tuple[str, str, str], list[int]] = {}
    for split, name, part, index in iterate_named(pool.labeled):
        key = (split, name, pool.labeled.classes[part.labels[index]])
        if key in wanted:
            places.setdefault(key, []).append(index)
    drafts = []
    for error in errors:
        index = places[error.split, error.name, error.label].pop(0)
        samples = pool.labeled.splits[error.split].samples
        row = pool.find_row(error.split, index)
        task = maker.make(samples, index, error.label, _own_split(pool.labeled, error.split), row)
        prediction = make_prediction(error.suggested, error.probability, "find_label_errors", maker.control)
        _add_prediction(task, prediction)
        view = show(samples.read(index), pool.kind)
        item = PageItem(error.name, task, view, error.label, error.suggested, error.probability)
        drafts.append(Draft(item, row, (error.split, index)))
    return drafts


def _list_next(pool: Pool, following: Choices, maker: TaskMaker) -> list[Draft]:
    """Return the page's samples to label next."""
    drafts = []
    for choice in following.items:
        assert pool.unlabeled is not None
        samples, row = pool.unlabeled.splits["train"].samples, pool.origins[choice.index]
        name = maker.name(samples, choice.index)
        task = maker.make(samples, choice.index, None, _future_split(pool.labeled, row, name), row)
        if choice.suggested is not None and choice.probability is not None:
            _add_prediction(
                task, make_prediction(choice.suggested, choice.probability, following.version, maker.control)
            )
        view = show(samples.read(choice.index), pool.kind)
        drafts.append(Draft(PageItem(name, task, view, None, choice.suggested, choice.probability), row))
    return drafts


def _future_split(labeled: Dataset | None, row: Row | None, name: str) -> str | None:
    """Return the split of a sample that is to be labeled; None where the source has no splits of its own.

    It is that of its row or of its folder, else train.
    """
    if labeled is None or _own_split(labeled, "train") is None:
        return None
    own = row.split if row is not None else SPLIT_FOLDERS.get(name.partition("/")[0].lower())
    return own or "train"


def _add_prediction(task: dict[str, Any], prediction: dict[str, Any]) -> None:
    """Add a model's prediction to a task's predictions."""
    found = task.get("predictions")
    task["predictions"] = [*(found if isinstance(found, list) else []), prediction]


def _own_split(dataset: Dataset, split: str) -> str | None:
    """Return the split that a source has for a sample; None where it has no splits of its own."""
    if len(dataset.splits) == len(dataset.made_splits) + 1:
        return None
    return "train" if split in dataset.made_splits else split


def _list_rest(pool: Pool, drafts: Sequence[Draft], maker: TaskMaker) -> list[str]:
    """Return the tasks that the page holds without showing them: all others of Label Studio, else those with labels."""
    places = {draft.place for draft in drafts}
    labels: dict[int, str] = {}
    rest = []
    for split, _, part, index in iterate_named(pool.labeled) if pool.labeled else ():
        assert pool.labeled is not None
        row, label = pool.find_row(split, index), pool.labeled.classes[part.labels[index]]
        if pool.tasks:
            labels[id(row)] = label
        elif (split, index) not in places:
            rest.append(format_task(maker.make(part.samples, index, label, _own_split(pool.labeled, split), row)))
    shown = {id(draft.row) for draft in drafts}
    originals = [row for row in pool.rows.values() if row.task is not None and id(row) not in shown]
    return rest + [format_task(maker.keep(row.task, labels.get(id(row)), None)) for row in originals if row.task]
