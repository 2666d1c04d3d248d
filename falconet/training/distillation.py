"""Knowledge distillation: a smaller network learns the outputs of a trained one, its teacher.

Logits: G. Hinton, O. Vinyals, J. Dean: Distilling the knowledge in a neural network. 2015. Features: F. Tung, G. Mori:
Similarity-preserving knowledge distillation. ICCV, 2019, which compares samples with each other, so that the networks
may differ in their number of features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from falconet.data.preprocessing import AnyPreprocess, ImagePreprocess
from falconet.errors import ConfigError
from falconet.models.info import find_classifiers
from falconet.training.config import TrainConfig
from falconet.training.devices import DevicePolicy


class Teacher(nn.Module):
    """A trained network that takes the input of its student, whatever its own size, channels and normalization.

    Raises ConfigError where the input is not for images, unless it is the same for both.
    """

    def __init__(self, model: nn.Module, preprocess: AnyPreprocess, student: AnyPreprocess) -> None:
        super().__init__()
        self.model, self.preprocess, self.student = model, preprocess, student
        mine, theirs = preprocess.spec, student.spec
        self.converts = mine != theirs
        if self.converts and not can_convert(preprocess, student):
            raise ConfigError(f"model.teacher: wanted one with the same input, {theirs}, found {mine}")

    def forward(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.model(self.convert(x) if self.converts else x)
        return logits

    def convert(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch its_channels its_height its_width"]:
        """Return a student's input, converted to the teacher's."""
        assert isinstance(self.preprocess, ImagePreprocess)
        assert isinstance(self.student, ImagePreprocess)
        padding, (height, width) = self.student.spec.padding, self.student.spec.inner_size
        pixels = (x * self.student.std + self.student.mean)[:, :, padding : padding + height, padding : padding + width]
        return self.preprocess.normalize(self.preprocess.fit(pixels))


def can_convert(preprocess: AnyPreprocess, student: AnyPreprocess) -> bool:
    """Return whether a student's input can be converted to its teacher's: images of any size, color, normalization."""
    return isinstance(preprocess, ImagePreprocess) and isinstance(student, ImagePreprocess)


@dataclass(frozen=True, eq=False)
class DistillationLoss:
    """The part of a student's loss that compares it with a teacher."""

    teacher: nn.Module
    config: TrainConfig
    policy: DevicePolicy

    def __call__(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return a student's logits, and the distance of these and of its features from the teacher's."""
        with torch.no_grad():
            wanted, known = self.watch(self.teacher, inputs)
        logits, features = self.watch(model, inputs)
        distance = logit_distillation_loss(logits, wanted, self.config.distill_temperature)
        if self.config.feature_weight:
            distance = distance + self.config.feature_weight * feature_distillation_loss(features, known)
        return logits, distance

    def watch(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return a network's logits, and its features: the input of its output layer."""
        seen: list[Tensor] = []

        def keep(_module: nn.Module, given: tuple[Any, ...]) -> None:
            seen.append(given[0])

        network = model.model if isinstance(model, Teacher) else model
        handle = network.get_submodule(find_classifiers(network)[0]).register_forward_pre_hook(keep)
        try:
            logits = self.policy.forward(model, inputs)
        finally:
            handle.remove()
        return logits, seen[-1]


def logit_distillation_loss(
    logits: Float[Tensor, "batch classes"], wanted: Float[Tensor, "batch classes"], temperature: float
) -> Float[Tensor, ""]:
    """Return the KL divergence of softened probabilities, times temperature squared (section 2 of Hinton et al.)."""
    found, target = ((values / temperature).log_softmax(dim=1) for values in (logits, wanted))
    return F.kl_div(found, target, reduction="batchmean", log_target=True) * temperature**2


def feature_distillation_loss(
    features: Float[Tensor, "batch *mine"], wanted: Float[Tensor, "batch *theirs"]
) -> Float[Tensor, ""]:
    """Return the mean squared difference of a batch's similarity matrices (equations 1 to 4 of Tung and Mori).

    Summed over pairs and divided by the number of samples rather than by its square, so that its size does not depend
    on the batch's.
    """
    mine, theirs = (
        F.normalize(values.float().flatten(1) @ values.float().flatten(1).T) for values in (features, wanted)
    )
    return (mine - theirs).square().sum() / len(mine)
