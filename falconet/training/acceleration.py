"""Options that make training faster: progressive resizing of images, and compiled networks."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.errors import ConfigError, FalconetError
from falconet.training.config import TrainConfig
from falconet.training.schedules import training_side


def resize(images: Tensor, step: int, steps: int, config: TrainConfig) -> Tensor:
    """Return images resized to the side of this step."""
    if config.initial_scale == 1:
        return images
    size = [training_side(side, step, steps, config.initial_scale) for side in images.shape[2:]]
    if size == list(images.shape[2:]):
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True).contiguous(memory_format=torch.channels_last)


def check_acceleration(
    model: nn.Module, config: TrainConfig, device: torch.device, sample: Callable[[], Tensor], processes: int
) -> None:
    """Raise ConfigError where an option that makes training faster does not suit this network or this machine.

    `sample` returns some of the network's input; it is only called where that is needed.
    """
    if config.compile and config.initial_scale < 1:
        # Each size is compiled by itself, for minutes, and torch gives up after eight.
        raise ConfigError(f"compile: wanted initial_scale=1 with it, found {config.initial_scale:g}; take one of both")
    if config.compile and processes > 1:
        raise ConfigError(f"compile: wanted one process, found {processes}; leave it out")
    if config.compile and device.type == "cpu" and not shutil.which(_name_compiler()):
        raise ConfigError(f"compile: wanted a C++ compiler, found no {_name_compiler()}; install it, or leave it out")
    if config.initial_scale < 1:
        _check_sizes(model, sample()[:1], config)


def _name_compiler() -> str:
    """Return the C++ compiler that torch uses."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return os.environ.get("CXX") or usual


@torch.no_grad()
def _check_sizes(model: nn.Module, sample: Tensor, config: TrainConfig) -> None:
    """Raise ConfigError unless a network takes images as small as training begins with."""
    if sample.ndim != 4:
        raise ConfigError(f"initial_scale: wanted 1 for samples that are no images, found {config.initial_scale:g}")
    small = resize(sample, 0, 1, config)
    mode = model.training
    try:
        model.eval()(small)
    except (RuntimeError, ValueError, FalconetError) as error:
        height, width = small.shape[2:]
        raise ConfigError(
            f"initial_scale: wanted a network that takes any size, found one that cannot take {height}x{width}"
        ) from error
    finally:
        model.train(mode)
