"""Pixels on disk: images decoded once, at the model's size, and mapped into memory. For training only.

A cache is two files in `cache_folder()`, named by a hash of what it was made from: `KEY.pixels`, the pixels of all
samples one after the other, and `KEY.journal`, a JSON line for each block of samples that is finished: its number, the
samples of it that cannot be read, and a CRC-32 of both. A block that has no line, or no longer has that sum, is decoded
(again); so a build that was killed goes on where it was, and a damaged cache is mended. A lock lets one process build
while others wait; the system frees the lock of one that dies.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int64, UInt, UInt64
from torch import Tensor

from falconet.data.dataset import Encoded, Split, Unreadable, hash_bytes
from falconet.data.images import decode_image
from falconet.data.preprocessing import ImagePreprocess, strip_name
from falconet.errors import DataError, StorageError
from falconet.spec import ImageSpec, PixelType
from falconet.storage import cache_folder, storage_error, write_text

_LAYOUT = 2
"""Version in each key, raised when the same samples and settings would give other bytes."""
BLOCK_BYTES = 1 << 20
"""Approximate bytes that are decoded for each line of the journal."""
_FEW = 256
"""Fewer samples than this are decoded without worker processes."""
_ATTEMPTS = 3
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's `prctl`."""
RESIDENT_BYTES = 8 << 20
"""Bytes read through a memory map before its pages are released; up to four times as much is in memory by then."""
_UNUSED_DAYS = 30
"""Days after which an unopened cache is removed, when another one is made."""


@dataclass(frozen=True, eq=False)
class PixelCache:
    """The readable samples of a split at the model's size, on disk."""

    mapped: mmap.mmap
    shape: tuple[int, int, int]
    """Channels, height and width of each sample."""
    rows: Int64[np.ndarray, " samples"]
    """Row of the file that holds each sample."""
    unread: list[int]
    """Bytes left to read until the pages that were read are released, as the only entry."""
    dtype: PixelType = "uint8"
    """Type of each value."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Int64[Tensor, " batch"]) -> UInt[Tensor, "batch channels height width"]:
        """Return copies of the samples at `indices`."""
        pixels = np.frombuffer(self.mapped, dtype=self.dtype).reshape(-1, *self.shape)
        batch = torch.from_numpy(np.empty((len(indices), *self.shape), dtype=self.dtype))
        np.take(pixels, self.rows[indices.numpy()], axis=0, out=batch.numpy(), mode="clip")
        self.unread[0] -= batch.nbytes
        if self.unread[0] < 0:
            self.mapped.madvise(mmap.MADV_DONTNEED)
            self.unread[0] = RESIDENT_BYTES
        return batch


def open_cache(split: Split, spec: ImageSpec) -> tuple[PixelCache, tuple[Unreadable, ...]]:
    """Return the pixels of a split's readable samples at the model's size, decoding what is not there yet.

    `PixelCache.rows` are the positions in the split of those that can be read; the others are listed with reasons.
    Raises StorageError where there is no room, DataError where not one sample can be read.
    """
    path = cache_folder() / _make_key(split.hashes, spec)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            reasons = _build(path, split, spec)
            with path.with_suffix(".pixels").open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _remove_unused(path.parent)
    except OSError as error:
        raise _explain(error, path.parent, len(split) * _count_bytes(spec)) from error
    unreadable = tuple(Unreadable(split.samples.name(index), reason) for index, reason in sorted(reasons.items()))
    if len(unreadable) == len(split):
        first = unreadable[0]
        raise DataError(f"none of {len(split)} images can be read; the first: {first.file} ({first.reason})")
    rows = np.setdiff1d(np.arange(len(split)), list(reasons)).astype(np.int64)
    return PixelCache(mapped, spec.shape, rows, [RESIDENT_BYTES], spec.dtype), unreadable


def _count_bytes(spec: ImageSpec) -> int:
    """Return what the pixels of a sample take."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _make_key(hashes: UInt64[np.ndarray, " samples"], spec: ImageSpec) -> str:
    """Return 32 hexadecimal digits for these contents in this order, made into this shape."""
    deep = () if spec.value_range is None else (spec.value_range,) if spec.dtype == "uint8" else (spec.value_range, 16)
    kept = () if spec.resize_mode == "stretch" else (spec.resize_mode,)
    settings = json.dumps([_LAYOUT, spec.shape, spec.padding, *deep, *kept]).encode()
    return hashlib.blake2b(settings + hashes.tobytes(), digest_size=16).hexdigest()


