"""The one way from raw pixels to a model's input, for training, evaluation, prediction and export."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from falconet.data.dataset import ImageArray, Samples
from falconet.spec import InputSpec


class Preprocess(nn.Module):
    """Raw images of any size to normalized input, in float32 throughout.

    In order: to 0..1; channels as the spec has them (gray repeated, color weighted to luma by ITU-R BT.601); scaled by
    antialiased bilinear interpolation to `spec.inner_size`; the border repeated over `spec.margin`; `(x - mean) / std`.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mean: Tensor
        self.std: Tensor
        self.luma: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, images: UInt8[Tensor, "batch height width channels"]
    ) -> Float32[Tensor, "batch model_channels model_height model_width"]:
        return self.normalize(self.scale(images))

    def scale(
        self, images: UInt8[Tensor, "batch height width channels"]
    ) -> Float32[Tensor, "batch model_channels model_height model_width"]:
        """All steps but the last: values stay in 0..1."""
        x = self.match_channels(images.permute(0, 3, 1, 2).float() / 255)
        if x.shape[-2:] != self.spec.inner_size:
            x = F.interpolate(x, self.spec.inner_size, mode="bilinear", antialias=True, align_corners=False)
        margin = self.spec.margin
        return F.pad(x, (margin, margin, margin, margin), mode="replicate") if margin else x

    def normalize(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch channels height width"]:
        """The last step, for pixels in 0..1."""
        return (x - self.mean) / self.std

    def match_channels(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch model_channels height width"]:
        wanted = self.spec.shape[0]
        if x.shape[1] == wanted:
            return x
        return (x * self.luma).sum(dim=1, keepdim=True) if wanted == 1 else x.expand(-1, wanted, -1, -1)


def iterate_scaled(
    samples: Samples, preprocess: Preprocess, batch_size: int
) -> Iterator[Float32[Tensor, "batch channels height width"]]:
    """Yield all samples in order, scaled but not normalized, decoding no more than a batch at a time."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(samples), batch_size):
            stop = min(start + batch_size, len(samples))
            if isinstance(samples, ImageArray):
                yield preprocess.scale(torch.from_numpy(samples.images[start:stop]))
            else:
                # Scaled where they are decoded, so that no more raw images are held than there are workers.
                read = pool.map(lambda index: scale_image(samples.read(index), preprocess), range(start, stop))
                yield torch.cat(list(read))


def scale_image(
    image: UInt8[np.ndarray, "_ _ _"], preprocess: Preprocess
) -> Float32[Tensor, "1 channels height width"]:
    """Return one image as a batch of one: scaled but not normalized."""
    return preprocess.scale(torch.from_numpy(image)[None])


@torch.no_grad()
def cache_pixels(samples: Samples, spec: InputSpec) -> UInt8[Tensor, "samples channels height width"]:
    """Return all samples at the model's size, rounded to 8 bits, for training; evaluation never reads this."""
    cache = torch.empty((len(samples), *spec.shape), dtype=torch.uint8)
    start = 0
    for batch in iterate_scaled(samples, Preprocess(spec), batch_size=512):
        cache[start : start + len(batch)] = (batch * 255).round_()
        start += len(batch)
    return cache


def measure_pixels(
    pixels: UInt8[Tensor, "samples channels height width"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation in units of 0..1, exactly, from its histogram."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(pixels.shape[1]):
        counts = torch.bincount(pixels[:, channel].flatten(), minlength=256).numpy()
        mean = float(np.average(levels, weights=counts))
        means.append(mean)
        # Constant images would divide by zero; one gray level is the least that 8 bits can differ by.
        deviations.append(max(float(np.sqrt(np.average((levels - mean) ** 2, weights=counts))), 1 / 255))
    return tuple(means), tuple(deviations)
