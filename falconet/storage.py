"""Writing that loses nothing: a temporary file in the same folder, fsync, rename."""

import errno
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from falconet.errors import ArtifactError, RunExistsError, StorageError

PARTIAL = ".partial"
"""Ends the name of a file that is still being written."""
LOCK_FILE = ".lock"
"""In a folder where one process at a time may work."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; whoever reads sees the old file or the new one, whole.

    Raises StorageError (disk full, read-only, folder gone); what stood there before is then still there.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """`write_bytes` for files that belong together: none is replaced before all are on the disk."""
    with ExitStack() as stack:
        staged = [(stack.enter_context(stage(path, content)), path) for path, content in contents.items()]
        for temporary, path in staged:
            try:
                temporary.replace(path)
            except OSError as error:
                raise storage_error(path, error) from error


@contextmanager
def stage(path: Path, content: bytes) -> Iterator[Path]:
    """Write a temporary file beside `path`, which is gone in the end unless it was renamed. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(path, error) from error
        yield temporary
    finally:
        # Mostly it is not there: renamed, or never made, where its folder is no folder.
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text, as UTF-8; what UTF-8 cannot hold, such as an odd byte of a file name, is escaped."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` for plain data, as indented JSON without NaN, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises ArtifactError where there is none or it is damaged."""
    try:
        content = json.loads(read_regular(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except RecursionError as error:
        raise ArtifactError(f"{path} is damaged: it is nested too deeply") from error
    except OSError as error:
        raise ArtifactError(f"{path} is damaged: {error.strerror or error}") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: wanted a JSON object, found {type(content).__name__}")
    return content


def open_regular(path: str | Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading; a FIFO, a socket or a device is refused at once, as it could block or never end.

    Without `follow`, a link in the last place of `path` is refused too. Raises OSError, whose `strerror` says what was
    found.
    """
    flags = os.O_RDONLY | OPTIONAL_FLAGS | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "a link, not a regular file", str(path)) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


OPTIONAL_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Opening a FIFO waits for its other end without the first; systems lack one or another."""


def read_regular(path: str | Path, *, follow: bool = True) -> bytes:
    """Return the content of a regular file; see `open_regular`. Raises OSError."""
    with open_regular(path, follow=follow) as file:
        return file.read()


def prepare_folder(folder: Path) -> None:
    """Make `folder`, without the partial files of a killed process; raise StorageError unless it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for path in folder.glob(f".*{PARTIAL}"):
            path.unlink()
    except OSError as error:
        raise storage_error(folder, error) from error


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Let one process at a time work in `folder`, which is made; what was killed holds nothing.

    Raises RunExistsError where another is at it, StorageError where the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RunExistsError(
            f"{folder}: another process is at work there; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; choose another place or make room")
