"""Data sets of the Hugging Face Hub, and folders laid out like one. Needs the extra `hub`.

Importing it imports neither torch nor `datasets`.
"""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int64, UInt

from falconet.catalog import HUB_PREFIX
from falconet.data.columns import NAMES, simplify
from falconet.data.dataset import (
    NO_LABEL,
    Dataset,
    Samples,
    SeriesArray,
    Split,
    Texts,
    Unreadable,
    hash_bytes,
    normalize_label,
    sort_classes,
)
from falconet.data.files import OUTSIDE, SPLIT_FOLDERS
from falconet.data.images import PIXEL_LIMIT, ValueRange, decode_image, find_extremes, inspect_image
from falconet.data.images import read_content as read_image_file
from falconet.data.series import NO_VALUES
from falconet.data.splits import Columns, DataConfig
from falconet.errors import ConfigError, DataError, MissingExtraError, PathError, UnknownNameError
from falconet.schema import parse_yaml
from falconet.spec import ModalityName, PixelType
from falconet.storage import read_regular

if TYPE_CHECKING:
    import pyarrow

_SAMPLE_ROLES: Mapping[ModalityName, str] = MappingProxyType({"image": "path", "text": "text", "series": "series"})
"""Fields of `Columns` that name the column of samples."""
_ROLE_WORDS = {"path": "images", "text": "texts", "series": "lists of numbers", "label": "class names or whole numbers"}
"""Content of the columns of each role, in words."""


@dataclass(frozen=True, eq=False)
class HubImages:
    """Images of a column that `datasets` keeps on disk, decoded when they are wanted."""

    column: pyarrow.ChunkedArray
    """Structs of `bytes` (an encoded image) and `path` (a file, used where there are no bytes)."""
    rows: Int64[np.ndarray, " samples"]
    """Row of `column` that holds each sample."""
    names: np.ndarray
    """Name of each sample: its place in the source, such as `hf:owner/name:train[12]`."""
    value_range: ValueRange | None = None
    """Black and white of high-bit-depth images; see `decode_image`."""
    dtype: PixelType = "uint8"
    """Type of high-bit-depth images."""

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def read(self, index: int) -> UInt[np.ndarray, "height width channels"]:
        try:
            return decode_image(self.content(index), self.value_range, self.dtype)
        except DataError as error:
            raise DataError(f"{self.name(index)}: {error}") from error

    def content(self, index: int) -> bytes:
        return _read_content(self.column[int(self.rows[index])].as_py())

    def scale(self, value_range: ValueRange | None, dtype: PixelType) -> HubImages:
        return replace(self, value_range=value_range, dtype=dtype)

    def take(self, indices: Int64[np.ndarray, " kept"]) -> HubImages:
        return replace(self, rows=self.rows[indices], names=self.names[indices])

    def join(self, others: Sequence[HubImages]) -> HubImages:
        import pyarrow

        parts = [self, *others]
        offsets = np.cumsum([0, *(len(part.column) for part in parts)])
        rows = [part.rows + offset for part, offset in zip(parts, offsets, strict=False)]
        column = pyarrow.chunked_array([chunk for part in parts for chunk in part.column.chunks], self.column.type)
        names = np.concatenate([part.names for part in parts])
        return replace(self, column=column, rows=np.concatenate(rows), names=names)


@dataclass(frozen=True)
class _Roles:
    """Roles of the columns of a table."""

    kind: ModalityName
    columns: Mapping[str, str]
    """Column by role (a field of `Columns`)."""
    classes: tuple[str, ...] | None
    """Class names in the order of the stored numbers; None where the column of labels holds the classes themselves."""


@dataclass(frozen=True, slots=True)
class _Row:
    """Facts of a sample, before it is decoded."""

    hash: int = 0
    """64-bit hash of the content."""
    channels: int = 0
    size: tuple[int, ...] = ()
    """Height and width in pixels, steps, or characters."""
    reason: str = ""
    """Why the sample cannot be used; empty where it can."""
    deep: bool = False
    """Whether an image has more than 8 bits per value."""


