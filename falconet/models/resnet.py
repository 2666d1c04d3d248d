"""Residual networks for photographs, for small images, and for sequences.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (CVPR 2016), tables 1 and 6:

    resnet18, 34, 50, 101, 152        stem 7x7/2 and pooling, four stages, channels 64, 128, 256, 512; blocks of two 3x3
                                      convolutions, from 50 layers on bottlenecks of 1x1, 3x3 and 1x1 with four times as
                                      many channels after them; a stage begins by halving the size
    resnet20, 32, 44, 56, 110         for CIFAR: stem 3x3, three stages, channels 16, 32, 64, n = 3, 5, 7, 9, 18 blocks
                                      each; shortcuts without parameters (option A: every second pixel, zero channels)
    resnet1d18                        resnet18 along one dimension, as Wang, Yan and Oates, "Time series classification
                                      from scratch with deep neural networks" (IJCNN 2017), used residual networks

`pre_activation` moves normalization and ReLU before the convolutions: He, Zhang, Ren and Sun, "Identity mappings in
deep residual networks" (ECCV 2016), figure 4e. `squeeze_excitation` reweighs the channels of each branch: Hu, Shen and
Sun, "Squeeze-and-excitation networks" (CVPR 2018), figure 3. The articles' "ResNet" had neither shortcuts nor stages
that change the number of channels.

Bottlenecks halve the size in their 3x3 convolution, as torchvision's do ("v1.5"); parameters have torchvision's names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from falconet.modalities import MODALITIES
from falconet.models.layers import MIN_SQUEEZED, SqueezeExcitation
from falconet.models.options import Stem, check_count, check_fraction, check_switch, choose_stem
from falconet.models.sequences import TokenEncoder, make_attention_mask, measure_lengths, pool_mean

_REDUCTION = 16
"""Reduction ratio of squeeze-and-excitation."""


class ResNet(nn.Module):
    """Residual network for images of any size and number of channels.

    Parameters
    ----------
    num_classes, in_channels, input_size
        As in `falconet.create_model`.
    blocks, bottleneck, padded
        Which member of the family it is: blocks of each of three or four stages, of what kind, and whether shortcuts
        are those for CIFAR; set by the table of models.
    stem
        `small`: a first convolution 3x3 of stride 1 and no pooling; `auto`: that below 64 pixels.
    pre_activation, squeeze_excitation
        See the head of this file.
    width
        Channels of the first stage; each further one has twice as many as the one before. None: as published.
    zero_init
        Branches start as zero, so that the network starts as its shortcuts alone (Goyal et al., 2017, section 5.1).

    Raises ConfigError for an option's value that makes no network.

    """

    def __init__(  # noqa: PLR0913 - one parameter for each option
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, int],
        blocks: tuple[int, ...],
        bottleneck: bool = False,
        padded: bool = False,
        *,
        stem: Stem = "auto",
        pre_activation: bool = False,
        squeeze_excitation: bool = False,
        width: int | None = None,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        width = (16 if padded else 64) if width is None else width
        check_count("width", width)
        for name, value in (("pre_activation", pre_activation), ("squeeze_excitation", squeeze_excitation)):
            check_switch(name, value)
        check_switch("zero_init", zero_init)
        self.small = choose_stem(stem, input_size) == "small"
        kernel, stride = (3, 1) if self.small else (7, 2)
        self.conv1 = nn.Conv2d(in_channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        kind = _choose_block(bottleneck, pre_activation)
        block = partial(kind, squeeze_excitation=squeeze_excitation, padded=padded)
        # The stem normalizes and activates what the first block takes.
        first = partial(block, activated=True) if pre_activation else block
        channels = kind.expansion * width  # Leave the first stage; each further one has twice as many.
        self.layer1 = _make_stage(first, block, blocks[0], width, width, stride=1)
        self.layer2 = _make_stage(block, block, blocks[1], channels, 2 * width, stride=2)
        self.layer3 = _make_stage(block, block, blocks[2], 2 * channels, 4 * width, stride=2)
        self.layer4 = None
        if len(blocks) == 4:
            self.layer4 = _make_stage(block, block, blocks[3], 4 * channels, 8 * width, stride=2)
        last = (4 if self.layer4 is None else 8) * channels
        self.norm = nn.BatchNorm2d(last) if pre_activation else None
        self.fc = nn.Linear(last, num_classes)
        self.apply(_initialize)
        if zero_init:
            self.apply(_zero_init_residual)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        x = F.relu(self.bn1(self.conv1(x)))
        if not self.small:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        if self.layer4 is not None:
            x = self.layer4(x)
        if self.norm is not None:
            x = F.relu(self.norm(x))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 5, left)."""

    expansion = 1
    """Channels of a block's output, relative to its 3x3 convolution."""

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, squeeze_excitation: bool = False, padded: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.excitation = _make_excitation(width) if squeeze_excitation else None
        self.downsample = _make_shortcut(in_channels, width, stride, padded)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        if self.excitation is not None:
            branch = self.excitation(branch)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(branch + shortcut)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 beside a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, squeeze_excitation: bool = False, padded: bool = False
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.excitation = _make_excitation(out_channels) if squeeze_excitation else None
        self.downsample = _make_shortcut(in_channels, out_channels, stride, padded)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = F.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        if self.excitation is not None:
            branch = self.excitation(branch)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(branch + shortcut)


