"""Loader: shuffled, augmented, normalized batches out of one block of memory; no Python per sample."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from falconet.data.augmentation import POLICIES, Affine, distort
from falconet.data.preprocessing import Preprocess

NO_DISTORTION = POLICIES["none"]

Purpose = Literal["data", "dropout"]
"""What random numbers are drawn for: order and distortion, or what the network itself draws."""

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
        """Batches an epoch."""
        return math.ceil(len(self.labels) / self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 1.

        Order and distortions follow from `seed` and `number` alone, so that any epoch can be repeated. Samples are
        spread evenly: batches differ by at most one, so that no batch of a single sample is left for the end, of
        which batch normalization has no variance.
        """
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number, "data"))
        count = len(self.labels)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        for indices in torch.tensor_split(order, len(self)):
            images = self.pixels[indices].float().div_(255)
            if self.affine.active:
                images = distort(images, self.affine, generator)
            images = self.preprocess.normalize(images).contiguous(memory_format=torch.channels_last)
            yield images, self.labels[indices]


def epoch_seed(seed: int, epoch: int, purpose: Purpose) -> int:
    """Return the 32 bits that torch's generator takes, mixed so that seeds, epochs and purposes share no stream."""
    words = [seed, epoch, get_args(Purpose).index(purpose)]
    return int(np.random.SeedSequence(words).generate_state(1)[0])
