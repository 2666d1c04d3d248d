"""How samples of each modality are read from files, arrays, cells and values at hand: ADAPTERS, an entry for each.

Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from falconet.catalog import FILE_SUFFIXES, LOOSE_SUFFIXES
from falconet.data.arrays import (
    IDX_IMAGES,
    as_images,
    as_series,
    find_idx_images,
    find_series,
    read_idx,
    read_npz_inputs,
)
from falconet.data.dataset import EncodedImages, ImageArray, ImageFiles, Samples, Scalable, Texts, Unreadable
from falconet.data.images import Extremes, ValueRange, convert_image, inspect_image, read_content
from falconet.data.named import find_cifar_binaries, read_cifar_binaries
from falconet.data.series import NO_VALUES, count_steps, pack_series
from falconet.data.texts import describe_text, read_text_file
from falconet.data.wav import WavFiles, inspect_wav
from falconet.errors import DataError
from falconet.spec import ImageSpec, ModalityName, SeriesSpec, TextSpec
from falconet.tables import is_encodable


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Facts from the header of a file that holds one sample."""

    channels: int = 0
    size: tuple[int, ...] = ()
    """Height and width in pixels, steps, or characters."""
    rate: int | None = None
    deep: bool = False
    """Whether an image has more than 8 bits per value."""
    text: str = ""
    """The text itself: a text file has no header, so it is read at once."""


@dataclass(frozen=True)
class SampleFormat:
    """What the samples of a data set have in common."""

    channels: int
    rate: int | None
    value_range: ValueRange | None


