"""Dataset: what every source becomes. Arrays, strings and paths only; importing it does not import torch."""

from __future__ import annotations

import hashlib
import operator
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt, UInt64

from falconet.data.images import ValueRange, decode_image, read_content, read_image, scale_values, to_words
from falconet.errors import DataError, UnknownNameError, UsageError
from falconet.escaping import escape_line
from falconet.modalities import MODALITIES
from falconet.spec import InputSpec, ModalityName, PixelType

if TYPE_CHECKING:
    from falconet.data.augmentation import Augmentation
    from falconet.data.loader import Loader
    from falconet.data.splits import DataConfig

SPLIT_NAMES = ("train", "val", "test")

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
"""Characters without width that change no other; U+200C and U+200D join letters and emoji, and stay inside a word."""
_MARGIN = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200c\u200d"
"""White space of any width, and joiners, which join nothing at the margin of a label."""


@runtime_checkable
class Samples(Protocol):
    """A sequence of raw samples of one kind.

    An image is uint8, or uint16 for a high bit depth, `(height, width, channels)` with 1 or 3 channels, a series
    float32 `(channels, steps)` with NaN for what is missing, a text a string.
    """

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return how a person would find this sample again: a path, a line of a table, a position in an array."""

    def read(self, index: int) -> Any:
        """Return one sample. Raises DataError where it cannot be read."""

    def take(self, indices: Int64[np.ndarray, " kept"]) -> Samples:
        """Return the samples at `indices`, in that order."""

    def join(self, others: Sequence[Any]) -> Samples:
        """Return these samples followed by those of `others`, which are of the same class."""


@runtime_checkable
class Encoded(Protocol):
    """Samples whose encoded bytes are available; `Split.hashes` are hashes of these bytes."""

    def content(self, index: int) -> bytes:
        """Return one sample as it is stored. Raises DataError where it cannot be read."""


@runtime_checkable
class Scalable(Protocol):
    """Images, of which those of high bit depth are scaled from a range of values."""

    def scale(self, value_range: ValueRange | None, dtype: PixelType) -> Samples:
        """Return the images as read in another range and type; see `ImageSpec`."""


@dataclass(frozen=True, eq=False)
class ImageArray:
    """Images of one size, in memory."""

    images: Shaped[np.ndarray, "samples height width channels"]
    names: np.ndarray
    """Name of each sample: its place in the source, such as `mnist:test[12]` or `digits[12]`."""
    value_range: ValueRange | None = None
    """Black and white of `images`; None: they are not scaled."""
    dtype: PixelType = "uint8"
    """Type of scaled samples."""

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def read(self, index: int) -> UInt[np.ndarray, "height width channels"]:
        image: UInt[np.ndarray, "height width channels"] = self.cut(index, index + 1)[0]
        return image

    def cut(self, start: int, stop: int) -> UInt[np.ndarray, "some height width channels"]:
        """Return the samples from `start` on that lie before `stop`."""
        part: np.ndarray = self.images[start:stop]
        return part if self.value_range is None else scale_values(part, self.value_range, self.dtype)

    def scale(self, value_range: ValueRange | None, dtype: PixelType) -> ImageArray:
        # A model without a range is one of 8 bits, and reads arrays in what they hold themselves.
        deep = self.value_range is not None
        return replace(self, value_range=value_range or self.value_range, dtype=dtype) if deep else self

    def take(self, indices: Int64[np.ndarray, " kept"]) -> ImageArray:
        return replace(self, images=self.images[indices], names=self.names[indices])

    def join(self, others: Sequence[ImageArray]) -> ImageArray:
        parts = [self, *others]
        sizes = {part.images.shape[1:] for part in parts}
        if len(sizes) > 1:
            raise DataError(f"splits hold images of different sizes, {sorted(sizes)}: name one split instead of all")
        names = np.concatenate([part.names for part in parts])
        if len({(part.value_range, part.dtype) for part in parts}) == 1:
            return replace(self, images=np.concatenate([part.images for part in parts]), names=names)
        scaled = [part.cut(0, len(part)) for part in parts]
        deep = any(images.dtype == np.uint16 for images in scaled)
        return ImageArray(np.concatenate([to_words(images) if deep else images for images in scaled]), names)


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images of any sizes, in memory."""

    images: Sequence[UInt[np.ndarray, "_ _ _"]]
    """Images of 8 bits, each `(height, width, channels)`."""
    names: np.ndarray
    """Name of each sample: its place in the source, such as `arrays[12]`."""

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def read(self, index: int) -> UInt[np.ndarray, "height width channels"]:
        return self.images[index]

    def take(self, indices: Int64[np.ndarray, " kept"]) -> ImageList:
        return ImageList([self.images[index] for index in indices], self.names[indices])

    def join(self, others: Sequence[ImageList]) -> ImageList:
        parts = [self, *others]
        images = [image for part in parts for image in part.images]
        return ImageList(images, np.concatenate([part.names for part in parts]))


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files, read when they are wanted."""

    root: Path
    paths: Sequence[str]
    """Paths relative to `root`."""
    value_range: ValueRange | None = None
    """Black and white of high-bit-depth images; see `decode_image`."""
    dtype: PixelType = "uint8"
    """Type of high-bit-depth images."""

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> UInt[np.ndarray, "height width channels"]:
        return read_image(self.root / self.paths[index], self.value_range, self.dtype)

    def content(self, index: int) -> bytes:
        return read_content(self.root / self.paths[index])

    def scale(self, value_range: ValueRange | None, dtype: PixelType) -> ImageFiles:
        return replace(self, value_range=value_range, dtype=dtype)

    def take(self, indices: Int64[np.ndarray, " kept"]) -> ImageFiles:
        return replace(self, paths=[self.paths[index] for index in indices])

    def join(self, others: Sequence[ImageFiles]) -> ImageFiles:
        return replace(self, paths=[path for part in (self, *others) for path in part.paths])


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images as the bytes of their files, in memory, decoded when they are wanted."""

    contents: Sequence[bytes]
    names: np.ndarray
    """Name of each sample: its place in the source, such as `labels.json:12`."""
    value_range: ValueRange | None = None
    """Black and white of high-bit-depth images; see `decode_image`."""
    dtype: PixelType = "uint8"
    """Type of high-bit-depth images."""

    def __len__(self) -> int:
        return len(self.contents)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def read(self, index: int) -> UInt[np.ndarray, "height width channels"]:
        try:
            return decode_image(self.contents[index], self.value_range, self.dtype)
        except DataError as error:
            raise DataError(f"{self.name(index)}: {error}") from error

    def content(self, index: int) -> bytes:
        return self.contents[index]

    def scale(self, value_range: ValueRange | None, dtype: PixelType) -> EncodedImages:
        return replace(self, value_range=value_range, dtype=dtype)

    def take(self, indices: Int64[np.ndarray, " kept"]) -> EncodedImages:
        return replace(self, contents=[self.contents[index] for index in indices], names=self.names[indices])

    def join(self, others: Sequence[EncodedImages]) -> EncodedImages:
        parts = [self, *others]
        contents = [content for part in parts for content in part.contents]
        return replace(self, contents=contents, names=np.concatenate([part.names for part in parts]))


