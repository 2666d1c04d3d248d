"""Positions of an input, to which explanations give relevance: pixels, tokens, steps; and their removal.

A removed pixel or step gets the mean of the training set, which is zero after normalization; a removed token becomes
the mask token. A network has seen either often: unlike black, the mean is no evidence of its own in normalized input
(Sturmfels, Lundberg, Lee: Visualizing the impact of feature attribution baselines, Distill 2020), and masked tokens
occur in training. Padding is never removed: it is no content, and lengths stay what they are.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

MASK = 1
"""Number of the mask token; see `falconet.spec.TextSpec`."""

Inputs = Float[Tensor, "batch channels height width"] | Float[Tensor, "batch channels steps"] | Int64[Tensor, "batch _"]


def is_text(inputs: Tensor) -> bool:
    """Whether a batch holds token numbers."""
    return not inputs.is_floating_point()


def mark_present(inputs: Inputs) -> Bool[Tensor, "batch positions"]:
    """Return which positions hold content: all pixels in rows, steps and tokens that are not padding."""
    if is_text(inputs):
        return inputs != 0
    if inputs.ndim == 3:
        return ~inputs.isnan().all(dim=1)
    return torch.ones(len(inputs), inputs[0, 0].numel(), dtype=torch.bool, device=inputs.device)


def flatten_relevance(relevance: Float[Tensor, "batch *shape"], inputs: Inputs) -> Float[Tensor, "batch positions"]:
    """Return one value for each position, in the order of `mark_present`; the channels of a series are summed."""
    series = inputs.is_floating_point() and inputs.ndim == 3
    return relevance.sum(dim=1) if series else relevance.flatten(1)


def remove(inputs: Inputs, removed: Bool[Tensor, "batch positions"]) -> Inputs:
    """Return inputs without the content of some positions."""
    if is_text(inputs):
        return inputs.masked_fill(removed & (inputs != 0), MASK)
    if inputs.ndim == 3:
        return inputs.masked_fill(removed[:, None] & ~inputs.isnan(), 0.0)
    return inputs.masked_fill(removed.view(len(inputs), 1, *inputs.shape[2:]), 0.0)


def clear(inputs: Inputs) -> Inputs:
    """Return inputs with all content removed; padding and missing values are kept."""
    return remove(inputs, torch.ones_like(mark_present(inputs)))
