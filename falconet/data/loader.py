"""Loader: shuffled, augmented, normalized batches out of one block of memory or of a file; no Python per sample."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt
from torch import Tensor

from falconet.data.adapters import ADAPTERS
from falconet.data.augmentation import Augmentation, ImageAugmentation, SeriesAugmentation, TextAugmentation
from falconet.data.barycenters import average_pairs
from falconet.data.cache import PixelCache, open_cache
from falconet.data.dataset import ImageArray, Split, Unreadable, find_owner, match_labels
from falconet.data.files import adapt_samples
from falconet.data.preprocessing import (
    WHITES,
    AnyPreprocess,
    ImagePreprocess,
    SeriesPreprocess,
    TextPreprocess,
    create_preprocess,
    load_prepared,
    single_threaded_pool,
    to_unit,
)
from falconet.data.series import measure_series
from falconet.data.transforms import augment_images, augment_series, augment_tokens, mix_samples
from falconet.errors import ConfigError, DataError, UsageError
from falconet.modalities import modality_of
from falconet.spec import ImageSpec, InputSpec, ModalityName

Purpose = Literal["data", "dropout", "order"]
"""Use of random numbers: augmentation, the network's own (such as dropout), or the order of samples."""

Sampler = Literal["shuffle", "balanced", "sequential", "by_length"]
"""Order of an epoch: each sample once, shuffled; as many, each class equally often; each once, in order.

Or, with `by_length`, each once, texts of like lengths together, so that networks which skip padding take less time.
"""

Batch = tuple[Tensor, ...]
"""A model's inputs; labels, `Int64[batch]`, or where samples are mixed soft labels, `Float32[batch classes]`.

Then, where a teacher's logits were computed beforehand, these, `Float32[batch classes]`.
"""

