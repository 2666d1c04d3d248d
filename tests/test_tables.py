"""Rows to CSV, JSON lines and Parquet, and back."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from falconet.errors import ConfigError, DataError, MissingExtraError
from falconet.tables import _FORMATS, Table, _write_table, check_table_path, iterate_table, read_table, write_rows

ROWS: list[dict[str, Any]] = [
    {"file": "a,b.png", "label": "naïve", "probability": 0.5, "top": [{"label": "naïve", "probability": 0.5}]},
    {"file": 'say "hi".png', "label": "two\nlines", "probability": 0.25, "top": []},
]


# Any characters that UTF-8 can hold, with those that mean something to CSV often among them.
CELLS = st.text(st.one_of(st.sampled_from('",;\t|\r\n ab'), st.characters(codec="utf-8")), max_size=6)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), CELLS)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_jsonl_keeps_all(tmp_path: Path) -> None:
    _write_table(tmp_path / "t.jsonl", ROWS)
    assert read_jsonl(tmp_path / "t.jsonl") == ROWS


def test_parquet_keeps_all(tmp_path: Path) -> None:
    _write_table(tmp_path / "t.parquet", ROWS)
    assert pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist() == ROWS


def test_csv_keeps_scalars_as_text_and_nested_values_as_json(tmp_path: Path) -> None:
    _write_table(tmp_path / "t.csv", ROWS)
    found = read_csv(tmp_path / "t.csv")
    assert [row["file"] for row in found] == ["a,b.png", 'say "hi".png']
    assert [row["label"] for row in found] == ["naïve", "two\nlines"]
    assert [float(row["probability"]) for row in found] == [0.5, 0.25]
    assert [json.loads(row["top"]) for row in found] == [row["top"] for row in ROWS]


@pytest.mark.parametrize("nested", [[1, 2], (1, 2), {"a": [1]}])
def test_csv_writes_any_nested_value_as_json(tmp_path: Path, nested: Any) -> None:
    _write_table(tmp_path / "t.csv", [{"value": nested}])
    assert read_csv(tmp_path / "t.csv") == [{"value": json.dumps(nested)}]


def test_csv_columns_go_by_key_not_by_place(tmp_path: Path) -> None:
    _write_table(tmp_path / "t.csv", [{"a": 1, "b": 2}, {"b": 4, "a": 3}])
    assert read_csv(tmp_path / "t.csv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize("suffix", _FORMATS)
def test_no_rows_make_a_file_all_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    _write_table(path, [])
    assert path.is_file()
    if suffix == ".parquet":
        assert pyarrow.parquet.read_table(path).num_rows == 0
    else:
        assert path.read_bytes() == b""


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.csv.gz"])
def test_unknown_extension(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"wanted .* \.csv, \.jsonl, \.parquet, found .*{name}"):
        _write_table(tmp_path / name, ROWS)
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow_names_the_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"t\.parquet needs .* pip install 'falconet\[tables\]'"):
        check_table_path(tmp_path / "t.parquet")
    check_table_path(tmp_path / "t.csv")


def make_file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_content(content: str | bytes, suffix: str = ".csv") -> Table:
    with tempfile.TemporaryDirectory() as folder:
        return read_table(make_file(Path(folder) / f"t{suffix}", content))


def to_csv(rows: Sequence[Sequence[str]], **options: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(rows)
    return text.getvalue()


def to_lists(table: Table) -> dict[str, list[Any]]:
    return {name: list(cells) for name, cells in table.columns.items()}


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    suffix=st.sampled_from([".csv", ".tsv", ".CSV"]),
)
def test_csv_is_read_as_it_was_written(
    rows: list[tuple[str, ...]], delimiter: str, end: str, encoding: str, suffix: str
) -> None:
    # A first row of which a column holds a cell again is taken for data, not for names.
    assume(not any(cell.strip() in {"a", "b,;", "c d"} for row in rows for cell in row))
    written = to_csv([("a", "b,;", "c d"), *rows], delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    table = read_content(written.encode(encoding), suffix)
    assert to_lists(table) == dict(zip(["a", "b,;", "c d"], map(list, zip(*rows, strict=True)), strict=True))
    assert table.damaged == ()


@settings(deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_lines_are_those_at_which_rows_begin(rows: list[tuple[str, str]]) -> None:
    written = to_csv([("one", "two"), *rows], quoting=csv.QUOTE_ALL, lineterminator="\n")
    table = read_content(written)
    # The csv module counts the same way as it reads.
    reader = csv.reader(io.StringIO(written, newline=""))
    ends = [reader.line_num for _ in reader]
    assert list(table.lines) == [end + 1 for end in ends[:-1]]


@settings(deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({"a": SCALARS}, optional={"b": SCALARS, "ü": SCALARS}), min_size=1, max_size=8)
)
def test_jsonl_is_read_as_it_was_written(rows: list[dict[str, Any]]) -> None:
    for ascii_only in (True, False):
        table = read_content("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), ".jsonl")
        assert to_lists(table) == {key: [row.get(key) for row in rows] for key in table.columns}
        assert set(table.columns) == {key for row in rows for key in row}
        assert list(table.lines) == list(range(1, len(rows) + 1))


@settings(deadline=None)
@given(
    numbers=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=3, max_size=3),
    texts=st.lists(st.one_of(st.none(), CELLS), min_size=3, max_size=3),
)
def test_parquet_is_read_as_it_was_written(numbers: list[int | None], texts: list[str | None]) -> None:
    images = [{"bytes": b"x", "path": None}, None, {"bytes": None, "path": "b.png"}]
    columns = {"number": numbers, "text": texts, "image": images, "list": [[1], [], None], "struct": [{"x": 1}] * 3}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    table = read_content(buffer.getvalue(), ".parquet")
    assert to_lists(table) == {"number": numbers, "text": texts, "image": images}
    assert list(table.lines) == [1, 2, 3]


@settings(deadline=None)
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_no_content_raises_anything_but_a_data_error(content: bytes, suffix: str) -> None:
    try:
        table = read_content(content, suffix)
    except DataError:
        return
    assert {len(cells) for cells in table.columns.values()} == {len(table.lines)}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = [{"name": 'naïve, "x"', "number": 1}, {"name": "two\nlines", "number": 2}]
    for suffix in _FORMATS:
        _write_table(tmp_path / f"t{suffix}", rows)
        table = read_table(tmp_path / f"t{suffix}")
        assert list(table.columns["name"]) == [row["name"] for row in rows]
        assert [int(number) for number in table.columns["number"]] == [1, 2]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,b;c", ["a", "b;c"]),
        ("a;b;c,d", ["a", "b", "c,d"]),
        ("a|b", ["a", "b"]),
        ('"a,b,c";d', ["a,b,c", "d"]),
        ("a , b", ["a", "b"]),
        ("only", ["only"]),
    ],
)
def test_header_tells_the_delimiter(header: str, names: list[str]) -> None:
    delimiter = "|" if "|" in header else ";" if len(names) == 3 or '"' in header else ","
    table = read_content(f"{header}\n{delimiter.join(['x'] * len(names))}\n")
    assert list(table.columns) == names


def test_tab_wins_in_tsv_where_both_occur_once() -> None:
    assert list(read_content("a, or b\tc\n1\t2\n", ".tsv").columns) == ["a, or b", "c"]


def test_rows_of_another_width_are_damaged() -> None:
    table = read_content('a,b\n1,2\n3\n\n4,5,6\n"x\ny",2,3\n7,8\n')
    assert to_lists(table) == {"a": ["1", "7"], "b": ["2", "8"]}
    assert table.lines == [2, 8]
    assert table.damaged == (
        (3, "wanted 2 cells, found 1"),
        (5, "wanted 2 cells, found 3"),
        (6, "wanted 2 cells, found 3 in 2 lines"),
    )


def test_quote_that_is_never_closed_costs_its_own_line_only() -> None:
    table = read_content('a,b\n1,2\n3,"four\n5,6\n7,8\n')
    assert to_lists(table) == {"a": ["1", "5", "7"], "b": ["2", "6", "8"]}
    assert table.lines == [2, 4, 5]
    assert table.damaged == ((3, "a quote is never closed"),)


def test_many_quotes_that_are_never_closed_do_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.tables.REREAD_LIMIT", 100)
    with pytest.raises(DataError, match=r"too many quotes that are never closed, the last in line \d+"):
        read_content("a,b\n" + 'x",y,"z\n' * 100)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_invalid_utf8_damages_its_row_only(suffix: str) -> None:
    rows = {
        ".csv": b'a,b\nna\xc3\xafve,1\nna\xefve,2\n"two\n\xff",3\nlast,4\n',
        ".jsonl": b'{"a": "na\xc3\xafve", "b": "1"}\n{"a": "\xef"}\n{"a": "\xff"}\n\n{"a": "last", "b": "4"}\n',
    }
    table = read_content(rows[suffix], suffix)
    assert to_lists(table) == {"a": ["naïve", "last"], "b": ["1", "4"]}
    assert [reason for _, reason in table.damaged] == ["invalid UTF-8"] * 2
    assert [line for line, _ in table.damaged] == ([3, 4] if suffix == ".csv" else [2, 3])
    assert table.lines == ([2, 6] if suffix == ".csv" else [1, 5])


def test_broken_json_lines_are_damaged() -> None:
    lines = ['{"a": 1}', '{"a": ', "[1]", "7", '{"a": "\\ud800"}', "[" * 100_000, '{"a": "\\ud83d\\ude00"}']
    table = read_content("\r\n".join(lines), ".jsonl")
    assert to_lists(table) == {"a": [1, "😀"]}
    assert [line for line, _ in table.damaged] == [2, 3, 4, 5, 6]
    reasons = [reason for _, reason in table.damaged]
    assert reasons[0].startswith("broken JSON: Expecting value at column")
    assert reasons[1:4] == ["wanted a JSON object, found list", "wanted a JSON object, found int", "invalid Unicode"]
    assert reasons[4].startswith("broken JSON")


def test_keys_that_all_differ_are_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falconet.tables.KEY_LIMIT", 10)
    with pytest.raises(DataError, match="more than 10 different keys"):
        read_content("".join(f'{{"key{index}": 1}}\n' for index in range(11)), ".jsonl")


def test_nul_bytes_are_read() -> None:
    assert to_lists(read_content("a,b\nx\0y,z\n")) == {"a": ["x\0y"], "b": ["z"]}


def test_huge_cells_are_read_and_the_limit_of_the_module_stays() -> None:
    before = csv.field_size_limit(100)
    table = read_content(f"a,b\n{'x' * 300_000},y\n")
    assert len(table.columns["a"][0]) == 300_000
    assert csv.field_size_limit(before) == 100


def test_a_first_row_of_numbers_is_no_header() -> None:
    table = read_content("1\t0.5\tNaN\n2\t-1e3\t4\n", ".tsv")
    assert to_lists(table) == {"1": ["1", "2"], "2": ["0.5", "-1e3"], "3": ["NaN", "4"]}
    assert table.lines == [1, 2]


@pytest.mark.parametrize("header", ["0,1,2", "1,2,3"])
def test_counted_columns_are_a_header(header: str) -> None:
    table = read_content(f"{header}\n5,6,7\n")
    assert to_lists(table) == dict(zip(header.split(","), [["5"], ["6"], ["7"]], strict=True))


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        ("", ".csv", "empty; wanted a header"),
        ("\n\r\n", ".tsv", "empty; wanted a header"),
        ("", ".jsonl", "empty; wanted a JSON object"),
        ("", ".parquet", "damaged, or no Parquet"),
        ("a,b\n", ".csv", "a header and nothing below; wanted rows"),
        ("a,b\n1\n", ".csv", r"no rows that can be read, of 1; the first: line 2 \(wanted 2 cells, found 1\)"),
        ("[\n{}\n]\n", ".jsonl", "no rows that can be read, of 2; the first: line 1"),
        ("a,b,a\n1,2,3\n", ".csv", "wanted different column names, found 'a' more than once"),
        (b"a,\x81\n1,2\n", ".csv", "header in line 1: invalid UTF-8"),
        ('a,"b\n1,2\n', ".csv", "header in line 1: a quote is never closed"),
        (b"\xff\xfea\0,\0b", ".csv", "invalid UTF-16"),
        (b"PAR1 but nothing more PAR1", ".parquet", "damaged, or no Parquet"),
    ],
)
def test_files_that_are_no_tables(content: str | bytes, suffix: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_content(content, suffix)
    assert "\n" not in str(caught.value)


def test_truncated_parquet(tmp_path: Path) -> None:
    _write_table(tmp_path / "t.parquet", [{"a": "x" * 100, "b": 1}] * 100)
    whole = (tmp_path / "t.parquet").read_bytes()
    for kept in (3, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DataError, match=r"t\.parquet: damaged, or no Parquet"):
            read_table(make_file(tmp_path / "t.parquet", whole[:kept]))


def test_parquet_without_rows_or_with_repeated_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(DataError, match="a header and nothing below; wanted rows"):
        read_table(path)
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], ["a", "a"]), path)
    with pytest.raises(DataError, match="'a' more than once"):
        read_table(path)


def test_parquet_dates_and_a_folder_that_looks_like_a_partition(tmp_path: Path) -> None:
    folder = tmp_path / "year=2020"
    folder.mkdir()
    day = datetime.date(2020, 1, 2)
    pyarrow.parquet.write_table(pyarrow.table({"day": [day], "a.b": [1], "a": [2]}), folder / "t.parquet")
    assert to_lists(read_table(folder / "t.parquet")) == {"day": [day], "a.b": [1], "a": [2]}


def test_reading_parquet_without_pyarrow_names_the_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"reading .*t\.parquet needs .* pip install 'falconet\[tables\]'"):
        read_table(make_file(tmp_path / "t.parquet", b""))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"wanted .* \.csv, \.tsv, \.jsonl, \.parquet, found .*t\.xlsx"):
        read_table(tmp_path / "t.xlsx")
    for suffix in (".csv", ".jsonl", ".parquet"):
        with pytest.raises(DataError, match="cannot be read: No such file"):
            read_table(tmp_path / f"t{suffix}")


@pytest.mark.slow
def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    rows = "".join(f'{index},"this is, the text number {index}",class{index % 77}\n' for index in range(1_000_000))
    path = make_file(tmp_path / "t.csv", f"id,text,label\n{rows}")
    # In a process of its own, since the checks of types in tests take longer than the reading.
    script = """if True:
        import pathlib, sys, time
        from falconet.tables import read_table
        begin = time.process_time()
        table = read_table(pathlib.Path(sys.argv[1]))
        print(time.process_time() - begin, len(table.lines), table.columns["text"][-1])
    """
    found = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout
    seconds, count, last = found.strip().split(" ", 2)
    assert float(seconds) < 10
    assert (count, last) == ("1000000", "this is, the text number 999999")


@pytest.mark.slow
def test_reading_takes_little_more_memory_than_the_cells(tmp_path: Path) -> None:
    path = make_file(tmp_path / "t.csv", "a,b\n" + f"{'x' * 100},{'y' * 100}\n" * 60_000)
    tracemalloc.start()
    table = read_table(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.lines) == 60_000
    assert peak < 1.3 * held


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "exported.csv"
    path.write_text(",text,label,\n0,good,1,\n1,bad,0,\n", encoding="utf-8")
    table = read_table(path)
    assert dict(table.columns) == {"text": ["good", "bad"], "label": ["1", "0"]}


def test_columns_of_json_lines_stand_in_order_of_appearance(tmp_path: Path) -> None:
    names = [f"step {number}" for number in range(40)]
    path = tmp_path / "wide.jsonl"
    path.write_text(json.dumps(dict.fromkeys(names, 1)) + "\n" + json.dumps({"late": 2}), encoding="utf-8")
    assert list(read_table(path).columns) == [*names, "late"]


@pytest.mark.parametrize(
    ("content", "names", "lines"),
    [
        ("good film,pos\nbad film,neg\nfine film,pos\npoor film,neg\n", ["1", "2"], [1, 2, 3, 4]),
        ("0,2,3,a\n1,3,3,b\n2,2,3,a\n3,3,3,b\n", ["1", "2", "3", "4"], [1, 2, 3, 4]),
        ("country,2010,2011\nA,1,2\nB,3,4\nC,1,2\n", ["country", "2010", "2011"], [2, 3, 4]),
        ("n,label\n1,x\n2,y\n3,x\n4,y\n", ["n", "label"], [2, 3, 4, 5]),
    ],
)
def test_rows_tell_whether_there_is_a_header(content: str, names: list[str], lines: list[int]) -> None:
    table = read_content(content)
    assert (list(table.columns), list(table.lines)) == (names, lines)
    assert table.counted == (names[0] == "1") == bool(table.notes)


def test_header_may_be_set(tmp_path: Path) -> None:
    path = make_file(tmp_path / "t.csv", "1.5,0.5\n2,3\n")
    assert list(read_table(path, header=True).columns) == ["1.5", "0.5"]
    assert to_lists(read_table(path, header=False)) == {"1": ["1.5", "2"], "2": ["0.5", "3"]}


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        ("text;label\ncafé;x\n".encode("cp1252"), ".csv"),
        ("text;label\ncafé;x\n".encode("utf-16-le"), ".csv"),
        ("text;label\ncafé;x\n".encode("utf-16-be"), ".CSV"),
        ("sep=;\ntext;label\ncafé;x\n", ".csv"),
        ("# one\n# two, three\ntext,label\ncafé,x\n", ".csv"),
        ("#text,label\ncafé,x\n", ".csv"),
        ("text   label\ncafé  x\n", ".data"),
        ("text\tlabel\ncafé\tx\n", ""),
    ],
)
def test_tables_of_other_programs(content: str | bytes, suffix: str) -> None:
    assert to_lists(read_content(content, suffix)) == {"text": ["café"], "label": ["x"]}


def test_quote_that_another_cell_closes_merges_no_rows() -> None:
    table = read_content('text,label\n"bad film,neg\nok,pos\n"good film",pos\nfine,neg\n')
    assert table.columns["text"] == ["ok", "good film", "fine"]
    assert table.damaged == ((2, "a quote is never closed"),)


def test_what_becomes_too_large_is_refused(tmp_path: Path) -> None:
    rows = "".join(f'{{"k{index}": 1}}\n' for index in range(200))
    for path in (make_file(tmp_path / "t.csv", "a,b\n" + "1,2\n" * 200), make_file(tmp_path / "t.jsonl", rows)):
        with pytest.raises(DataError, match=r"wanted at most 9,000 bytes in memory, .* or set data\.max_bytes=18000"):
            read_table(path, max_bytes=9_000)
    same = pyarrow.table({"a": pyarrow.array(["x" * 1000] * 10_000), "n": [1] * 10_000})
    pyarrow.parquet.write_table(same, tmp_path / "t.parquet")
    assert len({id(cell) for cell in read_table(tmp_path / "t.parquet").columns["a"]}) == 1
    with pytest.raises(DataError, match="wanted at most 200,000 bytes in memory"):
        read_table(tmp_path / "t.parquet", max_bytes=200_000)


def test_a_small_parquet_that_unpacks_to_far_more_is_refused_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falconet.tables._FREE_BYTES", 1 << 16)
    table = pyarrow.table({"text": ["x" * (1 << 20), "y"], "label": ["a", "b"]})
    for compression in ("zstd", "brotli"):
        pyarrow.parquet.write_table(table, tmp_path / "t.parquet", compression=compression)
        with pytest.raises(DataError, match=r"at most 65,536 bytes, .* found 1,048,\d+ in \d+ bytes"):
            read_table(tmp_path / "t.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", compression="none")
    assert list(read_table(tmp_path / "t.parquet").columns["label"]) == ["a", "b"]


def test_a_small_parquet_of_far_more_rows_is_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falconet.tables.FREE_ROWS", 1000)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"] * 100_000}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"at most 1,000 rows, and 16 for each .* found 100,000 in \d+ bytes"):
        read_table(tmp_path / "t.parquet")
    different = pyarrow.table({"text": [f"{index}" for index in range(100_000)]})
    pyarrow.parquet.write_table(different, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").columns["text"][-1] == "99999"


def test_bytes_in_parquet_are_text_where_they_are_utf8(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": ["é".encode(), b"\xff", None]}), tmp_path / "t.parquet")
    assert to_lists(read_table(tmp_path / "t.parquet")) == {"a": ["é", b"\xff", None]}


@pytest.mark.parametrize("text", ['[{"a": 1},\n{"a": 2}]\n', '[\n{"a": 1},\n'])
def test_an_array_is_no_json_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"line 1 \(an array over several lines; wanted a JSON object a line\)"):
        read_table(tmp_path / "t.jsonl")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_many_short_rows_count_as_what_they_become(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    _write_table(path, [{"a": "x"}] * 1000)
    assert len(read_table(path, max_bytes=250_000).lines) == 1000
    with pytest.raises(DataError, match="wanted at most 130,000 bytes in memory"):
        read_table(path, max_bytes=130_000)


def test_a_group_of_long_cells_counts_as_often_as_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    _write_table(path, [{"a": "x" * 100_000}, {"a": "y"}])
    assert len(read_table(path, max_bytes=600_000).lines) == 2
    with pytest.raises(DataError, match="wanted at most 450,000 bytes in memory"):
        read_table(path, max_bytes=450_000)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"])
def test_wide_encodings_with_and_without_mark(encoding: str, suffix: str, tmp_path: Path) -> None:
    text = "text,label\nnaïve,a\nplain,b\n" if suffix == ".csv" else '{"text": "naïve"}\n{"text": "plain"}\n'
    (tmp_path / f"t{suffix}").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / f"t{suffix}").columns["text"] == ["naïve", "plain"]


def test_mark_of_utf_32_big_endian(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufefftext,label\nx,a\n".encode("utf-32-be"))
    assert dict(read_table(tmp_path / "t.csv").columns) == {"text": ["x"], "label": ["a"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"+/v8-text,label\nx,a\n", "UTF-7; save the table as UTF-8"),
        ("text,label\nx,a\n".encode("utf-32")[:-1], "invalid UTF-32; save the table as UTF-8"),
        (b"a\0b,c\0\nx,y\n", "NUL characters in its header"),
        (b"PK\x03\x04" + bytes(26) + b"xl/workbook.xml", "a workbook of Excel; save the sheet as CSV"),
        (b"PK\x03\x04" + bytes(26) + b"a.csv", "a ZIP archive; unpack it"),
        (b"\x1f\x8b\x08" + bytes(20), "a gzip file; unpack it"),
        (b"PAR1\x15\x04", "a Parquet file; let its name end in .parquet"),
        (b"\n<!DOCTYPE html>\n<p>", "a web page; download the table itself"),
        (b" ,\n,\n", "wanted the columns' names in line 1, found blanks alone"),
    ],
)
def test_what_is_no_table_is_called_by_its_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t.csv")
    assert message in str(caught.value)


def test_rare_zeros_are_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "long enough a text,a\n" * 9 + "ni\0ce,b\n")
    table = read_table(tmp_path / "t.csv")
    assert table.columns["text"][-1] == "ni\0ce"
    assert [note[:14] for note in table.notes] == ["NUL characters"]


def test_a_header_that_stands_again_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text, label\nx,a\n\ufefftext,label\ny,b\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    assert dict(table.columns) == {"text": ["x", "y"], "label": ["a", "b"]}
    assert (list(table.lines), table.damaged) == ([2, 4], ((3, "the header once more"),))


@pytest.mark.parametrize("header", ["text,label", "'text','label'"])
def test_apostrophes_quote_where_they_stand_around_whole_columns(header: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\n'great, it''s','good'\n'poor, no','bad'\n")
    table = read_table(tmp_path / "t.csv")
    assert dict(table.columns) == {"text": ["great, it's", "poor, no"], "label": ["good", "bad"]}


def test_apostrophes_that_begin_few_cells_are_letters(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n'tis good,a\n'quoted',b\nplain,b\n")
    assert read_table(tmp_path / "t.csv").columns["text"] == ["'tis good", "'quoted'", "plain"]
    (tmp_path / "t.csv").write_text("text,label\n'a',a\n'b',b\n'c',a\nplain,b\n")
    table = read_table(tmp_path / "t.csv")
    assert table.columns["text"] == ["'a'", "'b'", "'c'", "plain"]
    assert [note[:20] for note in table.notes] == ["apostrophes are take"]


def test_nested_columns_of_parquet_are_named_where_they_are_left_out(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["x"], "box": [[1, 2]], "facts": [{"y": 1}]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").notes == ("left out, since their cells are lists or records: box, facts",)


PARTED = {
    "a.csv": "text,n\n" + "".join(f"row {index},{index}\n" for index in range(10)) + "text,n\nlast,1\nbroken\n",
    "b.csv": "".join(f"{index},{index * index}.5\n" for index in range(10)),
    "c.tsv": "a\tb\n" + '"two\nlines"\t3\n' * 9,
    "d.jsonl": "".join(f'{{"a": {index}, "b": "x"}}\n' for index in range(10)) + "broken\n",
}


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("name", [*PARTED, "e.parquet"])
def test_parts_make_up_the_whole(tmp_path: Path, name: str, rows: int) -> None:
    path = tmp_path / name
    if name == "e.parquet":
        table = pyarrow.table({"a": ["x", "y", None] * 4, "b": list(range(12))})
        pyarrow.parquet.write_table(table, path, row_group_size=5)
    else:
        make_file(path, PARTED[name])
    whole, parts = read_table(path), list(iterate_table(path, rows=rows))
    assert all(len(part.lines) + len(part.damaged) <= rows + 1 for part in parts)
    assert [line for part in parts for line in part.lines] == list(whole.lines)
    assert [item for part in parts for item in part.damaged] == list(whole.damaged)
    for column, cells in whole.columns.items():
        assert [cell for part in parts for cell in part.columns.get(column, ())] == list(cells)
    assert {part.counted for part in parts} == {whole.counted}


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        ("", ".csv", "empty"),
        ("a,b\n", ".csv", "a header and nothing below"),
        ("a,b\n1\n", ".csv", r"no rows that can be read; the first: line 2 \(wanted 2 cells, found 1\)"),
        ("\n", ".jsonl", "empty; wanted a JSON object a line"),
        ("PAR1", ".parquet", "damaged, or no Parquet"),
    ],
)
def test_parts_of_nothing(tmp_path: Path, content: str, suffix: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(iterate_table(make_file(tmp_path / f"t{suffix}", content)))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", pytest.param(".jsonl", marks=pytest.mark.full), ".parquet"])
def test_parts_of_a_large_table_take_little_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    line = "some words of a text that is neither short nor long"
    if suffix == ".parquet":
        texts = [f"{line} {index}" for index in range(60_000)]
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=1000)
    else:
        row = f'{{"text": "{line}"}}\n' if suffix == ".jsonl" else f"{line},1\n"
        make_file(path, ("" if suffix == ".jsonl" else "text,n\n") + row * 60_000)
    tracemalloc.start()
    count = sum(len(part.lines) for part in iterate_table(path, rows=500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 60_000
    # Held at once, the cells would take 60,000 times 100 bytes and more; of the file, a million characters are held.
    assert peak < 5_000_000


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = make_file(tmp_path / "t.csv", 'text,n\n"open' + "x,1\n" * 2000)
    with pytest.raises(DataError, match="wanted at most 4,000 bytes in memory"):
        list(iterate_table(path, max_bytes=4000, rows=10))


def write_and_fail(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with write_rows(path) as write:
        write(rows)
        raise ZeroDivisionError


@pytest.mark.parametrize("suffix", _FORMATS)
def test_rows_written_in_parts(tmp_path: Path, suffix: str) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"parts{suffix}"
    rows = [{**ROWS[0], "probability": index / 8} for index in range(5)]
    _write_table(whole, rows)
    with write_rows(path) as write:
        for part in ([], rows[:2], rows[2:3], [], rows[3:]):
            write(part)
        assert not path.exists()
    if suffix == ".parquet":
        assert pyarrow.parquet.read_table(path).to_pylist() == rows
    else:
        assert path.read_bytes() == whole.read_bytes()
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_and_fail(path, rows)
    assert path.read_bytes() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == [path.name, whole.name]
