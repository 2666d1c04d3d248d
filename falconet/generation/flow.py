"""A class-conditional generator of small images by flow matching along straight lines.

Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le: Flow matching for generative modeling. ICLR, 2023. Straight
lines from noise to samples: X. Liu, C. Gong, Q. Liu: Flow straight and fast: learning to generate and transfer data
with rectified flow. ICLR, 2023. Network: O. Ronneberger, P. Fischer, T. Brox: U-Net. MICCAI, 2015, with embeddings of
time and class as in J. Ho, A. Jain, P. Abbeel: Denoising diffusion probabilistic models. NeurIPS, 2020; no attention.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from falconet import interruption
from falconet.errors import ConfigError, DivergedError
from falconet.training.optimizers import make_ema

MAX_SIDE = 64
"""Pixels of a side, at most; without attention and at the default width, networks do not learn larger images."""

_GROUPS = 8
"""Groups of channels in group normalization."""


@dataclass(frozen=True)
class FlowConfig:
    """Configuration of a generator's training and sampling."""

    epochs: int | None = None
    """Passes over the images; None: as many as give _STEPS steps."""

    seconds: float | None = None
    """Seconds after which training ends, once the current step is done; None: no limit."""

    batch_size: int = 32
    """Images per step, at most."""

    width: int = 32
    """Channels of the network at full resolution; twice as many at a half and a quarter of it."""

    learning_rate: float = 1e-3
    """Learning rate of AdamW."""

    ema_decay: float = 0.995
    """Decay of the exponential moving average of the weights, which generates images."""

    euler_steps: int = 50
    """Steps of Euler's method from noise to image."""

    seed: int = 0
    """Seed of initial weights, batches, times and noise."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "euler_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: wanted 1 or more, found {value}")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"seconds: wanted more than 0, or none, found {self.seconds}")
        if self.width < _GROUPS or self.width % _GROUPS:
            raise ConfigError(f"width: wanted a multiple of {_GROUPS}, found {self.width}")


_STEPS = 2000
"""Steps of training, unless epochs are given."""


class VelocityNet(nn.Module):
    """A U-Net that predicts the velocity of noisy images of given classes at a time from 0 (noise) to 1 (image)."""

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        embedded = 4 * width
        self.width = width
        self.time = nn.Sequential(nn.Linear(2 * width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.label = nn.Embedding(num_classes, embedded)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.block1 = Block(width, width, embedded)
        self.down1 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.block2 = Block(2 * width, 2 * width, embedded)
        self.down2 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.middle = Block(2 * width, 2 * width, embedded)
        self.up2 = Block(4 * width, 2 * width, embedded)
        self.up1 = Block(3 * width, width, embedded)
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.head = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(
        self,
        x: Float32[Tensor, "batch channels height width"],
        times: Float32[Tensor, " batch"],
        labels: Int64[Tensor, " batch"],
    ) -> Float32[Tensor, "batch channels height width"]:
        height, width = x.shape[-2:]
        embedding = self.time(_embed_times(times, 2 * self.width)) + self.label(labels)
        # Both halvings leave nothing over where sides are multiples of 4.
        full = self.block1(self.stem(F.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")), embedding)
        half = self.block2(self.down1(full), embedding)
        quarter = self.middle(self.down2(half), embedding)
        half = self.up2(torch.cat([F.interpolate(quarter, scale_factor=2.0), half], dim=1), embedding)
        full = self.up1(torch.cat([F.interpolate(half, scale_factor=2.0), full], dim=1), embedding)
        velocity: Tensor = self.head(F.silu(self.norm(full)))
        return velocity[:, :, :height, :width]


class Block(nn.Module):
    """Two convolutions with a shortcut, between which the embedding is added."""

    def __init__(self, in_channels: int, out_channels: int, embedded: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = nn.Linear(embedded, out_channels)
        self.norm2 = nn.GroupNorm(_GROUPS, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float32[Tensor, "batch channels height width"], embedding: Float32[Tensor, "batch embedded"]
    ) -> Float32[Tensor, "batch out_channels height width"]:
        hidden = self.conv1(F.silu(self.norm1(x))) + self.embed(F.silu(embedding))[:, :, None, None]
        added: Tensor = self.shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))
        return added


def _embed_times(times: Float32[Tensor, " batch"], size: int) -> Float32[Tensor, "batch size"]:
    """Return sines and cosines of times from 0 to 1, with up to 160 periods."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(size // 2, device=times.device) / (size // 2))
    phases = 1000 * times[:, None] * frequencies
    return torch.cat([phases.sin(), phases.cos()], dim=1)


