"""Corruptions of images, series and texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from falconet.data import Texts
from falconet.evaluation.corruptions import (
    IMAGE_AMOUNTS,
    SERIES_AMOUNTS,
    SERIES_CORRUPTIONS,
    SMALL_IMAGE_AMOUNTS,
    TEXT_AMOUNTS,
    TEXT_CORRUPTIONS,
    Amounts,
    CorruptedSamples,
    choose_amounts,
    corrupt_images,
    corrupt_text,
    reread_jpeg,
)
from falconet.spec import ImageSpec


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth pictures with edges, in gray levels of 8 bits."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (40, 32), mode="bicubic").clamp(0, 1)
    return (fine * 255).round() / 255


def corrupt(images: Tensor, name: str, amount: float, seed: int = 1) -> Tensor:
    return corrupt_images(images, name, amount, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("table", [IMAGE_AMOUNTS, SMALL_IMAGE_AMOUNTS])
@pytest.mark.parametrize("name", list(IMAGE_AMOUNTS))
def test_images_move_away_with_severity(images: Tensor, table: Mapping[str, Amounts], name: str) -> None:
    found = [corrupt(images, name, float(amount)) for amount in table[name]]
    distances = [float((part - images).square().mean().sqrt()) for part in found]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert all(part.shape == images.shape and part.min() >= 0 and part.max() <= 1 for part in found)


@pytest.mark.parametrize("name", list(IMAGE_AMOUNTS))
def test_images_are_corrupted_alike_by_the_same_seed(images: Tensor, name: str) -> None:
    amount = float(IMAGE_AMOUNTS[name][0])
    assert torch.equal(corrupt(images, name, amount), corrupt(images, name, amount))


@pytest.mark.parametrize(
    ("name", "amount"), [("gaussian_noise", 0.0), ("brightness", 0.0), ("contrast", 1.0), ("affine", 0.0)]
)
def test_nothing_changes_where_nothing_is_asked_for(images: Tensor, name: str, amount: float) -> None:
    torch.testing.assert_close(corrupt(images, name, amount), images, atol=1e-5, rtol=0)


def test_gaussian_noise_has_its_deviation() -> None:
    gray = torch.full((4, 1, 64, 64), 0.5)
    assert float((corrupt(gray, "gaussian_noise", 0.1) - gray).std()) == pytest.approx(0.1, rel=0.03)


def test_shot_noise_counts_photons() -> None:
    gray = torch.full((4, 1, 64, 64), 0.25)
    noisy = corrupt(gray, "shot_noise", 60)
    torch.testing.assert_close(noisy * 60, (noisy * 60).round(), atol=1e-4, rtol=0)
    assert float(noisy.var()) == pytest.approx(0.25 / 60, rel=0.05)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 6.0])
def test_blur_is_that_of_scipy(images: Tensor, deviation: float) -> None:
    wanted = gaussian_filter(images.numpy(), (0, 0, deviation, deviation), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(corrupt(images, "blur", deviation).numpy(), wanted, atol=1e-5)


def test_brightness_keeps_hue_and_saturation() -> None:
    pixel = torch.tensor([0.4, 0.2, 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(corrupt(pixel, "brightness", 0.2), pixel * 1.5)
    assert corrupt(torch.zeros(1, 3, 1, 1), "brightness", 0.2).flatten().tolist() == pytest.approx([0.2] * 3)


def test_shear_slants_about_the_center() -> None:
    bar = torch.zeros(1, 1, 21, 21)
    bar[..., 10] = 1
    slanted = corrupt(bar, "affine", 1.0)[0, 0]
    places = slanted.argmax(dim=1)
    assert places[10] == 10
    assert abs(int(places[5]) - 10) == 5
    assert places[5] - 10 == 10 - places[15]


def test_jpeg_is_that_of_pillow() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 1), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    found = (corrupt(pixels, "jpeg", 40)[0, 0] * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(found, reread_jpeg(image, 40)[..., 0])
    assert Image.fromarray(found).mode == "L"


def test_small_images_take_the_severities_of_small_images() -> None:
    def spec(side: int) -> ImageSpec:
        return ImageSpec(shape=(1, side, 224), mean=(0.0,), std=(1.0,))

    assert choose_amounts(spec(63)) is SMALL_IMAGE_AMOUNTS
    assert choose_amounts(spec(64)) is IMAGE_AMOUNTS


@pytest.mark.parametrize("name", list(SERIES_AMOUNTS))
def test_series_move_away_with_severity(name: str) -> None:
    series = np.cumsum(np.random.default_rng(0).normal(size=(2, 400)), axis=1).astype(np.float32)
    distances = []
    for amount in SERIES_AMOUNTS[name]:
        found = SERIES_CORRUPTIONS[name](series, amount, np.random.default_rng(1))
        again = SERIES_CORRUPTIONS[name](series, amount, np.random.default_rng(1))
        assert found.shape == series.shape
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, again)
        distances.append(np.isnan(found).mean() + np.sqrt(np.nanmean((found - series) ** 2)))
    assert distances[0] > 0
    assert distances == sorted(distances)


def test_noise_of_series_has_its_ratio() -> None:
    series = np.sin(np.linspace(0, 300, 20_000, dtype=np.float32))[None]
    noise = SERIES_CORRUPTIONS["noise"](series, 10, np.random.default_rng(0)) - series
    assert 10 * np.log10(series.var() / noise.var()) == pytest.approx(10, abs=0.2)


def test_what_is_missing_in_a_series_stays_missing() -> None:
    series = np.array([[1, 2, np.nan, 4]], dtype=np.float32)
    for name in ("noise", "gain", "dropped"):
        found = SERIES_CORRUPTIONS[name](series, SERIES_AMOUNTS[name][0], np.random.default_rng(0))
        assert np.isnan(found[0, 2])


@pytest.mark.parametrize("name", list(TEXT_AMOUNTS))
def test_texts_change_in_more_words_with_severity(name: str) -> None:
    text = " ".join(f"numbers{index}after" for index in range(400))
    shares = []
    for amount in TEXT_AMOUNTS[name]:
        found = TEXT_CORRUPTIONS[name](text, amount, np.random.default_rng(0))
        shares.append(1 - np.mean([word in found.split() for word in text.split()]))
    np.testing.assert_allclose(shares, TEXT_AMOUNTS[name], atol=0.08)
    assert shares == sorted(shares)


@pytest.mark.parametrize(("name", "length"), [("swapped_letters", 5), ("dropped_letters", 4), ("dropped_words", 0)])
def test_words_change_within(name: str, length: int) -> None:
    found = TEXT_CORRUPTIONS[name]("abcde", 1.0, np.random.default_rng(0))
    assert len(found) == length
    assert found != "abcde"
    assert not found or (found[0], found[-1]) == ("a", "e")


def test_short_words_and_empty_texts_survive() -> None:
    for name in ("swapped_letters", "dropped_letters"):
        assert TEXT_CORRUPTIONS[name]("I a  b", 1.0, np.random.default_rng(0)) == "I a  b"
    assert TEXT_CORRUPTIONS["dropped_words"]("", 1.0, np.random.default_rng(0)) == ""


def test_samples_are_corrupted_by_their_place() -> None:
    texts = Texts(["one two three four"] * 8, np.array([str(index) for index in range(8)]))
    samples = CorruptedSamples(texts, corrupt_text, "dropped_words", 0.5, seed=0, places=np.arange(8))
    read = [samples.read(index) for index in range(8)]
    assert len(set(read)) > 1
    assert read == [samples.read(index) for index in range(8)]
    assert (len(samples), samples.name(3)) == (8, "3")
    first, last = samples.take(np.array([5, 2])), samples.take(np.array([7]))
    assert [first.read(index) for index in range(2)] == [read[5], read[2]]
    joined = first.join([last])
    assert [joined.read(index) for index in range(3)] == [read[5], read[2], read[7]]