AHEAD = 2
"""Batches that are prefetched while the network computes."""


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches for training and for validation during training."""

    inputs: Tensor | PixelCache
    """Prepared samples: images of 8 or 16 bits `(samples, channels, height, width)`, series fitted, texts as tokens."""
    labels: Int64[Tensor, " samples"]
    preprocess: AnyPreprocess
    batch_size: int
    """Samples of a rank's part of a batch, at most; an epoch is split evenly: 100 samples by 64 are two of 50."""
    augmentation: Augmentation | None = None
    sampler: Sampler = "sequential"
    seed: int = 0
    rank: int = 0
    """Rank of this process among `world_size`; each gets its part of every batch."""
    world_size: int = 1
    limit: int | None = None
    """Samples per epoch, drawn anew for each; None: all samples."""
    teacher_logits: Float32[Tensor, "samples classes"] | None = None
    """A teacher's logits for the samples without augmentation, which come with each batch; None: no teacher."""
    num_classes: int | None = None
    """Number of classes in mixed (soft) targets; None: as many as occur in the labels."""
    _walks: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False, repr=False)

    def __repr__(self) -> str:
        return (
            f"Loader({self.preprocess.spec.kind}, samples {self.drawn:,}, batches {len(self):,}, "
            f"batch size {self.batch_size:,}, sampler {self.sampler})"
        )

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch: of the first one at first, and with every further walk of another."""
        return self.epoch(next(self._walks))

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank: wanted 0 to {self.world_size - 1}, found {self.rank}")
        if self.drawn < len(self) * self.world_size:
            raise DataError(f"wanted a sample a batch for each of {self.world_size} processes: found too few")

    def __len__(self) -> int:
        """Batches per epoch, the same for every rank."""
        return math.ceil(self.drawn / (self.batch_size * self.world_size))

    @property
    def drawn(self) -> int:
        """Samples per epoch, over all ranks."""
        return len(self.labels) if self.limit is None else min(self.limit, len(self.labels))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 1, from batch `start` on.

        Order and augmentation of each batch follow from `seed`, `number` and the batch's position alone, so that any
        epoch can be repeated, or gone on with, from any of its batches. Samples are spread evenly: batches differ by at
        most one, so that no batch of a single sample is left for the end, of which batch normalization has no variance.
        The next batches are prepared in threads of their own.
        """
        parts = torch.tensor_split(self.order(number), len(self))
        waiting: deque[Future[Batch]] = deque()
        with single_threaded_pool(AHEAD) as pool:
            try:
                for position in range(start, len(parts)):
                    waiting.append(pool.submit(self.make_batch, parts[position], number, position))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def order(self, number: int) -> Int64[Tensor, " samples"]:
        """Return the positions of an epoch's samples, for all ranks together."""
        count = len(self.labels)
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number, "order"))
        if self.sampler == "balanced":
            frequency = torch.bincount(self.labels).double()
            return torch.multinomial(1 / frequency[self.labels], self.drawn, replacement=True, generator=generator)
        if self.sampler == "shuffle":
            return torch.randperm(count, generator=generator)[: self.drawn]
        # Some of the samples are drawn before they are put in order, or they would be the first or the shortest ones.
        some = self.drawn < count
        drawn = torch.randperm(count, generator=generator)[: self.drawn].sort().values if some else torch.arange(count)
        if self.sampler == "by_length" and isinstance(self.preprocess, TextPreprocess):
            assert isinstance(self.inputs, Tensor)
            return drawn[torch.argsort((self.inputs != 0).sum(dim=1)[drawn], stable=True)]
        return drawn

    def make_batch(self, indices: Int64[Tensor, " all_ranks"], number: int, position: int) -> Batch:
        """Gather, augment and normalize this rank's part of a batch, and add the teacher's logits for it, if any."""
        batch = self.make_inputs(indices, number, position)
        if self.teacher_logits is None:
            return batch
        mine = torch.tensor_split(indices, self.world_size)[self.rank]
        return batch[0], batch[1], self.teacher_logits.index_select(0, mine)

    def make_inputs(self, indices: Int64[Tensor, " all_ranks"], number: int, position: int) -> Batch:
        """Gather, augment and normalize this rank's part of a batch."""
        mine = torch.tensor_split(indices, self.world_size)[self.rank]
        raw = self.inputs.take(mine) if isinstance(self.inputs, PixelCache) else self.inputs.index_select(0, mine)
        labels = self.labels.index_select(0, mine)
        if self.augmentation is None or not self.augmentation.active:
            return to_input(raw, self.preprocess), labels
        part = position * self.world_size + self.rank
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number, "data", part))
        if isinstance(self.augmentation, SeriesAugmentation) and self.augmentation.barycenter:
            raw = self.average(raw, mine, self.augmentation.barycenter, generator)
        num_classes = self.num_classes or int(self.labels.max()) + 1
        return _augment(raw, labels, num_classes, self.preprocess, self.augmentation, generator)

    def average(
        self, raw: Tensor, indices: Int64[Tensor, " batch"], probability: float, generator: torch.Generator
    ) -> Tensor:
        """Replace some series by averages of them and others of their classes; one alone in its class stays."""
        assert isinstance(self.inputs, Tensor)
        partners = draw_partners(indices, self.labels, generator)
        chosen = (torch.rand(len(indices), generator=generator) < probability) & (partners != indices)
        if not bool(chosen.any()):
            return raw
        # Normalized, so that channels of other units weigh alike in the alignment.
        mine, theirs = (to_input(series, self.preprocess) for series in (raw[chosen], self.inputs[partners[chosen]]))
        assert isinstance(self.preprocess, SeriesPreprocess)
        averages = average_pairs(mine, theirs, generator) * self.preprocess.std + self.preprocess.mean
        return raw.index_copy(0, chosen.nonzero().flatten(), averages)


