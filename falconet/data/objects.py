"""Data sets of samples at hand: arrays, texts, images of Pillow, tables in memory. Importing it imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from falconet.data.adapters import describe_value, is_array, is_image, to_numpy, to_series
from falconet.data.arrays import (
    as_images,
    as_labels,
    choose_depth,
    find_series,
    name_samples,
    number_labels,
    to_series_splits,
    to_splits,
)
from falconet.data.dataset import Dataset, ImageList, Split, Texts, hash_bytes
from falconet.data.images import convert_image, is_high_bit_depth
from falconet.data.manifests import read_tables
from falconet.data.named import from_arrays
from falconet.data.series import NO_VALUES, count_steps, series_dataset
from falconet.data.sources import check_all_readable, split_dataset
from falconet.data.splits import Columns, DataConfig
from falconet.errors import ConfigError, DataError, UsageError
from falconet.schema import take_config
from falconet.spec import ModalityName
from falconet.tables import Table

_WANTED = "an array, or a list of texts, PIL images or arrays"
_MISSING = ("NAType", "NaTType")
"""Types of a missing cell in pandas, besides NaN and None."""


def read_arrays(
    x: Any,
    y: Any,
    *,
    val: Any = None,
    test: Any = None,
    name: str = "arrays",
    config: DataConfig | Mapping[str, Any] | None = None,
) -> Dataset:
    """Make a data set of samples at hand; see `Dataset.from_arrays`."""
    config = take_config(DataConfig, config, "config")
    given = {"train": (x, y), "val": val, "test": test}
    pairs = {split: _check_pair(split, pair) for split, pair in given.items() if pair is not None}
    origins = {split: "x" if split == "train" else f"{split}[0]" for split in pairs}
    labels = {split: _read_labels(pair[1], "y" if split == "train" else f"{split}[1]") for split, pair in pairs.items()}
    listed = {split: _list_samples(pair[0], origins[split]) for split, pair in pairs.items()}
    for split, samples in listed.items():
        if len(samples) != len(labels[split]):
            found = f"{len(samples):,} samples and {len(labels[split]):,} labels"
            raise DataError(f"{split}: wanted as many labels as samples, found {found}; leave out what has no partner")
    kinds = {split: _tell_kind(samples, config.kind) for split, samples in listed.items()}
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{kind} in {split}" for split, kind in kinds.items())
        raise DataError(f"wanted samples of one kind, found {found}; let config say the kind, as DataConfig(kind=...)")
    make = {"image": _make_images, "series": _make_series, "text": _make_texts}[kinds["train"]]
    dataset = make({split: (listed[split], labels[split]) for split in pairs}, origins, name, config)
    return split_dataset(dataset, config)


Parts = Mapping[str, tuple[Any, np.ndarray]]
"""Samples in memory and their labels, by split."""


def _check_pair(split: str, pair: Any) -> tuple[Any, Any]:
    """Return samples and labels. Raises UsageError for anything else."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UsageError(f"{split}: wanted a pair of samples and labels, found {type(pair).__name__}")
    return pair[0], pair[1]


def _list_samples(samples: Any, origin: str) -> np.ndarray | list[Any]:
    """Return samples as an array of numbers, or as a list of one entry a sample."""
    if is_array(samples) and not is_image(samples):
        array = to_numpy(samples)
        if not array.ndim or array.dtype.kind in "OUT":
            samples = array.tolist() if array.ndim == 1 else [None]
        elif not len(array):
            raise DataError(f"{origin}: wanted samples, found an array of shape {array.shape}")
        else:
            return array
    if isinstance(samples, str | bytes | Mapping) or is_image(samples) or not isinstance(samples, Iterable):
        raise UsageError(f"{origin}: wanted {_WANTED}, found {type(samples).__name__}")
    listed = list(samples)
    if not listed:
        raise DataError(f"{origin}: wanted samples, found none")
    for index, sample in enumerate(listed):
        if not isinstance(sample, str) and not is_array(sample):
            raise UsageError(
                f"{origin}[{index}]: wanted a text, a PIL image or an array, found {type(sample).__name__}"
            )
    return listed


def _tell_kind(samples: np.ndarray | Sequence[Any], asked: ModalityName | None) -> ModalityName:
    """Return what samples are, by the first one's type and dimensions where nobody says it."""
    first = samples[0]
    if isinstance(first, str):
        return "text"
    if asked is not None and not is_image(first):
        return asked
    return "image" if is_image(first) or to_numpy(first).ndim > 1 else "series"


