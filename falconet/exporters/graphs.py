"""The whole way from raw samples to probabilities as one module that can be traced: what every format holds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64, UInt
from torch import Tensor, nn

from falconet.artifact import Artifact
from falconet.data.preprocessing import WHITES, Placement, Preprocess, SeriesPreprocess, place_image, weigh_pixels
from falconet.spec import ImageSpec, InputSpec, SeriesSpec

INPUTS = {"image": "image", "series": "series", "text": "tokens"}
"""Names of the inputs for raw samples; that of the bare network is `input`."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A module with what must be known to trace it."""

    module: nn.Module
    input: str
    """Name of its only input."""
    output: str
    """Name of its only output."""
    example: Tensor
    axes: Mapping[int, str]
    """Dimensions of the input that are not fixed, and their names."""
    length: tuple[int, int] | None
    """The dimension of `axes` that counts tokens or steps, and how many there are at most."""


class InferenceModule(nn.Module):
    """Raw samples to the model's probabilities."""

    def __init__(self, preprocess: nn.Module, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.temperature = temperature

    def forward(self, x: Tensor) -> Float32[Tensor, "batch classes"]:
        logits: Tensor = self.network(self.preprocess(x)) / self.temperature
        return logits.softmax(dim=1)


class AnyImage(Preprocess):
    """`Preprocess` for images whose size and channels are known only when the traced graph runs.

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
            self.resize_weights(torch.arange(found), side, wanted)
            for found, side, wanted in zip(
                x.shape[2:], place_image(x.shape[2], x.shape[3], self.spec), self.spec.inner_size, strict=True
            )
        )
        return rows @ x @ columns.T

    def resize_weights(
        self, positions: Int64[Tensor, " found"], side: Placement, wanted: int
    ) -> Float32[Tensor, "wanted found"]:
        """Return the fraction of each pixel of a line in each of the model's; those that are padding have none."""
        places = torch.arange(wanted) + side.start
        if self.spec.resize_mode != "pad":
            return weigh_pixels(positions, places, side)
        kept = places.clamp(min=0).minimum(side.scaled - 1)
        return weigh_pixels(positions, kept, side) * (places == kept).to(torch.float32)[:, None]


def make_graph(artifact: Artifact, *, preprocessing: bool = True) -> Graph:
    """Return what is exported: the way from raw samples to probabilities, or without `preprocessing` the bare network.

    Raw images are uint8, or uint16 for models of deep ones, of any height, width, and 1 or 3 channels last; series
    float32 as `fit_series` returns them; texts are token numbers. The bare network takes normalized input and answers
    logits.
    """
    spec, network = artifact.config.input, copy.deepcopy(artifact.model)
    network.to(memory_format=torch.contiguous_format)
    if not preprocessing:
        example = make_normalized(spec)
        axes, length = name_axes(spec, network, spec.shape[-1], preprocessing=False)
        return Graph(network, "input", "logits", example, axes, length)
    example = make_raw(spec)
    axes, length = name_axes(spec, network, example.shape[-1], preprocessing=True)
    preprocess = make_preprocess(spec)
    keep_buffers(preprocess)
    module = InferenceModule(preprocess, network, artifact.config.calibration_temperature).eval()
    return Graph(module, INPUTS[spec.kind], "probabilities", example, axes, length)


def make_preprocess(spec: InputSpec) -> nn.Module:
    """Return what stands before the network; of texts nothing, as tokens are made outside."""
    if isinstance(spec, ImageSpec):
        return AnyImage(spec)
    return SeriesPreprocess(spec) if isinstance(spec, SeriesSpec) else nn.Identity()


def keep_buffers(module: nn.Module) -> None:
    """Let buffers that follow from the InputSpec be saved all the same: ExecuTorch's compiler stumbles over others."""
    for layer in module.modules():
        for name, buffer in layer.named_buffers(recurse=False):
            layer.register_buffer(name, buffer, persistent=True)


def make_raw(spec: InputSpec) -> Tensor:
    """Return two raw samples; images are not of the model's own size, so that no step of scaling is left out."""
    if isinstance(spec, ImageSpec):
        height, width = (side + 3 for side in spec.inner_size)
        dtype, gray = (torch.uint8, 128) if spec.dtype == "uint8" else (torch.uint16, 32896)
        return torch.full((2, height, width, 3), gray, dtype=dtype)
    if isinstance(spec, SeriesSpec):
        return torch.linspace(-1, 1, spec.raw_shape[1]).expand(2, *spec.raw_shape).contiguous()
    return torch.ones(2, *spec.shape, dtype=torch.int64)


def make_normalized(spec: InputSpec) -> Tensor:
    """Return two samples as the bare network takes them."""
    return torch.ones(2, *spec.shape, dtype=torch.int64 if spec.kind == "text" else torch.float32)


def name_axes(
    spec: InputSpec, network: nn.Module, longest: int, *, preprocessing: bool
) -> tuple[dict[int, str], tuple[int, int] | None]:
    """Return the dimensions that are not fixed, with names, and which of them counts steps, with their most.

    The steps of recurrent networks are fixed: a traced graph holds as many as its example has. So are those of series
    that are stretched to a length.
    """
    if isinstance(spec, ImageSpec):
        return ({0: "batch", 1: "height", 2: "width", 3: "channels"} if preprocessing else {0: "batch"}), None
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    if recurrent or (isinstance(spec, SeriesSpec) and spec.length_mode == "resample"):
        return {0: "batch"}, None
    axis, name = (1, "tokens") if spec.kind == "text" else (2, "steps")
    return {0: "batch", axis: name}, (axis, longest)
