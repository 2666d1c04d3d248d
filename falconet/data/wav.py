"""Recordings in WAV files: their samples as series of one rate. Importing this does not import torch."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32, Int64

from falconet.data.images import read_content
from falconet.data.series import resample
from falconet.errors import DataError

_PCM, FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_WIDTHS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {_PCM: (8, 16, 24, 32), FLOAT: (32, 64), _A_LAW: (8,), _MU_LAW: (8,)}
)
"""Allowed bits per value of each format that is read."""
_WAV_FORMATS = MappingProxyType({2: "ADPCM", 0x11: "ADPCM", 0x31: "GSM", 0x55: "MP3"})
"""Names of formats that are not read."""
_STREAMED = 0x7FFFF000
"""Declared bytes of samples from which on the size is unknown: what programs write to a pipe."""
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Bytes after the format's number in the GUID of an extensible header (Microsoft, mmreg.h)."""
_RATE_LIMIT = 100
"""Largest ratio of two sampling rates; a larger one means a damaged header."""
_RESAMPLED_LIMIT = 2**26
"""Most values of a resampled recording: 23 minutes of 48,000 Hz. Resampling takes about 28 bytes for each."""


@dataclass(frozen=True)
class WavFacts:
    """Facts from the header of a recording."""

    channels: int
    rate: int
    """Sampling rate in Hz."""
    steps: int


@dataclass(frozen=True, eq=False)
class WavFiles:
    """Recordings in WAV files, read when they are wanted."""

    root: Path
    paths: Sequence[str]
    """Paths relative to `root`."""
    rate: int
    """Sampling rate in Hz, to which recordings of other rates are resampled."""
    channels: int
    """Channels of a sample; where 1, a recording's channels are averaged, else a single one is repeated."""

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> Float32[np.ndarray, "channels steps"]:
        path = self.root / self.paths[index]
        try:
            facts, code, samples = _read_wav(read_content(path))
            series = match_channels(_to_unit(facts, code, samples), self.channels)
            return _resample_rate(series, facts.rate, self.rate)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def take(self, indices: Int64[np.ndarray, " kept"]) -> WavFiles:
        return WavFiles(self.root, [self.paths[index] for index in indices], self.rate, self.channels)

    def join(self, others: Sequence[WavFiles]) -> WavFiles:
        paths = [path for part in (self, *others) for path in part.paths]
        return WavFiles(self.root, paths, self.rate, self.channels)


def inspect_wav(content: bytes) -> WavFacts:
    """Return channels, rate and steps of a WAV file that `decode_wav` can decode; raises what it raises."""
    return _read_wav(content)[0]


def decode_wav(content: bytes) -> Float32[np.ndarray, "channels steps"]:
    """Decode a WAV file to values in -1..1: PCM of 8, 16, 24 or 32 bits, mu-law, A-law, or floating point as it is.

    Raises DataError for one that is empty, truncated, damaged or compressed otherwise.
    """
    return _to_unit(*_read_wav(content))


@dataclass(frozen=True)
class _WavCode:
    """How a recording's values are written."""

    number: int
    """Number of the format: PCM, float, A-law or mu-law."""
    width: int
    """Bytes per value."""


def _to_unit(facts: WavFacts, code: _WavCode, samples: bytes) -> Float32[np.ndarray, "channels steps"]:
    """Return a recording's samples in -1..1: PCM of 8 bits is unsigned, of more it is signed.

    Raises DataError for samples in floating point that are not finite.
    """
    raw = np.frombuffer(samples, dtype=np.uint8).reshape(facts.steps, facts.channels, code.width)
    if code.number in _EXPANSIONS:
        return np.ascontiguousarray(_EXPANSIONS[code.number][raw[..., 0].T])
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


def _expand_mu_law() -> Float32[np.ndarray, " codes"]:
    """Return the value of each byte of mu-law (ITU-T G.711, table 2), of which all bits are inverted."""
    codes = 255 - np.arange(256)
    sizes = (((codes & 15) * 8 + 132) << (codes >> 4 & 7)) - 132
    return (np.where(codes & 128, -sizes, sizes) / 2**15).astype(np.float32)


