from __future__ import annotations

import io
import math
import struct
import tracemalloc
import wave
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import signal
from scipy.io import wavfile

from falconet.data.dataset import Samples, hash_bytes
from falconet.data.series import (
    WavFacts,
    WavFiles,
    count_steps,
    decode_wav,
    fill_missing,
    find_ts_problems,
    fit_series,
    inspect_wav,
    long_series,
    measure_series,
    pack_series,
    read_ts,
    read_ts_file,
    resample,
    stretch,
    wide_series,
)
from falconet.data.sources import load_dataset
from falconet.errors import DataError
from falconet.spec import SeriesSpec
from falconet.tables import Table

NAN = math.nan
HEADER = "@problemName Mine\n@timeStamps false\n@univariate true\n@classLabel true a b\n@data\n"
VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)
CELLS = VALUES | st.just(NAN)


def series_of(*rows: Sequence[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def noise(channels: int, steps: int) -> np.ndarray:
    return np.random.default_rng(steps).normal(size=(channels, steps)).astype(np.float32)


# Packing


def test_packed_series_come_back_with_their_names() -> None:
    series = [noise(2, steps) for steps in (3, 1, 5)]
    packed = pack_series(series, np.array(["x", "y", "z"]))
    assert len(packed) == 3
    assert all(np.array_equal(packed.read(index), values) for index, values in enumerate(series))
    assert packed.name(2) == "z"


@pytest.mark.parametrize(
    ("channels", "message"), [((1, 2), "found series of 1 and 2 channels"), ((), "found none")], ids=["mixed", "none"]
)
def test_series_of_different_channels_are_not_packed(channels: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pack_series([noise(number, 3) for number in channels], np.array(["x"] * len(channels)))


# .ts


def to_ts(cases: Sequence[tuple[Sequence[Sequence[float]], str]], missing: str, header: str = "") -> str:
    """Return cases as a `.ts` file: dimensions of their own lengths, then the class."""
    dimensions = len(cases[0][0])
    labels = " ".join(sorted({label for _, label in cases}))
    lines = [f"@problemName Mine\n{header}@dimensions {dimensions}\n@classLabel true {labels} unused\n@data"]
    for rows, label in cases:
        cells = [",".join(missing if math.isnan(value) else repr(value) for value in row) for row in rows]
        lines.append(":".join([*cells, label]))
    return "\n".join(lines) + "\n"


@st.composite
def ts_cases(draw: st.DrawFn) -> list[tuple[list[list[float]], str]]:
    dimensions = draw(st.integers(1, 3))
    row = st.lists(CELLS, min_size=1, max_size=6)
    rows = st.lists(row, min_size=dimensions, max_size=dimensions)
    known = rows.filter(lambda rows: any(not math.isnan(value) for row in rows for value in row))
    return draw(st.lists(st.tuples(known, st.sampled_from(["1", "2", "10", "cat"])), min_size=1, max_size=5))


@settings(deadline=None, max_examples=80)
@given(
    cases=ts_cases(),
    missing=st.sampled_from(["?", "NaN", "nan"]),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    header=st.sampled_from(["", "# 100 % \x85 of #them\n\n", "@missing false\n@equalLength true\n@seriesLength 99\n"]),
)
def test_ts_files_come_back_as_written(
    cases: list[tuple[list[list[float]], str]],
    missing: str,
    end: str,
    mark: bytes,
    header: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "Mine.ts"
    path.write_bytes(mark + to_ts(cases, missing, header).replace("\n", end).encode())
    dataset = read_ts(path)
    train = dataset.splits["train"]
    assert (dataset.kind, dataset.channels, dataset.unreadable) == ("series", len(cases[0][0]), ())
    assert [dataset.classes[label] for label in train.labels] == [label for _, label in cases]
    for index, (rows, _) in enumerate(cases):
        series = train.samples.read(index)
        assert series.dtype == np.float32
        assert series.shape[1] == max(map(len, rows))
        for values, row in zip(series, rows, strict=True):
            assert np.array_equal(values[: len(row)], np.array(row, dtype=np.float32), equal_nan=True)
            assert np.isnan(values[len(row) :]).all()
        assert train.hashes[index] == hash_bytes(series.tobytes())


def test_a_pair_of_ts_files_makes_two_splits_whichever_is_named(tmp_path: Path) -> None:
    (tmp_path / "Mine_TRAIN.ts").write_text(HEADER + "1,2,3:b\n\n# a remark\n4,5,6,7,8:a\n")
    (tmp_path / "Mine_TEST.ts").write_text(HEADER + "9:b\n")
    for name in ("Mine_TRAIN.ts", "Mine_TEST.ts"):
        dataset = read_ts(tmp_path / name)
        assert dataset.source == str(tmp_path / name)
        assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 2, "test": 1}
        assert dataset.classes == ("a", "b")
        assert dataset.splits["train"].labels.tolist() == [1, 0]
        assert dataset.splits["train"].samples.name(1) == "Mine_TRAIN.ts:9"
        assert dataset.splits["test"].samples.name(0) == "Mine_TEST.ts:6"
        assert dataset.size == (3,)


def test_ts_classes_are_those_that_occur_sorted_by_value(tmp_path: Path) -> None:
    path = tmp_path / "Mine.ts"
    path.write_text("@univariate true\n@classLabel true 1 10 2 7\n@data\n1:10\n2:2\n3:1\n")
    assert read_ts(path).classes == ("1", "2", "10")


@pytest.mark.parametrize("key", ["@dimensions 2", "@dimension 2", "@DIMENSIONS 2\n@univariate true"])
def test_declared_ts_dimensions_hold_whatever_most_lines_have(key: str, tmp_path: Path) -> None:
    path = tmp_path / "Mine.ts"
    path.write_text(f"{key}\n@classlabel TRUE a\n@DATA\n1,2:a\n : 4, 5 : a \n3:a\n")
    dataset = read_ts(path)
    assert dataset.channels == 2
    assert np.array_equal(dataset.splits["train"].samples.read(0), series_of([NAN, NAN], [4, 5]), equal_nan=True)
    assert len(dataset.unreadable) == 2


@pytest.mark.parametrize("key", ["@univariate false", "# nothing"])
def test_ts_dimensions_that_are_not_declared_are_those_of_most_lines(key: str, tmp_path: Path) -> None:
    path = tmp_path / "Mine.ts"
    path.write_text(f"{key}\n@classLabel true a\n@data\n1,2:a\n1,2:3:a\n1:4,5:a\n")
    dataset = read_ts(path)
    assert dataset.channels == 2
    assert [item.file for item in dataset.unreadable] == ["Mine.ts:4"]


def test_missing_values_behind_a_series_do_not_count_as_steps(tmp_path: Path) -> None:
    path = tmp_path / "Mine.ts"
    path.write_text(HEADER + "1,?,?,?,?:a\n1,2,?,?,?:a\n1,?,3,?,?:b\n")
    assert read_ts(path).size == (2,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,two,3:a", "wanted a number, found 'two'"),
        ("1,inf:a", "wanted a number, found 'inf'"),
        ("1,1e39:a", "wanted a number, found '1e39'"),
        ("1,2", "wanted 1 dimensions and a class, all separated by ':', found 0 ':'"),
        ("1:2:a", "wanted 1 dimensions and a class, all separated by ':', found 2 ':'"),
        ("1,2:c", "class 'c' is not among those of @classLabel"),
        ("1,2:", "class '' is not among those of @classLabel"),
        (":a", "no values"),
        ("?,NaN,?:a", "no values"),
    ],
)
def test_lines_that_are_no_cases_are_skipped_and_listed(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "Mine.ts"
    path.write_text(f"{HEADER}1:a\n{line}\n2:b\n")
    dataset = read_ts(path)
    assert [(item.file, item.reason) for item in dataset.unreadable] == [("Mine.ts:7", reason)]
    assert len(dataset.splits["train"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace("false", "true", 1), "found @timeStamps true; save the series at equal steps"),
        (
            HEADER.replace("true a b", "false"),
            "wanted a header line such as '@classLabel true a b', found @classLabel f",
        ),
        (HEADER.replace("true a b", "true"), "found @classLabel true; add the classes"),
        (HEADER.replace("@classLabel", "@targetLabel"), "found none; add the classes"),
        ("@dimensions two\n" + HEADER, "wanted a number after @dimensions, found 'two'"),
        ("@dimensions 0\n" + HEADER, "wanted a number after @dimensions, found '0'"),
        ("@dimensions\n" + HEADER, "wanted a number after @dimensions, found ''"),
        ("1,2,3:a\n" + HEADER, r":1: wanted a line of a \.ts header such as @data, found '1,2,3:a'"),
        (HEADER.replace("@data", ""), "wanted a line @data, found none: truncated"),
        ("", "wanted a line @data, found none: truncated"),
        (HEADER, "no series that can be read, of 0"),
        (HEADER + "x:a\ny:a\n", r"no series .* of 2; the first: Mine_TRAIN\.ts:6 \(wanted a number, found 'x'\)"),
    ],
)
def test_ts_files_that_cannot_be_used_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "Mine_TRAIN.ts"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_ts(path)
    assert str(caught.value).startswith(str(path))


def test_a_test_file_without_its_training_file_is_only_good_for_evaluating(tmp_path: Path) -> None:
    (tmp_path / "Mine_TEST.ts").write_text(HEADER + "1:a\n2:b\n")
    assert {name: len(split) for name, split in read_ts(tmp_path / "Mine_TEST.ts").splits.items()} == {"test": 2}
    with pytest.raises(DataError, match="no training split; found test"):
        load_dataset(tmp_path / "Mine_TEST.ts")


def test_ts_parts_of_different_dimensions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Mine_TRAIN.ts").write_text(HEADER + "1:a\n")
    (tmp_path / "Mine_TEST.ts").write_text("@dimensions 2\n" + HEADER + "1:2:a\n")
    with pytest.raises(DataError, match="same number of channels in all splits, found 1 in train, 2 in test"):
        read_ts(tmp_path / "Mine_TRAIN.ts")


def test_a_ts_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.ts: cannot be read: No such file"):
        read_ts(tmp_path / "gone.ts")


def test_problems_of_a_folder_are_found_once(tmp_path: Path) -> None:
    for name in ("A_TRAIN.ts", "A_TEST.ts", "B_TEST.ts", "c_train.ts", "c_test.ts", "D.ts", ".E.ts", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.ts").mkdir()
    assert [path.name for path in find_ts_problems(tmp_path)] == ["A_TRAIN.ts", "B_TEST.ts", "D.ts", "c_train.ts"]


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=60), head=st.sampled_from([b"", HEADER.encode()]))
def test_any_bytes_are_read_or_refused_as_ts(
    content: bytes, head: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "Any.ts"
    path.write_bytes(head + content)
    try:
        dataset = read_ts(path)
    except DataError:
        return
    assert len(dataset.splits["train"]) >= 1


# Recordings


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


def test_a_case_that_padding_would_blow_up_is_skipped(tmp_path: Path) -> None:
    long, short = ",".join(["1"] * 2000), ":".join(["2"] * 1999)
    even = ":".join(["1,2"] * 2000)
    header = "@problemName made\n@classLabel true a b\n@dimensions 2000\n@data\n"
    (tmp_path / "made.ts").write_text(f"{header}{long}:{short}:a\n{even}:b\n{even}:a\n")
    tracemalloc.start()
    try:
        cases, skipped = read_ts_file(tmp_path / "made.ts")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert [case.series.shape for case in cases] == [(2000, 2)] * 2
    reason = (
        "wanted dimensions of about one length, found 3,999 values in 2,000 dimensions, of which the longest has 2,000"
    )
    assert [(item.file, item.reason) for item in skipped] == [("made.ts:5", reason)]


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


# Number of steps


@settings(deadline=None, max_examples=150)
@given(old=st.integers(1, 60), new=st.integers(1, 60))
def test_resampling_is_that_of_scipy(old: int, new: int) -> None:
    series = noise(2, old)
    resampled = resample(series, new)
    assert resampled.dtype == np.float32
    assert np.allclose(resampled, signal.resample(series.astype(np.float64), new, axis=1), atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(old=st.integers(2, 300), new=st.integers(2, 300), slope=st.floats(-3, 3), start=st.floats(-100, 100))
def test_straight_lines_stay_straight_when_stretched(old: int, new: int, slope: float, start: float) -> None:
    line = series_of(np.linspace(start, start + slope, old).tolist())
    assert np.allclose(stretch(line, new), np.linspace(start, start + slope, new), atol=1e-4)


@settings(deadline=None, max_examples=100)
@given(old=st.integers(1, 60), new=st.integers(2, 90))
def test_stretching_keeps_ends_and_stays_in_range(old: int, new: int) -> None:
    series = noise(3, old)
    stretched = stretch(series, new)
    assert stretched.shape == (3, new)
    assert np.allclose(stretched[:, [0, -1]], series[:, [0, -1]])
    assert (stretched.max(axis=1) <= series.max(axis=1) + 1e-5).all()
    assert (stretched.min(axis=1) >= series.min(axis=1) - 1e-5).all()


def test_growing_series_are_interpolated() -> None:
    assert stretch(series_of([0, 2, 0], [1, 1, 5]), 5).tolist() == [[0, 1, 2, 1, 0], [1, 1, 1, 3, 5]]


def test_a_shrinking_series_loses_what_is_too_fast_and_keeps_what_is_slow() -> None:
    steps = np.arange(1001)
    # One step in ten remains: a period of 9 steps would fold into one of 90.
    fast = stretch(series_of(np.sin(2 * np.pi * steps / 9).tolist()), 101)[0, 1:-1]
    slow = stretch(series_of(np.sin(2 * np.pi * steps / 200).tolist()), 101)[0]
    assert np.abs(fast[1:-1]).max() < 0.2
    assert np.abs(slow - np.sin(2 * np.pi * steps[::10] / 200)).max() < 0.05


def test_one_step_is_the_mean() -> None:
    assert stretch(series_of([1, 2, 6], [0, 0, 0]), 1).tolist() == [[3], [0]]


@pytest.mark.parametrize(
    ("row", "filled"),
    [
        ([1, NAN, 3], [1, 2, 3]),
        ([1, NAN, NAN, NAN, 3], [1, 1.5, 2, 2.5, 3]),
        ([NAN, NAN, 4, 5, NAN], [4, 4, 4, 5, 5]),
        ([NAN, NAN], [0, 0]),
        ([1, 2], [1, 2]),
    ],
)
def test_missing_values_are_filled_in_each_channel(row: list[float], filled: list[float]) -> None:
    other = list(range(len(row)))
    series = series_of(row, other)
    before = series.copy()
    assert fill_missing(series).tolist() == [filled, other]
    assert np.array_equal(series, before, equal_nan=True)


@settings(deadline=None, max_examples=100)
@given(series=hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=CELLS))
def test_filling_leaves_no_gaps_and_changes_no_value(series: np.ndarray) -> None:
    filled = fill_missing(series)
    assert np.isfinite(filled).all()
    assert np.array_equal(filled[~np.isnan(series)], series[~np.isnan(series)])


def make_spec(channels: int, steps: int, fit: str) -> SeriesSpec:
    return SeriesSpec((channels, steps), (0.0,) * channels, (1.0,) * channels, fit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "fit", "expected"),
    [
        ([1, 2], "pad", [1, 2, NAN, NAN]),
        ([1, 2, 3, 4, 5, 6], "pad", [1, 2, 3, 4]),
        ([NAN, 1, NAN, 3, NAN, NAN, NAN], "pad", [1, 1, 2, 3]),
        ([1, NAN, 3, NAN, NAN], "pad", [1, 2, 3, NAN]),
        ([1, 4], "resample", [1, 2, 3, 4]),
        ([1, NAN, 7, NAN, NAN], "resample", [1, 3, 5, 7]),
        ([5], "resample", [5, 5, 5, 5]),
        ([5], "pad", [5, NAN, NAN, NAN]),
    ],
)
def test_series_are_fitted_to_the_steps_of_a_model(row: list[float], fit: str, expected: list[float]) -> None:
    fitted = fit_series(series_of(row), make_spec(1, 4, fit))
    assert fitted.dtype == np.float32
    assert np.allclose(fitted, [expected], equal_nan=True)


def test_steps_count_as_long_as_any_channel_has_a_value() -> None:
    series = series_of([1, NAN, NAN, NAN], [NAN, 2, 3, NAN])
    fitted = fit_series(series, make_spec(2, 4, "pad"))
    assert np.array_equal(fitted, series_of([1, 1, 1, NAN], [2, 2, 3, NAN]), equal_nan=True)
    assert count_steps(np.stack([series, np.full_like(series, NAN)])).tolist() == [3, 0]


@pytest.mark.parametrize("fit", ["pad", "resample"])
def test_series_that_do_not_fit_are_refused(fit: str) -> None:
    with pytest.raises(DataError, match="wanted a series of 2 channels, found 1"):
        fit_series(series_of([1, 2]), make_spec(2, 4, fit))
    for empty in (series_of([]), series_of([NAN, NAN])):
        with pytest.raises(DataError, match="no values"):
            fit_series(empty, make_spec(1, 4, fit))


@settings(deadline=None, max_examples=60)
@given(
    block=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.just(2), st.integers(1, 6)), elements=st.floats(-1e3, 1e3, width=32)
    )
)
def test_series_are_measured_in_double_precision_without_what_is_missing(block: np.ndarray) -> None:
    block[0, 1, 0] = NAN
    means, deviations = measure_series(block)
    for channel in range(2):
        values = block[:, channel].astype(np.float64)
        known = values[~np.isnan(values)]
        assert means[channel] == pytest.approx(known.mean() if known.size else 0, abs=1e-9)
        constant = known.size == 0 or np.ptp(known) == 0
        assert deviations[channel] == pytest.approx(1.0 if constant else known.std(), rel=1e-9)


