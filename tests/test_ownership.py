"""A second process in the folder of another is refused in one line, and touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from falconet import RunResult
from falconet.cli import run
from falconet.storage import hold

VERBS = {
    "train": ["train", "digits", "--model", "lenet300_100", "--epochs", "1", "--out", "OUT"],
    "train --resume": ["train", "digits", "--model", "lenet300_100", "--epochs", "1", "--resume", "--out", "OUT"],
    "train --overwrite": ["train", "digits", "--model", "lenet300_100", "--epochs", "1", "--overwrite", "--out", "OUT"],
    "compare": ["compare", "digits", "--models", "lenet5,lenet300_100", "--epochs", "1", "--out", "OUT"],
    "compress": ["compress", "MODEL", "digits", "--out", "OUT"],
    "explain": ["explain", "MODEL", "digits", "--samples", "1", "--out", "OUT"],
    "export": ["export", "MODEL", "--to", "torch", "--out", "OUT/m.pt2"],
    "demo": ["demo", "--out", "OUT"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_one_process_at_a_time_works_in_a_folder(
    verb: str, trained: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [part.replace("OUT", str(out)).replace("MODEL", str(trained.out)) for part in VERBS[verb]]
    with hold(out, name="m.pt2" if verb == "export" else ""):
        (out / ".theirs.0123.partial").write_bytes(b"half of it")
        before = sorted(out.rglob("*"))
        assert run(command) == 2
        assert sorted(out.rglob("*")) == before
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"falconet: {out}")
    assert line.endswith("another process is at work there; wait for it, or choose another --out")


@pytest.mark.parametrize("taken", ["lenet5/notes.txt", "report.html", "config.json"])
def test_a_demonstration_replaces_nothing_unasked(
    taken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / taken
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()] == [taken]
    assert path.read_text() == "mine"
