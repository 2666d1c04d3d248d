from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import rgb_to_hsv
from scipy import ndimage, stats
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from falconet.data.augmentation import POLICIES, ImageAugmentation, SeriesAugmentation, TextAugmentation
from falconet.data.transforms import (
    OPERATIONS,
    UNCHANGED,
    _draw_maps,
    augment_images,
    augment_series,
    augment_tokens,
    draw_elastic,
    draw_sides,
    make_affine,
    mask_tokens,
    mix_samples,
    recolor,
    warp,
)
from falconet.schema import from_mapping

IMAGE_POLICIES = [name for name in POLICIES["image"] if name != "none"]
SIZES = [(1, 8, 8), (3, 6, 11), (3, 1, 1), (1, 2, 5)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def find_image_policy(name: str) -> ImageAugmentation:
    policy = POLICIES["image"][name]
    assert isinstance(policy, ImageAugmentation)
    return policy


def noise(height: int, width: int, rim: int = 0) -> Tensor:
    """One RGB image of noise; a black rim makes a repeated border the same as black surroundings."""
    x = torch.rand(1, 3, height, width, generator=seeded())
    inside = torch.zeros(height, width)
    inside[rim : height - rim, rim : width - rim] = 1
    return x * inside


def warp_by(images: Tensor, config: ImageAugmentation, **draws: float) -> Tensor:
    """Apply the affine map of chosen draws from -1..1; those not named are 0."""
    names = ("rotate", "shear", "scale_x", "scale_y", "shift_x", "shift_y")
    values = torch.tensor([draws.pop(name, 0.0) for name in names]).repeat(len(images), 1).T
    assert not draws
    return warp(images, make_affine(values, config))


def evaluate_affine(images: Tensor, angle: float = 0.0, scale: float = 1.0, shear: float = 0.0) -> Tensor:
    moved: Tensor = reference.affine(
        images, angle, [0, 0], scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR, fill=[0.0]
    )
    return moved


# Affine maps


@pytest.mark.parametrize("size", [(8, 8), (6, 11)])
def test_no_distortion_changes_nothing(size: tuple[int, int]) -> None:
    images = noise(*size)
    assert augment_images(images, ImageAugmentation(), seeded()) is images
    torch.testing.assert_close(warp_by(images, ImageAugmentation()), images)


@pytest.mark.parametrize("flips", [(0.0, 0.0), (0.5, 0.5)])
def test_shifts_and_mirrors_alone_move_whole_pixels_as_interpolation_would(flips: tuple[float, float]) -> None:
    config = ImageAugmentation(shift=0.25, flip_horizontal=flips[0], flip_vertical=flips[1])
    images = torch.rand(64, 3, 8, 12, generator=seeded())
    moved = augment_images(images, config, seeded())
    maps = _draw_maps(64, config, seeded())
    units = torch.tensor([2 / 12, 2 / 8])
    maps[:, :, 2] = (maps[:, :, 2] / units).round() * units
    torch.testing.assert_close(moved, warp(images, maps), atol=1e-5, rtol=0)
    assert set(moved.flatten().tolist()) <= set(images.flatten().tolist()), "not one value is new"
    assert not torch.equal(moved[0], moved[1])


@pytest.mark.parametrize("shift", [1, 2, -1, -3])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_shift_by_whole_pixels_is_a_roll_with_a_repeated_border(axis: str, shift: int) -> None:
    images = noise(8, 10)
    dim, side = (3, 10) if axis == "x" else (2, 8)
    # The draw says where an output pixel looks: a positive one moves the picture left or up.
    moved = warp_by(images, ImageAugmentation(shift=0.5), **{f"shift_{axis}": 2 * shift / side})
    places = (torch.arange(side) + shift).clamp(0, side - 1)
    torch.testing.assert_close(moved, images.index_select(dim, places), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("turns", "draw"), [(1, 0.5), (-1, -0.5), (2, 1.0)])
def test_quarter_turns_are_those_of_numpy(turns: int, draw: float) -> None:
    # Positive angles turn counterclockwise as one sees it, like numpy.rot90.
    images = noise(9, 9)
    turned = warp_by(images, ImageAugmentation(rotate=180), rotate=draw)
    np.testing.assert_allclose(turned.numpy(), np.rot90(images.numpy(), turns, axes=(2, 3)), atol=1e-5)


def test_a_quarter_turn_keeps_the_shape_of_things_in_a_wide_image() -> None:
    images = torch.zeros(1, 1, 9, 15)
    images[..., 4, 4:11] = 1
    turned = warp_by(images, ImageAugmentation(rotate=90), rotate=1.0)
    expected = torch.zeros(1, 1, 9, 15)
    expected[..., 1:8, 7] = 1
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (30, 44)])
@pytest.mark.parametrize("degrees", [-20, 7, 45])
def test_rotation_is_that_of_torchvision(degrees: float, size: tuple[int, int]) -> None:
    images = noise(*size, rim=10)
    found = warp_by(images, ImageAugmentation(rotate=90), rotate=degrees / 90)
    # Torchvision's angles are clockwise.
    torch.testing.assert_close(found, evaluate_affine(images, angle=-degrees), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (30, 44)])
