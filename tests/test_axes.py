"""Only tables know which modalities and tasks there are: nobody else asks which one it has."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import jinja2
import pytest
from jinja2 import nodes

import falconet
from falconet.modalities import MODALITIES
from falconet.spec import ImageSpec, ModalityName, SeriesSpec, TextSpec

ROOT = Path(falconet.__file__).parent
SPECS = {"ImageSpec", "SeriesSpec", "TextSpec", "ClassificationSpec"}
NAMES = {*get_args(ModalityName), "classification"}
FIELDS = {"kind", "modality", "task"}
"""What holds a modality's or a task's name."""


def list_modules() -> list[Path]:
    """Return the modules that must not ask: all but the definitions and each layer's tables of them."""
    apart = ("modalities", "tasks")
    return [
        path
        for path in sorted(ROOT.rglob("*.py"))
        if path.name not in {"spec.py", "adapters.py"} and not set(path.relative_to(ROOT).parts) & set(apart)
    ]


def name_of(node: ast.expr) -> str:
    """Return the last name of an expression such as `dataset.kind`; nothing where it has none."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def list_literals(node: ast.expr) -> set[object]:
    """Return the texts in an expression such as `"image"` or `(None, "text")`."""
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}


def find_questions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where a spec's type is tested, or a modality's or a task's name compared with a literal one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) == "isinstance":
            asked = {name_of(part) for part in ast.walk(node.args[1]) if isinstance(part, ast.expr)}
            if asked & SPECS:
                yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(name_of(side) in FIELDS for side in sides) and any(list_literals(side) & NAMES for side in sides):
                yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Match) and name_of(node.subject) in FIELDS:
            yield node.lineno, f"match {ast.unparse(node.subject)}"


def find_template_questions(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Yield where a template compares a modality's or a task's name with a literal one."""
    for node in tree.find_all((nodes.Compare, nodes.Test)):
        names = {found.attr for found in node.find_all(nodes.Getattr)} | {
            found.name for found in node.find_all(nodes.Name)
        }
        literals = {found.value for found in node.find_all(nodes.Const) if found.value in NAMES}
        if names & FIELDS and literals:
            yield node.lineno, f"{', '.join(sorted(names & FIELDS))} beside {', '.join(sorted(literals))}"


@pytest.mark.parametrize(
    "text",
    [
        "isinstance(spec, ImageSpec)",
        "isinstance(a.input, (spec.TextSpec, int))",
        "isinstance(x, ImageSpec | SeriesSpec)",
        "dataset.kind == 'image'",
        "'text' != kind",
        "kind in {None, 'series'}",
        "spec.kind in ('image', 'text')",
        "output.task == 'classification'",
    ],
)
def test_a_question_is_found(text: str) -> None:
    assert [asked for _, asked in find_questions(ast.parse(text))]


@pytest.mark.parametrize("text", ["dtype.kind == 'f'", "dataset.kind == other.kind", "MODALITIES[kind].axes == 2"])
def test_other_comparisons_are_none(text: str) -> None:
    assert not list(find_questions(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        '{% if spec.kind == "text" %}x{% endif %}',
        """{{ "x" if report.config.input.kind != 'image' }}""",
        '{% if kind in ["image", "text"] %}x{% endif %}',
        '{{ "x" if output.task is eq("classification") }}',
    ],
)
def test_a_question_of_a_template_is_found(text: str) -> None:
    assert list(find_template_questions(jinja2.Environment(autoescape=True).parse(text)))


@pytest.mark.parametrize("text", ['<p class="{{ spec.kind }}">', "{% if kind %}x{% endif %}", '{{ x == "image" }}'])
def test_other_parts_of_templates_are_none(text: str) -> None:
    assert not list(find_template_questions(jinja2.Environment(autoescape=True).parse(text)))


def test_no_template_asks_which_modality_or_task_it_shows() -> None:
    environment = jinja2.Environment(autoescape=True)
    paths = sorted(ROOT.rglob("*.jinja"))
    assert paths
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in paths
        for line, text in find_template_questions(environment.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


def test_nobody_asks_which_modality_or_task_it_has() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in list_modules()
        for line, text in find_questions(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


def test_the_table_holds_each_modality_once() -> None:
    assert tuple(MODALITIES) == get_args(ModalityName)
    assert [modality.name for modality in MODALITIES.values()] == list(MODALITIES)
    assert [modality.spec_type for modality in MODALITIES.values()] == [ImageSpec, SeriesSpec, TextSpec]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("adapters.py")), ids=lambda path: path.parent.name)
def test_each_layer_has_an_adapter_for_each_modality(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    assert tuple(module.ADAPTERS) == get_args(ModalityName)
