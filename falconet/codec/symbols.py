"""Integers other than zero, and bytes <-> decisions: signs, and magnitudes as paths in a binary tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from falconet.codec.coder import LEAST, PORTION, Coder, Meter, log2, squash
from falconet.codec.terms import Common, Layout, Terms, make_terms

LARGEST = 1 << 15
"""Largest magnitude of an integer."""
_FIRST_CHUNK = 64
"""Least signs or symbols in a chunk; chunks grow to half of what was coded before, at most PORTION."""
_VALUE_PRIOR = 3.0
_NODE_PRIOR = 3.0
_ABSENT, _EVEN, _MODELED = 0, 1, 2
"""Codings of signs: none is negative; both are equally likely; modeled by position."""


@dataclass
class Memory:
    """Statistics that the tensors of one file share."""

    nodes: dict[int, np.ndarray] = field(default_factory=dict)
    """Counts at the nodes of symbol trees, by the symbols' number of bits."""
    outputs: np.ndarray = field(default_factory=lambda: np.ones(1, dtype=np.int64))
    """Flags of the last matrix's rows that are not all zero: likely, neither are these columns of the next."""

    def copy(self) -> Memory:
        return Memory(dict(self.nodes), self.outputs)


def code_nonzeros(
    coder: Coder, memory: Memory, layout: Layout, places: np.ndarray, values: np.ndarray | None
) -> np.ndarray:
    """Code nonzero integers of magnitude LARGEST or less at flat indices of a layout."""
    if not len(places):
        return np.zeros(0, dtype=np.int64)
    signs = magnitudes = None
    if values is not None:
        signs, magnitudes = (values < 0).astype(np.int64), np.abs(values) - 1
    signs = _code_signs(coder, layout, places, signs)
    magnitudes = _code_magnitudes(coder, memory, layout, places, signs, magnitudes) + 1
    return np.where(signs != 0, -magnitudes, magnitudes)


def _make_value_terms(layout: Layout, places: np.ndarray) -> Terms:
    return make_terms(layout, places, (_VALUE_PRIOR, _VALUE_PRIOR, 2 * _VALUE_PRIOR))


