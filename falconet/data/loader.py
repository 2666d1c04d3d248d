"""Loader: shuffled, augmented, normalized batches out of one block of memory; no Python per sample."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from falconet.data.augmentation import POLICIES, Affine, distort
from falconet.data.preprocessing import Preprocess

NO_DISTORTION = POLICIES["none"]

Batch = tuple[Float32[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]


@dataclass(frozen=True, eq=False)
class Loader:
    """Feeds training and validation during training."""

    pixels: UInt8[Tensor, "samples channels height width"]
    labels: Int64[Tensor, " samples"]
    preprocess: Preprocess
    batch_size: int
    affine: Affine = NO_DISTORTION
    shuffle: bool = False
    seed: int = 0

    def __len__(self) -> int:
        """Batches an epoch; the last may be smaller."""
        return math.ceil(len(self.labels) / self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 1.

        Order and distortions follow from `seed` and `number` alone, so that any epoch can be repeated.
        """
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number))
        count = len(self.labels)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        for indices in torch.split(order, self.batch_size):
            images = self.pixels[indices].float().div_(255)
            if self.affine.active:
                images = distort(images, self.affine, generator)
            images = self.preprocess.normalize(images).contiguous(memory_format=torch.channels_last)
            yield images, self.labels[indices]


def epoch_seed(seed: int, epoch: int) -> int:
    """Return a seed for one epoch of a run; different for each pair of up to 2^31 seeds and 2^31 epochs."""
    return (seed << 31) + epoch
