"""The device and the number format in which a network is trained; weights and optimizer stay in float32.

Micikevicius et al.: Mixed precision training. ICLR, 2018; of bfloat16: Kalamkar et al.: A study of BFLOAT16 for deep
learning training. 2019. It has the range of float32, so that gradients need no scaling, which float16 needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.training.config import TrainConfig

_FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NATIVE = ("avx512_bf16", "amx_bf16", "bf16")
"""Flags of CPUs that have instructions for bfloat16."""


@dataclass(frozen=True)
class DevicePolicy:
    """A device, and the format of convolutions and matrix products there."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """Return a context in which convolutions and matrix products take this format."""
        mixed = self.dtype is not torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if mixed else torch.bfloat16, enabled=mixed)

    def forward(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return a network's outputs, computed in this format, in float32, in which losses are computed."""
        with self.autocast():
            outputs = model(inputs)
        return outputs.float()

    def scaler(self) -> torch.amp.GradScaler:
        """Return the gradient scaler, which keeps small gradients from underflow in float16; else it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    def to_device(self, tensor: Tensor) -> Tensor:
        """Return a tensor of a batch on the device, copied from pinned memory while the device computes."""
        if self.device.type == "cpu":
            return tensor
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)

    @property
    def rng_devices(self) -> list[torch.device]:
        """Devices whose random generators are used besides the CPU's."""
        return [self.device] if self.device.type == "cuda" else []

    def get_rng_state(self) -> dict[str, Tensor]:
        """Return the states of the random generators that dropout uses."""
        draws = {"cpu": torch.get_rng_state()}
        return draws | {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else draws

    def set_rng_state(self, draws: Mapping[str, Tensor]) -> None:
        """Restore the states of the random generators."""
        torch.set_rng_state(draws["cpu"])
        if "cuda" in draws and self.device.type == "cuda":
            torch.cuda.set_rng_state(draws["cuda"], self.device)


def choose_device_policy(config: TrainConfig, model: nn.Module) -> DevicePolicy:
    """Return the device and number format that a configuration asks for. Raises ConfigError for an absent device."""
    device = choose_device(config)
    return DevicePolicy(device, choose_precision(config, model, device))


def choose_device(config: TrainConfig) -> torch.device:
    """Return the device; `auto` is the CUDA GPU of this process where there is one, else the CPU."""
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if config.device == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("device: wanted mps, found none on this machine; use auto")
        return torch.device("mps")
    if not torch.cuda.is_available():
        raise ConfigError("device: wanted cuda, found none on this machine; use auto")
    # Of several processes on a host, each has a GPU of its own.
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def choose_precision(config: TrainConfig, model: nn.Module, device: torch.device) -> torch.dtype:
    """Return the number format that a configuration asks for.

    `auto` is bfloat16 on CUDA GPUs that support it, and float16 on others. On CPUs it is bfloat16 where they have
    instructions for it and the network has ungrouped 2-D convolutions, which are faster in it: grouped convolutions
    and Transformers are slower, recurrent networks no faster. Elsewhere it is float32.
    """
    if config.precision != "auto":
        return _FORMATS[config.precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type != "cpu":
        return torch.float32
    groups = [module.groups for module in model.modules() if isinstance(module, nn.Conv2d)]
    # Layer normalization marks Transformers over patches, whose first layer is a convolution.
    suits = groups and max(groups) == 1 and not any(isinstance(module, nn.LayerNorm) for module in model.modules())
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in NATIVE)
    return torch.bfloat16 if suits and native else torch.float32
