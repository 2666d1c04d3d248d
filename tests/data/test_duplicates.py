from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from sklearn.datasets import load_sample_images

from falconet.data import load_dataset
from falconet.data.duplicates import (
    _BANDS,
    DEAD_ZONE,
    MAX_BITS,
    WINDOW,
    _compare,
    connect,
    find_alike,
    find_close,
    find_equal,
    hash_copies,
    hash_series,
    hash_text,
    is_close,
    make_thumbnails,
    shrink,
)

HASHES = st.integers(0, 2**64 - 1)


def copy_all(images: list[Image.Image]) -> np.ndarray:
    return np.stack([shrink(np.asarray(image)) for image in images])


def find_pairs(images: list[Image.Image]) -> set[tuple[int, int]]:
    copies = copy_all(images)
    pairs, _ = find_alike(hash_copies(copies), make_thumbnails(copies))
    return {(first, second) for first, second in pairs.tolist()}


def brute_force(hashes: list[int]) -> set[tuple[int, int]]:
    pairs = combinations(range(len(hashes)), 2)
    return {(one, two) for one, two in pairs if (hashes[one] ^ hashes[two]).bit_count() <= MAX_BITS}


def save_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def resize(image: Image.Image) -> Image.Image:
    return image.resize((round(image.width * 0.8), round(image.height * 0.8)), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Parts of two photographs, of 160x140 pixels each, that do not overlap; not those that show only sky."""
    boxes = [(x, y, x + 160, y + 140) for x in range(0, 640, 160) for y in range(0, 420, 140)]
    parts = [Image.fromarray(image).crop(box) for image in load_sample_images().images for box in boxes]
    return [part for part in parts if np.asarray(part).std() > 30]


@pytest.mark.parametrize(
    "change",
    [
        save_jpeg,
        resize,
        lambda image: ImageEnhance.Brightness(image).enhance(1.03),
        lambda image: ImageEnhance.Brightness(image).enhance(0.97),
        lambda image: image.point(lambda value: value + 6),
    ],
    ids=["JPEG of quality 60", "80 %", "brighter", "darker", "lifted"],
)
def test_changed_copies_of_photographs_are_found(
    change: Callable[[Image.Image], Image.Image], photos: list[Image.Image]
) -> None:
    pairs = find_pairs([*photos, *map(change, photos)])
    count = len(photos)
    assert pairs == {(index, index + count) for index in range(count)}


def test_symmetric_drawings_are_found() -> None:
    drawings = []
    for index in range(12):
        levels = np.full((90, 90, 3), 255, dtype=np.uint8)
        levels[10 + index : 80 - index, 20 + index : 70 - index] = (index * 15, 40, 90)
        drawings.append(Image.fromarray(levels))
    pairs = find_pairs([*drawings, *map(save_jpeg, drawings)])
    assert {(index, index + 12) for index in range(12)} <= pairs


@pytest.mark.parametrize("flip", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM])
def test_mirrored_copies_are_not_found(flip: Image.Transpose, photos: list[Image.Image]) -> None:
    assert find_pairs([*photos, *(photo.transpose(flip) for photo in photos)]) == set()


@pytest.mark.parametrize("size", [(16, 20, 3), (8, 8, 3), (100, 120, 3), (64, 64, 1)])
def test_noise_is_not_found(size: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    images = [generator.normal(60 + 80 * (index % 2), 12, size).clip(0, 255) for index in range(200)]
    copies = np.stack([shrink(image.astype(np.uint8)) for image in images])
    assert len(find_alike(hash_copies(copies), make_thumbnails(copies))[0]) == 0


def test_different_digits_are_not_found() -> None:
    samples = load_dataset("digits").split("all").samples
    copies = np.stack([shrink(samples.read(index)) for index in range(len(samples))])
    assert len(find_alike(hash_copies(copies), make_thumbnails(copies))[0]) == 0


def test_black_and_white_images_are_no_pairs() -> None:
    assert find_pairs([Image.new("RGB", (20, 20), color) for color in ("black", "black", "white", "white")]) == set()


def test_of_a_family_the_closest_pairs_are_returned(photos: list[Image.Image]) -> None:
    family = [ImageEnhance.Brightness(photos[2]).enhance(1 + 0.01 * step) for step in range(4)]
    assert find_pairs([family[2], family[0], photos[7], family[3], family[1]]) == {(0, 3), (0, 4), (1, 4)}


def test_the_hash_is_made_of_the_lowest_frequencies(photos: list[Image.Image]) -> None:
    copies = copy_all(photos)
    radius = np.add.outer(np.arange(32) ** 2, np.arange(32) ** 2)
    lowest = np.argsort(radius, axis=None, kind="stable")[1:65]
    for copy, value in zip(copies, hash_copies(copies).tolist(), strict=True):
        gray = copy.astype(float) @ [0.299, 0.587, 0.114]
        waves = dctn(gray, type=2).ravel()[lowest]
        ratio = waves / np.sqrt(np.mean(waves**2))
        certain = (np.abs(ratio - DEAD_ZONE) > 1e-3).sum()
        assert abs(value.bit_count() - (ratio > DEAD_ZONE).sum()) <= 64 - certain


def test_a_thumbnail_is_the_mean_of_four_pixels(photos: list[Image.Image]) -> None:
    copies = copy_all(photos[:4])
    means = copies.astype(float).reshape(4, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(make_thumbnails(copies) - means).max() <= 0.5


@given(st.lists(HASHES, min_size=1, max_size=6), st.lists(st.sets(st.integers(0, 63), max_size=5), max_size=10))
@settings(deadline=None)
def test_close_hashes_are_those_of_an_exhaustive_search(values: list[int], flips: list[set[int]]) -> None:
    hashes = [*values]
    for number, bits in enumerate(flips):
        hashes.append(values[number % len(values)] ^ sum(1 << bit for bit in bits))
    found = find_close(np.array(hashes, dtype=np.uint64))
    assert sorted(map(tuple, found.tolist())) == sorted(brute_force(hashes))


def test_among_many_hashes_all_close_ones_are_found() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 1500, dtype=np.uint64)
    for index in range(300):
        bits = generator.choice(64, generator.integers(0, 6), replace=False).astype(np.uint64)
        hashes[index + 1000] = hashes[index] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
    found = {(first, second) for first, second in find_close(hashes).tolist()}
    expected = brute_force(hashes.tolist())
    assert len(expected) > 150
    assert found == expected


def test_very_many_equal_hashes_cost_linear_time_and_stay_connected() -> None:
    count = 1000
    pairs = find_close(np.full(count, 12345, dtype=np.uint64))
    assert len(pairs) <= _BANDS * WINDOW * count
    assert len(connect(pairs, np.zeros(len(pairs)))[0]) == count - 1


@pytest.mark.parametrize("count", [0, 1])
def test_of_fewer_than_two_images_there_are_no_pairs(count: int) -> None:
    pairs, distances = find_alike(np.zeros(count, dtype=np.uint64), np.zeros((count, 16, 16, 3), dtype=np.uint8))
    assert (pairs.shape, distances.shape) == ((0, 2), (0,))


@given(HASHES, st.sets(st.integers(0, 63)))
@settings(deadline=None)
def test_hashes_are_close_up_to_three_bits(value: int, bits: set[int]) -> None:
    other = value ^ sum(1 << bit for bit in bits)
    close = is_close(np.array([value], dtype=np.uint64), np.array([other], dtype=np.uint64))
    assert close.tolist() == [len(bits) <= 3]


def test_distances_are_root_mean_squares() -> None:
    thumbnails = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    pairs = np.array([[0, 1], [2, 4], [3, 3]])
    distances, alike = _compare(thumbnails, pairs)
    wide = thumbnails.astype(float) / 255
    expected = [np.sqrt(np.mean((wide[one] - wide[two]) ** 2)) for one, two in pairs]
    assert distances == pytest.approx(expected, abs=1e-6)
    assert alike.tolist() == [False, False, True]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), max_size=30))
@settings(deadline=None)
def test_what_connects_is_a_minimum_spanning_forest(edges: list[tuple[int, int, int]]) -> None:
    lengths = {(min(one, two), max(one, two)): float(length) for one, two, length in edges if one != two}
    pairs = np.array(list(lengths), dtype=np.int64).reshape(-1, 2)
    kept, distances = connect(pairs, np.array(list(lengths.values()), dtype=np.float64))
    graph = coo_array((list(lengths.values()), pairs.T), shape=(10, 10))
    forest = minimum_spanning_tree(graph.tocsr())
    assert len(kept) == forest.nnz
    assert distances.sum() == forest.sum()


def test_equal_keys_are_linked_one_to_the_next() -> None:
    pairs = find_equal(np.array([7, 0, 5, 7, 0, 2, 7], dtype=np.uint64))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 3), (3, 6)]
    assert find_equal(np.zeros(0, dtype=np.uint64)).shape == (0, 2)


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("Hello, World!", "hello   world", True),
        ("STRASSE", "straße", True),
        ("«Привет» — мир…", "привет мир", True),
        ("你好，世界。", "你好世界", True),
        ("ｆｕｌｌ width", "full width", True),
        ("don't\tstop\n", "Dont stop", True),
        ("good 👍", "good 👎", False),
        ("नि", "नी", False),
        ("price $5", "price €5", False),
        ("Can I top-up?", "can i top up", True),
        ("ab c", "a bd", False),
    ],
)
def test_texts_are_compared_without_case_and_punctuation(first: str, second: str, equal: bool) -> None:
    assert (hash_text(first) == hash_text(second)) is equal


@given(st.text(st.characters(codec="utf-8")))
@settings(deadline=None)
def test_any_text_has_a_hash_that_punctuation_does_not_change(text: str) -> None:
    value = hash_text(text)
    assert 0 <= value < 2**64
    assert hash_text(f' "{text}" !?') == value


@pytest.mark.parametrize("text", ["", "  \n", "...!?", "\u3000。"])
def test_a_text_without_words_is_equal_to_none(text: str) -> None:
    assert hash_text(text) == 0


@given(st.floats(0.01, 1000), st.floats(-100, 100), st.integers(0, 99))
@settings(deadline=None)
def test_series_are_compared_without_offset_and_scale(scale: float, offset: float, seed: int) -> None:
    # Multiples of an eighth of the deviation are far from where rounding changes.
    levels = np.random.default_rng(seed).permutation(np.repeat(np.arange(-8, 9), 3)).astype(np.float64)
    series = np.stack([levels, -levels])
    other = (series * scale + offset * scale).astype(np.float32)
    assert hash_series(other) == hash_series(series.astype(np.float32)) != 0


def test_other_series_have_other_hashes() -> None:
    series = np.random.default_rng(0).normal(size=(100, 2, 50)).astype(np.float32)
    missing = series[0].copy()
    missing[0, 3] = np.nan
    assert len({*map(hash_series, series), hash_series(missing), hash_series(series[0, :, :49])}) == 102


@pytest.mark.parametrize("series", [np.zeros((2, 0)), np.full((1, 30), np.nan), np.tile([[0.0, 1.0]], 40)])
def test_coarse_series_are_equal_to_none(series: np.ndarray) -> None:
    assert hash_series(series.astype(np.float32)) == 0