@dataclass(frozen=True, eq=False)
class _Scan:
    """One split, read as far as headers."""

    samples: Samples
    rows: Sequence[_Row]
    labels: Sequence[str | None]
    groups: Sequence[int] | None

    def list_unreadable(self) -> Iterator[Unreadable]:
        for index, (row, label) in enumerate(zip(self.rows, self.labels, strict=True)):
            if row.reason or label is None:
                yield Unreadable(self.samples.name(index), row.reason or NO_LABEL)


def read_hub(source: str, config: DataConfig) -> Dataset:
    """Read `hf:owner/name`, or `hf:` and the path of a folder, either with `#configuration` where there are several.

    An Image column makes images, a column of strings texts, one of lists of numbers series of one variable; a column of
    class labels, strings or whole numbers gives the classes. `config.columns` chooses where several could be meant
    (`path`, `text`, `series`, `label`, `group`). A split without any label, or of an unknown name, is left out and
    counted in `ignored`; a row without label, and a sample that cannot be read, become `unreadable`.

    Raises MissingExtraError without the package `datasets`, PathError for a folder and ConfigError for a column
    that is not there, DataError for anything that cannot be loaded or used.
    """
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError("hub", f"reading {source}")
    _check_roles(config.columns)
    path, configuration = parse_source(source)
    if Path(path).is_dir():
        _check_cards(source, Path(path), config.follow)
    loaded = _load_splits(source, path, configuration, config.follow)
    splits, ignored = _name_splits(source, {name: len(part) for name, part in loaded.items()})
    roles = _choose_roles(source, loaded[splits.get("train") or next(iter(splits.values()))], config)
    roots = None if config.follow else _list_roots(path)
    scans = {
        split: _scan_split(f"{source}:{name}", loaded[name], roles, roots, config.max_pixels)
        for split, name in splits.items()
    }
    scans = _drop_placeholders(scans, roles)
    value_range = _find_value_range(scans, config.value_range)
    return _make_dataset(source, _set_range(scans, value_range), roles, ignored, value_range)


def _check_roles(columns: Columns) -> None:
    """Raise ConfigError for roles that no column of a hub's tables has."""
    for role in ("split", "time"):
        if getattr(columns, role) is not None:
            raise ConfigError(f"data.columns.{role}: {HUB_PREFIX} sources have no such column; leave it out")


def parse_source(source: str) -> tuple[str, str | None]:
    """Return a data set's name or folder, and its configuration."""
    whole = source.removeprefix(HUB_PREFIX)
    name, _, configuration = whole.rpartition("#") if "#" in whole and not Path(whole).is_dir() else (whole, "", "")
    if name.startswith("~"):  # After the prefix, a shell leaves it as it is.
        try:
            name = str(Path(name).expanduser())
        except RuntimeError as error:
            raise PathError(f"{source}: there is no home folder here: write the whole path") from error
    if Path(name).is_file():
        raise PathError(f"{source}: wanted a folder, found a file: name it without {HUB_PREFIX}")
    if name.startswith(("/", ".")) and not Path(name).is_dir():
        raise PathError(f"{source}: no such folder")
    return name, configuration or None


def _check_cards(source: str, folder: Path, follow: bool) -> None:
    """Raise DataError where what `datasets` reads first in a folder lies outside, or is no YAML of a moderate size."""
    for name in ("README.md", ".huggingface.yaml"):
        path = folder / name
        _check_local(source, folder, path, follow)
        if not path.is_file():
            continue
        try:
            text = read_regular(path).decode("utf-8", "replace")
            parse_yaml(_cut_front_matter(text) if path.suffix == ".md" else text)
        except (OSError, ConfigError) as error:
            raise DataError(f"{source}: {name}: {error}; mend it, or take it out of the folder") from error


def _cut_front_matter(text: str) -> str:
    """Return the YAML between the first lines of dashes, nothing where a text begins without."""
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)^---", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def _check_local(source: str, folder: Path, path: Path, follow: bool) -> None:
    """Raise DataError for a file outside its folder, unless that is allowed, and for one that is no regular file."""
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    if not follow and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{source}: {name}: {OUTSIDE}")
    if path.exists() and not path.is_file():
        raise DataError(f"{source}: {name}: not a regular file")


