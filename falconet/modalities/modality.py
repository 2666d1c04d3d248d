"""Modality: what all parts of Falconet must know of a kind of sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from falconet.spec import InputSpec, ModalityName

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Modality:
    """A kind of sample."""

    name: ModalityName
    spec_type: type[InputSpec]
    """What is written down about how a raw sample becomes a model's input."""
    plural: str
    """Several samples, in words."""
    files: str
    """Several files of a sample each, in words."""
    extensions: frozenset[str]
    """Of files that hold a sample each, in lower case, with their dot."""
    has_format: bool
    """Whether such a file tells by its content that it is one; any file at all may be read as a text."""
    example: str
    """Name of such a file, to be shown."""
    axes: int
    """How many numbers the size of an input has, besides its channels."""
    unit: str
    """What they count."""
    raw_unit: str
    """What the length of a raw sample counts."""
    has_tokens: bool
    """Whether inputs are numbers of tokens, int64 with 0 as padding, which a tokenizer makes; else they are float32."""
    missing_is_nan: bool
    """Whether NaN stands in inputs for missing values, and for padding after the end."""
    has_statistics: bool
    """Whether inputs are normalized by the mean and standard deviation of training samples."""
    bounded: bool
    """Whether values have bounds, as those of pixels: before they are normalized, inputs lie in 0..1."""
    describe_input: Callable[[Any], str]
    """From an input spec to what a model takes, in words."""
    describe_samples: Callable[[Any], str]
    """From a Dataset, or a report about one, to what its samples are and how large."""
    name_task: Callable[[Any], str]
    """From an input spec to what the Hugging Face Hub calls classification of such samples."""

    def in_channels(self, spec: Any) -> int:
        """Return what a network is built for besides sizes: channels, or the size of the vocabulary."""
        return int(spec.vocab_size if self.has_tokens else spec.shape[0])

    def input_size(self, spec: Any) -> tuple[int, ...]:
        """Return the sizes that a network is built for, channels left out."""
        return tuple(spec.shape[-self.axes :])

    def input_shape(self, in_channels: int, input_size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one input of a network that was built for these."""
        return input_size if self.has_tokens else (in_channels, *input_size)

    def make_blank(self, *shape: int) -> Tensor:
        """Return inputs of ones, to trace a network or to ask what it costs; no token may be 0, which is padding."""
        import torch

        return torch.ones(shape, dtype=torch.long if self.has_tokens else torch.float32)
