from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as reference

from falconet.data import ImageArray, ImageFiles, Texts, load_dataset
from falconet.data.preprocessing import (
    AnyPreprocess,
    ImagePreprocess,
    SeriesPreprocess,
    TextPreprocess,
    create_preprocess,
    iterate_prepared,
    load_prepared,
    scale_image,
    strip_name,
)
from falconet.data.series import pad_or_resample
from falconet.data.texts import train_tokenizer
from falconet.errors import DataError
from falconet.spec import ImageSpec, SeriesSpec, TextSpec
from tests.conftest import FolderMaker
from tests.data.builders import LoggedImages, make_series_split


def spec(channels: int, height: int, width: int, margin: int = 0) -> ImageSpec:
    means, deviations = (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.4)[:channels]
    return ImageSpec((channels, height, width), mean=means, std=deviations, padding=margin)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def evaluated(images: torch.Tensor, wanted: ImageSpec) -> torch.Tensor:
    """What torchvision makes of images with channels last."""
    x = reference.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True)
    x = reference.rgb_to_grayscale(x) if wanted.shape[0] == 1 else reference.grayscale_to_rgb(x)
    x = reference.resize(x, list(wanted.inner_size), antialias=True)
    x = reference.pad(x, [wanted.padding], padding_mode="edge")
    normalized: torch.Tensor = reference.normalize(x, list(wanted.mean), list(wanted.std))
    return normalized


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("size", [(28, 28), (17, 40), (64, 9)])
@pytest.mark.parametrize(("found", "wanted"), [(1, 1), (3, 3), (3, 1), (1, 3)])
def test_preprocessing_is_that_of_torchvision(found: int, wanted: int, size: tuple[int, int], margin: int) -> None:
    images, target = noise(2, *size, found), spec(wanted, 24, 20, margin)
    x = ImagePreprocess(target)(images)
    assert x.shape == (2, wanted, 24, 20)
    assert x.dtype == torch.float32
    # Torchvision rounds the luma weights to four digits; ours are BT.601's.
    torch.testing.assert_close(x, evaluated(images, target), atol=1e-5 if found == wanted else 1e-3, rtol=0)


def keep_proportions(mode: Literal["crop", "pad"], height: int, width: int) -> ImageSpec:
    return replace(spec(3, height, width), mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=mode)