def _check_data_files(source: str, path: str, configuration: str | None, follow: bool) -> None:
    """Raise DataError for a file that a folder's patterns or links lead to outside of it; nothing is read yet."""
    import datasets

    files: Mapping[str, Sequence[str]] = datasets.load_dataset_builder(path, configuration).config.data_files or {}
    for file in (file for part in files.values() for file in part):
        if "://" not in file:
            _check_local(source, Path(path).absolute(), Path(file), follow)
        elif not follow:
            raise DataError(f"{source}: {file}: {OUTSIDE}")


def _load_splits(source: str, path: str, configuration: str | None, follow: bool) -> Mapping[str, Any]:
    """Return the splits as `datasets` loads them, by name: on disk, in memory only where they are touched."""
    import datasets

    try:
        with _silence():
            if configuration is None and datasets.get_dataset_default_config_name(path) is None:
                names = datasets.get_dataset_config_names(path)
                raise DataError(
                    f"{source}: wanted one of its configurations, {', '.join(names)}: say {source}#{names[0]}"
                )
            if Path(path).is_dir():
                _check_data_files(source, path, configuration, follow)
            splits: Mapping[str, Any] = datasets.load_dataset(path, configuration)
            return splits
    except DataError:
        raise
    except Exception as error:  # Besides its own errors, those of httpx, fsspec, pyarrow and pandas come through.
        cause = textwrap.shorten(f"{error} {error.__cause__ or ''}", 300)
        raise DataError(f"{source}: cannot be loaded ({cause}); {_advise(path)}") from error


def _advise(path: str) -> str:
    """Say what to do about a data set that cannot be loaded."""
    if Path(path).is_dir():
        return "a folder should hold Parquet, CSV or JSON lines, or images in class folders"
    return (
        "check the name and the network, and for a private set the login (hf auth login); what has been copied to this "
        f"machine is read as {HUB_PREFIX}/path/of/folder"
    )


@contextmanager
def _silence() -> Iterator[None]:
    """Keep progress bars and log lines of the hub's packages off the screen, except where the environment asks."""
    import datasets
    import huggingface_hub

    bars = (
        (datasets.utils, datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS),
        (huggingface_hub.utils, huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS),
    )
    with ExitStack() as stack:
        for package, forced in bars:
            stack.callback(package.logging.set_verbosity, package.logging.get_verbosity())
            package.logging.set_verbosity(package.logging.CRITICAL)
            if forced is None and not package.are_progress_bars_disabled():
                package.disable_progress_bars()
                stack.callback(package.enable_progress_bars)
        yield


def _name_splits(source: str, sizes: Mapping[str, int]) -> tuple[dict[str, str], dict[str, int]]:
    """Return the source's name of each split that Falconet knows, and the sizes of the others."""
    names: dict[str, str] = {}
    for name in sizes:
        split = SPLIT_FOLDERS.get(name.lower())
        if split in names:
            raise DataError(f"{source}: wanted one split for {split}, found {names[split]} and {name}")
        if split:
            names[split] = name
    if not names:
        raise DataError(f"{source}: wanted a split for training, validation or testing, found {', '.join(sizes)}")
    return names, {f"split {name}": size for name, size in sizes.items() if name not in names.values()}


def _choose_roles(source: str, part: Any, config: DataConfig) -> _Roles:
    """Decide what the columns hold: as `config` says, else by their types and names."""
    given = {role: name for role, name in asdict(config.columns).items() if name is not None}
    for role, name in given.items():
        if name not in part.column_names:
            unknown = UnknownNameError("column", name, part.column_names)
            raise ConfigError(f"data.columns.{role}: {source}: {unknown}")
    candidates = _list_candidates(part.features, given.get("group"))
    label = given.get("label") or _guess_label(part.features, candidates["label"])
    kind = config.kind or _guess_kind(given, candidates, label)
    role = _SAMPLE_ROLES[kind]
    sample = _choose_column(source, role, given.get(role), [name for name in candidates[role] if name != label])
    label = _choose_column(source, "label", label, [name for name in candidates["label"] if name != sample])
    columns = {role: sample, "label": label} | ({"group": given["group"]} if "group" in given else {})
    classes = getattr(part.features[label], "names", None)
    return _Roles(kind, columns, None if classes is None else tuple(classes))


