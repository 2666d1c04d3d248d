"""Arrays of integers, most of them small and many of them zero <-> binary decisions.

First comes which integers are not zero, then their signs, then their magnitudes. Every decision has a logit that is a
sum of terms: one for all decisions alike, and one each for the row (axis 0), the column (axis 1), the kernel (both) and
the position in the kernel (the remaining axes), learned from what was coded before. So that each of these is known
early, elements are coded in passes: the diagonals (row + column + 7 * position) mod 32, in groups that grow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from falconet.codec.coder import ONE, STEPS, Coder, code_flags, code_number, from_step, log2, squash, to_step

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
VALUE_PRIOR = 3 * ONE
NODE_PRIOR = 3 * ONE


class Terms:
    """What rows, columns, kernels and positions add to the logits: by how much ones and zeros outnumber what was expected.

    All coordinates stand in one table; `indices` (coordinates x elements) says for each element which lines it has.
    """

    def __init__(self, coordinates: list[tuple[int, int, np.ndarray]], count: int) -> None:
        """Take the size, the prior and the value for each element of each coordinate."""
        sizes = [size for size, _, _ in coordinates]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.indices = np.zeros((len(coordinates), count), dtype=np.int64)
        for line, start, (_, _, index) in zip(self.indices, starts, coordinates):  # noqa: B905
            np.add(index, start, out=line)
        prior = np.repeat([prior for _, prior, _ in coordinates], sizes).astype(np.int64)
        self.evidence = np.tile(prior, (4, 1))
        """Times ONE: ones found, ones expected, zeros found, zeros expected; what is expected leaves out this term."""

    def at(self, part: slice) -> np.ndarray:
        """Return the logits of each coordinate for these elements."""
        index = self.indices[:, part]
        if index.size < self.evidence.shape[1]:
            return combine(log2(self.evidence[:, index]))
        return combine(log2(self.evidence))[index]

    def learn(self, part: slice, bits: np.ndarray, chances: np.ndarray) -> None:
        """Take in decisions with their chances without each coordinate."""
        index, size = self.indices[:, part].ravel(), self.evidence.shape[1]
        count = np.bincount(index, minlength=size) * ONE
        # Sums of fewer than 2**20 integers below 2**16: float64 is exact.
        ones = np.bincount(index, np.broadcast_to(bits, chances.shape).ravel(), size).astype(np.int64) * ONE
        expected = np.bincount(index, chances.ravel(), size).astype(np.int64)
        self.evidence += np.stack([ones, expected, count - ones, count - expected])


def combine(logarithms: np.ndarray) -> np.ndarray:
    logits: np.ndarray = logarithms[0] - logarithms[1] - logarithms[2] + logarithms[3]
    return logits


class Common:
    """The term that all elements share."""

    def __init__(self, prior: int) -> None:
        self.evidence = np.full(4, prior)

    def logit(self) -> int:
        return int(combine(log2(self.evidence)))

    def learn(self, bits: np.ndarray, chances: np.ndarray) -> None:
        count, ones, expected = len(bits) * ONE, int(bits.sum()) * ONE, int(chances.sum())
        self.evidence += np.array([ones, expected, count - ones, count - expected])


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
    coder: Coder, memory: Memory, shape: tuple[int, ...], values: np.ndarray | None
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
        result[np.ix_(rows, columns)] = code_dense(coder, memory, inner, grid)
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
    coder: Coder, memory: Memory, layout: Layout, grid: np.ndarray | None
) -> np.ndarray:
    """Code integers in stripes of rows."""
    result = np.zeros((layout.rows, layout.columns, layout.positions), dtype=np.int64)
    height = max(1, STRIPE // (layout.columns * layout.positions))
    for top in range(0, layout.rows, height):
        part = slice(top, min(top + height, layout.rows))
        stripe = Layout(part.stop - top, layout.columns, layout.positions)
        result[part] = code_stripe(coder, memory, stripe, None if grid is None else grid[part])
    return result


def code_stripe(
    coder: Coder, memory: Memory, layout: Layout, grid: np.ndarray | None
) -> np.ndarray:
    order, bounds = arrange(layout)
    values = None if grid is None else grid.ravel()[order]
    full = code_number(coder, 2, None if values is None else int(values.all()))
    chosen = np.arange(layout.size)
    if not full:
        mask = None if values is None else (values != 0).astype(np.int64)
        chosen = np.flatnonzero(code_mask(coder, layout, order, bounds, mask))
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


def make_terms(layout: Layout, places: np.ndarray, priors: tuple[int, int, int]) -> Terms:
    """Return the terms that can say something of a layout, for elements at flat indices.

    The priors are that of rows, that of columns, and that of kernels and positions.
    """
    wanted: list[tuple[int, int, np.ndarray]] = []
    rows, inner = np.divmod(places, layout.columns * layout.positions)
    columns, positions = np.divmod(inner, layout.positions) if layout.positions > 1 else (inner, inner)
    if layout.rows > 1 and layout.size > layout.rows:
        wanted.append((layout.rows, priors[0], rows))
    if layout.columns > 1 and layout.size > layout.columns:
        wanted.append((layout.columns, priors[1], columns))
    if layout.positions > 1 and min(layout.rows, layout.columns) > 1:
        wanted.append((layout.rows * layout.columns, priors[2], places // layout.positions))
    if layout.positions > 1:
        wanted.append((layout.positions, priors[2], positions))
    return Terms(wanted, len(places))


def code_mask(coder: Coder, layout: Layout, order: np.ndarray, bounds: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Code which elements are not zero, int64, in the order of coding."""
    step, choices = None, (None, None)
    if mask is not None:
        step, choices = to_step(int(mask.sum()), layout.size), choose_priors(layout, order, mask)
    start = from_step(code_number(coder, STEPS, step))
    row, column = (PRIORS[code_number(coder, len(PRIORS), choice)] for choice in choices)
    terms = make_terms(layout, order, (row, column, KERNEL_PRIOR))
    common = Common(KERNEL_PRIOR)
    result = np.zeros(layout.size, dtype=np.int64)
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        part = slice(first, last)
        own, shared = terms.at(part), common.logit()
        rest = own.sum(0) + start
        bits = coder.code(squash(rest + shared), None if mask is None else mask[part])
        terms.learn(part, bits, squash(rest + shared - own))
        common.learn(bits, squash(rest))
        result[part] = bits
    return result


