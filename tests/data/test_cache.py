from __future__ import annotations

import json
import math
import mmap
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from falconet.data import DataConfig, Split, Unreadable, cache
from falconet.data.cache import PixelCache, _make_key, open_cache
from falconet.data.preprocessing import ImagePreprocess, load_prepared
from falconet.data.sources import read_source
from falconet.errors import DataError, StorageError
from falconet.spec import ImageSpec
from falconet.storage import cache_folder
from tests.conftest import FolderMaker
from tests.data.builders import LoggedImages, make_logged_split

SPEC = ImageSpec((1, 10, 10), mean=(0.5,), std=(0.25,))
BLOCK = 8
"""Samples of a block, in these tests."""
COUNT = 50
BLOCKS = math.ceil(COUNT / BLOCK)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's caches are, of blocks of 8 samples."""
    monkeypatch.setenv("FALCONET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "BLOCK_BYTES", BLOCK * math.prod(SPEC.shape))
    return tmp_path / "cache"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def read_log(log: Path) -> list[int]:
    """Return the numbers of all samples that were read, and forget them."""
    numbers = [int(line) for line in log.read_text().split()] if log.exists() else []
    log.unlink(missing_ok=True)
    return numbers


def everything(pixels: PixelCache) -> Tensor:
    return pixels.take(torch.arange(len(pixels)))


def expect(split: Split, spec: ImageSpec = SPEC) -> Tensor:
    """What the pixels of the readable samples should be, without a file in between."""
    samples, preprocess = split.samples, ImagePreprocess(spec)
    assert isinstance(samples, LoggedImages)
    unlogged = replace(samples, log=Path(os.devnull), pause=0.0)
    readable = [index for index, number in enumerate(samples.numbers) if number not in samples.bad]
    return torch.cat([preprocess.scale_bytes(torch.from_numpy(unlogged.read(index))[None]) for index in readable])


def check(split: Split, spec: ImageSpec = SPEC) -> None:
    """Open a cache and compare every pixel."""
    assert torch.equal(everything(open_cache(split, spec)[0]), expect(split, spec))


def only(folder: Path, suffix: str) -> Path:
    (path,) = folder.glob(f"*{suffix}")
    return path


def block_of(numbers: list[int]) -> set[int]:
    return {number // BLOCK for number in numbers}


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ImageSpec((3, 12, 7), mean=(0.5,) * 3, std=(0.5,) * 3, padding=2),
        ImageSpec((1, 1, 1), mean=(0.5,), std=(0.5,)),
    ],
    ids=["gray", "color", "tiny"],
)
def test_a_second_opening_decodes_nothing(spec: ImageSpec, log: Path) -> None:
    split = make_logged_split(log, COUNT)
    first, unreadable = open_cache(split, spec)
    assert sorted(read_log(log)) == list(range(COUNT))
    second, _ = open_cache(split, spec)
    assert read_log(log) == []
    assert unreadable == ()
    assert first.rows.tolist() == list(range(COUNT))
    assert torch.equal(everything(first), expect(split, spec))
    assert torch.equal(everything(second), expect(split, spec))
    held, _ = load_prepared(split.samples, ImagePreprocess(spec))
    assert (everything(first).int() - held.int()).abs().max() <= 1


def test_samples_are_taken_in_any_order(log: Path) -> None:
    split = make_logged_split(log)
    spec = ImageSpec((3, 10, 6), mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels, _ = open_cache(split, spec)
    indices = torch.tensor([7, 49, 0, 7, 23])
    batch = pixels.take(indices)
    assert (len(pixels), batch.shape) == (COUNT, (5, 3, 10, 6))
    assert torch.equal(batch, expect(split, spec)[indices])
    assert pixels.take(indices[:0]).shape == (0, 3, 10, 6)


def test_what_is_taken_is_a_copy(log: Path) -> None:
    split = make_logged_split(log)
    everything(open_cache(split, SPEC)[0]).zero_()
    check(split)


def test_the_key_follows_from_contents_order_and_shape_alone(log: Path) -> None:
    hashes = make_logged_split(log).hashes
    specs = [
        SPEC,
        replace(SPEC, padding=1),
        replace(SPEC, shape=(1, 10, 11)),
        ImageSpec((3, 10, 10), (0.5,) * 3, (0.5,) * 3),
    ]
    contents = [hashes, hashes[::-1], hashes[:-1], np.append(hashes[:-1], hashes[-1] + np.uint64(1))]
    keys = {_make_key(np.ascontiguousarray(content), spec) for spec in specs for content in contents}
    assert len(keys) == len(specs) * len(contents)
    assert _make_key(hashes, replace(SPEC, mean=(0.1,), std=(0.9,))) == _make_key(hashes, SPEC)


def test_other_contents_go_into_another_cache(log: Path, folder: Path) -> None:
    check(make_logged_split(log))
    check(make_logged_split(log, first=100))
    assert len(list(folder.glob("*.pixels"))) == 2


@pytest.mark.parametrize("place", [0, 799, 800, 2345, COUNT * 100 - 1])
def test_a_flipped_bit_is_mended_without_the_other_blocks(place: int, log: Path, folder: Path) -> None:
    split = make_logged_split(log)
    check(split)
    read_log(log)
    path = only(folder, ".pixels")
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)
    check(split)
    first = place // 800 * BLOCK
    assert sorted(read_log(log)) == list(range(first, min(first + BLOCK, COUNT)))
    check(split)
    assert read_log(log) == []


