"""Does any input make the decoder do anything but decode, or raise CodecError?

Valid files of all kinds are altered: in single bits and bytes, pieces cut out, doubled or swapped, values that are
likely to be on an edge; either in the whole file, or in the inflated header and the coded values, where the checksum is
mended so that what lies behind it is reached. With `--guided`, atheris (to be installed for it) chooses instead by the
code that inputs reach. A finding ends the run, and the input is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np

from falconet.codec import coder, container, decode, encode, integers, symbols, tensors, terms, words
from falconet.codec.container import (
    CHECKSUM_BYTES,
    EXPANSION,
    FREE_BYTES,
    MAGIC,
    VERSION,
    inflate,
    read_varint,
    write_varint,
)
from falconet.codec.dictionary import DICTIONARY
from falconet.errors import CodecError

RESULT = Path(__file__).parent / "results" / "codec-fuzz.json"
"""What is recorded there already is added to, unless it was withdrawn."""
EDGES = (0, 1, 2, 3, 4, 5, 10, 11, 16, 127, 128, 255)
SLOW = 5.0
"""Seconds of the processor for one input that are a finding."""


def make_corpus() -> list[bytes]:
    """Return a small file for every kind of array."""
    generator = np.random.default_rng(0)
    sparse = np.where(generator.random((6, 3, 2, 2)) < 0.3, generator.integers(-7, 8, (6, 3, 2, 2)), 0)
    centroids = generator.standard_normal(15).astype(np.float32)
    arrays: dict[str, np.ndarray] = {
        "zeros": np.zeros((5, 4), np.float32),
        "counter": np.array(46900),
        "empty": np.zeros((0, 3), np.float16),
        "grid": (sparse * np.float32(0.046875)).astype(np.float32),
        "channels": (sparse * np.float32(2.0) ** -generator.integers(3, 9, (6, 1, 1, 1))).astype(np.float32),
        "table": np.where(sparse == 0, np.float32(0), centroids[sparse + 7]),
        "brain": (generator.integers(0, 99, 9).astype(np.uint32) << 20).view(np.float32),
        "floats": generator.standard_normal(9).astype(np.float32),
        "halves": generator.standard_normal(9).astype(np.float16),
        "doubles": generator.standard_normal(9),
        "integers": generator.integers(-30000, 30000, (5, 4)),
        "bytes": generator.integers(0, 256, (4, 3)).astype(np.uint8),
        "flags": generator.random((5, 4)) < 0.3,
    }
    header = {"architecture": "lenet5", "labels": ["a", "b"], "mean": [0.5], "deep": [[[]]]}
    return [encode({}, {}), *(encode(header, {name: array}) for name, array in arrays.items())]


def take_apart(data: bytes) -> tuple[bytes, bytes]:
    """Return the inflated header and the coded values."""
    size, start = read_varint(data, len(MAGIC) + 1)
    return inflate(data[start : start + size]), data[start + size : -CHECKSUM_BYTES]


def put_together(front: bytes, stream: bytes) -> bytes:
    """Return a file with a right checksum."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zdict=DICTIONARY)
    packed = compressor.compress(front) + compressor.flush()
    return mend(MAGIC + bytes([VERSION]) + write_varint(len(packed)) + packed + stream)


def mend(content: bytes) -> bytes:
    return content + zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")