@pytest.mark.parametrize("degrees", [-20, 7, 30])
def test_shear_is_that_of_torchvision(degrees: float, size: tuple[int, int]) -> None:
    images = noise(*size, rim=10)
    found = warp_by(images, ImageAugmentation(shear=60), shear=degrees / 60)
    torch.testing.assert_close(found, evaluate_affine(images, shear=degrees), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (30, 44)])
@pytest.mark.parametrize("change", [-0.1, 0.2])
def test_scale_is_that_of_torchvision(change: float, size: tuple[int, int]) -> None:
    images = noise(*size, rim=10)
    found = warp_by(images, ImageAugmentation(scale=0.2), scale_x=change / 0.2, scale_y=change / 0.2)
    # What is seen grows by the factor, so that what is in it shrinks.
    torch.testing.assert_close(found, evaluate_affine(images, scale=1 / (1 + change)), atol=1e-4, rtol=0)


def test_height_and_width_scale_apart() -> None:
    images = noise(8, 8)
    found = warp_by(images, ImageAugmentation(scale=0.5), scale_x=-1.0)
    # At half the width, the middle four columns fill the picture: bilinear between their centers, border repeated.
    places = torch.arange(8) * 0.5 + 1.75
    left, share = places.long(), places % 1
    expected = images[..., left] * (1 - share) + images[..., left + 1] * share
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_map_rotates_after_shear_after_scaling() -> None:
    draws = torch.tensor([[0.5], [-0.4], [0.3], [-0.6], [0.7], [0.2]])
    maps = make_affine(draws, ImageAugmentation(rotate=40, scale=0.5, shear=25, shift=0.1))[0]
    angle, slant = np.deg2rad(20), np.tan(np.deg2rad(-10))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = rotation @ np.array([[1, slant], [0, 1]]) @ np.diag([1.15, 0.7])
    np.testing.assert_allclose(maps[:, :2], expected, atol=1e-6)
    np.testing.assert_allclose(maps[:, 2], [0.14, 0.04], atol=1e-6)


def test_draws_fill_their_ranges() -> None:
    maps = _draw_maps(4000, ImageAugmentation(scale=0.3, shift=0.1), seeded())
    for values, low, high in (
        (maps[:, 0, 0], 0.7, 1.3),
        (maps[:, 1, 1], 0.7, 1.3),
        (maps[:, 0, 2], -0.2, 0.2),
        (maps[:, 1, 2], -0.2, 0.2),
    ):
        assert is_uniform(values, low, high)
    assert abs(float(torch.corrcoef(maps[:, :, 2].T)[0, 1])) < 0.06
    assert (maps[:, 0, 1] == 0).all()


def is_uniform(values: Tensor, low: float, high: float) -> bool:
    assert low - 1e-6 <= values.min()
    assert values.max() <= high + 1e-6
    return bool(stats.kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 0.001)


# Flips and crops


def test_certain_flips_mirror() -> None:
    images = noise(5, 8)
    found = augment_images(images, ImageAugmentation(flip_horizontal=1.0), seeded())
    torch.testing.assert_close(found, images.flip(3))
    found = augment_images(images, ImageAugmentation(flip_vertical=1.0), seeded())
    torch.testing.assert_close(found, images.flip(2))


def test_flips_come_as_often_as_they_should_and_apart() -> None:
    maps = _draw_maps(4000, ImageAugmentation(flip_horizontal=0.5, flip_vertical=0.2), seeded())
    across, down = maps[:, 0, 0] < 0, maps[:, 1, 1] < 0
    assert float(across.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(down.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float((across & down).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_crops_have_the_right_areas_ratios_and_places() -> None:
    maps = _draw_maps(4000, ImageAugmentation(crop=0.3), seeded())
    width, height = maps[:, 0, 0], maps[:, 1, 1]
    assert is_uniform(width * height, 0.3, 1)
    ratio = width / height
    assert 0.75 - 1e-5 <= ratio.min() < 0.76
    assert 1.31 < ratio.max() <= 4 / 3 + 1e-5
    assert float(ratio.log().mean()) == pytest.approx(0, abs=0.02)
    # Anywhere that lies inside the image.
    assert is_uniform(maps[:, 0, 2] / (1 - width), -1, 1)
    assert is_uniform(maps[:, 1, 2] / (1 - height), -1, 1)


def test_a_crop_is_that_of_torchvision() -> None:
    images = noise(32, 48)
    # Columns 12 to 36 and rows 4 to 20, in units in which the image runs from -1 to 1.
    maps = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, -0.25]]])
    expected = reference.resized_crop(images, 4, 12, 16, 24, [32, 48], antialias=False)
    found = warp(images, maps)
    # Torchvision repeats the crop's border; here, what lies beyond it is seen.
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_a_turned_crop_keeps_its_center() -> None:
    config = ImageAugmentation(rotate=180, crop=0.3)
    places = _draw_maps(500, config, seeded())[:, :, 2].abs()
    assert places.max() <= 1 - math.sqrt(0.3 / (4 / 3)) + 1e-5


