"""Names that come from data are names wherever they are written: no markup, no commands to a terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from falconet import cli
from falconet.data.dataset import normalize_label
from falconet.escaping import escape_line, escape_lines, escape_markdown, escape_page
from falconet.model_files import redact_name, redact_settings

NAMES = (
    "<script>alert(1)</script>".replace("/", "\u2215"),
    "[x](javascript:alert(1))",
    "# heading",
    "a|b`c`",
    "\x1b[31mred\x1b]0;title\x07",
    "two\nlines\r---",
    "{{ 7*7 }}{% raw %}",
    "\u202eexe.png\u200b",
    "$x$ *b* _c_ C1\x9b2J",
)
"""Of classes; each would do something in one place or another."""
RAW = re.compile(
    r"<script>|(?<!\\)\[x\]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]|\n# heading|\n---\n.*\n---\n(?s:.*)\n---"
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "plain, caf\u00e9 \u4e2d\u6587 \U0001f469\u200d\U0001f52c",
            "plain, caf\u00e9 \u4e2d\u6587 \U0001f469\u200d\U0001f52c",
        ),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("\x9b\x7f", "\\x9b\\x7f"),
        ("\u202ea\u2066b\u2028\ufeff", "\\u202ea\\u2066b\\u2028\\ufeff"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_a_line_for_a_terminal(text: str, line: str) -> None:
    assert escape_line(text) == line


def test_lines_keep_their_breaks() -> None:
    assert escape_lines("a\n\tb\x1bc\r") == "a\n\tb\\x1bc\\x0d"


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("tomato_leaf, 91.2% (95%: 3 to 4)", "tomato_leaf, 91.2% (95%: 3 to 4)"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("[x](y)", "\\[x\\](y)"),
        ("a|b`c`*d*", "a\\|b\\`c\\`\\*d\\*"),
        ("_a_ b_c", "\\_a\\_ b_c"),
        ("---", "\\---"),
        ("https://a.b www.c.d e@f", "https\\://a.b www\\.c.d e\\@f"),
        ("a\\b\n# c", "a\\\\b\\\\x0a\\# c"),
    ],
)
def test_a_line_of_markdown(text: str, markdown: str) -> None:
    # What escaping a control character writes has a backslash of its own, which must not be taken for an escape.
    assert escape_markdown(text) == markdown


def test_pages_leave_what_is_no_text() -> None:
    assert escape_page(1.5) == 1.5
    assert escape_page("a\x1b") == "a\\x1b"


@pytest.mark.parametrize(
    ("source", "shared"), [("digits", "digits"), ("data/a.csv", "data/a.csv"), ("/home/me/a.csv", "a.csv"), ("/", "/")]
)
def test_sources_without_the_machine(source: str, shared: str) -> None:
    assert redact_name(source) == shared
    assert redact_settings({"a": [source, 1], "b": {"c": None}}) == {"a": [shared, 1], "b": {"c": None}}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose classes and files have such names; two classes are told apart by their gray."""
    folder = tmp_path_factory.mktemp("hostile") / "x<script>[x](javascript:1)\x1b[1m"
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for index in range(7):
            pixels = rng.integers(0, 40, (8, 8), dtype=np.uint8) + np.uint8(20 * number)
            Image.fromarray(pixels).save(folder / name / f"{index}<script>\x1b[5m|.png")
        (folder / name / "bad\x1b[7m<script>.png").write_bytes(b"no picture")
    return folder


def run(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command and return all that it said."""
    assert cli.run([str(argument) for argument in arguments]) == 0, capfd.readouterr().err
    out, err = capfd.readouterr()
    return out + err


def read_front(card: str) -> dict[str, object]:
    front: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
    return front


@pytest.mark.slow
def test_hostile_names_from_end_to_end(hostile: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, pages = tmp_path / "run", []
    said = [run(capfd, "data", hostile)]
    options = ("--set", "augmentation=none", "--set", "model.input_size=8")
    said.append(run(capfd, "train", hostile, "--model", "lenet_relu", "--epochs", "2", "--out", model, *options[:2]))
    said.append(run(capfd, "evaluate", model, hostile))
    said.append(run(capfd, "predict", model, hostile / NAMES[0]))
    said.append(run(capfd, "explain", model, hostile / NAMES[1], "--out", tmp_path / "why", "--classes", "2"))
    said.append(run(capfd, "export", model, "--to", "triton", "--out", tmp_path / "triton"))
    said.append(run(capfd, "compare", hostile, "--models", "lenet_relu,lenet5", "--seeds", "1", "--epochs", "1",
                    "--out", tmp_path / "compared"))  # fmt: skip
    assert cli.run(["evaluate", str(model), str(tmp_path / "no\x1b[31msuch\nthing")]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    for text in (*said, error):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]", text)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert read_front(card)["library_name"] == "falconet"
    body = card.split("---\n", 2)[2]
    # The rule of the only table is the only row of dashes.
    assert body.count("\n| --- | --- |\n") == 1
    assert not RAW.search(body)
    assert "&lt;script&gt;" in body
    assert body.count("\n# ") == 1
    for page in (
        model / "report.html",
        tmp_path / "why" / "explanations.html",
        tmp_path / "compared" / "comparison.html",
    ):
        text = page.read_text(encoding="utf-8")
        pages.append(text)
        assert "<script" not in text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]", text)
        assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|>49<", text)
    assert "&lt;script&gt;" in pages[0]
    markdown = (tmp_path / "compared" / "comparison.md").read_text(encoding="utf-8")
    assert not RAW.search(markdown)
    labels = (tmp_path / "triton" / "run" / "labels.txt").read_text(encoding="utf-8").split("\n")
    assert len(labels) == len(NAMES) + 1
    assert len({*labels}) == len(labels)
    # A label has no characters without width at its ends.
    classes = set(map(normalize_label, NAMES))
    assert set(map(escape_line, classes)) == {*labels[:-1]}
    # What programs read keeps the names themselves.
    assert set(json.loads((model / "config.json").read_text(encoding="utf-8"))["output"]["labels"]) == classes
