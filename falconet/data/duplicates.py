"""Search for samples that are nearly equal: images that look the same, texts and series that say the same.

Images get a perceptual hash of 64 bits: signs of low frequencies of a discrete cosine transform of a small gray copy,
as in Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1. Hashes that
differ in at most three bits are found by sorting, as in Manku, Jain and Das Sarma, "Detecting near-duplicates for web
crawling", WWW 2007. What is found is confirmed on small color copies. Importing this imports no torch.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt, UInt8, UInt64

from falconet.data.dataset import hash_bytes
from falconet.data.images import to_bytes

SIDE = 32
"""Pixels on each side of the copy that is hashed; a thumbnail has half as many."""

DEAD_ZONE = 0.2
"""Fraction of the root mean square of an image's frequencies below which one counts as zero.

Zauner compares with the median, which is about zero. Many frequencies lie close to it, so that compression flips their
bits, in symmetric images half of all. Of 400 small crops of photographs, saved as JPEG of quality 60, 98 % keep all
bits but three with a dead zone, 94 % without it.
"""

MAX_BITS = 3
"""Bits in which hashes of nearly equal images differ at most: one fewer than there are bands."""

_BANDS = 4
"""Parts of 16 bits. Two hashes that differ in at most three bits have at least one part in common."""

WINDOW = 16
"""Most hashes that one is compared with in each band, so that a band common to very many takes linear time."""

_MAX_DISTANCE = 0.04
"""Largest root mean square of the difference of two thumbnails, in 0..1."""

_MAX_DETAIL = 0.02
"""Largest std of the difference of two thumbnails, in 0..1; no two of the embedded digits come nearer than 0.028."""

_MAX_FRACTION = 0.15
"""Largest std of the difference as a fraction of the contrast, so that pale images are not all alike."""

_MIN_LEVELS = 8
"""Fewest different values of a series that is compared, since short or coarse ones are equal by chance."""


def shrink(image: UInt[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "32 32 3"]:
    """Return a copy of SIDE x SIDE pixels in color, each a weighted mean of its surroundings."""
    from PIL import Image

    shown = to_bytes(image)
    picture = Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)
    small = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    copy: UInt8[np.ndarray, "32 32 3"] = np.asarray(small.convert("RGB"))
    return copy


def make_thumbnails(copies: UInt8[np.ndarray, "images 32 32 3"]) -> UInt8[np.ndarray, "images 16 16 3"]:
    """Halve copies that `shrink` made, by the mean of four pixels."""
    wide = copies.astype(np.uint16)
    rows = wide[:, ::2] + wide[:, 1::2]
    sums = rows[:, :, ::2] + rows[:, :, 1::2]
    means: UInt8[np.ndarray, "images 16 16 3"] = ((sums + 2) // 4).astype(np.uint8)
    return means


def hash_copies(copies: UInt8[np.ndarray, "images 32 32 3"]) -> UInt64[np.ndarray, " images"]:
    """Return the perceptual hash of copies that `shrink` made."""
    basis, rows, columns = _make_basis()
    gray = copies.reshape(-1, 3).astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    across = (gray.reshape(-1, SIDE) @ basis.T).reshape(-1, SIDE, len(basis))
    waves = (basis @ across)[:, rows, columns]
    zero = DEAD_ZONE * np.sqrt(np.mean(waves**2, axis=1, keepdims=True))
    octets = np.ascontiguousarray(np.packbits(waves > zero, axis=1))
    hashes: UInt64[np.ndarray, " images"] = octets.view(np.uint64)[:, 0]
    return hashes


@cache
def _make_basis() -> tuple[Float32[np.ndarray, "waves 32"], Int64[np.ndarray, " 64"], Int64[np.ndarray, " 64"]]:
    """Return the cosines of a DCT-II, and the 64 lowest frequencies by row and column, without the mean.

    They are dealt out to the bands in turn: the highest are often all zero, and a band of these alone would be shared
    by very many images.
    """
    waves = np.arange(12)
    basis = np.cos(np.pi * waves[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE)).astype(np.float32)
    squares = waves[:, None] ** 2 + waves**2
    lowest = np.argsort(squares, axis=None, kind="stable")[1:65]
    rows, columns = np.unravel_index(lowest.reshape(-1, _BANDS).T.ravel(), squares.shape)
    return basis, rows, columns


def find_alike(
    hashes: UInt64[np.ndarray, " images"], thumbnails: UInt8[np.ndarray, "images 16 16 3"]
) -> tuple[Int64[np.ndarray, "pairs 2"], Float64[np.ndarray, " pairs"]]:
    """Return pairs of images that look the same, and the distances of their thumbnails in 0..1.

    Of a family of m such images m - 1 pairs are returned, the closest that connect it.
    """
    pairs = find_close(hashes)
    distances, alike = _compare(thumbnails, pairs)
    return connect(pairs[alike], distances[alike])


def find_close(hashes: UInt64[np.ndarray, " samples"]) -> Int64[np.ndarray, "pairs 2"]:
    """Return pairs of positions, the lower first, whose hashes differ in at most MAX_BITS bits.

    All of them, unless more than WINDOW + 1 hashes have a band in common. Those are sorted, and each is compared with
    the WINDOW that follow it: equal ones stay neighbors, so that a large family is still connected, pair by pair.
    """
    found = np.concatenate([_find_close_in_band(hashes, np.uint64(16 * band)) for band in range(_BANDS)])
    found.sort()
    found = found[np.flatnonzero(np.diff(found, prepend=-1))]
    return np.stack(np.divmod(found, max(len(hashes), 1)), axis=1)


def _find_close_in_band(hashes: UInt64[np.ndarray, " samples"], shift: np.uint64) -> Int64[np.ndarray, " pairs"]:
    """Return `first * samples + second` of close pairs with 16 bits in common, those that are `shift` from the top."""
    turned = (hashes << shift) | (hashes >> (np.uint64(64) - shift)) if shift else hashes
    order = np.argsort(turned, kind="stable")
    turned = turned[order]
    bands = turned >> np.uint64(48)
    found = [np.empty(0, dtype=np.int64)]
    for step in range(1, WINDOW + 1):
        rows = np.flatnonzero(bands[step:] == bands[:-step])
        if len(rows) == 0:
            break
        rows = rows[is_close(turned[rows], turned[rows + step])]
        ends = np.sort([order[rows], order[rows + step]], axis=0)
        found.append(ends[0] * len(hashes) + ends[1])
    return np.concatenate(found)


def is_close(first: UInt64[np.ndarray, " pairs"], second: UInt64[np.ndarray, " pairs"]) -> Bool[np.ndarray, " pairs"]:
    """Whether two hashes differ in at most MAX_BITS bits."""
    different = first ^ second
    for _ in range(MAX_BITS):
        different &= different - np.uint64(1)  # Clears the lowest bit; zero stays zero.
    close: Bool[np.ndarray, " pairs"] = different == 0
    return close


def _compare(
    thumbnails: UInt8[np.ndarray, "images 16 16 3"], pairs: Int64[np.ndarray, "pairs 2"]
) -> tuple[Float64[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]:
    """Return the distance of two thumbnails in 0..1, and whether they look the same."""
    flat = thumbnails.reshape(-1, SIDE * SIDE // 4 * 3)
    # By parts, here and below: in floating point, all thumbnails would take four times their memory.
    parts = np.array_split(flat, len(flat) // 2048 + 1)
    contrasts = np.concatenate([part.std(axis=1, dtype=np.float32) for part in parts]) / 255
    distances, details = np.empty(len(pairs)), np.empty(len(pairs))
    for start in range(0, len(pairs), 2048):
        rows = slice(start, start + 2048)
        first, second = (flat[ends].astype(np.float32) for ends in pairs[rows].T)
        difference = (first - second) / 255
        mean_square = np.einsum("ij,ij->i", difference, difference) / flat.shape[1]
        distances[rows] = np.sqrt(mean_square)
        details[rows] = np.sqrt(np.maximum(mean_square - difference.mean(axis=1) ** 2, 0))
    alike = (distances <= _MAX_DISTANCE) & (details <= _MAX_DETAIL)
    alike &= details < _MAX_FRACTION * contrasts[pairs].min(axis=1)
    return distances, alike


def connect(
    pairs: Int64[np.ndarray, "pairs 2"], distances: Float64[np.ndarray, " pairs"]
) -> tuple[Int64[np.ndarray, "kept 2"], Float64[np.ndarray, " kept"]]:
    """Keep the shortest pairs that connect what is connected (Kruskal, Proceedings of the AMS 7, 1956)."""
    parents: dict[int, int] = {}

    def find_root(node: int) -> int:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = node = parents[parent]
        return node

    kept = []
    for row in np.argsort(distances, kind="stable"):
        first, second = find_root(pairs[row, 0].item()), find_root(pairs[row, 1].item())
        if first != second:
            parents[second] = first
            kept.append(row)
    return pairs[kept], distances[kept]


def find_roots(pairs: Int64[np.ndarray, "pairs 2"], count: int) -> Int64[np.ndarray, " count"]:
    """Return for each of `count` positions the lowest that pairs connect it with, itself where there is none.

    Union-find with path halving (Tarjan and van Leeuwen, Journal of the ACM 31, 1984).
    """
    parents = list(range(count))

    def find_root(node: int) -> int:
        while (parent := parents[node]) != node:
            parents[node] = node = parents[parent]
        return node

    for first, second in pairs.tolist():
        low, high = sorted((find_root(first), find_root(second)))
        parents[high] = low
    return np.array([find_root(node) for node in range(count)], dtype=np.int64)


def find_equal(keys: UInt64[np.ndarray, " samples"]) -> Int64[np.ndarray, "pairs 2"]:
    """Return pairs of neighbors among samples of equal keys; a key of 0 is equal to none."""
    order = np.argsort(keys, kind="stable")
    rows = [pair for pair in pairwise(order) if keys[pair[0]] and keys[pair[0]] == keys[pair[1]]]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def hash_text(text: str) -> int:
    """Return 64 bits of a text without case, punctuation and spaces; 0 where nothing remains."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_list_punctuation())
    letters = "".join(plain.split())
    return hash_bytes(letters.encode("utf-8", "surrogatepass")) if letters else 0


@cache
def _list_punctuation() -> dict[int, None]:
    """Return every sign of punctuation that Unicode knows; there is none above the second plane."""
    return {code: None for code in range(0x20000) if unicodedata.category(chr(code)).startswith("P")}


def hash_series(series: Float32[np.ndarray, "channels steps"]) -> int:
    """Return 64 bits of a series without offset and scale of each channel, to two decimals of its std.

    So a copy in other units is found. 0 for a series of fewer than 8 different values among a thousand.
    """
    seen = ~np.isnan(series)
    present = series[seen]
    if len(np.unique(present[:: max(1, len(present) // 1000)])) < _MIN_LEVELS:
        return 0
    wide = np.where(seen, series, 0).astype(np.float64)
    count = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    centered = np.where(seen, wide - wide.sum(axis=1, keepdims=True) / count, 0)
    scale = np.sqrt(np.square(centered).sum(axis=1, keepdims=True) / count)
    # Adding zero makes -0 equal to 0.
    levels = np.round(centered / np.where(scale > 0, scale, 1), 2) + 0.0
    return hash_bytes(np.where(seen, levels, np.inf).tobytes())
