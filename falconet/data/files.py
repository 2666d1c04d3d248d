"""Files of samples: folders of class subfolders, and the files that tables name. Importing it does not import torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Int64

from falconet.data.dataset import Dataset, ImageFiles, Samples, Split, Texts, Unreadable, hash_bytes, sort_classes
from falconet.data.images import EXTENSIONS, ValueRange, find_extremes, inspect_image
from falconet.data.series import WavFiles, inspect_wav
from falconet.data.splits import DataConfig
from falconet.data.texts import read_text_file
from falconet.errors import DataError
from falconet.spec import ImageSpec, InputSpec, Kind, SeriesSpec

KINDS: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {"image": EXTENSIONS, "series": frozenset({".wav"}), "text": frozenset({".txt"})}
)
"""Extensions of each kind's files."""

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


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that should hold one sample."""

    path: str
    """Relative to the source's root, with slashes; absolute where a link or a table leads outside."""
    split: str
    label: str
    group: int | None = None
    """64 bits of what must stay on one side of a split."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """Cells of further columns of its row, by name."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A listed file whose header has been read."""

    listed: ListedFile
    hash: int = 0
    """64 bits of its content."""
    channels: int = 0
    size: tuple[int, ...] = ()
    """Height and width in pixels, steps, or characters."""
    rate: int | None = None
    deep: bool = False
    """Whether an image has more than 8 bits a value."""
    text: str = ""
    reason: str = ""
    """Why it cannot be used; empty where it can."""


@dataclass
class Listing:
    """What lies below a folder."""

    files: list[str] = field(default_factory=list)
    """Visible files, relative to the root."""
    refused: list[Unreadable] = field(default_factory=list)
    """Links that lead outside."""


@dataclass(frozen=True, eq=False)
class TextFiles:
    """Texts in files, read when they are wanted."""

    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> str:
        try:
            return read_text_file(Path(self.paths[index]).read_bytes())
        except OSError as error:
            raise DataError(error.strerror or str(error)) from error

    def take(self, indices: Int64[np.ndarray, " kept"]) -> TextFiles:
        return TextFiles([self.paths[index] for index in indices])

    def join(self, others: Sequence[TextFiles]) -> TextFiles:
        return TextFiles([path for part in (self, *others) for path in part.paths])


def open_files(paths: Sequence[str], spec: InputSpec) -> Samples:
    """Return files of the kind that a model eats as samples, none of them read yet."""
    if isinstance(spec, ImageSpec):
        return ImageFiles(Path(), paths, spec.value_range)
    if isinstance(spec, SeriesSpec):
        if spec.rate is None:
            raise DataError(
                "wanted a model of recordings, found one of series that have no rate; use `falconet evaluate`"
            )
        return WavFiles(Path(), paths, spec.rate, spec.raw_shape[0])
    return TextFiles(paths)


def read_folder(root: Path, config: DataConfig) -> Dataset:
    """Read a folder of class subfolders, or of `train/ val/ test/` that hold them.

    The kind of the samples is that of most files, where `config.kind` does not say. Raises DataError for a folder
    without samples.
    """
    folders = find_class_folders(root)
    found = {folder: walk(root, folder, config.follow) for _, folder in folders}
    kind = config.kind or guess_kind([file for listing in found.values() for file in listing.files])
    files = [
        ListedFile(path, split, folder.name)
        for split, folder in folders
        for path in found[folder].files
        if suffix_of(path) in KINDS[kind]
    ]
    refused = [item for listing in found.values() for item in listing.refused]
    if not files:
        hint = f" ({refused[0].file} {refused[0].reason})" if refused else ""
        raise DataError(describe_empty(root, kind, config.follow) + hint)
    ignored = count_ignored(walk(root, root, config.follow).files, {file.path for file in files})
    classes = sort_classes({folder.name for _, folder in folders})
    return read_files(
        root,
        kind,
        files,
        source=str(root),
        unreadable=refused,
        classes=classes,
        ignored=ignored,
        value_range=config.value_range,
    )