@pytest.mark.parametrize("wanted", [(24, 24), (24, 20), (32, 48)])
@pytest.mark.parametrize("size", [(50, 80), (81, 50), (33, 33), (7, 100), (200, 151), (24, 20), (1, 30), (31, 16)])
def test_cropping_is_that_of_torchvision(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    images, (height, width), (rows, columns) = noise(2, *size, 3), size, wanted
    wide = height * columns <= width * rows
    covering = [rows, int(rows * width / height)] if wide else [int(columns * height / width), columns]
    x = reference.resize(
        reference.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True), covering, antialias=True
    )
    found = ImagePreprocess(keep_proportions("crop", *wanted))(images)
    torch.testing.assert_close(found, reference.center_crop(x, list(wanted)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wanted", [(24, 24), (24, 20), (32, 48)])
@pytest.mark.parametrize("size", [(50, 80), (81, 50), (33, 33), (7, 100), (200, 151), (24, 20), (1, 30), (31, 16)])
def test_padding_is_that_of_pillow(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = noise(1, *size, 3)
    picture = ImageOps.pad(Image.fromarray(image[0].numpy()), wanted[::-1], Image.Resampling.BILINEAR)
    found = ImagePreprocess(keep_proportions("pad", *wanted))(image)[0].permute(1, 2, 0)
    # Pillow rounds to a gray level after each side.
    np.testing.assert_allclose(255 * found.numpy(), np.asarray(picture), atol=1.01)


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_images_of_the_models_proportions_are_scaled_alike_in_all_ways(mode: Literal["crop", "pad"]) -> None:
    images = noise(2, 60, 50, 3)
    stretched = ImagePreprocess(replace(keep_proportions(mode, 24, 20), resize_mode="stretch"))(images)
    torch.testing.assert_close(ImagePreprocess(keep_proportions(mode, 24, 20))(images), stretched, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("size", [(40, 90), (90, 40), (9, 30)])
def test_8_bits_keep_proportions_within_a_gray_level(mode: Literal["crop", "pad"], size: tuple[int, int]) -> None:
    image, preprocess = noise(1, *size, 3), ImagePreprocess(keep_proportions(mode, 24, 20))
    assert (preprocess.scale_bytes(image) - 255 * preprocess.scale(image)).abs().max() <= 1.01


def test_the_middle_of_a_long_line_costs_little() -> None:
    line = torch.arange(300_000).remainder(256).to(torch.uint8).view(1, 1, -1, 1).expand(-1, -1, -1, 3)
    middle = ImagePreprocess(keep_proportions("crop", 64, 64)).scale(line.contiguous())
    # Enlarged 64 times, and cut to the width of one pixel.
    assert middle.shape == (1, 3, 64, 64)
    assert np.ptp(255 * middle.numpy()) <= 1.5
    assert 255 * float(middle.mean()) == pytest.approx((150_000 - 0.5) % 256, abs=1)


def test_luma_is_that_of_bt_601() -> None:
    primaries = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    gray = ImagePreprocess(spec(1, 4, 4)).scale(primaries.view(4, 1, 1, 3).expand(-1, 4, 4, -1))
    torch.testing.assert_close(gray[:, 0, 0, 0], torch.tensor([0.299, 0.587, 0.114, 1.0]))


def test_images_of_the_right_size_are_only_normalized() -> None:
    images = noise(3, 24, 20, 3)
    x = ImagePreprocess(spec(3, 24, 20))(images)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    torch.testing.assert_close(x, ((images / 255 - mean) / std).permute(0, 3, 1, 2))


def test_scaled_pixels_stay_in_range() -> None:
    images = 255 * (noise(4, 31, 17, 3) > 127).to(torch.uint8)
    x = ImagePreprocess(spec(1, 40, 12, margin=2)).scale(images)
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6


def test_the_margin_repeats_the_border() -> None:
    x = ImagePreprocess(spec(1, 8, 8, margin=2)).scale(noise(1, 4, 4, 1))[0, 0]
    assert (x[:2] == x[2]).all()
    assert (x[-2:] == x[-3]).all()
    assert (x[:, :2] == x[:, 2:3]).all()
    assert (x[:, -2:] == x[:, -3:-2]).all()


def test_images_of_many_sizes_become_one_batch() -> None:
    preprocess = ImagePreprocess(spec(3, 8, 8))
    images = [noise(9, 7, 3).numpy(), noise(20, 30, 1).numpy()]
    batch = torch.cat([scale_image(image, preprocess) for image in images])
    assert batch.shape == (2, 3, 8, 8)
    for image, x in zip(images, batch, strict=True):
        assert torch.equal(preprocess.scale(torch.from_numpy(image)[None])[0], x)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_files_and_arrays_are_scaled_alike(batch_size: int, make_folder: FolderMaker) -> None:
    files = load_dataset(make_folder(count=5)).split("all").samples
    assert isinstance(files, ImageFiles)
    arrays = ImageArray(np.stack([files.read(index) for index in range(10)]), np.array(files.paths))
    preprocess = ImagePreprocess(spec(3, 12, 12))
    from_files, from_arrays = (
        [batch.inputs for batch in iterate_prepared(samples, preprocess, batch_size)] for samples in (files, arrays)
    )
    assert [len(batch) for batch in from_files] == [len(batch) for batch in from_arrays]
    assert max(len(batch) for batch in from_files) == min(batch_size, 10)
    torch.testing.assert_close(torch.cat(from_files), torch.cat(from_arrays), atol=1e-6, rtol=0)
    expected = reference.resize(torch.from_numpy(arrays.images).permute(0, 3, 1, 2) / 255, [12, 12], antialias=True)
    torch.testing.assert_close(torch.cat(from_files), expected, atol=1e-5, rtol=0)


def test_images_are_held_rounded_once() -> None:
    images = noise(600, 9, 7, 1)
    samples = ImageArray(images.numpy(), np.array([str(index) for index in range(600)]))
    preprocess = ImagePreprocess(spec(1, 6, 6))
    held, unreadable = load_prepared(samples, preprocess)
    assert (held.shape, held.dtype, unreadable) == ((600, 1, 6, 6), torch.uint8, {})
    assert (held.float() / 255 - preprocess.scale(images)).abs().max() <= 0.5 / 255 + 1e-6


def test_images_at_size_are_held_as_they_are() -> None:
    images = noise(5, 6, 6, 3)
    samples = ImageArray(images.numpy(), np.array(list("abcde")))
    assert torch.equal(load_prepared(samples, ImagePreprocess(spec(3, 6, 6)))[0], images.permute(0, 3, 1, 2))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_unreadable_samples_are_told_by_position(batch_size: int, tmp_path: Path) -> None:
    samples = LoggedImages(range(20, 30), tmp_path / "log", bad=frozenset({20, 21, 25}))
    preprocess = ImagePreprocess(spec(1, 6, 6))
    batches = list(iterate_prepared(samples, preprocess, batch_size))
    reasons = {index: reason for batch in batches for index, reason in batch.unreadable.items()}
    assert reasons == dict.fromkeys((0, 1, 5), "damaged image: cut off")
    assert sum(len(batch.inputs) for batch in batches) == 7
    held, unreadable = load_prepared(samples, preprocess)
    assert unreadable == reasons
    expected = [preprocess.prepare([samples.read(index)]) for index in (2, 3, 4, 6, 7, 8, 9)]
    assert torch.equal(held, (torch.cat(expected) * 255).round().to(torch.uint8))


def test_unreadable_samples_of_all_batches_are_told(tmp_path: Path) -> None:
    samples = LoggedImages(range(600), tmp_path / "log", bad=frozenset({1, 2, 599}))
    held, unreadable = load_prepared(samples, ImagePreprocess(spec(1, 2, 2)))
    assert (list(unreadable), len(held)) == ([1, 2, 599], 597)


def test_where_nothing_can_be_held_the_first_reason_is_told(tmp_path: Path) -> None:
    samples = LoggedImages([4, 5], tmp_path / "log", bad=frozenset({4, 5}))
    with pytest.raises(
        DataError, match=r"none of 2 samples can be read; the first: noise/4\.png \(damaged image: cut off\)"
    ):
        load_prepared(samples, ImagePreprocess(spec(1, 6, 6)))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("/mnt/photos/dark/1.png: damaged image: cut off", "damaged image: cut off"),
        ("dark/1.png: empty file (0 bytes)", "empty file (0 bytes)"),
        ("No such file or directory", "No such file or directory"),
    ],
)
def test_a_reason_does_not_repeat_the_name(message: str, reason: str) -> None:
    assert strip_name(DataError(message), "dark/1.png") == reason


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    # Not a width of 1, for which torch's own scaling of single float images is wrong.
    wanted=st.tuples(st.integers(1, 40), st.integers(2, 40)),
    channels=st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 3])),
    margin=st.integers(0, 2),
)
def test_scaling_in_bytes_is_within_a_gray_level(
    size: tuple[int, int], wanted: tuple[int, int], channels: tuple[int, int], margin: int
) -> None:
    height, width = (side + 2 * margin for side in wanted)
    preprocess = ImagePreprocess(spec(channels[1], height, width, margin))
    image = noise(1, *size, channels[0])
    scaled = preprocess.scale_bytes(image)
    exact = preprocess.scale(image)
    assert scaled.shape == exact.shape
    assert (scaled - 255 * exact).abs().max() < 1.5


