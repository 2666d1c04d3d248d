"""MODELS, the one table of architectures, and the functions that read it. Importing it does not import torch."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from falconet.errors import ConfigError, UnknownNameError
from falconet.spec import Kind

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """One line of the table."""

    builder: str
    """`module:class`; the class takes `num_classes`, `in_channels`, `input_size` and the architecture's own options.

    Where the model eats several kinds, it also takes `kind`.
    """

    input: tuple[int, ...]
    """Native input of its first kind.

    Channels, height and width in pixels; channels and steps; or, of a text, different tokens and tokens.
    """

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

    kinds: tuple[Kind, ...] = ("image",)
    """What the model eats."""

    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Options of the builder that make this member of its family; nobody else can set them."""


SIZES: Mapping[Kind, tuple[int, str]] = MappingProxyType(
    {"image": (2, "pixels"), "series": (1, "steps"), "text": (1, "tokens")}
)
"""How many numbers make the size of an input, and what they count."""

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
        "rnn": ModelEntry(
            builder="falconet.models.recurrent:Recurrent",
            input=(8000, 128),
            kinds=("text", "series"),
            num_classes=2,
            params=537_090,
            macs=3_145_984,
            paper="Elman: Finding structure in time. Cognitive Science, 1990",
            options=MappingProxyType({"cell": "rnn"}),
        ),
        "lstm": ModelEntry(
            builder="falconet.models.recurrent:Recurrent",
            input=(8000, 128),
            kinds=("text", "series"),
            num_classes=2,
            params=611_586,
            macs=12_583_168,
            paper="Hochreiter, Schmidhuber: Long short-term memory. Neural Computation, 1997",
            options=MappingProxyType({"cell": "lstm", "nonlinearity": "tanh"}),
        ),
        "gru": ModelEntry(
            builder="falconet.models.recurrent:Recurrent",
            input=(8000, 128),
            kinds=("text", "series"),
            num_classes=2,
            params=586_754,
            macs=9_437_440,
            paper="Cho et al.: Learning phrase representations using RNN encoder-decoder. EMNLP, 2014",
            options=MappingProxyType({"cell": "gru", "nonlinearity": "tanh"}),
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


def models_for(kind: Kind) -> list[str]:
    """Return the names of all models that eat a kind of sample. Raises UnknownNameError for what is no kind."""
    if kind not in get_args(Kind):
        raise UnknownNameError("kind", kind, get_args(Kind))
    return [name for name, entry in MODELS.items() if kind in entry.kinds]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_size: int | tuple[int, ...] | None = None,
    kind: Kind | None = None,
    **options: Any,
) -> nn.Module:
    """Build the model `name` with fresh weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        A name that `list_models` returns.
    num_classes
        None: as published.
    in_channels
        Channels of an image or a series, different tokens of a text; None: as published.
    input_size
        Height and width in pixels, one number for a square; steps of a series; tokens of a text. None: the native size.
    kind
        What the model is to eat; None: the first of the kinds that it can.
    options
        The architecture's own, such as `output="linear"` for `lenet5`.

    The model maps `Float[batch channels height width]`, `Float[batch channels steps]` or `Int64[batch tokens]` to
    `Float[batch num_classes]`, the logits. Steps behind a series' end are NaN in all channels, tokens behind that of a
    text 0. Raises UnknownNameError for a name that is not in the table or an option that the model lacks, ConfigError
    for a kind that it does not eat, for a size that it cannot take, and for a kind other than its first without
    `in_channels` and `input_size`.

    """
    entry = find_model(name)
    kind = choose_kind(name, kind)
    if in_channels is None or input_size is None:
        native_channels, *native_size = native_input(name, kind)
        in_channels = native_channels if in_channels is None else in_channels
        input_size = tuple(native_size) if input_size is None else input_size
    size = check_size(input_size, kind)
    builder = load_builder(entry)
    check_options(name, builder, options)
    model: nn.Module = builder(
        num_classes=entry.num_classes if num_classes is None else num_classes,
        in_channels=in_channels,
        input_size=size,
        **({"kind": kind} if len(entry.kinds) > 1 else {}),
        **{**entry.options, **options},
    )
    return model


def choose_kind(name: str, kind: Kind | None) -> Kind:
    """Return `kind`, or the first that the model eats. Raises ConfigError for one that it does not eat."""
    kinds = find_model(name).kinds
    if kind is None:
        return kinds[0]
    fitting = models_for(kind)
    if kind not in kinds:
        raise ConfigError(f"model.name: {name} takes {' or '.join(kinds)}, not {kind}: choose {', '.join(fitting)}")
    return kind


def native_input(name: str, kind: Kind | None = None) -> tuple[int, ...]:
    """Return the input for which the table gives a model's costs.

    Raises ConfigError for a kind that it does not eat, or for which the table has none.
    """
    entry = find_model(name)
    if choose_kind(name, kind) != entry.kinds[0]:
        raise ConfigError(f"model.in_channels, model.input_size: wanted both, as {name} has no native {kind} input")
    return entry.input


def check_size(size: int | tuple[int, ...], kind: Kind) -> tuple[int, ...]:
    """Return the size of an input with all its numbers. Raises ConfigError unless they fit the kind."""
    count, unit = SIZES[kind]
    numbers = (size,) * count if isinstance(size, int) else tuple(size)
    if len(numbers) != count:
        wanted = "one number" if count == 1 else f"{count} numbers"
        raise ConfigError(f"model.input_size: wanted {wanted} ({unit}), found {list(numbers)}")
    if min(numbers) < 1:
        raise ConfigError(f"model.input_size: wanted {unit} above 0, found {size}")
    return numbers


def load_builder(entry: ModelEntry) -> Any:
    """Import and return the class that an entry names; this is where torch comes in."""
    module, _, attribute = entry.builder.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_options(name: str, builder: Any, options: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for the first option that the builder lacks or that the table has set."""
    fixed = {"num_classes", "in_channels", "input_size", "kind", *MODELS[name].options}
    known = set(inspect.signature(builder).parameters) - fixed
    for option in options:
        if option not in known and known:
            raise UnknownNameError(f"option of {name}", option, known)
        if option not in known:
            raise ConfigError(f"model.options.{option}: {name} has no options")
