"""The number format of a network's arithmetic in training; weights and optimizer stay in float32.

Micikevicius et al.: Mixed precision training. ICLR, 2018; of bfloat16: Kalamkar et al.: A study of BFLOAT16 for deep
learning training. 2019. It has the range of float32, so gradients need no scaling.
"""

from __future__ import annotations

import torch
from torch import nn

from falconet.training.config import TrainConfig


def choose_precision(config: TrainConfig, model: nn.Module) -> torch.dtype:
    """Return the format that a configuration asks for.

    `auto` is bfloat16 where the processor multiplies it itself and the network is one of full 2-D convolutions, which
    are faster in it. On processors, grouped convolutions and Transformers are slower, recurrent networks no faster.
    """
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bf16" else torch.float32
    groups = [module.groups for module in model.modules() if isinstance(module, nn.Conv2d)]
    # Layer normalization marks Transformers over patches, whose first layer is a convolution.
    suits = groups and max(groups) == 1 and not any(isinstance(module, nn.LayerNorm) for module in model.modules())
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in NATIVE)
    return torch.bfloat16 if suits and native else torch.float32


NATIVE = ("avx512_bf16", "amx_bf16", "bf16")
"""What processors call their instructions for it."""


def autocast(dtype: torch.dtype) -> torch.autocast:
    """Return a context in which convolutions and matrix products take this format."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not torch.float32)