def _list_candidates(features: Mapping[str, Any], group: str | None) -> dict[str, list[str]]:
    """Return for each role the columns whose type allows it."""
    names = [name for name in features if name != group]
    return {role: [name for name in names if fits(role, features[name])] for role in _ROLE_WORDS}


def fits(role: str, feature: Any) -> bool:
    """Tell whether a column of this type may hold what the role wants."""
    from datasets import ClassLabel, Image, LargeList, List

    if role == "path":
        return isinstance(feature, Image)
    if role == "series":
        return isinstance(feature, List | LargeList) and _is_number(_name_type(feature.feature))
    dtype = _name_type(feature)
    if role == "text":
        return "string" in dtype
    return isinstance(feature, ClassLabel) or "string" in dtype or "int" in dtype or dtype == "bool"


def _name_type(feature: Any) -> str:
    """Return the Arrow type of plain values, such as `float32`; nothing for all else."""
    from datasets import Value

    return str(feature.dtype) if isinstance(feature, Value) else ""


def _is_number(dtype: str) -> bool:
    return "int" in dtype or "float" in dtype


def _guess_label(features: Mapping[str, Any], candidates: Sequence[str]) -> str | None:
    """Return the column that is called like labels or, if only one has class names, that; None where others may be."""
    named = [name for name in candidates if hasattr(features[name], "names")]
    return find_known("label", candidates) or (named[0] if len(named) == 1 else None)


def _guess_kind(given: Mapping[str, str], candidates: Mapping[str, Sequence[str]], label: str | None) -> ModalityName:
    """Return the kind whose column is given, else images before texts that are called so before series before texts."""
    for kind, role in _SAMPLE_ROLES.items():
        if role in given:
            return kind
    if candidates["path"]:
        return "image"
    texts = [name for name in candidates["text"] if name != label]
    return "series" if candidates["series"] and find_known("text", texts) is None else "text"


def find_known(role: str, candidates: Sequence[str]) -> str | None:
    """Return the column whose name says the role most surely."""
    simple = {simplify(name): name for name in reversed(candidates)}
    return next((simple[name] for name in NAMES[role] if name in simple), None)


def _choose_column(source: str, role: str, given: str | None, candidates: Sequence[str]) -> str:
    """Return the column of a role. Raises DataError where it has none, or several of which no name decides."""
    chosen = given or find_known(role, candidates) or (candidates[0] if len(candidates) == 1 else None)
    if chosen is None:
        found = f"found {', '.join(candidates)}: set data.columns.{role}=NAME" if candidates else "found none"
        raise DataError(f"{source}: wanted one column of {_ROLE_WORDS[role]}, {found}")
    if chosen not in candidates:
        others = f"; such columns: {', '.join(candidates)}" if candidates else ", and no other column holds them"
        raise DataError(f"{source}: column {chosen} does not hold {_ROLE_WORDS[role]}{others}")
    return chosen


def _list_roots(path: str) -> tuple[Path, ...]:
    """Return where a data set's image files may lie: its own folder, and those that `datasets` copies them to."""
    import datasets
    import huggingface_hub

    caches = (datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE)
    return tuple(Path(folder).resolve() for folder in (*([path] if Path(path).is_dir() else []), *caches))


def _scan_split(
    origin: str, part: Any, roles: _Roles, roots: Sequence[Path] | None, max_pixels: int = PIXEL_LIMIT
) -> _Scan:
    """Read one split as far as headers; image files must lie in `roots`, None: they may lie anywhere."""
    table = part.select_columns(list(roles.columns.values())).with_format("arrow")[:]
    names = np.array([f"{origin}[{index}]" for index in range(len(table))], dtype=str)
    columns = {role: table.column(name) for role, name in roles.columns.items()}
    try:
        samples, rows = _SCANNERS[roles.kind](columns[_SAMPLE_ROLES[roles.kind]], names, roots, max_pixels)
        labels = _read_labels(columns["label"].to_pylist(), roles.classes)
        return _Scan(samples, rows, labels, _read_groups(columns["group"]) if "group" in columns else None)
    except UnicodeDecodeError as error:
        raise DataError(f"{origin}: text that is not valid UTF-8 ({error}); mend the source's files") from error


