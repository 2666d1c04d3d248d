"""Arrays of integers, most of them small and many of them zero <-> binary decisions.

First comes which integers are not zero, then their signs, then their magnitudes. Every decision has a logit that is a
sum of terms: one for all decisions alike, and one each for the row (axis 0), the column (axis 1), the kernel (both) and
the position in the kernel (the remaining axes), learned from what was coded before. So that each of these is known
early, elements are coded in passes: the diagonals (row + column + 7 * position) mod 32, in groups that grow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from falconet.codec.coder import ONE, Coder, code_flags, code_number, from_step, log2, squash, to_step

DIAGONALS = 32
STRIDE = 7
"""Diagonals from one position in the kernel to the next; the first elements of a kernel thus lie in different passes."""
GROUPS = np.cumsum([0, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8])
"""Diagonals where passes begin."""
STRIPE = 1 << 20
"""At most so many elements are coded together, which bounds memory."""
LARGEST = (1 << 15) - 1
"""Of magnitudes."""
FIRST_CHUNK = 32
"""Symbols are coded in chunks of so many, or half of what was coded before."""
PRIORS = (ONE // 2, 2 * ONE, 8 * ONE, 32 * ONE)
"""A file chooses how many elements (times ONE) a row or column is thought to have been seen with no surprise."""
KERNEL_PRIOR = 4 * ONE
MAGNITUDE_PRIOR = 3 * ONE
NODE_PRIOR = 3 * ONE


class Term:
    """What each value of a coordinate adds to the logits: by how much its ones and zeros outnumber what was expected."""

    def __init__(self, size: int, prior: int) -> None:
        self.count, self.ones, self.expected = (np.zeros(size, dtype=np.int64) for _ in range(3))
        """Elements seen; those that were one; the sum of their chances without this term."""
        self.prior = prior

    def logits(self) -> np.ndarray:
        found, prior, all_ = self.ones * ONE, self.prior, self.count * ONE
        ones = log2(found + prior) - log2(self.expected + prior)
        return ones - log2(all_ - found + prior) + log2(all_ - self.expected + prior)

    def learn(self, index: np.ndarray, bits: np.ndarray, chances: np.ndarray) -> None:
        size = len(self.count)
        self.count += np.bincount(index, minlength=size)
        # Sums of fewer than 2**20 integers below 2**16: float64 is exact.
        self.ones += np.bincount(index, bits, size).astype(np.int64)
        self.expected += np.bincount(index, chances, size).astype(np.int64)


@dataclass
class Terms:
    """Terms of one kind of decision, and for each element the index into each of them."""

    terms: list[Term]
    indices: list[np.ndarray]

    def at(self, part: slice) -> list[np.ndarray]:
        return [term.logits()[index[part]] for term, index in zip(self.terms, self.indices, strict=True)]

    def learn(self, part: slice, bits: np.ndarray, logits: np.ndarray, own: list[np.ndarray]) -> None:
        for term, index, logit in zip(self.terms, self.indices, own, strict=True):
            term.learn(index[part], bits, squash(logits - logit))


@dataclass
class Memory:
    """What tensors of one file learn from each other: how often symbols were chosen, by their number of bits."""

    nodes: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def copy(self) -> Memory:
        return Memory(dict(self.nodes))


@dataclass(frozen=True)
class Layout:
    """An array as rows, columns and positions; the order in which its elements are coded."""

    rows: int
    columns: int
    positions: int

    @property
    def size(self) -> int:
        return self.rows * self.columns * self.positions


def lay_out(shape: tuple[int, ...]) -> Layout:
    """Return how an array is looked at; vectors, and what has endless rows, as positions without any context."""
    size = int(np.prod(shape))
    if len(shape) < 2 or size // shape[0] > STRIPE:
        return Layout(size, 1, 1)
    return Layout(shape[0], shape[1], size // (shape[0] * shape[1]))


def code_integers(
    coder: Coder, memory: Memory, shape: tuple[int, ...], values: np.ndarray | None, prior: int | None = None
) -> np.ndarray:
    """Code integers of at most LARGEST as magnitudes, int64, of any shape but an empty one."""
    layout = lay_out(shape)
    grid = None if values is None else values.reshape(layout.rows, layout.columns, layout.positions)
    rows, columns = (code_alive(coder, grid, axis, layout) for axis in (0, 1))
    if grid is not None:
        grid = grid[rows][:, columns]
    result = np.zeros((layout.rows, layout.columns, layout.positions), dtype=np.int64)
    inner = Layout(len(rows), len(columns), layout.positions)
    if inner.size:
        result[np.ix_(rows, columns)] = code_dense(coder, memory, inner, grid, prior)
    return result.reshape(shape)


def code_alive(coder: Coder, grid: np.ndarray | None, axis: int, layout: Layout) -> np.ndarray:
    """Return the indices of rows or columns that are not all zero. Vectors have none of these."""
    size = (layout.rows, layout.columns)[axis]
    if min(layout.rows, layout.columns * layout.positions) == 1 or size == 1:
        return np.arange(size)
    alive = None if grid is None else grid.any(axis=(1 - axis, 2)).astype(np.int64)
    if not code_number(coder, 2, None if alive is None else int(not alive.all())):
        return np.arange(size)
    return np.flatnonzero(code_flags(coder, size, alive))


def code_dense(
    coder: Coder, memory: Memory, layout: Layout, grid: np.ndarray | None, prior: int | None
) -> np.ndarray:
    """Code integers in stripes of rows."""
    result = np.zeros((layout.rows, layout.columns, layout.positions), dtype=np.int64)
    height = max(1, STRIPE // (layout.columns * layout.positions))
    for top in range(0, layout.rows, height):
        part = slice(top, min(top + height, layout.rows))
        stripe = Layout(part.stop - top, layout.columns, layout.positions)
        result[part] = code_stripe(coder, memory, stripe, None if grid is None else grid[part], prior)
    return result


def code_stripe(
    coder: Coder, memory: Memory, layout: Layout, grid: np.ndarray | None, prior: int | None
) -> np.ndarray:
    order, bounds = arrange(layout)
    values = None if grid is None else grid.ravel()[order]
    full = code_number(coder, 2, None if values is None else int(values.all()))
    chosen = np.arange(layout.size)
    if not full:
        mask = None if values is None else (values != 0).astype(np.int64)
        chosen = np.flatnonzero(code_mask(coder, layout, order, bounds, mask, prior))
    places = order[chosen]
    result = np.zeros(layout.size, dtype=np.int64)
    result[places] = code_nonzeros(coder, memory, layout, places, None if values is None else values[chosen])
    return result.reshape(layout.rows, layout.columns, layout.positions)


def arrange(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return flat indices in the order of coding, and where in it passes begin and the last one ends."""
    inner = np.arange(layout.columns)[:, None] + STRIDE * np.arange(layout.positions)
    diagonals = ((np.arange(layout.rows)[:, None, None] + inner) % DIAGONALS).astype(np.uint8).ravel()
    order = np.argsort(diagonals, kind="stable")
    counts = np.bincount(diagonals, minlength=DIAGONALS)
    return order, np.concatenate([[0], np.cumsum(counts)])[GROUPS]


