"""create_model(), and the functions that read the table of architectures. Importing it does not import torch."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from falconet.errors import ConfigError, PathError, UnknownNameError, UsageError, abridge
from falconet.modalities import MODALITIES
from falconet.models.table import MODELS, ModelEntry
from falconet.models.weights.published import ORIGINS, PUBLISHED, find_published
from falconet.spec import ModalityName

if TYPE_CHECKING:
    from torch import nn


EXTERNAL: Mapping[str, str] = MappingProxyType(
    {
        "timm": "falconet.models.external:build_timm",
        "torchvision": "falconet.models.external:build_torchvision",
    }
)
"""Libraries whose networks `create_model` builds too."""


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern or contain it as a substring."""
    return [name for name in MODELS if fnmatch.fnmatch(name, pattern) or pattern in name]


def find_model(name: str) -> ModelEntry:
    """Return the table's entry for `name`, or one for a network of another library, `timm:NAME` or `torchvision:NAME`.

    Raises UnknownNameError, with the nearest names, where there is none; whether the library has it shows when it is
    built.
    """
    library, colon, architecture = name.partition(":")
    if library in EXTERNAL and not architecture:
        raise UsageError(f"model: wanted {library}:NAME, with a name that {library} has, found {name!r}")
    if colon and library in EXTERNAL and architecture:
        return ModelEntry(
            builder=EXTERNAL[library],
            input=(3, 224, 224),
            num_classes=1000,
            params=None,
            macs=None,
            classifier=None,
            paper=f"see {library}'s documentation",
            resizable=True,
            options=MappingProxyType({"architecture": architecture}),
        )
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS, "(`falconet models` lists them)")
    return MODELS[name]


def models_for(kind: ModalityName) -> list[str]:
    """Return the names of all models that take a kind of sample. Raises UnknownNameError for what is no kind."""
    if kind not in MODALITIES:
        raise UnknownNameError("kind", kind, MODALITIES)
    return [name for name, entry in MODELS.items() if kind in entry.kinds]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_size: int | tuple[int, ...] | None = None,
    kind: ModalityName | None = None,
    pretrained: str | Path | Literal[False] | None = None,
    cosine: bool = False,
    **options: Any,
) -> nn.Module:
    """Build the model `name` with fresh weights, drawn from torch's global generator, or with published ones.

    Parameters
    ----------
    name
        A name that `list_models` returns, or `timm:NAME` or `torchvision:NAME`.
    num_classes
        None: as published.
    in_channels
        Channels of an image or a series, vocabulary size of a text; None: as published.
    input_size
        Height and width in pixels, one number for a square; steps of a series; tokens of a text. None: the native size.
    kind
        What the model is to take; None: the first of the kinds that it can.
    pretrained
        `embedded`, `wheel`, `torchvision`, `timm` or a path; see `falconet.load_pretrained`. Options without which the
        weights would answer differently are set; the output layer stays fresh unless it has as many classes as theirs.
        None or False: fresh weights.
    cosine
        The dense output layer gives scaled cosines, as losses with margins want them.
    options
        The architecture's own, such as `output="linear"` for `lenet5`.

    The model maps `Float[batch channels height width]`, `Float[batch channels steps]` or `Int64[batch tokens]` to
    `Float[batch num_classes]`, the logits. Steps after a series' end are NaN in all channels, tokens after that of a
    text 0. Raises UnknownNameError for a name that is not in the table or an option that the model lacks, ConfigError
    for a kind that it does not take, for a size that it cannot take, and for a kind other than its first without
    `in_channels` and `input_size`.

    """
    if pretrained is not None and pretrained is not False:
        from falconet.models.weights.loading import load_pretrained
        from falconet.models.weights.pretrained import load_matching_weights

        found = load_pretrained(name, pretrained)
        made = create_model(
            name,
            num_classes=found.num_classes if num_classes is None else num_classes,
            in_channels=found.in_channels if in_channels is None else in_channels,
            input_size=found.size if input_size is None else input_size,
            kind=kind,
            **{**found.options, "cosine": cosine or found.options.get("cosine", False), **options},
        )
        load_matching_weights(made, found)
        return made
    entry = find_model(name)
    kind = choose_kind(name, kind)
    if in_channels is None or input_size is None:
        native_channels, *native_size = native_input(name, kind)
        in_channels = native_channels if in_channels is None else in_channels
        input_size = tuple(native_size) if input_size is None else input_size
    num_classes = entry.num_classes if num_classes is None else num_classes
    for label, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"{label}: wanted a whole number above 0, found {count!r}")
    size = _check_size(input_size, kind)
    builder = _load_builder(entry)
    check_options(name, options)
    model: nn.Module = builder(
        num_classes=num_classes,
        in_channels=in_channels,
        input_size=size,
        **({"kind": kind} if len(entry.kinds) > 1 else {}),
        **{**entry.defaults, **entry.options, **options},
    )
    from falconet.models.info import ModelInfo, set_model_info
    from falconet.models.layers import use_cosine_output

    set_model_info(model, ModelInfo(kind, MODALITIES[kind].input_shape(in_channels, size), entry.classifier))
    if cosine:
        use_cosine_output(model)
    return model


