from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.data.augmentation import POLICIES, Affine
from falconet.data.loader import NO_DISTORTION, Batch, Loader, Purpose, epoch_seed
from falconet.data.preprocessing import Preprocess
from falconet.spec import InputSpec

SPEC = InputSpec((1, 6, 6), ("a", "b", "c"), mean=(0.25,), std=(0.5,))


def make_loader(
    count: int = 23, batch_size: int = 5, affine: Affine = NO_DISTORTION, shuffle: bool = True, seed: int = 0
) -> Loader:
    """Every pixel of sample k is k, and so is its label: what is fed tells where it came from."""
    labels = torch.arange(count)
    pixels = labels.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 6, 6)
    return Loader(pixels, labels, Preprocess(SPEC), batch_size, affine, shuffle, seed)


def noisy_loader(seed: int = 0) -> Loader:
    pixels = torch.randint(0, 256, (23, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Loader(pixels, torch.arange(23), Preprocess(SPEC), 5, POLICIES["digits"], shuffle=True, seed=seed)


def join(batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 60), batch_size=st.integers(1, 70), shuffle=st.booleans(), number=st.integers(1, 1000))
def test_every_sample_occurs_once_an_epoch(count: int, batch_size: int, shuffle: bool, number: int) -> None:
    loader = make_loader(count, batch_size, shuffle=shuffle)
    batches = list(loader.epoch(number))
    assert len(batches) == len(loader)
    lengths = [len(labels) for _, labels in batches]
    assert max(lengths) <= batch_size
    assert max(lengths) - min(lengths) <= 1
    images, labels = join(batches)
    assert sorted(labels.tolist()) == list(range(count))
    expected = ((labels / 255 - 0.25) / 0.5).view(-1, 1, 1, 1).expand(-1, -1, 6, 6)
    torch.testing.assert_close(images, expected)


def test_without_shuffling_order_is_kept() -> None:
    for number in (1, 2):
        _, labels = join(list(make_loader(shuffle=False).epoch(number)))
        assert labels.tolist() == list(range(23))


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    first = list(noisy_loader(seed=7).epoch(3))
    torch.manual_seed(99)
    assert equal(first, list(noisy_loader(seed=7).epoch(3)))


def test_an_epoch_does_not_depend_on_those_before() -> None:
    loader = noisy_loader()
    first = list(loader.epoch(2))
    for number in (1, 2, 5):
        list(loader.epoch(number))
    next(loader.epoch(2))
    assert equal(first, list(loader.epoch(2)))


@pytest.mark.parametrize(("seed", "number"), [(7, 4), (8, 3), (3, 7)])
def test_another_seed_or_epoch_gives_another_order_and_other_distortions(seed: int, number: int) -> None:
    images, labels = join(list(noisy_loader(seed=7).epoch(3)))
    other_images, other_labels = join(list(noisy_loader(seed=seed).epoch(number)))
    assert labels.tolist() != other_labels.tolist()
    same = [torch.equal(images[labels == k], other_images[other_labels == k]) for k in range(23)]
    assert not any(same)


def test_feeding_leaves_the_data_and_the_global_generator_alone() -> None:
    loader = noisy_loader()
    pixels, labels, state = loader.pixels.clone(), loader.labels.clone(), torch.get_rng_state()
    before = {field.name: id(getattr(loader, field.name)) for field in fields(loader)}
    list(loader.epoch(1))
    assert torch.equal(loader.pixels, pixels)
    assert torch.equal(loader.labels, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert vars(loader).keys() == before.keys()
    assert {name: id(value) for name, value in vars(loader).items()} == before


def test_a_loader_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        make_loader().seed = 3  # type: ignore[misc]


def test_batches_are_float_and_channels_last() -> None:
    pixels = torch.zeros((4, 3, 6, 6), dtype=torch.uint8)
    spec = InputSpec((3, 6, 6), ("a", "b"), mean=(0.0,) * 3, std=(1.0,) * 3)
    for affine in POLICIES.values():
        for images, labels in Loader(pixels, torch.zeros(4, dtype=torch.int64), Preprocess(spec), 3, affine).epoch(1):
            assert images.dtype == torch.float32
            assert labels.dtype == torch.int64
            assert images.is_contiguous(memory_format=torch.channels_last)


def test_without_shuffling_or_distortion_batches_are_the_normalized_pixels() -> None:
    source = noisy_loader()
    loader = Loader(source.pixels, source.labels, source.preprocess, batch_size=8)
    images, _ = join(list(loader.epoch(1)))
    torch.testing.assert_close(images, (source.pixels / 255 - 0.25) / 0.5)


def draw(seed: int, epoch: int, purpose: Purpose) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch, purpose))
    return tuple(torch.randperm(1000, generator=generator)[:8].tolist())


def test_seeds_epochs_and_purposes_share_no_stream() -> None:
    """Judged by what is drawn: torch's generator looks at 32 bits of a seed only."""
    purposes = get_args(Purpose)
    cases = list(product((0, 1, 2, 3, 4, 2**31 - 1), (1, 2, 3, 1000), purposes))
    assert len({draw(*case) for case in cases}) == len(cases)


@pytest.mark.parametrize(("count", "sizes"), [(65, [33, 32]), (64, [64]), (130, [44, 43, 43]), (1, [1])])
def test_batches_differ_by_at_most_one_sample(count: int, sizes: list[int]) -> None:
    source = noisy_loader()
    index = torch.arange(count) % len(source.labels)
    loader = Loader(source.pixels[index], source.labels[index], source.preprocess, batch_size=64)
    assert [len(labels) for _, labels in loader.epoch(1)] == sizes
    assert len(loader) == len(sizes)