def split(count: int) -> Iterator[slice]:
    """Yield slices of growing size."""
    done = 0
    while done < count:
        part = slice(done, min(done + min(max(_FIRST_CHUNK, done // 2), PORTION), count))
        yield part
        done = part.stop


_WORTHWHILE = 0.998
"""Fraction of the plain coding's bits that a slower model must stay below."""


def _code_signs(coder: Coder, layout: Layout, places: np.ndarray, signs: np.ndarray | None) -> np.ndarray:
    """Code which integers are negative."""
    mode = None
    if signs is not None:
        mode = _ABSENT
        if signs.any():
            cost = _measure(lambda meter: _model_signs(meter, layout, places, signs))
            mode = _MODELED if cost < len(places) * _WORTHWHILE else _EVEN
    mode = coder.code_number(3, mode)
    if mode == _ABSENT:
        return np.zeros(len(places), dtype=np.int64)
    if mode == _EVEN:
        return coder.code_evenly(np.full(len(places), 2), signs)
    return _model_signs(coder, layout, places, signs)


def _measure(write: Callable[[Meter], object]) -> float:
    """Return the bits that `write` writes."""
    meter = Meter()
    write(meter)
    return meter.bits


def _model_signs(coder: Coder, layout: Layout, places: np.ndarray, signs: np.ndarray | None) -> np.ndarray:
    terms, common = _make_value_terms(layout, places), Common(_NODE_PRIOR)
    result = np.zeros(len(places), dtype=np.int64)
    for part in split(len(places)):
        own, shared = terms.at(part), common.logit()
        logits = own.sum(0) + shared
        bits = coder.code(squash(logits), None if signs is None else signs[part])
        terms.learn(part, bits, squash(logits - own))
        common.learn(bits, squash(logits - shared))
        result[part] = bits
    return result


def _code_magnitudes(
    coder: Coder, memory: Memory, layout: Layout, places: np.ndarray, signs: np.ndarray, magnitudes: np.ndarray | None
) -> np.ndarray:
    """Code integers below LARGEST; their signs are known."""
    top = coder.code_number(LARGEST, None if magnitudes is None else int(magnitudes.max()))
    largest = int(_to_symbols(np.array([top]), top)[0][0])
    symbols = tails = scaled = None
    if magnitudes is not None:
        symbols, exponents = _to_symbols(magnitudes, top)
        tails = magnitudes & ((1 << exponents) - 1)
        scaled = _choose_scaled(memory, layout, places, signs, symbols, largest)
    tree = Tree(memory, largest)
    terms = _make_value_terms(layout, places) if tree.depth and coder.code_number(2, scaled) else None
    symbols = code_symbols(coder, tree, terms, signs, symbols)
    tree.remember(memory)
    leads, exponents = _from_symbols(symbols, top)
    result: np.ndarray = (leads << exponents) + coder.code_evenly(1 << exponents, tails)
    return result


def _choose_scaled(
    memory: Memory, layout: Layout, places: np.ndarray, signs: np.ndarray, symbols: np.ndarray, top: int
) -> int:
    """Return 1 where modeling magnitudes by position saves bits, else 0."""
    plain = _measure(lambda meter: code_symbols(meter, Tree(memory, top), None, signs, symbols))
    terms = _make_value_terms(layout, places)
    scaled = _measure(lambda meter: code_symbols(meter, Tree(memory, top), terms, signs, symbols))
    return int(scaled < plain * _WORTHWHILE)


_SHORT = 256
"""Largest magnitude that is a symbol itself."""


def _to_symbols(values: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return symbols below 256 and the number of bits that they leave open, where `top` is the largest value.

    Larger values are cut to their five leading bits: a binary floating-point number.
    """
    if top < _SHORT:
        return values, np.zeros_like(values)
    exponents = np.maximum(np.frexp(values.astype(np.float64))[1].astype(np.int64) - 5, 0)
    return (exponents << 4) + (values >> exponents), exponents


def _from_symbols(symbols: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return leading bits and the number of bits that follow."""
    if top < _SHORT:
        return symbols, np.zeros_like(symbols)
    exponents = np.maximum((symbols >> 4) - 1, 0)
    return symbols - (exponents << 4), exponents


_TRACE = 16
"""Most counts at a node that the next tensor starts with."""


class Tree:
    """Symbols as paths from the root of a binary tree, the most significant bit first; one tree for each sign.

    Node n of a sign is n + sign * 2**depth; the root is 1, the children of n are 2n and 2n + 1.
    """

    def __init__(self, memory: Memory, top: int) -> None:
        self.depth, self.top = top.bit_length(), top
        known = memory.nodes.get(self.depth)
        self.counts = np.zeros((2, 2 << self.depth)) if known is None else known.copy()
        """Ones and zeros chosen at each node, float64."""

    def logits(self) -> np.ndarray:
        ones, zeros = log2(self.counts + _NODE_PRIOR)
        logits: np.ndarray = ones - zeros
        return logits

    def learn(self, nodes: np.ndarray, bits: np.ndarray) -> None:
        size = self.counts.shape[1]
        ones = np.bincount(nodes, bits, size)
        self.counts[0] += ones
        self.counts[1] += np.bincount(nodes, minlength=size) - ones

    def remember(self, memory: Memory) -> None:
        """Store scaled-down counts for the next tensor."""
        total = np.maximum(self.counts.sum(0), _TRACE)
        memory.nodes[self.depth] = np.floor(self.counts * _TRACE / total)


def code_symbols(
    coder: Coder, tree: Tree, terms: Terms | None, signs: np.ndarray, symbols: np.ndarray | None
) -> np.ndarray:
    """Code integers below 2**tree.depth; each takes the tree of its sign."""
    result = np.zeros(len(signs), dtype=np.int64)
    for part in split(len(signs)):
        result[part] = code_chunk(coder, tree, terms, part, signs[part], None if symbols is None else symbols[part])
    return result


_LEVELS = 3
"""Levels of the tree, from the root, that depend on rows and columns."""


def code_chunk(
    coder: Coder, tree: Tree, terms: Terms | None, part: slice, signs: np.ndarray, symbols: np.ndarray | None
) -> np.ndarray:
    """Code a chunk of symbols, one level of the tree after the other."""
    known, shift = tree.logits(), terms.at(part).sum(0) if terms else 0
    offset = signs.astype(np.int64) << tree.depth
    node, nodes, choices = offset + 1, [], []
    for level in range(tree.depth):
        below = tree.depth - 1 - level
        logits = known.take(node)
        if terms and level < _LEVELS:
            # The further down, the less the scale of a row says.
            logits += shift >> level
        chances = squash(logits)
        if (tree.top + 1) & tree.top:
            least = ((2 * (node - offset) + 1) << below) - (1 << tree.depth)
            chances[least > tree.top] = LEAST
        bits = coder.code(chances, None if symbols is None else (symbols >> below) & 1)
        nodes.append(node)
        choices.append(bits)
        node = 2 * node - offset + bits
    if nodes:
        tree.learn(np.concatenate(nodes), np.concatenate(choices))
    if terms and nodes:
        expected = sum(squash(known.take(above)) for above in nodes[:_LEVELS])
        bits, decisions = np.sum(choices[:_LEVELS], axis=0), min(_LEVELS, len(nodes))
        terms.learn(part, bits, np.broadcast_to(expected, (len(terms.indices), len(bits))), decisions)
    return node - offset - (1 << tree.depth)
