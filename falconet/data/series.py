"""Series: `.ts` files, recordings (WAV) and tables to arrays, and these to a model's number of steps.

A series is float32 `(channels, steps)`, NaN where a value is missing. Importing this does not import torch.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from falconet.data.dataset import Dataset, SeriesArray, Split, Unreadable, hash_bytes, sort_classes
from falconet.data.images import read_content
from falconet.errors import DataError
from falconet.spec import SeriesSpec
from falconet.storage import read_regular
from falconet.tables import ABSENT, Table

NO_VALUES = "no values"
MISSING: Mapping[Any, float] = MappingProxyType(dict.fromkeys(("", None, *ABSENT), math.nan))
"""Cells that stand for a missing value, besides NaN itself."""

TS_PARTS = MappingProxyType({"_TRAIN": "_TEST", "_train": "_test"})
"""How the names of training files end, and those of the test files that belong to them."""

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
WIDTHS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {PCM: (8, 16, 24, 32), FLOAT: (32, 64), A_LAW: (8,), MU_LAW: (8,)}
)
"""Bits of a value in formats that are read."""
WAV_FORMATS = MappingProxyType({2: "ADPCM", 0x11: "ADPCM", 0x31: "GSM", 0x55: "MP3"})
"""What others are called."""
STREAMED = 0x7FFFF000
"""Size of samples from which on it is none: what programs write that do not know it."""
SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the format's number in the GUID of an extensible header (Microsoft, mmreg.h)."""
RATE_LIMIT = 100
"""Rates further apart than this are a damaged header's."""
RESAMPLED_LIMIT = 2**26
"""Values of a recording at another rate: 23 minutes of 48,000 Hz. Resampling takes some 28 bytes for each."""
PADDING_LIMIT = 16
"""Times the values of a case that its dimensions may take once the shorter ones are padded to the longest."""
PADDING_FREE = 4096
"""Values to which a case may be padded in any case."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def pack_series(series: Sequence[Float32[np.ndarray, "_ _"]], names: Shaped[np.ndarray, " samples"]) -> SeriesArray:
    """Put series of any lengths one after the other. Raises DataError for none, or unlike numbers of channels."""
    channels = sorted({len(values) for values in series})
    if len(channels) != 1:
        found = f"series of {' and '.join(map(str, channels))} channels" if channels else "none"
        raise DataError(f"wanted series of one number of channels, found {found}")
    ends = np.cumsum([values.shape[1] for values in series], dtype=np.int64)
    bounds = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return SeriesArray(np.concatenate(series, axis=1), bounds, names)


def split_series(
    series: Sequence[Float32[np.ndarray, "_ _"]],
    names: Shaped[np.ndarray, " samples"],
    labels: Int64[np.ndarray, " samples"],
) -> Split:
    """Return series in memory as a split. Raises what `pack_series` raises."""
    hashes = np.array([hash_bytes(values.tobytes()) for values in series], dtype=np.uint64)
    return Split(pack_series(series, names), labels, hashes)


def series_dataset(
    source: str, splits: Mapping[str, Split], classes: tuple[str, ...], unreadable: Sequence[Unreadable] = ()
) -> Dataset:
    """Wrap splits of series in memory. Raises DataError where their channels differ."""
    channels: dict[str, int] = {}
    steps: list[int] = []
    for name, split in splits.items():
        series = [split.samples.read(index) for index in range(len(split))]
        channels[name] = len(series[0])
        steps += [int(count_steps(values)) for values in series]
    if len(set(channels.values())) > 1:
        found = ", ".join(f"{number} in {name}" for name, number in channels.items())
        raise DataError(f"{source}: wanted the same number of channels in all splits, found {found}")
    size = (int(np.median(steps)),)
    return Dataset(source, classes, splits, next(iter(channels.values())), size, tuple(unreadable), kind="series")


# The format .ts


@dataclass(frozen=True)
class TsHeader:
    """What the header of a `.ts` file declares."""

    classes: frozenset[str]
    dimensions: int | None
    """None: not declared."""
    lines: int
    """Lines up to and including `@data`."""
    labeled: bool = True
    """Whether a label ends each line of data."""


@dataclass(frozen=True, eq=False)
class TsCase:
    """A line of data."""

    name: str
    label: str
    series: Float32[np.ndarray, "dimensions steps"]


def find_ts_problems(folder: Path) -> list[Path]:
    """Return a file for each problem among the `.ts` files of a folder: the training file, or the only one."""
    files = {
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".ts" and path.is_file() and not path.name.startswith(".")
    }
    tests = {twin for path in files if (twin := find_ts_test(path)) is not None}
    return sorted(files - tests)


def find_ts_test(path: Path) -> Path | None:
    """Return where the test file of a training file should be; None for any other file."""
    for train, test in TS_PARTS.items():
        if path.stem.endswith(train):
            return path.with_name(f"{path.stem.removesuffix(train)}{test}{path.suffix}")
    return None


def read_ts(path: Path) -> Dataset:
    """Read a problem of the UCR and UEA archives: `NAME_TRAIN.ts` with `NAME_TEST.ts`, or one file of another name.

    The format is that of aeon and sktime. Lengths and missing values are taken from the data, whatever the header says
    of them; where the dimensions of a case differ in length, the shorter ones are followed by NaN. A case that cannot
    be read is skipped and listed. Raises DataError for time stamps, regression problems, and a file without its header
    or without a readable case.
    """
    read = {split: read_ts_file(file) for split, file in find_ts_splits(path).items()}
    classes = sort_classes({case.label for cases, _ in read.values() for case in cases})
    splits = {split: split_cases(cases, classes) for split, (cases, _) in read.items()}
    return series_dataset(str(path), splits, classes, [item for _, skipped in read.values() for item in skipped])


def split_cases(cases: Sequence[TsCase], classes: tuple[str, ...]) -> Split:
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[case.label] for case in cases], dtype=np.int64)
    return split_series([case.series for case in cases], np.array([case.name for case in cases]), labels)


def find_ts_splits(path: Path) -> dict[str, Path]:
    """Return split -> file, whichever file of a pair is given."""
    for train, test in TS_PARTS.items():
        if path.stem.endswith(test):
            first = path.with_name(f"{path.stem.removesuffix(test)}{train}{path.suffix}")
            return {"train": first, "test": path} if first.is_file() else {"test": path}
    twin = find_ts_test(path)
    return {"train": path, "test": twin} if twin is not None and twin.is_file() else {"train": path}


def read_ts_file(path: Path, *, unlabeled: bool = False) -> tuple[list[TsCase], list[Unreadable]]:
    """Return the cases of one file, and the lines that are none.

    Where they may be `unlabeled`, a label that a line has all the same is passed over, whatever it is.
    """
    try:
        # Descriptions are often in other encodings; they do not matter here.
        text = read_regular(path).decode("utf-8-sig", "backslashreplace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header = parse_ts_header(path, lines, unlabeled)
    rows = [(number, line) for number, line in enumerate(lines, 1) if number > header.lines and holds_content(line)]
    counts = Counter(line.count(":") for _, line in rows)
    # Without a label there is one dimension more than separators.
    dimensions = header.dimensions or next((count + (not header.labeled) for count, _ in counts.most_common(1)), 0)
    classes = None if unlabeled else header.classes
    cases, skipped = [], []
    for number, line in rows:
        name = f"{path.name}:{number}"
        try:
            cases.append(TsCase(name, *parse_ts_case(line if header.labeled else f"{line}:", dimensions, classes)))
        except DataError as error:
            skipped.append(Unreadable(name, str(error)))
    if not cases:
        first = f"; the first: {skipped[0].file} ({skipped[0].reason})" if skipped else ""
        raise DataError(f"{path}: no series that can be read, of {len(skipped)}{first}")
    return cases, skipped


def holds_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def parse_ts_header(path: Path, lines: Sequence[str], unlabeled: bool = False) -> TsHeader:
    """Read the lines up to `@data`. Raises DataError where they do not announce values at equal steps.

    And labels, unless they may be `unlabeled`.
    """
    fields: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not holds_content(line):
            continue
        key, *values = line.split()
        if not key.startswith("@"):
            raise DataError(
                f"{path}:{number}: wanted a line of a .ts header such as @data, found {line.strip()[:40]!r}"
            )
        if key.lower() == "@data":
            labeled = not unlabeled or any(is_true(fields.get(key, ())) for key in ("@classlabel", "@targetlabel"))
            classes = frozenset() if unlabeled else declared_classes(path, fields)
            return TsHeader(classes, declared_dimensions(path, fields), number, labeled)
        fields[key.lower()] = values
    raise DataError(f"{path}: wanted a line @data, found none: truncated, or no .ts file")


def declared_classes(path: Path, fields: Mapping[str, Sequence[str]]) -> frozenset[str]:
    values = fields.get("@classlabel", ())
    if not is_true(values) or len(values) < 2:
        found = " ".join(["@classLabel", *values]) if "@classlabel" in fields else "none"
        raise DataError(f"{path}: wanted a header line such as '@classLabel true a b', found {found}; add the classes")
    return frozenset(values[1:])


def declared_dimensions(path: Path, fields: Mapping[str, Sequence[str]]) -> int | None:
    if is_true(fields.get("@timestamps", ())):
        raise DataError(
            f"{path}: wanted plain values, found @timeStamps true; save the series at equal steps, without time stamps"
        )
    # Both are written.
    written = fields.get("@dimensions", fields.get("@dimension"))
    if written is None:
        return 1 if is_true(fields.get("@univariate", ())) else None
    if len(written) != 1 or not written[0].isdecimal() or int(written[0]) < 1:
        raise DataError(f"{path}: wanted a number after @dimensions, found {' '.join(written)!r}")
    return int(written[0])


def is_true(values: Sequence[str]) -> bool:
    return len(values) > 0 and values[0].lower() == "true"


def parse_ts_case(
    line: str, dimensions: int, classes: frozenset[str] | None
) -> tuple[str, Float32[np.ndarray, "dimensions steps"]]:
    """Return label and series of a line. Raises DataError, without the place, for one that cannot be read.

    `classes` are what the label may be; None: anything.
    """
    *parts, label = (part.strip() for part in line.split(":"))
    if len(parts) != dimensions:
        raise DataError(f"wanted {dimensions} dimensions and a class, all separated by ':', found {len(parts)} ':'")
    if classes is not None and label not in classes:
        raise DataError(f"class {label[:40]!r} is not among those of @classLabel")
    rows = [parse_ts_values(part) for part in parts]
    longest = max(len(row) for row in rows)
    values = sum(len(row) for row in rows)
    if longest * dimensions > max(PADDING_LIMIT * values, PADDING_FREE):
        raise DataError(
            f"wanted dimensions of about one length, found {values:,} values in {dimensions:,} dimensions, of which "
            f"the longest has {longest:,}"
        )
    series = np.full((dimensions, longest), np.nan, dtype=np.float32)
    for padded, row in zip(series, rows, strict=True):
        padded[: len(row)] = row
    if np.isnan(series).all():
        raise DataError(NO_VALUES)
    return label, series


def parse_ts_values(text: str) -> Float32[np.ndarray, " steps"]:
    cells = text.split(",")
    values = to_numbers(cells)
    bad = np.isinf(values)
    if bad.any():
        raise DataError(describe_cell(cells[int(bad.argmax())]))
    return values


# Recordings


@dataclass(frozen=True)
class WavFacts:
    """What the header of a recording says."""

    channels: int
    rate: int
    """Steps a second."""
    steps: int


@dataclass(frozen=True, eq=False)
class WavFiles:
    """Recordings in WAV files, read when they are wanted."""

    root: Path
    paths: Sequence[str]
    """Relative to `root`."""
    rate: int
    """Steps a second, to which recordings of other rates are resampled."""
    channels: int
    """One: the mean of a recording's channels. Several: a recording of one channel is repeated."""

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> Float32[np.ndarray, "channels steps"]:
        path = self.root / self.paths[index]
        try:
            facts, code, samples = read_wav(read_content(path))
            series = match_channels(to_unit(facts, code, samples), self.channels)
            return resample_rate(series, facts.rate, self.rate)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def take(self, indices: Int64[np.ndarray, " kept"]) -> WavFiles:
        return WavFiles(self.root, [self.paths[index] for index in indices], self.rate, self.channels)

    def join(self, others: Sequence[WavFiles]) -> WavFiles:
        paths = [path for part in (self, *others) for path in part.paths]
        return WavFiles(self.root, paths, self.rate, self.channels)


