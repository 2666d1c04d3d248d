"""A reader of `model.fnet` from docs/fnet.md alone: symbol by symbol, in Python's integers, without the package's code.

Only the bytes of the preset dictionary are taken from the package. numpy makes the arrays that are returned.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from falconet.codec.dictionary import DICTIONARY

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
NAMES = ("bool", *INTEGERS, "float16", "float32", "float64")
BYTES = (1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8)
FLOATS = ("float16", "float32", "float64")
LOG = [round(256 * math.log2(1 + i / 256)) for i in range(256)]
POW = [round(65536 * 2 ** (i / 256)) for i in range(256)]
WORD = 1 << 32
STATE = 1 << 64


class RangeReader:
    """The range coder."""

    def __init__(self, data: bytes) -> None:
        data += b"\0" * (-len(data) % 4)
        self.words = struct.unpack(f">{len(data) // 4}I", data)
        self.next = 0
        self.lower, self.range = 0, STATE - 1
        self.point = WORD * self.take() + self.take()

    def take(self) -> int:
        self.next += 1
        return self.words[self.next - 1] if self.next <= len(self.words) else 0

    def read(self, left: int, size: int) -> None:
        scale = self.range >> 24
        self.lower = (self.lower + scale * left) % STATE
        self.range = scale * size
        if self.range < WORD:
            self.lower, self.range = self.lower * WORD % STATE, self.range * WORD
            self.point = self.point * WORD % STATE + self.take()

    def quantile(self) -> int:
        result = (self.point - self.lower) % STATE // (self.range >> 24)
        assert result < 1 << 24
        return result

    def bit(self, chance: int) -> int:
        zero = 1 + (((1 << 24) - 2) * (65536 - chance) >> 16)
        if self.quantile() < zero:
            self.read(0, zero)
            return 0
        self.read(zero, (1 << 24) - zero)
        return 1

    def number(self, size: int) -> int:
        if size == 1:
            return 0
        width = (1 << 24) // size
        result = min(self.quantile() // width, size - 1)
        self.read(width * result, width if result < size - 1 else (1 << 24) - width * result)
        return result

    def step_logit(self) -> int:
        return (self.number(256) - 128) * 32


def log(value: int) -> int:
    exponent = value.bit_length() - 1
    return 256 * exponent + LOG[(256 * value >> exponent) - 256]


def squash(logit: int) -> int:
    logit = min(max(logit, -4096), 4095)
    odds = POW[abs(logit) % 256] << abs(logit) // 256
    chance = min(65536 * odds // (odds + 65536), 65535)
    return chance if logit >= 0 else 65536 - chance


class Evidence:
    """In units of 1/65536."""

    def __init__(self, prior: float) -> None:
        self.ones = self.expected_ones = self.zeros = self.expected_zeros = int(prior * 65536)

    def logit(self) -> int:
        return log(self.ones) - log(self.expected_ones) - log(self.zeros) + log(self.expected_zeros)

    def learn(self, bit: int, chance: int) -> None:
        self.ones += bit * 65536
        self.expected_ones += chance
        self.zeros += (1 - bit) * 65536
        self.expected_zeros += 65536 - chance


class Place:
    """Which evidence each element has."""

    def __init__(self, layout: tuple[int, int, int], places: Sequence[int], priors: tuple[float, float, float]) -> None:
        rows, columns, positions = layout
        size = rows * columns * positions
        known: dict[tuple[str, int], Evidence] = {}
        self.evidence: list[list[Evidence]] = []
        for place in places:
            row, column, position = place // (columns * positions), place // positions % columns, place % positions
            keys: list[tuple[str, int, float]] = []
            if rows > 1 and size > rows:
                keys.append(("row", row, priors[0]))
            if columns > 1 and size > columns:
                keys.append(("column", column, priors[1]))
            if rows > 1 and columns > 1 and positions > 1:
                keys.append(("kernel", row * columns + column, priors[2]))
            if positions > 1:
                keys.append(("position", position, priors[2]))
            self.evidence.append([known.setdefault((kind, index), Evidence(prior)) for kind, index, prior in keys])

    def read(self, reader: RangeReader, batches: Sequence[range], start: int, prior: float) -> list[int]:
        """Read a bit for each element."""
        common, result = Evidence(prior), []
        for batch in batches:
            shared = common.logit()
            terms = [[evidence.logit() for evidence in self.evidence[index]] for index in batch]
            bits = [reader.bit(squash(start + shared + sum(own))) for own in terms]
            for index, own, bit in zip(batch, terms, bits, strict=True):
                logit = start + shared + sum(own)
                for evidence, term in zip(self.evidence[index], own, strict=True):
                    evidence.learn(bit, squash(logit - term))
                common.learn(bit, squash(logit - shared))
            result += bits
        return result


def chunks(count: int) -> Iterator[range]:
    done = 0
    while done < count:
        size = min(max(64, done // 2), 1 << 20, count - done)
        yield range(done, done + size)
        done += size


class Tree:
    def __init__(self, top: int, nodes: dict[tuple[int, int], list[int]] | None = None) -> None:
        self.depth, self.top = top.bit_length(), top
        self.counts = nodes or {(sign, node): [0, 0] for sign in (0, 1) for node in range(1 << self.depth)}

    def logit(self, sign: int, node: int) -> int:
        zeros, ones = self.counts[sign, node]
        return log((ones + 3) << 16) - log((zeros + 3) << 16)

    def read_chunk(self, reader: RangeReader, signs: Sequence[int], evidence: list[list[Evidence]] | None) -> list[int]:
        nodes = [1] * len(signs)
        learned = []
        for level in range(self.depth):
            for index, sign in enumerate(signs):
                node = nodes[index]
                plain = logit = self.logit(sign, node)
                if evidence is not None and level < 3:
                    logit += sum(one.logit() for one in evidence[index]) >> level
                least = ((2 * node + 1) << (self.depth - 1 - level)) - (1 << self.depth)
                bit = reader.bit(1 if least > self.top and (self.top + 1) & self.top else squash(logit))
                learned.append((sign, node, bit, squash(plain), index, level))
                nodes[index] = 2 * node + bit
        for sign, node, bit, chance, index, level in learned:
            self.counts[sign, node][bit] += 1
            if evidence is not None and level < 3:
                for one in evidence[index]:
                    one.learn(bit, chance)
        return [node - (1 << self.depth) for node in nodes]

    def read(self, reader: RangeReader, signs: Sequence[int], evidence: list[list[Evidence]] | None) -> list[int]:
        result = []
        for chunk in chunks(len(signs)):
            own = None if evidence is None else [evidence[index] for index in chunk]
            result += self.read_chunk(reader, [signs[index] for index in chunk], own)
        return result

    def faded(self) -> dict[tuple[int, int], list[int]]:
        return {key: [16 * count // max(16, sum(pair)) for count in pair] for key, pair in self.counts.items()}


class Reader:
    """Reads the coded values."""

    def __init__(self, data: bytes) -> None:
        self.coder = RangeReader(data)
        self.outputs = [1]
        self.nodes: dict[int, dict[tuple[int, int], list[int]]] = {}

    def read_array(self, kind: int, shape: tuple[int, ...]) -> np.ndarray:
        count, name, size = math.prod(shape), NAMES[kind], BYTES[kind]
        number = self.coder.number
        way = number(5)
        if way == 0:
            used = [number(256) for _ in range(number(size + 1))] + [0] * size
            word = int.from_bytes(bytes(used[:size]), "big" if name in FLOATS else "little")
            return self.from_words([word] * count, kind).reshape(shape)
        if way in (1, 2):
            if name not in FLOATS:
                return np.array(self.read_integers(shape)).astype(name).reshape(shape)
            steps = self.read_words(10, shape[0] if way == 2 else 1).view(np.float32)
            integers = self.read_integers(shape)
            values = [np.float32(value) * steps[len(steps) * at // count] for at, value in enumerate(integers)]
            return np.array(values, dtype=np.float32).reshape(shape)
        if way == 4:
            return self.read_words(kind, count).reshape(shape)
        form = number(3) if name == "float32" else 0
        width = 16 if form else 8 * size
        keys = self.read_sorted(number(4096) + 1, width)
        sign = 1 << (width - 1)
        if name in FLOATS:
            words = [key - sign if key >= sign else 2 * sign - 1 - key for key in keys]
        else:
            words = [key ^ sign for key in keys] if name.startswith("int") else keys
        zero = words.index(0) if 0 in words else len(words) // 2
        entries = self.lengthen(words, form)
        return self.from_words([entries[zero + index] for index in self.read_integers(shape)], kind).reshape(shape)

    @staticmethod
    def from_words(words: list[int], kind: int) -> np.ndarray:
        patterns = np.array(words, dtype=f"<u{BYTES[kind]}")
        return patterns != 0 if kind == 0 else patterns.view(NAMES[kind])

    @staticmethod
    def lengthen(words: list[int], form: int) -> list[int]:
        if form == 1:
            return [word << 16 for word in words]
        if form == 2:
            values = struct.unpack(f"<{len(words)}e", struct.pack(f"<{len(words)}H", *words))
            return list(struct.unpack(f"<{len(words)}I", struct.pack(f"<{len(words)}f", *values)))
        return words

    def read_words(self, kind: int, count: int) -> np.ndarray:
        name = NAMES[kind]
        form = self.coder.number(3) if name == "float32" else 0
        width = 16 if form else 8 * BYTES[kind]
        words = self.read_planes(count, width)
        if name in FLOATS:
            words = [word >> 1 | (word & 1) << (width - 1) for word in words]
        return self.from_words(self.lengthen(words, form), kind)

    def read_planes(self, count: int, width: int) -> list[int]:
        words = [0] * count
        for _ in range(width // 8):
            mode = self.coder.number(3)
            plane = [0] * count
            if mode == 1:
                plane = [self.coder.number(256) for _ in range(count)]
            elif mode == 2:
                plane = Tree(255).read(self.coder, plane, None)
            words = [256 * word + byte for word, byte in zip(words, plane, strict=True)]
        return words

    def read_sorted(self, count: int, width: int) -> list[int]:
        values = [0] * count
        values[0], values[-1] = self.read_planes(2, width)
        tree, number = Tree(31), self.coder.number
        intervals = [(0, count - 1)] if count > 2 else []
        while intervals:
            lows = [values[a] + (a + b) // 2 - a for a, b in intervals]
            rooms = [values[b] - (b - (a + b) // 2) - low + 1 for (a, b), low in zip(intervals, lows, strict=True)]
            symbols = tree.read_chunk(self.coder, [0] * len(intervals), None)
            firsts = [-(-symbol * room // 32) for symbol, room in zip(symbols, rooms, strict=True)]
            ends = [-(-(symbol + 1) * room // 32) for symbol, room in zip(symbols, rooms, strict=True)]
            sizes = [max(1, end - first) for end, first in zip(ends, firsts, strict=True)]
            shifts = [max(0, size.bit_length() - 15) for size in sizes]
            highs = [number((size - 1 >> shift) + 1) for size, shift in zip(sizes, shifts, strict=True)]
            following = []
            for index, (a, b) in enumerate(intervals):
                middle = (a + b) // 2
                offset = firsts[index] + (highs[index] << shifts[index]) + number(1 << shifts[index])
                values[middle] = lows[index] + min(offset, rooms[index] - 1)
                following += [(a, middle), (middle, b)]
            intervals = [(a, b) for a, b in following if b - a > 1]
        return values

    def read_integers(self, shape: tuple[int, ...]) -> list[int]:
        size = math.prod(shape)
        layout = (size, 1, 1)
        if len(shape) > 1 and size // shape[0] <= 1 << 20:
            layout = (shape[0], shape[1], size // (shape[0] * shape[1]))
        rows, columns, positions = layout
        alive_rows, alive_columns = list(range(rows)), list(range(columns))
        if size > rows > 1:
            hints = [1] * columns
            if columns % len(self.outputs) == 0:
                each = columns // len(self.outputs)
                hints = [self.outputs[index // each] for index in range(columns)]
            alive_columns = self.read_alive(hints)
            alive_rows = self.read_alive([1] * rows)
            self.outputs = [int(row in set(alive_rows)) for row in range(rows)]
        result = [0] * size
        height = max(1, (1 << 20) // max(1, len(alive_columns) * positions))
        for top in range(0, len(alive_rows) if alive_columns else 0, height):
            chosen = alive_rows[top : top + height]
            values = self.read_stripe((len(chosen), len(alive_columns), positions))
            for place, value in values.items():
                row, rest = divmod(place, len(alive_columns) * positions)
                column, position = divmod(rest, positions)
                result[(chosen[row] * columns + alive_columns[column]) * positions + position] = value
        return result

    def read_alive(self, hints: list[int]) -> list[int]:
        if not self.coder.number(2):
            return list(range(len(hints)))
        alive = []
        for hint in (0, 1):
            same = [index for index, own in enumerate(hints) if own == hint]
            if same:
                chance = squash(self.coder.step_logit())
                alive += [index for index in same if self.coder.bit(chance)]
        return sorted(alive)

    def read_stripe(self, layout: tuple[int, int, int]) -> dict[int, int]:
        _, columns, positions = layout
        places, batches = list(range(math.prod(layout))), [range(math.prod(layout))]
        if columns * positions > 1:
            sums = [
                place // (columns * positions) + place // positions % columns + place % positions * 7
                for place in places
            ]
            places.sort(key=lambda place: sums[place] % 32)
            starts = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
            ends = [sum(value % 32 < start for value in sums) for start in starts]
            batches = [range(first, last) for first, last in itertools.pairwise(ends)]
        if not self.coder.number(2):
            start = self.coder.step_logit()
            row, column = ((0.5, 2, 8, 32)[self.coder.number(4)] for _ in range(2))
            bits = Place(layout, places, (row, column, 4)).read(self.coder, batches, start, 4)
            places = [place for place, bit in zip(places, bits, strict=True) if bit]
        if not places:
            return {}
        signs = self.read_signs(layout, places)
        magnitudes = self.read_magnitudes(layout, places, signs)
        return {place: -value if sign else value for place, sign, value in zip(places, signs, magnitudes, strict=True)}

    def read_signs(self, layout: tuple[int, int, int], places: list[int]) -> list[int]:
        mode = self.coder.number(3)
        if mode == 2:
            return Place(layout, places, (3, 3, 6)).read(self.coder, list(chunks(len(places))), 0, 3)
        return [self.coder.number(2) if mode else 0 for _ in places]

    def read_magnitudes(self, layout: tuple[int, int, int], places: list[int], signs: list[int]) -> list[int]:
        top = self.coder.number(32768)
        greatest, long = top, top >= 256
        if long:
            exponent = top.bit_length() - 5
            greatest = 16 * exponent + (top >> exponent)
        tree = Tree(greatest, self.nodes.get(greatest.bit_length()))
        evidence = None
        if tree.depth and self.coder.number(2):
            evidence = Place(layout, places, (3, 3, 6)).evidence
        symbols = tree.read(self.coder, signs, evidence)
        self.nodes[tree.depth] = tree.faded()
        exponents = [max(0, (symbol >> 4) - 1) if long else 0 for symbol in symbols]
        return [
            1 + (symbol - 16 * exponent << exponent) + self.coder.number(1 << exponent)
            for symbol, exponent in zip(symbols, exponents, strict=True)
        ]


def read(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays of a whole, valid file."""
    assert data[:5] == b"fnet\1"
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")

    def read_varint(content: bytes, position: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (content[position] & 127) << shift
            shift, position = shift + 7, position + 1
            if content[position - 1] < 128:
                return value, position

    length, position = read_varint(data, 5)
    front = zlib.decompressobj(-15, zdict=DICTIONARY).decompress(data[position : position + length])
    reader = Reader(data[position + length : -4])
    position = front.index(0)
    header: dict[str, Any] = json.loads(front[:position])
    arrays = {}
    position += 1
    while position < len(front):
        end = front.index(0, position)
        name, kind, axes = front[position:end].decode(), front[end + 1], front[end + 2]
        position, shape = end + 3, []
        for _ in range(axes):
            size, position = read_varint(front, position)
            shape.append(size)
        empty = np.zeros(shape, dtype=NAMES[kind])
        arrays[name] = reader.read_array(kind, tuple(shape)) if empty.size else empty
    return header, arrays