def test_sides_stay_within_the_image_whatever_the_ratio() -> None:
    area = torch.linspace(0.01, 1, 5000)
    sides = draw_sides(area, 10, seeded())
    assert sides.max() <= 1 + 1e-6
    torch.testing.assert_close(sides.prod(dim=1), area)
    ratio = sides[:, 0] / sides[:, 1]
    assert 0.1 - 1e-5 <= ratio.min() < 0.12
    assert 8 < ratio.max() <= 10 + 1e-4


# Elastic


def test_the_defaults_are_those_of_simard() -> None:
    # 34 times uniform noise, smoothed by a Gaussian of 4 pixels, on images of 29 pixels.
    pixels = np.random.default_rng(0).uniform(-1, 1, (20, 120, 120))
    theirs = 34 * ndimage.gaussian_filter(pixels, (0, 4, 4), mode="wrap") / 29
    assert theirs.std() == pytest.approx(0.05, rel=0.06)
    assert ImageAugmentation().smoothness == pytest.approx(4 / 29, rel=0.02)


def test_elastic_fields_have_the_deviation_and_correlation_of_smoothed_noise() -> None:
    side, smoothness = 24, 0.1
    config = ImageAugmentation(elastic=0.03, smoothness=smoothness)
    field = draw_elastic(torch.Size((1500, 1, side, side)), config, seeded()).numpy() / 2
    # The same everywhere, up to the corners.
    np.testing.assert_allclose(field.std(axis=0), 0.03, rtol=0.1)
    np.testing.assert_allclose(field.mean(axis=0), 0, atol=0.003)
    white = np.random.default_rng(0).normal(size=(40, 128, 128))
    theirs = ndimage.gaussian_filter(white, (0, smoothness * side, smoothness * side), mode="wrap")
    for lag in (1, 3, 6, 9):
        wanted = (theirs * np.roll(theirs, lag, axis=1)).mean() / theirs.var()
        down, across = field[..., lag:, :] * field[..., :-lag, :], field[..., lag:] * field[..., :-lag]
        for products in (down, across, down[..., 0, :], across[..., -1]):
            assert products.mean() / field.var() == pytest.approx(wanted, abs=0.03)
    assert np.corrcoef(field[:, 0].ravel(), field[:, 1].ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_a_displacement_is_added_to_where_a_pixel_looks() -> None:
    images = noise(6, 10)
    displacement = torch.zeros(1, 2, 6, 10)
    displacement[:, 0] = 2 * 3 / 10
    displacement[:, 1] = -2 * 1 / 6
    found = warp(images, torch.eye(2, 3)[None], displacement)
    rows, columns = (torch.arange(6) - 1).clamp(min=0), (torch.arange(10) + 3).clamp(max=9)
    torch.testing.assert_close(found, images[..., rows, :][..., columns], atol=1e-5, rtol=0)


def test_elastic_moves_each_image_in_its_own_way() -> None:
    images = noise(12, 12).repeat(4, 1, 1, 1)
    found = augment_images(images, ImageAugmentation(elastic=0.05), seeded())
    assert len({image.numpy().tobytes() for image in found}) == 4


# Colors


def recolor_by(images: Tensor, **changes: float) -> Tensor:
    names = ("brightness", "contrast", "saturation", "hue")
    values = [changes.pop(name, unchanged) for name, unchanged in zip(names, UNCHANGED, strict=True)]
    assert not changes
    return recolor(images, torch.tensor([values]).repeat(len(images), 1))


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colors_are_those_of_torchvision(channels: int, name: str, factor: float) -> None:
    images = noise(7, 9)[:, :channels]
    expected = getattr(reference, f"adjust_{name}")(images, factor)
    # Their luma is rounded to four digits.
    torch.testing.assert_close(recolor_by(images, **{name: factor}), expected, atol=2e-4, rtol=0)


def test_colors_change_in_order() -> None:
    # Of low contrast, so that nothing leaves 0..1 between the steps.
    images = noise(7, 9) * 0.2 + 0.4
    expected = reference.adjust_brightness(images, 0.8)
    expected = reference.adjust_contrast(expected, 1.4)
    expected = reference.adjust_saturation(expected, 0.5)
    found = recolor_by(images, brightness=0.8, contrast=1.4, saturation=0.5)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("hue", [-0.25, -0.03, 0.1, 1 / 3, 0.5])
def test_hue_is_near_that_of_torchvision(hue: float) -> None:
    # Torchvision turns a hexagon, which no matrix does. Pale colors, so that nothing is clamped.
    images = noise(30, 30) * 0.2 + 0.4
    found, expected = (
        rgb_to_hsv(turned[0].permute(1, 2, 0).numpy())[..., 0]
        for turned in (recolor_by(images, hue=hue), reference.adjust_hue(images, hue))
    )
    apart = np.angle(np.exp(2j * np.pi * (found - expected))) / (2 * np.pi)
    assert abs(apart.mean()) < 0.01
    assert abs(apart).max() < 0.08


def test_hue_keeps_gray_and_luma_and_comes_around() -> None:
    images = noise(6, 6) * 0.2 + 0.4
    luma = torch.tensor([0.299, 0.587, 0.114])
    turned = recolor_by(images, hue=0.25)
    torch.testing.assert_close(
        torch.einsum("bchw,c->bhw", turned, luma), torch.einsum("bchw,c->bhw", images, luma), atol=1e-5, rtol=0
    )
    back = recolor_by(turned, hue=-0.25)
    torch.testing.assert_close(back, images, atol=1e-5, rtol=0)
    gray = torch.full((1, 3, 4, 4), 0.3)
    torch.testing.assert_close(recolor_by(gray, hue=0.2, saturation=1.8), gray, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_fill_their_ranges(name: str) -> None:
    images = torch.tensor([0.4, 0.5, 0.6])[:, None, None] * torch.tensor([1.0, 0.9])
    found = augment_images(images.repeat(3000, 1, 1, 1), from_mapping(ImageAugmentation, {name: 0.3}), seeded())
    lowest = getattr(reference, f"adjust_{name}")(images, 0.7)[0, 0, 0]
    highest = getattr(reference, f"adjust_{name}")(images, 1.3)[0, 0, 0]
    assert is_uniform((found[:, 0, 0, 0] - lowest) / (highest - lowest), -1e-3, 1 + 1e-3)


def test_gray_images_have_no_hue_or_saturation() -> None:
    images = noise(6, 6)[:, :1]
    found = augment_images(images, ImageAugmentation(hue=0.5, saturation=1.0), seeded())
    torch.testing.assert_close(found, images)


# Erasing


def test_erased_boxes_have_the_mean_and_the_right_areas() -> None:
    images = noise(40, 50).repeat(800, 1, 1, 1)
    erased = augment_images(images, ImageAugmentation(erase=1.0), seeded()) != images
    assert (erased.any(dim=1) == erased.all(dim=1)).all()
    marked = erased[:, 0]
    rows, columns = marked.any(dim=2), marked.any(dim=1)
    torch.testing.assert_close(marked, rows[:, :, None] & columns[:, None, :])
    height, width = rows.sum(dim=1) / 40, columns.sum(dim=1) / 50
    area = height * width
    assert float(area.min()) == pytest.approx(0.02, abs=0.008)
    assert float(area.max()) == pytest.approx(0.33, abs=0.015)
    assert float(area.mean()) == pytest.approx(0.175, abs=0.01)
    large = area > 0.05
    ratio = (width / height)[large].log().abs()
    assert math.log(2.7) < ratio.max() < math.log(1 / 0.3) + 0.2
    for line in (rows, columns):
        assert line[:, 0].any()
        assert line[:, -1].any()
    filled = augment_images(images, ImageAugmentation(erase=1.0), seeded())
    mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(filled[erased], mean[erased])


def test_erasing_comes_as_often_as_it_should() -> None:
    images = noise(16, 16).repeat(2000, 1, 1, 1)
    found = augment_images(images, ImageAugmentation(erase=0.25), seeded())
    assert float((found != images).any(dim=(1, 2, 3)).float().mean()) == pytest.approx(0.25, abs=0.03)


# TrivialAugment


def operate(number: int, images: Tensor, strength: float) -> Tensor:
    return OPERATIONS[number](images, torch.full((len(images),), strength))


def to_bytes(images: Tensor) -> Tensor:
    return torch.round(images * 255).to(torch.uint8)


def eight_bits(channels: int) -> Tensor:
    """Four images of values that 8 bits can hold, half of them dark, half with a third of their pixels at the top."""
    values = torch.rand(4, channels, 24, 31, generator=seeded())
    values[:2] **= 3
    values[::2] = values[::2].clamp(max=0.66)
    return torch.round(values * 220) / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_operations_on_values_are_those_of_torchvision(strength: float, channels: int) -> None:
    images = eight_bits(channels)
    factor = 1 + 0.99 * strength
    expected = {
        0: images,
        6: reference.adjust_brightness(images, factor),
        7: reference.adjust_contrast(images, factor),
        8: reference.adjust_saturation(images, factor),
        9: reference.adjust_sharpness(images, factor),
        10: reference.posterize(to_bytes(images), 8 - round(6 * abs(strength))).float() / 255,
        11: reference.solarize(images, 1 - abs(strength)),
        12: reference.autocontrast(images),
        13: reference.equalize(to_bytes(images)).float() / 255,
    }
    for number, wanted in expected.items():
        torch.testing.assert_close(operate(number, images, strength), wanted, atol=2e-4, rtol=0)


@pytest.mark.parametrize("strength", [-0.7, 0.2, 1.0])
def test_operations_on_places_are_those_of_torchvision(strength: float) -> None:
    # A black rim wide enough that nothing comes in from outside.
    images = noise(90, 120, rim=40)
    degrees = math.degrees(math.atan(0.99 * strength))
    options: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR, "fill": [0.0]}
    expected = {
        1: reference.affine(images, 0, [0, 0], 1, [degrees, 0], **options),
        3: reference.affine(images, 0, [round(-30 * strength), 0], 1, [0, 0], **options),
        4: reference.affine(images, 0, [0, round(-30 * strength)], 1, [0, 0], **options),
        5: reference.affine(images, -135 * strength, [0, 0], 1, [0, 0], **options),
    }
    for number, wanted in expected.items():
        found = operate(number, images, round(30 * strength) / 32 if number in (3, 4) else strength)
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=0)
    upright = operate(1, images.mT.contiguous(), strength).mT
    torch.testing.assert_close(operate(2, images, strength), upright, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [3, 4])
