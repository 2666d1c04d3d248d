"""One name means one thing in the whole package: what several modules define is private to them, or is listed."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import falconet

ROOT = Path(falconet.__file__).parent

VERB = "the function of the library, and the verb of the command line that calls it: typer names verbs by functions"
ALLOWED = {
    "ADAPTERS": "each layer's one table of modalities, looked up in the same way everywhere",
    "compare": VERB,
    "compress": VERB,
    "evaluate": VERB,
    "explain": VERB,
    "export": VERB,
    "label": VERB,
    "predict": VERB,
    "push": VERB,
    "train": VERB,
}
"""Public name that several modules define → why."""
MOST = 10


def list_names(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the functions, classes and constants that statements of a module define, also under conditions."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.For():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for part in (part for target in targets for part in ast.walk(target)):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        yield part.id
        for inner in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
                for part in getattr(node, inner, []):
                    yield from list_names(part.body if isinstance(part, ast.ExceptHandler) else [part])


def find_shared(sources: dict[str, str]) -> dict[str, list[str]]:
    """Return the public names that several modules define, with these modules."""
    modules = defaultdict(list)
    for module, source in sources.items():
        for name in sorted(set(list_names(ast.parse(source).body))):
            if not name.startswith("_"):
                modules[name].append(module)
    return {name: found for name, found in modules.items() if len(found) > 1}


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("def read(): ...", "class read: ...", {"read"}),
        ("LIMIT = 1", "LIMIT: int = 2", {"LIMIT"}),
        ("A, (B, *C) = made()", "C = 1", {"C"}),
        (
            "if dark:\n    INK = 1\nelse:\n    try:\n        PEN = 2\n    except OSError:\n        TIP = 3",
            "TIP = 1",
            {"TIP"},
        ),
        ("for SIZE in (1, 2): ...", "SIZE = 1", {"SIZE"}),
        ("_LIMIT = 1", "_LIMIT = 2", set()),
        ("__all__ = []", "__all__ = []", set()),
        ("from one import LIMIT", "LIMIT = 1", set()),
        ("def read():\n    LIMIT = 1", "LIMIT = 1", set()),
        ("READ.limit = 1", "READ = 1", set()),
    ],
)
def test_shared_names_are_found(first: str, second: str, shared: set[str]) -> None:
    assert set(find_shared({"first": first, "second": second})) == shared


def test_one_name_means_one_thing() -> None:
    found = find_shared(
        {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
    )
    assert {name: modules for name, modules in found.items() if name not in ALLOWED} == {}
    assert found.keys() >= ALLOWED.keys(), "what is shared no more is to leave the list"
    assert len(ALLOWED) <= MOST