@dataclass(frozen=True, eq=False)
class SeriesArray:
    """Series of any lengths, in memory, one after the other."""

    values: Float32[np.ndarray, "channels total_steps"]
    bounds: Int64[np.ndarray, "samples 2"]
    """First step of each series in `values`, and the step after its last."""
    names: np.ndarray
    """Name of each sample: its place in the source, such as `GunPoint_TRAIN.ts:19`."""

    def __len__(self) -> int:
        return len(self.bounds)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def read(self, index: int) -> Float32[np.ndarray, "channels steps"]:
        begin, end = self.bounds[index]
        series: Float32[np.ndarray, "channels steps"] = self.values[:, begin:end]
        return series

    def take(self, indices: Int64[np.ndarray, " kept"]) -> SeriesArray:
        return SeriesArray(self.values, self.bounds[indices], self.names[indices])

    def join(self, others: Sequence[SeriesArray]) -> SeriesArray:
        parts = [self, *others]
        if all(part.values is self.values for part in parts):
            bounds = np.concatenate([part.bounds for part in parts])
            return SeriesArray(self.values, bounds, np.concatenate([part.names for part in parts]))
        offsets = np.cumsum([0, *(part.values.shape[1] for part in parts)])
        bounds = np.concatenate([part.bounds + offset for part, offset in zip(parts, offsets, strict=False)])
        values = np.concatenate([part.values for part in parts], axis=1)
        return SeriesArray(values, bounds, np.concatenate([part.names for part in parts]))


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts, in memory."""

    texts: Sequence[str]
    names: np.ndarray
    """Name of each sample: its place in the source, such as `reviews.csv:12` or `spam/7.txt`."""

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def read(self, index: int) -> str:
        return self.texts[index]

    def take(self, indices: Int64[np.ndarray, " kept"]) -> Texts:
        return Texts([self.texts[index] for index in indices], self.names[indices])

    def join(self, others: Sequence[Texts]) -> Texts:
        parts = [self, *others]
        return Texts([text for part in parts for text in part.texts], np.concatenate([part.names for part in parts]))


@dataclass(frozen=True, eq=False)
class Split:
    """Samples with their labels: `split[0]` is a sample and its class as a position in the data set's `classes`.

    `split[:100]`, or a list or an array of positions, or of a truth value for each sample, is a Split of these samples.
    """

    samples: Samples
    """The raw samples."""
    labels: Int64[np.ndarray, " samples"]
    """Positions in the data set's `classes`."""
    hashes: UInt64[np.ndarray, " samples"]
    """64-bit hash of each sample's content, before decoding."""
    groups: UInt64[np.ndarray, " samples"] | None = None
    """64-bit hash of each sample's group, such as a person or a page, which splits keep together; 0: no group.

    None: there are no groups.
    """
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Cells of the further columns of a table in `DataConfig.extra`, by column; empty strings for missing ones."""
    name: str = ""
    """`train`, `val`, `test` or `all`; empty for a split without an owner."""
    owner: Dataset | None = field(default=None, repr=False)
    """The data set of this split, or of this part of a split; None for entries of `dataset.splits`."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        count = len(self)
        if self.owner is None:
            return f"Split({count:,} {'sample' if count == 1 else 'samples'})"
        kind = self.owner.kind
        noun = kind if count == 1 else MODALITIES[kind].plural
        return f"Split({self.name}, {count:,} {noun}, {len(self.owner.classes):,} classes)"

    @overload
    def __getitem__(self, index: int) -> tuple[Any, int]: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Shaped[np.ndarray, " some"]) -> Split: ...

    def __getitem__(self, index: Any) -> tuple[Any, int] | Split:
        if isinstance(index, slice) or np.ndim(index) == 1:
            return self.take(np.arange(len(self))[list(index) if isinstance(index, tuple) else index])
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"wanted a position below {len(self)}, found {index}")
        index %= len(self)
        return self.samples.read(index), int(self.labels[index])

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return (self[index] for index in range(len(self)))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes. Raises UsageError for a split without an owner."""
        return find_owner(self).classes

    @property
    def group_names(self) -> UInt64[np.ndarray, " samples"] | None:
        """The groups; a sample without a group is named by the hash of its content."""
        return None if self.groups is None else np.where(self.groups == 0, self.hashes, self.groups)

    def take(self, indices: Int64[np.ndarray, " kept"]) -> Split:
        """Return the samples at `indices`, in that order."""
        return replace(
            self,
            samples=self.samples.take(indices),
            labels=self.labels[indices],
            hashes=self.hashes[indices],
            groups=None if self.groups is None else self.groups[indices],
            extras={name: cells[indices] for name, cells in self.extras.items()},
        )

    def to_loader(
        self,
        spec: InputSpec,
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        classes: Sequence[str] | None = None,
        tokenizer: str | None = None,
    ) -> Loader:
        """Return batches of inputs, as a model of `spec` takes them, and class numbers.

        They are positions in `classes`, such as a model's, or where that is None in those of the data set.

        The samples are decoded here, once. An epoch is split into batches of at most `batch_size` samples that differ
        by one at most: 100 samples by 64 are two of 50. Each walk over the loader is another epoch, in another order
        where they are to `shuffle`, and augmented anew where there is an `augmentation`; both follow from the `seed`. A
        spec of texts needs the `tokenizer` that goes with it. Raises UsageError for what does not go together,
        DataError for a class that is not among `classes`, and where nothing can be read.
        """
        from falconet.data.loader import load_batches

        return load_batches(
            self,
            spec,
            batch_size,
            shuffle=shuffle,
            augmentation=augmentation,
            seed=seed,
            classes=classes,
            tokenizer=tokenizer,
        )


NO_LABEL = "no label"
"""Reason for skipping a sample that only lacks a label."""


@dataclass(frozen=True)
class Unreadable:
    """A file or a row that was skipped."""

    file: str
    """Name of the file or row, as text that can be written anywhere; see `to_text`."""
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", to_text(self.file))


def describe_skipped(items: Sequence[Unreadable]) -> str:
    """Say in a refusal how many files or rows were skipped, and why the first one was; nothing for none."""
    first = f"{items[0].file} ({items[0].reason})" if items else ""
    return f"; {len(items):,} skipped, the first: {first}" if items else ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A source, read and split."""

    source: str
    """Name or path of the source, as the user wrote it."""
    classes: tuple[str, ...]
    """The names of the classes; labels are positions in it."""
    splits: Mapping[str, Split]
    """Splits by name; after `complete_splits` always train, val and test."""
    channels: int
    """Channels: 1 where all images are gray, else 3; variables of a series; 1 for texts."""
    size: tuple[int, ...]
    """Median size: height and width of an image in pixels, steps of a series, characters of a text."""
    unreadable: tuple[Unreadable, ...] = ()
    """Files and rows of the source that were skipped."""
    kind: ModalityName = "image"
    """Kind of the samples."""
    rate: int | None = None
    """Sampling rate of recordings in Hz; None for other samples."""
    value_range: ValueRange | None = None
    """Black and white of high-bit-depth images; None: there are none."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column that each role (`label`, `text`, `path`, ...) was read from, where the source is a table."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of a folder that were no samples, counted by extension."""
    empty_class_contents: Mapping[str, str] = field(default_factory=dict)
    """Description of the content of class folders without any training sample, by class."""
    made_splits: frozenset[str] = frozenset()
    """Names of the splits that the source lacks and that were made from its training samples."""
    split_seed: int | None = None
    """Seed of the splits that were made."""
    notes: tuple[str, ...] = ()
    """Guesses that were needed to read the source, such as that a table has no header."""
    config: DataConfig | None = None
    """Settings by which the source was read and split; None: it is not split yet."""

    def __repr__(self) -> str:
        counts = (f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"Dataset({', '.join([escape_line(self.source), self.kind, f'{len(self.classes):,} classes', *counts])})"

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        val: Any = None,
        test: Any = None,
        name: str = "arrays",
        config: DataConfig | Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Make a data set of samples at hand.

        Parameters
        ----------
        x
            Images or series as one array or tensor, in the shapes that an `.npz` may have; or a list of one entry a
            sample: texts, PIL images, arrays `(height, width[, channels])` or series `([channels,] steps)`. What is
            `(n, steps)` is taken for series, and what is `(n, height, width)` or has more dimensions for images, unless
            `config.kind` says otherwise.
        y
            A class for each sample, as a string or a whole number.
        val, test
            Pairs of samples and classes for these splits; one that is missing is made from `x` and `y`, as for a
            folder without splits.
        name
            What the data set is called in reports and notes.
        config
            How missing splits are made; see `falconet.DataConfig`.

        Raises UsageError for what can be no samples or labels, DataError where there are none, or not as many labels
        as samples, or fewer than two classes.

        """
        from falconet.data.objects import read_arrays

        return read_arrays(x, y, val=val, test=test, name=name, config=config)

    @classmethod
    def from_dataframe(  # noqa: PLR0913 - one for each role of a column
        cls,
        df: Any,
        *,
        label: str | None = None,
        text: str | None = None,
        path: str | None = None,
        series: str | None = None,
        time: str | None = None,
        split: str | None = None,
        group: str | None = None,
        root: str | Path = ".",
        name: str = "dataframe",
        config: DataConfig | Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Make a data set of a table at hand, as `falconet.load_dataset` makes one of a table in a file.

        `df` is a DataFrame of pandas or polars, a table of pyarrow, or a mapping of columns. `label`, `text`, `path`,
        `series`, `time`, `split` and `group` name columns, as the fields of `falconet.Columns` do; one that is not
        named is guessed, the group excepted. `root` is the folder that relative paths begin at, `name` what the data
        set is called, and `config` all else that decides how it is read and split.

        Raises UsageError for what is no table, ConfigError for a column that is not there, and DataError where nothing
        in it can be a sample or a label.
        """
        from falconet.data.objects import read_dataframe
        from falconet.data.splits import Columns

        columns = Columns(label=label, path=path, text=text, split=split, group=group, series=series, time=time)
        return read_dataframe(df, columns, root=Path(root), name=name, config=config)

    @property
    def train(self) -> Split:
        """The training split."""
        return self.split("train")

    @property
    def val(self) -> Split:
        """The validation split, by which epochs and models are chosen."""
        return self.split("val")

    @property
    def test(self) -> Split:
        """The test split, by which nothing is chosen."""
        return self.split("test")

    def split(self, name: str) -> Split:
        """Return one split, or all samples for "all". Raises UnknownNameError for any other name."""
        if name != "all" and name not in self.splits:
            raise UnknownNameError("split", name, [*self.splits, "all"])
        found = concatenate(list(self.splits.values())) if name == "all" else self.splits[name]
        return replace(found, name=name, owner=self)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when any sample, label, group, class name or own split of the source does.

        The order of samples and the splits that Falconet made do not count.
        """
        digest = hashlib.blake2b("\0".join(self.classes).encode("utf-8", "backslashreplace"), digest_size=16)
        own: dict[str, list[np.ndarray]] = {}
        for name, split in self.splits.items():
            columns = [split.hashes, split.labels.astype(np.uint64)]
            if split.group_names is not None:  # Splits that are made of groups follow from these too.
                columns.append(split.group_names)
            rows = np.stack(columns, axis=1)
            own.setdefault("train" if name in self.made_splits else name, []).append(rows)
        for name, parts in sorted(own.items()):
            rows = np.concatenate(parts)
            digest.update(name.encode() + rows[np.lexsort(rows.T)].tobytes())
        return digest.hexdigest()

    @property
    def splits_fingerprint(self) -> str:
        """32 hexadecimal digits that change when any sample moves to another split; their order does not count."""
        digest = hashlib.blake2b(digest_size=16)
        for name, split in sorted(self.splits.items()):
            digest.update(name.encode() + np.sort(split.hashes).tobytes())
        return digest.hexdigest()


def find_owner(split: Split) -> Dataset:
    """Return the data set of a split. Raises UsageError for a split without an owner."""
    if split.owner is None:
        raise UsageError(
            "wanted a split such as dataset.test or dataset.split(name), found one that does not know its data set"
        )
    return split.owner


def concatenate(splits: Sequence[Split]) -> Split:
    """Return all samples of several splits of one data set, in order."""
    first, *others = splits
    labels = np.concatenate([split.labels for split in splits])
    hashes = np.concatenate([split.hashes for split in splits])
    groups = [split.groups for split in splits if split.groups is not None]
    joined = first.samples.join([split.samples for split in others])
    extras = {name: np.concatenate([split.extras[name] for split in splits]) for name in first.extras}
    return Split(joined, labels, hashes, np.concatenate(groups) if len(groups) == len(splits) else None, extras)


def to_text(name: str) -> str:
    """Return a file's name as text that can be written anywhere: a byte that is no UTF-8 becomes its escape."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def hash_arrays(arrays: np.ndarray) -> UInt64[np.ndarray, " samples"]:
    """Return 64 bits of the content of each entry along the first axis."""
    rows = np.ascontiguousarray(arrays).reshape(len(arrays), -1)
    return np.array([hash_bytes(row.data) for row in rows], dtype=np.uint64)


def hash_bytes(content: bytes | memoryview) -> int:
    """Return 64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Sort class names: by value where all are whole numbers, else as text."""
    # Sorted twice, since a set has no order of its own and 1 and 01 have the same value.
    return tuple(sorted(sorted(names), key=int if all(name.isdecimal() for name in names) else str))


def match_labels(split: Split, classes: Sequence[str], known: Sequence[str]) -> Int64[np.ndarray, " samples"]:
    """Return a split's labels as positions in `known`. Raises DataError for a class that occurs but is not known."""
    present = [classes[label] for label in np.unique(split.labels)]
    strange = [name for name in present if name not in known]
    if strange:
        raise DataError(f"the model does not know the classes {', '.join(strange)}; it knows {', '.join(known)}")
    position = {name: index for index, name in enumerate(known)}
    lookup = np.array([position.get(name, -1) for name in classes], dtype=np.int64)
    matched: Int64[np.ndarray, " samples"] = lookup[split.labels]
    return matched


def normalize_label(text: str) -> str:
    """Return a label as labels are compared: in NFC, without white space around it and characters without width.

    So names that look alike, as those of one folder that macOS and Linux wrote, are one class.
    """
    return unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip(_MARGIN)
