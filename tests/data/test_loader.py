from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare
from torch import Tensor

from falconet.data import ImageArray, Split, Texts, load_dataset
from falconet.data.augmentation import (
    Augmentation,
    ImageAugmentation,
    SeriesAugmentation,
    TextAugmentation,
    find_policy,
)
from falconet.data.cache import PixelCache
from falconet.data.dataset import SeriesArray
from falconet.data.loader import (
    AHEAD,
    Batch,
    Loader,
    Purpose,
    Sampler,
    draw_partners,
    epoch_seed,
    load_inputs,
    measure_inputs,
    measure_pixels,
)
from falconet.data.preprocessing import ImagePreprocess, create_preprocess
from falconet.data.series import measure_series
from falconet.data.texts import train_tokenizer
from falconet.errors import ConfigError, DataError
from falconet.spec import ImageSpec, SeriesSpec, TextSpec
from tests.conftest import FolderMaker
from tests.data.builders import encode, make_logged_split, make_split

SPEC = ImageSpec((1, 6, 6), mean=(0.25,), std=(0.5,))
DIGITS = find_policy("image", "digits")
MIXING = ImageAugmentation(mixup=0.4, cutmix=1.0)
SERIES = SeriesSpec((2, 8), mean=(1.0, -1.0), std=(2.0, 0.5))


def make_loader(count: int = 23, batch_size: int = 5, **options: Any) -> Loader:
    """Every pixel of sample k is k, and so is its label: what is fed tells where it came from."""
    labels = torch.arange(count)
    pixels = labels.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 6, 6)
    return Loader(pixels, labels, ImagePreprocess(SPEC), batch_size, **options)


def noisy_loader(count: int = 23, batch_size: int = 5, **options: Any) -> Loader:
    """Images of noise, whose labels are their positions, shuffled and distorted."""
    pixels = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    options = {"augmentation": DIGITS, "sampler": "shuffle", **options}
    return Loader(pixels, torch.arange(count), ImagePreprocess(SPEC), batch_size, **options)


def join(batches: list[Batch]) -> tuple[Tensor, Tensor]:
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


samplers = st.sampled_from(["shuffle", "sequential"])


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 60), batch_size=st.integers(1, 70), sampler=samplers, number=st.integers(1, 1000))
def test_every_sample_occurs_once_an_epoch(count: int, batch_size: int, sampler: Sampler, number: int) -> None:
    loader = make_loader(count, batch_size, sampler=sampler)
    batches = list(loader.epoch(number))
    assert len(batches) == len(loader)
    lengths = [len(labels) for _, labels in batches]
    assert max(lengths) <= batch_size
    assert max(lengths) - min(lengths) <= 1
    images, labels = join(batches)
    assert sorted(labels.tolist()) == list(range(count))
    expected = ((labels / 255 - 0.25) / 0.5).view(-1, 1, 1, 1).expand(-1, -1, 6, 6)
    torch.testing.assert_close(images, expected)


def test_in_sequence_order_is_kept() -> None:
    for number in (1, 2):
        _, labels = join(list(make_loader().epoch(number)))
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