def _read_labels(labels: Any, origin: str) -> np.ndarray:
    """Return labels as a vector of whole numbers or of strings. Raises UsageError, DataError for what can be none."""
    if isinstance(labels, str | bytes | Mapping) or not (is_array(labels) or isinstance(labels, Iterable)):
        raise UsageError(f"{origin}: wanted a label for each sample, found {type(labels).__name__}")
    listed = to_numpy(labels) if is_array(labels) else np.array([*labels], dtype=object)
    if listed.ndim == 1 and listed.dtype.kind in "OUT":
        cells = listed.tolist()
        for index, cell in enumerate(cells):
            if _is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
                found = "an empty string" if isinstance(cell, str) else cell
                raise DataError(f"{origin}[{index}]: wanted a class, found {found}; leave this sample out")
        texts = any(isinstance(cell, str) for cell in cells)
        listed = np.array(list(map(str, cells))) if texts else np.array(cells)
    return as_labels(listed, origin)


def _is_missing(cell: Any) -> bool:
    """Whether a cell stands for nothing."""
    lost = isinstance(cell, float) and math.isnan(cell)
    return cell is None or lost or type(cell).__name__ in _MISSING


def _make_texts(parts: Parts, origins: Mapping[str, str], name: str, config: DataConfig) -> Dataset:
    """Make a data set of texts."""
    for split, (texts, _) in parts.items():
        for index, text in enumerate(texts):
            if reason := describe_value(text):
                raise DataError(f"{origins[split]}[{index}]: {reason}; leave this sample out")
    numbers, classes = number_labels(parts, name, None, "texts")
    places = name_samples(numbers, name)
    splits = {
        split: Split(Texts(texts, places[split]), numbers[split], _hash_all([text.encode() for text in texts]))
        for split, (texts, _) in parts.items()
    }
    size = int(np.median([len(text) for texts, _ in parts.values() for text in texts]))
    return Dataset(name, classes, splits, 1, (size,), kind="text")


def _hash_all(contents: Sequence[bytes]) -> np.ndarray:
    return np.array([hash_bytes(content) for content in contents], dtype=np.uint64)


def _make_series(parts: Parts, origins: Mapping[str, str], name: str, config: DataConfig) -> Dataset:
    """Make a data set of series."""
    listed = {split: (_list_series(series, origins[split]), labels) for split, (series, labels) in parts.items()}
    return series_dataset(name, *to_series_splits(listed, name, None))


def _list_series(series: np.ndarray | Sequence[Any], origin: str) -> list[np.ndarray]:
    """Return series as `(channels, steps)`, without the NaN behind each."""
    if isinstance(series, np.ndarray):
        return find_series({"series": series}, "series", origin)
    found = []
    for index, values in enumerate(series):
        try:
            single = to_series(values)
        except DataError as error:
            raise DataError(f"{origin}[{index}]: {error}") from error
        steps = int(count_steps(single))
        if not steps:
            raise DataError(f"{origin}[{index}]: {NO_VALUES}; leave this series out")
        found.append(single[:, :steps])
    return found


def _make_images(parts: Parts, origins: Mapping[str, str], name: str, config: DataConfig) -> Dataset:
    """Make a data set of images: of one size as one array, of several sizes as they are."""
    listed = {split: _list_images(images, origins[split]) for split, (images, _) in parts.items()}
    alike = {(image.shape, image.dtype) for images in listed.values() for image in images}
    if len(alike) == 1:
        stacked = {
            split: images if isinstance(images, np.ndarray) else np.stack(images) for split, images in listed.items()
        }
        depth = choose_depth(stacked, origins, config.value_range, guessed=config.kind is None)
        arrays = {split: (stacked[split], labels) for split, (_, labels) in parts.items()}
        dataset = from_arrays(name, "image", *to_splits(arrays, name, None, depth))
        return dataclasses.replace(dataset, notes=(*dataset.notes, *_describe_elongated(dataset, config)))
    _check_pixel_types(listed, origins)
    numbers, classes = number_labels(parts, name, None, "images")
    places = name_samples(numbers, name)
    splits = {
        split: Split(
            ImageList(list(images), places[split]),
            numbers[split],
            _hash_all([f"{image.shape}".encode() + image.tobytes() for image in images]),
        )
        for split, images in listed.items()
    }
    shapes = np.array([image.shape for images in listed.values() for image in images])
    height, width = (int(side) for side in np.median(shapes[:, :2], axis=0))
    return Dataset(name, classes, splits, int(shapes[:, 2].max()), (height, width))