def _scan_images(
    column: pyarrow.ChunkedArray, names: np.ndarray, roots: Sequence[Path] | None, max_pixels: int
) -> tuple[Samples, list[_Row]]:
    """Read the headers of images, one at a time."""
    samples = HubImages(column, np.arange(len(names)), names)
    return samples, [_scan_image(value.as_py(), roots, max_pixels) for value in column]


def _scan_image(value: Mapping[str, Any] | None, roots: Sequence[Path] | None, max_pixels: int) -> _Row:
    """Read one image's header."""
    try:
        content = _read_content(value, roots)
        facts = inspect_image(content, max_pixels)
    except DataError as error:
        return _Row(reason=str(error))
    return _Row(hash_bytes(content), facts.channels, (facts.height, facts.width), deep=facts.deep)


def _read_content(value: Mapping[str, Any] | None, roots: Sequence[Path] | None = None) -> bytes:
    """Return an encoded image. Raises DataError where there is none, or its file is missing or outside `roots`."""
    content, path = (value or {}).get("bytes"), (value or {}).get("path")
    if content is not None:
        return bytes(content)
    if path is None:
        raise DataError("no image")
    if roots is not None and not any(Path(path).resolve().is_relative_to(root) for root in roots):
        raise DataError(OUTSIDE)
    return read_image_file(path)


def _scan_texts(column: pyarrow.ChunkedArray, names: np.ndarray) -> tuple[Samples, list[_Row]]:
    """Read texts into memory."""
    texts = [text or "" for text in column.to_pylist()]
    rows = [
        _Row(hash_bytes(text.encode()), 1, (len(text),)) if text.strip() else _Row(reason="empty text")
        for text in texts
    ]
    return Texts(texts, names), rows


def scan_series(column: pyarrow.ChunkedArray, names: np.ndarray) -> tuple[Samples, list[_Row]]:
    """Read lists of numbers into memory; what is missing becomes NaN."""
    import pyarrow
    from pyarrow import compute

    lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy().astype(np.int64)
    values = compute.list_flatten(column).cast(pyarrow.float32(), safe=False).to_numpy()
    ends = np.cumsum(lengths)
    samples = SeriesArray(values[None], np.stack([ends - lengths, ends], axis=1), names)
    return samples, [_scan_one_series(samples.read(index)) for index in range(len(names))]


def _scan_one_series(series: Float32[np.ndarray, "1 steps"]) -> _Row:
    if np.isnan(series).all():
        return _Row(reason=NO_VALUES)
    if np.isinf(series).any():
        return _Row(reason="infinite values")
    return _Row(hash_bytes(series.tobytes()), 1, (series.shape[1],))


_Scanner = Callable[["pyarrow.ChunkedArray", np.ndarray, Sequence[Path] | None, int], tuple[Samples, list[_Row]]]
"""Reads a column, given the names of its samples, the allowed folders of files and the most pixels of an image."""

_SCANNERS: Mapping[ModalityName, _Scanner] = MappingProxyType(
    {
        "image": _scan_images,
        "series": lambda column, names, roots, max_pixels: scan_series(column, names),
        "text": lambda column, names, roots, max_pixels: _scan_texts(column, names),
    }
)


def _read_labels(values: Sequence[Any], classes: Sequence[str] | None) -> list[str | None]:
    """Return class names; None where there is none, which class labels write as -1."""
    if classes is None:
        return [None if value is None else normalize_label(str(value)) or None for value in values]
    return [None if value is None or not 0 <= value < len(classes) else classes[value] for value in values]


def _read_groups(column: pyarrow.ChunkedArray) -> list[int]:
    """Return 64 bits of each sample's group, 0 for a sample without one."""
    return [0 if value is None or value == "" else hash_bytes(str(value).encode()) for value in column.to_pylist()]