def test_small_images_are_not_pushed_out_of_view(axis: int) -> None:
    images = torch.zeros(1, 1, 20, 20)
    images[..., 10:12, 10:12] = 1
    assert operate(axis, images, 1.0).sum() > 3


def test_each_operation_comes_equally_often_at_all_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, list[Tensor]] = {}

    def spy(number: int) -> Any:
        def operate(images: Tensor, strength: Tensor) -> Tensor:
            seen.setdefault(number, []).append(strength)
            return images

        return operate

    monkeypatch.setattr("falconet.data.transforms.OPERATIONS", tuple(spy(number) for number in range(14)))
    augment_images(torch.zeros(28_000, 1, 1, 1), ImageAugmentation(trivial=True), seeded())
    counts = [len(torch.cat(seen[number])) for number in range(14)]
    assert stats.chisquare(counts).pvalue > 0.001
    strengths = torch.cat([strength for parts in seen.values() for strength in parts])
    levels, frequency = np.unique(np.round(strengths.numpy() * 30), return_counts=True)
    assert levels.tolist() == list(range(-30, 31))
    wanted = np.where(levels == 0, 2, 1) * len(strengths) / 62
    assert stats.chisquare(frequency, wanted).pvalue > 0.001


def test_trivial_gives_each_image_what_is_its_own() -> None:
    # 14 operations at random: were results of some put in others' places, most images would match none of theirs.
    levels = torch.arange(1, 61)[:, None, None, None] / 64
    images = levels * torch.ones(60, 3, 8, 8)
    found = augment_images(images, ImageAugmentation(trivial=True), seeded())
    unchanged = (found - images).abs().amax(dim=(1, 2, 3)) < 1e-5
    # Uniform gray changes under brightness, posterize and solarize alone.
    assert 0.6 < float(unchanged.float().mean()) < 0.95