def _remove_unused(folder: Path) -> None:
    """Remove caches that were last opened long ago; their empty locks stay, since another process may wait for one."""
    oldest = time.time() - _UNUSED_DAYS * 86400
    for pixels in folder.glob("*.pixels"):
        journal = pixels.with_suffix(".journal")
        with suppress(OSError), FileLock(pixels.with_suffix(".lock"), timeout=0):  # Another process may be at it.
            if (journal if journal.exists() else pixels).stat().st_mtime < oldest:
                pixels.unlink()
                journal.unlink(missing_ok=True)


def _explain(error: OSError, folder: Path, wanted: int) -> StorageError:
    """Return the error of a cache that cannot be written, with what it takes and where else it could go."""
    cause = error if isinstance(error, StorageError) else storage_error(folder, error)
    return StorageError(f"{cause}; the pixels take {wanted / 1e6:,.0f} MB, and FALCONET_CACHE says where they go")


@dataclass(frozen=True)
class _Block:
    """Consecutive samples that were decoded together: a line of the journal."""

    start: int
    """Position of the first sample."""
    crc: int
    """CRC-32 of the pixels and of the list of unreadable samples."""
    unreadable: dict[int, str]
    """Reason by sample; the pixels of these samples are zero."""


def _build(path: Path, split: Split, spec: ImageSpec) -> dict[int, str]:
    """Make a cache whole, in whatever state it is found; return the unreadable samples with reasons."""
    journal, pixels = path.with_suffix(".journal"), path.with_suffix(".pixels")
    size = max(BLOCK_BYTES // _count_bytes(spec), 1)
    ranges = {start: range(start, min(start + size, len(split))) for start in range(0, len(split), size)}
    pixels.touch()
    with pixels.open("r+b") as file:
        _reserve(file.fileno(), len(split) * _count_bytes(spec), pixels)
        blocks = [
            block
            for block in _read_journal(journal)
            if block.start in ranges and _is_whole(file.fileno(), split, block, ranges[block.start], spec)
        ]
        write_text(journal, "".join(map(_format_block, blocks)))
        missing = sorted(set(ranges) - {block.start for block in blocks})
    job = _Job(pixels, split, spec)
    with journal.open("a", encoding="utf-8") as lines:
        for block in _decode_blocks(job, [ranges[start] for start in missing]):
            blocks.append(block)
            # Pixels before their line: what the journal says is there, is there.
            lines.write(_format_block(block))
            lines.flush()
    return {index: reason for block in blocks for index, reason in block.unreadable.items()}


@dataclass(frozen=True, eq=False)
class _Job:
    """The samples that workers decode, and the file for their pixels."""

    pixels: Path
    split: Split
    spec: ImageSpec


def _decode_blocks(job: _Job, ranges: Sequence[range]) -> Iterator[_Block]:
    """Yield blocks as they are finished, decoded by a process for each processor where that is worth it.

    Python's lock leaves threads little to do at once where images are small. Blocks of workers that die are given to
    new ones, so often that one bad moment does not matter; raises DataError when they go on dying.
    """
    if not may_fork() or sum(map(len, ranges)) < _FEW:
        yield from (_decode_block(job, block) for block in ranges)
        return
    left = {block.start: block for block in ranges}
    for _ in range(_ATTEMPTS):
        with suppress(BrokenProcessPool), _start_workers(job) as pool:
            for future in as_completed([pool.submit(_decode_inherited, block) for block in left.values()]):
                block = future.result()
                del left[block.start]
                yield block
        if not left:
            return
    raise DataError(f"decoding processes died {_ATTEMPTS} times, perhaps for want of memory; what is finished is kept")


def may_fork() -> bool:
    """Whether this process may go on as several: not where workers of a pool may have none, nor in a thread.

    What other threads hold at that moment would stay locked in the copies for good.
    """
    alone = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and alone and not multiprocessing.current_process().daemon


@contextmanager
def _start_workers(job: _Job) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes that know the job, as copies of this one; leave no block waiting in the end."""
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_begin_work, initargs=(job, os.getpid()))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_work(job: _Job, parent: int) -> None:
    """Make this process a worker: one that computes alone and ends with its parent, whose lock it shares."""
    global _inherited  # noqa: PLW0603 - where a pool's workers keep what they were started with
    _inherited = job
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The command line's handler, which forking brings along, would make a traceback of it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # It died before this one could ask to die with it.
        os._exit(1)


_inherited: _Job | None = None
"""The job of a worker process; None elsewhere."""


def _decode_inherited(block: range) -> _Block:
    """Decode a block of the job that this worker was started for."""
    assert _inherited is not None
    return _decode_block(_inherited, block)


def _reserve(descriptor: int, size: int, path: Path) -> None:
    """Give a file its size at once, so that a full disk is found before anything is decoded."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, size)
    except OSError:
        path.unlink()  # What little was reserved would only keep the disk full.
        raise


def _read_journal(path: Path) -> list[_Block]:
    """Return the finished blocks, without lines that are damaged or cut off."""
    blocks: dict[int, _Block] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            entry = json.loads(line)
            reasons = {int(index): str(reason) for index, reason in entry["unreadable"].items()}
            blocks[int(entry["start"])] = _Block(int(entry["start"]), int(entry["crc"]), reasons)
    return list(blocks.values())


def _format_block(block: _Block) -> str:
    """Return a block's line in the journal."""
    return json.dumps({"start": block.start, "crc": block.crc, "unreadable": block.unreadable}) + "\n"


@torch.inference_mode()
def _is_whole(descriptor: int, split: Split, block: _Block, indices: range, spec: ImageSpec) -> bool:
    """Whether a block is as it was written, and what could not be read then cannot be read now."""
    size = _count_bytes(spec)
    content = os.pread(descriptor, len(indices) * size, block.start * size)
    if _compute_crc(content, block.unreadable) != block.crc:
        return False
    # A drive may have been away, or a right to read.
    preprocess, encoded = ImagePreprocess(spec), isinstance(split.samples, Encoded)
    return all(isinstance(_render(split, index, preprocess, encoded), str) for index in block.unreadable)


def _compute_crc(content: bytes | memoryview, unreadable: Mapping[int, str]) -> int:
    """Return the CRC-32 of a block's pixels and unreadable samples."""
    return zlib.crc32(json.dumps(unreadable).encode(), zlib.crc32(content))


@torch.inference_mode()
def _decode_block(job: _Job, block: range) -> _Block:
    """Decode the samples of a block and write their pixels in place."""
    pixels = np.zeros((len(block), *job.spec.shape), dtype=job.spec.dtype)
    reasons: dict[int, str] = {}
    preprocess, encoded = ImagePreprocess(job.spec), isinstance(job.split.samples, Encoded)
    for place, index in enumerate(block):
        image = _render(job.split, index, preprocess, encoded)
        if isinstance(image, str):
            reasons[index] = image
        else:
            pixels[place] = image
    content = pixels.data.cast("B")
    with job.pixels.open("r+b") as file:
        written = os.pwrite(file.fileno(), content, block.start * _count_bytes(job.spec))
    if written != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _Block(block.start, _compute_crc(content, reasons), reasons)


def _render(
    split: Split, index: int, preprocess: ImagePreprocess, encoded: bool
) -> UInt[np.ndarray, "channels height width"] | str:
    """Return a sample's pixels at the model's size; or why there are none. Whether samples are `Encoded` is known."""
    samples: Any = split.samples
    try:
        if encoded:
            content = _check_content(samples.content(index), int(split.hashes[index]))
            image = decode_image(content, preprocess.spec.value_range, preprocess.spec.dtype)
        else:
            image = samples.read(index)
    except DataError as error:
        return strip_name(error, samples.name(index))
    pixels: np.ndarray = preprocess.store(torch.from_numpy(image)[None])[0].numpy()
    return pixels


def _check_content(content: bytes, expected: int) -> bytes:
    """Return the content of a sample. Raises DataError unless it is what the cache is named by."""
    if hash_bytes(content) != expected:
        raise DataError("changed while it was being read; run again")
    return content
