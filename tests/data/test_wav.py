from __future__ import annotations

import io
import struct
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from scipy.io import wavfile

from falconet.data.dataset import Samples
from falconet.data.wav import WavFacts, WavFiles, decode_wav, inspect_wav
from falconet.errors import DataError


def to_wav(samples: bytes, *, channels: int = 1, width: int = 2, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()


def to_extensible(content: bytes, number: int = 1, tail: str = "000000001000800000aa00389b71") -> bytes:
    """Return a WAV file of `wave` with an extensible header."""
    fields, data = content[20:36], content[36:]
    (bits,) = struct.unpack("<H", fields[14:])
    extension = struct.pack("<HHIH", 22, bits, 0, number) + bytes.fromhex(tail)
    chunk = b"fmt " + struct.pack("<I", 40) + b"\xfe\xff" + fields[2:] + extension
    # A chunk of an odd length, with its padding, before the one that is sought.
    body = b"WAVE" + b"note" + struct.pack("<I", 3) + b"abc\0" + chunk + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_recordings_are_decoded_as_by_scipy(dtype: type, channels: int) -> None:
    info = np.iinfo(dtype)
    samples = np.random.default_rng(0).integers(info.min, info.max, (50, channels), dtype=dtype, endpoint=True)
    samples[0], samples[1] = info.min, info.max
    buffer = io.BytesIO()
    wavfile.write(buffer, 11025, samples)
    series = decode_wav(buffer.getvalue())
    middle = 128 if dtype is np.uint8 else 0
    assert series.dtype == np.float32
    assert np.allclose(series, ((samples - float(middle)) / 2.0 ** (info.bits - 1)).T, atol=1e-7)
    assert inspect_wav(buffer.getvalue()) == WavFacts(channels, 11025, 50)
    assert series.min() == -1


def test_24_bits_are_decoded_as_by_scipy() -> None:
    content = to_wav(np.random.default_rng(0).bytes(2 * 3 * 40), channels=2, width=3)
    _, expected = wavfile.read(io.BytesIO(content))
    series = decode_wav(content)
    assert series.shape == (2, 40)
    assert np.allclose(series, expected.T / 2.0**31, atol=1e-7)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_extensible_headers_of_pcm_are_read(width: int) -> None:
    content = to_wav(np.random.default_rng(0).bytes(width * 30), width=width)
    assert np.array_equal(decode_wav(to_extensible(content)), decode_wav(content))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("extensible", [False, True])
def test_recordings_in_floating_point_are_read_as_they_are(dtype: type, extensible: bool) -> None:
    samples: np.ndarray = np.random.default_rng(0).normal(0, 0.4, size=(50, 2)).astype(dtype)
    plain = bytearray(to_wav(samples.tobytes(), channels=2, width=samples.itemsize if dtype is np.float32 else 4))
    plain[20:22], plain[34:36] = b"\x03\0", struct.pack("<H", 8 * samples.itemsize)
    content = to_extensible(bytes(plain), number=3) if extensible else bytes(plain)
    assert inspect_wav(content) == WavFacts(2, 8000, 50)
    np.testing.assert_array_equal(decode_wav(content), samples.T.astype(np.float32))
    buffer = io.BytesIO()
    wavfile.write(buffer, 8000, samples)
    np.testing.assert_array_equal(decode_wav(buffer.getvalue()), wavfile.read(buffer)[1].T.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    buffer = io.BytesIO()
    wavfile.write(buffer, 8000, np.array([0.1, value]))
    with pytest.raises(DataError, match="found NaN or infinity"):
        decode_wav(buffer.getvalue())


def to_telephone(codes: bytes, number: int) -> bytes:
    """Return a WAV file of 8 bits a value in another format, whose chunk tells the size of its extension."""
    chunk = struct.pack("<4sIHHIIHHH", b"fmt ", 18, number, 1, 8000, 8000, 1, 8, 0)
    fact = struct.pack("<4sII", b"fact", 4, len(codes))
    body = b"WAVE" + chunk + fact + struct.pack("<4sI", b"data", len(codes)) + codes
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated")
@pytest.mark.parametrize(("number", "name"), [(6, "alaw2lin"), (7, "ulaw2lin")])
def test_the_codes_of_telephones_are_expanded_as_by_audioop(number: int, name: str) -> None:
    audioop = pytest.importorskip("audioop")
    codes = bytes(range(256))
    expected = np.frombuffer(getattr(audioop, name)(codes, 2), dtype="<i2") / np.float32(2**15)
    np.testing.assert_array_equal(decode_wav(to_telephone(codes, number)), expected[None])


@pytest.mark.parametrize(
    ("number", "codes", "levels"),
    [(7, b"\x00\x80\xff\x7f", (-32124, 32124, 0, 0)), (6, b"\x55\xd5\x2a\xaa", (-8, 8, -32256, 32256))],
)
def test_the_codes_of_telephones_are_those_of_g711(number: int, codes: bytes, levels: tuple[int, ...]) -> None:
    assert (decode_wav(to_telephone(codes, number))[0] * 2**15).tolist() == list(levels)


@pytest.mark.parametrize(
    ("whole", "size"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (36, 0), (0x7FFFF024, 0x7FFFF000), (0x80000024, 0x80000000), (0, 0xFFFFFFFF)],
)
@pytest.mark.parametrize("more", [b"", b"\x01"])
def test_recordings_from_a_pipe_are_read_to_their_end(whole: int, size: int, more: bytes) -> None:
    content = to_wav(np.random.default_rng(0).bytes(2 * 2 * 30), channels=2) + more
    piped = content[:4] + struct.pack("<I", whole) + content[8:40] + struct.pack("<I", size) + content[44:]
    assert inspect_wav(piped) == WavFacts(2, 8000, 30)
    np.testing.assert_array_equal(decode_wav(piped), decode_wav(content))


def test_an_empty_recording_is_not_taken_for_one_from_a_pipe() -> None:
    body = to_wav(b"")[8:] + b"LIST" + struct.pack("<I", 4) + b"abcd"
    with pytest.raises(DataError, match="found 0 samples at 8000 Hz"):
        inspect_wav(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_recording_that_resampling_would_blow_up_is_refused_before_it(tmp_path: Path) -> None:
    (tmp_path / "slow.wav").write_bytes(to_wav(bytes(2 * 700_000), rate=81))
    files = WavFiles(tmp_path, ["slow.wav"], 8000, 1)
    tracemalloc.start()
    try:
        with pytest.raises(
            DataError, match=r"slow\.wav: wanted at most 67,108,864 values at 8000 Hz, found 69,135,802"
        ):
            files.read(0)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


WAV = to_wav(np.random.default_rng(0).bytes(40))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", r"empty file \(0 bytes\)", id="empty"),
        pytest.param(b"no recording at all", "not a WAV file", id="other"),
        pytest.param(to_extensible(WAV, tail="21" * 14), "found format 0xfffe", id="unknown subformat"),
        pytest.param(WAV[:-2], "truncated WAV file: wanted 20 samples, found 19", id="truncated"),
        pytest.param(to_wav(b""), "wanted a recording, found 0 samples at 8000 Hz", id="no samples"),
        pytest.param(WAV[:24] + b"\0" * 4 + WAV[28:], "found 20 samples at 0 Hz", id="no rate"),
        pytest.param(WAV[:20] + b"\x02\0" + WAV[22:], "wanted PCM samples, found ADPCM; convert", id="compressed"),
        pytest.param(to_extensible(WAV, number=3), "wanted 32 or 64 bits a value, found 16", id="half float"),
        pytest.param(WAV[:22] + b"\0\0" + WAV[24:], "damaged WAV file: wanted 1 channel or more", id="no channels"),
        pytest.param(WAV[:34] + b"\x40\0" + WAV[36:], "wanted 8, 16, 24 or 32 bits a value, found 64", id="64 bits"),
        pytest.param(WAV[:30], "damaged WAV file: .*it ends early", id="header cut"),
        pytest.param(WAV[:12], "damaged WAV file: no chunk fmt, or it ends early", id="no chunks"),
    ],
)
def test_recordings_that_cannot_be_decoded_say_why(content: bytes, reason: str, tmp_path: Path) -> None:
    for read in (decode_wav, inspect_wav):
        with pytest.raises(DataError, match=reason):
            read(content)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.wav: .*{reason}"):
        WavFiles(tmp_path, ["a.wav"], 8000, 1).read(0)


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, len(WAV) - 1), value=st.integers(0, 255), end=st.integers(0, len(WAV)))
def test_altered_recordings_are_decoded_or_refused(place: int, value: int, end: int) -> None:
    content = bytearray(to_extensible(WAV) if value % 2 else WAV)
    content[place] = value
    for part in (bytes(content), bytes(content[:end])):
        try:
            facts = inspect_wav(part)
        except DataError:
            continue
        assert decode_wav(part).shape == (facts.channels, facts.steps)


