"""AlexNet against torchvision's and against counts worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from falconet.errors import ConfigError
from falconet.models import create_model
from falconet.models.alexnet import _SMALLEST, AlexNet


def build(size: int | tuple[int, int], **options: Any) -> AlexNet:
    """Return a network without values, of which shapes are asked alone: its dense layers take long to draw."""
    with torch.device("meta"):
        model = create_model("alexnet", num_classes=10, input_size=size, **options)
    assert isinstance(model, AlexNet)
    return model


def measure_maps(model: AlexNet, *size: int) -> tuple[int, ...]:
    return tuple(model.features(torch.empty(1, 3, *size, device="meta")).shape[1:])


@pytest.mark.parametrize(
    ("size", "maps"), [((224, 224), (6, 6)), ((64, 95), (1, 2)), ((63, 63), (15, 15)), ((7, 32), (1, 7))]
)
def test_maps_before_the_dense_layers(size: tuple[int, int], maps: tuple[int, int]) -> None:
    model = build(size)
    assert measure_maps(model, *size) == (256, *maps)
    assert model(torch.empty(2, 3, *size, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(("size", "small"), [(63, True), (64, False), ((63, 500), True)])
def test_images_below_64_pixels_keep_their_resolution(size: int | tuple[int, int], small: bool) -> None:
    model = build(size)
    first = model.features[0]
    assert isinstance(first, nn.Conv2d)
    assert (first.kernel_size, first.stride) == (((3, 3), (1, 1)) if small else ((11, 11), (4, 4)))
    assert isinstance(model.features[2], nn.Identity) == small


def test_published_stem_takes_as_small_an_image_as_torchvisions() -> None:
    with torch.device("meta"):
        peer = torchvision.models.alexnet().features
        smallest = _SMALLEST["imagenet"]
        assert peer(torch.empty(1, 3, smallest, smallest)).shape[2:] == (1, 1)
        with pytest.raises(RuntimeError, match="too small"):
            peer(torch.empty(1, 3, smallest - 1, smallest))


@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 63), ("small", 7)])
def test_smallest_image(stem: str, smallest: int) -> None:
    assert measure_maps(build(smallest, stem=stem), smallest, smallest) == (256, 1, 1)
    message = rf"^model\.input_size: wanted at least {smallest}x{smallest} pixels, found {smallest}x{smallest - 1}$"
    with pytest.raises(ConfigError, match=message):
        build((smallest, smallest - 1), stem=stem)


def test_dropout_is_before_both_hidden_dense_layers() -> None:
    shares = [layer.p for layer in build(64, dropout=0.25).classifier if isinstance(layer, nn.Dropout)]
    assert shares == [0.25, 0.25]
    with pytest.raises(
        ConfigError, match=r"^model\.options\.dropout: wanted a fraction from 0 to below 1, found 1\.0$"
    ):
        build(64, dropout=1.0)
