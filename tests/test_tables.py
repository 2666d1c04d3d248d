"""Rows to CSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from falconet.errors import ConfigError, MissingExtraError
from falconet.tables import FORMATS, check_table_path, write_table

ROWS: list[dict[str, Any]] = [
    {"file": "a,b.png", "label": "naïve", "probability": 0.5, "top": [{"label": "naïve", "probability": 0.5}]},
    {"file": 'say "hi".png', "label": "two\nlines", "probability": 0.25, "top": []},
]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_jsonl_keeps_all(tmp_path: Path) -> None:
    write_table(tmp_path / "t.jsonl", ROWS)
    assert read_jsonl(tmp_path / "t.jsonl") == ROWS


def test_parquet_keeps_all(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", ROWS)
    assert pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist() == ROWS


def test_csv_keeps_scalars_as_text_and_nested_values_as_json(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ROWS)
    found = read_csv(tmp_path / "t.csv")
    assert [row["file"] for row in found] == ["a,b.png", 'say "hi".png']
    assert [row["label"] for row in found] == ["naïve", "two\nlines"]
    assert [float(row["probability"]) for row in found] == [0.5, 0.25]
    assert [json.loads(row["top"]) for row in found] == [row["top"] for row in ROWS]


@pytest.mark.parametrize("nested", [[1, 2], (1, 2), {"a": [1]}])
def test_csv_writes_any_nested_value_as_json(tmp_path: Path, nested: Any) -> None:
    write_table(tmp_path / "t.csv", [{"value": nested}])
    assert read_csv(tmp_path / "t.csv") == [{"value": json.dumps(nested)}]


def test_csv_columns_go_by_key_not_by_place(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"a": 1, "b": 2}, {"b": 4, "a": 3}])
    assert read_csv(tmp_path / "t.csv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_rows_make_a_file_all_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    write_table(path, [])
    assert path.is_file()
    if suffix == ".parquet":
        assert pyarrow.parquet.read_table(path).num_rows == 0
    else:
        assert path.read_bytes() == b""


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.csv.gz"])
def test_unknown_extension(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"wanted .* \.csv, \.jsonl, \.parquet, found .*{name}"):
        write_table(tmp_path / name, ROWS)
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow_names_the_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"t\.parquet needs .* pip install 'falconet\[tables\]'"):
        check_table_path(tmp_path / "t.parquet")
    check_table_path(tmp_path / "t.csv")
