"""Files of samples: folders of class subfolders, and the files that tables name. Importing it does not import torch."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from falconet.data.adapters import ADAPTERS, FileInfo, SampleFormat
from falconet.data.dataset import (
    Dataset,
    Samples,
    Split,
    Unreadable,
    hash_bytes,
    normalize_label,
    sort_classes,
    to_text,
)
from falconet.data.images import PIXEL_LIMIT, ValueRange, find_extremes, read_content
from falconet.data.splits import DataConfig
from falconet.errors import DataError
from falconet.modalities import EXTENSIONS, MODALITIES
from falconet.spec import InputSpec, ModalityName

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_UNLABELED_WORDS = frozenset({"pred", "predict", "prediction", "unlabeled", "unlabelled", "unsup"})
"""Words in the names of folders that hold samples without classes."""
_SYSTEM_NAMES = frozenset(
    {
        *("__MACOSX", "__pycache__", ".DS_Store", ".AppleDouble", ".Spotlight-V100", ".Trashes", ".fseventsd"),
        *("$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini", "lost+found", "@eaDir"),
        *(".git", ".gitignore", ".gitattributes", ".gitkeep", ".hg", ".svn", ".dvc", ".dvcignore", ".cache"),
        *(".ipynb_checkpoints", ".thumbnails", ".idea", ".vscode", ".venv", ".Trash"),
    }
)
"""Files and folders that systems and tools leave anywhere: passed over without a word."""
_DEPTH_LIMIT = 64
"""Most levels of nested folders that are searched."""
_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (".avif", ".jxl", ".jp2", ".psd", ".svg", ".eps", ".dng", ".cr2", ".nef", ".arw"),
            "convert them to .jpg or .png",
        ),
        **dict.fromkeys((".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma"), "convert them to .wav"),
        **dict.fromkeys((".pdf", ".docx", ".doc", ".rtf"), "convert them to .txt"),
        **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"), "unpack them"),
    }
)
"""Advice about files that are often meant as samples but are not read, by extension."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that should hold one sample."""

    path: str
    """Path relative to the source's root, with slashes; absolute where a link or a table leads outside."""
    split: str
    label: str
    group: int | None = None
    """64-bit hash of the group, which splits keep together; None: no group."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """Cells of the further columns of the file's row, by column."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A listed file whose header has been read."""

    listed: ListedFile
    hash: int = 0
    """64-bit hash of the content."""
    facts: FileInfo = field(default_factory=FileInfo)
    reason: str = ""
    """Why the file cannot be used; empty where it can."""


@dataclass
class Listing:
    """The files below a folder."""

    files: list[str] = field(default_factory=list)
    """Visible files, relative to the root."""
    refused: list[Unreadable] = field(default_factory=list)
    """Links that lead outside or nowhere, pipes and devices, folders nested too deep or not readable."""
    hidden: list[str] = field(default_factory=list)
    """Files and folders that are ignored since their names begin with a dot."""


def open_files(paths: Sequence[str], spec: InputSpec) -> Samples:
    """Return files of the kind that a model takes as samples, none of them read yet."""
    return ADAPTERS[spec.kind].open_files(paths, spec)


def adapt_samples(samples: Samples, spec: InputSpec) -> Samples:
    """Return samples as the model reads them, whatever their source: recordings at its rate, images in its range."""
    return ADAPTERS[spec.kind].adapt_samples(samples, spec)


def read_folder(root: Path, config: DataConfig) -> Dataset:
    """Read a folder of class subfolders, or of `train/ val/ test/` that hold them.

    The kind of the samples is that of most files, where `config.kind` does not say. Raises DataError for a folder
    without samples.
    """
    folders, unlabeled = _find_class_folders(root)
    folders, twins = _part_twins(root, folders)
    classes = {name: frozenset(folder.resolve() for split, folder in folders if split == name) for name, _ in folders}
    found = {folder: walk(root, folder, config.follow, classes[split]) for split, folder in folders}
    kind = config.kind or guess_kind([file for listing in found.values() for file in listing.files])
    files = [
        ListedFile(path, split, _to_class(folder))
        for split, folder in folders
        for path in found[folder].files
        if suffix_of(path) in MODALITIES[kind].extensions
    ]
    refused = [*twins, *(item for listing in found.values() for item in listing.refused)]
    if not files:
        hint = f" ({refused[0].file} {refused[0].reason})" if refused else ""
        raise DataError(_describe_empty(root, kind, config.follow) + hint)
    ignored = _count_left_out(root, walk(root, root, config.follow), [file.path for file in files], unlabeled)
    labels = sort_classes({_to_class(folder) for _, folder in folders})
    dataset = read_files(
        root,
        kind,
        files,
        source=str(root),
        unreadable=refused,
        classes=labels,
        ignored=ignored,
        max_pixels=config.max_pixels,
        value_range=config.value_range,
    )
    filled = {file.label for file in files if file.split == "train"}
    others: dict[str, list[str]] = {}
    for split, folder in folders:
        if split == "train" and _to_class(folder) not in filled:
            others.setdefault(_to_class(folder), []).extend(found[folder].files)
    instead = {name: describe_ignored(count_ignored(paths, set())) for name, paths in others.items() if paths}
    return replace(dataset, empty_class_contents=instead)


