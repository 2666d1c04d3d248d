"""Writing that loses nothing, and reading that says what is wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from falconet.errors import ArtifactError, RunExistsError, StorageError
from falconet.storage import hold, prepare_folder, read_json, read_regular, write_bytes, write_json, write_text


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
    assert events == ["fsync", "rename"]


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