@pytest.mark.parametrize(("seed", "number"), [(7, 4), (8, 3)])
def test_another_seed_or_epoch_distorts_the_same_batch_in_another_way(seed: int, number: int) -> None:
    first, _ = join(list(noisy_loader(seed=7, sampler="sequential").epoch(3)))
    other, _ = join(list(noisy_loader(seed=seed, sampler="sequential").epoch(number)))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_order_has_a_stream_of_its_own() -> None:
    generator = torch.Generator().manual_seed(epoch_seed(7, 3, "order"))
    assert torch.equal(noisy_loader(seed=7).order(3), torch.randperm(23, generator=generator))


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    sampler=st.sampled_from(get_args(Sampler)),
    augmentation=st.sampled_from([None, DIGITS, MIXING]),
    data=st.data(),
)
def test_an_epoch_goes_on_from_any_batch(
    count: int, batch_size: int, sampler: Sampler, augmentation: Augmentation | None, data: st.DataObject
) -> None:
    labels = torch.arange(count) % 3
    loader = replace(noisy_loader(count, batch_size), labels=labels, sampler=sampler, augmentation=augmentation)
    whole = list(loader.epoch(4))
    start = data.draw(st.integers(0, len(loader)))
    assert equal(list(loader.epoch(4, start)), whole[start:])


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 80),
    batch_size=st.integers(1, 12),
    world_size=st.integers(1, 4),
    sampler=st.sampled_from(get_args(Sampler)),
)
def test_all_ranks_together_see_what_one_process_sees(
    count: int, batch_size: int, world_size: int, sampler: Sampler
) -> None:
    alone = make_loader(count, batch_size * world_size, sampler=sampler)
    if count < len(alone) * world_size:
        with pytest.raises(DataError, match=f"a sample a batch for each of {world_size} processes"):
            make_loader(count, batch_size, world_size=world_size)
        return
    ranks = [make_loader(count, batch_size, sampler=sampler, rank=k, world_size=world_size) for k in range(world_size)]
    assert {len(loader) for loader in ranks} == {len(alone)}
    for batch, *parts in zip(alone.epoch(2), *(loader.epoch(2) for loader in ranks), strict=True):
        lengths = [len(labels) for _, labels in parts]
        assert 1 <= min(lengths) <= max(lengths) <= batch_size
        assert max(lengths) - min(lengths) <= 1
        assert equal([join(parts)], [batch])


def test_batches_and_ranks_share_no_distortion() -> None:
    pixels = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6).repeat(24, 1, 1, 1)
    distortion = ImageAugmentation(rotate=90)
    seen = set()
    for rank in range(2):
        loader = Loader(pixels, torch.arange(24), ImagePreprocess(SPEC), 3, distortion, rank=rank, world_size=2)
        seen |= {image.numpy().tobytes() for images, _ in loader.epoch(1) for image in images}
    assert len(seen) == 24


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 1), (1, 1), (3, 3)])
def test_impossible_ranks_are_refused(rank: int, world_size: int) -> None:
    with pytest.raises(ConfigError, match=f"rank: wanted 0 to {world_size - 1}, found {rank}"):
        make_loader(rank=rank, world_size=world_size)


