"""Writing that loses nothing, and reading that says what is wrong."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from falconet.errors import ArtifactError, RunExistsError, StorageError
from falconet.storage import (
    check_safetensors,
    hold,
    is_vacant,
    prepare_folder,
    read_json,
    read_regular,
    read_settled,
    scratch,
    settle,
    swap,
    write_bytes,
    write_json,
    write_text,
)
from falconet.training.checkpoints import remove_checkpoints


def refuse(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("content", [b"", b"new", bytes(range(256)) * 1000])
def test_write_replaces_the_whole_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"something old and longer")
    write_bytes(path, content)
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_write_makes_missing_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "é.txt", "naïve\n")
    assert (tmp_path / "a" / "b" / "é.txt").read_bytes() == "naïve\n".encode()


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen: list[tuple[bytes, bytes]] = []
    replace = Path.replace

    def watch(source: Path, target: Path) -> Path:
        seen.append((source.read_bytes(), path.read_bytes()))
        assert source.parent == target.parent
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watch)
    write_bytes(path, b"new")
    assert seen == [(b"new", b"old")]


def test_content_reaches_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def watch(name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            events.append(name)
            return action(*arguments)

        return watched

    monkeypatch.setattr(os, "fsync", watch("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", watch("rename", Path.replace))
    write_bytes(tmp_path / "file", b"new")
    assert events == ["fsync", "rename", "fsync"], "the file, its name, the folder"


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
def test_failed_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(StorageError, match=f"cannot write {path}: No space left on device; choose another place"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*directory"):
        write_bytes(tmp_path / "file", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("below", ["child", "child/grandchild"])
def test_write_below_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'file' / below}"):
        write_bytes(tmp_path / "file" / below, b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.usefixtures("strict_umask")
@pytest.mark.parametrize("exists", [False, True])
def test_permissions_follow_umask(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "file"
    if exists:
        path.write_bytes(b"old")
    write_bytes(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_json_round_trip(tmp_path: Path) -> None:
    content = {"name": "naïve", "values": [1, 2.5, None, True], "nested": {"a": []}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert "naïve" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": number})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "is damaged: it is nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "is damaged: Exceeds the limit"),
        (b"", "is damaged"),
        (b'{"a": 1', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[1, 2]", "wanted a JSON object, found list"),
        (b"3", "wanted a JSON object, found int"),
    ],
)
def test_damaged_json(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a\.json is missing$"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match="is damaged: not a regular file"):
        read_json(tmp_path)


def test_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


@pytest.mark.parametrize("below", ["", "child"])
def test_no_folder_can_be_made_of_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'file' / below}: "):
        prepare_folder(tmp_path / "file" / below)


def test_full_disk_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: refuse())
    with pytest.raises(StorageError, match="No space left on device"):
        prepare_folder(tmp_path)


@pytest.mark.parametrize("file", [(), ("network.onnx",)])
def test_a_temporary_folder_without_room_says_how_to_choose_another(file: tuple[str, ...]) -> None:
    def fill(folder: Path) -> NoReturn:
        folders.append(folder)
        (folder / "begun").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *file)

    folders: list[Path] = []
    with pytest.raises(StorageError, match=r"cannot write .*: No space left on device; .*TMPDIR"), scratch() as folder:
        fill(folder)
    assert not folders[0].exists()
    with pytest.raises(FileNotFoundError), scratch() as folder:
        (folder / "missing").read_bytes()


def test_where_no_temporary_folder_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(StorageError, match=r"cannot make a temporary folder: .*TMPDIR"), scratch():
        pytest.fail("there is none")


def test_one_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with (
        hold(tmp_path / "a"),
        pytest.raises(RunExistsError, match="a: another process is at work there"),
        hold(tmp_path / "a"),
    ):
        pytest.fail("both work there")
    with hold(tmp_path / "a"):
        assert (tmp_path / "a").is_dir()


def test_what_was_killed_holds_nothing(tmp_path: Path) -> None:
    work = f"with hold(Path({str(tmp_path)!r})): print(); input()"
    code = f"from pathlib import Path; from falconet.storage import hold\n{work}"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RunExistsError), hold(tmp_path):
            pytest.fail("both work there")
        process.kill()
    with hold(tmp_path):
        assert process.returncode


def test_a_file_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageError, match="cannot write"), hold(tmp_path / "file"):
        pytest.fail("it was held")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", follow=False) == b"content"
    assert read_regular(tmp_path / "link") == b"content"
    with pytest.raises(OSError, match="a link, not a regular file"):
        read_regular(tmp_path / "link", follow=False)


@pytest.mark.parametrize("what", ["fifo", "folder", "device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "entry"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(path)


class Killed(BaseException):
    """What a process does not survive."""


OLD = {"model": b"old", "config": b"old, too", "card": b"of the old"}
NEW = {"model": b"new", "config": b"new, too", "more/deep": b"added"}
STEPS = ((Path, "mkdir"), (Path, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree"))


def read_set(folder: Path) -> dict[str, bytes]:
    """Return all that is in a folder, hidden files too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def end_at(step: int, error: BaseException, monkeypatch: pytest.MonkeyPatch, steps: Any = STEPS) -> list[str]:
    """Let every change of the disk fail from the given one on; return the names of those that were asked for."""
    asked: list[str] = []

    def watch(name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            asked.append(name)
            if len(asked) > step:
                raise error
            return action(*arguments, **options)

        return watched

    for owner, name in steps:
        monkeypatch.setattr(owner, name, watch(name, getattr(owner, name)))
    return asked


def test_a_swap_that_is_killed_at_any_step_leaves_the_old_set_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[bool] = []
    while True:
        folder = tmp_path / str(len(results))
        swap(folder, OLD)
        with monkeypatch.context() as patch:
            asked = end_at(len(results), Killed(), patch)
            with suppress(Killed):
                swap(folder, NEW, ["card"])
            ended = len(asked) <= len(results)
        settle(folder)
        with hold(folder):
            prepare_folder(folder)
        swap(folder, {})  # What was staged in vain goes with the next one.
        assert read_set(folder) in (OLD, NEW)
        results.append(read_set(folder) == NEW)
        if ended:
            break
    assert len(results) > 20
    assert results == sorted(results), "from one step on it is the new one"
    assert results[-1]
    assert sum(results) > 5, "what is left to do after that step is done by whoever comes next"


def test_a_disk_that_is_full_at_any_step_of_a_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = 0
    while True:
        folder = tmp_path / str(step)
        swap(folder, OLD)
        with monkeypatch.context() as patch:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            asked = end_at(step, full, patch, STEPS[:4])
            with suppress(StorageError):
                swap(folder, NEW, ["card"])
            ended = len(asked) <= step
        settle(folder)
        assert read_set(folder) in (OLD, NEW)
        if ended:
            break
        step += 1
    assert step > 10
    assert read_set(folder) == NEW


@pytest.mark.parametrize("taken", ["card", "part", "part/new", "gone", "link"])
def test_a_swap_that_could_not_end_does_not_begin(taken: str, tmp_path: Path) -> None:
    folder, contents, removed = tmp_path / "model", {**OLD, "part/new": b"new"}, ["gone"]
    swap(folder, OLD)
    (tmp_path / "theirs").mkdir()
    if taken == "part":
        (folder / taken).write_bytes(b"mine")
    elif taken == "link":
        (folder / "part").symlink_to(tmp_path / "theirs")
    else:
        (folder / taken).unlink(missing_ok=True)
        (folder / taken).mkdir(parents=True)
    before = read_set(folder)
    with pytest.raises(StorageError, match=f"cannot write {folder / ('part' if taken == 'link' else taken)}"):
        swap(folder, dict.fromkeys(contents, b"of the new model"), removed)
    settle(folder)
    assert read_set(folder) == before
    assert not list(folder.glob(".*"))
    assert not list((tmp_path / "theirs").iterdir())


def test_an_interrupt_within_a_swap_does_not_part_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swap(tmp_path, OLD)
    replace, moves = Path.replace, 0

    def interrupted(source: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == 3:
            raise KeyboardInterrupt
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swap(tmp_path, NEW, ["card"])
    assert read_set(tmp_path) == NEW


def test_a_swap_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    for name in ("../outside", "/etc/outside", "", "link/outside"):
        folder = tmp_path / "hostile"
        (folder / ".swap" / "new").mkdir(parents=True)
        if name.startswith("link"):
            (folder / "link").symlink_to(tmp_path)
        plan = {"folder": folder.stat().st_ino, "new": [], "removed": [name]}
        write_json(folder / ".swap" / "plan.json", plan)
        with pytest.raises(ArtifactError, match="is damaged: wanted files of this folder"):
            settle(folder)
        shutil.rmtree(folder)
    assert (tmp_path / "outside").read_bytes() == b"mine"


@pytest.mark.parametrize("what", ["another folder's", "none", "no plan", "new is a link", "a link", "a file"])
def test_a_swap_that_came_with_a_folder_moves_and_removes_nothing(what: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "downloaded"
    outside.mkdir()
    (outside / "letter").write_bytes(b"mine")
    swap(folder, OLD)
    plan = {"folder": folder.stat().st_ino + 1, "new": ["letter"], "removed": ["model"]}
    if what == "none":
        del plan["folder"]
    if what == "a link":
        write_json(outside / "plan.json", plan)
        (folder / ".swap").symlink_to(outside)
    elif what == "a file":
        (folder / ".swap").write_bytes(b"x")
    else:
        (folder / ".swap").mkdir()
        (folder / ".swap" / "new").symlink_to(outside)
        if what != "no plan":
            write_json(folder / ".swap" / "plan.json", plan)
    before, kept = read_set(folder), read_set(outside)
    if what.startswith("a "):
        settle(folder)
    else:
        with pytest.raises(ArtifactError, match=r"\.swap.* (is missing|is damaged|another folder)"):
            settle(folder)
    assert read_set(folder) == before
    assert read_set(outside) == kept


def test_only_the_folder_that_a_swap_is_of_completes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    swap(folder, OLD)
    with monkeypatch.context() as patch:
        patch.setattr("falconet.storage.find_within", raise_killed)
        with pytest.raises(Killed):
            swap(folder, NEW, ["card"])
    shutil.copytree(folder, copy)
    with pytest.raises(
        ArtifactError, match=r"another folder, .* copied or downloaded: load that one and copy it again"
    ):
        settle(copy)
    with pytest.raises(ArtifactError, match="another folder"), hold(copy):
        pytest.fail("it may not be written to either")
    folder.rename(tmp_path / "renamed")
    settle(tmp_path / "renamed")
    assert read_set(tmp_path / "renamed") == NEW


def raise_killed(*_: object) -> NoReturn:
    raise Killed


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.skipif(sys.platform == "win32", reason="a folder with an open file cannot be renamed")
def test_who_holds_a_folder_writes_into_no_other_of_its_name(replaced: bool, tmp_path: Path) -> None:
    folder, theirs = tmp_path / "run", b""
    with hold(folder):
        write_bytes(folder / "checkpoint" / "first", b"1")
        folder.rename(tmp_path / "renamed")
        if replaced:
            folder.mkdir()
            (folder / ".lock").write_bytes(theirs)
        refusal = r"run, or \.lock in it, was renamed, removed or replaced"
        with pytest.raises(StorageError, match=refusal):
            write_bytes(folder / "checkpoint" / "second", b"2")
        with pytest.raises(StorageError, match=refusal):
            swap(folder, OLD)
        with pytest.raises(StorageError, match=refusal):
            prepare_folder(folder / "checkpoint")
        write_bytes(tmp_path / "elsewhere", b"3")
    assert folder.exists() == replaced
    assert not replaced or read_set(folder) == {".lock": theirs}, "which is another process's"
    assert (tmp_path / "renamed" / "checkpoint" / "first").read_bytes() == b"1"
    with hold(tmp_path / "renamed"):
        write_bytes(tmp_path / "renamed" / "second", b"2")


@pytest.mark.parametrize("was_link", [False, True])
def test_who_holds_a_folder_follows_no_link_that_takes_its_place(was_link: bool, tmp_path: Path) -> None:
    folder, theirs = tmp_path / "run", tmp_path / "theirs"
    swap(theirs, OLD)
    if was_link:
        (tmp_path / "mine").mkdir()
        folder.symlink_to(tmp_path / "mine")
    with hold(folder):
        write_bytes(folder / "first", b"1")
        swap(folder, {"model": b"1"})
        folder.rename(tmp_path / "renamed")
        folder.symlink_to(theirs)
        writes: list[Callable[[], object]] = [
            lambda: write_bytes(folder / "config", b"2"),
            lambda: swap(folder, NEW),
            lambda: prepare_folder(folder),
            lambda: remove_checkpoints(folder),
        ]
        for write in writes:
            with pytest.raises(StorageError, match="was renamed, removed or replaced while this process was at work"):
                write()
    assert read_set(theirs) == OLD
    swap(folder, NEW)
    assert read_set(theirs) == {**OLD, **NEW}, "once nobody holds another under this name"


@pytest.mark.parametrize("plan", [{"new": 5, "removed": []}, {"removed": []}, {"new": [], "removed": ["a\0b"]}])
def test_a_swap_that_nobody_wrote_is_refused(plan: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / ".swap" / "new").mkdir(parents=True)
    write_json(tmp_path / ".swap" / "plan.json", {"folder": tmp_path.stat().st_ino, **plan})
    with pytest.raises(ArtifactError, match="is damaged: remove it"):
        settle(tmp_path)


@pytest.mark.parametrize("described", [0, 100, 1 << 21])
def test_tensors_may_be_described_within_limits(described: int) -> None:
    check_safetensors(described.to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize("described", [(1 << 21) + 1, 90_000_000, (1 << 64) - 1])
def test_descriptions_of_millions_of_tensors_are_refused(described: int) -> None:
    with pytest.raises(ValueError, match=f"wanted at most 2097152 bytes to describe tensors, found {described}"):
        check_safetensors(described.to_bytes(8, "little") + b"{}")


def test_a_reader_in_the_middle_of_a_swap_reads_again(tmp_path: Path) -> None:
    swap(tmp_path, {"config": b"1", "model": b"1"})
    seen: list[tuple[bytes, bytes]] = []

    def read() -> bytes:
        config = (tmp_path / "config").read_bytes()
        if not seen:
            swap(tmp_path, {"config": b"22", "model": b"22"})
        seen.append((config, (tmp_path / "model").read_bytes()))
        if seen[-1][0] != seen[-1][1]:
            raise ArtifactError("they do not belong together")
        return config

    assert read_settled(tmp_path, "config", read) == b"22"
    assert seen == [(b"1", b"22"), (b"22", b"22")]
    (tmp_path / "model").write_bytes(b"altered")
    with pytest.raises(ArtifactError, match="do not belong together"):
        read_settled(tmp_path, "config", read)


def test_locks_leave_nothing_and_what_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert is_vacant(folder)
    with hold(folder):
        assert {path.name for path in folder.iterdir()} == {".lock"}
        assert is_vacant(folder)
    assert not folder.exists(), "a folder that was made for nothing goes"
    folder.mkdir()
    (folder / ".m.onnx.lock").touch()
    (folder / ".swap.partial").mkdir()
    (folder / "search").mkdir()
    (folder / "search" / ".search.json.0123.partial").touch()
    assert is_vacant(folder)
    for name in ("letter.txt", "search/letter.txt"):
        (folder / name).touch()
        assert not is_vacant(folder)
        (folder / name).unlink()
    (folder / "link").symlink_to(tmp_path / "search")
    assert not is_vacant(folder)


def test_a_folder_and_files_in_it_have_owners_of_their_own(tmp_path: Path) -> None:
    with hold(tmp_path), hold(tmp_path, name="a.onnx"), hold(tmp_path, name="b.onnx"):
        with (
            pytest.raises(RunExistsError, match=r"a\.onnx: another process is at work there"),
            hold(tmp_path, name="a.onnx"),
        ):
            pytest.fail("both work there")
        swap(tmp_path, {"a.onnx": b"a", "a.bin": b"b"}, name="a.onnx")
        assert (tmp_path / "a.bin").read_bytes() == b"b"
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "a.bin"}


def test_another_process_may_not_swap_where_one_is_at_work(tmp_path: Path) -> None:
    swap(tmp_path, OLD)
    code = (
        f"from pathlib import Path; from falconet.storage import swap; swap(Path({str(tmp_path)!r}), {{'model': b'x'}})"
    )
    with hold(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RunExistsError: " in done.stderr
    assert "another process is at work there; wait for it, or choose another --out" in done.stderr
    assert read_set(tmp_path) == OLD


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ("[1]", "wanted a JSON object, found list"),
    ],
)
def test_json_that_python_does_not_read_is_damaged(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=message) as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_json_is_not_read_from_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match="not a regular file"):
        read_json(tmp_path / "a.json")
