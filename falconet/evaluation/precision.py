"""The number format of inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from falconet.errors import ConfigError, UnknownNameError
from falconet.training.devices import NATIVE

_NumberFormat = Literal["fp32", "bf16"]


@contextmanager
def compute_in(name: str) -> Iterator[None]:
    """Let networks compute in a format, with weights and logits in float32: fp32, or bf16 where that is faster.

    bfloat16 keeps 8 bits of float32's 24: a few predictions of a thousand that are nearly ties change. Raises
    UnknownNameError for another format, ConfigError where the CPU has no instructions for bfloat16.
    """
    if name not in get_args(_NumberFormat):
        raise UnknownNameError("number format", name, get_args(_NumberFormat))
    if name == "bf16":
        check_bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16"):
        yield


def check_bfloat16() -> None:
    """Raise ConfigError unless the CPU has instructions for bfloat16, which is slower than float32 without."""
    capabilities = torch.cpu.get_capabilities()
    if not any(capabilities.get(name) for name in NATIVE):
        raise ConfigError(f"bf16: wanted a processor with one of {', '.join(NATIVE)}, found none; leave it out")
