from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode
from torchvision.transforms.functional import affine as judge

from falconet.data.augmentation import POLICIES, Affine, distort, draw_affine
from falconet.errors import ConfigError


def noise(height: int, width: int, rim: int = 0) -> Tensor:
    """One RGB image of noise; a black rim makes a repeated border the same as black surroundings."""
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(height, width)
    inside[rim : height - rim, rim : width - rim] = 1
    return x * inside


def distort_by(images: Tensor, affine: Affine, monkeypatch: pytest.MonkeyPatch, **draws: float) -> Tensor:
    """Distort with chosen draws from -1..1 instead of random ones; those not named are 0."""
    names = ("rotate", "shear", "scale_x", "scale_y", "shift_x", "shift_y")
    values = torch.tensor([draws.pop(name, 0.0) for name in names]).repeat(len(images), 1).T
    assert not draws
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "uniform_", lambda *_, **__: values)
        return distort(images, affine, torch.Generator())


@pytest.mark.parametrize("size", [(8, 8), (6, 11)])
def test_no_distortion_changes_nothing(size: tuple[int, int]) -> None:
    images = noise(*size)
    torch.testing.assert_close(distort(images, POLICIES["none"], torch.Generator()), images)


@pytest.mark.parametrize("shift", [1, 2, -1, -3])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_shift_by_whole_pixels_is_a_roll_with_a_repeated_border(
    axis: str, shift: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(8, 10)
    dim, side = (3, 10) if axis == "x" else (2, 8)
    # The draw says where an output pixel looks: a positive one moves the picture left or up.
    moved = distort_by(images, Affine(shift=0.5), monkeypatch, **{f"shift_{axis}": 2 * shift / side})
    places = (torch.arange(side) + shift).clamp(0, side - 1)
    torch.testing.assert_close(moved, images.index_select(dim, places), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("turns", "draw"), [(1, 0.5), (-1, -0.5), (2, 1.0)])
def test_quarter_turns_are_those_of_numpy(turns: int, draw: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Positive angles turn counterclockwise as one sees it, like numpy.rot90.
    images = noise(9, 9)
    turned = distort_by(images, Affine(rotate=180), monkeypatch, rotate=draw)
    np.testing.assert_allclose(turned.numpy(), np.rot90(images.numpy(), turns, axes=(2, 3)), atol=1e-5)


def test_a_quarter_turn_keeps_the_shape_of_things_in_a_wide_image(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(1, 1, 9, 15)
    images[..., 4, 4:11] = 1
    turned = distort_by(images, Affine(rotate=90), monkeypatch, rotate=1.0)
    expected = torch.zeros(1, 1, 9, 15)
    expected[..., 1:8, 7] = 1
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (30, 44)])
@pytest.mark.parametrize("degrees", [-20, 7, 45])
def test_rotation_is_that_of_torchvision(
    degrees: float, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(*size, rim=10)
    found = distort_by(images, Affine(rotate=90), monkeypatch, rotate=degrees / 90)
    # Torchvision's angles are clockwise.
    torch.testing.assert_close(found, judged(images, angle=-degrees), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (30, 44)])
@pytest.mark.parametrize("degrees", [-20, 7, 30])
def test_shear_is_that_of_torchvision(degrees: float, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(*size, rim=10)
    found = distort_by(images, Affine(shear=60), monkeypatch, shear=degrees / 60)
    torch.testing.assert_close(found, judged(images, shear=degrees), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (30, 44)])
@pytest.mark.parametrize("change", [-0.1, 0.2])
def test_scale_is_that_of_torchvision(change: float, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(*size, rim=10)
    found = distort_by(images, Affine(scale=0.2), monkeypatch, scale_x=change / 0.2, scale_y=change / 0.2)
    # What is seen grows by the factor, so that what is in it shrinks.
    torch.testing.assert_close(found, judged(images, scale=1 / (1 + change)), atol=1e-4, rtol=0)


def test_height_and_width_scale_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(8, 8)
    found = distort_by(images, Affine(scale=0.5), monkeypatch, scale_x=-1.0)
    # At half the width, the middle four columns fill the picture: bilinear between their centers, border repeated.
    places = torch.arange(8) * 0.5 + 1.75
    left, share = places.long(), places % 1
    expected = images[..., left] * (1 - share) + images[..., left + 1] * share
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_map_rotates_after_shear_after_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.tensor([[0.5], [-0.4], [0.3], [-0.6], [0.7], [0.2]])
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "uniform_", lambda *_, **__: draws)
        theta = draw_affine(1, Affine(rotate=40, scale=0.5, shear=25, shift=0.1), torch.Generator())[0]
    angle, slant = np.deg2rad(20), np.tan(np.deg2rad(-10))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = rotation @ np.array([[1, slant], [0, 1]]) @ np.diag([1.15, 0.7])
    np.testing.assert_allclose(theta[:, :2], expected, atol=1e-6)
    np.testing.assert_allclose(theta[:, 2], [0.14, 0.04], atol=1e-6)


def judged(images: Tensor, angle: float = 0.0, scale: float = 1.0, shear: float = 0.0) -> Tensor:
    moved: Tensor = judge(images, angle, [0, 0], scale, [shear, 0.0], InterpolationMode.BILINEAR, fill=[0.0])
    return moved


def test_draws_fill_their_ranges() -> None:
    theta = draw_affine(4000, Affine(scale=0.3, shift=0.1), torch.Generator().manual_seed(0))
    for values, low, high in (
        (theta[:, 0, 0], 0.7, 1.3),
        (theta[:, 1, 1], 0.7, 1.3),
        (theta[:, 0, 2], -0.2, 0.2),
        (theta[:, 1, 2], -0.2, 0.2),
    ):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.02)
    assert abs(float(torch.corrcoef(theta[:, :, 2].T)[0, 1])) < 0.06
    assert (theta[:, 0, 1] == 0).all()


