"""Constants of the search are documented; names of the package come from their modules, when they are used."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from falconet import compression
from falconet.compression.constants import SearchConstants


def test_each_constant_says_where_it_comes_from() -> None:
    body = ast.parse(inspect.getsource(SearchConstants)).body[0]
    assert isinstance(body, ast.ClassDef)
    told = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            told[ast.unparse(field.target)] = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
    assert list(told) == [field.name for field in fields(SearchConstants)]
    assert [name for name, text in told.items() if "Source: " not in text] == []


def test_names_are_those_of_their_modules() -> None:
    tree = ast.parse(Path(str(compression.__file__)).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(homes) == dir(compression)
    for name, module in homes.items():
        home = importlib.import_module(f"falconet.compression.{module}")
        assert getattr(compression, name) is getattr(home, name)


def test_budgets_need_no_torch_and_steps_no_reports() -> None:
    for code, unwanted in (
        ("from falconet.compression import Budget, CompressConfig, Trial", "torch"),
        ("from falconet.compression import Budget, quantize", "falconet.report"),
    ):
        script = f"import sys\n{code}\nsys.exit({unwanted!r} in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
