"""Constants of the search are documented; names of the package have one list."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

from falconet import compression
from falconet.compression.constants import SearchConstants
from tests.test_public_names import type_checked_imports


def test_each_constant_says_where_it_comes_from() -> None:
    body = ast.parse(inspect.getsource(SearchConstants)).body[0]
    assert isinstance(body, ast.ClassDef)
    told = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            told[ast.unparse(field.target)] = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
    assert list(told) == [field.name for field in fields(SearchConstants)]
    assert [name for name, text in told.items() if "Source: " not in text] == []


def test_names_and_type_checked_imports_are_one_list() -> None:
    assert type_checked_imports(compression) == compression.HOMES


@pytest.mark.parametrize("name", compression.__all__)
def test_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(compression, name) is getattr(importlib.import_module(compression.HOMES[name]), name)
    assert name in dir(compression)


def test_budgets_need_no_torch_and_steps_no_reports() -> None:
    for code, unwanted in (
        ("from falconet.compression import Budget, CompressConfig, Trial", "torch"),
        ("from falconet.compression import Budget, quantize", "falconet.report"),
    ):
        script = f"import sys\n{code}\nsys.exit({unwanted!r} in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
