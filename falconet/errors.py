"""Every error that Falconet raises on purpose, as one tree.

    FalconetError                 something failed                         exit code 1
    ├── UsageError                the call itself was wrong                exit code 2
    │   ├── UnknownNameError      a name that no table holds; offers the nearest
    │   ├── PathError             a path that is not there or cannot be written
    │   ├── ConfigError           a setting that does not exist or has no such value
    │   └── RunExistsError        the output folder already holds something
    ├── DataError                 the data cannot be used as they are
    ├── ArtifactError             a folder that is no (whole) artifact
    │   └── CodecError            a `model.fnet` that is damaged, or what such a file cannot hold
    ├── ExportError           a model that a format cannot hold, or an export that answers otherwise
    ├── HubError              the Hugging Face Hub refuses, or cannot be asked
    ├── MissingExtraError         an optional dependency is not installed
    ├── StorageError              writing failed: disk full, read-only, vanished
    ├── OutOfMemoryError          a batch is too large
    ├── DivergedError             the loss became NaN or infinite
    ├── OutOfTimeError            something would take longer than there is time for
    ├── LostProcessError          one of several processes of a run has ended
    ├── BudgetError               no compressed model keeps within the budget
    └── InterruptedRunError       the user stopped a run

A message says what was wanted, what was found and what to do, in one line.
"""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, ClassVar

_LISTED = 40
"""Most names that are listed where none is near."""
_SHOWN = 80
"""Most characters of a value that a message shows."""


class _Brief(reprlib.Repr):
    """Writes the beginning of a value; the whole of it may not fit into memory, where its parts refer to one part."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxlong = self.maxother = _SHOWN

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write more than 4,300 digits.
        return super().repr_int(value, level) if value.bit_length() < 12_000 else "a number of many digits"


_BRIEF = _Brief()


def abridge(value: Any) -> str:
    """Return how a value is written, in one line of at most _SHOWN characters."""
    text = _BRIEF.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


_NO_MEMORY = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "failed to map segment",
    "could not create a primitive",
)
"""Parts of messages, in lower case, of libraries that run out of memory but raise another class than MemoryError."""


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: of Python, of torch, or of the system that loads a library."""
    said = str(error).lower() if isinstance(error, RuntimeError | ImportError | OSError) else ""
    return isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY)


class FalconetError(Exception):
    """Something failed; the base of everything that Falconet raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(FalconetError, ValueError):
    """The call was wrong: a name, a path, a setting or an option."""

    exit_code: ClassVar[int] = 2


class UnknownNameError(UsageError):
    """A name that no table holds.

    Parameters: `what` is the kind of thing ("model"), `name` what the user wrote, `known` all valid names.
    """

    def __init__(self, what: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        names = sorted(known)
        # No known name is near to one of thrice its length at this cutoff, and comparing megabytes takes minutes.
        comparable = len(name) <= 3 * max(map(len, names), default=0)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) if comparable else []
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        offer = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names[:_LISTED])}{more}"
        super().__init__(f"unknown {what} {abridge(name)}: {offer}{' ' + remedy if remedy else ''}")


class PathError(UsageError):
    """A path that does not exist, is not of the wanted kind, or cannot be written."""


class ConfigError(UsageError):
    """A setting that does not exist, or a value that it cannot take."""


class RunExistsError(UsageError):
    """The output folder is in use, or already holds a run or other files that must not be lost."""


class DataError(FalconetError, ValueError):
    """The data cannot be used as they are."""


class ArtifactError(FalconetError):
    """A folder that is no artifact, or one that is incomplete, altered or from a newer version."""


class CodecError(ArtifactError):
    """Bytes that are no `model.fnet`, are damaged or from a newer version; or values that the format cannot hold."""


class ExportError(FalconetError):
    """A model cannot be exported, or its export predicts otherwise than the model."""


class HubError(FalconetError):
    """The Hugging Face Hub has no such model, refuses, or cannot be reached."""


class MissingExtraError(FalconetError, ImportError):
    """An optional dependency is not installed; the message names the command that adds it."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs an optional dependency: pip install 'falconet[{extra}]'")


class StorageError(FalconetError, OSError):
    """Writing failed; what stood there before is still there."""


class OutOfMemoryError(FalconetError, MemoryError):
    """A batch needs more memory than there is."""


class DivergedError(FalconetError):
    """The loss became NaN or infinite."""


class OutOfTimeError(FalconetError):
    """Something would take longer than there is time for."""


class LostProcessError(FalconetError):
    """One of several processes that train together has ended before its time."""


class BudgetError(FalconetError):
    """No compressed model keeps within the budget."""


class InterruptedRunError(FalconetError):
    """The user stopped a run; what was best until then is kept."""
