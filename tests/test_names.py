"""One name means one thing in the whole package, and what a module alone uses begins with an underscore.

A name that several modules define is private to them, or is listed. A public one is used by another file, of the
package, of its tests, benchmarks or book, or is seen by those who use what is.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import falconet

# These read the package as text, so that tracing them would only take time.
pytestmark = pytest.mark.no_cover

ROOT = Path(falconet.__file__).parent
REPOSITORY = ROOT.parent
USERS = ("falconet", "tests", "benchmarks", "docs", "examples")
"""Folders of those who use names of the package."""
DOTTED = re.compile(r"[A-Za-z_][\w.:]*")
"""A string that may name something: the target of a patch, an entry of a table, a variable of a template."""
SPAN = re.compile(r"`+([^`\n]+)`+")
WORD = re.compile(r"[A-Za-z_]\w*")

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


def list_definitions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield what statements of a module define, with the statement."""
    for node in body:
        yield from ((name, node) for name in list_names([node]))


def find_used(tree: ast.Module) -> set[str]:
    """Return what a file may take from another: what it imports, attributes, strings that name, and names in docs."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom():
                found.update(alias.name for alias in node.names)
            case ast.Attribute():
                found.add(node.attr)
            case ast.Expr(value=ast.Constant(value=str(text))):
                found.update(find_named(text))
            case ast.Constant(value=str(text)) if DOTTED.fullmatch(text):
                found.update(WORD.findall(text))
    return found


def find_named(text: str) -> set[str]:
    """Return what stands between backticks, or is included from the sources."""
    found = {word for span in SPAN.findall(text) for word in WORD.findall(span)}
    return found | {word for line in text.splitlines() if "source:" in line for word in WORD.findall(line)}


def find_seen(node: ast.AST) -> set[str]:
    """Return the names that users of a definition see: in its types, its bases, and those of fields and methods."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return set().union(*map(find_words, (*ast.walk(node.args), node.returns)))
        case ast.ClassDef():
            public = [part for part in node.body if not getattr(part, "name", "").startswith("_")]
            return set().union(*map(find_words, node.bases), *map(find_seen, public))
        case ast.AnnAssign():
            return find_words(node.annotation)
        case ast.Assign(targets=[ast.Name(id=name)]) if name[:1].isupper() and not name.isupper():
            return find_words(node.value)  # An alias of types.
    return set()


def find_words(node: ast.AST | None) -> set[str]:
    """Return the names of an expression, also of strings that are types."""
    parts = [] if node is None else list(ast.walk(node))
    named = {part.id for part in parts if isinstance(part, ast.Name)}
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return named | {word for text in texts for word in WORD.findall(text)}


def is_settled(name: str, node: ast.stmt) -> bool:
    """Whether a name is private already, or shown as it is: a verb's on the command line, a layer's in summaries."""
    if name.startswith("_") or not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return name.startswith("_")
    verb = any("command" in ast.unparse(decorator) for decorator in node.decorator_list)
    return verb or any("Module" in ast.unparse(base) for base in getattr(node, "bases", ()))


def find_unused(tree: ast.Module, elsewhere: set[str]) -> set[str]:
    """Return the public names of a module that nobody `elsewhere` uses or sees."""
    defined = dict(list_definitions(tree.body))
    texts = [part.value for part in ast.walk(tree) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    named = {word for text in texts if DOTTED.fullmatch(text) for word in WORD.findall(text)}
    public = {name for name, node in defined.items() if name in elsewhere | named or is_settled(name, node)}
    while seen := {name for known in public for name in find_seen(defined[known])} & defined.keys() - public:
        public |= seen
    return defined.keys() - public


@pytest.mark.parametrize(
    ("source", "unused"),
    [
        ("def used(): ...\ndef alone(): ...\nLIMIT = 1\n_OWN = 2", {"alone", "LIMIT"}),
        ("class Seen: ...\nclass Unseen: ...\ndef used(first: Seen) -> None:\n    Unseen()", {"Unseen"}),
        ("class Part: ...\nclass Whole:\n    part: Part\ndef used() -> list['Whole']: ...", set()),
        ("class Base: ...\nclass Own:\n    def _make(self) -> Base: ...\ndef used() -> Own: ...", {"Base"}),
        ("class Layer(nn.Module): ...\n@app.command()\ndef run(): ...", set()),
        ("def entry(): ...\nTABLE = {'one': 'package.module:entry'}", {"TABLE"}),
    ],
)
def test_unused_names_are_found(source: str, unused: set[str]) -> None:
    assert find_unused(ast.parse(source), {"used"}) == unused


def test_what_a_module_alone_uses_begins_with_an_underscore() -> None:
    files = [path for folder in USERS for path in (REPOSITORY / folder).rglob("*") if path.suffix in {".py", ".pyi"}]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    used = {path: find_used(tree) for path, tree in trees.items()}
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("examples/*.ipynb")]
    told = set().union(*(find_named(page.read_text(encoding="utf-8")) for page in pages))
    users: dict[str, list[Path]] = defaultdict(list)
    for path, names in used.items():
        for name in names:
            users[name].append(path)
    found = {
        path.relative_to(ROOT).as_posix(): unused
        for path, tree in trees.items()
        if ROOT in path.parents and path.suffix == ".py"
        if (unused := find_unused(tree, told | {name for name, paths in users.items() if paths != [path]}))
    }
    assert found == {}


def find_late(tree: ast.Module) -> set[str]:
    """Return the constants that stand below their first use, though nothing that they are made of does."""
    body = tree.body
    defined = {name: index for index, node in reversed(list(enumerate(body))) for name in list_names([node])}
    loaded = [
        {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
        for node in body
    ]
    late = set()
    for index, node in enumerate(body):
        names = set(list_names([node])) if isinstance(node, ast.Assign | ast.AnnAssign) else set()
        first = next((use for use in range(index) if loaded[use] & names), None)
        if first is not None and all(defined.get(part, -1) < first for part in loaded[index] - names):
            late |= names
    return late


@pytest.mark.parametrize(
    ("source", "late"),
    [
        ("def use():\n    return LIMIT\nLIMIT = 1", {"LIMIT"}),
        ("LIMIT = 1\ndef use():\n    return LIMIT", set()),
        ("def use():\n    return TABLE[0]()\ndef one(): ...\nTABLE = [one]", set()),
        ("def use():\n    return LIMIT\nSIZE = 2\nLIMIT = 2 * SIZE", set()),
        ("SIZE = 2\ndef use():\n    return LIMIT\nLIMIT: int = 2 * SIZE", {"LIMIT"}),
    ],
)
def test_late_constants_are_found(source: str, late: set[str]) -> None:
    assert find_late(ast.parse(source)) == late


def test_constants_stand_above_their_first_use() -> None:
    found = {path.name: find_late(ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(ROOT.rglob("*.py"))}
    assert {name: late for name, late in found.items() if late} == {}