def _expand_a_law() -> Float32[np.ndarray, " codes"]:
    """Return the value of each byte of A-law (ITU-T G.711, table 1), of which every second bit is inverted."""
    codes = np.arange(256) ^ 0x55
    segments, steps = codes >> 4 & 7, (codes & 15) * 16 + 8
    sizes = np.where(segments, (steps + 256) << np.maximum(segments - 1, 0), steps)
    return (np.where(codes & 128, sizes, -sizes) / 2**15).astype(np.float32)


_EXPANSIONS = MappingProxyType({_A_LAW: _expand_a_law(), _MU_LAW: _expand_mu_law()})


def _read_wav(content: bytes) -> tuple[WavFacts, _WavCode, bytes]:
    """Return the facts of a WAV file, how its values are written, and all samples."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise DataError("not a WAV file" if content else "empty file (0 bytes)")
    chunks = _find_chunks(content)
    for name in (b"fmt ", b"data"):
        if name not in chunks:
            raise DataError(f"damaged WAV file: no chunk {name.decode().strip()}, or it ends early")
    channels, rate, code = _parse_format(content[slice(*chunks[b"fmt "])])
    begin, end = chunks[b"data"]
    frame = channels * code.width
    steps = (end - begin) // frame
    if end > len(content):
        found = (len(content) - begin) // frame
        if not _is_streamed(content, begin):
            raise DataError(f"truncated WAV file: wanted {steps:,} samples, found {found:,}")
        steps = found
    if rate == 0 or steps == 0:
        raise DataError(f"wanted a recording, found {steps} samples at {rate} Hz")
    return WavFacts(channels, rate, steps), code, content[begin : begin + steps * frame]


def _find_chunks(content: bytes) -> dict[bytes, tuple[int, int]]:
    """Return where the content of each chunk begins and ends, as its header says, up to the samples."""
    chunks: dict[bytes, tuple[int, int]] = {}
    place = 12
    while place + 8 <= len(content) and b"data" not in chunks:
        name, size = struct.unpack_from("<4sI", content, place)
        begin = place + 8
        if name == b"data" and size == 0 and _is_streamed(content, begin):
            size = len(content) - begin
        chunks.setdefault(name, (begin, begin + size))
        place = begin + size + size % 2
    return chunks


def _is_streamed(content: bytes, begin: int) -> bool:
    """Whether a recording's samples, which start at `begin`, go on to the end of the file.

    Who writes to a pipe cannot go back to tell how many there are: programs leave 0, or about the most that fits.
    """
    whole, size = (int.from_bytes(content[place : place + 4], "little") for place in (4, begin - 4))
    return size >= _STREAMED or (size == 0 and whole + 8 != len(content))


def _parse_format(chunk: bytes) -> tuple[int, int, _WavCode]:
    """Return channels, rate and how values are written, from the chunk `fmt `. Raises DataError for another format."""
    if len(chunk) < 16:
        raise DataError("damaged WAV file: it ends early")
    number, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if number == _EXTENSIBLE and chunk[26:40] == _SUBFORMAT_TAIL:
        (number,) = struct.unpack_from("<H", chunk, 24)
    if number not in _WIDTHS:
        found = _WAV_FORMATS.get(number, f"format {number:#06x}")
        raise DataError(f"wanted PCM samples, found {found}; convert the recording to 16-bit PCM")
    if bits not in _WIDTHS[number]:
        *most, last = map(str, _WIDTHS[number])
        wanted = f"{', '.join(most)} or {last}" if most else last
        raise DataError(f"wanted {wanted} bits a value, found {bits}")
    if channels == 0:
        raise DataError("damaged WAV file: wanted 1 channel or more, found 0")
    return channels, rate, _WavCode(number, bits // 8)


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


def _resample_rate(
    series: Float32[np.ndarray, "channels steps"], rate: int, wanted: int
) -> Float32[np.ndarray, "channels new_steps"]:
    """Return a recording at another rate. Raises DataError for one absurdly far away, and for too long a one."""
    if not wanted / _RATE_LIMIT <= rate <= wanted * _RATE_LIMIT:
        raise DataError(f"wanted a rate within {_RATE_LIMIT} times {wanted} Hz, found {rate} Hz")
    steps = max(round(series.shape[1] * wanted / rate), 1)
    if steps != series.shape[1] and steps * len(series) > _RESAMPLED_LIMIT:
        raise DataError(
            f"wanted at most {_RESAMPLED_LIMIT:,} values at {wanted} Hz, found {steps * len(series):,}: resample it, "
            "or cut it into parts"
        )
    return resample(series, steps)