class PreActBasicBlock(nn.Module):
    """Two 3x3 convolutions, each after its normalization and ReLU; nothing comes after the sum.

    A projection takes what the first ReLU made, as the second paper's code does. `activated`: the input has been
    normalized and activated already, for branch and shortcut, as the stem does it for the network's first block (the
    second paper's appendix).
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        squeeze_excitation: bool = False,
        padded: bool = False,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.padded = padded
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = None if activated else nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.excitation = _make_excitation(width) if squeeze_excitation else None
        self.downsample = _make_shortcut(in_channels, width, stride, padded, normalized=False)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        active = x if self.bn1 is None else F.relu(self.bn1(x))
        branch: Tensor = self.conv1(active)
        branch = self.conv2(F.relu(self.bn2(branch)))
        if self.excitation is not None:
            branch = self.excitation(branch)
        shortcut = x if self.downsample is None else self.downsample(x if self.padded else active)
        return branch + shortcut


class PreActBottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, each after its normalization and ReLU; see `PreActBasicBlock`."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        squeeze_excitation: bool = False,
        padded: bool = False,
        activated: bool = False,
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.padded = padded
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = None if activated else nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.excitation = _make_excitation(out_channels) if squeeze_excitation else None
        self.downsample = _make_shortcut(in_channels, out_channels, stride, padded, normalized=False)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        active = x if self.bn1 is None else F.relu(self.bn1(x))
        branch: Tensor = self.conv1(active)
        branch = self.conv2(F.relu(self.bn2(branch)))
        branch = self.conv3(F.relu(self.bn3(branch)))
        if self.excitation is not None:
            branch = self.excitation(branch)
        shortcut = x if self.downsample is None else self.downsample(x if self.padded else active)
        return branch + shortcut


_Block = BasicBlock | Bottleneck | PreActBasicBlock | PreActBottleneck


def _choose_block(bottleneck: bool, pre_activation: bool) -> type[_Block]:
    if pre_activation:
        return PreActBottleneck if bottleneck else PreActBasicBlock
    return Bottleneck if bottleneck else BasicBlock


def _make_stage(
    first: Callable[..., _Block], later: Callable[..., _Block], count: int, in_channels: int, width: int, stride: int
) -> nn.Sequential:
    """Return blocks of one size, of which the first comes from `in_channels` channels and another size."""
    blocks = [first(in_channels, width, stride)]
    for _ in range(count - 1):
        blocks.append(later(width * blocks[0].expansion, width))
    return nn.Sequential(*blocks)


def _make_excitation(channels: int) -> SqueezeExcitation:
    return SqueezeExcitation(channels, max(channels // _REDUCTION, MIN_SQUEEZED))


class PaddedShortcut(nn.Module):
    """Every second pixel, and zeros as further channels, as many before as after (option A of the paper)."""

    def __init__(self, missing: int, stride: int) -> None:
        super().__init__()
        self.before, self.after = missing // 2, missing - missing // 2
        self.stride = stride

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def _make_shortcut(
    in_channels: int, out_channels: int, stride: int, padded: bool, *, normalized: bool = True
) -> nn.Module | None:
    """Return what makes a block's input fit its output; None where it fits already.

    `padded`: without parameters (option A), instead of a 1x1 convolution (option B), `normalized` or not.
    """
    if stride == 1 and in_channels == out_channels:
        return None
    if padded:
        return PaddedShortcut(out_channels - in_channels, stride)
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels)) if normalized else nn.Sequential(projection)


def _initialize(module: nn.Module) -> None:
    """Draw kernels as He et al. (2015) did, by the number of outputs; biases, of excitation, start at zero."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _zero_init_residual(module: nn.Module) -> None:
    """Start a block's branch as zero; with activation first, no normalization follows its last convolution."""
    if isinstance(module, BasicBlock):
        nn.init.zeros_(module.bn2.weight)
    elif isinstance(module, Bottleneck):
        nn.init.zeros_(module.bn3.weight)
    elif isinstance(module, PreActBasicBlock):
        nn.init.zeros_(module.conv2.weight)
    elif isinstance(module, PreActBottleneck):
        nn.init.zeros_(module.conv3.weight)