def test_recordings_are_brought_to_one_rate_and_number_of_channels(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).integers(-(2**15), 2**15, (60, 2), dtype=np.int16)
    (tmp_path / "stereo.wav").write_bytes(to_wav(stereo.tobytes(), channels=2, rate=16000))
    (tmp_path / "mono.wav").write_bytes(to_wav(stereo[:, :1].tobytes(), rate=8000))
    paths = ["stereo.wav", "mono.wav"]
    files: Samples = WavFiles(tmp_path, paths, 8000, 1)
    assert isinstance(files, Samples)
    expected = signal.resample(stereo.mean(axis=1) / 2**15, 30)
    assert np.allclose(files.read(0)[0], expected, atol=1e-5)
    assert np.array_equal(files.read(1), decode_wav((tmp_path / "mono.wav").read_bytes()))
    both = WavFiles(tmp_path, paths, 16000, 2)
    assert np.array_equal(both.read(0), stereo.T / np.float32(2**15))
    assert np.array_equal(both.read(1)[0], both.read(1)[1])
    assert both.read(1).shape == (2, 120)
    joined = both.take(np.array([1])).join([both])
    assert [joined.name(index) for index in range(len(joined))] == ["mono.wav", "stereo.wav", "mono.wav"]
    assert np.array_equal(joined.read(1), both.read(0))


def test_recordings_that_do_not_match_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(to_wav(bytes(12), channels=2))
    with pytest.raises(DataError, match=r"a\.wav: wanted 3 channels or 1, found 2"):
        WavFiles(tmp_path, ["a.wav"], 8000, 3).read(0)
    for rate in (79, 800_001):
        with pytest.raises(DataError, match=rf"a\.wav: wanted a rate within 100 times {rate} Hz, found 8000 Hz"):
            WavFiles(tmp_path, ["a.wav"], rate, 2).read(0)
    with pytest.raises(DataError, match=r"gone\.wav: No such file"):
        WavFiles(tmp_path, ["gone.wav"], 8000, 2).read(0)


def test_a_recording_keeps_a_step_at_any_rate(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(to_wav(bytes(2)))
    assert WavFiles(tmp_path, ["a.wav"], 80, 1).read(0).shape == (1, 1)