@pytest.mark.parametrize("length", [0, 1, 799, 800, 3000, COUNT * 100 - 1, COUNT * 100 + 5])
def test_a_file_of_another_length_is_mended(length: int, log: Path, folder: Path) -> None:
    split = make_logged_split(log)
    check(split)
    read_log(log)
    path = only(folder, ".pixels")
    os.truncate(path, length)
    check(split)
    assert block_of(read_log(log)) == {block for block in range(BLOCKS) if length < min((block + 1) * 800, COUNT * 100)}
    assert path.stat().st_size == COUNT * 100


def test_missing_pixels_are_decoded_again(log: Path, folder: Path) -> None:
    split = make_logged_split(log)
    check(split)
    only(folder, ".pixels").unlink()
    read_log(log)
    check(split)
    assert len(read_log(log)) == COUNT


GARBAGE = [
    "",
    "no journal at all\n\x00\xff",
    "[]\n{}\n1\nnull\n",
    '{"start": 0}\n{"start": 0, "crc": 1}\n',
    '{"start": 0, "crc": 1, "unreadable": []}\n{"start": [], "crc": {}, "unreadable": {}}\n',
    '{"start": "x", "crc": 1, "unreadable": {}}\n{"start": 0, "crc": Infinity, "unreadable": {}}\n',
    '{"start": 0, "crc": 0, "unreadable": {"x": "y"}}\n{"start": -8, "crc": 0, "unreadable": {}}\n',
    '{"start": 8000, "crc": 0, "unreadable": {"8001": "cut off"}}\n',
]


@pytest.mark.parametrize("content", GARBAGE)
def test_a_journal_of_garbage_is_made_anew(content: str, log: Path, folder: Path) -> None:
    split = make_logged_split(log)
    check(split)
    read_log(log)
    only(folder, ".journal").write_text(content)
    check(split)
    assert sorted(read_log(log)) == list(range(COUNT))
    check(split)
    assert read_log(log) == []


def test_a_missing_journal_is_made_anew(log: Path, folder: Path) -> None:
    split = make_logged_split(log)
    check(split)
    read_log(log)
    only(folder, ".journal").unlink()
    check(split)
    assert len(read_log(log)) == COUNT


def test_garbage_between_good_lines_costs_nothing(log: Path, folder: Path) -> None:
    split = make_logged_split(log)
    check(split)
    read_log(log)
    path = only(folder, ".journal")
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes() + b'{"start": 0, "cr')
    check(split)
    assert read_log(log) == []


def test_a_last_line_that_is_torn_costs_its_block_alone(log: Path, folder: Path) -> None:
    split = make_logged_split(log)
    check(split)
    read_log(log)
    path = only(folder, ".journal")
    path.write_text(path.read_text()[:-12])
    check(split)
    assert sorted(read_log(log)) == [48, 49]