@dataclass(frozen=True, eq=False)
class Flow:
    """A trained generator."""

    network: nn.Module
    shape: tuple[int, int, int]
    """Channels, height and width of generated images."""
    config: FlowConfig
    losses: tuple[float, ...]
    """Mean loss of each epoch; the last may be incomplete."""
    steps: int


def flow_loss(
    network: nn.Module,
    images: Float32[Tensor, "batch channels height width"],
    labels: Int64[Tensor, " batch"],
    noise: Float32[Tensor, "batch channels height width"],
    times: Float32[Tensor, " batch"],
) -> Float32[Tensor, ""]:
    """Return the mean squared error of the velocity along straight lines from noise to images.

    A point is (1 - t) noise + t image, its velocity image - noise (equation 1 of Liu et al.; equations 22 and 23 of
    Lipman et al. at a least std of 0).
    """
    places = times[:, None, None, None]
    return F.mse_loss(network((1 - places) * noise + places * images, times, labels), images - noise)


def train_flow(
    images: Float32[Tensor, "samples channels height width"],
    labels: Int64[Tensor, " samples"],
    num_classes: int,
    config: FlowConfig,
    watch: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None,
) -> Flow:
    """Train a generator of images with values in 0..1; `watch(epoch, epochs, loss)` is called after each epoch.

    The same seed gives the same generator, on the same machine with the same number of threads and without a limit of
    time. Raises ConfigError for images above MAX_SIDE, DivergedError for a loss that is not finite.
    """
    _, channels, height, width = images.shape
    if max(height, width) > MAX_SIDE:
        raise ConfigError(f"images: wanted at most {MAX_SIDE} pixels a side to generate, found {height}x{width}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = VelocityNet(channels, num_classes, config.width).to(device)
    average = make_ema(network, config.ema_decay)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(config.seed)
    # At least one batch an epoch, all of about one size.
    batches = math.ceil(len(images) / config.batch_size)
    epochs = config.epochs or math.ceil(_STEPS / batches)
    losses: list[float] = []
    steps, begun = 0, time.monotonic()
    with interruption.watched():
        for epoch in range(1, epochs + 1):
            seen: list[float] = []
            for rows in torch.randperm(len(images), generator=generator).tensor_split(batches):
                interruption.check()
                batch = images[rows] * 2 - 1
                noise = torch.randn(batch.shape, generator=generator)
                times = torch.rand(len(rows), generator=generator)
                moved = (part.to(device) for part in (batch, labels[rows], noise, times))
                loss = flow_loss(network, *moved)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                average.update_parameters(network)
                seen.append(loss.item())
                steps += 1
                if not math.isfinite(seen[-1]):
                    raise DivergedError(f"the generator's loss became {seen[-1]} at step {steps}")
                if late := config.seconds is not None and time.monotonic() - begun > config.seconds:
                    break
            losses.append(sum(seen) / len(seen))
            watch(epoch, epochs, losses[-1])
            if late:
                break
    return Flow(average.module.eval(), (channels, height, width), config, tuple(losses), steps)


_BATCH = 64
"""Images that are generated in a batch."""


@torch.inference_mode()
def draw_images(
    flow: Flow, labels: Int64[Tensor, " samples"], seed: int
) -> Float32[Tensor, "samples channels height width"]:
    """Generate an image for each label, with values in 0..1, by Euler's method, from noise that the seed determines."""
    device = next(flow.network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    made = []
    for part in torch.split(labels, _BATCH):
        interruption.check()
        x = torch.randn(len(part), *flow.shape, generator=generator).to(device)
        given = part.to(device)
        for step in range(flow.config.euler_steps):
            times = torch.full((len(part),), step / flow.config.euler_steps, device=device)
            x = x + flow.network(x, times, given) / flow.config.euler_steps
        made.append(x.cpu())
    return ((torch.cat(made) + 1) / 2).clamp(0, 1)