@dataclass(frozen=True, eq=False)
class SampleBlock:
    """Some samples that follow one another, and what cannot be one."""

    samples: Samples | None = None
    """The samples, told apart by `Samples.name`; None: this block has none."""
    skipped: tuple[Unreadable, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of a folder that are no samples, counted by extension."""
    notes: tuple[str, ...] = ()
    """Guesses that were needed to read the samples."""


@dataclass(frozen=True, eq=False)
class _Objects:
    """Samples at hand, each of its own size, converted when they are wanted."""

    values: Sequence[Any]
    names: Sequence[str]
    convert: Callable[[Any], np.ndarray]

    def __len__(self) -> int:
        return len(self.values)

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> np.ndarray:
        return self.convert(self.values[index])

    def take(self, indices: np.ndarray) -> _Objects:
        return _Objects([self.values[i] for i in indices], [self.names[i] for i in indices], self.convert)

    def join(self, others: Sequence[_Objects]) -> _Objects:
        parts = [self, *others]
        values = [value for part in parts for value in part.values]
        return _Objects(values, [name for part in parts for name in part.names], self.convert)


@dataclass(frozen=True)
class DataAdapter:
    """How samples of one modality are read; `spec` is always the modality's own."""

    inspect: Callable[[bytes, int], FileInfo]
    """Reads a file's header from its content; the second argument is the most pixels that an image may have.

    Raises DataError for what is no such file.
    """
    choose_channels: Callable[[Counter[int]], int]
    """Chooses the channels of the data set, given how many files have each number of channels."""
    refuse_channels: Callable[[int, int], str]
    """Returns why a file of these channels cannot join a data set of those; an empty string where it can."""
    make_samples: Callable[[Path, Sequence[str], Sequence[FileInfo], SampleFormat], Samples]
    """Makes samples of paths below a folder and the facts of their headers."""
    in_files: Callable[[Any], bool]
    """Whether samples of a spec can come as one file each, and not only in tables and arrays."""
    open_files: Callable[[Sequence[str], Any], Samples]
    """Makes samples of a spec from paths, none of them read yet. Raises DataError where no file can be one."""
    open_folder: Callable[[Path, Any, int], Iterator[SampleBlock] | None]
    """Reads the arrays in a folder, given a spec and the most bytes; returns None where it is no folder of arrays."""
    open_file: Callable[[Path, str, Any, int], Iterator[SampleBlock] | None]
    """Reads a file of a format that only this modality has, given its name for the user, a spec and the most bytes.

    Returns None where it is no such file.
    """
    read_npz: Callable[[Path, str, Any, int], Iterator[SampleBlock]]
    """Reads an `.npz`, with arguments as for `open_file`. Raises DataError where none can hold such samples."""
    read_array: Callable[[np.ndarray, Any, Callable[[int], str]], Iterator[SampleBlock]]
    """Yields the samples along an array's first axis, given a spec and a function that names its rows.

    Raises DataError for an array that has no such samples.
    """
    read_values: Callable[[Sequence[Any], Sequence[str], Any], SampleBlock]
    """Makes samples of a spec from values in memory and their names."""
    read_cells: Callable[[Sequence[Any], Sequence[str], Any], SampleBlock]
    """Makes samples of a spec from the values that a table's cells hold, and their names."""
    adapt_samples: Callable[[Samples, Any], Samples]
    """Returns samples of any source as a model of a spec reads them: images in its range, recordings at its rate."""
    rescale: Callable[[Samples, Any], Samples]
    """Returns images of a data set in the value range and type of a spec, other samples as they are."""
    takes_strings: bool
    """Whether a string in a list is a sample itself, not the name of a file."""
    wanted: str
    """Names of the inputs that are allowed besides paths and URLs, for messages."""
    table_suffixes: tuple[str, ...]
    """Suffixes of archives and tables that hold many samples."""


# Images


def _inspect_image_file(content: bytes, max_pixels: int) -> FileInfo:
    image = inspect_image(content, max_pixels)
    return FileInfo(image.channels, (image.height, image.width), deep=image.deep)


def _make_image_files(root: Path, paths: Sequence[str], facts: Sequence[FileInfo], layout: SampleFormat) -> ImageFiles:
    return ImageFiles(root, paths, layout.value_range, "uint8" if layout.value_range is None else "uint16")


def _open_image_files(paths: Sequence[str], spec: ImageSpec) -> ImageFiles:
    return ImageFiles(Path(), paths, spec.value_range, spec.dtype)


def _open_image_folder(folder: Path, spec: ImageSpec, max_bytes: int) -> Iterator[SampleBlock] | None:
    """Return the images of IDX files, or of the binaries of CIFAR."""
    if paths := find_idx_images(folder):
        return (inputs for path in paths for inputs in _read_idx_file(path, str(path), spec, max_bytes))
    if find_cifar_binaries(folder):
        splits = read_cifar_binaries(folder, str(folder), max_bytes).splits
        return (SampleBlock(split.samples) for split in splits.values())
    return None


def _open_idx_file(path: Path, name: str, spec: ImageSpec, max_bytes: int) -> Iterator[SampleBlock] | None:
    return _read_idx_file(path, name, spec, max_bytes) if IDX_IMAGES.match(path.name) else None


def _read_idx_file(path: Path, name: str, spec: ImageSpec, max_bytes: int) -> Iterator[SampleBlock]:
    images = as_images(read_idx(path, max_bytes), name)
    yield from _read_image_array(images, spec, _name_rows(name))


def _read_npz_images(path: Path, name: str, spec: ImageSpec, max_bytes: int) -> Iterator[SampleBlock]:
    arrays = read_npz_inputs(path, max_bytes)
    for key, place in _name_arrays(arrays, name):
        yield from _read_image_array(as_images(arrays[key], f"{name}:{key}"), spec, _name_rows(place))


def _read_image_array(array: np.ndarray, spec: ImageSpec, name: Callable[[int], str]) -> Iterator[SampleBlock]:
    """Yield the images along an array's first axis, without those of values that are not finite."""
    names = _list_rows(array, name)
    images = as_images(array, "the array")
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    reason = "wanted finite pixel values, found NaN or infinity"
    lost = tuple(Unreadable(names[index], reason) for index in np.flatnonzero(~finite).tolist())
    if lost:
        images, names = images[finite], [names[index] for index in np.flatnonzero(finite).tolist()]
    yield SampleBlock(_make_images(images, np.array(names), spec) if len(images) else None, lost)


def _read_image_values(values: Sequence[Any], names: Sequence[str], spec: ImageSpec) -> SampleBlock:
    return SampleBlock(_Objects(values, names, _to_image(spec)))


def _to_image(spec: ImageSpec) -> Callable[[Any], np.ndarray]:
    """Return what turns a PIL image or an array into an image."""

    def convert(value: Any) -> np.ndarray:
        if is_image(value):
            return convert_image(value, spec.value_range, spec.dtype)
        if not is_array(value):
            raise DataError(f"wanted an image, found {type(value).__name__}")
        array = to_numpy(value)
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or array.shape[-1] not in (1, 3):
            wanted = "(height, width), (height, width, 1) or (height, width, 3)"
            raise DataError(f"wanted an image as {wanted}, found shape {array.shape}")
        images = as_images(array[None], "an array")
        _check_finite(images)
        image: np.ndarray = _make_images(images, np.array(["0"]), spec).read(0)
        return image

    return convert


def _check_finite(array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        raise DataError("wanted finite pixel values, found NaN or infinity")


def _make_images(images: Shaped[np.ndarray, "n h w c"], names: np.ndarray, spec: ImageSpec) -> ImageArray:
    """Return images of finite numbers as samples: in the model's range, else in the usual one that covers them.

    Raises DataError for values that no image has, such as those of pixels that were normalized already.
    """
    if images.dtype == np.uint8:
        return ImageArray(images, names)
    if spec.value_range is not None:
        return ImageArray(images, names, spec.value_range, spec.dtype)
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 65535):
        raise DataError(f"wanted pixel values in 0..65535, found {low:g}..{high:g}; give images before normalization")
    return ImageArray(images, names, Extremes(low, high, images.dtype.kind == "f").choose_range(), spec.dtype)


def _read_image_cells(cells: Sequence[bytes], names: Sequence[str], spec: ImageSpec) -> SampleBlock:
    return SampleBlock(EncodedImages(cells, np.array(names)).scale(spec.value_range, spec.dtype))


def _resample_recordings(samples: Samples, spec: SeriesSpec) -> Samples:
    """Return recordings at a model's rate and with its channels."""
    if not isinstance(samples, WavFiles) or spec.rate is None:
        return samples
    return replace(samples, rate=spec.rate, channels=spec.raw_shape[0])


def _rescale_images(samples: Samples, spec: ImageSpec) -> Samples:
    """Return high-bit-depth images in the model's range of values."""
    return samples.scale(spec.value_range, spec.dtype) if isinstance(samples, Scalable) else samples


# Series


def _inspect_recording(content: bytes, max_pixels: int) -> FileInfo:
    wav = inspect_wav(content)
    return FileInfo(wav.channels, (wav.steps,), wav.rate)


def _choose_recorded_channels(counts: Counter[int]) -> int:
    """Return as many as most recordings have."""
    return max(counts, key=lambda channels: (counts[channels], channels))


def _refuse_recorded_channels(channels: int, usual: int) -> str:
    """Refuse recordings that have neither one channel nor the usual ones; where these are one, stereo is averaged."""
    wanted = f"{usual} channels or 1" if usual > 1 else "1 channel or 2"
    fitting = (1, usual if usual > 1 else 2)
    return "" if channels in fitting else f"wanted {wanted}, as most have, found {channels}"


def _make_recordings(root: Path, paths: Sequence[str], facts: Sequence[FileInfo], layout: SampleFormat) -> WavFiles:
    return WavFiles(root, paths, layout.rate or 1, layout.channels)


def _open_recordings(paths: Sequence[str], spec: SeriesSpec) -> WavFiles:
    if spec.rate is None:
        raise DataError(
            "wanted a table, .ts or .npz of series, as the model's own series have no rate, found recordings"
        )
    return WavFiles(Path(), paths, spec.rate, spec.raw_shape[0])


def _read_npz_series(path: Path, name: str, spec: SeriesSpec, max_bytes: int) -> Iterator[SampleBlock]:
    arrays = read_npz_inputs(path, max_bytes)
    for key, place in _name_arrays(arrays, name):
        if "values" in key and key.replace("values", "lengths") in arrays:
            series = find_series(arrays, key, f"{name}:{key}")
            yield pack(series, list(map(_name_rows(place), range(len(series)))), spec)
        else:
            yield from _read_series_array(arrays[key], spec, _name_rows(place))


def _read_series_array(array: np.ndarray, spec: SeriesSpec, name: Callable[[int], str]) -> Iterator[SampleBlock]:
    """Yield the series along an array's first axis."""
    if array.ndim not in (2, 3) or array.dtype.kind not in "buif":
        wanted = "numbers as (n, steps) or (n, channels, steps)"
        raise DataError(f"wanted series, {wanted}, found shape {array.shape} of {array.dtype}")
    yield _read_series_values(list(array), _list_rows(array, name), spec)


def _read_series_values(values: Sequence[Any], names: Sequence[str], spec: SeriesSpec) -> SampleBlock:
    return SampleBlock(_Objects(values, names, to_series))


def to_series(value: Any) -> np.ndarray:
    """Return an array of one series as `(channels, steps)`."""
    if not is_array(value):
        raise DataError(f"wanted a series as an array, found {type(value).__name__}")
    array = to_numpy(value)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise DataError(f"wanted a series as (steps,) or (channels, steps), found shape {array.shape}")
    series: np.ndarray = as_series(array[None], "an array")[0]
    return series


def pack(series: Sequence[np.ndarray], names: Sequence[str], spec: SeriesSpec) -> SampleBlock:
    """Return series in memory, without those of other channels than the model's."""
    wanted = spec.raw_shape[0]
    reasons = {
        index: NO_VALUES if not count_steps(values) else f"wanted a series of {wanted} channels, found {len(values)}"
        for index, values in enumerate(series)
        if len(values) != wanted or not count_steps(values)
    }
    kept = [index for index in range(len(series)) if index not in reasons]
    skipped = tuple(Unreadable(names[index], reason) for index, reason in reasons.items())
    samples = pack_series([series[i] for i in kept], np.array([names[i] for i in kept])) if kept else None
    return SampleBlock(samples, skipped)


# Texts


@dataclass(frozen=True, eq=False)
class TextFiles:
    """Texts in files, read when they are wanted."""

    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> str:
        return read_text_file(read_content(self.paths[index]))

    def take(self, indices: Int64[np.ndarray, " kept"]) -> TextFiles:
        return TextFiles([self.paths[index] for index in indices])

    def join(self, others: Sequence[TextFiles]) -> TextFiles:
        return TextFiles([path for part in (self, *others) for path in part.paths])


def _inspect_text(content: bytes, max_pixels: int) -> FileInfo:
    text = read_text_file(content)
    return FileInfo(1, (len(text),), text=text)


def _make_texts(root: Path, paths: Sequence[str], facts: Sequence[FileInfo], layout: SampleFormat) -> Texts:
    return Texts([known.text for known in facts], np.array(paths, dtype=str))


def _open_text_files(paths: Sequence[str], spec: TextSpec) -> TextFiles:
    return TextFiles(paths)


def _refuse_npz(path: Path, name: str, spec: TextSpec, max_bytes: int) -> Iterator[SampleBlock]:
    raise DataError(f"{name}: wanted texts, found arrays; put texts into a table")


def _refuse_array(array: np.ndarray, spec: TextSpec, name: Callable[[int], str]) -> Iterator[SampleBlock]:
    raise DataError(f"wanted texts, found an array of shape {array.shape}; give a list of strings")


def _read_text_values(values: Sequence[Any], names: Sequence[str], spec: TextSpec) -> SampleBlock:
    reasons = [describe_value(value) for value in values]
    kept = [index for index, why in enumerate(reasons) if not why]
    skipped = tuple(Unreadable(names[index], why) for index, why in enumerate(reasons) if why)
    texts = Texts([values[index] for index in kept], np.array([names[index] for index in kept])) if kept else None
    return SampleBlock(texts, skipped)


def describe_value(value: object) -> str:
    """Return why a value is no text, or nothing."""
    if not isinstance(value, str):
        return f"wanted a text, found {type(value).__name__}"
    return describe_text(value) or ("" if is_encodable(value) else "lone surrogates, as of bytes that are no text")


def _read_text_cells(cells: Sequence[str], names: Sequence[str], spec: TextSpec) -> SampleBlock:
    return SampleBlock(Texts(cells, np.array(names)))


# Of all


def is_array(item: object) -> bool:
    """Whether something is an array, or knows how to become one, as tensors and PIL images do, but is no string."""
    return not isinstance(item, str) and (hasattr(item, "__array__") or hasattr(item, "__array_interface__"))


def to_numpy(item: Any) -> np.ndarray:
    """Return an array, or a tensor on any device, as NumPy's."""
    return np.asarray(item.detach().cpu() if hasattr(item, "detach") else item)


def is_image(item: object) -> bool:
    from PIL import Image

    return isinstance(item, Image.Image)


def _name_rows(place: str) -> Callable[[int], str]:
    """Return what samples along an array's first axis are called."""
    return lambda index: f"{place}[{index}]"


def _list_rows(array: np.ndarray, name: Callable[[int], str]) -> list[str]:
    """Return the names of what stands along an array's first axis."""
    return [name(index) for index in range(len(array) if array.ndim else 0)]


def _name_arrays(arrays: Mapping[str, np.ndarray], name: str) -> Iterator[tuple[str, str]]:
    """Yield the arrays of samples in an archive, and what each is called."""
    keys = [key for key in arrays if "lengths" not in key]
    for key in keys:
        yield key, f"{name}:{key}" if len(keys) > 1 else name


def _keep(samples: Samples, spec: Any) -> Samples:
    """Return samples as they are."""
    return samples


def _in_any_file(spec: Any) -> bool:
    return True


def _refuse_none(channels: int, usual: int) -> str:
    return ""


def _open_no_folder(folder: Path, spec: Any, max_bytes: int) -> None:
    """Return None: there are no folders of arrays of this modality."""


def _open_no_file(path: Path, name: str, spec: Any, max_bytes: int) -> None:
    """Return None: there is no file format of this modality alone."""


ADAPTERS: Mapping[ModalityName, DataAdapter] = MappingProxyType(
    {
        "image": DataAdapter(
            inspect=_inspect_image_file,
            choose_channels=max,
            refuse_channels=_refuse_none,
            make_samples=_make_image_files,
            in_files=_in_any_file,
            open_files=_open_image_files,
            open_folder=_open_image_folder,
            open_file=_open_idx_file,
            read_npz=_read_npz_images,
            read_array=_read_image_array,
            read_values=_read_image_values,
            read_cells=_read_image_cells,
            adapt_samples=_rescale_images,
            rescale=_rescale_images,
            takes_strings=False,
            wanted="images (PIL or arrays)",
            table_suffixes=FILE_SUFFIXES,
        ),
        "series": DataAdapter(
            inspect=_inspect_recording,
            choose_channels=_choose_recorded_channels,
            refuse_channels=_refuse_recorded_channels,
            make_samples=_make_recordings,
            in_files=lambda spec: spec.rate is not None,
            open_files=_open_recordings,
            open_folder=_open_no_folder,
            open_file=_open_no_file,
            read_npz=_read_npz_series,
            read_array=_read_series_array,
            read_values=_read_series_values,
            read_cells=pack,
            adapt_samples=_resample_recordings,
            rescale=_keep,
            takes_strings=False,
            wanted="arrays",
            table_suffixes=(*FILE_SUFFIXES, *LOOSE_SUFFIXES),
        ),
        "text": DataAdapter(
            inspect=_inspect_text,
            choose_channels=max,
            refuse_channels=_refuse_none,
            make_samples=_make_texts,
            in_files=_in_any_file,
            open_files=_open_text_files,
            open_folder=_open_no_folder,
            open_file=_open_no_file,
            read_npz=_refuse_npz,
            read_array=_refuse_array,
            read_values=_read_text_values,
            read_cells=_read_text_cells,
            adapt_samples=_keep,
            rescale=_keep,
            takes_strings=True,
            wanted="a list of texts",
            table_suffixes=FILE_SUFFIXES,
        ),
    }
)