def test_a_constant_channel_has_deviation_one_and_large_offsets_do_not_hurt() -> None:
    block = np.full((1000, 2, 50), 0.1, dtype=np.float32)
    block[:, 1] = 1e6 + np.tile([0, 1], 25)
    means, deviations = measure_series(block)
    assert means == pytest.approx((np.float32(0.1), 1e6 + 0.5), rel=1e-12)
    assert deviations == pytest.approx((1.0, 0.5), rel=1e-9)


# Tables


def make_table(columns: Mapping[str, Sequence[Any]]) -> Table:
    return Table(Path("mine.csv"), columns, range(2, 2 + len(next(iter(columns.values())))))


def as_lists(series: Sequence[np.ndarray | str]) -> list[Any]:
    return [values if isinstance(values, str) else values.tolist() for values in series]


def test_rows_of_a_wide_table_are_series() -> None:
    table = make_table(
        {
            "label": ["x"] * 6,
            "t0": ["1", "", "4", "?", "1", "-inf"],
            "t1": ["2.5", "2", " 5 ", "  ", "abc", "1"],
            "t2": ["-3e2", "", "?", "NaN", "x", "1"],
        }
    )
    series = wide_series(table, ["t0", "t1", "t2"])
    assert np.array_equal(series[1], series_of([NAN, 2]), equal_nan=True)
    expected = [[[1, 2.5, -300]], [[4, 5]], "no values", "column t1: wanted a number, found 'abc'"]
    assert as_lists([series[0], *series[2:5]]) == expected
    assert series[5] == "column t0: wanted a number, found '-inf'"