def _part_twins(root: Path, folders: Sequence[tuple[str, Path]]) -> tuple[list[tuple[str, Path]], list[Unreadable]]:
    """Return the class folders, and those left out since they are links to other classes of the same split."""
    own = {(split, folder.resolve()): folder for split, folder in folders if not folder.is_symlink()}
    twins = [(split, folder) for split, folder in folders if own.get((split, folder.resolve()), folder) != folder]
    refused = [
        Unreadable(folder.relative_to(root).as_posix(), f"a link to {own[split, folder.resolve()].name}, another class")
        for split, folder in twins
    ]
    return [item for item in folders if item not in twins], refused


def _count_left_out(root: Path, listing: Listing, used: Sequence[str], unlabeled: Sequence[Path]) -> dict[str, int]:
    """Count what is no sample: by extension, by folder where a folder has no classes, and what is hidden."""
    prefixes = {f"{folder.relative_to(root).as_posix()}/": folder.name for folder in unlabeled}
    outside = Counter(name for path in listing.files for prefix, name in prefixes.items() if path.startswith(prefix))
    beside = [path for path in listing.files if not path.startswith(tuple(prefixes))]
    tops = {path.partition("/")[0] for path in used}
    hidden = [path for path in listing.hidden if path not in tops and not any(p.startswith(f"{path}/") for p in tops)]
    folders = {f"folder {to_text(name)} (no classes)": count for name, count in outside.most_common()}
    return {**folders, **count_ignored(beside, set(used)), **({"hidden": len(hidden)} if hidden else {})}


def read_files(
    root: Path,
    kind: ModalityName,
    files: Sequence[ListedFile],
    *,
    source: str,
    unreadable: Sequence[Unreadable] = (),
    classes: tuple[str, ...] | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    ignored: Mapping[str, int] = MappingProxyType({}),
    max_pixels: int = PIXEL_LIMIT,
    value_range: ValueRange | None = None,
) -> Dataset:
    """Read the headers of files of one kind and make a Dataset of those that are whole as far as these tell.

    Pixels are not decoded here: a file may still turn out to be damaged when it is. `classes` are those of `files`
    where they are not given. Raises DataError where not one file of a split can be used.
    """
    # One after the other: headers take mostly Python, of which threads would only get into each other's way.
    read = _refuse_odd_channels([_read_file(root, file, kind, max_pixels) for file in files], kind)
    splits = list(dict.fromkeys(file.split for file in files))
    _check_readable(source, kind, splits, read)
    usable = [file for file in read if not file.reason]
    classes = classes or sort_classes({file.label for file in files})
    rates = Counter(file.facts.rate for file in usable if file.facts.rate)
    rate = rates.most_common(1)[0][0] if rates else None
    channels = _find_channels(usable, kind)
    value_range = _find_value_range(root, usable, value_range)
    make = _make_samples(root, kind, SampleFormat(channels, rate, value_range))
    return Dataset(
        source=source,
        classes=classes,
        splits={
            name: _to_split([file for file in usable if file.listed.split == name], classes, make) for name in splits
        },
        channels=channels,
        size=tuple(int(value) for value in np.median([file.facts.size for file in usable], axis=0)),
        unreadable=(*unreadable, *(Unreadable(file.listed.path, file.reason) for file in read if file.reason)),
        kind=kind,
        rate=rate,
        value_range=value_range,
        columns=columns,
        ignored=ignored,
    )


def _read_file(root: Path, listed: ListedFile, kind: ModalityName, max_pixels: int) -> ReadFile:
    """Read one file as far as its header."""
    try:
        content = read_content(root / listed.path)
        return ReadFile(listed, hash_bytes(content), ADAPTERS[kind].inspect(content, max_pixels))
    except DataError as error:
        return ReadFile(listed, reason=str(error))