def check_pretrained(name: str, source: str | Path) -> None:
    """Raise UsageError unless published weights can be asked for: of the table, or of images from where some are."""
    if not isinstance(source, str | PathLike):
        raise ConfigError(
            f"pretrained: wanted a name or path of weights, found {abridge(source)}; {_list_weights(name)}"
        )
    for origin in ORIGINS:
        if source == origin:
            find_published(name, origin)
            return
    if MODALITIES[find_model(name).kinds[0]].axes != 2:
        raise ConfigError(f"model.pretrained: wanted a network for images, found {name}")
    if source not in EXTERNAL and not Path(source).exists():
        known = ", ".join((*ORIGINS, *EXTERNAL))
        raise PathError(f"no such weights: {source}; wanted {known}, a file or a trained model's folder")


def _list_weights(name: str) -> str:
    """Return what weights of an architecture there may be, in words."""
    origins = [entry.origin for entry in PUBLISHED if entry.architecture == name]
    choices = "".join(f"'{origin}', " for origin in origins)
    images = MODALITIES[find_model(name).kinds[0]].axes == 2
    return f"give {choices}a file or a trained model's folder" if origins or images else "leave it out"


def choose_kind(name: str, kind: ModalityName | None) -> ModalityName:
    """Return `kind`, or the first that the model takes. Raises ConfigError for one that it does not take."""
    kinds = find_model(name).kinds
    if kind is None:
        return kinds[0]
    fitting = models_for(kind)
    if kind not in kinds:
        raise ConfigError(f"model.name: {name} takes {' or '.join(kinds)}, not {kind}: choose {', '.join(fitting)}")
    return kind


def native_input(name: str, kind: ModalityName | None = None) -> tuple[int, ...]:
    """Return the input for which the table gives a model's costs.

    Raises ConfigError for a kind that it does not take, or for which the table has none.
    """
    entry = find_model(name)
    if choose_kind(name, kind) != entry.kinds[0]:
        raise ConfigError(f"model.in_channels, model.input_size: wanted both, as {name} has no native {kind} input")
    return entry.input


def _check_size(size: int | tuple[int, ...], kind: ModalityName) -> tuple[int, ...]:
    """Return the size of an input with all its numbers. Raises ConfigError unless they fit the kind."""
    count, unit = MODALITIES[kind].axes, MODALITIES[kind].unit
    numbers = (size,) * count if isinstance(size, int) else tuple(size)
    if not all(isinstance(number, int) for number in numbers):
        raise ConfigError(f"model.input_size: wanted whole numbers of {unit}, found {size!r}")
    if len(numbers) != count:
        wanted = "one number" if count == 1 else f"{count} numbers"
        raise ConfigError(f"model.input_size: wanted {wanted} ({unit}), found {list(numbers)}")
    if min(numbers) < 1:
        raise ConfigError(f"model.input_size: wanted {unit} above 0, found {size}")
    return numbers


def _load_builder(entry: ModelEntry) -> Any:
    """Import and return the class that an entry names; this is where torch comes in."""
    module, _, attribute = entry.builder.partition(":")
    return getattr(importlib.import_module(module), attribute)


def list_options(name: str) -> list[str]:
    """Return the options that a user may set; imports the model."""
    entry = find_model(name)
    fixed = {"num_classes", "in_channels", "input_size", "kind", *entry.options}
    return [option for option in inspect.signature(_load_builder(entry)).parameters if option not in fixed] + ["cosine"]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for the first option that the model lacks or that the table has set."""
    known = list_options(name)
    if "options" in known:  # Another library's, which checks them itself.
        known = [option for option in (*known, *options) if option not in find_model(name).options]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of {name}", option, known)