class ResNet1d(nn.Module):
    """Residual network along the steps of a series, or along a text's embedded tokens.

    What lies after a sample's end is set to zero before each convolution, just what a convolution sees after the end
    of an unpadded sample; so padding changes no answer.

    Parameters
    ----------
    num_classes, in_channels, input_size, kind
        As in `falconet.create_model`; any number of steps is taken.
    blocks
        Number of blocks of each stage; set by the table of models.
    stem
        `small`: a first convolution of 3 steps and stride 1 and no pooling; `auto`: that below 64 steps.
    width
        Channels of the first stage; each further one has twice as many as the one before.
    embedding
        Width of a token's vector.
    dropout
        Fraction of features that are zeroed in training, before the output.

    Raises ConfigError for an option's value that makes no network.

    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, ...],
        kind: Literal["series", "text"],
        blocks: tuple[int, ...],
        *,
        stem: Stem = "auto",
        width: int = 64,
        embedding: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, number in (("width", width), ("embedding", embedding)):
            check_count(name, number)
        check_fraction("dropout", dropout)
        self.encoder = TokenEncoder(in_channels, embedding) if MODALITIES[kind].has_tokens else None
        self.small = choose_stem(stem, input_size) == "small"
        kernel, stride = (3, 1) if self.small else (7, 2)
        channels = in_channels if self.encoder is None else embedding
        self.conv1 = nn.Conv1d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = StepNorm(width)
        self.blocks = nn.ModuleList()
        channels = width
        for stage, count in enumerate(blocks):
            for index in range(count):
                self.blocks.append(StepBlock(channels, width << stage, stride=2 if stage and index == 0 else 1))
                channels = width << stage
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self.apply(_initialize)

    def forward(
        self, x: Int64[Tensor, "batch steps"] | Float[Tensor, "batch channels steps"]
    ) -> Float[Tensor, "batch classes"]:
        features, lengths = self.encode(x)
        lengths = lengths if self.small else _halve(lengths)
        features = _zero_padding(F.relu(self.bn1(self.conv1(features), lengths)), lengths)
        if not self.small:
            # Nothing here is negative, so that the zeros of padding are never a maximum.
            lengths = _halve(lengths)
            # As images of one row: in one dimension, torch's graphs would hold the number of steps of their example.
            pooled = F.max_pool2d(features[:, :, None], (1, 3), stride=(1, 2), padding=(0, 1))[:, :, 0]
            features = _zero_padding(pooled, lengths)
        for block in self.blocks:
            features, lengths = block(features, lengths)
        logits: Tensor = self.fc(self.dropout(pool_mean(features.transpose(1, 2), lengths)))
        return logits

    def encode(
        self, x: Int64[Tensor, "batch steps"] | Float[Tensor, "batch channels steps"]
    ) -> tuple[Float[Tensor, "batch width steps"], Int64[Tensor, " batch"]]:
        """Return what the first convolution sees, zero after each sample's end, and the samples' lengths."""
        if self.encoder is not None:
            vectors, lengths = self.encoder(x)
            return vectors.transpose(1, 2), lengths
        missing = x.isnan()
        return x.masked_fill(missing, 0.0), measure_lengths(~missing.all(dim=1))


class StepNorm(nn.BatchNorm1d):
    """Batch normalization by the mean and std of non-padding steps, so that padding changes no training either."""

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch channels steps"], lengths: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels steps"]:
        present = make_attention_mask(lengths, x.shape[2])
        if not self.training or present.all() or present.sum() < 2:
            return super().forward(x)
        known = super().forward(x.transpose(1, 2)[present])
        whole = known.new_zeros(len(x), x.shape[2], x.shape[1])
        return whole.index_put((present,), known).transpose(1, 2)


class StepBlock(nn.Module):
    """A basic block along one dimension, which keeps padding at zero."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv1d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = StepNorm(width)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1, bias=False)
        self.bn2 = StepNorm(width)
        self.downsample = None
        if stride != 1 or in_channels != width:
            projection = nn.Conv1d(in_channels, width, 1, stride, bias=False)
            self.downsample = nn.ModuleList([projection, StepNorm(width)])

    def forward(
        self, x: Float[Tensor, "batch in_channels steps"], lengths: Int64[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch channels out_steps"], Int64[Tensor, " batch"]]:
        lengths = lengths if self.stride == 1 else _halve(lengths)
        branch = _zero_padding(F.relu(self.bn1(self.conv1(x), lengths)), lengths)
        branch = self.bn2(self.conv2(branch), lengths)
        if self.downsample is not None:
            projection, norm = self.downsample
            x = norm(projection(x), lengths)
        total = branch + x
        return _zero_padding(F.relu(total), lengths), lengths


def _halve(lengths: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Return what a stride of 2 leaves of each length, where padding is half a kernel."""
    return (lengths + 1) // 2


def _zero_padding(
    features: Float[Tensor, "batch channels steps"], lengths: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch channels steps"]:
    """Set what lies after each sample's end to zero."""
    return features.masked_fill(~make_attention_mask(lengths, features.shape[2])[:, None], 0.0)
