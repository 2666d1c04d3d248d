"""draft_spec(): a model's input spec, by its settings and the training samples, before their statistics are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from torch import Tensor

from falconet.data import Dataset
from falconet.data.cache import PixelCache
from falconet.data.loader import measure_inputs
from falconet.data.texts import TextEncoder, make_wordpiece, train_tokenizer
from falconet.errors import ConfigError, DataError
from falconet.modalities import modality_of
from falconet.models import find_model
from falconet.models.weights.pretrained import Pretrained
from falconet.planning import ModelConfig
from falconet.spec import ImageSpec, InputSpec, ModalityName, PixelType, ResizeMode, SeriesSpec, TextSpec


def draft_spec(dataset: Dataset, model: ModelConfig, weights: Pretrained | None = None) -> tuple[InputSpec, str | None]:
    """Return what the model takes, with mean 0 and standard deviation 1 still, and the tokenizer that texts need."""
    return _DRAFTS[dataset.kind](dataset, model, weights)


def add_statistics(
    draft: InputSpec, inputs: Tensor | PixelCache, channels: int, weights: Pretrained | None = None
) -> InputSpec:
    """Return a spec with mean and standard deviation: those of published weights, else measured on training samples."""
    if not modality_of(draft).has_statistics:
        return draft
    mean, std = weights.statistics(channels) if weights else measure_inputs(inputs, draft)
    known: Any = draft
    return cast(InputSpec, dataclasses.replace(known, mean=mean, std=std))


def _draft_image_spec(
    dataset: Dataset, model: ModelConfig, weights: Pretrained | None = None
) -> tuple[ImageSpec, None]:
    """Return what a model of images takes: channels and depth as the images have them, and a size that suits both."""
    mean, std = (0.0,) * dataset.channels, (1.0,) * dataset.channels
    height, width = image_size(dataset, model, weights)
    padding = find_model(model.name).padding
    shape, deep = (dataset.channels, height, width), dataset.value_range
    dtype: PixelType = "uint8" if deep is None else "uint16"
    mode: ResizeMode = model.resize_mode or (weights.resize_mode if weights else "stretch")
    return ImageSpec(shape, mean, std, padding, dtype=dtype, value_range=deep, resize_mode=mode), None


_MIN_SIDE = 24
"""Smallest side in pixels; smaller images are enlarged to it for networks that take any size."""


_MAX_SEQUENCE = 64
"""Largest side in pixels; larger images are scaled down to it for networks that read them as sequences."""


def image_size(dataset: Dataset, model: ModelConfig, weights: Pretrained | None) -> tuple[int, int]:
    """Return height and width in pixels: as asked for, as published weights want it, or what suits images and model.

    A model that takes any size gets that of the images, as a square of 24 pixels to its native size; above 64
    pixels a multiple of 32, since such networks divide the size by 32.
    """
    entry = find_model(model.name)
    if model.input_size is not None:
        sides = (model.input_size,) * 2 if isinstance(model.input_size, int) else tuple(model.input_size)
        if len(sides) != 2:
            raise ConfigError(f"model.input_size: wanted height and width in pixels, found {list(sides)}")
        return sides[0], sides[1]
    if weights is not None and weights.size is not None:
        return weights.size[0], weights.size[1]
    pixels = len(entry.input) == 3
    native = entry.input[1] if pixels else _MAX_SEQUENCE
    if weights is not None or (pixels and not entry.resizable):
        return native, entry.input[2]
    side = min(max(*dataset.size, _MIN_SIDE), native)
    side = side if side <= 64 else side // 32 * 32
    return side, side


def _draft_series_spec(
    dataset: Dataset, model: ModelConfig, weights: Pretrained | None = None
) -> tuple[SeriesSpec, None]:
    """Return what a model of series takes: as many steps or frames as asked for, else so many that few are cut."""
    rows = dataset.channels * (model.bands or 1)
    statistics = (0.0,) * rows, (1.0,) * rows
    spec = SeriesSpec((rows, 1), *statistics, model.length_mode, dataset.rate, model.bands)
    if model.input_size is not None:
        return dataclasses.replace(spec, shape=(rows, _one_number(model.input_size))), None
    steps = _measure_length(dataset)
    frames = steps if model.bands is None else max((steps - spec.window) // spec.hop + 1, 1)
    return dataclasses.replace(spec, shape=(rows, frames)), None


_LONGEST = 98
"""Percentile of the training samples' lengths that a model takes whole; longer ones are cut."""


def _measure_length(dataset: Dataset) -> int:
    """Return the 98th percentile of the lengths of training series, in steps."""
    samples = dataset.splits["train"].samples
    lengths = []
    for index in range(len(samples)):
        with suppress(DataError):  # Left out, and listed, when the samples are loaded.
            lengths.append(samples.read(index).shape[1])
    if not lengths:
        raise DataError(f"{dataset.source}: not one training series can be read")
    return max(int(np.percentile(lengths, _LONGEST, method="higher")), 1)


def _draft_text_spec(dataset: Dataset, model: ModelConfig, weights: Pretrained | None = None) -> tuple[TextSpec, str]:
    """Train a tokenizer on the training texts, unless published weights have one; return both it and the spec."""
    samples = dataset.splits["train"].samples
    texts = [samples.read(index) for index in range(len(samples))]
    vocabulary = weights.vocabulary if weights else None
    most = find_model(model.name).vocab_size if model.vocab_size is None else model.vocab_size
    tokenizer = make_wordpiece(vocabulary) if vocabulary else train_tokenizer(texts, most)
    encoder = TextEncoder(tokenizer, 1)
    if model.input_size is not None:
        length = _one_number(model.input_size)
    else:
        length = max(int(np.percentile(encoder.count_tokens(texts), _LONGEST)), 1)
        length = min(length, weights.size[0]) if weights and weights.size else length
    return TextSpec((length,), encoder.vocab_size), tokenizer


def _one_number(size: int | tuple[int, ...]) -> int:
    """Return the size of a sequence. Raises ConfigError for that of an image."""
    if isinstance(size, tuple) and len(size) != 1:
        raise ConfigError(f"model.input_size: wanted one number for a sequence, found {list(size)}")
    return size if isinstance(size, int) else size[0]


_DRAFTS: Mapping[ModalityName, Callable[[Dataset, ModelConfig, Pretrained | None], tuple[InputSpec, str | None]]] = (
    MappingProxyType({"image": _draft_image_spec, "series": _draft_series_spec, "text": _draft_text_spec})
)