@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 2, 5), (3, 1, 4, 3), (1, 3, 1, 9)])
def test_operations_take_any_size_and_keep_their_input(number: int, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=seeded())
    before = images.clone()
    for strength in (-1.0, 0.4, 1.0):
        found = operate(number, images, strength)
        assert found.shape == images.shape
        assert found.dtype == torch.float32
        assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(images, before)


# Mixing


def mixable(batch: int = 40, size: tuple[int, int] = (10, 14)) -> tuple[Tensor, Tensor]:
    """Images of one gray level each, from which shares can be read, and labels that are all different."""
    levels = torch.arange(batch) / batch
    return levels[:, None, None, None].repeat(1, 3, *size), torch.arange(batch)


def test_mixup_blends_images_and_labels_alike() -> None:
    images, labels = mixable()
    found, targets = mix_samples(images, labels, 40, ImageAugmentation(mixup=1.0), seeded())
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(found[:, 0, 3, 3], targets @ images[:, 0, 0, 0])
    torch.testing.assert_close(found, found[:, :1, :1, :1].expand_as(found))
    assert (targets > 0).sum() > 70


def test_cutmix_shares_are_those_of_the_pasted_area() -> None:
    images, labels = mixable()
    found, targets = mix_samples(images, labels, 40, ImageAugmentation(cutmix=1.0), seeded())
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(40))
    own = (found[:, 0] == images[:, 0]).float().mean(dim=(1, 2))
    torch.testing.assert_close(targets.diagonal(), own)
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), targets @ images[:, 0, 0, 0])
    pasted = found[:, 0] != images[:, 0]
    torch.testing.assert_close(pasted, pasted.any(dim=2)[:, :, None] & pasted.any(dim=1)[:, None, :])
    assert (own < 1).sum() > 25


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha: float) -> None:
    images, labels = mixable(batch=3000, size=(1, 1))
    _, targets = mix_samples(images, labels, 3000, ImageAugmentation(mixup=alpha), seeded())
    assert stats.kstest(targets.diagonal().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_pasted_areas_follow_the_beta_distribution() -> None:
    images, labels = mixable(batch=1000, size=(50, 50))
    _, targets = mix_samples(images[:, :1], labels, 1000, ImageAugmentation(cutmix=1.0), seeded())
    # A box of sides s around a center anywhere keeps, of each side, s - s**2 / 4 on average.
    sides = np.sqrt(np.linspace(0, 1, 10_001))
    assert float(1 - targets.diagonal().mean()) == pytest.approx(((sides - sides**2 / 4) ** 2).mean(), abs=0.02)


def test_each_batch_is_mixed_in_one_of_both_ways() -> None:
    images, labels = mixable(batch=12)
    config = ImageAugmentation(mixup=1.0, cutmix=1.0)
    generator = seeded()
    blended = [
        bool((mix_samples(images, labels, 12, config, generator)[0].std(dim=(1, 2, 3)) < 1e-6).all())
        for _ in range(200)
    ]
    assert sum(blended) / 200 == pytest.approx(0.5, abs=0.12)


def test_without_mixing_labels_are_one_hot() -> None:
    images, labels = mixable(batch=5)
    found, targets = mix_samples(images, labels, 7, find_image_policy("light"), seeded())
    assert found is images
    assert torch.equal(targets, torch.eye(5, 7))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("alpha", [1e-6, 1.0, 100.0])
def test_any_alpha_gives_shares(name: str, alpha: float) -> None:
    images = noise(6, 9).repeat(3, 1, 1, 1)
    labels = torch.tensor([1, 1, 1])
    found, targets = mix_samples(images, labels, 2, from_mapping(ImageAugmentation, {name: alpha}), seeded())
    torch.testing.assert_close(found, images)
    torch.testing.assert_close(targets, torch.tensor([[0.0, 1.0]]).repeat(3, 1))


# All of it


@pytest.mark.parametrize("name", IMAGE_POLICIES)
def test_each_sample_has_a_distortion_of_its_own(name: str) -> None:
    images = noise(12, 12).expand(6, -1, -1, -1)
    found = augment_images(images, find_image_policy(name), seeded(1))
    assert len({image.numpy().tobytes() for image in found}) == 6


@pytest.mark.parametrize("name", IMAGE_POLICIES)
def test_the_generator_alone_decides(name: str) -> None:
    images, labels = noise(12, 12).repeat(4, 1, 1, 1), torch.arange(4)
    images *= torch.tensor([1, 0.8, 0.6, 0.4])[:, None, None, None]

    def run(seed: int) -> bytes:
        generator = seeded(seed)
        distorted = augment_images(images, find_image_policy(name), generator)
        mixed, targets = mix_samples(distorted, labels, 4, find_image_policy(name), generator)
        return mixed.numpy().tobytes() + targets.numpy().tobytes()

    state = torch.get_rng_state()
    first = run(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert run(5) == first
    assert run(6) != first


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", IMAGE_POLICIES)
def test_policies_keep_shape_range_and_input(name: str, size: tuple[int, int, int]) -> None:
    images = torch.rand(3, *size, generator=seeded())
    before = images.clone()
    found = augment_images(images, find_image_policy(name), seeded())
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(images, before)


def test_black_and_white_stay_within_0_and_1_to_the_last_bit() -> None:
    images = torch.rand(256, 3, 33, 40, generator=seeded()).round()
    found = augment_images(images, find_image_policy("digits"), seeded())
    assert found.min() == 0
    assert found.max() == 1


def test_a_uniform_image_stays_uniform_wherever_its_pixels_go() -> None:
    images = torch.full((5, 1, 9, 9), 0.25)
    config = ImageAugmentation(
        rotate=180, scale=0.9, shear=60, shift=0.5, crop=0.1, elastic=0.5, flip_horizontal=0.5, erase=1.0
    )
    torch.testing.assert_close(augment_images(images, config, seeded()), images)


LIMITS = {
    **{"rotate": 180.0, "scale": 0.9, "shear": 60.0, "shift": 0.5, "flip_horizontal": 1.0, "flip_vertical": 1.0},
    **{"crop": 1.0, "elastic": 0.5, "smoothness": 1.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0},
    **{"hue": 0.5, "erase": 1.0, "mixup": 100.0, "cutmix": 100.0},
}
CONFIGS = st.builds(
    ImageAugmentation,
    trivial=st.booleans(),
    **{name: st.floats(0.01 if name in ("crop", "smoothness") else 0, limit) for name, limit in LIMITS.items()},
)


def test_all_settings_are_tried() -> None:
    assert {field.name for field in fields(ImageAugmentation)} == {*LIMITS, "trivial", "kind"}


@settings(deadline=None, max_examples=60)
@given(
    CONFIGS,
    st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 12), st.integers(1, 12)),
    st.integers(0, 2**32 - 1),
)
def test_any_settings_keep_any_images_in_range(config: ImageAugmentation, shape: tuple[int, ...], seed: int) -> None:
    images = torch.rand(shape, generator=seeded(seed))
    labels = torch.randint(4, shape[:1], generator=seeded(seed))
    generator = seeded(seed)
    distorted = augment_images(images, config, generator)
    assert distorted.shape == images.shape
    assert 0 <= distorted.min() <= distorted.max() <= 1
    mixed, targets = mix_samples(distorted, labels, 4, config, generator)
    assert -1e-6 <= mixed.min() <= mixed.max() <= 1 + 1e-6
    assert targets.min() >= 0
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(labels)))
    for picture in (distorted, mixed):
        assert not picture.isnan().any()


