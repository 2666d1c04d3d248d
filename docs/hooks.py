"""What the book needs of mkdocs: code that is included from the sources by name, and formulas as MathML.

Both are made when the book is built, so that a page needs neither a script nor a network to be read, and an example
cannot differ from the code: a block of the form

    ```python
    source: falconet/models/squeezenet.py Fire.forward make_bypass
    ```

becomes the definitions of these names. A name that is not there ends the build.
"""

from __future__ import annotations

import ast
import html
import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
INCLUDED = re.compile(r"^```python\nsource: (?P<path>\S+) (?P<names>.+)\n```$", re.MULTILINE)
FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the code in the place of the blocks that name it; called by mkdocs for each page."""
    return INCLUDED.sub(include, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Put MathML in the place of the formulas that arithmatex has marked; called by mkdocs for each page."""
    return FORMULA.sub(render_formula, content)


def include(block: re.Match[str]) -> str:
    """Return a block of code with the definitions that another block names."""
    path = block["path"]
    code = "\n\n\n".join(find_source(ROOT / path, name) for name in block["names"].split())
    return f'```python title="{path}"\n{code}\n```'


def find_source(path: Path, name: str) -> str:
    """Return the source of a class, a function, a method or a constant, moved to the left margin.

    Raises LookupError where the file does not define it.
    """
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    for part in name.split("."):
        found = [node for node in body if part in name_definitions(node)]
        if not found:
            raise LookupError(f"{path}: wanted a definition of {name} to show in the book, found none of {part}")
        (node,) = found
        body = getattr(node, "body", [])
    first = min([node.lineno, *(line.lineno for line in getattr(node, "decorator_list", []))])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def name_definitions(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        names = [name for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        return [name.id for name in names]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []


def render_formula(formula: re.Match[str]) -> str:
    """Return a formula as MathML, which browsers draw themselves."""
    from latex2mathml.converter import convert

    display = "block" if formula["tag"] == "div" else "inline"
    drawn = convert(html.unescape(formula["latex"]).strip(), display=display)
    return f'<{formula["tag"]} class="formula">{drawn}</{formula["tag"]}>'