def draw_balanced(counts: list[int], seed: int, epochs: int) -> Tensor:
    """Return the positions that so many balanced epochs draw, of classes with these numbers of samples."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    loader = replace(make_loader(len(labels)), labels=labels, sampler="balanced", seed=seed)
    return torch.cat([loader.order(number) for number in range(1, epochs + 1)])


@pytest.mark.parametrize("counts", [[50, 50], [180, 15, 5], [1, 97, 2]])
def test_a_balanced_epoch_draws_classes_and_their_samples_equally(counts: list[int]) -> None:
    drawn = draw_balanced(counts, seed=0, epochs=40)
    total = sum(counts)
    assert len(drawn) == 40 * total
    found = np.bincount(drawn.numpy(), minlength=total)
    expected = [40 * total / (len(counts) * count) for count in counts for _ in range(count)]
    assert chisquare(found, expected).pvalue > 0.01
    assert chisquare(np.add.reduceat(found, np.cumsum([0, *counts[:-1]]))).pvalue > 0.01


def test_balanced_epochs_are_repeatable_and_differ() -> None:
    first, second = draw_balanced([30, 3], seed=1, epochs=2).view(2, 33)
    assert torch.equal(first, draw_balanced([30, 3], seed=1, epochs=1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, draw_balanced([30, 3], seed=2, epochs=1))


def test_a_class_without_samples_is_not_drawn() -> None:
    loader = replace(make_loader(6), labels=torch.tensor([0, 0, 2, 2, 2, 2]), sampler="balanced")
    assert {label for _, labels in loader.epoch(1) for label in labels.tolist()} <= {0, 2}


@pytest.mark.parametrize(
    "augmentation", [None, DIGITS, find_policy("image", "strong"), find_policy("image", "trivial")]
)
def test_feeding_leaves_the_data_and_the_global_generators_alone(augmentation: Augmentation | None) -> None:
    loader = noisy_loader(augmentation=augmentation)
    loader = replace(loader, labels=loader.labels % 3)
    assert isinstance(loader.inputs, Tensor)
    pixels, labels, state = loader.inputs.clone(), loader.labels.clone(), torch.get_rng_state()
    numpy_state = str(np.random.get_state())  # noqa: NPY002 - what must not be drawn from
    before = {field.name: id(getattr(loader, field.name)) for field in fields(loader)}
    list(loader.epoch(1))
    assert torch.equal(loader.inputs, pixels)
    assert torch.equal(loader.labels, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == numpy_state  # noqa: NPY002
    assert {name: id(value) for name, value in vars(loader).items()} == before


def test_a_loader_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        make_loader().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("augmentation", [None, ImageAugmentation(), DIGITS, MIXING])
def test_batches_are_float_and_channels_last(augmentation: Augmentation | None) -> None:
    pixels = torch.zeros((4, 3, 6, 6), dtype=torch.uint8)
    spec = ImageSpec((3, 6, 6), mean=(0.0,) * 3, std=(1.0,) * 3)
    for images, labels in Loader(
        pixels, torch.zeros(4, dtype=torch.int64), ImagePreprocess(spec), 3, augmentation
    ).epoch(1):
        assert images.dtype == torch.float32
        assert labels.dtype == (torch.float32 if augmentation is MIXING else torch.int64)
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augmentation", [None, ImageAugmentation()])
def test_without_distortion_batches_are_the_normalized_pixels(augmentation: Augmentation | None) -> None:
    loader = noisy_loader(sampler="sequential", augmentation=augmentation)
    images, _ = join(list(loader.epoch(1)))
    assert isinstance(loader.inputs, Tensor)
    torch.testing.assert_close(images, (loader.inputs / 255 - 0.25) / 0.5)


@settings(deadline=None, max_examples=30)
@given(
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    cutmix=st.sampled_from([0.3, 1.0]),
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=30),
)
def test_mixed_labels_are_shares_that_sum_to_one(mixup: float, cutmix: float, labels: list[int]) -> None:
    loader = noisy_loader(len(labels), 8, augmentation=ImageAugmentation(mixup=mixup, cutmix=cutmix))
    _, shares = join(list(replace(loader, labels=torch.tensor(labels), num_classes=3).epoch(1)))
    assert shares.shape == (len(labels), 3)
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(labels)))
    assert set(shares.sum(dim=0).nonzero().flatten().tolist()) <= set(labels)


def test_images_are_mixed_in_the_measure_of_their_labels() -> None:
    """An image of class 0 is black and one of class 1 white: mixed, its mean is its share of class 1."""
    spec = ImageSpec((1, 20, 20), mean=(0.0,), std=(1.0,))
    labels = torch.arange(40) % 2
    pixels = (255 * labels).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 20, 20)
    images, shares = join(list(Loader(pixels, labels, ImagePreprocess(spec), 10, MIXING).epoch(1)))
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), shares[:, 1], atol=1e-5, rtol=0)
    assert ((shares > 0.01) & (shares < 0.99)).any()


def series_loader(augmentation: SeriesAugmentation | None) -> Loader:
    series = torch.randn(9, 2, 8, generator=torch.Generator().manual_seed(0))
    series[3, :, 5:] = torch.nan
    return Loader(series, torch.arange(9) % 2, create_preprocess(SERIES), 4, augmentation)


@pytest.mark.parametrize("augmentation", [None, SeriesAugmentation()])
def test_series_are_normalized_and_end_where_they_did(augmentation: SeriesAugmentation | None) -> None:
    loader = series_loader(augmentation)
    series, labels = join(list(loader.epoch(1)))
    assert isinstance(loader.inputs, Tensor)
    expected = (loader.inputs - torch.tensor([[1.0], [-1.0]])) / torch.tensor([[2.0], [0.5]])
    torch.testing.assert_close(series, expected, equal_nan=True)
    assert labels.tolist() == (np.arange(9) % 2).tolist()


def test_series_are_distorted_where_they_have_values() -> None:
    plain, _ = join(list(series_loader(None).epoch(1)))
    distorted, _ = join(list(series_loader(SeriesAugmentation(jitter=0.1)).epoch(1)))
    assert torch.equal(plain.isnan(), distorted.isnan())
    assert (plain != distorted)[~plain.isnan()].all()
    slightly, _ = join(list(series_loader(SeriesAugmentation(jitter=1e-6)).epoch(1)))
    torch.testing.assert_close(slightly, plain, atol=1e-4, rtol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("augmentation", "masked"), [(None, False), (TextAugmentation(), False), (TextAugmentation(0.5), True)]
)
def test_tokens_are_whole_numbers_and_masked_on_demand(augmentation: TextAugmentation | None, masked: bool) -> None:
    texts = ["a few words", "and more of them", "of"]
    tokenizer = train_tokenizer(texts, 300)
    spec = TextSpec((12,), vocab_size=300)
    inputs = load_inputs(text_split(texts), spec, tokenizer).inputs
    assert isinstance(inputs, Tensor)
    preprocess = create_preprocess(spec, tokenizer)
    tokens, _ = join(list(Loader(inputs, torch.tensor([0, 1, 0]), preprocess, 2, augmentation).epoch(1)))
    assert tokens.dtype == torch.int64
    assert bool((tokens == 1).any()) is masked
    assert torch.equal((tokens == 0), (inputs == 0))
    assert torch.equal(tokens.where(tokens != 1, 0), inputs.long().where(tokens != 1, 0))


def text_split(texts: list[str]) -> Split:
    names = np.array([f"made:{line}" for line in range(len(texts))])
    count = np.arange(len(texts))
    return Split(Texts(texts, names), count % 2, count.astype(np.uint64))


def draw(seed: int, epoch: int, purpose: Purpose, *more: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch, purpose, *more))
    return tuple(torch.randperm(1000, generator=generator)[:8].tolist())


def test_seeds_epochs_and_purposes_share_no_stream() -> None:
    """Evaluated by what is drawn: torch's generator looks at 32 bits of a seed only."""
    seeds, epochs = (0, 1, 2, 3, 4, 2**31 - 1), (1, 2, 3, 1000)
    cases: list[Any] = [*product(seeds, epochs, ("dropout", "order")), *product(seeds, epochs, ("data",), range(9))]
    assert len({draw(*case) for case in cases}) == len(cases)