def draw_partners(
    indices: Int64[Tensor, " batch"], labels: Int64[Tensor, " samples"], generator: torch.Generator
) -> Int64[Tensor, " batch"]:
    """Draw for each sample another one of its class, each as likely; itself where it is the only one."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = (counts.cumsum(0) - counts)[labels[indices]]
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(labels)))[indices] - first
    others = counts[labels[indices]] - 1
    step = 1 + (torch.rand(len(indices), generator=generator, dtype=torch.float64) * others).long()
    return order[first + (place + step.clamp(max=others)) % (others + 1)]


@torch.no_grad()
def to_input(raw: Tensor, preprocess: AnyPreprocess) -> Tensor:
    """Return prepared samples as a model's input."""
    if isinstance(preprocess, ImagePreprocess):
        return _normalize_images(to_unit(raw), preprocess)
    return preprocess.normalize(raw if raw.is_floating_point() else raw.long())


@torch.no_grad()
def _augment(
    raw: Tensor,
    labels: Int64[Tensor, " batch"],
    num_classes: int,
    preprocess: AnyPreprocess,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> Batch:
    """Return prepared samples as a model's input, each augmented by its own random draws."""
    if isinstance(augmentation, ImageAugmentation) and isinstance(preprocess, ImagePreprocess):
        images = augment_images(to_unit(raw), augmentation, generator)
        mixed: Tensor = labels
        if augmentation.mixes:
            images, mixed = mix_samples(images, labels, num_classes, augmentation, generator)
        return _normalize_images(images, preprocess), mixed
    if isinstance(augmentation, SeriesAugmentation):
        return augment_series(to_input(raw, preprocess), augmentation, generator), labels
    assert isinstance(augmentation, TextAugmentation)
    return augment_tokens(to_input(raw, preprocess), augmentation, generator), labels


def _normalize_images(
    images: Float32[Tensor, "batch channels height width"], preprocess: ImagePreprocess
) -> Float32[Tensor, "batch channels height width"]:
    """Normalize in place, as `preprocess` does, and lay the channels innermost, as convolutions want them."""
    return images.sub_(preprocess.mean).div_(preprocess.std).contiguous(memory_format=torch.channels_last)


def epoch_seed(seed: int, epoch: int, purpose: Purpose, *more: int) -> int:
    """Return the 32 bits that torch's generator takes, mixed so that seeds, epochs and purposes share no stream."""
    words = [seed, epoch, get_args(Purpose).index(purpose), *more]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def hold_inputs(inputs: Tensor | PixelCache) -> Tensor:
    """Return prepared samples in memory."""
    return inputs.take(torch.arange(len(inputs))) if isinstance(inputs, PixelCache) else inputs


@dataclass(frozen=True, eq=False)
class LoadedInputs:
    """A split, prepared for a model."""

    inputs: Tensor | PixelCache
    split: Split
    """The split's readable samples, in the order of `inputs`."""
    kept: Int64[np.ndarray, " readable"]
    """Position of each readable sample in the whole split."""
    unreadable: tuple[Unreadable, ...]
    """Samples that cannot be read, with reasons."""


def load_inputs(split: Split, spec: InputSpec, tokenizer: str | None = None) -> LoadedInputs:
    """Prepare all samples of a split: images that must be decoded go into a file, anything else into memory.

    Raises DataError where nothing can be read, StorageError where the file finds no room.
    """
    return _LOADERS[spec.kind](split, spec, tokenizer)


def _load_images(split: Split, spec: ImageSpec, tokenizer: str | None) -> LoadedInputs:
    """Prepare images: arrays in memory, all that must be decoded in a file."""
    if isinstance(split.samples, ImageArray):
        return _load_in_memory(split, spec, tokenizer)
    cache, unreadable = open_cache(split, spec)
    return LoadedInputs(cache, split.take(cache.rows) if unreadable else split, cache.rows, unreadable)


def _load_in_memory(split: Split, spec: InputSpec, tokenizer: str | None) -> LoadedInputs:
    """Prepare samples in memory."""
    samples = ADAPTERS[spec.kind].rescale(split.samples, spec)
    inputs, reasons = load_prepared(samples, create_preprocess(spec, tokenizer))
    unreadable = tuple(Unreadable(split.samples.name(index), reason) for index, reason in reasons.items())
    kept = np.setdiff1d(np.arange(len(split)), list(reasons)).astype(np.int64)
    return LoadedInputs(inputs, split.take(kept) if reasons else split, kept, unreadable)


def load_batches(
    split: Split,
    spec: InputSpec,
    batch_size: int = 64,
    *,
    shuffle: bool = False,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    tokenizer: str | None = None,
) -> Loader:
    """Prepare a split for a model and return its batches; see `Split.to_loader`."""
    if not isinstance(spec, InputSpec):
        raise UsageError(f"spec: wanted an ImageSpec, SeriesSpec or TextSpec, found {type(spec).__name__}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size: wanted 1 or more, found {batch_size}")
    dataset = find_owner(split)
    if dataset.kind != spec.kind:
        raise DataError(f"{dataset.source}: wanted {spec.kind} data, as the spec says, found {dataset.kind}")
    if augmentation is not None and augmentation.kind != spec.kind:
        raise ConfigError(f"augmentation: wanted one of {spec.kind}, found one of {augmentation.kind}")
    if modality_of(spec).has_tokens and tokenizer is None:
        raise UsageError("tokenizer: wanted the one that goes with a spec of texts, found none; a model has its own")
    held = load_inputs(replace(split, samples=adapt_samples(split.samples, spec)), spec, tokenizer)
    known = classes or dataset.classes
    labels = torch.from_numpy(match_labels(held.split, dataset.classes, known))
    preprocess = create_preprocess(spec, tokenizer)
    sampler: Sampler = "shuffle" if shuffle else "sequential"
    return Loader(held.inputs, labels, preprocess, batch_size, augmentation, sampler, seed, num_classes=len(known))


def measure_inputs(inputs: Tensor | PixelCache, spec: InputSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation: of pixels in units of 0..1, of series as they are."""
    return _MEASURES[spec.kind](inputs)


def measure_pixels(pixels: Tensor | PixelCache) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation in units of 0..1, exactly, from its histogram."""
    white, counts = 0, torch.zeros(1, dtype=torch.int64)
    for part in torch.split(torch.arange(len(pixels)), 1024):
        batch = pixels.take(part) if isinstance(pixels, PixelCache) else pixels[part]
        white = WHITES[batch.dtype]
        counts = counts + torch.stack([_count_levels(channel, white) for channel in batch.unbind(1)])
    levels = np.arange(white + 1) / white
    means, stds = [], []
    for weights in counts.numpy():
        mean = float(np.average(levels, weights=weights))
        means.append(mean)
        # Constant images would divide by zero; one gray level is the least that they can differ by.
        stds.append(max(float(np.sqrt(np.average((levels - mean) ** 2, weights=weights))), 1 / white))
    return tuple(means), tuple(stds)


def _count_levels(channel: UInt[Tensor, "batch height width"], white: int) -> Int64[Tensor, " levels"]:
    """Return how many pixels have each gray level."""
    return torch.bincount(channel.flatten().int(), minlength=white + 1)


def _measure_steps(series: Tensor | PixelCache) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation."""
    assert isinstance(series, Tensor)
    return measure_series(series.numpy())


_LOADERS: Mapping[ModalityName, Callable[[Split, Any, str | None], LoadedInputs]] = MappingProxyType(
    {"image": _load_images, "series": _load_in_memory, "text": _load_in_memory}
)

_MEASURES: Mapping[ModalityName, Callable[[Tensor | PixelCache], tuple[tuple[float, ...], tuple[float, ...]]]] = (
    MappingProxyType({"image": measure_pixels, "series": _measure_steps})
)
"""Functions that compute mean and std of inputs; tokens are not normalized."""