def make_terms(layout: Layout, places: np.ndarray, prior: int, kernel_prior: int) -> Terms:
    """Return the terms that can say something of a layout."""
    rows, inner = np.divmod(places, layout.columns * layout.positions)
    columns, positions = np.divmod(inner, layout.positions) if layout.positions > 1 else (inner, inner)
    wanted: list[tuple[int, int, np.ndarray]] = []
    if layout.rows > 1 and layout.size > layout.rows:
        wanted.append((layout.rows, prior, rows))
    if layout.columns > 1 and layout.size > layout.columns:
        wanted.append((layout.columns, prior, columns))
    if layout.positions > 1:
        if min(layout.rows, layout.columns) > 1:
            wanted.append((layout.rows * layout.columns, kernel_prior, places // layout.positions))
        wanted.append((layout.positions, kernel_prior, positions))
    return Terms([Term(size, start) for size, start, _ in wanted], [index for _, _, index in wanted])


def code_mask(
    coder: Coder,
    layout: Layout,
    order: np.ndarray,
    bounds: np.ndarray,
    mask: np.ndarray | None,
    prior: int | None,
) -> np.ndarray:
    """Code which elements are not zero, int64, in the order of coding."""
    start = from_step(code_number(coder, 256, None if mask is None else to_step(int(mask.sum()), layout.size)))
    terms = make_terms(layout, order, PRIORS[code_number(coder, len(PRIORS), prior)], KERNEL_PRIOR)
    common = Term(1, KERNEL_PRIOR)
    everything = np.zeros(layout.size, dtype=np.int64)
    result = np.zeros(layout.size, dtype=np.int64)
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        part = slice(first, last)
        own = terms.at(part)
        logits = np.full(last - first, start + common.logits()[0])
        rest = sum(own, start=np.zeros(last - first, dtype=np.int64))
        result[part] = coder.code(squash(logits + rest), None if mask is None else mask[part])
        terms.learn(part, result[part], logits + rest, own)
        common.learn(everything[part], result[part], squash(rest + start))
    return result


def code_nonzeros(
    coder: Coder, memory: Memory, layout: Layout, places: np.ndarray, values: np.ndarray | None
) -> np.ndarray:
    """Code integers other than zero."""
    if not len(places):
        return np.zeros(0, dtype=np.int64)
    signs = magnitudes = None
    if values is not None:
        signs, magnitudes = (values < 0).astype(np.int64), np.abs(values) - 1
    signed = code_number(coder, 2, None if signs is None else int(signs.any()))
    terms = [make_terms(layout, places, MAGNITUDE_PRIOR, 2 * MAGNITUDE_PRIOR) for _ in range(2)]
    top = code_number(coder, 1 << 15, None if magnitudes is None else int(magnitudes.max()))
    largest, exponents = to_symbols(np.array([top]), top)
    symbols = tails = None
    if magnitudes is not None:
        symbols, exponents = to_symbols(magnitudes, top)
        tails = magnitudes & ((1 << exponents) - 1)
    tree = Tree(memory, int(largest[0]))
    signs, symbols = code_chunks(coder, tree, terms if layout.size > 1 else [], bool(signed), len(places), signs, symbols)
    tree.remember(memory)
    leads, exponents = from_symbols(symbols, top)
    magnitudes = (leads << exponents) + coder.code_evenly(1 << exponents, tails) + 1
    return np.where(signs != 0, -magnitudes, magnitudes)


SHORT = 256
"""Magnitudes up to this one are symbols themselves."""


def to_symbols(values: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return symbols below 256 and the number of bits that they leave open, where `top` is the largest value.

    Larger values are cut to their five leading bits: a binary floating-point number.
    """
    if top < SHORT:
        return values, np.zeros_like(values)
    exponents = np.maximum(np.frexp(values.astype(np.float64))[1].astype(np.int64) - 5, 0)
    return (exponents << 4) + (values >> exponents), exponents


def from_symbols(symbols: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return leading bits and the number of bits that follow."""
    if top < SHORT:
        return symbols, np.zeros_like(symbols)
    exponents = np.maximum((symbols >> 4) - 1, 0)
    return symbols - (exponents << 4), exponents


class Tree:
    """Symbols as paths from the root of a binary tree, the most significant bit first; one tree for each sign."""

    def __init__(self, memory: Memory, top: int) -> None:
        self.depth, self.top = top.bit_length(), top
        size = 2 << self.depth
        """Node n of a sign is n + sign * 2**depth; the root is 1, the children of n are 2n and 2n + 1."""
        known = memory.nodes.get(self.depth)
        self.ones, self.count = known or (np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64))

    def logits(self) -> np.ndarray:
        ones = self.ones * ONE
        return log2(ones + NODE_PRIOR) - log2(self.count * ONE - ones + NODE_PRIOR)

    def learn(self, nodes: np.ndarray, bits: np.ndarray) -> None:
        size = len(self.count)
        self.count = self.count + np.bincount(nodes, minlength=size)
        self.ones = self.ones + np.bincount(nodes, bits, size).astype(np.int64)

    def remember(self, memory: Memory) -> None:
        """Leave a faint trace for the next tensor."""
        count = np.maximum(self.count, TRACE)
        memory.nodes[self.depth] = (self.ones * TRACE // count, np.minimum(self.count, TRACE))


TRACE = 16
"""Choices at a node that the next tensor starts with, at most."""


def code_chunks(  # noqa: PLR0917
    coder: Coder,
    tree: Tree,
    terms: list[Terms],
    signed: bool,
    count: int,
    signs: np.ndarray | None,
    symbols: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Code signs and symbols, both int64, in chunks that grow."""
    all_signs, all_symbols = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    sign_terms, symbol_terms = terms or [Terms([], []), Terms([], [])]
    balance = Term(1, NODE_PRIOR)
    done = 0
    while done < count:
        part = slice(done, min(done + max(FIRST_CHUNK, done // 2), count))
        if signed:
            all_signs[part] = code_signs(coder, balance, sign_terms, part, None if signs is None else signs[part])
        given = None if symbols is None else symbols[part]
        all_symbols[part] = code_symbols(coder, tree, symbol_terms, part, all_signs[part], given)
        done = part.stop
    return all_signs, all_symbols


def code_signs(coder: Coder, balance: Term, terms: Terms, part: slice, signs: np.ndarray | None) -> np.ndarray:
    own = terms.at(part)
    rest = sum(own, start=np.zeros(part.stop - part.start, dtype=np.int64))
    logits = rest + balance.logits()[0]
    signs = coder.code(squash(logits), signs)
    terms.learn(part, signs, logits, own)
    balance.learn(np.zeros_like(signs), signs, squash(rest))
    return signs


def code_symbols(
    coder: Coder, tree: Tree, terms: Terms, part: slice, signs: np.ndarray, symbols: np.ndarray | None
) -> np.ndarray:
    """Code a chunk of symbols, one level of the tree after the other."""
    own = terms.at(part)
    shift = sum(own, start=np.zeros(len(signs), dtype=np.int64))
    nodes, offset = np.ones_like(signs), signs << tree.depth
    for level in range(tree.depth):
        below = tree.depth - 1 - level
        base = tree.logits()[nodes + offset]
        # The further down, the less the scale of a row says.
        logits = base + (shift >> level if level < 3 else 0)
        least = ((2 * nodes + 1) << below) - (1 << tree.depth)
        chances = np.where(least > tree.top, 1, squash(logits))
        bits = coder.code(chances, None if symbols is None else (symbols >> below) & 1)
        if level < 3:
            for term, index in zip(terms.terms, terms.indices, strict=True):
                term.learn(index[part], bits, squash(base))
        tree.learn(nodes + offset, bits)
        nodes = 2 * nodes + bits
    return nodes - (1 << tree.depth)