@pytest.mark.parametrize(("count", "sizes"), [(65, [33, 32]), (64, [64]), (130, [44, 43, 43]), (1, [1])])
def test_batches_differ_by_at_most_one_sample(count: int, sizes: list[int]) -> None:
    loader = make_loader(count, batch_size=64)
    assert [len(labels) for _, labels in loader.epoch(1)] == sizes
    assert len(loader) == len(sizes)


class WatchedLoader(Loader):
    """Writes down the batches that are made, which takes time, and may fail or be interrupted at one of them."""

    made: list[int]
    pause: float
    fail_at: int
    error: Exception | signal.Signals

    def make_batch(self, indices: Tensor, number: int, position: int) -> Batch:
        self.made.append(position)
        time.sleep(self.pause if position == self.fail_at else 4 * self.pause)
        if position == self.fail_at:
            if isinstance(self.error, Exception):
                raise self.error
            signal.pthread_kill(threading.main_thread().ident or 0, self.error)
            time.sleep(self.pause)
        return super().make_batch(indices, number, position)


def watch(fail_at: int = -1, error: Exception | signal.Signals = signal.SIGINT, pause: float = 0.0) -> WatchedLoader:
    source = make_loader(60)
    loader = WatchedLoader(source.inputs, source.labels, source.preprocess, 5)
    for name, value in (("made", []), ("fail_at", fail_at), ("error", error), ("pause", pause)):
        object.__setattr__(loader, name, value)
    return loader


@pytest.fixture
def no_thread_left() -> Any:
    """Check that a test ends with the threads that it began with."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("no_thread_left")
def test_an_epoch_that_is_abandoned_stops_its_threads() -> None:
    loader = watch()
    for index, _ in enumerate(loader.epoch(1)):
        if index == 1:
            break
    assert set(loader.made) <= set(range(2 + AHEAD))


@pytest.mark.usefixtures("no_thread_left")
def test_no_more_is_prepared_than_is_waited_for() -> None:
    loader = watch()
    batches = loader.epoch(1)
    next(batches)
    time.sleep(0.05)
    assert sorted(loader.made) == list(range(AHEAD + 1))
    assert len(list(batches)) == 11
    assert sorted(loader.made) == list(range(12))


@pytest.mark.usefixtures("no_thread_left")
def test_an_error_reaches_the_consumer_after_the_batches_before() -> None:
    loader = watch(3, MemoryError("too large"))
    batches = loader.epoch(1)
    _, seen = join([next(batches) for _ in range(3)])
    with pytest.raises(MemoryError, match="too large"):
        next(batches)
    assert seen.tolist() == list(range(15))


@pytest.mark.usefixtures("no_thread_left")
def test_an_error_of_the_consumer_stops_the_thread() -> None:
    with pytest.raises(ZeroDivisionError):
        [1 // len(images[:0]) for images, _ in watch().epoch(1)]


@pytest.fixture
def heeding_ctrl_c() -> Any:
    """Let Ctrl-C interrupt a test, which it does not where a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("no_thread_left", "heeding_ctrl_c")