def _check_pixel_types(listed: Mapping[str, np.ndarray | Sequence[np.ndarray]], origins: Mapping[str, str]) -> None:
    """Raise DataError for images of several types of number, or of one type and several sizes that is not uint8."""
    first = listed["train"][0].dtype
    for split, images in listed.items():
        strange = next((image.dtype for image in images if image.dtype != first), None)
        if strange is not None:
            raise DataError(
                f"{origins[split]}: wanted images of {first}, as the first one for training, found {strange}; give all "
                "the same type and range of values"
            )
    if first != np.uint8:
        raise DataError(
            f"{origins['train']}: wanted uint8 for images of several sizes, found {first}; scale them to 0..255 and "
            "convert them by image.astype('uint8'), or resize them to one size"
        )


def _describe_elongated(dataset: Dataset, config: DataConfig) -> tuple[str, ...]:
    """Say that gray images that nobody called so are shaped as series of several channels are."""
    height, width = dataset.size
    if config.kind is not None or dataset.channels > 1 or width < 4 * height:
        return ()
    return (f"arrays are taken as images of {height}x{width}; kind='series' takes them as series of {height} channels",)


def _list_images(images: np.ndarray | Sequence[Any], origin: str) -> np.ndarray | list[np.ndarray]:
    """Return images as `(height, width, channels)`, of any numbers."""
    if isinstance(images, np.ndarray):
        return as_images(images, origin)
    found = []
    for index, image in enumerate(images):
        place = f"{origin}[{index}]"
        if isinstance(image, str):
            raise DataError(f"{place}: wanted a PIL image or an array, found a text; open files with PIL.Image.open")
        if is_image(image) and not is_high_bit_depth(image):
            found.append(convert_image(image))
            continue
        array = to_numpy(image)
        if array.ndim not in (2, 3):
            raise DataError(f"{place}: wanted an image as (h, w), (h, w, 1) or (h, w, 3), found shape {array.shape}")
        found.append(as_images(array[None], place)[0])
    return found


# Tables in memory


def read_dataframe(
    df: Any, columns: Columns, *, root: Path, name: str, config: DataConfig | Mapping[str, Any] | None
) -> Dataset:
    """Make a data set of a table in memory; see `Dataset.from_dataframe`."""
    config = take_config(DataConfig, config, "config")
    named = {role: column for role, column in dataclasses.asdict(columns).items() if column is not None}
    config = dataclasses.replace(config, columns=dataclasses.replace(config.columns, **named))
    cells = _read_columns(df)
    count = len(next(iter(cells.values()), ()))
    if not count:
        raise DataError(f"{name}: wanted a table with rows, found {len(cells)} columns without any")
    dataset = read_tables(name, {"": Table(root / name, cells, range(count))}, config)
    if config.strict:
        check_all_readable(dataset)
    return split_dataset(dataset, config)


def _read_columns(df: Any) -> dict[str, list[Any]]:
    """Return the columns of a table in memory, None where a cell is missing. Raises UsageError, ConfigError."""
    names = df.keys() if isinstance(df, Mapping) else getattr(df, "column_names", getattr(df, "columns", None))
    if names is None or isinstance(df, type):
        wanted = "a DataFrame, a pyarrow table or a mapping of columns"
        raise UsageError(f"df: wanted {wanted}, found {type(df).__name__}")
    names = list(names)
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"df: wanted columns of different names, found {', '.join(twice)} twice; rename one")
    cells = {str(name): _list_cells(df[name]) for name in names}
    lengths = {len(column) for column in cells.values()}
    if len(lengths) > 1:
        raise DataError(f"df: wanted columns of one length, found {', '.join(map(str, sorted(lengths)))}")
    return cells


def _list_cells(column: Any) -> list[Any]:
    """Return the cells of a column as Python has them."""
    convert = next((name for name in ("to_pylist", "to_list", "tolist") if hasattr(column, name)), None)
    cells = list(column) if convert is None else getattr(column, convert)()
    cells = [cell.item() if isinstance(cell, np.generic) else cell for cell in cells]
    return [None if _is_missing(cell) else cell for cell in cells]