def inspect_wav(content: bytes) -> WavFacts:
    """Return channels, rate and steps of a WAV file that `decode_wav` can decode; raises what it raises."""
    return read_wav(content)[0]


def decode_wav(content: bytes) -> Float32[np.ndarray, "channels steps"]:
    """Decode a WAV file to values in -1..1: PCM of 8, 16, 24 or 32 bits, mu-law, A-law, or floating point as it is.

    Raises DataError for one that is empty, truncated, damaged or compressed otherwise.
    """
    return to_unit(*read_wav(content))


@dataclass(frozen=True)
class WavCode:
    """How a recording's values are written."""

    number: int
    """Of the format: PCM, FLOAT, A_LAW or MU_LAW."""
    width: int
    """Bytes of a value."""


def to_unit(facts: WavFacts, code: WavCode, samples: bytes) -> Float32[np.ndarray, "channels steps"]:
    """Return a recording's samples in -1..1: PCM of 8 bits is unsigned, of more it is signed.

    Raises DataError for samples in floating point that are not finite.
    """
    raw = np.frombuffer(samples, dtype=np.uint8).reshape(facts.steps, facts.channels, code.width)
    if code.number in EXPANSIONS:
        return np.ascontiguousarray(EXPANSIONS[code.number][raw[..., 0].T])
    if code.number == FLOAT:
        with np.errstate(over="ignore"):
            values = raw.view(f"<f{code.width}")[..., 0].T.astype(np.float32, order="C")
        if not np.isfinite(values).all():
            raise DataError("wanted samples in -1..1, found NaN or infinity")
        return values
    # Into the upper bytes of 32 bits, so that the sign stands where it belongs.
    wide = np.zeros((facts.channels, facts.steps, 4), dtype=np.uint8)
    wide[..., 4 - code.width :] = (raw ^ 128 if code.width == 1 else raw).transpose(1, 0, 2)
    return wide.view("<i4")[..., 0].astype(np.float32) / np.float32(2**31)