def test_ctrl_c_ends_the_waiting() -> None:
    loader = watch(0, pause=0.1)
    with pytest.raises(KeyboardInterrupt):
        list(loader.epoch(1))
    # What is being made is finished, and what waits is not begun.
    assert sorted(loader.made) == list(range(AHEAD))


class CountingLoader(Loader):
    """Writes down with how many threads each batch is computed."""

    seen: ClassVar[list[int]] = []

    def make_batch(self, indices: Tensor, number: int, position: int) -> Batch:
        CountingLoader.seen.append(torch.get_num_threads())
        return super().make_batch(indices, number, position)


def test_batches_are_computed_by_single_threads_and_the_consumer_keeps_its_own() -> None:
    before = torch.get_num_threads()
    source = make_loader()
    try:
        torch.set_num_threads(3)
        found = [
            torch.get_num_threads() for _ in CountingLoader(source.inputs, source.labels, source.preprocess, 5).epoch(1)
        ]
        with ThreadPoolExecutor(1) as pool:
            found += [torch.get_num_threads(), pool.submit(torch.get_num_threads).result()]
    finally:
        torch.set_num_threads(before)
    assert set(found) == {3}
    assert set(CountingLoader.seen) == {1}


def test_pixels_on_disk_are_fed_like_pixels_in_memory(tmp_path: Path) -> None:
    split = make_logged_split(tmp_path / "log", 30, bad=[4, 29])
    loaded = load_inputs(split, SPEC)
    assert isinstance(loaded.inputs, PixelCache)
    held = loaded.inputs.take(torch.arange(28))
    labels = torch.from_numpy(loaded.split.labels)
    loaders = [
        Loader(inputs, labels, ImagePreprocess(SPEC), 5, DIGITS, "shuffle", seed=3) for inputs in (loaded.inputs, held)
    ]
    assert equal(list(loaders[0].epoch(2)), list(loaders[1].epoch(2)))
    assert measure_inputs(loaded.inputs, SPEC) == measure_inputs(held, SPEC)


def test_files_that_turn_out_damaged_are_left_out(make_folder: FolderMaker) -> None:
    root = make_folder(count=6)
    whole = encode(Image.effect_noise((40, 30), 50), "JPEG")
    for name in ("dark/0.jpg", "light/0.jpg", "light/zz.jpg"):
        (root / name).write_bytes(whole[:-200] + name.encode())
    splits = load_dataset(root).splits
    spec = ImageSpec((1, 8, 8), mean=(0.5,), std=(0.5,))
    parts = [load_inputs(split, spec) for split in splits.values()]
    skipped = {entry.file: entry.reason for part in parts for entry in part.unreadable}
    assert set(skipped) == {"dark/0.jpg", "light/0.jpg", "light/zz.jpg"}
    assert all(reason.startswith("damaged image: ") and str(root) not in reason for reason in skipped.values())
    assert sum(len(part.split) for part in parts) == 12
    for part in parts:
        assert len(part.inputs) == len(part.split) == len(part.split.samples)
        loader = Loader(part.inputs, torch.from_numpy(part.split.labels), ImagePreprocess(spec), 4)
        images, labels = join(list(loader.epoch(1)))
        # The light ones are above the middle, the dark ones below.
        assert ((images.mean(dim=(1, 2, 3)) > 0).long() == labels).all()
        for index in range(len(part.split)):
            assert part.split.samples.name(index).split("/")[0] == ("dark", "light")[labels[index]]


def test_where_no_file_can_be_decoded_the_first_is_told(tmp_path: Path) -> None:
    split = make_logged_split(tmp_path / "log", 4, bad=range(4))
    with pytest.raises(DataError, match=r"none of 4 images can be read; the first: noise/0\.png \(damaged image"):
        load_inputs(split, SPEC)


