"""InputSpec: what a model eats. Pure data; the arithmetic is in `falconet.data.preprocessing`."""

import math
from dataclasses import dataclass
from typing import Literal

from falconet.errors import ConfigError


@dataclass(frozen=True)
class InputSpec:
    """How a raw image becomes a model's input, and what its outputs are called."""

    shape: tuple[int, int, int]
    """Channels (1 or 3), height and width in pixels, as the model takes them."""

    labels: tuple[str, ...]
    """Class names in the order of the logits."""

    mean: tuple[float, ...]
    """Per channel, of pixels in 0..1; subtracted."""

    std: tuple[float, ...]
    """Per channel, of pixels in 0..1; divided by."""

    margin: int = 0
    """Pixels on each side of `shape`, filled from the image's border; the image is scaled to what lies inside."""

    kind: Literal["image"] = "image"
    """What a sample is."""

    dtype: Literal["uint8"] = "uint8"
    """Type of a raw sample's values."""

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        if channels not in (1, 3):
            raise ConfigError(f"shape: wanted 1 or 3 channels, found {channels}")
        if min(height, width) <= 2 * self.margin or self.margin < 0:
            raise ConfigError(f"margin: {self.margin} pixels leave nothing of {height}x{width}")
        if len(self.mean) != channels or len(self.std) != channels:
            raise ConfigError(f"mean, std: wanted {channels} values each, found {len(self.mean)} and {len(self.std)}")
        if not all(math.isfinite(value) for value in self.mean):
            raise ConfigError(f"mean: wanted finite values, found {list(self.mean)}")
        if not all(0 < value < math.inf for value in self.std):
            raise ConfigError(f"std: wanted finite values above 0, found {list(self.std)}")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"labels: wanted at least two different names, found {list(self.labels)}")

    @property
    def inner_size(self) -> tuple[int, int]:
        """Height and width in pixels to which an image is scaled, inside the margin."""
        _, height, width = self.shape
        return height - 2 * self.margin, width - 2 * self.margin
