"""Networks of other libraries, as `timm:NAME` and `torchvision:NAME`, for the user's classes, channels and size."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from falconet.errors import ConfigError, MissingExtraError, UnknownNameError
from falconet.models.forward_cost import measure_forward

SECOND_OUTPUTS = ("googlenet", "inception_v3")
"""Networks of torchvision with auxiliary classifiers for training, which are left out here."""


_READING = frozenset(
    {
        "pretrained",
        "checkpoint_path",
        "cache_dir",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "weights",
        "weights_backbone",
    }
)
"""Options by which the libraries read or fetch weights; `pretrained` of `create_model` does so with its own checks."""


def _check_external_options(options: dict[str, Any]) -> None:
    """Raise ConfigError for options by which a library would read a file or the network, or compute for long."""
    for option in sorted(_READING & options.keys()):
        raise ConfigError(f"model.options.{option}: wanted options of the network alone; weights go by --pretrained")
    for option, value in options.items():
        _check_numbers(option, value)


_MAX_OPTION = 1 << 15
"""Largest number in an option; larger widths, depths and sizes would take seconds even without memory for weights."""


def _check_numbers(option: str, value: Any) -> None:
    """Raise ConfigError for an option that holds a number so large that a library would compute with it for long."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(option, item)
    elif isinstance(value, int | float) and not abs(value) <= _MAX_OPTION:
        raise ConfigError(f"model.options.{option}: wanted numbers of at most {_MAX_OPTION}, found a larger one")


def build_timm(
    num_classes: int, in_channels: int, input_size: tuple[int, int], architecture: str, **options: Any
) -> nn.Module:
    """Return timm's network of this name with fresh weights; `options` are those of `timm.create_model`.

    Raises MissingExtraError without timm, UnknownNameError, and ConfigError for what the network cannot be built with.
    """
    _check_external_options(options)
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("zoo", "a network of timm") from error
    name = architecture.partition(".")[0]
    if not timm.is_model(name):
        raise UnknownNameError("model of timm", name, timm.list_models())
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options = {"img_size": input_size, **options}
    try:
        model: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **options)
    except ConfigError:
        raise
    except Exception as error:  # Strange options make the library raise anything.
        raise _refuse("timm", name, error) from error
    _check_forward("timm", name, model, in_channels, input_size)
    return model


def build_torchvision(
    num_classes: int, in_channels: int, input_size: tuple[int, int], architecture: str, **options: Any
) -> nn.Module:
    """Return torchvision's classifier of this name with fresh weights; `options` are those of its builder.

    Its first convolution is made anew for other than 3 channels. Raises UnknownNameError, and ConfigError for what the
    network cannot be built with.
    """
    _check_external_options(options)
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise UnknownNameError("model of torchvision", architecture, known)
    builder = torchvision.models.get_model_builder(architecture)
    if architecture.startswith("vit"):
        options = {"image_size": _one_side(architecture, input_size), **options}
    if architecture in SECOND_OUTPUTS:
        options = {"aux_logits": False, "init_weights": True, **options}
    try:
        model: nn.Module = builder(num_classes=num_classes, **options)
    except ConfigError:
        raise
    except Exception as error:  # Strange options make the library raise anything.
        raise _refuse("torchvision", architecture, error) from error
    if in_channels != 3:
        replace_first_convolution(model, in_channels)
    _check_forward("torchvision", architecture, model, in_channels, input_size)
    return model


def _one_side(name: str, input_size: tuple[int, int]) -> int:
    """Return the side of a square. Raises ConfigError for another rectangle."""
    height, width = input_size
    if height != width:
        raise ConfigError(f"model.input_size: {name} takes squares, found {height}x{width}")
    return height


def _refuse(library: str, name: str, error: Exception) -> ConfigError:
    """Return the error of a network that its library does not build."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(f"model: {library} does not build {name} as asked: {reason}")


@torch.inference_mode()
def _check_forward(library: str, name: str, model: nn.Module, in_channels: int, input_size: tuple[int, int]) -> None:
    """Raise ConfigError unless an image of this size can go through a network; an outline has no weights to try it."""
    device = next(model.parameters()).device
    if device.type == "meta":
        return
    example = torch.zeros(1, in_channels, *input_size, device=device)
    try:
        measure_forward(model.eval(), example)
    except Exception as error:  # Networks of strange options raise anything.
        raise _refuse(library, name, error) from error
    model.train()


def replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    """Put a convolution for another number of channels, with fresh weights, in the place of a network's first."""
    name, first = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    known = set(inspect.signature(nn.Conv2d).parameters)
    settings = {key: getattr(first, key) for key in known if hasattr(first, key)}
    fresh = nn.Conv2d(**{**settings, "in_channels": in_channels, "bias": isinstance(first.bias, Tensor)})
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, fresh)
