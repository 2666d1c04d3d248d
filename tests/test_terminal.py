"""What the command line shows: labels and figures whole at any width, and nothing fails for want of a reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from rich.cells import cell_len

from falconet import terminal
from falconet.cli.evaluation_tables import print_evaluation
from falconet.errors import StorageError
from falconet.evaluation import evaluate_logits
from falconet.report.facts import describe_change

ANSWERS = (
    ("file", "label", "probability", "next"),
    [
        (
            "a_rather_long_project_folder_name/dataset_2024_export/images_resized_224/0_1.png",
            "Pepper__bell___Bacterial_spot",
            "99.17%",
            "Tomato_Spider_mites_Two_spotted_spider_mite 0.83%",
        ),
        ("b.png", "\u756a\u8304\u7ea2\u8718\u86db", "51.00%", "other 49.00%"),
    ],
)
CLASSES = (
    ("class", "precision", "recall", "F1", "average precision", "ROC AUC", "samples"),
    [
        ("Tomato_Spider_mites_Two_spotted_spider_mite", "100.00%", "98.25%", "99.12%", "100.00%", "97.31%", "1,234"),
        ("ok", "1.00%", "2.00%", "3.00%", "4.00%", "5.00%", "6"),
    ],
)


@pytest.mark.parametrize("width", [120, 80, 60, 47, 30])
@pytest.mark.parametrize("table", [ANSWERS, CLASSES], ids=["answers", "classes"])
def test_labels_and_figures_stay_whole(table: tuple[Sequence[str], list[tuple[str, ...]]], width: int) -> None:
    columns, rows = table
    lines = terminal._lay_out(columns, rows, width)
    assert max(map(cell_len, lines)) <= width
    words = " ".join(lines).split()
    joined = "".join(line.strip() for line in lines)
    for row in rows:
        for name, cell in zip(columns, row, strict=True):
            if name != "file":
                # A name longer than the line goes on in the next one; figures never do.
                assert all(word in (words if cell_len(word) <= width - 2 else joined) for word in cell.split())


def test_paths_lose_their_middle() -> None:
    lines = terminal._lay_out(("file", "label"), [("a/" * 50 + "end.png", "cat"), ("b.png", "dog")], 40)
    assert lines[1].startswith("a/a/")
    assert "\u2026" in lines[1]
    assert lines[1].endswith("end.png  cat")
    assert len(lines) == 3


def test_a_name_without_room_has_a_line_of_its_own() -> None:
    columns, rows = CLASSES
    lines = terminal._lay_out(columns, rows, 80)
    assert lines[0] == "class"
    assert rows[0][0] in lines
    figures = lines[lines.index(rows[0][0]) + 1]
    assert figures.split() == [*rows[0][1:]]


def test_where_not_even_figures_fit_each_has_a_line() -> None:
    columns, rows = CLASSES
    lines = terminal._lay_out(columns, rows, 30)
    assert "  average precision: 100.00%" in lines
    assert lines[0] == "class"


def test_piped_nothing_is_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal.print_table(*ANSWERS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert ANSWERS[1][0][0] in lines[1]


@pytest.mark.parametrize("columns", ["80", "60"])
def test_on_a_terminal(columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(terminal.Stream, "isatty", lambda self: True)
    terminal.print_table(*ANSWERS)
    out = capsys.readouterr().out
    assert "99.17%" in out
    assert "Pepper__bell___Bacterial_spot" in out
    assert max(map(cell_len, out.splitlines())) <= int(columns)


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("[bold]a", "b"), [("[red]x[/red] :smile:", "\x1b[2J\n")])
    terminal.print_line("[link=x]\x1b]0;t\x07")
    terminal.print_shades("[b]\x1b", [("\x1b[0m[i]", 0.5)])
    bar = terminal.ProgressBar("[red]\x1b[1m")
    bar.on_note("note [b]\x1b[2J\nmore")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "[bold]a               b",
        "[red]x[/red] :smile:  \\x1b[2J\\x0a",
        "[link=x]\\x1b]0;t\\x07",
        "[b]\\x1b\\x1b[0m[i]",
    ]
    assert err == "note [b]\\x1b[2J\\x0amore\n"


def test_a_class_without_samples_has_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    print_evaluation(evaluate_logits(logits, np.array([0, 1, 1, 0]), ("a", "b", "c"), "test"))
    *_, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["c", "-", "-", "-", "-", "-", "0"]


class Closed(io.StringIO):
    """A stream whose writing fails."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise OSError(self.number, os.strerror(self.number))


def print_all() -> None:
    terminal.print_json({"a": 1})
    terminal.print_line("x")
    terminal.print_note("y")
    terminal.print_table(("a",), [("b",)])
    terminal.ProgressBar("m").on_note("z")


@pytest.mark.parametrize("kind", ["none", "closed", "pipe", "hung up"])
def test_nobody_reads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        stream: io.StringIO | None = Closed(errno.EPIPE if kind == "pipe" else errno.EIO)
        if kind == "none":
            stream = None
        if kind == "closed":
            stream = io.StringIO()
            stream.close()
        monkeypatch.setattr(sys, name, stream)
    broken = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Closed)]
    print_all()
    assert len(broken) == (2 if kind in {"pipe", "hung up"} else 0)
    assert all(stream.tried for stream in broken)


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Closed(errno.ENOSPC))
    with pytest.raises(StorageError, match="cannot write to stdout: No space left"):
        terminal.print_line("x")


@pytest.mark.parametrize(
    ("points", "interval", "words"),
    [
        (-0.81, (-2.16, -0.27), "0.81 points gained (95%: 0.27 to 2.16 gained)"),
        (0.81, (0.27, 2.16), "0.81 points lost (95%: 0.27 to 2.16 lost)"),
        (0.2, (-0.5, 0.9), "0.20 points lost (95%: 0.50 gained to 0.90 lost)"),
        (-0.001, None, "0.00 points lost"),
        (0.0, (-0.001, 0.4), "0.00 points lost (95%: 0.00 to 0.40 lost)"),
    ],
)
def test_signs_and_words_agree(points: float, interval: tuple[float, float] | None, words: str) -> None:
    assert describe_change(points, interval) == words