def _refuse_odd_channels(files: Sequence[ReadFile], kind: ModalityName) -> list[ReadFile]:
    """Return files, those unusable whose channels do not go with those of most."""
    readable = [file for file in files if not file.reason]
    if not readable:
        return list(files)
    usual = _find_channels(readable, kind)
    refuse = ADAPTERS[kind].refuse_channels
    return [file if file.reason else replace(file, reason=refuse(file.facts.channels, usual)) for file in files]


def _find_channels(files: Sequence[ReadFile], kind: ModalityName) -> int:
    """Return the channels of a data set."""
    return ADAPTERS[kind].choose_channels(Counter(file.facts.channels for file in files))


def _find_value_range(root: Path, files: Sequence[ReadFile], asked: ValueRange | None) -> ValueRange | None:
    """Return black and white of the high-bit-depth images, as set or by those for training; None without such."""
    deep = [file.listed for file in files if file.facts.deep]
    if asked is not None:
        return asked if deep else None
    train = [listed for listed in deep if listed.split == "train"]
    found = find_extremes(read_content(root / listed.path) for listed in train or deep)
    return None if found is None else found.choose_range()


def _make_samples(root: Path, kind: ModalityName, layout: SampleFormat) -> Callable[[Sequence[ReadFile]], Samples]:
    """Return the function that makes samples of files of one kind."""

    def make(files: Sequence[ReadFile]) -> Samples:
        paths = [file.listed.path for file in files]
        return ADAPTERS[kind].make_samples(root, paths, [file.facts for file in files], layout)

    return make


def _to_split(
    files: Sequence[ReadFile], classes: tuple[str, ...], make: Callable[[Sequence[ReadFile]], Samples]
) -> Split:
    """Return the usable files of one split."""
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[file.listed.label] for file in files], dtype=np.int64)
    hashes = np.array([file.hash for file in files], dtype=np.uint64)
    groups = [file.listed.group for file in files if file.listed.group is not None]
    together = np.array(groups, dtype=np.uint64) if groups and len(groups) == len(files) else None
    names = files[0].listed.extras if files else ()
    extras = {name: np.array([file.listed.extras[name] for file in files], dtype=object) for name in names}
    return Split(make(files), labels, hashes, together, extras)


def _check_readable(source: str, kind: ModalityName, splits: Iterable[str], files: Sequence[ReadFile]) -> None:
    """Raise DataError where no file can be used, or none of one split."""
    if all(file.reason for file in files):
        first = files[0]
        found = f"none of {len(files)} {MODALITIES[kind].files} can be read"
        raise DataError(f"{source}: {found}; the first: {first.listed.path} ({first.reason})")
    for split in splits:
        if all(file.reason for file in files if file.listed.split == split):
            raise DataError(
                f"{source}: no readable {MODALITIES[kind].files} in {split}; add some, or remove the folder"
            )


def _find_class_folders(root: Path) -> tuple[list[tuple[str, Path]], list[Path]]:
    """Return (split, class folder) for each class, and the folders of a split, or of none, that have no classes.

    Everything is "train" where the folder knows no splits. A folder that holds nothing but one other is passed through.
    Raises DataError where folders called like splits hold samples without classes.
    """
    root = _unwrap(root)
    folders = list_folders(root)
    strict = _group_splits({folder: SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders})
    loose = _group_splits({folder: _find_split_word(folder.name) for folder in folders})
    for layers in (strict, loose):
        # A class may be called "train" too; then it holds images, not class folders.
        labeled = {split: [folder for folder in layers[split] if _list_classes(folder)] for split in layers}
        splits = {split: found for split, found in labeled.items() if found}
        if layers is loose and len(splits) < 2:
            continue  # A station of trains is no split.
        for split, found in splits.items():
            if len(found) > 1:
                raise DataError(f"{root}: wanted one folder for {split}, found {found[0].name} and {found[1].name}")
        if "train" in splits or (splits and len(splits) == len(folders)):
            used = [found[0] for found in splits.values()]
            rest = [folder for folder in folders if folder not in used and _is_split_like(folder.name)]
            return [(split, folder) for split in splits for folder in _list_classes(splits[split][0])], rest
    if len(loose) > 1 and "train" in loose and all(_is_split_like(folder.name) for folder in folders):
        raise DataError(
            f"{root}: wanted a subfolder for each class in every split, such as train/CLASS/1.png, or a table "
            "train/metadata.csv with the columns file_name and label, found files without classes in "
            f"{', '.join(folder.name for folder in folders)}"
        )
    return [("train", folder) for folder in folders], []