SERIES = SeriesSpec((2, 6), mean=(1.0, -2.0), std=(2.0, 0.5))


@pytest.mark.parametrize("fit", ["pad", "resample"])
def test_series_are_fitted_then_normalized(fit: Literal["pad", "resample"]) -> None:
    wanted = replace(SERIES, length_mode=fit)
    split = make_series_split([np.random.default_rng(k).normal(size=(2, 4 + k)) for k in range(3)], [0, 1, 0])
    preprocess = create_preprocess(wanted)
    assert isinstance(preprocess, SeriesPreprocess)
    held, unreadable = load_prepared(split.samples, preprocess)
    assert (held.dtype, unreadable) == (torch.float32, {})
    fitted = np.stack([pad_or_resample(split.samples.read(index), wanted) for index in range(3)])
    assert np.array_equal(held.numpy(), fitted, equal_nan=True)
    assert held.isnan().sum() == (2 * 3 if fit == "pad" else 0)
    expected = (fitted - np.array([[1], [-2]])) / np.array([[2], [0.5]])
    for normalized in (preprocess(held), preprocess.normalize(held)):
        np.testing.assert_allclose(normalized.numpy(), expected, rtol=1e-6)


def test_texts_become_their_tokens() -> None:
    texts = Texts(["one two", "", "two two two two two two two two"], np.array(["a", "b", "c"]))
    tokenizer = train_tokenizer(texts.texts, 270)
    preprocess = create_preprocess(TextSpec((5,), vocab_size=270), tokenizer)
    assert isinstance(preprocess, TextPreprocess)
    held, unreadable = load_prepared(texts, preprocess)
    assert (held.shape, held.dtype, unreadable) == ((3, 5), torch.int32, {})
    assert torch.equal(held.long(), torch.from_numpy(preprocess.encoder.encode(texts.texts)))
    assert torch.equal(preprocess(held.long()), held.long())
    assert (held[1] == 0).all()
    assert (held[2] > 1).all()


def test_texts_without_their_tokenizer_are_refused() -> None:
    with pytest.raises(DataError, match="wanted the tokenizer of a text model, found none"):
        create_preprocess(TextSpec((5,), vocab_size=270))


@pytest.mark.parametrize("preprocess", [create_preprocess(spec(3, 8, 8)), create_preprocess(SERIES)])
def test_no_constant_is_a_weight(preprocess: AnyPreprocess) -> None:
    assert preprocess.state_dict() == {}
    assert list(preprocess.parameters()) == []
