"""EfficientNet: one small network, scaled in depth, width and resolution at once.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (ICML 2019): table 1 is the
network B0, of inverted bottlenecks (Sandler et al., CVPR 2018) with squeeze-and-excitation; equation 3 the rule by
which it grows: depth by alpha^phi, width by beta^phi, resolution by gamma^phi, with alpha = 1.2, beta = 1.1 and
gamma = 1.15, so that cost doubles with each phi (section 4). After rounding, phi = 0, 1, 2 and 3.5 give the blocks of
B0, B2, B3 and B4; B1, B5, B6 and B7 were published with coefficients of their own, which the table of models holds.

EfficientNet-Lite (Liu, 2020, TensorFlow's blog "Higher accuracy on vision models with EfficientNet-Lite") leaves out
squeeze-and-excitation, puts ReLU6 in the place of SiLU, and scales neither the stem and the head nor the repeats of the
first and last stage: what integer arithmetic and small processors want.

Names of parameters are torchvision's, for Lite too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models.layers import SqueezeExcitation, StochasticDepth
from falconet.models.options import Stem, check_choice, check_fraction, check_positive, choose_stem

Padding = Literal["symmetric", "same"]

_ALPHA, _BETA, _GAMMA = 1.2, 1.1, 1.15
_NATIVE_SIZE = 224
_STEM, HEAD = 32, 1280
_DIVISOR = 8
"""Divisor of all numbers of channels."""
_MIN_PHI, _MAX_PHI = -20, 10
"""Range of phi: B7, the largest that was published, has about 6.5; each whole step doubles the cost."""
_SQUEEZE = 4
"""Reduction ratio of squeeze-and-excitation, relative to the channels that enter the block."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one size: a line of the paper's table 1."""

    expand: int
    """Expansion ratio: channels of the depthwise convolution, relative to the block's input."""
    kernel: int
    stride: int
    """Stride of the first block."""
    channels: int
    repeats: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


@dataclass(frozen=True)
class Scaling:
    """Factors of depth, width and resolution relative to B0."""

    depth: float
    width: float
    resolution: float

    @property
    def input_size(self) -> int:
        """Side of the input in pixels, for which the paper rounds as it likes; here the nearest multiple of 4."""
        return max(4 * round(_NATIVE_SIZE * self.resolution / 4), 4)


def scale_compound(phi: float, alpha: float = _ALPHA, beta: float = _BETA, gamma: float = _GAMMA) -> Scaling:
    """Return depth, width and resolution for any phi, below zero too, as factors of B0's (equation 3)."""
    return Scaling(alpha**phi, beta**phi, gamma**phi)


