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
    """Class of the input spec: how a raw sample becomes a model's input."""
    plural: str
    """Word for several samples."""
    files: str
    """Words for several files that hold one sample each."""
    extensions: frozenset[str]
    """Suffixes of files that hold one sample each, in lower case, with the dot."""
    has_format: bool
    """Whether the content of such a file shows that it is one; any file at all may be read as a text."""
    example: str
    """Example of the name of such a file, for messages."""
    axes: int
    """Number of dimensions of an input's size, besides its channels."""
    unit: str
    """Unit of an input's size, in words."""
    raw_unit: str
    """Unit of the length of a raw sample, in words."""
    has_tokens: bool
    """Whether inputs are token IDs of a tokenizer, int64 with 0 as padding; else they are float32."""
    missing_is_nan: bool
    """Whether NaN in inputs means a missing value, or padding after the end."""
    has_statistics: bool
    """Whether inputs are normalized by the mean and standard deviation of training samples."""
    bounded: bool
    """Whether values are bounded, as those of pixels are: before normalization, inputs lie in 0..1."""
    describe_input: Callable[[Any], str]
    """Describes the input of a model, given its input spec."""
    describe_samples: Callable[[Any], str]
    """Describes the kind and size of the samples of a Dataset, or of a report about one."""
    name_task: Callable[[Any], str]
    """Returns the Hugging Face Hub's name for classification of such samples, given an input spec."""

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
        """Return inputs of ones, to trace a network or measure its cost; no token may be 0, which is padding."""
        import torch

        return torch.ones(shape, dtype=torch.long if self.has_tokens else torch.float32)
