"""Writing that loses nothing: a temporary file in the same folder, fsync, rename; several files change in one swap.

A folder has one owner at a time (`hold`). Files that belong together are put into place by `swap`: they are written
to a hidden folder beside them, whose renaming is the one step in which the old set gives way to the new. A process
that dies after that leaves moves to be made, which `settle` makes up for whoever comes next.
"""

import errno
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from falconet import interruption
from falconet.errors import ArtifactError, FalconetError, RunExistsError, StorageError

_T = TypeVar("_T")

_PARTIAL = ".partial"
"""Suffix of a file that is still being written."""
_LOCK, _SWAP = ".lock", ".swap"
"""Suffixes of the hidden names of a folder's lock, and of the folder of files that are about to be put into place."""
_PLAN_FILE, _NEW_FOLDER = "plan.json", "new"
"""Contents of a swap's folder: the plan of which files come and go, and the folder of those that come."""
_HELD: dict[Path, tuple[int, int]] = {}
"""Files of the locks that this process holds, with their device and inode, which another process's file would not have.

Each is listed by its real path and by the path as given, which may later become a link.
"""
_PATIENCE = 30.0
"""Longest time in seconds that a reader waits for a swap, which takes milliseconds."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; whoever reads sees the old file or the new one, whole.

    Raises StorageError (disk full, read-only, folder gone).
    """
    with _stage(path, content) as temporary:
        try:
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise storage_error(path, error) from error


@contextmanager
def _stage(path: Path, content: bytes) -> Iterator[Path]:
    """Write a temporary file beside `path`, which is gone in the end unless it was renamed. Raises StorageError."""
    interruption.check()
    check_held(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_synced(temporary, content)
        except OSError as error:
            raise storage_error(path, error) from error
        yield temporary
    finally:
        # Mostly it is not there: renamed, or never made, where its folder is no folder.
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to, which takes the place of `path` in one step once all is written; see `write_bytes`.

    After an error it is gone, and what stood at `path` is still there. Raises StorageError.
    """
    with _stage(path, b"") as temporary:
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            if isinstance(error, FalconetError):
                raise
            raise storage_error(path, error) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file down to the disk. Raises OSError."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk, where the system and the file system can do that. Raises OSError."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def swap(folder: Path, contents: Mapping[str, bytes], removed: Iterable[str] = (), *, name: str = "") -> None:
    """Put files into `folder`, by their paths within it, and remove others, all in one step.

    `settle`, with the same `name`, is what readers call first: so they see the old set or the new one, whole, wherever
    this process dies. Raises StorageError, after which the old set stands, or the new one where `settle` can complete
    it; RunExistsError where another process holds the folder.
    """
    interruption.check()
    committed = folder / _hide(name, _SWAP)
    staged = _find_staged(committed)
    with own(folder, name):
        _complete(folder, committed)
        try:
            gone = [path for path in removed if path not in contents]
            _check_places(folder, [*contents, *gone])
            plan = {"folder": folder.stat().st_ino, "new": list(contents), "removed": gone}
            remove_tree(staged)
            staged.mkdir()
            for path, content in ((f"{_NEW_FOLDER}/{path}", content) for path, content in contents.items()):
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                write_synced(staged / path, content)
            write_synced(staged / _PLAN_FILE, json.dumps(plan).encode())
            for parent, _, _ in os.walk(staged):
                _sync_folder(Path(parent))
            staged.replace(committed)
        except (IsADirectoryError, NotADirectoryError) as error:
            raise storage_error(Path(error.filename or folder), error) from error
        except OSError as error:
            raise storage_error(folder, error) from error
        finally:
            with suppress(OSError):
                remove_tree(staged)
        try:
            _complete(folder, committed)
        except BaseException:
            with suppress(OSError, ArtifactError):  # An interrupt; a full disk is no better the second time.
                _complete(folder, committed)
            raise


def _check_places(folder: Path, names: Iterable[str]) -> None:
    """Raise OSError or StorageError where no file can be put, or removed: such a swap would begin and never end."""
    for name in names:
        path = folder.joinpath(*PurePosixPath(name).parts)
        parent = next(parent for parent in path.parents if os.path.lexists(parent))
        if not parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent))
        if not parent.resolve().is_relative_to(folder.resolve()):
            raise StorageError(f"cannot write {path}: {parent} leads out of {folder}; remove it, or choose another")
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _complete(folder: Path, committed: Path) -> None:
    """Make the moves of a swap that are still to be made; its owner alone may.

    Raises StorageError, and ArtifactError for one that no process began in this very folder: what was downloaded or
    unpacked must move and remove nothing, and who copied a folder has the one that the swap is of.
    """
    if not _is_pending(committed):
        return
    plan = read_json(committed / _PLAN_FILE)
    try:
        if plan["folder"] != folder.stat().st_ino:
            raise ArtifactError(
                f"{committed} is of a write that began in another folder, from which this one was copied or "
                "downloaded: load that one and copy it again, or remove it"
            )
        _sync_folder(folder)
        for name in map(str, plan["new"]):
            target = find_within(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # It has its place already.
                (committed / _NEW_FOLDER / name).replace(target)
        for name in map(str, plan["removed"]):
            find_within(folder, name).unlink(missing_ok=True)
        for parent in {find_within(folder, name).parent for name in map(str, plan["new"])} | {folder}:
            _sync_folder(parent)
        # Under this name, what is left of it asks for nothing.
        staged = _find_staged(committed)
        remove_tree(staged)
        committed.replace(staged)
        remove_tree(staged)
    except (KeyError, TypeError, ValueError) as error:  # The last for names that no file can have.
        raise ArtifactError(f"{committed} is damaged: remove it") from error
    except OSError as error:
        raise storage_error(folder, error) from error


def _is_pending(committed: Path) -> bool:
    """Whether there is a swap to be completed; a link leads to a folder that no process made for that."""
    return committed.is_dir() and not committed.is_symlink()


def _find_staged(committed: Path) -> Path:
    """Return where a swap's files are before it counts, and after it was made."""
    return committed.with_name(f"{committed.name}{_PARTIAL}")


def _hide(name: str, ending: str) -> str:
    """Return the hidden name of what belongs to the owner of a folder, or of the file `name` there."""
    return f".{name}{ending}" if name else ending


def find_within(folder: Path, name: str) -> Path:
    """Return the path of a file below a folder, by its plain name. Raises ArtifactError for one that leads outside."""
    parts = PurePosixPath(name).parts
    path = folder.joinpath(*parts)
    outside = not parts or parts[0] == "/" or ".." in parts
    if outside or not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder / _SWAP} is damaged: wanted files of this folder, found {name!r}")
    return path