def expand_mu_law() -> Float32[np.ndarray, " codes"]:
    """Return the value of each byte of mu-law (ITU-T G.711, table 2), of which all bits are inverted."""
    codes = 255 - np.arange(256)
    sizes = (((codes & 15) * 8 + 132) << (codes >> 4 & 7)) - 132
    return (np.where(codes & 128, -sizes, sizes) / 2**15).astype(np.float32)


def expand_a_law() -> Float32[np.ndarray, " codes"]:
    """Return the value of each byte of A-law (ITU-T G.711, table 1), of which every second bit is inverted."""
    codes = np.arange(256) ^ 0x55
    segments, steps = codes >> 4 & 7, (codes & 15) * 16 + 8
    sizes = np.where(segments, (steps + 256) << np.maximum(segments - 1, 0), steps)
    return (np.where(codes & 128, sizes, -sizes) / 2**15).astype(np.float32)


EXPANSIONS = MappingProxyType({A_LAW: expand_a_law(), MU_LAW: expand_mu_law()})


def read_wav(content: bytes) -> tuple[WavFacts, WavCode, bytes]:
    """Return the facts of a WAV file, how its values are written, and all samples."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise DataError("not a WAV file" if content else "empty file (0 bytes)")
    chunks = find_chunks(content)
    for name in (b"fmt ", b"data"):
        if name not in chunks:
            raise DataError(f"damaged WAV file: no chunk {name.decode().strip()}, or it ends early")
    channels, rate, code = parse_format(content[slice(*chunks[b"fmt "])])
    begin, end = chunks[b"data"]
    frame = channels * code.width
    steps = (end - begin) // frame
    if end > len(content):
        found = (len(content) - begin) // frame
        if not is_streamed(content, begin):
            raise DataError(f"truncated WAV file: wanted {steps:,} samples, found {found:,}")
        steps = found
    if rate == 0 or steps == 0:
        raise DataError(f"wanted a recording, found {steps} samples at {rate} Hz")
    return WavFacts(channels, rate, steps), code, content[begin : begin + steps * frame]


def find_chunks(content: bytes) -> dict[bytes, tuple[int, int]]:
    """Return where the content of each chunk begins and ends, as its header says, up to the samples."""
    chunks: dict[bytes, tuple[int, int]] = {}
    place = 12
    while place + 8 <= len(content) and b"data" not in chunks:
        name, size = struct.unpack_from("<4sI", content, place)
        begin = place + 8
        if name == b"data" and size == 0 and is_streamed(content, begin):
            size = len(content) - begin
        chunks.setdefault(name, (begin, begin + size))
        place = begin + size + size % 2
    return chunks


def is_streamed(content: bytes, begin: int) -> bool:
    """Whether a recording's samples, which start at `begin`, go on to the end of the file.

    Who writes to a pipe cannot go back to tell how many there are: programs leave 0, or about the most that fits.
    """
    whole, size = (int.from_bytes(content[place : place + 4], "little") for place in (4, begin - 4))
    return size >= STREAMED or (size == 0 and whole + 8 != len(content))


def parse_format(chunk: bytes) -> tuple[int, int, WavCode]:
    """Return channels, rate and how values are written, from the chunk `fmt `. Raises DataError for another format."""
    if len(chunk) < 16:
        raise DataError("damaged WAV file: it ends early")
    number, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if number == EXTENSIBLE and chunk[26:40] == SUBFORMAT_TAIL:
        (number,) = struct.unpack_from("<H", chunk, 24)
    if number not in WIDTHS:
        found = WAV_FORMATS.get(number, f"format {number:#06x}")
        raise DataError(f"wanted PCM samples, found {found}; convert the recording to 16-bit PCM")
    if bits not in WIDTHS[number]:
        *most, last = map(str, WIDTHS[number])
        wanted = f"{', '.join(most)} or {last}" if most else last
        raise DataError(f"wanted {wanted} bits a value, found {bits}")
    if channels == 0:
        raise DataError("damaged WAV file: wanted 1 channel or more, found 0")
    return channels, rate, WavCode(number, bits // 8)


def match_channels(
    series: Float32[np.ndarray, "channels steps"], wanted: int
) -> Float32[np.ndarray, "model_channels steps"]:
    """Average to one channel or repeat a single one. Raises DataError for any other difference."""
    if len(series) == wanted:
        return series
    if wanted == 1:
        mono: Float32[np.ndarray, "1 steps"] = series.mean(axis=0, keepdims=True)
        return mono
    if len(series) == 1:
        return np.repeat(series, wanted, axis=0)
    raise DataError(f"wanted {wanted} channels or 1, found {len(series)}")


def resample_rate(
    series: Float32[np.ndarray, "channels steps"], rate: int, wanted: int
) -> Float32[np.ndarray, "channels new_steps"]:
    """Return a recording at another rate. Raises DataError for one absurdly far away, and for too long a one."""
    if not wanted / RATE_LIMIT <= rate <= wanted * RATE_LIMIT:
        raise DataError(f"wanted a rate within {RATE_LIMIT} times {wanted} Hz, found {rate} Hz")
    steps = max(round(series.shape[1] * wanted / rate), 1)
    if steps != series.shape[1] and steps * len(series) > RESAMPLED_LIMIT:
        raise DataError(
            f"wanted at most {RESAMPLED_LIMIT:,} values at {wanted} Hz, found {steps * len(series):,}: resample it, or "
            "cut it into parts"
        )
    return resample(series, steps)


# Number of steps


def resample(series: Float32[np.ndarray, "channels steps"], steps: int) -> Float32[np.ndarray, "channels new_steps"]:
    """Return a band-limited series of finite values at another rate: its spectrum is cut, or followed by zeros.

    As any method of Fourier's it takes the series for one period, which does not matter for recordings that begin and
    end in silence; what does not is for `stretch`.
    """
    old = series.shape[1]
    if old == steps:
        return series
    spectrum = np.fft.rfft(series.astype(np.float64), axis=1)[:, : steps // 2 + 1]
    shorter = min(old, steps)
    if shorter % 2 == 0:
        # The highest frequency of an even number of steps stands for itself and its mirror image.
        spectrum[:, shorter // 2] *= 2 if steps < old else 0.5
    # The inverse adds the zeros of a longer series.
    resampled: Float32[np.ndarray, "channels new_steps"] = np.fft.irfft(spectrum, steps, axis=1).astype(np.float32)
    return resampled * np.float32(steps / old)


def stretch(series: Float32[np.ndarray, "channels steps"], steps: int) -> Float32[np.ndarray, "channels new_steps"]:
    """Return a series of finite values at `steps` equally spaced places from its first value to its last.

    Linear interpolation; a series that shrinks by a factor f is first averaged over windows of about f steps, narrower
    towards its ends, so that what is too fast for the new steps does not fold into them. Ends and straight lines stay
    as they are. (Fourier's method would ring, as a series in general ends elsewhere than it begins.)
    """
    old = series.shape[1]
    if steps == 1:
        mean: Float32[np.ndarray, "channels 1"] = series.mean(axis=1, keepdims=True, dtype=np.float64).astype(
            np.float32
        )
        return mean
    half = max(round(((old - 1) / (steps - 1) - 1) / 2), 0)
    places = np.linspace(0, old - 1, steps)
    rows = [np.interp(places, np.arange(old), row) for row in smooth(series, half)]
    return np.stack(rows).astype(np.float32)


def smooth(series: Float32[np.ndarray, "channels steps"], half: int) -> Float64[np.ndarray, "channels steps"]:
    """Return the mean over each step and `half` steps on both sides, or as many as there are on the shorter side."""
    steps = np.arange(series.shape[1])
    reach = np.minimum(np.minimum(steps, steps[::-1]), half)
    sums = np.cumsum(np.pad(series.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    means: Float64[np.ndarray, "channels steps"] = (sums[:, steps + reach + 1] - sums[:, steps - reach]) / (
        2 * reach + 1
    )
    return means


def count_steps(series: Float32[np.ndarray, "*batch channels steps"]) -> Int64[np.ndarray, "*batch"]:
    """Return the steps up to the last that has a value in any channel; what follows is not part of the series."""
    steps = series.shape[-1]
    if steps == 0:
        return np.zeros(series.shape[:-2], dtype=np.int64)
    known = ~np.isnan(series).all(axis=-2)
    return np.where(known.any(axis=-1), steps - known[..., ::-1].argmax(axis=-1), 0)


def fill_missing(series: Float32[np.ndarray, "channels steps"]) -> Float32[np.ndarray, "channels steps"]:
    """Replace NaN in each channel: between two values linearly, at the ends by the nearest, by 0 where none is."""
    missing = np.isnan(series)
    if not missing.any():
        return series
    filled = series.copy()
    for row, gaps in zip(filled, missing, strict=True):
        row[gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), row[~gaps]) if not gaps.all() else 0
    return filled


def fit_series(
    series: Float32[np.ndarray, "channels steps"], spec: SeriesSpec
) -> Float32[np.ndarray, "channels model_steps"]:
    """Return a raw series with the steps that a model takes: without its trailing NaN, filled, then fitted.

    Where `spec.length_mode` is "pad" it is cut at the end, or followed by NaN in all channels; where it is "resample"
    it is stretched (see `stretch`). Raises DataError for a series of another number of channels or without values.
    """
    channels, steps = spec.raw_shape
    if len(series) != channels:
        raise DataError(f"wanted a series of {channels} channels, found {len(series)}")
    length = int(count_steps(series))
    if length == 0:
        raise DataError(NO_VALUES)
    filled = fill_missing(series[:, :length])
    if spec.length_mode == "resample":
        return stretch(filled, steps)
    fitted = np.full((channels, steps), np.nan, dtype=np.float32)
    fitted[:, :length] = filled[:, :steps]
    return fitted


def measure_series(
    block: Float32[np.ndarray, "samples channels steps"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation, NaN left out; 1.0 as the std of equal values."""
    means, stds = [], []
    for channel in range(block.shape[1]):
        rows = block[:, channel]
        values = rows[~np.isnan(rows)].astype(np.float64)
        means.append(float(values.mean()) if values.size else 0.0)
        # Of equal values it is exactly zero: float64 holds their sum without rounding.
        stds.append((float(values.std()) if values.size else 0.0) or 1.0)
    return tuple(means), tuple(stds)


# Tables


def wide_series(table: Table, value_columns: Sequence[str]) -> list[np.ndarray | str]:
    """Return for each row of a table its series of one channel, `value_columns` in order, or why there is none.

    Missing values at the end are not part of a series.
    """
    block = np.stack([to_numbers(table.columns[name]) for name in value_columns], axis=1)[:, None]
    lengths = count_steps(block).tolist()
    series: list[np.ndarray | str] = [
        row[:, :length] if length else NO_VALUES for row, length in zip(block, lengths, strict=True)
    ]
    bad = np.isinf(block[:, 0])
    for row in np.flatnonzero(bad.any(axis=1)).tolist():
        name = value_columns[int(bad[row].argmax())]
        series[row] = f"column {name}: {describe_cell(table.columns[name][row])}"
    return series


def long_series(
    table: Table, series: str, time: str | None, values: Sequence[str]
) -> tuple[list[np.ndarray | str], list[int]]:
    """Gather rows to series: those with the same cell in the column `series`, ordered by the column `time`.

    Times are numbers, dates (ISO 8601, without an offset in UTC) or texts, as the first of them is; without a column
    the order is the file's. Channels are the columns `values`. Missing values at the end are not part of a series.

    Returns the series in order of their first rows, each an array or the reason why there is none, and the positions
    of these rows in the table.
    """
    places: dict[str, int] = {}
    ids = ["" if cell is None else str(cell).strip() for cell in table.columns[series]]
    owners = np.array([places.setdefault(name, len(places)) for name in ids], dtype=np.int64)
    reasons = {places[""]: f"column {series}: no name of a series"} if "" in places else {}
    keys = np.arange(len(ids))
    if time is not None:
        keys, bad, wanted = to_order(table.columns[time])
        note_cells(reasons, table, time, owners, bad, wanted)
    block = np.stack([to_numbers(table.columns[name]) for name in values], axis=1)
    for channel, name in enumerate(values):
        note_cells(reasons, table, name, owners, np.isinf(block[:, channel]))
    order = np.lexsort((keys, owners))
    note_repeated(reasons, table, time, owners, keys, order)
    firsts = np.searchsorted(owners[order], np.arange(len(places) + 1))
    rows = [block[order[begin:end]] for begin, end in pairwise(firsts)]
    gathered = [reasons.get(place) or trim_rows(part) for place, part in enumerate(rows)]
    return gathered, np.unique(owners, return_index=True)[1].tolist()


def trim_rows(rows: Float32[np.ndarray, "steps channels"]) -> np.ndarray | str:
    """Return rows of a table as a series, without missing values at its end."""
    length = int(count_steps(rows.T))
    return np.ascontiguousarray(rows[:length].T) if length else NO_VALUES


def note_cells(
    reasons: dict[int, str],
    table: Table,
    column: str,
    owners: Int64[np.ndarray, " rows"],
    bad: Bool[np.ndarray, " rows"],
    wanted: str = "a number",
) -> None:
    """Add the first bad cell of each series to the reasons."""
    for row in np.flatnonzero(bad).tolist():
        found = describe_cell(table.columns[column][row], wanted)
        reasons.setdefault(int(owners[row]), f"column {column}, line {table.lines[row]}: {found}")


def note_repeated(
    reasons: dict[int, str],
    table: Table,
    time: str | None,
    owners: Int64[np.ndarray, " rows"],
    keys: Shaped[np.ndarray, " rows"],
    order: Int64[np.ndarray, " rows"],
) -> None:
    """Add the first time that stands twice in each series to the reasons; without a column no time does."""
    before, after = order[:-1], order[1:]
    for row in after[(owners[before] == owners[after]) & (keys[before] == keys[after])].tolist():
        found = f"column {time}, line {table.lines[row]}: {table.columns[str(time)][row]!r} a second time"
        reasons.setdefault(int(owners[row]), found)


def describe_cell(cell: object, wanted: str = "a number") -> str:
    shown = repr(cell.strip() if isinstance(cell, str) else cell)
    return f"wanted {wanted}, found {shown if len(shown) <= 40 else shown[:40] + '…'}"


def to_order(
    cells: Sequence[Any],
) -> tuple[Shaped[np.ndarray, " rows"], Bool[np.ndarray, " rows"], str]:
    """Return what orders times, which of them are of another kind than the first, and what that kind is called."""
    first = next((cell for cell in cells if not math.isnan(to_float(cell))), None)
    if first is None or math.isfinite(to_float(first)):
        numbers = to_floats(cells)
        return numbers, ~np.isfinite(numbers), "a number"
    if not math.isnan(to_microseconds(first)):
        moments = np.array([to_microseconds(cell) for cell in cells])
        return moments, np.isnan(moments), "a date"
    _, ranks = np.unique(np.array([str(cell) for cell in cells]), return_inverse=True)
    return ranks, np.isnan(to_floats(cells)), "a time"


def to_microseconds(cell: Any) -> float:
    """Return a date as microseconds since 1970, NaN for what is none."""
    try:
        moment = datetime.fromisoformat(str(cell).strip())
    except ValueError:
        return math.nan
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) / timedelta(microseconds=1)


def to_numbers(cells: Sequence[Any]) -> Float32[np.ndarray, " rows"]:
    """Return cells as numbers: NaN for a missing one, infinity for one that is no number or too large for float32."""
    with np.errstate(over="ignore"):
        return to_floats(cells).astype(np.float32)


def to_floats(cells: Sequence[Any]) -> Float64[np.ndarray, " rows"]:
    """Return cells as numbers: NaN for a missing one, infinity for one that is no number."""
    try:
        return np.array([MISSING.get(cell, cell) for cell in cells], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array([to_float(cell) for cell in cells], dtype=np.float64)


def to_float(cell: Any) -> float:
    try:
        text = cell.strip() if isinstance(cell, str) else cell
        return float(MISSING.get(text, text))
    except (TypeError, ValueError, OverflowError):
        return math.inf