def _drop_placeholders(scans: Mapping[str, _Scan], roles: _Roles) -> dict[str, _Scan]:
    """Take -1 for a missing label where it is a plain number that no training sample has.

    Without a training split: where it is the only label of a split.
    """
    known = [scans["train"]] if "train" in scans else [scan for scan in scans.values() if set(scan.labels) != {"-1"}]
    if roles.classes is not None or any("-1" in scan.labels for scan in known):
        return dict(scans)
    return {
        split: replace(scan, labels=[None if label == "-1" else label for label in scan.labels])
        for split, scan in scans.items()
    }


def _find_value_range(scans: Mapping[str, _Scan], asked: ValueRange | None) -> ValueRange | None:
    """Return black and white of the high-bit-depth images, as set or by those for training; None without such."""
    deep = {
        split: [index for index, row in enumerate(scan.rows) if row.deep and scan.labels[index] is not None]
        for split, scan in scans.items()
    }
    if asked is not None:
        return asked if any(deep.values()) else None
    chosen = {"train": deep["train"]} if deep.get("train") else deep
    samples: Mapping[str, Any] = {split: scans[split].samples for split in chosen}
    found = find_extremes(samples[split].content(index) for split, rows in chosen.items() for index in rows)
    return None if found is None else found.choose_range()


def _set_range(scans: Mapping[str, _Scan], value_range: ValueRange | None) -> dict[str, _Scan]:
    """Return scans whose high-bit-depth images are read in a range, where there is one."""
    return {
        split: replace(scan, samples=scan.samples.scale(value_range, "uint16"))
        if value_range is not None and isinstance(scan.samples, HubImages)
        else scan
        for split, scan in scans.items()
    }


def _make_dataset(
    source: str,
    scans: Mapping[str, _Scan],
    roles: _Roles,
    ignored: Mapping[str, int],
    value_range: ValueRange | None = None,
) -> Dataset:
    """Make a Dataset of what can be used. Raises DataError where nothing of a split can."""
    labeled = {split: scan for split, scan in scans.items() if split == "train" or any(scan.labels)}
    unlabeled = {f"split {split} (no labels)": len(scan.rows) for split, scan in scans.items() if split not in labeled}
    if not labeled:
        raise DataError(f"{source}: wanted samples with labels, found none in {', '.join(scans)}")
    usable = {split: _find_usable(source, split, scan) for split, scan in labeled.items()}
    rows = [labeled[split].rows[index] for split, kept in usable.items() for index in kept]
    classes = _order_classes({label for scan in labeled.values() for label in scan.labels if label}, roles.classes)
    return Dataset(
        source,
        classes,
        {split: _to_split(scan, usable[split], classes) for split, scan in labeled.items()},
        max(row.channels for row in rows),
        tuple(int(value) for value in np.median([row.size for row in rows], axis=0)),
        tuple(item for scan in labeled.values() for item in scan.list_unreadable()),
        kind=roles.kind,
        value_range=value_range,
        columns=roles.columns,
        ignored={**ignored, **unlabeled},
    )


def _find_usable(source: str, split: str, scan: _Scan) -> Int64[np.ndarray, " kept"]:
    """Return the rows with a label and a sample that can be read. Raises DataError where there is none."""
    usable = [label is not None and not row.reason for row, label in zip(scan.rows, scan.labels, strict=True)]
    if not any(usable):
        first = next(scan.list_unreadable(), None)
        reason = f"; the first: {first.file} ({first.reason})" if first else ""
        raise DataError(f"{source}: none of {len(usable)} rows of {split} can be used{reason}")
    return np.flatnonzero(usable).astype(np.int64)


def _order_classes(used: set[str], known: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes that have samples, in their own order where they have one."""
    return sort_classes(used) if known is None else tuple(name for name in known if name in used)


def _to_split(scan: _Scan, kept: Int64[np.ndarray, " kept"], classes: Sequence[str]) -> Split:
    """Return the usable rows of a split."""
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[str(scan.labels[index])] for index in kept], dtype=np.int64)
    hashes = np.array([scan.rows[index].hash for index in kept], dtype=np.uint64)
    groups = None if scan.groups is None else np.array([scan.groups[index] for index in kept], dtype=np.uint64)
    return Split(scan.samples.take(kept), labels, hashes, groups)