def test_each_sample_has_a_distortion_of_its_own() -> None:
    images = noise(12, 12).expand(6, -1, -1, -1)
    found = distort(images, POLICIES["digits"], torch.Generator().manual_seed(0))
    assert len({image.numpy().tobytes() for image in found}) == 6


def test_the_generator_alone_decides() -> None:
    images = noise(12, 12).repeat(4, 1, 1, 1)
    torch.manual_seed(1)
    found = [distort(images, POLICIES["light"], torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    state = torch.get_rng_state()
    distort(images, POLICIES["light"], torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_keep_shape_range_and_input(name: str) -> None:
    images = noise(10, 14).repeat(3, 1, 1, 1)
    before = images.clone()
    found = distort(images, POLICIES[name], torch.Generator().manual_seed(0))
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    assert torch.equal(images, before)
    assert torch.equal(found, before) <= (not POLICIES[name].active)


def test_a_uniform_image_stays_uniform() -> None:
    images = torch.full((5, 1, 9, 9), 0.25)
    found = distort(images, Affine(rotate=180, scale=0.9, shear=60, shift=0.5), torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, images)


@pytest.mark.parametrize("name", ["rotate", "scale", "shear", "shift"])
def test_any_range_above_zero_is_active(name: str) -> None:
    assert not Affine().active
    assert Affine(**{name: 0.1}).active


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotate": 181.0}, "rotate: wanted 0 to 180, found 181"),
        ({"scale": 1.0}, "scale: wanted 0 to 0.9, found 1"),
        ({"shear": -1.0}, "shear: wanted 0 to 60, found -1"),
        ({"shift": 0.6}, "shift: wanted 0 to 0.5, found 0.6"),
        ({"shift": float("nan")}, "shift: wanted 0 to 0.5, found nan"),
    ],
)
def test_impossible_ranges_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Affine(**settings)