def test_the_journal_of_another_block_size_is_not_believed(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_logged_split(log)
    check(split)
    for size in (5, 16, 1000):
        monkeypatch.setattr(cache, "BLOCK_BYTES", size * 100)
        check(split)
        lines = only(folder, ".journal").read_text().splitlines()
        assert len(lines) == math.ceil(COUNT / size)


@pytest.mark.parametrize("said", ['{"12": "damaged image: cut off"}', "{}", '{"11": "another reason"}'])
def test_a_journal_that_says_else_of_unreadable_samples_is_not_believed(said: str, log: Path, folder: Path) -> None:
    split = make_logged_split(log, bad=[11])
    check(split)
    read_log(log)
    path = only(folder, ".journal")
    path.write_text(path.read_text().replace('{"11": "damaged image: cut off"}', said))
    pixels, unreadable = open_cache(split, SPEC)
    assert unreadable == (Unreadable("noise/11.png", "damaged image: cut off"),)
    assert torch.equal(everything(pixels), expect(split))
    assert block_of(read_log(log)) == {1}


damages = st.tuples(
    st.sampled_from([".pixels", ".journal"]),
    st.sampled_from(["flip", "cut", "insert"]),
    st.floats(0, 1, exclude_max=True),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(damaged=st.lists(damages, min_size=1, max_size=4))
def test_whatever_is_damaged_the_pixels_are_right(damaged: list[tuple[str, str, float]]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FALCONET_CACHE", name)
        split = make_logged_split(Path(os.devnull), 20, bad=[3, 17])
        check(split)
        for suffix, damage, share in damaged:
            path = only(Path(name), suffix)
            content = path.read_bytes()
            place = int(share * len(content))
            middle = {"flip": bytes(b ^ 4 for b in content[place : place + 1]), "cut": b"", "insert": b"7"}[damage]
            end = len(content) if damage == "cut" else place + (damage == "flip")
            path.write_bytes(content[:place] + middle + content[end:])
        pixels, unreadable = open_cache(split, SPEC)
        assert torch.equal(everything(pixels), expect(split))
        assert [entry.file for entry in unreadable] == ["noise/3.png", "noise/17.png"]


def test_unreadable_samples_are_left_out_and_listed(log: Path) -> None:
    split = make_logged_split(log, bad=[0, 20, 21, 49])
    for _ in range(2):
        pixels, unreadable = open_cache(split, SPEC)
        assert unreadable == tuple(Unreadable(f"noise/{n}.png", "damaged image: cut off") for n in (0, 20, 21, 49))
        assert pixels.rows.tolist() == [number for number in range(COUNT) if number not in (0, 20, 21, 49)]
        assert torch.equal(everything(pixels), expect(split))


def test_a_sample_that_can_be_read_again_is(log: Path) -> None:
    away = make_logged_split(log, bad=[20, 40])
    open_cache(away, SPEC)
    read_log(log)
    open_cache(away, SPEC)
    assert sorted(read_log(log)) == [20, 40]
    back = make_logged_split(log, bad=[40])
    pixels, unreadable = open_cache(back, SPEC)
    assert [entry.file for entry in unreadable] == ["noise/40.png"]
    assert torch.equal(everything(pixels), expect(back))
    assert block_of(read_log(log)) == {20 // BLOCK, 40 // BLOCK}


def test_where_nothing_can_be_read_the_first_reason_is_told(log: Path) -> None:
    reason = r"none of 5 images can be read; the first: noise/0\.png \(damaged image: cut off\)"
    with pytest.raises(DataError, match=reason):
        open_cache(make_logged_split(log, 5, bad=range(5)), SPEC)


CHILD = """
import sys, zlib
from pathlib import Path
import torch
from falconet.data import cache
from falconet.spec import ImageSpec
from tests.data.builders import make_logged_split
log, count, cache.BLOCK_BYTES = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
spec = ImageSpec((1, 10, 10), mean=(0.5,), std=(0.25,))
pixels, _ = cache.open_cache(make_logged_split(log, count, pause=0.02), spec)
print(zlib.crc32(pixels.take(torch.arange(len(pixels))).numpy().tobytes()))
"""


def start_builder(log: Path, count: int) -> subprocess.Popen[str]:
    """Start a process that builds a cache slowly."""
    arguments = [str(log), str(count), str(cache.BLOCK_BYTES)]
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], cwd=root, stdout=subprocess.PIPE, text=True)


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until another process has written so many lines."""
    for _ in range(6000):
        if path.exists() and path.read_text().count("\n") >= count:
            return
        assert process.poll() is None, "ended too soon"
        time.sleep(0.01)
    raise AssertionError("waited for a minute")


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_was(log: Path, folder: Path) -> None:
    with start_builder(log, 300) as builder:
        wait_for_lines(log, 60, builder)
        builder.kill()
    before = read_log(log)
    finished = {json.loads(line)["start"] // BLOCK for line in only(folder, ".journal").read_text().splitlines()}
    assert 0 < len(finished) < 300 // BLOCK
    assert finished <= block_of(before)
    split = make_logged_split(log, 300)
    check(split)
    assert sorted(read_log(log)) == [number for number in range(300) if number // BLOCK not in finished]


@pytest.mark.slow
def test_two_builders_at_once_decode_each_sample_once(log: Path) -> None:
    split = make_logged_split(log, 100)
    with start_builder(log, 100) as builder:
        wait_for_lines(log, 10, builder)
        pixels, _ = open_cache(split, SPEC)
        output, _ = builder.communicate(timeout=60)
    assert torch.equal(everything(pixels), expect(split))
    assert Counter(read_log(log)) == Counter(range(100))
    assert int(output) == zlib.crc32(expect(split).numpy().tobytes())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_build_that_was_broken_off_goes_on(
    error: type[BaseException], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LoggedImages.read

    def read(self: LoggedImages, index: int) -> np.ndarray:
        if index == 30:
            raise error
        return whole(self, index)

    split = make_logged_split(log)
    with monkeypatch.context() as patch:
        patch.setattr(LoggedImages, "read", read)
        with pytest.raises(error):
            open_cache(split, SPEC)
    read_log(log)
    check(split)
    assert sorted(read_log(log)) == list(range(24, COUNT))


def fail_with_full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def check_full_disk(split: Split, folder: Path) -> None:
    with pytest.raises(StorageError) as caught:
        open_cache(split, SPEC)
    message = str(caught.value)
    assert re.search(
        r"No space left on device; .* the pixels take 5 MB, and FALCONET_CACHE says where they go", message
    )
    assert str(folder) in message
    assert "\n" not in message


@pytest.mark.parametrize("call", ["posix_fallocate", "ftruncate"])
def test_a_full_disk_is_found_before_anything_is_decoded(
    call: str, log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_logged_split(log, 50_000)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with_full_disk)
        check_full_disk(split, folder)
    assert read_log(log) == []
    assert list(folder.glob("*.pixels")) == []


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_fills_up_while_building_is_told(
    call: str, log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with_full_disk)
        check_full_disk(make_logged_split(log, 50_000), folder)
    read_log(log)
    check(make_logged_split(log))


def test_a_short_write_is_an_error_and_no_block(log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite

    def write(descriptor: int, content: bytes, offset: int) -> int:
        return whole(descriptor, content[: 100 if offset == 1600 else None], offset)

    split = make_logged_split(log)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        with pytest.raises(StorageError, match="No space left"):
            open_cache(split, SPEC)
    read_log(log)
    check(split)
    assert sorted(read_log(log)) == list(range(16, COUNT))


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_told(
    name: str, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FALCONET_CACHE", str(tmp_path / name))
    with pytest.raises(StorageError, match=rf"cannot write .*{name}: (File exists|Not a directory); .*FALCONET_CACHE"):
        open_cache(make_logged_split(log), SPEC)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_told(log: Path, folder: Path) -> None:
    folder.mkdir(mode=0o500)
    with pytest.raises(StorageError, match=r"Permission denied; .*FALCONET_CACHE"):
        open_cache(make_logged_split(log), SPEC)


@pytest.fixture
def old(log: Path, folder: Path) -> Iterator[dict[int, Path]]:
    """Caches that were last opened so many days ago, with their journals."""
    journals = {}
    for days in (0, 29, 31, 400):
        before = set(folder.glob("*.journal"))
        check(make_logged_split(log, first=1000 * days))
        (path,) = set(folder.glob("*.journal")) - before
        journals[days] = path
    for days, path in journals.items():
        then = time.time() - days * 86400
        os.utime(path, (then, then))
    yield journals
    read_log(log)


def test_caches_that_nobody_opens_are_removed(old: dict[int, Path], log: Path) -> None:
    check(make_logged_split(log, first=5))
    kept = {days for days, path in old.items() if path.exists()}
    assert kept == {0, 29}
    assert {days for days, path in old.items() if path.with_suffix(".pixels").exists()} == kept


def test_opening_an_old_cache_keeps_it(old: dict[int, Path], log: Path) -> None:
    read_log(log)
    check(make_logged_split(log, first=31_000))
    assert read_log(log) == []
    assert old[31].exists()
    assert not old[400].exists()


def test_an_old_cache_that_another_process_is_opening_is_kept(old: dict[int, Path], log: Path) -> None:
    with FileLock(old[31].with_suffix(".lock")):
        check(make_logged_split(log, first=5))
    assert old[31].exists()
    assert old[31].with_suffix(".pixels").exists()


def test_partial_files_of_other_processes_are_left_alone(log: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / ".other.journal.0123.partial").touch()
    check(make_logged_split(log))
    assert (folder / ".other.journal.0123.partial").exists()


class WatchedMap(mmap.mmap):
    """Counts how often pages are given back."""

    returned = 0

    def madvise(self, option: int, *rest: int) -> None:
        assert option == mmap.MADV_DONTNEED
        WatchedMap.returned += 1
        super().madvise(option, *rest)


def test_pages_are_given_back_as_they_are_read(log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RESIDENT_BYTES", 1500)
    monkeypatch.setattr(WatchedMap, "returned", 0)
    split = make_logged_split(log)
    pixels, _ = open_cache(split, SPEC)
    with only(folder, ".pixels").open("rb") as file:
        pixels = replace(pixels, mapped=WatchedMap(file.fileno(), 0, access=mmap.ACCESS_READ))
    expected = expect(split)
    for _ in range(3):
        for start in range(0, COUNT, 4):
            part = torch.arange(start, min(start + 4, COUNT))
            assert torch.equal(pixels.take(part), expected[part])
    # 400 bytes each: given back after every fourth.
    assert WatchedMap.returned == 3 * 13 // 4


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is resident")
def test_memory_stays_flat(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ImageSpec((1, 500, 500), mean=(0.5,), std=(0.5,))
    monkeypatch.setattr(cache, "BLOCK_BYTES", 8 << 20)
    monkeypatch.setattr(cache, "RESIDENT_BYTES", 1 << 20)
    pixels, _ = open_cache(make_logged_split(log, 64), spec)
    for index in range(0, 64, 8):
        pixels.take(torch.arange(index, index + 8))
        # Of 16 MB; the system maps up to some MB at once.
        assert resident_bytes(".pixels") <= 8 << 20


def resident_bytes(name: str) -> int:
    """Return how much of a mapped file is in this process's memory."""
    found = re.findall(rf"{name}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
    return 1024 * sum(map(int, found))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FALCONET_CACHE": "mine", "XDG_CACHE_HOME": "cache"}, "mine"),
        ({"XDG_CACHE_HOME": "cache"}, "cache/falconet/pixels"),
        ({"HOME": "home"}, "home/.cache/falconet/pixels"),
    ],
)
def test_the_folder_is_the_nearest_that_was_said(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FALCONET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_file_that_changes_between_reading_and_decoding_is_left_out(make_folder: FolderMaker) -> None:
    root = make_folder(count=6)
    split = read_source(str(root), root, DataConfig()).splits["train"]
    changed = root / split.samples.name(3)
    Image.new("RGB", (16, 16), "red").save(changed)
    spec = ImageSpec((3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    _, unreadable = open_cache(split, spec)
    assert [(item.file, item.reason) for item in unreadable] == [
        (split.samples.name(3), "changed while it was being read; run again")
    ]


class Deadly(LoggedImages):
    """Images of which one kills the process that reads it, unless that is the one that made them; so often."""

    def read(self, index: int) -> np.ndarray:
        deaths = self.log.with_name("deaths")
        died = deaths.stat().st_size if deaths.exists() else 0
        if self.numbers[index] == 20 and os.getpid() != PARENT and died < DEATHS:
            with deaths.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


PARENT = os.getpid()
DEATHS = 1


def make_deadly(log: Path) -> Split:
    split = make_logged_split(log, COUNT, bad=[3])
    return replace(split, samples=Deadly(range(COUNT), log, frozenset([3])))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems decode in one process")
def test_workers_decode_what_one_process_would(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = make_logged_split(log, COUNT, bad=[3])
    monkeypatch.setattr(cache, "_FEW", 0)
    pixels, unreadable = open_cache(split, SPEC)
    assert torch.equal(everything(pixels), expect(split.take(np.setdiff1d(np.arange(COUNT), [3]))))
    assert [item.file for item in unreadable] == ["noise/3.png"]
    assert Counter(read_log(log)) == Counter(range(COUNT))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems decode in one process")
def test_a_killed_worker_is_replaced(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FEW", 0)
    pixels, unreadable = open_cache(make_deadly(log), SPEC)
    assert log.with_name("deaths").read_text() == "x"
    expected = make_logged_split(log, COUNT).take(np.setdiff1d(np.arange(COUNT), [3]))
    assert torch.equal(everything(pixels), expect(expected))
    assert len(unreadable) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems decode in one process")
def test_workers_that_go_on_dying_are_an_error_that_loses_nothing(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_FEW", 0)
    monkeypatch.setattr(sys.modules[__name__], "DEATHS", 99)
    with pytest.raises(DataError, match=r"decoding processes died 3 times, perhaps for want of memory"):
        open_cache(make_deadly(log), SPEC)
    finished = only(folder, ".journal").read_text().count("\n")
    assert 0 < finished < BLOCKS
