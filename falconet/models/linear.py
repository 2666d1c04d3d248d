"""Multinomial logistic regression on pixels or values: `linear`, what any deeper network has to beat.

Cox: The regression analysis of binary sequences. J. Royal Statistical Society B, 1958; of several classes: McFadden:
Conditional logit analysis of qualitative choice behavior. 1974.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from falconet.spec import Kind


class Linear(nn.Module):
    """One dense layer on all values of an image or a series.

    `num_classes`, `in_channels`, `input_size` and `kind` are as in `falconet.create_model`. Missing values of a series,
    and the steps behind its end, count as the channel's mean, which is 0; steps beyond `input_size` are not seen.
    """

    def __init__(self, num_classes: int, in_channels: int, input_size: tuple[int, ...], kind: Kind) -> None:
        super().__init__()
        self.steps = input_size[0] if kind == "series" else None
        self.output = nn.Linear(in_channels * math.prod(input_size), num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels *size"]) -> Float[Tensor, "batch classes"]:
        if self.steps is not None:
            x = F.pad(x.masked_fill(x.isnan(), 0.0), (0, self.steps - x.shape[2]))
        logits: Tensor = self.output(x.flatten(1))
        return logits
