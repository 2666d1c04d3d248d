"""What the README says is what happens."""

from __future__ import annotations

import importlib.util
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
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def load_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_the_results_are_those_that_were_measured() -> None:
    assert RESULTS
    tables = load_tables()
    for path in tables.FILLED:
        text = path.read_text(encoding="utf-8")
        assert tables.fill(text) == text


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_have_the_form_that_the_design_gives(path: Path) -> None:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() == {"hardware", "versions", "date", "rows"}
    keys = {"name", "value", "unit", "peer", "peer_value", "ratio", "n", "std", "target", "met"}
    assert all(keys <= row.keys() <= keys | {"params", "macs"} for row in content["rows"])


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
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", README, re.MULTILINE)
    assert [(name, int(params.replace(",", ""))) for name, params in rows] == [
        (name, entry.params) for name, entry in MODELS.items()
    ]
