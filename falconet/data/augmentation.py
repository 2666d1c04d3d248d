"""Random affine distortion of whole batches, each sample its own. See POLICIES for the named settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from falconet.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32
    from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """Ranges from which each sample's distortion is drawn uniformly; all zero: none."""

    rotate: float = 0.0
    """Up to so many degrees either way."""

    scale: float = 0.0
    """Height and width of what is seen each by a factor of 1 - scale to 1 + scale; more of it means smaller content."""

    shear: float = 0.0
    """Up to so many degrees of horizontal slant either way."""

    shift: float = 0.0
    """Up to this share of the height and of the width either way."""

    def __post_init__(self) -> None:
        for name, limit in (("rotate", 180), ("scale", 0.9), ("shear", 60), ("shift", 0.5)):
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(f"{name}: wanted 0 to {limit}, found {getattr(self, name)}")

    @property
    def active(self) -> bool:
        """Whether anything would change."""
        return any((self.rotate, self.scale, self.shear, self.shift))


POLICIES: Mapping[str, Affine] = MappingProxyType(
    {
        "none": Affine(),
        "light": Affine(rotate=10, scale=0.1, shift=0.08),
        "digits": Affine(rotate=10, scale=0.15, shear=10, shift=0.08),
    }
)
"""Named settings; none mirrors an image, since a mirrored letter or sign may be another one."""


def distort(
    images: Float32[Tensor, "batch channels height width"], affine: Affine, generator: torch.Generator
) -> Float32[Tensor, "batch channels height width"]:
    """Return each image under an affine map of its own; what comes in from outside repeats the border."""
    import torch.nn.functional as F

    theta = draw_affine(len(images), affine, generator)
    # Both axes run from -1 to 1 whatever the shape; rotation and slant are meant in pixels, which are square.
    height, width = images.shape[-2:]
    theta[:, 0, 1] *= height / width
    theta[:, 1, 0] *= width / height
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def draw_affine(batch: int, affine: Affine, generator: torch.Generator) -> Float32[Tensor, "batch 2 3"]:
    """Draw maps from output to input coordinates, both in -1..1: rotation, after shear, after scaling, plus a shift.

    They are those of a square; `distort` fits them to other shapes.
    """
    import torch

    rotate, shear, scale_x, scale_y, shift_x, shift_y = torch.empty(6, batch).uniform_(-1, 1, generator=generator)
    angle = rotate * (affine.rotate * torch.pi / 180)
    slant = torch.tan(shear * (affine.shear * torch.pi / 180))
    width, height = 1 + scale_x * affine.scale, 1 + scale_y * affine.scale
    cos, sin = torch.cos(angle), torch.sin(angle)
    # In -1..1, a shift by this share of a side is twice as many units.
    first = torch.stack([cos * width, (cos * slant - sin) * height, 2 * affine.shift * shift_x], dim=1)
    second = torch.stack([sin * width, (sin * slant + cos) * height, 2 * affine.shift * shift_y], dim=1)
    return torch.stack([first, second], dim=1)