def test_arrays_are_held_in_memory() -> None:
    split = make_split([0, 1, 1], size=(6, 6))
    loaded = load_inputs(split, SPEC)
    assert loaded.split is split
    assert isinstance(loaded.inputs, Tensor)
    assert isinstance(split.samples, ImageArray)
    assert torch.equal(loaded.inputs[:, 0], torch.from_numpy(split.samples.images[..., 0]))


def series_split(lengths: list[int]) -> Split:
    """Series of 2 channels; one of length 0 cannot be used."""
    ends = np.cumsum(lengths)
    values = np.random.default_rng(0).normal(size=(2, ends[-1])).astype(np.float32)
    names = np.array([f"made:{line}" for line in range(len(lengths))])
    bounds = np.stack([ends - lengths, ends], axis=1)
    count = np.arange(len(lengths))
    return Split(SeriesArray(values, bounds, names), count % 2, count.astype(np.uint64))


def test_series_are_held_in_memory_without_those_that_cannot_be_used() -> None:
    split = series_split([5, 0, 12, 8])
    loaded = load_inputs(split, SERIES)
    assert isinstance(loaded.inputs, Tensor)
    assert loaded.inputs.shape == (3, 2, 8)
    assert (~loaded.inputs.isnan()).sum(dim=2).tolist() == [[5, 5], [8, 8], [8, 8]]
    assert loaded.split.labels.tolist() == [0, 0, 1]
    assert [entry.file for entry in loaded.unreadable] == ["made:1"]
    assert measure_inputs(loaded.inputs, SERIES) == measure_series(loaded.inputs.numpy())


def test_series_of_which_none_can_be_used_are_refused() -> None:
    with pytest.raises(DataError, match=r"none of 2 samples can be read; the first: made:0 \("):
        load_inputs(
            series_split([0, 0]).take(np.array([0, 1])), replace(SERIES, shape=(3, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
        )


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [50, 1500])
def test_measured_pixels_are_those_of_numpy(channels: int, count: int) -> None:
    pixels = noise(count, channels, 9, 7) // torch.arange(1, channels + 1).view(1, -1, 1, 1)
    means, deviations = measure_pixels(pixels.to(torch.uint8))
    values = pixels.numpy().astype(np.float64) / 255
    assert means == pytest.approx(values.mean(axis=(0, 2, 3)), rel=1e-12)
    assert deviations == pytest.approx(values.std(axis=(0, 2, 3)), rel=1e-12)


def test_constant_pixels_can_be_divided_by_their_deviation() -> None:
    means, deviations = measure_pixels(torch.full((4, 1, 3, 3), 51, dtype=torch.uint8))
    assert means == pytest.approx([0.2])
    assert deviations == pytest.approx([1 / 255])


def test_measured_pixels_normalize_their_source() -> None:
    raw = torch.from_numpy(np.array(Image.effect_noise((40, 30), 60)))[None, ..., None]
    means, deviations = measure_pixels(raw.permute(0, 3, 1, 2))
    x = ImagePreprocess(ImageSpec((1, 30, 40), mean=means, std=deviations))(raw)
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-5)


# Barycenters


def class_loader(lengths: list[int], labels: list[int], **options: Any) -> Loader:
    """Series of two channels, of which sample k has values near 10 k; NaN stands behind their ends."""
    spec = SeriesSpec((2, 12), mean=(1.0, -1.0), std=(2.0, 0.5))
    noise = torch.rand(len(lengths), 2, 12, generator=torch.Generator().manual_seed(0))
    series = noise + 10 * torch.arange(len(lengths))[:, None, None]
    for row, length in enumerate(lengths):
        series[row, :, length:] = torch.nan
    options = {"augmentation": SeriesAugmentation(barycenter=1.0), **options}
    return Loader(series, torch.tensor(labels), create_preprocess(spec), 3, **options)


