"""AnyImage: scaling of images in a graph that knows their size only when it runs."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64, UInt
from torch import Tensor

from falconet.data.preprocessing import WHITES, ImagePreprocess, Placement, place_image, weigh_pixels


class AnyImage(ImagePreprocess):
    """`ImagePreprocess` for images whose size and channels are known only when the traced graph runs.

    Images are scaled by products of matrices that the graph computes, which every runtime does alike: OpenVINO has the
    antialiased operator of ONNX, but leaves the antialiasing out.
    """

    def forward(
        self, images: UInt[Tensor, "batch height width channels"]
    ) -> Float32[Tensor, "batch model_channels model_height model_width"]:
        return self.normalize(self.fit(images.permute(0, 3, 1, 2).float() / WHITES[images.dtype]))

    def fit(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch model_channels model_height model_width"]:
        # Scaling to the size that an image has already leaves it as it is: no branch is needed.
        return self.pad_border(self.resize(self.match_channels(x)))

    def match_channels(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch model_channels height width"]:
        # Channels 0, 0, 0 of a gray image and 0, 1, 2 of one in color, whose weights add up to 1.
        color = x.index_select(1, torch.arange(3).clamp(max=x.shape[1] - 1))
        return (color * self.luma).sum(dim=1, keepdim=True) if self.spec.shape[0] == 1 else color

    def resize(
        self, x: Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch channels inner_height inner_width"]:
        rows, columns = (
            self.weigh(torch.arange(found), side, wanted)
            for found, side, wanted in zip(
                x.shape[2:], place_image(x.shape[2], x.shape[3], self.spec), self.spec.inner_size, strict=True
            )
        )
        return rows @ x @ columns.T

    def weigh(
        self, positions: Int64[Tensor, " found"], side: Placement, wanted: int
    ) -> Float32[Tensor, "wanted found"]:
        """Return the weight of each pixel of a line in each of the model's pixels; padding has none."""
        places = torch.arange(wanted) + side.start
        if self.spec.resize_mode != "pad":
            return weigh_pixels(positions, places, side)
        kept = places.clamp(min=0).minimum(side.scaled - 1)
        return weigh_pixels(positions, kept, side) * (places == kept).to(torch.float32)[:, None]
