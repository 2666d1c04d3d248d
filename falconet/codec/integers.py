"""Arrays of integers, most of them small and many of them zero <-> binary decisions.

First comes which integers are not zero, then their signs, then their magnitudes. Every decision has a logit that is a
sum of terms: one for all decisions alike, and one each for the row (axis 0), the column (axis 1), the kernel (both) and
the position in the kernel (the remaining axes), learned from what was coded before. So that each of these is known
early, elements are coded in passes: the diagonals (row + column + 7 * position) mod 32, in groups that grow.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from falconet.codec.coder import LEAST, STEPS, Coder, code_flags, code_number, from_step, log2, squash, to_step

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
PRIORS = (0.5, 2.0, 8.0, 32.0)
"""A file chooses how many ones, and zeros, a row or column is thought to have had before without any surprise."""
KERNEL_PRIOR = 4.0
VALUE_PRIOR = 3.0
NODE_PRIOR = 3.0


class Terms:
    """What rows, columns, kernels and positions add to logits: by how much ones and zeros outnumber what was expected.

    All coordinates stand in one table; `indices` (coordinates x elements) says for each element which columns it has.
    Evidence is float64, yet exact: multiples of 2**-16 that stay below 2**36.
    """

    def __init__(self, coordinates: list[tuple[int, float, np.ndarray]], count: int) -> None:
        """Take the size, the prior and the value for each element of each coordinate."""
        sizes = [size for size, _, _ in coordinates]
        starts = np.cumsum([0, *sizes])[:-1]
        self.indices = np.zeros((len(coordinates), count), dtype=np.int64)
        for line, start, (_, _, index) in zip(self.indices, starts, coordinates, strict=True):
            np.add(index, start, out=line)
        self.evidence = np.tile(np.repeat([prior for _, prior, _ in coordinates], sizes), (4, 1))
        """Ones found, ones expected, zeros found, zeros expected; what is expected leaves out this term."""

    def at(self, part: slice) -> np.ndarray:
        """Return the logits of each coordinate for these elements."""
        index = self.indices[:, part]
        if index.size < self.evidence.shape[1]:
            return combine(log2(self.evidence[:, index]))
        return combine(log2(self.evidence)).take(index)

    def learn(self, part: slice, bits: np.ndarray, chances: np.ndarray, decisions: int = 1) -> None:
        """Take in decisions with their chances without each coordinate; of several for each element, the sums."""
        for index, chance in zip(self.indices[:, part], np.atleast_2d(chances), strict=True):
            take_in(self.evidence, index, bits, chance, decisions)


def take_in(evidence: np.ndarray, index: np.ndarray, bits: np.ndarray, chances: np.ndarray, decisions: int) -> None:
    size = evidence.shape[1]
    count = np.bincount(index, minlength=size) * decisions
    ones, expected = np.bincount(index, bits, size), np.bincount(index, chances, size)
    evidence[0] += ones
    evidence[1] += expected
    evidence[2] += count - ones
    evidence[3] += count - expected


def combine(logarithms: np.ndarray) -> np.ndarray:
    logits: np.ndarray = logarithms[0] - logarithms[1] - logarithms[2] + logarithms[3]
    return logits


class Common:
    """The term that all elements share."""

    def __init__(self, prior: float) -> None:
        self.evidence = np.full(4, prior)

    def logit(self) -> int:
        return int(combine(log2(self.evidence)))

    def learn(self, bits: np.ndarray, chances: np.ndarray) -> None:
        # Exact as long as the sum stays below 2**36, whatever the order of summation.
        ones, expected = bits.sum(), chances.sum()
        self.evidence += (ones, expected, len(bits) - ones, len(bits) - expected)


@dataclass
class Memory:
    """What tensors of one file learn from each other."""

    nodes: dict[int, np.ndarray] = field(default_factory=dict)
    """How often symbols were chosen, by their number of bits."""
    outputs: np.ndarray = field(default_factory=lambda: np.ones(1, dtype=np.int64))
    """Which rows of the last matrix or kernel were not all zero: likely, these are the columns of the next that matter."""

    def copy(self) -> Memory:
        return Memory(dict(self.nodes), self.outputs)


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
    rows, columns = np.arange(layout.rows), np.arange(layout.columns)
    if layout.size > layout.rows > 1:
        inputs, size = memory.outputs, layout.columns
        hints = np.repeat(inputs, size // len(inputs)) if size % len(inputs) == 0 else np.ones(size, dtype=np.int64)
        columns = code_alive(coder, hints, None if grid is None else grid.any(axis=(0, 2)))
        rows = code_alive(coder, np.ones(layout.rows, dtype=np.int64), None if grid is None else grid.any(axis=(1, 2)))
        memory.outputs = np.isin(np.arange(layout.rows), rows).astype(np.int64)
    if grid is not None:
        grid = grid[rows][:, columns]
    result = np.zeros((layout.rows, layout.columns, layout.positions), dtype=np.int64)
    inner = Layout(len(rows), len(columns), layout.positions)
    if inner.size:
        result[np.ix_(rows, columns)] = code_dense(coder, memory, inner, grid)
    return result.reshape(shape)


def code_alive(coder: Coder, hints: np.ndarray, alive: np.ndarray | None) -> np.ndarray:
    """Return the indices of rows or columns that are not all zero. Those with the same hint have the same chance."""
    if not code_number(coder, 2, None if alive is None else int(not alive.all())):
        return np.arange(len(hints))
    result = np.zeros(len(hints), dtype=np.int64)
    for hint in (0, 1):
        same = np.flatnonzero(hints == hint)
        if len(same):
            result[same] = code_flags(coder, len(same), None if alive is None else alive[same].astype(np.int64))
    return np.flatnonzero(result)


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
    order, parts = arrange(layout)
    values = None if grid is None else grid.ravel()[order]
    full = code_number(coder, 2, None if values is None else int(values.all()))
    chosen = np.arange(layout.size)
    if not full:
        mask = None if values is None else (values != 0).astype(np.int64)
        chosen = np.flatnonzero(code_mask(coder, layout, order, parts, mask))
    places = order[chosen]
    result = np.zeros(layout.size, dtype=np.int64)
    result[places] = code_nonzeros(coder, memory, layout, places, None if values is None else values[chosen])
    return result.reshape(layout.rows, layout.columns, layout.positions)


def arrange(layout: Layout) -> tuple[np.ndarray, list[slice]]:
    """Return flat indices in the order of coding, and the passes in it. Vectors take one pass."""
    if layout.columns * layout.positions == 1:
        return np.arange(layout.size), [slice(0, layout.size)]
    inner = np.arange(layout.columns)[:, None] + STRIDE * np.arange(layout.positions)
    diagonals = ((np.arange(layout.rows)[:, None, None] + inner) % DIAGONALS).astype(np.uint8).ravel()
    ends = np.cumsum([0, *np.bincount(diagonals, minlength=DIAGONALS)])[GROUPS].tolist()
    passes = [slice(first, last) for first, last in itertools.pairwise(ends) if first < last]
    return np.argsort(diagonals, kind="stable"), passes


def make_terms(layout: Layout, places: np.ndarray, priors: tuple[float, float, float]) -> Terms:
    """Return the terms that can say something of a layout, for elements at flat indices.

    The priors are that of rows, that of columns, and that of kernels and positions.
    """
    wanted: list[tuple[int, float, np.ndarray]] = []
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


def code_mask(coder: Coder, layout: Layout, order: np.ndarray, parts: list[slice], mask: np.ndarray | None) -> np.ndarray:
    """Code which elements are not zero, int64, in the order of coding."""
    step, choices = None, (None, None)
    if mask is not None:
        step, choices = to_step(int(mask.sum()), layout.size), choose_priors(layout, order, mask)
    start = from_step(code_number(coder, STEPS, step))
    row, column = (PRIORS[code_number(coder, len(PRIORS), choice)] for choice in choices)
    terms = make_terms(layout, order, (row, column, KERNEL_PRIOR))
    common = Common(KERNEL_PRIOR)
    result = np.zeros(layout.size, dtype=np.int64)
    for part in parts:
        own, shared = terms.at(part), common.logit()
        logits = own.sum(0) + (start + shared)
        bits = coder.code(squash(logits), None if mask is None else mask[part])
        terms.learn(part, bits, squash(logits - own))
        common.learn(bits, squash(logits - shared))
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
    return int(np.abs(np.log(PRIORS) - np.log(mean / excess)).argmin())


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
        self.counts = np.zeros((2, 2 << self.depth)) if known is None else known.copy()
        """Ones and zeros chosen at each node, float64."""

    def logits(self) -> np.ndarray:
        ones, zeros = log2(self.counts + NODE_PRIOR)
        logits: np.ndarray = ones - zeros
        return logits

    def learn(self, nodes: np.ndarray, bits: np.ndarray) -> None:
        size = self.counts.shape[1]
        ones = np.bincount(nodes, bits, size)
        self.counts[0] += ones
        self.counts[1] += np.bincount(nodes, minlength=size) - ones

    def remember(self, memory: Memory) -> None:
        """Leave a faint trace for the next tensor."""
        total = np.maximum(self.counts.sum(0), TRACE)
        memory.nodes[self.depth] = np.floor(self.counts * TRACE / total)


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
    logits = own.sum(0) + shared
    signs = coder.code(squash(logits), signs)
    terms.learn(part, signs, squash(logits - own))
    balance.learn(signs, squash(logits - shared))
    return signs


def code_symbols(
    coder: Coder, tree: Tree, terms: Terms | None, part: slice, signs: np.ndarray, symbols: np.ndarray | None
) -> np.ndarray:
    """Code a chunk of symbols, one level of the tree after the other."""
    known, shift = tree.logits(), terms.at(part).sum(0) if terms else 0
    offset = signs.astype(np.int64) << tree.depth
    node, nodes, choices = offset + 1, [], []
    for level in range(tree.depth):
        below = tree.depth - 1 - level
        logits = known.take(node)
        if terms and level < LEVELS:
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
        expected = sum(squash(known.take(above)) for above in nodes[:LEVELS])
        bits, decisions = np.sum(choices[:LEVELS], axis=0), min(LEVELS, len(nodes))
        terms.learn(part, bits, np.broadcast_to(expected, (len(terms.indices), len(bits))), decisions)
    return node - offset - (1 << tree.depth)


LEVELS = 3
"""Of the tree, from the root, that depend on rows and columns."""