# Series


def ramps(lengths: list[int], steps: int, channels: int = 1) -> Tensor:
    """Series whose values are the times, from 0 to 1, of their own steps, with NaN behind their ends."""
    series = torch.full((len(lengths), channels, steps), torch.nan)
    for row, length in zip(series, lengths, strict=True):
        row[:, :length] = torch.linspace(0, 1, length)
    return series


def test_time_is_warped_by_the_right_amount_and_never_backward() -> None:
    series = ramps([100] * 2000, 100)
    found = augment_series(series, SeriesAugmentation(time_warp=0.05), seeded())
    moved = (found - series)[:, 0]
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.05, rel=0.05)
    assert float(moved.mean()) == pytest.approx(0, abs=0.003)
    assert (found.diff(dim=2) > 0).all()
    torch.testing.assert_close(moved[:, [0, -1]], torch.zeros(2000, 2), atol=1e-5, rtol=0)
    # Smooth: neighbors move together.
    assert moved.diff(dim=1).abs().max() < 0.02


def test_the_widest_warp_keeps_order_too() -> None:
    found = augment_series(ramps([200] * 500, 200), SeriesAugmentation(time_warp=0.2), seeded())
    assert (found.diff(dim=2) > 0).all()
    assert found.diff(dim=2).min() < 0.2 / 199


