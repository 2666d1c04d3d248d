"""MODELS, the one table of architectures, and the functions that read it. Importing it does not import torch."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from falconet.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """One line of the table."""

    builder: str
    """`module:class`; the class takes `num_classes`, `in_channels`, `input_size` and the architecture's own options."""

    input: tuple[int, int, int]
    """Native input: channels, height, width (pixels)."""

    num_classes: int
    """The number of classes for which `params` and `macs` are given."""

    params: int
    """Trainable parameters at the native input, as published."""

    macs: int
    """Multiply-accumulates of convolutions and matrix products for one native input (see `falconet.complexity`)."""

    paper: str
    """Where the architecture comes from."""

    margin: int = 0
    """Pixels on each side of the native input that are background: an image is scaled to what lies inside."""

    kind: Literal["image"] = "image"
    """What the model eats."""

    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Options of the builder that make this member of its family."""


LECUN_1998 = "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. Proc. IEEE, 1998"

MODELS: Mapping[str, ModelEntry] = MappingProxyType(
    {
        "lenet300_100": ModelEntry(
            builder="falconet.models.lenet:LeNet300100",
            input=(1, 28, 28),
            num_classes=10,
            params=266_610,
            macs=266_200,
            paper=LECUN_1998,
        ),
        "lenet5": ModelEntry(
            builder="falconet.models.lenet:LeNet5",
            input=(1, 32, 32),
            margin=2,
            num_classes=10,
            params=60_000,
            macs=416_520,
            paper=LECUN_1998,
        ),
        "lenet5_caffe": ModelEntry(
            builder="falconet.models.lenet:LeNet5Caffe",
            input=(1, 28, 28),
            num_classes=10,
            params=431_080,
            macs=2_293_000,
            paper="Jia et al.: Caffe: convolutional architecture for fast feature embedding. ACM Multimedia, 2014",
        ),
        "lenet_relu": ModelEntry(
            builder="falconet.models.lenet:LeNetReLU",
            input=(1, 28, 28),
            num_classes=10,
            params=184_586,
            macs=3_869_952,
            paper="after LeCun et al., 1998, as taught today: ReLU, max-pooling, dense output",
        ),
    }
)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern or contain it as a substring."""
    return [name for name in MODELS if fnmatch.fnmatch(name, pattern) or pattern in name]


def find_model(name: str) -> ModelEntry:
    """Return the table's entry for `name`.

    Raises UnknownNameError, with the nearest names, where there is none.
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS, "(`falconet models` lists them)")
    return MODELS[name]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build the model `name` with fresh weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        A name that `list_models` returns.
    num_classes, in_channels
        None: as published.
    input_size
        Height and width in pixels, one number for a square; None: the model's native size.
    options
        The architecture's own, such as `output="linear"` for `lenet5`.

    The model maps `Float[batch channels height width]` to `Float[batch num_classes]`, the logits.
    Raises UnknownNameError for a name that is not in the table, ConfigError for an option that the model lacks or a
    size that it cannot take.

    """
    entry = find_model(name)
    channels, *native = entry.input
    size = tuple(native) if input_size is None else input_size
    if isinstance(size, int):
        size = (size, size)
    if min(size) < 1:
        raise ConfigError(f"model.input_size: wanted pixels above 0, found {size}")
    builder = load_builder(entry)
    check_options(name, builder, options)
    classes = entry.num_classes if num_classes is None else num_classes
    model: nn.Module = builder(
        num_classes=classes,
        in_channels=channels if in_channels is None else in_channels,
        input_size=size,
        **{**entry.options, **options},
    )
    return model


def load_builder(entry: ModelEntry) -> Any:
    """Import and return the class that an entry names; this is where torch comes in."""
    module, _, attribute = entry.builder.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_options(name: str, builder: Any, options: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for the first option that the builder does not have."""
    structural = {"num_classes", "in_channels", "input_size"}
    known = set(inspect.signature(builder).parameters) - structural
    for option in options:
        if option not in known and known:
            raise UnknownNameError(f"option of {name}", option, known)
        if option not in known:
            raise ConfigError(f"model.options.{option}: {name} has no options")
