"""AlexNet: the large network that SqueezeNet is measured against.

`AlexNet` is the single-column form of Krizhevsky, "One weird trick for parallelizing convolutional neural networks"
(arXiv:1404.5997, 2014), after Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural
networks" (NIPS 2012), with the widths that torchvision publishes weights for:

    features     conv 64 11x11/4, pool 3/2, conv 192 5x5, pool 3/2, conv 384 3x3, conv 256 3x3, conv 256 3x3, pool 3/2
    classifier   6x6x256 -> 4096 -> 4096 -> classes, with dropout                    61,100,840 parameters in all

Neither paper's local response normalization is in it. Names of parameters are torchvision's.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from falconet.models.options import Stem, check_fraction, check_smallest, choose_stem

_SMALLEST = {"imagenet": 63, "small": 7}
"""Smallest side in pixels, by stem."""


class AlexNet(nn.Module):
    """AlexNet for any number of channels and any size from 7 pixels up.

    `stem="small"` begins with a 3x3 convolution of stride 1 and leaves out the first pooling; `auto` takes it below 64
    pixels. Raises ConfigError for an image of which nothing would be left.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, int],
        *,
        stem: Stem = "auto",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_fraction("dropout", dropout)
        chosen = choose_stem(stem, input_size)
        check_smallest(input_size, _SMALLEST[chosen])
        small = chosen == "small"
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, padding=1) if small else nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.Identity() if small else nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        features = self.avgpool(self.features(x))
        logits: Tensor = self.classifier(features.flatten(1))
        return logits
