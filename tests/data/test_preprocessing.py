from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as judge

from falconet.data import ImageArray, ImageFiles, load_dataset
from falconet.data.preprocessing import Preprocess, cache_pixels, iterate_scaled, measure_pixels, scale_image
from falconet.spec import ImageSpec
from tests.conftest import FolderMaker


def spec(channels: int, height: int, width: int, margin: int = 0) -> InputSpec:
    means, deviations = (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.4)[:channels]
    return ImageSpec((channels, height, width), ("a", "b"), mean=means, std=deviations, margin=margin)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def judged(images: torch.Tensor, wanted: InputSpec) -> torch.Tensor:
    """What torchvision makes of images with channels last."""
    x = judge.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True)
    x = judge.rgb_to_grayscale(x) if wanted.shape[0] == 1 else judge.grayscale_to_rgb(x)
    x = judge.resize(x, list(wanted.inner_size), antialias=True)
    x = judge.pad(x, [wanted.margin], padding_mode="edge")
    normalized: torch.Tensor = judge.normalize(x, list(wanted.mean), list(wanted.std))
    return normalized


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("size", [(28, 28), (17, 40), (64, 9)])
@pytest.mark.parametrize(("found", "wanted"), [(1, 1), (3, 3), (3, 1), (1, 3)])
def test_preprocessing_is_that_of_torchvision(found: int, wanted: int, size: tuple[int, int], margin: int) -> None:
    images, target = noise(2, *size, found), spec(wanted, 24, 20, margin)
    x = Preprocess(target)(images)
    assert x.shape == (2, wanted, 24, 20)
    assert x.dtype == torch.float32
    # Torchvision rounds the luma weights to four digits; ours are BT.601's.
    torch.testing.assert_close(x, judged(images, target), atol=1e-5 if found == wanted else 1e-3, rtol=0)


def test_luma_is_that_of_bt_601() -> None:
    primaries = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    gray = Preprocess(spec(1, 4, 4)).scale(primaries.view(4, 1, 1, 3).expand(-1, 4, 4, -1))
    torch.testing.assert_close(gray[:, 0, 0, 0], torch.tensor([0.299, 0.587, 0.114, 1.0]))


def test_images_of_the_right_size_are_only_normalized() -> None:
    images = noise(3, 24, 20, 3)
    x = Preprocess(spec(3, 24, 20))(images)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    torch.testing.assert_close(x, ((images / 255 - mean) / std).permute(0, 3, 1, 2))


def test_scaled_pixels_stay_in_range() -> None:
    images = 255 * (noise(4, 31, 17, 3) > 127).to(torch.uint8)
    x = Preprocess(spec(1, 40, 12, margin=2)).scale(images)
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6


def test_the_margin_repeats_the_border() -> None:
    x = Preprocess(spec(1, 8, 8, margin=2)).scale(noise(1, 4, 4, 1))[0, 0]
    assert (x[:2] == x[2]).all()
    assert (x[-2:] == x[-3]).all()
    assert (x[:, :2] == x[:, 2:3]).all()
    assert (x[:, -2:] == x[:, -3:-2]).all()


def test_constants_are_no_weights() -> None:
    assert Preprocess(spec(3, 8, 8)).state_dict() == {}


def test_images_of_many_sizes_become_one_batch() -> None:
    preprocess = Preprocess(spec(3, 8, 8))
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
    preprocess = Preprocess(spec(3, 12, 12))
    from_files, from_arrays = (list(iterate_scaled(samples, preprocess, batch_size)) for samples in (files, arrays))
    assert [len(batch) for batch in from_files] == [len(batch) for batch in from_arrays]
    assert max(len(batch) for batch in from_files) == min(batch_size, 10)
    torch.testing.assert_close(torch.cat(from_files), torch.cat(from_arrays), atol=1e-6, rtol=0)
    expected = judge.resize(torch.from_numpy(arrays.images).permute(0, 3, 1, 2) / 255, [12, 12], antialias=True)
    torch.testing.assert_close(torch.cat(from_files), expected, atol=1e-5, rtol=0)


def test_the_cache_is_rounded_once() -> None:
    images = noise(600, 9, 7, 1)
    samples = ImageArray(images.numpy(), np.array([str(index) for index in range(600)]))
    target = spec(1, 6, 6)
    cache = cache_pixels(samples, target)
    assert cache.shape == (600, 1, 6, 6)
    assert cache.dtype == torch.uint8
    exact = Preprocess(target).scale(images)
    assert (cache.float() / 255 - exact).abs().max() <= 0.5 / 255 + 1e-6


def test_the_cache_of_images_at_size_is_the_images() -> None:
    images = noise(5, 6, 6, 3)
    samples = ImageArray(images.numpy(), np.array(list("abcde")))
    assert torch.equal(cache_pixels(samples, spec(3, 6, 6)), images.permute(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_measured_pixels_are_those_of_numpy(channels: int) -> None:
    pixels = noise(50, channels, 9, 7) // torch.arange(1, channels + 1).view(1, -1, 1, 1)
    means, deviations = measure_pixels(pixels.to(torch.uint8))
    values = pixels.numpy().astype(np.float64) / 255
    assert means == pytest.approx(values.mean(axis=(0, 2, 3)), rel=1e-12)
    assert deviations == pytest.approx(values.std(axis=(0, 2, 3)), rel=1e-12)


def test_constant_pixels_can_be_divided_by_their_deviation() -> None:
    means, deviations = measure_pixels(torch.full((4, 1, 3, 3), 51, dtype=torch.uint8))
    assert means == pytest.approx([0.2])
    assert deviations == pytest.approx([1 / 255])


def test_measured_pixels_normalize_their_source() -> None:
    images = Image.effect_noise((40, 30), 60)
    raw = torch.from_numpy(np.array(images))[None, ..., None]
    means, deviations = measure_pixels(raw.permute(0, 3, 1, 2))
    x = Preprocess(ImageSpec((1, 30, 40), ("a", "b"), mean=means, std=deviations))(raw)
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-5)