def read_files(
    root: Path,
    kind: Kind,
    files: Sequence[ListedFile],
    *,
    source: str,
    unreadable: Sequence[Unreadable] = (),
    classes: tuple[str, ...] | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    ignored: Mapping[str, int] = MappingProxyType({}),
    value_range: ValueRange | None = None,
) -> Dataset:
    """Read the headers of files of one kind and make a Dataset of those that are whole as far as these tell.

    Pixels are not decoded here: a file may still turn out to be damaged when it is. `classes` are those of `files`
    where they are not given. Raises DataError where not one file of a split can be used.
    """
    # One after the other: headers take mostly Python, of which threads would only get into each other's way.
    read = [read_file(root, file, kind) for file in files]
    if kind == "series":
        read = refuse_odd_channels(read)
    splits = list(dict.fromkeys(file.split for file in files))
    check_readable(source, kind, splits, read)
    usable = [file for file in read if not file.reason]
    classes = classes or sort_classes({file.label for file in files})
    rates = Counter(file.rate for file in usable if file.rate)
    rate = rates.most_common(1)[0][0] if rates else None
    channels = max(file.channels for file in usable)
    value_range = value_range or find_value_range(root, usable)
    make = make_samples(root, kind, rate, channels, value_range)
    return Dataset(
        source=source,
        classes=classes,
        splits={
            name: to_split([file for file in usable if file.listed.split == name], classes, make) for name in splits
        },
        channels=channels,
        size=tuple(int(value) for value in np.median([file.size for file in usable], axis=0)),
        unreadable=(*unreadable, *(Unreadable(file.listed.path, file.reason) for file in read if file.reason)),
        kind=kind,
        rate=rate,
        value_range=value_range,
        columns=columns,
        ignored=ignored,
    )


def read_file(root: Path, listed: ListedFile, kind: Kind) -> ReadFile:
    """Read one file as far as its header."""
    try:
        content = (root / listed.path).read_bytes()
        number = hash_bytes(content)
        if kind == "image":
            image = inspect_image(content)
            return ReadFile(listed, number, image.channels, (image.height, image.width), deep=image.deep)
        if kind == "series":
            wav = inspect_wav(content)
            return ReadFile(listed, number, wav.channels, (wav.steps,), wav.rate)
        text = read_text_file(content)
        return ReadFile(listed, number, 1, (len(text),), text=text)
    except OSError as error:
        return ReadFile(listed, reason=error.strerror or str(error))
    except DataError as error:
        return ReadFile(listed, reason=str(error))


def refuse_odd_channels(files: Sequence[ReadFile]) -> list[ReadFile]:
    """Return recordings, those unusable that have neither one channel nor as many as most that have several."""
    several = Counter(file.channels for file in files if file.channels > 1)
    usual = several.most_common(1)[0][0] if several else 1
    return [
        replace(file, reason=f"wanted {usual} channels or 1, found {file.channels}")
        if file.channels > 1 and file.channels != usual
        else file
        for file in files
    ]


def find_value_range(root: Path, files: Sequence[ReadFile]) -> ValueRange | None:
    """Return black and white of the deep pictures, by those for training where there are any; None without such."""
    deep = [file.listed for file in files if file.deep]
    train = [listed for listed in deep if listed.split == "train"]
    found = find_extremes((root / listed.path).read_bytes() for listed in train or deep)
    return None if found is None else found.choose_range()


def make_samples(
    root: Path, kind: Kind, rate: int | None, channels: int, value_range: ValueRange | None = None
) -> Callable[[Sequence[ReadFile]], Samples]:
    """Return the function that makes samples of files of one kind."""

    def make(files: Sequence[ReadFile]) -> Samples:
        paths = [file.listed.path for file in files]
        if kind == "image":
            return ImageFiles(root, paths, value_range)
        if kind == "series":
            return WavFiles(root, paths, rate or 1, channels)
        return Texts([file.text for file in files], np.array(paths, dtype=str))

    return make


