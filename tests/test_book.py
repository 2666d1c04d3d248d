"""What the book shows is what is there. That its links and pages hold, `mkdocs build --strict` proves in CI."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import falconet
from falconet.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("hooks")


def test_code_comes_from_the_sources(hooks: ModuleType) -> None:
    blocks = [block for text in TEXTS.values() for block in hooks.INCLUDED.finditer(text)]
    assert len(blocks) >= 10
    assert all(len(hooks.include(block).splitlines()) > 3 for block in blocks)
    assert sum(text.count("\nsource: ") for text in TEXTS.values()) == len(blocks), "each is of the form that is read"


def test_a_definition_is_found_by_its_name(hooks: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(
        "A = 1\nB: int = (\n    2\n)\n\n\n@f\ndef g():\n    pass\n\n\nclass C:\n    def h(self):\n        return 3\n"
    )
    assert hooks.find_source(path, "A") == "A = 1"
    assert hooks.find_source(path, "B") == "B: int = (\n    2\n)"
    assert hooks.find_source(path, "g") == "@f\ndef g():\n    pass"
    assert hooks.find_source(path, "C.h") == "def h(self):\n    return 3"
    for name in ("D", "C.g", "A.b"):
        with pytest.raises(LookupError, match=f"wanted a definition of {name}"):
            hooks.find_source(path, name)


def test_the_reference_has_every_public_name_once() -> None:
    named = re.findall(r"^::: falconet\.(\w+)$", TEXTS["reference/python.md"], re.MULTILINE)
    assert Counter(named) == Counter(vars(falconet)["__all__"])


def test_the_verbs_are_those_of_the_command_line() -> None:
    verbs = [command.callback.__name__ for command in app.registered_commands if command.callback]
    named = re.findall(r"^\| `falconet (\w+)` \|", TEXTS["reference/verbs.md"], re.MULTILINE)
    assert sorted(named) == sorted(verbs)


def test_every_command_begins_with_a_verb() -> None:
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    found = {verb for text in TEXTS.values() for verb in re.findall(r"^\$ falconet (\w+)", text, re.MULTILINE)}
    assert found <= verbs


def test_every_page_is_in_the_contents_and_every_decision_in_its_list() -> None:
    contents = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert Counter(contents) == Counter(TEXTS.keys())
    listed = re.findall(r"^- \[(.+)\]\((\S+)\)$", TEXTS["decisions/index.md"], re.MULTILINE)
    records = {name.removeprefix("decisions/"): text for name, text in TEXTS.items() if name.startswith("decisions/")}
    del records["index.md"]
    assert {name: f"# {title}" for title, name in listed} == {
        name: text.partition("\n")[0] for name, text in records.items()
    }


def test_pictures_are_there_and_shown() -> None:
    shown = {
        (DOCS / page).parent.joinpath(link).resolve()
        for page, text in TEXTS.items()
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    }
    assert all(path.is_file() for path in shown)
    assert {path.resolve() for path in (DOCS / "pictures").iterdir()} <= shown


@pytest.mark.slow
def test_pictures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    importlib.import_module("pictures").main(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (DOCS / "pictures").iterdir() if not path.name.startswith("explain-")}
