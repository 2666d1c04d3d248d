"""What the README says is what happens."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from falconet import MODELS
from falconet.cli import app

ROOT = Path(__file__).parent.parent
README, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("tables")


@pytest.mark.slow
def test_the_session_runs(tmp_path: Path) -> None:
    match = re.search(r"<!-- session: begin -->\n```python\n(.*?)```", README, re.DOTALL)
    assert match is not None
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", match[1]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "60,000 parameters, 416,520 multiply-accumulates" in done.stdout
    assert "(1, 32, 32) ('0', '1', '2'" in done.stdout


def test_the_results_are_those_that_were_measured(tables: ModuleType) -> None:
    assert RESULTS
    for path in tables.FILLED:
        text = path.read_text(encoding="utf-8")
        assert tables.fill(text) == text


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_have_the_form_that_the_design_gives(path: Path) -> None:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() - {"recorded_in"} == {"commit", "dirty", "hardware", "versions", "date", "rows"}
    # What was measured before commits were recorded says when it came, and no more.
    assert ("recorded_in" in content) == (content["commit"] == "not recorded")
    keys = {"name", "value", "unit", "peer", "peer_value", "ratio", "n", "std", "target", "met"}
    more = {"params", "macs", "interval", "over", "peer_std", "note", "withdrawn"}
    assert all(keys <= row.keys() <= keys | more for row in content["rows"])


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_what_is_met_has_an_interval_that_shows_it(path: Path) -> None:
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        if row["target"] and row["met"]:
            assert row["interval"] is not None, row["name"]
            assert not row["withdrawn"], row["name"]


def test_the_first_commands_are_the_two_that_a_newcomer_needs() -> None:
    commands = re.findall(r"^\$ (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {command.split()[1] for command in commands if command.startswith("make ")} <= targets


def test_every_verb_that_it_names_exists() -> None:
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    named = set(re.findall(r"\$ falconet (\w+)", README)) | set(re.findall(r"`falconet (\w+)", README))
    assert named <= verbs


def test_the_table_of_models_is_the_registry() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", page, re.MULTILINE)
    assert [(name, int(params.replace(",", ""))) for name, params in rows] == [
        (name, entry.params) for name, entry in MODELS.items()
    ]


def test_it_is_short_and_shows_eight_results_misses_among_them() -> None:
    assert len(README.splitlines()) <= 150
    _, _, rest = README.partition("<!-- highlights en: begin -->")
    rows = rest.partition("<!-- highlights: end -->")[0].strip().splitlines()[2:]
    assert len(rows) == 8
    assert any(row.endswith("| missed |") for row in rows)


def commands(text: str) -> list[str]:
    return [line.partition(" #")[0].strip() for line in re.findall(r"^\$ .*$", text, re.MULTILINE)]


def test_the_chinese_one_has_the_same_commands_session_figures_and_links() -> None:
    assert commands(README) == commands(CHINESE)
    sessions, figures, links = (
        [re.findall(pattern, text, re.DOTALL) for text in (README, CHINESE)]
        for pattern in (r"```python\n(.*?)```", r"\d+(?:[.,]\d+)*", r"\]\((?!README)([^)]+)\)")
    )
    assert sessions[0] == sessions[1]
    assert sorted(links[0]) == sorted(links[1])
    # The order of words differs, and so does that of figures within a sentence.
    assert sorted(figures[0]) == sorted(figures[1])


@pytest.mark.parametrize("text", [README, CHINESE], ids=["English", "Chinese"])
def test_what_it_links_to_is_there(text: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
