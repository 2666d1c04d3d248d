"""label(): a page without network on which a person labels what is worth it, and Label Studio's tasks of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falconet.artifact import Artifact, load_artifact
from falconet.auditing import find_label_errors
from falconet.catalog import check_source
from falconet.data import DataConfig, Dataset, Unreadable
from falconet.data.checks import LabelError
from falconet.data.dataset import NO_LABEL
from falconet.data.label_studio import Control, find_control, format_labeling_config, make_prediction
from falconet.errors import ConfigError, DataError
from falconet.labeling.page import Item, render
from falconet.labeling.pool import Pool, iterate_named, read_pool
from falconet.labeling.ranking import Choices, choose_next
from falconet.labeling.tasks import TaskMaker, choose_key, cut_task, format_task, name_channels, name_originals, show
from falconet.planning import short_name
from falconet.schema import from_mapping
from falconet.storage import hold, prepare_folder, swap
from falconet.training import Callback

PAGE, TASKS, INTERFACE = "label.html", "tasks.json", "labeling-config.xml"
"""What is written: the page, the same tasks for Label Studio, and a project's interface there."""


@dataclass(frozen=True)
class Labeling:
    """What `label` wrote."""

    out: str
    page: str
    """Path of the page."""
    tasks: str
    """Path of Label Studio's tasks."""
    label_errors: tuple[LabelError, ...]
    """On the page, the most suspicious first."""
    next: tuple[str, ...]
    """Names of the samples to label next, the first first."""
    labeled: int
    """Samples of the source with labels."""
    unlabeled: int
    classes: tuple[str, ...]
    skipped: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()


