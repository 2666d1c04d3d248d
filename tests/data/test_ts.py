from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data.dataset import hash_bytes
from falconet.data.sources import load_dataset
from falconet.data.ts import find_ts_problems, read_ts, read_ts_file
from falconet.errors import DataError
from tests.data.builders import series_of

CELLS = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.just(math.nan)
HEADER = "@problemName Mine\n@timeStamps false\n@univariate true\n@classLabel true a b\n@data\n"


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
    assert np.array_equal(
        dataset.splits["train"].samples.read(0), series_of([math.nan, math.nan], [4, 5]), equal_nan=True
    )
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
