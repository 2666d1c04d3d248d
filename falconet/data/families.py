"""Clusters of equal and nearly equal samples, which splits must not tear apart. Importing this imports no torch.

A photograph and its smaller copy, a text and the same one in capitals, a recording in other units: what a model learned
from one it knows of the other. They are found as `falconet data` finds near duplicates. What was found is kept among
the user's caches, in a file named by a hash of all contents, so that a source is looked through once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from falconet.data.dataset import Dataset
from falconet.data.duplicates import find_roots
from falconet.data.survey import find_near, survey
from falconet.errors import StorageError
from falconet.storage import cache_folder, write_bytes

MAX_SAMPLES = 50_000
"""Most samples of a source in which near duplicates are looked for. So many small ones in memory took 2 (texts) to 13
seconds (series) of CPU time on a busy machine, images 8, small JPEG files, which must be decoded, 38."""
_MAX_VALUES = 1 << 34
"""Most pixels, steps or characters of such a source, samples times median size: minutes of decoding photographs."""
_RULE = 1
"""Version in each file's name, raised when the same samples would give other pairs."""
_FEW = 256
"""Most samples whose pairs are not cached but found again."""
_SUM_BYTES = 16
_UNUSED_DAYS = 30
"""Days after which a cached file is removed, when another one is made."""


@dataclass(frozen=True, eq=False)
class DuplicateClusters:
    """The distinct contents of a source, and the pairs of nearly equal ones."""

    contents: UInt64[np.ndarray, " contents"]
    """Hashes of the distinct contents, ascending."""
    pairs: Int64[np.ndarray, "pairs 2"]
    """Positions of nearly equal contents; m - 1 pairs connect a cluster of m contents."""
    complete: bool = True
    """Whether near duplicates were looked for: not in sources beyond MAX_SAMPLES or _MAX_VALUES."""

    def name(self, hashes: UInt64[np.ndarray, " samples"]) -> UInt64[np.ndarray, " samples"]:
        """Return the name of each sample's family: the lowest of its members' hashes."""
        names: UInt64[np.ndarray, " contents"] = self.contents[find_roots(self.pairs, len(self.contents))]
        return names[np.searchsorted(self.contents, hashes)]


def find_equal_samples(dataset: Dataset) -> DuplicateClusters:
    """Return the families of equal samples alone. Nothing is decoded."""
    contents = np.unique(np.concatenate([split.hashes for split in dataset.splits.values()]))
    return DuplicateClusters(contents, np.empty((0, 2), dtype=np.int64))


def find_duplicate_clusters(dataset: Dataset) -> DuplicateClusters:
    """Return the families among all samples of a source; which ones follows from the samples' content alone."""
    equal = find_equal_samples(dataset)
    contents, count = equal.contents, sum(map(len, dataset.splits.values()))
    if count > MAX_SAMPLES or count * math.prod(dataset.size) > _MAX_VALUES:
        return replace(equal, complete=False)
    path = cache_folder() / f"{_make_key(dataset, contents)}.pairs"
    pairs = _load_pairs(path, len(contents)) if count > _FEW else None
    if pairs is None:
        pairs = _find_pairs(dataset, contents)
        if count > _FEW:
            _save_pairs(path, pairs)
    return DuplicateClusters(contents, pairs)


def _find_pairs(dataset: Dataset, contents: UInt64[np.ndarray, " contents"]) -> Int64[np.ndarray, "pairs 2"]:
    """Decode all samples and return the positions of nearly equal contents."""
    hashes = np.concatenate([split.hashes for split in dataset.splits.values()])
    near, _ = find_near(dataset, survey(dataset))
    pairs: Int64[np.ndarray, "pairs 2"] = np.searchsorted(contents, hashes[near]).astype(np.int64)
    return pairs


CAUTION = "caution: "
"""Beginning of a note that says why metrics are too optimistic; reports show such notes first."""


def describe_crossing(dataset: Dataset, families: DuplicateClusters) -> tuple[str, ...]:
    """Return what there is to say of equal and nearly equal samples across splits of the source's own.

    Nothing where there are none. In a source that is too large to look for near duplicates, that is said too.
    """
    notes: tuple[str, ...] = ()
    if not families.complete:
        notes = (
            f"near duplicates are looked for in up to {MAX_SAMPLES:,} samples of {_MAX_VALUES:,} values: here only "
            "equal samples are kept on one side of a split",
        )
    present = np.stack([np.isin(families.contents, split.hashes) for split in dataset.splits.values()])
    counts = {
        "groups of equal samples": int((present.sum(axis=0) > 1).sum()),
        "pairs of nearly equal samples": int((present[:, families.pairs].any(axis=2).sum(axis=0) > 1).sum()),
    }
    if not any(counts.values()):
        return notes
    evaluated = "test" if "test" in dataset.splits else "val"
    split = dataset.splits[evaluated]
    others = np.concatenate([other.hashes for name, other in dataset.splits.items() if name != evaluated])
    known = int(np.isin(families.name(split.hashes), families.name(others)).sum())
    found = " and ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return (
        *notes,
        f"{CAUTION}{found} stand in different splits of the source's own; {known:,} of {len(split):,} {evaluated} "
        "samples equal or nearly equal others, so that they are easier than new ones (`falconet data` lists them)",
    )


def _make_key(dataset: Dataset, contents: UInt64[np.ndarray, " contents"]) -> str:
    """Return 32 hexadecimal digits for contents and all by which they are decoded."""
    import PIL

    settings = [_RULE, dataset.kind, dataset.value_range, dataset.rate, PIL.__version__]
    return hashlib.blake2b(json.dumps(settings).encode() + contents.tobytes(), digest_size=16).hexdigest()


def _load_pairs(path: Path, count: int) -> Int64[np.ndarray, "pairs 2"] | None:
    """Return the pairs among `count` contents in a file; None where there is no whole one."""
    with suppress(OSError):
        content = path.read_bytes()
        if checksum(content[_SUM_BYTES:]) == content[:_SUM_BYTES] and len(content) % 16 == 0:
            pairs = np.frombuffer(content[_SUM_BYTES:], dtype="<i8").reshape(-1, 2).astype(np.int64)
            return pairs if pairs.min(initial=0) >= 0 and pairs.max(initial=-1) < count else None
    return None


def _save_pairs(path: Path, pairs: Int64[np.ndarray, "pairs 2"]) -> None:
    """Keep pairs in a file, and remove old files; where there is no room for it, they will be looked for again."""
    content = pairs.astype("<i8").tobytes()
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, checksum(content) + content)
        oldest = time.time() - _UNUSED_DAYS * 86400
        for other in path.parent.glob(f"*{path.suffix}"):
            if other.stat().st_mtime < oldest:
                other.unlink(missing_ok=True)


def checksum(content: bytes) -> bytes:
    """Return the BLAKE2b hash of a file's content."""
    return hashlib.blake2b(content, digest_size=_SUM_BYTES).digest()