def alter(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with one to four alterations."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(result) + 1)
        width = chance.choice((1, 1, 2, 4, 16))
        edit = chance.randrange(6)
        if edit == 0 and place < len(result):
            result[place] ^= 1 << chance.randrange(8)
        elif edit == 1 and place < len(result):
            result[place] = chance.choice(EDGES)
        elif edit == 2:
            result[place:place] = chance.randbytes(width)
        elif edit == 3:
            del result[place : place + width]
        elif edit == 4:
            result[place : place + width] = chance.randbytes(width)
        else:
            other = chance.randrange(len(result) + 1)
            result[place:place] = result[other : other + width]
    return bytes(result)


def draw(corpus: Sequence[tuple[bytes, bytes, bytes]], chance: random.Random) -> bytes:
    """Return an altered file."""
    data, front, stream = chance.choice(corpus)
    way = chance.randrange(10)
    if way == 0:
        return alter(data, chance)
    if way == 1:
        return mend(alter(data[:-CHECKSUM_BYTES], chance))
    if way == 2:
        return put_together(front, chance.randbytes(chance.randrange(60)))
    if way < 6:
        return put_together(alter(front, chance), stream)
    if way == 6:
        return put_together(alter(front, chance), alter(stream, chance))
    return put_together(front, alter(stream, chance))


def attempt(data: bytes, found: Counter[str]) -> None:
    """Decode, and count how it ends; anything but an answer or a CodecError of one line goes up."""
    started = time.process_time()
    try:
        _, tensors = decode(data)
        found["decoded"] += 1
        if sum(tensor.nbytes for tensor in tensors.values()) > FREE_BYTES + EXPANSION * len(data):
            raise RuntimeError("more bytes than a file of its length may hold")
    except CodecError as error:
        if "\n" in str(error):
            raise RuntimeError(f"more than a line: {error}") from error
        found[name_kind(str(error))] += 1
    if time.process_time() - started > SLOW:
        raise RuntimeError("too slow")


KINDS = (
    "wanted a file that begins",
    "checksum",
    "cut short",
    "format version",
    "decisions, and",
    "wanted at most",
    "header is no JSON",
    "wanted a JSON object",
    "comes twice",
    "no type or too many axes",
    "a size has no end",
    "a text has no end",
    "does not end where it should",
    "longer than the file",
    "too large",
    "zeros that nobody wrote",
    "more than its tensors",
    "less than its tensors",
    "no values have such a code",
    "does not rise",
    "a single value",
    "outside of its table",
    "not finite",
    "a grid of",
    "a table of",
)


def name_kind(message: str) -> str:
    return next((kind for kind in KINDS if kind in message), "other damage of header or names")


def run_seeded(count: int, seed: int) -> Counter[str]:
    """Return how inputs ended."""
    found = Counter[str]()
    corpus = [(data, *take_apart(data)) for data in make_corpus()]
    chance = random.Random(seed)  # noqa: S311
    for number in range(count):
        data = draw(corpus, chance)
        try:
            attempt(data, found)
        except BaseException:
            print(f"input {number} of seed {seed}: {data.hex()}", file=sys.stderr)
            raise
    return found


def instrument(module: ModuleType, atheris: ModuleType) -> None:
    for value in vars(module).values():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            atheris.instrument_func(value)


def run_guided(count: int) -> None:
    """Let atheris choose by the code that inputs reach; it ends the process itself, so the last input records."""
    import atheris

    for module in (coder, terms, symbols, integers, words, tensors, container):
        instrument(module, atheris)
    found, started = Counter[str](), time.perf_counter()
    parts = [take_apart(data) for data in make_corpus()]

    def test(choices: bytes) -> None:
        if len(choices) < 2:
            return
        front, stream = parts[choices[0] % len(parts)]
        whole = (choices[2:], stream) if choices[1] % 4 == 0 else (front, choices[2:])
        attempt(put_together(*whole), found)
        if found.total() == count:
            record(found, {SECONDS: time.perf_counter() - started, GUIDED: count})

    atheris.Setup([sys.argv[0], f"-runs={2 * count}", "-max_len=300"], test)
    atheris.Fuzz()


def record(found: Counter[str], more: Mapping[str, float]) -> None:
    """Add to what is recorded; a finding would have ended the run before."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from record import Row, save  # It imports torch, whose memory is not the decoder's.

    known = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    old = {} if any(row["withdrawn"] for row in known) else {row["name"]: row["value"] for row in known}
    ends = {f"{END}{kind}": old.get(f"{END}{kind}", 0) + count for kind, count in found.items()}
    ends = {name: value for name, value in old.items() if name.startswith(END)} | ends
    total = int(sum(ends.values()))
    sums = {name: old.get(name, 0) + more.get(name, 0) for name in (GUIDED, SECONDS)}
    memory = max(old.get(MEMORY, 0), memory)
    target = "1,000,000 inputs, none with another end"
    rows = [Row("hostile inputs of the decoder: decoded, or refused in a line", total, "", total, 0.0, target,
                total >= 1_000_000, interval=(total, total),
                note=f"within the decoder's own limits and {SLOW:g} s of the processor")]  # fmt: skip
    rows += [Row(name, value, unit, total, 0.0) for name, value, unit in
             ((GUIDED, sums[GUIDED], ""), (SECONDS, sums[SECONDS], "s"), (MEMORY, memory, "MiB"))]  # fmt: skip
    rows += [Row(name, value, "", total, 0.0) for name, value in sorted(ends.items(), key=lambda item: -item[1])]
    save(RESULT.stem, rows, ["constriction"])


GUIDED, SECONDS, MEMORY = "chosen by the code that they reach", "seconds of it", "largest memory of the process"
END = "ended as: "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="by atheris")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    if arguments.guided:
        run_guided(arguments.inputs)
    else:
        started = time.perf_counter()
        found = run_seeded(arguments.inputs, arguments.seed)
        record(found, {SECONDS: time.perf_counter() - started})


if __name__ == "__main__":
    main()
