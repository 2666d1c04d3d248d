"""Reliable handling of Ctrl-C and SIGTERM.

Python raises KeyboardInterrupt wherever the main thread is: also in a callback that C code calls, in a destructor, or
in a library that catches everything, where it is swallowed. So its arrival is noted too, and `check`, called at places
where stopping is right, raises it again, until whoever stops the work calls `forget`. Some code in C++ does not even
survive it: while it runs, the first one is `deferred`.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ARRIVED: list[int] = []
"""Signals that arrived and are not handled yet."""
_DEFERRING: list[None] = []
"""An entry for each active `deferred`."""


def watch_signals(*signals: signal.Signals) -> None:
    """Note and raise these signals as KeyboardInterrupt from now on, where they are not ignored."""
    for one in signals:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, arrive)


def unwatch() -> None:
    """Let watched signals end the process at once from now on, as there is nothing left to save."""
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) is arrive:
            signal.signal(one, signal.SIG_DFL)


def arrive(number: int, frame: FrameType | None) -> None:
    """Note a signal, and raise KeyboardInterrupt unless it is deferred."""
    _ARRIVED.append(number)
    if not _DEFERRING or len(_ARRIVED) > 1:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[None]:
    """Defer the first signal in the context to its end; a second one is not deferred."""
    _DEFERRING.append(None)
    try:
        yield
    finally:
        _DEFERRING.pop()
    check()


@contextmanager
def watched() -> Iterator[None]:
    """Watch Ctrl-C in the context, in the main thread, unless the caller has a handler of its own."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    forget()
    signal.signal(signal.SIGINT, arrive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        forget()


def check() -> None:
    """Raise KeyboardInterrupt in the main thread if a signal has arrived that is not handled yet."""
    if _ARRIVED and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def forget() -> None:
    """Mark all signals as handled."""
    _ARRIVED.clear()