def _unwrap(root: Path) -> Path:
    """Return the folder itself, or the one within that is all it holds and holds folders alone."""
    for _ in range(_DEPTH_LIMIT):
        folders = list_folders(root)
        if len(folders) != 1 or _is_split_like(folders[0].name) or not list_folders(folders[0]):
            break
        if _holds_samples(root) or _holds_samples(folders[0]):
            break
        root = folders[0]
    return root


def _list_classes(layer: Path) -> list[Path]:
    """Return the class folders of a split, also where its folder holds another one of such a name."""
    for _ in range(_DEPTH_LIMIT):
        folders = list_folders(layer)
        if len(folders) != 1 or not (folders[0].name == layer.name or _is_split_like(folders[0].name)):
            return folders
        if _holds_samples(folders[0]):
            return []  # It holds what its own split should hold in classes.
        layer = folders[0]
    return []


def _group_splits(words: Mapping[Path, str | None]) -> dict[str, list[Path]]:
    """Return the folders of each split, in order."""
    groups: dict[str, list[Path]] = {}
    for folder, split in words.items():
        if split is not None:
            groups.setdefault(split, []).append(folder)
    return groups


def _list_words(name: str) -> list[str]:
    """Return the words of which a name is made, in lower case: seg and train of `seg_train1` and `SegTrain`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]


def _find_split_word(name: str) -> str | None:
    """Return the one split of which a name speaks."""
    found = {SPLIT_FOLDERS[word] for word in _list_words(name) if word in SPLIT_FOLDERS}
    return found.pop() if len(found) == 1 else None


def _is_split_like(name: str) -> bool:
    """Tell whether a name is that of a split, or says that there are no classes."""
    return _find_split_word(name) is not None or not _UNLABELED_WORDS.isdisjoint(_list_words(name))


def list_folders(folder: Path) -> list[Path]:
    """Return the subfolders, sorted; of hidden ones those that hold samples, since a class may be called `.NET`."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_dir() and _is_user(entry.name)]
    except OSError:  # Gone, or not open to the user: `walk` says so.
        return []
    return sorted(path for path in found if not path.name.startswith((".", "__")) or _holds_samples(path))


def _holds_samples(folder: Path) -> bool:
    """Tell whether a folder itself holds files of some kind of samples."""
    known = EXTENSIONS
    try:
        with os.scandir(folder) as entries:
            return any(is_visible(entry.name) and suffix_of(entry.name) in known for entry in entries)
    except OSError:
        return False


def _to_class(folder: Path) -> str:
    """Return the class that a folder holds."""
    name = to_text(folder.name)
    return normalize_label(name) or name


def _is_user(name: str) -> bool:
    """Whether a file or folder is a user's, not a system's."""
    return name not in _SYSTEM_NAMES and not name.startswith("._")


def is_visible(name: str) -> bool:
    """Whether a file is a user's and not hidden."""
    return _is_user(name) and not name.startswith(".")


OUTSIDE = "leads out of the source's folder; --follow allows it"


def walk(root: Path, folder: Path, follow: bool, classes: frozenset[Path] = frozenset()) -> Listing:
    """List the visible files below `folder`, sorted; links that lead out of `root` are refused unless `follow`.

    A folder is read once, however many links lead to it, and under its own name where that lies below `folder`. So are
    links to folders within others of `classes`, resolved class folders: these are read by themselves.
    """
    listing = Listing()
    inside = root.resolve()
    name = folder.relative_to(root)
    try:
        # A link back up would go round for ever, and give the files of one class to another.
        seen = {_identify(os.stat(parent)) for parent in (inside / name).parents}  # noqa: PTH116
        if _identify(folder.stat()) in seen:
            return listing
        real = folder.resolve()
        if not follow and not real.is_relative_to(inside):
            listing.refused.append(Unreadable(name.as_posix(), OUTSIDE))
            return listing
        others = classes - {real}
    except (OSError, RuntimeError) as error:
        listing.refused.append(Unreadable(name.as_posix(), _describe_error(error)))
        return listing
    links = deque([(folder, name.as_posix(), _DEPTH_LIMIT)])
    while links:  # Those that are found on the way come after all real folders.
        path, called, depth = links.popleft()
        try:
            if others and not others.isdisjoint(((target := path.resolve()), *target.parents)):
                listing.refused.append(Unreadable(called, "a link to a folder of another class"))
            elif _identify(path.stat()) not in seen:
                _visit(path, called, depth, inside, follow, listing, seen, links)
        except (OSError, RuntimeError) as error:
            listing.refused.append(Unreadable(called, _describe_error(error)))
    listing.files.sort()
    return listing


