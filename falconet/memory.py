"""Memory that is freed and soon wanted again, kept by the process meanwhile."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of these parameters in glibc's `mallopt`."""
_KEPT = 1 << 30
"""Bytes, in one block and at the end of the heap, that are not returned to the system while memory is kept."""
_USUAL = 32 << 20
"""Largest threshold in bytes that glibc sets for one block by itself; for the heap's end it is twice that."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next request, until the end; only glibc is asked, other allocators have own ways.

    By default large blocks go back to the system as soon as they are freed. A network that takes the same ones in each
    step then waits for thousands of empty pages each time: 3 of 25 ms in a step of `lenet_relu` with 64 images.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    assert libc is not None
    _set_thresholds(libc, _KEPT, _KEPT)
    try:
        yield
    finally:
        _set_thresholds(libc, _USUAL, 2 * _USUAL)
        libc.malloc_trim(0)


def _set_thresholds(libc: ctypes.CDLL, block: int, end: int) -> None:
    """Set from how many bytes on a block, and the heap's end, go back to the system."""
    # Before 2.35, glibc refused more than the usual; setting the other one then would freeze this one at its lowest.
    if not libc.mallopt(_MMAP_THRESHOLD, block):
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)
    libc.mallopt(_TRIM_THRESHOLD, end)
