"""SqueezeNet: AlexNet's accuracy from a fiftieth of its parameters.

After Iandola, Han, Moskewicz, Ashraf, Dally and Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
and <0.5MB model size" (arXiv:1602.07360, 2016). A fire module squeezes its input to few channels by 1x1 kernels, then
expands them by 1x1 and 3x3 kernels side by side. Fire modules 2 to 9, as the paper numbers them, follow from five
metaparameters (section 5.1): the i-th has e_i = base_e + incr_e * floor(i / freq) expanding kernels, of which the
fraction pct_3x3 are 3x3, and SR * e_i squeezing ones.

    name             stem            pooling after           parameters (1000 classes)
    squeezenet1_0    96 7x7/2        conv1, fire4, fire8     1,248,424    the paper's table 1
    squeezenet1_1    64 3x3/2        conv1, fire3, fire5     1,235,496    the authors' later version, 2.4x cheaper
    squeezenet_se    as 1_1          as 1_1                  1,361,096    squeeze-and-excitation in each fire module

The articles' "SqueezeNet" put squeeze-and-excitation (Hu et al., CVPR 2018), from a layer that Keras does not have, in
the place of fire modules; `squeezenet_se` has both. Names of parameters are torchvision's.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models.layers import MIN_SQUEEZED, SqueezeExcitation
from falconet.models.options import (
    Stem,
    check_choice,
    check_count,
    check_fraction,
    check_positive,
    check_smallest,
    choose_stem,
)

_Bypass = Literal["none", "simple", "complex"]
_Version = Literal["1_0", "1_1"]

_STEMS = {"1_0": (96, 7), "1_1": (64, 3)}
"""Channels and kernel size of the first convolution, of stride 2 and without padding."""
_POOLED = {"1_0": (2, 6), "1_1": (1, 3)}
"""Fire modules, counted from 0, that pooling follows."""
_MODULES = 8
_REDUCTION = 16
"""Reduction ratio of squeeze-and-excitation."""
_SMALLEST = {"1_0": {"imagenet": 21, "small": 4}, "1_1": {"imagenet": 17, "small": 4}}
"""Smallest side in pixels, by version and stem."""


class SqueezeNet(nn.Module):
    """SqueezeNet for any number of channels and any size from 4 pixels up.

    Parameters
    ----------
    num_classes, in_channels, input_size
        As in `falconet.create_model`.
    version, squeeze_excitation
        Which member of the family it is; set by the table of models.
    stem
        `small`: a first convolution 3x3 of stride 1 and no pooling after it; `auto`: that below 64 pixels.
    bypass
        Around fire modules whose input has as many channels as their output, the identity is added (`simple`); around
        the others, a 1x1 convolution (`complex`). Section 6 of the paper.
    base_expand, expand_increment, frequency, share_3x3, squeeze_ratio
        The paper's metaparameters base_e, incr_e, freq, pct_3x3 and SR.
    dropout
        Fraction of features that are zeroed in training, before the last convolution.

    Raises ConfigError for an option's value that makes no network, and for an image of which nothing would be left.

    """

    def __init__(  # noqa: PLR0913 - one parameter for each option
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, int],
        version: _Version,
        squeeze_excitation: bool = False,
        *,
        stem: Stem = "auto",
        bypass: _Bypass = "none",
        base_expand: int = 128,
        expand_increment: int = 128,
        frequency: int = 2,
        share_3x3: float = 0.5,
        squeeze_ratio: float = 0.125,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        for name, number in (("base_expand", base_expand), ("frequency", frequency)):
            check_count(name, number)
        _check_increment(expand_increment)
        if base_expand < 2:
            raise ConfigError(f"model.options.base_expand: wanted 2 or more, found {base_expand}")
        check_fraction("share_3x3", share_3x3)
        check_fraction("dropout", dropout)
        check_positive("squeeze_ratio", squeeze_ratio)
        check_choice("bypass", bypass, get_args(_Bypass))
        chosen = choose_stem(stem, input_size)
        check_smallest(input_size, _SMALLEST[version][chosen])
        channels, kernel = _STEMS[version]
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, 3, padding=1)
            if chosen == "small"
            else nn.Conv2d(in_channels, channels, kernel, stride=2),
            nn.ReLU(inplace=True),
            nn.Identity() if chosen == "small" else pooling(),
        ]
        for index in range(_MODULES):
            expand = base_expand + expand_increment * (index // frequency)
            # At least one kernel of each kind.
            large = min(max(round(expand * share_3x3), 1), expand - 1)
            squeeze = max(round(expand * squeeze_ratio), 1)
            layers.append(Fire(channels, squeeze, expand - large, large, bypass, squeeze_excitation))
            channels = expand
            if index in _POOLED[version]:
                layers.append(pooling())
        self.features = nn.Sequential(*layers)
        output = nn.Conv2d(channels, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), output, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
        self.apply(_initialize)
        nn.init.normal_(output.weight, std=0.01)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.classifier(self.features(x))
        return logits.flatten(1)


class Fire(nn.Module):
    """Squeeze by 1x1 kernels, expand by 1x1 and 3x3 kernels; optionally reweighed, and added to the input."""

    def __init__(
        self,
        in_channels: int,
        squeeze: int,
        expand1x1: int,
        expand3x3: int,
        bypass: _Bypass,
        squeeze_excitation: bool,
    ) -> None:
        super().__init__()
        out_channels = expand1x1 + expand3x3
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.excitation = (
            SqueezeExcitation(out_channels, max(out_channels // _REDUCTION, MIN_SQUEEZED))
            if squeeze_excitation
            else None
        )
        self.bypass = _make_bypass(in_channels, out_channels, bypass)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        squeezed = self.relu(self.squeeze(x))
        expanded = torch.cat([self.relu(self.expand1x1(squeezed)), self.relu(self.expand3x3(squeezed))], dim=1)
        if self.excitation is not None:
            expanded = self.excitation(expanded)
        return expanded if self.bypass is None else expanded + self.bypass(x)


def _make_bypass(in_channels: int, out_channels: int, bypass: _Bypass) -> nn.Module | None:
    """Return what leads around a fire module; None where nothing does."""
    if bypass == "none" or (bypass == "simple" and in_channels != out_channels):
        return None
    return nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)


def _check_increment(number: int) -> None:
    """Raise ConfigError unless the number of expanding kernels grows by a whole number, or not at all."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ConfigError(f"model.options.expand_increment: wanted a whole number, 0 or more, found {number!r}")


def pooling() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _initialize(module: nn.Module) -> None:
    """Draw kernels as He et al. (2015) did for ReLU, uniformly; biases start at zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