def choose_priors(layout: Layout, order: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """Return which priors suit how far rows and columns differ: where they differ more, the less is thought before.

    With E expected in each row, counts n of a gamma-Poisson mixture have the variance E + E**2 / prior.
    """
    grid = np.zeros(layout.size, dtype=np.int64)
    grid[order] = mask
    grid = grid.reshape(layout.rows, layout.columns, layout.positions)
    return choose_prior(grid.sum(axis=(1, 2))), choose_prior(grid.sum(axis=(0, 2)))


def choose_prior(counts: np.ndarray) -> int:
    mean = float(counts.mean())
    excess = max(float(counts.var()) / mean - 1, 1e-9)
    return int(np.abs(np.log(np.array(PRIORS) / ONE) - np.log(mean / excess)).argmin())


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
    priors = (VALUE_PRIOR, VALUE_PRIOR, 2 * VALUE_PRIOR)
    terms = make_terms(layout, places, priors), make_terms(layout, places, priors)
    top = code_number(coder, 1 << 15, None if magnitudes is None else int(magnitudes.max()))
    largest, exponents = to_symbols(np.array([top]), top)
    symbols = tails = None
    if magnitudes is not None:
        symbols, exponents = to_symbols(magnitudes, top)
        tails = magnitudes & ((1 << exponents) - 1)
    tree = Tree(memory, int(largest[0]))
    signs, symbols = code_chunks(coder, tree, terms, bool(signed), len(places), signs, symbols)
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
    """Symbols as paths from the root of a binary tree, the most significant bit first; one tree for each sign.

    Node n of a sign is n + sign * 2**depth; the root is 1, the children of n are 2n and 2n + 1.
    """

    def __init__(self, memory: Memory, top: int) -> None:
        self.depth, self.top = top.bit_length(), top
        known = memory.nodes.get(self.depth)
        self.counts = np.zeros((2, 2 << self.depth), dtype=np.int64) if known is None else known
        """Ones and zeros chosen at each node."""

    def logits(self) -> np.ndarray:
        ones, zeros = log2(self.counts * ONE + NODE_PRIOR)
        logits: np.ndarray = ones - zeros
        return logits

    def learn(self, nodes: np.ndarray, bits: np.ndarray) -> None:
        size = self.counts.shape[1]
        ones = np.bincount(nodes, bits, size).astype(np.int64)
        self.counts = self.counts + np.stack([ones, np.bincount(nodes, minlength=size) - ones])

    def remember(self, memory: Memory) -> None:
        """Leave a faint trace for the next tensor."""
        total = np.maximum(self.counts.sum(0), TRACE)
        memory.nodes[self.depth] = self.counts * TRACE // total


TRACE = 16
"""Choices at a node that the next tensor starts with, at most."""


def code_chunks(  # noqa: PLR0917
    coder: Coder,
    tree: Tree,
    terms: tuple[Terms, Terms],
    signed: bool,
    count: int,
    signs: np.ndarray | None,
    symbols: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Code signs and symbols, both int64, in chunks that grow."""
    all_signs, all_symbols = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    sign_terms, symbol_terms = terms
    balance = Common(NODE_PRIOR)
    done = 0
    while done < count:
        part = slice(done, min(done + max(FIRST_CHUNK, done // 2), count))
        if signed:
            all_signs[part] = code_signs(coder, balance, sign_terms, part, None if signs is None else signs[part])
        given = None if symbols is None else symbols[part]
        all_symbols[part] = code_symbols(coder, tree, symbol_terms, part, all_signs[part], given)
        done = part.stop
    return all_signs, all_symbols


def code_signs(coder: Coder, balance: Common, terms: Terms, part: slice, signs: np.ndarray | None) -> np.ndarray:
    own, shared = terms.at(part), balance.logit()
    rest = own.sum(0)
    signs = coder.code(squash(rest + shared), signs)
    terms.learn(part, signs, squash(rest + shared - own))
    balance.learn(signs, squash(rest))
    return signs


def code_symbols(
    coder: Coder, tree: Tree, terms: Terms | None, part: slice, signs: np.ndarray, symbols: np.ndarray | None
) -> np.ndarray:
    """Code a chunk of symbols, one level of the tree after the other."""
    known, shift = tree.logits(), terms.at(part).sum(0) if terms else 0
    node, offset = np.ones_like(signs), signs << tree.depth
    nodes, choices = [], []
    for level in range(tree.depth):
        below = tree.depth - 1 - level
        logits = known[node + offset]
        nodes.append(node + offset)
        # The further down, the less the scale of a row says.
        if terms and level < LEVELS:
            logits = logits + (shift >> level)
        least = ((2 * node + 1) << below) - (1 << tree.depth)
        bits = coder.code(np.where(least > tree.top, 1, squash(logits)), None if symbols is None else (symbols >> below) & 1)
        choices.append(bits)
        node = 2 * node + bits
    if nodes:
        tree.learn(np.concatenate(nodes), np.concatenate(choices))
    if terms:
        for above, bits in zip(nodes[:LEVELS], choices[:LEVELS], strict=True):
            terms.learn(part, bits, np.tile(squash(known[above]), (len(terms.indices), 1)))
    return node - (1 << tree.depth)


LEVELS = 3
"""Of the tree, from the root, that depend on rows and columns."""