def remove_tree(folder: Path) -> None:
    """Remove a folder, if it is there. Raises OSError."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def settle(folder: Path, *, name: str = "") -> None:
    """Complete the swap that a process left when it died, or wait for one that is going on. Mostly there is none.

    Raises StorageError where it cannot be completed.
    """
    committed = folder / _hide(name, _SWAP)
    deadline = time.monotonic() + _PATIENCE
    while _is_pending(committed):
        try:
            with own(folder, name, patience=0.05):
                _complete(folder, committed)
        except RunExistsError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def read_settled(folder: Path, name: str, read: Callable[[], _T]) -> _T:
    """Return what `read` makes of files that belong together, none of them from before a swap and others from after.

    `name` is that of a file which changes in every swap. What `read` raises goes through, unless files were swapped
    meanwhile: then it is called again.
    """
    while True:
        settle(folder)
        before = _identify(folder / name)
        try:
            return read()
        except ArtifactError:
            if _identify(folder / name) == before and not _is_pending(folder / _SWAP):
                raise


def _identify(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from the one that takes its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text, as UTF-8; what UTF-8 cannot hold, such as an odd byte of a file name, is escaped."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` for plain data, as indented JSON without NaN, which JSON does not have."""
    write_text(path, format_json(content))


def format_json(content: Any) -> str:
    """Return plain data as indented JSON."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises ArtifactError where there is none or it is damaged."""
    try:
        content = read_regular(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except OSError as error:
        raise ArtifactError(f"{path} is damaged: {error.strerror or error}") from error
    return parse_json(path, content)


def parse_json(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the JSON object that was read from `path`; see `read_json`."""
    try:
        found = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ArtifactError(f"{path} is damaged: it is nested too deeply") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: wanted a JSON object, found {type(found).__name__}")
    return found


_MAX_DESCRIPTION = 1 << 21
"""Most bytes of the description of tensors, each of which takes about a hundred."""


def check_safetensors(content: bytes) -> None:
    """Raise ValueError where a file of safetensors describes far more tensors than networks have.

    The package takes seconds and gigabytes for the descriptions of a million, before anybody can count them.
    """
    described = int.from_bytes(content[:8], "little")
    if described > _MAX_DESCRIPTION:
        raise ValueError(f"wanted at most {_MAX_DESCRIPTION} bytes to describe tensors, found {described}")


_OPTIONAL_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags for opening files that some systems lack; without the first, opening a FIFO waits for its other end."""


def open_regular(path: str | Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading; a FIFO, a socket or a device is refused at once, as it could block or never end.

    Without `follow`, a link in the last place of `path` is refused too. Raises OSError, whose `strerror` says what was
    found.
    """
    flags = os.O_RDONLY | _OPTIONAL_FLAGS | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
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


def read_regular(path: str | Path, *, follow: bool = True) -> bytes:
    """Return the content of a regular file; see `open_regular`. Raises OSError."""
    with open_regular(path, follow=follow) as file:
        return file.read()


def is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but what locks and killed processes leave, or is not there.

    These leave folders too in which there was no file yet.
    """
    if not folder.is_dir():
        return True
    found = [path for path in folder.iterdir() if not _is_left(path.name)]
    try:
        inner = [list(path.iterdir()) if path.is_dir() and not path.is_symlink() else [path] for path in found]
    except OSError:  # What must not be looked into is somebody's.
        return False
    return all(_is_left(path.name) for paths in inner for path in paths)


def _is_left(name: str) -> bool:
    return name.startswith(".") and name.endswith((_LOCK, _PARTIAL))


def cache_folder() -> Path:
    """Return where caches are kept: FALCONET_CACHE, else a folder of the user's caches."""
    named = os.environ.get("FALCONET_CACHE")
    return Path(named) if named else find_caches() / "falconet" / "pixels"


def find_caches() -> Path:
    """Return where what can be made or fetched again is kept, in a folder that may be written to.

    That is the folder of the user's caches; a temporary one of the user's own where there is no home, as in a container
    that runs under a number without a name. Raises StorageError where that one is somebody else's.
    """
    with suppress(RuntimeError):  # No home.
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        parent = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return folder
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"falconet-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise storage_error(folder, error) from error
    # Anybody may make a folder of this name there.
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise StorageError(f"cannot write {folder}: it is another user's; set XDG_CACHE_HOME to a folder of your own")
    return folder


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder, which is gone in the end. Raises StorageError where there is no room for that."""
    remedy = "make room there, or let TMPDIR name another folder"
    try:
        temporary = tempfile.TemporaryDirectory()
    except OSError as error:
        raise StorageError(f"cannot make a temporary folder: {error.strerror or error}; {remedy}") from error
    with temporary as folder:
        try:
            yield Path(folder)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageError(f"cannot write {tempfile.gettempdir()}: {error.strerror}; {remedy}") from error


def make_temporary_folder() -> Path:
    """Return a new temporary folder, which lives until `remove_when_collected` says otherwise. Raises StorageError."""
    try:
        return Path(tempfile.mkdtemp(prefix="falconet-"))
    except OSError as error:
        remedy = "make room there, or let TMPDIR name another folder"
        raise StorageError(f"cannot make a temporary folder: {error.strerror or error}; {remedy}") from error


def remove_when_collected(owner: object, folder: Path) -> None:
    """Remove a folder as soon as an object is gone, or the process ends."""
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)


def prepare_folder(folder: Path) -> None:
    """Make `folder`, without the partial files of a killed process; raise StorageError unless it can be written to.

    Whoever calls it holds the folder, or the one that it belongs to: partial files may be those of a living process.
    """
    check_held(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for path in folder.glob(f".*{_PARTIAL}"):
            if path.is_file():
                path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


@contextmanager
def hold(folder: Path, *, name: str = "") -> Iterator[None]:
    """Let one process at a time work in `folder`, which is made, or at the file `name` there.

    What was killed holds nothing; a swap that it began is completed. Raises RunExistsError where another is at it,
    StorageError where the folder cannot be written to.
    """
    if _find_lock(folder, name).is_locked:
        raise _busy(folder, name)
    with own(folder, name):
        _complete(folder, folder / _hide(name, _SWAP))
        yield


@contextmanager
def own(folder: Path, name: str, *, patience: float = 0.0) -> Iterator[None]:
    """`hold`, for what may be called by whoever holds it already; it does not complete a swap."""
    lock = _find_lock(folder, name)
    file = Path(lock.lock_file)
    outermost, made = not lock.is_locked, not folder.exists()
    check_held(folder / (name or _LOCK), None if outermost else file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience)
        if outermost:
            _HELD[file] = _HELD[folder.absolute() / file.name] = _identify_lock(file)
    except Timeout as error:
        raise _busy(folder, name) from error
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        yield
    finally:
        try:
            # Whoever has opened it meanwhile finds it without a name once it is released, and opens another. In a
            # folder that took this one's place, it is another process's.
            held = _HELD.pop(file, None) if outermost else None
            if outermost:
                _HELD.pop(folder.absolute() / file.name, None)
            with suppress(OSError):
                if held and _identify_lock(file) == held:
                    file.unlink()
        finally:
            lock.release()
        if made:
            with suppress(OSError):  # Mostly there is something in it now.
                folder.rmdir()


def check_held(path: Path, file: Path | None = None) -> None:
    """Raise StorageError where `path` lies in a folder that this process holds no more under its name.

    Somebody has renamed, removed or replaced it: what stands there now may be another process's. `file`: of the lock,
    where it is not one of a folder.
    """
    places = path.parent.resolve() / path.name, path.absolute()
    above = [
        lock for lock in _HELD if lock.name == _LOCK and any(place.is_relative_to(lock.parent) for place in places)
    ]
    for lock in [file] if file else above:
        with suppress(OSError):
            if _identify_lock(lock) == _HELD.get(lock):
                continue
        raise StorageError(
            f"cannot write {path}: {lock.parent}, or {lock.name} in it, was renamed, removed or replaced while this "
            "process was at work there; begin again, or choose another place"
        )


def _identify_lock(file: Path) -> tuple[int, int]:
    """Return what tells a lock's file from another of its name. Raises OSError without one."""
    found = file.stat()
    return found.st_dev, found.st_ino


def _find_lock(folder: Path, name: str) -> FileLock:
    """Return the lock of a folder or of a file there: the same object for a thread that has it already."""
    return FileLock(folder.resolve() / _hide(name, _LOCK), is_singleton=True)


def _busy(folder: Path, name: str) -> RunExistsError:
    return RunExistsError(f"{folder / name}: another process is at work there; wait for it, or choose another --out")


def storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; choose another place or make room")
