"""What goes to others tells nothing of this machine, and what the machine lacks stops nothing."""

from __future__ import annotations

import multiprocessing
import shlex
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from falconet import cli
from falconet.artifact import DataOrigin, find_source, load_artifact
from falconet.data import cache, drawing
from falconet.errors import StorageError
from falconet.explanation.explaining import Item, compare_gains, slug
from falconet.storage import find_caches
from tests.conftest import FolderMaker


@pytest.mark.parametrize("written", ["/home/me/a folder: of # pictures/photos", "/photos"])
def test_the_source_is_found_by_what_stays_here(written: str, tmp_path: Path) -> None:
    origin = DataOrigin("photos", "00", 0, 0.1, 0.2)
    assert find_source(tmp_path, origin) == origin
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"source": written, "seed": 0}, sort_keys=False))
    assert find_source(tmp_path, origin) == replace(origin, source=written)
    assert find_source(tmp_path, replace(origin, source="others")).source == "others"


def test_a_damaged_configuration_changes_nothing(tmp_path: Path) -> None:
    origin = DataOrigin("photos", "00", 0, 0.1, 0.2)
    (tmp_path / "config.yaml").write_bytes(b"source: [\xff")
    assert find_source(tmp_path, origin) == origin


def make_script(tmp_path: Path, photos: Path, lines: str) -> list[str]:
    """Return the command that runs a program with a function `learn`, which trains by its number."""
    script = tmp_path / "program.py"
    script.write_text(
        "import multiprocessing, sys, threading\n"
        "import falconet\n"
        "def learn(number):\n"
        f"    out = {str(tmp_path)!r} + f'/run{{number}}'\n"
        f"    falconet.train({str(photos)!r}, model='lenet_relu', epochs=1, seed=number, out=out)\n"
        "if __name__ == '__main__':\n" + textwrap.indent(lines, "    "),
        encoding="utf-8",
    )
    return [sys.executable, str(script)]


WHOLE = ("config.json", "model.safetensors", "metrics.json", "README.md", "report.html")


@pytest.mark.slow
def test_trainings_in_threads_leave_standard_output(make_folder: FolderMaker, tmp_path: Path) -> None:
    lines = """
before = sys.stdout, sys.stderr
threads = [threading.Thread(target=learn, args=(number,)) for number in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert (sys.stdout, sys.stderr) == before
print("still here")
"""
    command = make_script(tmp_path, make_folder(), lines)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert (ended.returncode, ended.stdout) == (0, "still here\n"), ended.stderr
    for number in range(2):
        assert all((tmp_path / f"run{number}" / name).is_file() for name in WHOLE)
        assert load_artifact(tmp_path / f"run{number}").config.provenance.seed == number


@pytest.mark.slow
def test_a_worker_of_a_pool_trains(make_folder: FolderMaker, tmp_path: Path) -> None:
    lines = """
with multiprocessing.Pool(1) as pool:
    pool.map(learn, [5])
print("still here")
"""
    command = make_script(tmp_path, make_folder(), lines)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert (ended.returncode, ended.stdout) == (0, "still here\n"), ended.stderr
    assert all((tmp_path / "run5" / name).is_file() for name in WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    ["2>&1 | head -1", "<&- >&- 2>&-", *(pytest.param(end, marks=pytest.mark.full) for end in ("| head -1", ">&-"))],
)
def test_a_training_whose_output_nobody_reads_is_whole(end: str, make_folder: FolderMaker, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "falconet", "train", str(make_folder()), "--model", "lenet_relu"]
    command = shlex.join([*arguments, "--epochs", "1", "--out", str(tmp_path / "run")])
    # Of a pipe, the status of the training instead of that of its reader.
    shell = f"set -o pipefail; {command} {end}"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr
    assert all((tmp_path / "run" / name).is_file() for name in WHOLE)
    assert load_artifact(tmp_path / "run").config.output.labels == ("dark", "light")


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_caches_are_in_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = find_caches()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0
    assert find_caches() == folder
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="XDG_CACHE_HOME"):
        find_caches()


def test_a_home_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none" / "cache"))
    assert find_caches() == tmp_path / "none" / "cache"
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert find_caches().parent == tmp_path


def test_workers_of_pools_and_threads_decode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert cache.may_fork()
    found = []
    thread = threading.Thread(target=lambda: found.append(cache.may_fork()))
    thread.start()
    thread.join()
    assert found == [False]
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    assert not cache.may_fork()


@pytest.mark.parametrize("name", ["\u4e2d" * 300, "x" * 300, "\U00020000" * 90])
def test_names_of_pictures_fit_any_file_system(name: str) -> None:
    assert len(f"000-{slug(name)}-as-1000-{slug(name)}-integrated_gradients.png".encode()) < 255
    assert slug(name) in name


def make_items(gains: list[float]) -> list[Item]:
    return [Item("f", "l", 0.5, "m", "p", 0.0, gain, 0.0) for gain in gains]


def test_gains_that_may_be_chance() -> None:
    nothing = make_items([0.0] * 6)
    # One of 64 ways of turning signs is as high.
    assert compare_gains(make_items([0.1, 0.2, 0.3, 0.1, 0.2, 0.4]), nothing) == 1 / 64
    assert compare_gains(make_items([0.1] * 3), make_items([0.0] * 3)) == 1 / 8
    assert compare_gains(nothing, nothing) == 1
    assert compare_gains(make_items([-0.1] * 6), nothing) == 1
    assert compare_gains(make_items([0.1] * 20), make_items([0.0] * 20)) < 0.001


def test_texts_without_blanks_are_wrapped_by_columns() -> None:
    assert drawing._wrap("\u4e2d\u6587\u5b57", 4) == ["\u4e2d\u6587", "\u5b57"]
    assert drawing._wrap("ab cd efghij", 5) == ["ab cd", "efghi", "j"]
    assert drawing.measure("a\u4e2d") == 3


def test_what_no_font_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "find_font", lambda mark: None if mark == "\u4e2d" else drawing.BASE)
    monkeypatch.setattr(drawing, "LACKING", set())
    assert drawing.describe_lacking() == ""
    assert drawing.clean("\u00e9\u4e2d") == "\u00e9\\u4e2d"
    assert "'\u4e2d'" in drawing.describe_lacking()


def test_any_command_that_draws_says_what_no_font_has(
    make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawing, "find_font", lambda mark: None if mark == "\u4e2d" else drawing.BASE)
    monkeypatch.setattr(drawing, "LACKING", set())
    photos = make_folder("\u4e2d", count=3, size=(8, 8))
    assert cli.run(["data", str(photos), "--suspects", str(tmp_path / "p.png")]) == 0
    assert capsys.readouterr().err.count("no installed font has '\u4e2d'") == 1
    assert cli.run(["data", str(photos)]) == 0
    assert "font" not in capsys.readouterr().err


def test_texts_have_the_fonts_that_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    plain, other = figure.text(0, 0, "plain"), figure.text(0, 0, "\u2260")
    monkeypatch.setattr(drawing, "find_font", lambda mark: "STIXGeneral")
    drawing.choose_fonts(figure)
    assert "STIXGeneral" not in plain.get_fontfamily()
    assert other.get_fontfamily()[-1] == "STIXGeneral"