def test_barycenters_lie_between_series_of_one_class() -> None:
    loader = class_loader([12, 9, 12, 5, 12, 12, 7], [0, 0, 0, 1, 1, 2, 0])
    inputs = loader.inputs
    assert isinstance(inputs, Tensor)
    changed = 0
    for number in range(1, 6):
        batches, labels = join(list(loader.epoch(number)))
        assert torch.equal(labels, loader.labels)  # Labels are never mixed.
        raw = batches * torch.tensor([2.0, 0.5])[:, None] + torch.tensor([1.0, -1.0])[:, None]
        assert torch.equal(raw.isnan(), inputs.isnan())
        # The one sample of its class stays as it is.
        torch.testing.assert_close(raw[5], inputs[5])
        for row, label in enumerate(labels.tolist()):
            peers = inputs[labels == label]
            own = raw[row][~raw[row].isnan()]
            assert own.min() >= peers.nan_to_num(1e9).min() - 1e-3
            assert own.max() <= peers.nan_to_num(-1e9).max() + 1e-3
            if label != 2:
                changed += int((own - inputs[row][~inputs[row].isnan()]).abs().max() > 0.5)
    assert changed > 20


def test_barycenters_are_drawn_as_often_as_they_should() -> None:
    loader = class_loader([12] * 60, [0] * 60, augmentation=SeriesAugmentation(barycenter=0.3))
    plain = class_loader([12] * 60, [0] * 60, augmentation=None)
    (before, _) = join(list(plain.epoch(1)))
    moved = [(join(list(loader.epoch(number)))[0] - before).abs().amax(dim=(1, 2)) > 1e-3 for number in range(1, 9)]
    assert float(torch.cat(moved).float().mean()) == pytest.approx(0.3, abs=0.07)


def test_barycenters_follow_from_seed_epoch_and_position_alone() -> None:
    loader = class_loader([12] * 20, [0, 1] * 10, sampler="shuffle", seed=4)
    batches = list(loader.epoch(2))
    list(loader.epoch(1))
    assert equal(batches[3:], list(loader.epoch(2, start=3)))
    assert not equal(batches, list(loader.epoch(3)))


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_partners_are_others_of_the_class(labels: list[int], seed: int) -> None:
    indices = torch.randint(len(labels), (50,), generator=torch.Generator().manual_seed(seed))
    given = torch.tensor(labels)
    partners = draw_partners(indices, given, torch.Generator().manual_seed(seed))
    assert torch.equal(given[partners], given[indices])
    alone = torch.bincount(given)[given[indices]] == 1
    assert torch.equal(partners == indices, alone)


def test_each_partner_is_as_likely() -> None:
    labels = torch.tensor([0, 1, 0, 0, 1, 0])
    partners = draw_partners(torch.full((3000,), 2), labels, torch.Generator().manual_seed(0))
    counts = torch.bincount(partners, minlength=6)
    assert counts[[1, 2, 4]].sum() == 0
    assert chisquare(counts[[0, 3, 5]].numpy()).pvalue > 1e-3


def test_texts_of_like_lengths_come_together() -> None:
    tokens = torch.tensor([[1, 2, 3, 0], [1, 0, 0, 0], [4, 5, 6, 7], [8, 9, 0, 0]], dtype=torch.int32)
    preprocess = create_preprocess(TextSpec((4,), 258), train_tokenizer([], 258))
    loader = Loader(tokens, torch.arange(4), preprocess, 2, sampler="by_length")
    assert [labels.tolist() for _, labels in loader.epoch(1)] == [[1, 3], [0, 2]]
    images = make_loader(5, 2, sampler="by_length")
    assert torch.equal(images.order(1), torch.arange(5))


@pytest.mark.parametrize("sampler", ["by_length", "sequential", "shuffle"])
def test_some_of_the_samples_are_drawn_anew_for_each_epoch_whatever_their_order(sampler: Sampler) -> None:
    lengths = torch.arange(40).flip(0) % 8 + 1
    tokens = (torch.arange(8) < lengths[:, None]).int()
    preprocess = create_preprocess(TextSpec((8,), 258), train_tokenizer([], 258))
    loader = Loader(tokens, torch.arange(40), preprocess, 4, sampler=sampler, limit=10)
    orders = [loader.order(number) for number in range(1, 200)]
    assert all(len(torch.unique(order)) == 10 for order in orders)
    assert chisquare(torch.bincount(torch.cat(orders), minlength=40).numpy()).pvalue > 1e-3
    if sampler == "by_length":
        assert all(torch.equal(lengths[order], lengths[order].sort().values) for order in orders)
    if sampler == "sequential":
        assert all(torch.equal(order, order.sort().values) for order in orders)