def to_split(
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


def check_readable(source: str, kind: Kind, splits: Iterable[str], files: Sequence[ReadFile]) -> None:
    """Raise DataError where no file can be used, or none of one split."""
    if all(file.reason for file in files):
        first = files[0]
        found = f"none of {len(files)} {KIND_WORDS[kind]} can be read"
        raise DataError(f"{source}: {found}; the first: {first.listed.path} ({first.reason})")
    for split in splits:
        if all(file.reason for file in files if file.listed.split == split):
            raise DataError(f"{source}: no readable {KIND_WORDS[kind]} in {split}; add some, or remove the folder")


KIND_WORDS: Mapping[Kind, str] = MappingProxyType({"image": "images", "series": "recordings", "text": "texts"})
"""What files of a kind are called in messages."""


def find_class_folders(root: Path) -> list[tuple[str, Path]]:
    """Return (split, class folder) for each class; everything is "train" where the folder knows no splits."""
    layers: dict[str | None, Path] = {}
    for folder in list_folders(root):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split in layers and split is not None:
            raise DataError(f"{root}: wanted one folder for {split}, found {layers[split].name} and {folder.name}")
        layers[split] = folder
    # A class may be called "train" too; then it holds images, not class folders.
    splits = [split for split, layer in layers.items() if split and list_folders(layer)]
    if "train" in splits or (splits and len(splits) == len(layers)):
        return [(split, folder) for split in splits for folder in list_folders(layers[split])]
    return [("train", folder) for folder in list_folders(root)]


def list_folders(folder: Path) -> list[Path]:
    """Return the visible subfolders, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_visible(path.name))


def is_visible(name: str) -> bool:
    """Whether a file or folder is a user's: neither hidden nor a system's, such as `__MACOSX`."""
    return not name.startswith((".", "__"))


def walk(root: Path, folder: Path, follow: bool) -> Listing:
    """List the visible files below `folder`, sorted; links that lead out of `root` are refused unless `follow`."""
    listing = Listing()
    inside = root.resolve()
    # A link back up would go round for ever, and give the files of one class to another.
    name = folder.relative_to(root)
    visit(folder, name.as_posix(), inside, follow, listing, seen=set((inside / name).parents))
    listing.files.sort()
    return listing


def visit(folder: Path, name: str, inside: Path, follow: bool, listing: Listing, seen: set[Path]) -> None:
    """Add the files below one folder to a listing; `name` is its path below the root."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    if not follow and not real.is_relative_to(inside):
        listing.refused.append(Unreadable(name, OUTSIDE))
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = entry.name if name == "." else f"{name}/{entry.name}"
            if not is_visible(entry.name):
                continue
            try:
                if entry.is_dir():
                    visit(Path(entry.path), path, inside, follow, listing, seen)
                elif not follow and entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside):
                    listing.refused.append(Unreadable(path, OUTSIDE))
                elif entry.is_file():
                    listing.files.append(path)
            except (OSError, RuntimeError) as error:  # No right to read, or a link to itself.
                listing.refused.append(Unreadable(path, getattr(error, "strerror", None) or str(error)))


OUTSIDE = "leads out of the source's folder; --follow allows it"


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


def guess_kind(paths: Iterable[str]) -> Kind:
    """Return the kind of which there are most files; images where there are none of any."""
    counts = Counter(suffix_of(path) for path in paths)
    return max(KINDS, key=lambda kind: sum(counts[suffix] for suffix in KINDS[kind]))


def count_ignored(paths: Iterable[str], used: set[str]) -> dict[str, int]:
    """Count by extension the files that are no samples, most frequent first."""
    counts = Counter(suffix_of(path) or "no extension" for path in paths if path not in used)
    return dict(counts.most_common())


def list_samples(folder: Path, kind: Kind) -> list[Path]:
    """Return the files of one kind below a folder, sorted; hidden ones are left out."""
    found = walk(folder, folder, follow=False).files
    return [folder / path for path in found if suffix_of(path) in KINDS[kind]]


def describe_empty(root: Path, kind: Kind, follow: bool) -> str:
    """Say what was found in a folder that holds no samples in class subfolders."""
    names = KIND_WORDS[kind]
    direct = [path for path in walk(root, root, follow).files if "/" not in path and suffix_of(path) in KINDS[kind]]
    subfolders = list_folders(root)
    if direct and not subfolders:
        found = f"{len(direct)} {names} directly in it and no subfolders"
    else:
        found = f"{len(subfolders)} subfolders and no {names} in them"
    return f"{root}: wanted one subfolder of {names} for each class, found {found}"