def test_long_cells_are_cut_in_messages() -> None:
    series = wide_series(make_table({"t": ["x" * 500, list(range(500))]}), ["t"])
    assert all(len(str(found)) < 90 and str(found).endswith("…") for found in series)


def test_cells_of_any_type_are_numbers_missing_or_refused() -> None:
    cells = [1, None, 2.5, NAN, True, [1], {"a": 1}, 10**400, 1e39, date(2024, 1, 1), "7"]
    series = wide_series(make_table({"t": cells}), ["t"])
    assert as_lists(series[:5]) == [[[1]], "no values", [[2.5]], "no values", [[1]]]
    assert all(isinstance(found, str) and "column t: wanted a number, found " in found for found in series[5:10])
    assert as_lists(series[10:]) == [[[7]]]


TIMES: tuple[Callable[[int], object], ...] = (
    str,
    int,
    lambda step: f"2024-01-01T00:00:{step:02}Z",
    lambda step: f"step {step}",
)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_long_tables_are_gathered_whatever_the_order_of_their_rows(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    truth = {f"s{owner}": noise(2, length) for owner, length in enumerate(lengths)}
    rows = [(owner, step) for owner, series in truth.items() for step in range(series.shape[1])]
    rows = data.draw(st.permutations(rows))
    write = data.draw(st.sampled_from(TIMES))
    table = make_table(
        {
            "id": [owner for owner, _ in rows],
            "at": [write(step) for _, step in rows],
            "y": [repr(float(truth[owner][1, step])) for owner, step in rows],
            "x": [float(truth[owner][0, step]) for owner, step in rows],
        }
    )
    gathered, firsts = long_series(table, "id", "at", ["x", "y"])
    owners = list(dict.fromkeys(owner for owner, _ in rows))
    assert [rows[first][0] for first in firsts] == owners
    assert firsts == [next(place for place, row in enumerate(rows) if row[0] == owner) for owner in owners]
    for owner, series in zip(owners, gathered, strict=True):
        assert isinstance(series, np.ndarray)
        assert np.array_equal(series, truth[owner])


def gather(time: Sequence[Any] | None, values: Sequence[Any], ids: Sequence[Any] | None = None) -> list[Any]:
    columns = {"id": ids or ["s"] * len(values), "v": values, "t": time or [None] * len(values)}
    return as_lists(long_series(make_table(columns), "id", "t" if time else None, ["v"])[0])


@pytest.mark.parametrize(
    ("time", "order"),
    [
        (["10", "9", "1e1.5", "11"], "column t, line 4: wanted a number, found '1e1.5'"),
        (["10", "9", "", "11"], "column t, line 4: wanted a number, found ''"),
        (["10", "9", "-1", "1.5"], [[3, 4, 2, 1]]),
        (["2024-01-10", "2024-01-09T23:00", "2023-12-31", "2024-01-10T01:00+03:00"], [[3, 4, 2, 1]]),
        ([datetime(2024, 1, 1, 1), datetime(2024, 1, 1), datetime(2023, 1, 1), date(2022, 1, 1)], [[4, 3, 2, 1]]),
        (["2024-01-10", "soon", "2023-12-31", "2024-01-11"], "column t, line 3: wanted a date, found 'soon'"),
        (["b", "a", "c", "B"], [[4, 2, 1, 3]]),
        (["b", "a", None, "B"], "column t, line 4: wanted a time, found None"),
        (["", "2", "1", "3"], "column t, line 2: wanted a number, found ''"),
        (["", "", "", ""], "column t, line 2: wanted a number, found ''"),
        (["2", "1", "1.0", "3"], "column t, line 4: '1.0' a second time"),
        (["2024-01-01", "2024-01-01T00:00Z", "2", "3"], "column t, line 4: wanted a date, found '2'"),
        (["1700000000001", "1700000000000", "1700000000003", "1700000000002"], [[2, 1, 4, 3]]),
        (None, [[1, 2, 3, 4]]),
    ],
)
def test_rows_are_ordered_by_numbers_dates_or_texts(time: list[Any] | None, order: Any) -> None:
    assert gather(time, ["1", "2", "3", "4"]) == [order]


def test_what_is_wrong_with_one_series_does_not_harm_the_others() -> None:
    ids = ["a", "b", " ", "c", "a", None, "b", "c", "d", "d", "e", "e"]
    time = [1, 1, 1, 1, 2, 1, 2, 1, 1, 2, 1, 2]
    values = ["1", "x", "3", "4", "", "6", "y", "8", "", "?", "", "7"]
    gathered = gather(time, values, ids)
    assert gathered[:4] == [
        [[1]],
        "column v, line 3: wanted a number, found 'x'",
        "column id: no name of a series",
        "column t, line 9: 1 a second time",
    ]
    assert gathered[4] == "no values"
    assert np.array_equal(gathered[5], [[NAN, 7]], equal_nan=True)


def test_long_tables_keep_values_missing_inside() -> None:
    (series,) = gather([3, 1, 2], ["5", "1", "NaN"])
    assert np.array_equal(series, [[1, NAN, 5]], equal_nan=True)