def make_divisible(channels: int, width: float) -> int:
    """Return a number of channels scaled to the nearest multiple of 8, but not by more than a tenth downwards."""
    scaled = channels * width
    rounded = max(_DIVISOR, int(scaled + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Return how often a block is repeated at a depth, rounded up."""
    return max(math.ceil(repeats * depth), 1)


class EfficientNet(nn.Module):
    """EfficientNet for images of any size and number of channels.

    Parameters
    ----------
    num_classes, in_channels, input_size
        As in `falconet.create_model`.
    width, depth, lite
        Which member of the family it is; set by the table of models, but for `efficientnet`, which scales B0 by `phi`.
    phi
        Compound coefficient; None: `width` and `depth` count.
    stem
        `small`: the first convolution has stride 1; `auto`: that below 64 pixels.
    padding
        Padding of strided convolutions: `same` puts an odd pixel at the end, as TensorFlow does, whose weights need it.
    dropout
        Fraction of features that are zeroed in training, before the output.
    drop_path
        Fraction of samples for which a branch is dropped in training, rising linearly from 0 in the first block towards
        this after the last.
    norm_eps
        Epsilon added to the variance in batch normalization.

    Raises ConfigError for an option's value that makes no network.

    """

    def __init__(  # noqa: PLR0913 - one parameter for each option
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, int],
        width: float = 1.0,
        depth: float = 1.0,
        lite: bool = False,
        *,
        phi: float | None = None,
        stem: Stem = "auto",
        padding: Padding = "symmetric",
        dropout: float = 0.2,
        drop_path: float = 0.2,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        check_fraction("dropout", dropout)
        check_fraction("drop_path", drop_path)
        check_choice("padding", padding, get_args(Padding))
        check_positive("norm_eps", norm_eps)
        if phi is not None:
            scaling = scale_compound(_check_phi(phi))
            width, depth = scaling.width, scaling.depth
        style = Style(lite, padding, norm_eps)
        stride = 1 if choose_stem(stem, input_size) == "small" else 2
        channels = _STEM if lite else make_divisible(_STEM, width)
        self.features = nn.Sequential(convolve(in_channels, channels, 3, style, stride=stride))
        stages = scale_stages(width, depth, lite)
        total, built = sum(stage.repeats for stage in stages), 0
        for stage in stages:
            blocks = []
            for index in range(stage.repeats):
                drop_prob = drop_path * built / total
                blocks.append(InvertedBottleneck(channels, stage, stage.stride if index == 0 else 1, drop_prob, style))
                channels, built = stage.channels, built + 1
            self.features.append(nn.Sequential(*blocks))
        head = HEAD if lite else 4 * channels
        self.features.append(convolve(channels, head, 1, style))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head, num_classes))
        self.apply(_initialize)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def _check_phi(phi: float) -> float:
    """Return phi. Raises ConfigError unless it is a number of which a network can be built."""
    if isinstance(phi, bool) or not isinstance(phi, int | float) or not _MIN_PHI <= phi <= _MAX_PHI:
        raise ConfigError(f"model.options.phi: wanted a number from {_MIN_PHI} to {_MAX_PHI}, found {phi!r}")
    return phi


def scale_stages(width: float, depth: float, lite: bool) -> list[Stage]:
    """Return the stages of a scaled network. Lite repeats the blocks of the first and last as B0 does."""
    scaled = []
    for index, stage in enumerate(STAGES):
        fixed = lite and index in (0, len(STAGES) - 1)
        repeats = stage.repeats if fixed else round_repeats(stage.repeats, depth)
        scaled.append(replace(stage, channels=make_divisible(stage.channels, width), repeats=repeats))
    return scaled


@dataclass(frozen=True)
class Style:
    """Settings that all convolutions of a network have in common."""

    lite: bool
    padding: Padding
    norm_eps: float

    def activation(self) -> nn.Module:
        return nn.ReLU6(inplace=True) if self.lite else nn.SiLU(inplace=True)


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) pixels; an odd pixel of padding stands at the end."""

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        sides: list[int] = []
        for size in reversed(x.shape[2:]):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, groups=self.groups)


def convolve(
    in_channels: int,
    channels: int,
    kernel: int,
    style: Style,
    *,
    stride: int = 1,
    groups: int = 1,
    activate: bool = True,
) -> nn.Sequential:
    """Return a convolution, its normalization and, unless it projects, its activation."""
    convolution = (
        SameConv2d(in_channels, channels, kernel, stride, groups=groups, bias=False)
        if style.padding == "same" and stride > 1
        else nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    )
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(channels, eps=style.norm_eps)]
    return nn.Sequential(*layers, style.activation()) if activate else nn.Sequential(*layers)


class InvertedBottleneck(nn.Module):
    """Expand by 1x1 kernels, filter each channel by itself, reweigh them, project; add the input where it fits."""

    def __init__(self, in_channels: int, stage: Stage, stride: int, drop_path: float, style: Style) -> None:
        super().__init__()
        wide = in_channels * stage.expand
        layers: list[nn.Module] = []
        if stage.expand > 1:
            layers.append(convolve(in_channels, wide, 1, style))
        layers.append(convolve(wide, wide, stage.kernel, style, stride=stride, groups=wide))
        if not style.lite:
            layers.append(SqueezeExcitation(wide, max(in_channels // _SQUEEZE, 1), nn.SiLU))
        layers.append(convolve(wide, stage.channels, 1, style, activate=False))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == stage.channels
        self.stochastic_depth = StochasticDepth(drop_path)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        branch: Tensor = self.block(x)
        return x + self.stochastic_depth(branch) if self.residual else branch


def _initialize(module: nn.Module) -> None:
    """Draw kernels by their number of outputs; the output layer keeps torch's range, which suits few classes too."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