def label(
    source: str | Path,
    *,
    model: str | Path | Artifact | None = None,
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
    `tasks.json`, which Label Studio imports, and, where classes are known, `labeling-config.xml`, its interface. What
    the page downloads is `tasks.json` with the new labels in it, which `train` reads. Of samples with labels it holds
    all; tasks of Label Studio keep whatever else they hold.

    `settings` are those of the section `data`; `callbacks` see the training where labels are checked by a network that
    is trained for it. Raises ConfigError for a count below 1, DataError for a source that cannot be read or a model
    of other samples.
    """
    if count < 1:
        raise ConfigError(f"--count: wanted 1 or more, found {count}")
    check_source(source)
    artifact = load_artifact(model) if isinstance(model, str | Path) else model
    config = from_mapping(DataConfig, dict(settings or {}), "data")
    pool = read_pool(source, artifact.config.input if artifact else None, data_root, config)
    if artifact is not None and artifact.config.input.kind != pool.kind:
        raise DataError(f"{source}: wanted {artifact.config.input.kind} data, as the model takes, found {pool.kind}")
    folder = Path(out) if out is not None else Path("runs") / f"{short_name(source)}-labels"
    with hold(folder):
        prepare_folder(folder)
        errors, notes = suspect(pool.labeled, callbacks)
        errors = errors[:count]
        following = choose_next(pool, artifact, count)
        key = choose_key(pool.first.samples, pool.kind)
        control = find_control(pool.tasks) or Control(target=key)
        path = Path(source)
        maker = TaskMaker(path if path.is_dir() else path.parent, pool.kind, control, name_originals(path, pool.tasks))
        classes = list_classes(pool, artifact)
        items = [*list_errors(pool, errors, maker), *list_next(pool, following, maker)]
        rest = list_rest(pool, items, maker)
        title = f"Labels of {short_name(source)}"
        tasks = "[\n" + ",\n".join([*("".join(cut_task(item.task)) for item in items), *rest]) + "\n]\n"
        contents = {PAGE: render(title, items, rest, classes, control), TASKS: tasks}
        if classes and not pool.tasks:
            channels = name_channels(pool.any.channels) if key == "series" else ()
            contents[INTERFACE] = format_labeling_config(key, control, classes, channels)
        encoded = {name: content.encode("utf-8", "backslashreplace") for name, content in contents.items()}
        swap(folder, encoded, {INTERFACE} - {*contents})
    unlabeled = pool.unlabeled.splits["train"] if pool.unlabeled else ()
    return Labeling(
        str(folder),
        str(folder / PAGE),
        str(folder / TASKS),
        errors,
        tuple(item.name for item in items[len(errors) :]),
        sum(map(len, pool.labeled.splits.values())) if pool.labeled else 0,
        len(unlabeled) - len(following.unreadable),
        classes,
        (*(item for item in pool.skipped if item.reason != NO_LABEL), *following.unreadable),
        notes,
    )


def suspect(dataset: Dataset | None, callbacks: Sequence[Callback]) -> tuple[tuple[LabelError, ...], tuple[str, ...]]:
    """Return the labels that are likely wrong, or a note where there are too few to tell."""
    if dataset is None or len(dataset.classes) < 2:
        return (), ()
    try:
        return find_label_errors(dataset, callbacks), ()
    except DataError as error:
        return (), (f"labels were not checked: {str(error).removeprefix('--label-errors: ')}",)


def list_classes(pool: Pool, artifact: Artifact | None) -> tuple[str, ...]:
    """Return the classes that can be chosen: those of the labels, then those of the model."""
    known = pool.labeled.classes if pool.labeled else ()
    return tuple(dict.fromkeys([*known, *(artifact.config.input.labels if artifact else ())]))


def list_errors(pool: Pool, errors: Sequence[LabelError], maker: TaskMaker) -> list[Item]:
    """Return what the page shows of labels that are likely wrong."""
    if pool.labeled is None:
        return []
    wanted = {(error.split, error.name) for error in errors}
    places = {
        (split, name): (part, index)
        for split, name, part, index in iterate_named(pool.labeled)
        if (split, name) in wanted
    }
    items = []
    for error in errors:
        part, index = places[error.split, error.name]
        task = maker.make(part.samples, index, error.label, own_split(pool.labeled, error.split))
        prediction = make_prediction(error.suggested, error.probability, "find_label_errors", maker.control)
        add_prediction(task, prediction)
        view = show(part.samples.read(index), pool.kind)
        items.append(Item(error.name, task, view, error.label, error.suggested, error.probability))
    return items


def list_next(pool: Pool, following: Choices, maker: TaskMaker) -> list[Item]:
    """Return what the page shows of samples to label next."""
    items = []
    for choice in following.items:
        assert pool.unlabeled is not None
        samples = pool.unlabeled.splits["train"].samples
        task = maker.make(samples, choice.index, None, None)
        if choice.suggested is not None and choice.probability is not None:
            add_prediction(
                task, make_prediction(choice.suggested, choice.probability, following.version, maker.control)
            )
        name = maker.name(samples, choice.index)
        view = show(samples.read(choice.index), pool.kind)
        items.append(Item(name, task, view, None, choice.suggested, choice.probability))
    return items


def add_prediction(task: dict[str, Any], prediction: dict[str, Any]) -> None:
    """Add what a model says to a task's predictions."""
    found = task.get("predictions")
    task["predictions"] = [*(found if isinstance(found, list) else []), prediction]


def own_split(dataset: Dataset, split: str) -> str | None:
    """Return the split that a source has for a sample; None where it has no splits of its own."""
    if len(dataset.splits) == len(dataset.made) + 1:
        return None
    return "train" if split in dataset.made else split


def list_rest(pool: Pool, items: Sequence[Item], maker: TaskMaker) -> list[str]:
    """Return the tasks that the page carries without showing them: of Label Studio all, else those with labels."""
    if pool.tasks:
        # The very objects, since tasks may have no numbers of their own.
        shown = {id(maker.find(item.name)) for item in items}
        return [format_task(task) for task in pool.tasks if id(task) not in shown]
    if pool.labeled is None:
        return []
    on_page = {item.name for item in items}
    return [
        format_task(
            maker.make(part.samples, index, pool.labeled.classes[part.labels[index]], own_split(pool.labeled, split))
        )
        for split, name, part, index in iterate_named(pool.labeled)
        if name not in on_page
    ]