def _identify(status: os.stat_result) -> tuple[int, int]:
    """Return what is the same for a folder and every link to it."""
    return status.st_dev, status.st_ino


def _visit(
    folder: Path,
    name: str,
    depth: int,
    inside: Path,
    follow: bool,
    listing: Listing,
    seen: set[tuple[int, int]],
    links: deque[tuple[Path, str, int]],
) -> None:
    """Add the files below one folder to a listing, and links to folders in it to `links`.

    `name` is its path below the root; `depth` says how many folders within one another are looked into. Only links are
    resolved: that takes as long as a path is deep.
    """
    seen.add(_identify(folder.stat()))
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = entry.name if name == "." else f"{name}/{entry.name}"
            if not _is_user(entry.name):
                continue
            if entry.name.startswith("."):
                listing.hidden.append(path)
                continue
            try:
                leads_out = not follow and entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside)
                if entry.is_dir():
                    if _identify(entry.stat()) in seen:
                        continue
                    if leads_out or depth == 0:
                        reason = OUTSIDE if leads_out else f"more than {_DEPTH_LIMIT} folders deep"
                        listing.refused.append(Unreadable(path, reason))
                    elif entry.is_symlink():
                        links.append((Path(entry.path), path, depth - 1))
                    else:
                        _visit(Path(entry.path), path, depth - 1, inside, follow, listing, seen, links)
                elif leads_out:
                    listing.refused.append(Unreadable(path, OUTSIDE))
                elif entry.is_file():
                    listing.files.append(path)
                else:
                    reason = "a link to nothing" if entry.is_symlink() else "not a regular file"
                    listing.refused.append(Unreadable(path, reason))
            except (OSError, RuntimeError) as error:  # No right to read, or a link to itself.
                listing.refused.append(Unreadable(path, _describe_error(error)))


def _describe_error(error: OSError | RuntimeError) -> str:
    return getattr(error, "strerror", None) or str(error)


def check_inside(root: Path, path: str, follow: bool) -> str:
    """Return a table's path relative to `root`, or absolute where it leads outside and `follow` allows it.

    Raises DataError where it leads outside, by `..`, by a link or because it is absolute, and `follow` does not.
    """
    inside, real = root.resolve(), (root / path).resolve()
    if real.is_relative_to(inside):
        return real.relative_to(inside).as_posix()
    if follow:
        return real.as_posix()
    raise DataError(OUTSIDE)


def suffix_of(path: str) -> str:
    """Return a path's extension in lower case."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path for each of a million names takes seconds


def guess_kind(paths: Iterable[str]) -> ModalityName:
    """Return the kind of which there are most files; images where there are none of any."""
    counts = Counter(suffix_of(path) for path in paths)
    return max(MODALITIES, key=lambda kind: sum(counts[suffix] for suffix in MODALITIES[kind].extensions))


def count_ignored(paths: Iterable[str], used: set[str]) -> dict[str, int]:
    """Count by extension the files that are no samples, most frequent first."""
    counts = Counter(suffix_of(path) or "no extension" for path in paths if path not in used)
    return dict(counts.most_common())


def describe_ignored(ignored: Mapping[str, int]) -> str:
    """Say how many files of which extension are left out, and what to do about those that are often meant."""
    return ", ".join(
        f"{count:,} {suffix}" + (f" (not read: {_REMEDIES[suffix]})" if suffix in _REMEDIES else "")
        for suffix, count in ignored.items()
    )


def _describe_empty(root: Path, kind: ModalityName, follow: bool) -> str:
    """Say what was found in a folder that holds no samples in class subfolders."""
    names = MODALITIES[kind].files
    direct = [
        path
        for path in walk(root, root, follow).files
        if "/" not in path and suffix_of(path) in MODALITIES[kind].extensions
    ]
    others = count_ignored(walk(root, root, follow).files, set(direct))
    known = describe_ignored({suffix: count for suffix, count in others.items() if suffix in _REMEDIES})
    subfolders = list_folders(root)
    if direct and not subfolders:
        found = f"{len(direct)} {names} directly in it and no subfolders"
    else:
        found = f"{len(subfolders)} subfolders and no {names} in them"
    return f"{root}: wanted one subfolder of {names} for each class, found {found}" + (f", {known}" if known else "")