def test_each_series_is_warped_within_its_own_length() -> None:
    lengths = [80, 50, 7, 2]
    series = ramps(lengths, 80, channels=2)
    found = augment_series(series, SeriesAugmentation(time_warp=0.1), seeded())
    assert torch.equal(found.isnan(), series.isnan())
    for row, length in zip(found, lengths, strict=True):
        torch.testing.assert_close(row[0, [0, length - 1]], torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
        assert (row[0, :length].diff() > 0).all()
        torch.testing.assert_close(row[0], row[1], equal_nan=True)
    assert (found[1, 0, :50] - series[1, 0, :50]).abs().max() > 0.01


def test_a_series_is_as_long_as_its_longest_channel() -> None:
    series = torch.cat([ramps([20] * 9, 40), ramps([30] * 9, 40)], dim=1)
    found = augment_series(series, SeriesAugmentation(time_warp=0.1), seeded())
    assert torch.equal(found.isnan(), series.isnan())
    torch.testing.assert_close(found[:, 1, 29], torch.ones(9), atol=1e-5, rtol=0)
    assert (found[:, 1, 19] - series[:, 1, 19]).abs().max() > 0.01


def test_a_warped_series_is_the_one_that_numpy_interpolates() -> None:
    generator = np.random.default_rng(0)
    steps = 60
    values = torch.from_numpy(generator.normal(size=(1, 1, steps)).astype(np.float32))
    series = torch.cat([ramps([steps], steps), values], dim=1)
    time, found = augment_series(series, SeriesAugmentation(time_warp=0.1), seeded())[0].numpy()
    np.testing.assert_allclose(found, np.interp(time * (steps - 1), np.arange(steps), values[0, 0]), atol=1e-3)


def test_noise_is_measured_in_deviations_of_the_series_itself() -> None:
    series = torch.randn(300, 2, 400, generator=seeded(1)) * torch.tensor([1.0, 5.0])[:, None] + 7
    series[:, :, 300:] = torch.nan
    found = augment_series(series, SeriesAugmentation(jitter=0.1), seeded())
    added = (found - series)[:, :, :300]
    np.testing.assert_allclose(added.std(dim=(0, 2)), [0.1, 0.5], rtol=0.02)
    assert stats.kstest(added[:10, 0].flatten().numpy() / 0.1, "norm").pvalue > 0.001
    assert torch.equal(found.isnan(), series.isnan())


def test_a_constant_series_gets_no_noise() -> None:
    series = torch.full((2, 1, 9), 3.0)
    torch.testing.assert_close(augment_series(series, SeriesAugmentation(jitter=1.0), seeded()), series)


def test_one_piece_of_the_right_length_is_blanked() -> None:
    series = torch.ones(2000, 2, 200)
    series[1000:, :, 100:] = torch.nan
    found = augment_series(series, SeriesAugmentation(mask=0.4), seeded())
    assert torch.equal(found.isnan(), series.isnan())
    blank = found == 0
    torch.testing.assert_close(blank[:, 0], blank[:, 1])
    edges = torch.nn.functional.pad(blank[:, 0].int(), (1, 1)).diff(dim=1)
    assert (edges.abs().sum(dim=1) <= 2).all()
    for part, length in ((blank[:1000, 0], 200), (blank[1000:, 0], 100)):
        share = part.sum(dim=1) / length
        assert 0.38 < share.max() <= 0.4 + 1 / length
        assert float(share.mean()) == pytest.approx(0.2, abs=0.015)
        assert part[:, 0].any()
        assert part[:, length - 1].any()


@pytest.mark.parametrize("config", [SeriesAugmentation(time_warp=0.1), SeriesAugmentation(jitter=0.1, mask=0.5)])
def test_series_are_decided_by_the_generator_alone(config: SeriesAugmentation) -> None:
    series = ramps([20, 30, 30], 30)
    state = torch.get_rng_state()
    first, again, other = (augment_series(series, config, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first, again, equal_nan=True, rtol=0, atol=0)
    assert not torch.equal(first.nan_to_num(), other.nan_to_num())
    assert not torch.equal(first[1], first[2])


@settings(deadline=None, max_examples=60)
@given(
    st.builds(SeriesAugmentation, time_warp=st.floats(0, 0.2), jitter=st.floats(0, 10), mask=st.floats(0, 0.9)),
    st.lists(st.integers(0, 20), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_any_series_keep_their_ends(config: SeriesAugmentation, lengths: list[int], channels: int, seed: int) -> None:
    series = ramps(lengths, 20, channels)
    # A gap in the middle stays where it is.
    series[0, 0, 5] = torch.nan
    before = series.clone()
    found = augment_series(series, config, seeded(seed))
    assert found.dtype == torch.float32
    assert torch.equal(found.isnan(), series.isnan())
    torch.testing.assert_close(series, before, equal_nan=True)


# Texts


def test_tokens_are_masked_as_often_as_they_should_but_padding_never() -> None:
    tokens = torch.randint(2, 50, (200, 100), generator=seeded())
    tokens[:, 70:] = 0
    found = mask_tokens(tokens, TextAugmentation(mask=0.3), seeded())
    assert found.dtype == torch.int64
    assert (found[:, 70:] == 0).all()
    assert float((found[:, :70] == 1).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(found[found != 1], tokens[found != 1])


def test_without_masking_tokens_stay() -> None:
    tokens = torch.tensor([[5, 1, 0], [2, 0, 0]])
    assert torch.equal(mask_tokens(tokens, TextAugmentation(), seeded()), tokens)


def test_masked_tokens_are_decided_by_the_generator_alone() -> None:
    tokens = torch.full((3, 40), 7)
    state = torch.get_rng_state()
    first, again, other = (mask_tokens(tokens, TextAugmentation(mask=0.5), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_tokens_are_left_out_as_often_as_they_should_and_the_rest_moves_up() -> None:
    tokens = torch.arange(2, 102).repeat(200, 1)
    tokens[:, 70:] = 0
    found = augment_tokens(tokens, TextAugmentation(delete=0.3), seeded())
    left = (found != 0).sum(dim=1)
    assert float(left.float().mean()) == pytest.approx(49, abs=1)
    for row, count in zip(found, left.tolist(), strict=True):
        assert (row[count:] == 0).all()
        assert (row[:count].diff() > 0).all()


def test_one_token_always_stays() -> None:
    tokens = torch.tensor([[5, 0, 0], [5, 6, 7], [0, 0, 0]]).repeat(200, 1)
    found = augment_tokens(tokens, TextAugmentation(delete=0.9), seeded())
    left = (found != 0).sum(dim=1).view(-1, 3)
    assert (left[:, 0] == 1).all()
    assert (left[:, 1] >= 1).all()
    assert (left[:, 2] == 0).all()


def test_tokens_change_places_but_stay_in_their_text() -> None:
    tokens = torch.arange(2, 62).repeat(300, 1)
    tokens[:, 50:] = 0
    found = augment_tokens(tokens, TextAugmentation(swap=0.2), seeded())
    assert (found[:, 50:] == 0).all()
    assert torch.equal(found.sort(dim=1).values, tokens.sort(dim=1).values)
    # A fifth of a text's 50 tokens is chosen and dealt out again, to its own place once a text on average.
    assert float((found != tokens)[:, :50].float().mean()) == pytest.approx(0.2 - 1 / 50, abs=0.01)


def test_edits_of_tokens_are_decided_by_the_generator_alone() -> None:
    tokens = torch.arange(2, 42).repeat(3, 1)
    config = TextAugmentation(mask=0.1, delete=0.2, swap=0.3)
    first, again, other = (augment_tokens(tokens, config, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(augment_tokens(tokens, TextAugmentation(), seeded()), tokens)
