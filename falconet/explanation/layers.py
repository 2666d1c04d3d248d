"""Inside a network: feature maps, embeddings, attention, and filters of the first layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from falconet.artifact import Artifact
from falconet.data import Samples
from falconet.data.preprocessing import iterate_prepared
from falconet.errors import ConfigError, DataError
from falconet.explanation.positions import Inputs
from falconet.models.info import find_classifiers

_Sink = Callable[[str, nn.Module, Any, Any], None]
"""A function of a layer's name, the layer, its input and its output."""


@contextmanager
def _watch_layers(model: nn.Module, see: _Sink) -> Iterator[None]:
    """Call `see` for each layer that runs in the context, inner ones before those that hold them."""

    def listen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda layer, inputs, output: see(name, layer, inputs, output)

    handles = [layer.register_forward_hook(listen(name)) for name, layer in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def list_maps(model: nn.Module, inputs: Inputs, only: str | None = None) -> dict[str, Float[Tensor, "batch _ _ _"]]:
    """Return the feature maps of each layer, or of one, with more than one position, in running order.

    Layers that run more than once, such as a shared activation, have no single output and are left out.
    """
    found: dict[str, Tensor] = {}
    runs: Counter[str] = Counter()

    def see(name: str, layer: nn.Module, given: Any, output: Any) -> None:
        runs[name] += 1
        if (
            only in (None, name)
            and isinstance(output, Tensor)
            and output.ndim == 4
            and output.shape[2] * output.shape[3] > 1
        ):
            found[name] = output.clone()  # An activation in place may come after it.

    with _watch_layers(model, see):
        model(inputs)
    return {name: maps for name, maps in found.items() if runs[name] == 1}


def find_last_maps(model: nn.Module, inputs: Inputs) -> str | None:
    """Return the name of the last layer with feature maps, or None where a network has none."""
    return next(reversed(list_maps(model, inputs[:1])), None)


@torch.no_grad()
def embed(model: nn.Module, inputs: Inputs) -> Float[Tensor, "batch features"]:
    """Return the input of the last layer with weights; where that is a convolution, its mean over positions."""
    name = find_classifiers(model)[0]
    seen: list[Tensor] = []

    def see(layer: str, module: nn.Module, given: Any, output: Any) -> None:
        if layer == name:
            seen.append(given[0])

    with _watch_layers(model, see):
        model(inputs)
    return seen[0].flatten(2).mean(dim=2) if seen[0].ndim > 2 else seen[0]


def _iterate_inputs(artifact: Artifact, samples: Samples) -> Iterator[tuple[list[int], Inputs]]:
    """Yield the readable samples as batches of a network's input, with their positions among all."""
    end = 0
    for batch in iterate_prepared(samples, artifact.preprocess, artifact.batch_size):
        begin, end = end, end + len(batch.inputs) + len(batch.unreadable)
        kept = [index for index in range(begin, end) if index not in batch.unreadable]
        if kept:
            yield kept, artifact.preprocess.normalize(batch.inputs)


def embed_samples(artifact: Artifact, samples: Samples) -> tuple[list[int], Float[Tensor, "readable features"]]:
    """Return the positions of the samples that can be read, and `embed` of each. Raises DataError where none can."""
    kept: list[int] = []
    parts: list[Tensor] = []
    for positions, inputs in _iterate_inputs(artifact, samples):
        kept += positions
        parts.append(embed(artifact.model, inputs))
    if not parts:
        raise DataError(f"none of {len(samples)} samples can be read")
    return kept, torch.cat(parts)


def find_nearest(
    queries: Float[Tensor, "queries features"], known: Float[Tensor, "known features"], count: int
) -> tuple[Int64[Tensor, "queries nearest"], Float[Tensor, "queries nearest"]]:
    """Return positions of the `count` vectors of `known` with the largest cosines to each query, and the cosines."""
    cosines = F.normalize(queries) @ F.normalize(known).T
    best = cosines.topk(min(count, len(known)), dim=1)
    return best.indices, best.values


def project(vectors: Float[Tensor, "samples features"]) -> Float[Tensor, "samples 2"]:
    """Return the first two principal components (Pearson 1901); for a single feature, the second is zero.

    Signs are such that the largest entry of each direction is positive.
    """
    centered = (vectors - vectors.mean(dim=0)).double()
    directions = torch.linalg.svd(centered, full_matrices=False).Vh[:2]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    plane = centered @ (directions * largest.sign()).T
    return F.pad(plane, (0, 2 - plane.shape[1])).float()


def read_filters(model: nn.Module) -> Float[Tensor, "maps channels height width"] | None:
    """Return the kernels of the first layer of an image network; None where it is no spatial convolution."""
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1:
            return parameter.detach() if parameter.ndim == 4 and min(parameter.shape[2:]) > 1 else None
    return None


class _AttentionMode(TorchFunctionMode):
    """A mode that records the weights of each attention that is computed in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.weights.append(attention_weights(args[0], args[1], kwargs.get("attn_mask")))
        return func(*args, **kwargs)


def attention_weights(
    queries: Float[Tensor, "batch heads steps size"],
    keys: Float[Tensor, "batch heads steps size"],
    present: Tensor | None,
) -> Float[Tensor, "batch heads steps steps"]:
    """Return softmax(q k / sqrt(d)) with masking (Vaswani et al. 2017, equation 1)."""
    scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
    return (scores if present is None else scores.masked_fill(~present, -math.inf)).softmax(dim=3)


@torch.no_grad()
def read_attention(model: nn.Module, inputs: Inputs) -> Float[Tensor, "layers batch heads steps steps"]:
    """Return how much each step (second last axis) attends to each (last), for every layer and head; rows sum to 1.

    Raises ConfigError for a network without attention.
    """
    with _AttentionMode() as mode:
        model(inputs)
    if not mode.weights:
        raise ConfigError(f"wanted a network with attention, found none in {type(model).__name__}")
    return torch.stack(mode.weights)


def rank_units(
    artifact: Artifact, samples: Samples, layer: str, count: int
) -> tuple[Int64[Tensor, "maps best"], Float[Tensor, "maps best"]]:
    """Return for each unit (feature map) of a layer the samples with the highest activation, and this.

    The activation is the highest value in the map. Samples that cannot be read are skipped.
    """
    kept: list[int] = []
    peaks: list[Tensor] = []
    for positions, inputs in _iterate_inputs(artifact, samples):
        kept += positions
        peaks.append(list_maps(artifact.model, inputs, layer)[layer].amax(dim=(2, 3)))
    best = torch.cat(peaks).T.topk(min(count, len(kept)), dim=1)
    return torch.tensor(kept)[best.indices], best.values
