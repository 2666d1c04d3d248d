"""The batches that `fit` takes: reproducible ones, and any iterable of pairs, such as torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from falconet.data.loader import Loader, epoch_seed
from falconet.errors import DataError, UsageError, lacks_memory

_INTEGER_DTYPES = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32)
"""Data types that class numbers may have."""


@runtime_checkable
class Batches(Protocol):
    """Batches that are the same each time an epoch's number is the same; `falconet.Loader` implements it."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Yield inputs and labels of one epoch, counted from 1, from batch `start` on: the same for the same number.

        A training batch may have a third tensor: a teacher's logits.
        """


@dataclass(frozen=True, eq=False)
class _IteratedBatches:
    """Batches of an iterable that is iterated anew in each epoch."""

    name: str
    """Name of the batches in messages: train or val."""
    iterable: Iterable[Any]
    length: int
    classes: int
    """Number of the network's outputs."""
    seed: int

    def __len__(self) -> int:
        return self.length

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Yield the batches of an iteration from batch `start` on.

        A DataLoader seeds its shuffling from torch's generator as it begins: here that follows from seed and epoch.
        """
        with _drawn_for(self.seed, number):
            iterator = iter(self.iterable)
            first = list(_next_batch(iterator))
        count = 0
        for batch in chain(first, iterator):
            if count < self.length and count >= start:
                yield self.check(batch, count)
            count += 1
            if count > self.length:
                break
        if count != self.length:
            found = f"{count:,}" if count < self.length else "more"
            raise DataError(
                f"{self.name}: wanted {self.length:,} batches in each epoch, found {found} in epoch {number}"
            )

    def check(self, batch: Any, place: int) -> tuple[Tensor, Tensor]:
        """Return a batch as the training loop takes it. Raises DataError for an invalid one."""
        where = f"{self.name}, batch {place}"
        inputs, labels = _split_pair(batch, where)
        labels = _to_labels(labels, where)
        if not len(inputs) or len(inputs) != len(labels):
            raise DataError(f"{where}: wanted a label for each input, found {len(inputs)} inputs, {len(labels)} labels")
        if labels.ndim == 2 and labels.shape[1] != self.classes:
            found = f"{labels.shape[1]} columns"
            raise DataError(
                f"{where}: wanted a fraction of each of the network's {self.classes} classes, found {found}"
            )
        if labels.ndim == 1:
            _check_class_numbers(labels, self.classes, where)
        return inputs, labels


def _check_class_numbers(labels: Tensor, classes: int, where: str) -> None:
    """Raise DataError unless a network of so many outputs has one for each label."""
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        strange = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        wanted = f"class numbers of 0 to {classes - 1}, as the network has {classes} outputs"
        raise DataError(f"{where}: wanted {wanted}, found {strange}")


@contextmanager
def _drawn_for(seed: int, number: int) -> Iterator[None]:
    """Seed torch's generator from a seed and an epoch for a while, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(epoch_seed(seed, number, "order"))
        yield


def _next_batch(iterator: Iterator[Any]) -> Iterator[Any]:
    """Yield the next batch, where there is one."""
    for batch in iterator:
        yield batch
        return


def make_batches(name: str, loader: Batches | Iterable[Any] | None, model: nn.Module, seed: int) -> Batches:
    """Return the loader or iterable that `fit` was given as `Batches`.

    Raises UsageError for an object that is not iterable or can be iterated only once, and DataError for batches that
    are not pairs of inputs and labels, or that the network cannot take.
    """
    if isinstance(loader, Loader) and len(loader):
        _check_class_numbers(loader.labels, count_classes(name, loader, model), name)
    if isinstance(loader, Batches):
        return loader
    if loader is None:
        raise DataError(f"{name}: wanted a loader of one batch or more, found none")
    wanted = "an iterable of (x, y) batches, such as a DataLoader"
    if isinstance(loader, Iterator):
        again = "which is used up after one epoch: give a list or a DataLoader"
        raise UsageError(f"{name}: wanted {wanted}, found {type(loader).__name__}, {again}")
    if isinstance(loader, str | bytes | Mapping | Tensor | np.ndarray) or not isinstance(loader, Iterable):
        raise UsageError(f"{name}: wanted {wanted}, found {type(loader).__name__}")
    with _drawn_for(seed, 1):
        length = _count_batches(loader)
        first = list(_next_batch(iter(loader)))
    if not length or not first:
        raise DataError(f"{name}: wanted a loader of one batch or more, found one without batches")
    inputs, _ = _split_pair(first[0], f"{name}, batch 0")
    return _IteratedBatches(name, loader, length, _count_outputs(model, inputs[:1], name), seed)


def count_classes(name: str, loader: Loader, model: nn.Module) -> int:
    """Return how many classes a network tells apart. Raises DataError where it cannot take the loader's samples."""
    # One sample as it is, whatever part of an epoch this process gets.
    single = replace(loader, augmentation=None, teacher_logits=None, rank=0, world_size=1)
    inputs, _ = single.make_inputs(torch.zeros(1, dtype=torch.int64), 1, 0)
    return _count_outputs(model, inputs, name)


def _count_batches(loader: Iterable[Any]) -> int:
    """Return the number of batches in an iteration, by iterating where the iterable has no length."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return sum(1 for _ in loader)


def _split_pair(batch: Any, where: str) -> tuple[Tensor, Any]:
    """Return a batch's inputs, as a network takes them, and its labels as they are. Raises DataError."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        found = f"{len(batch)} entries" if isinstance(batch, tuple | list) else type(batch).__name__
        raise DataError(f"{where}: wanted a pair of inputs and class numbers, found {found}")
    inputs, labels = batch
    if not isinstance(inputs, Tensor | np.ndarray):
        raise DataError(f"{where}: wanted inputs as a tensor, found {type(inputs).__name__}")
    inputs = torch.as_tensor(inputs)
    if inputs.dtype in (torch.uint8, torch.uint16, torch.bool):
        raise DataError(
            f"{where}: wanted inputs as float32, or tokens as int64, found {inputs.dtype}; scale them first"
        )
    return inputs.float() if inputs.dtype == torch.float64 else inputs, labels


def _to_labels(labels: Any, where: str) -> Tensor:
    """Return class numbers as int64, and soft labels as float32. Raises DataError for anything else."""
    if not isinstance(labels, Tensor | np.ndarray | list | tuple):
        raise DataError(f"{where}: wanted class numbers as a tensor, found {type(labels).__name__}")
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: wanted class numbers, found {type(labels[0]).__name__}") from error
    if tensor.ndim == 1 and tensor.dtype in _INTEGER_DTYPES:
        return tensor.long()
    if tensor.ndim == 2 and tensor.is_floating_point():
        return tensor.float()
    found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
    raise DataError(
        f"{where}: wanted class numbers, whole and one an input, or a probability of each class, found {found}"
    )


@torch.no_grad()
def _count_outputs(model: nn.Module, sample: Tensor, name: str) -> int:
    """Return the number of a network's classes. Raises DataError where it cannot take a sample."""
    mode = model.training
    place = next(model.parameters(), sample).device
    try:
        outputs = model.eval()(sample.to(place))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if lacks_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        shape = tuple(sample.shape[1:])
        raise DataError(
            f"{name}: wanted inputs that the network takes, found some of shape {shape}: {reason}"
        ) from error
    finally:
        model.train(mode)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        found = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise DataError(f"{name}: wanted a network that gives a logit for each class, found one that gives {found}")
    return outputs.shape[1]
