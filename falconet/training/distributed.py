"""Distributed training: processes that `torchrun` starts to train one network, and their communication.

Each takes its part of every batch; torch's DistributedDataParallel averages the gradients (Li et al.: PyTorch
distributed. VLDB, 2020), and batch normalization sees all parts together. The first process is the main
one: it alone reads checkpoints, writes, and reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from falconet.errors import LostProcessError
from falconet.training.synchronization import SynchronizedParallel

_T = TypeVar("_T")

_PATIENCE = timedelta(minutes=2)
"""Timeout of a process that waits for another within a step. The loss of a process is reported at once; that of a host
is not."""


@dataclass(frozen=True)
class ProcessGroup:
    """One of `world_size` processes, with its collective operations, which do nothing in a single process."""

    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None
    """Group of torch for training steps; longer work, such as reading data, waits in torch's default group."""

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which alone reads checkpoints, writes and reports."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a network whose backward pass averages gradients over all processes.

        Its batch normalization sees the whole batch. It shares modules and weights with `model`; in a single process it
        is `model` itself.
        """
        if self.world_size == 1:
            return model
        self.barrier()
        return SynchronizedParallel(model, process_group=self.group)

    def barrier(self) -> None:
        """Wait until all processes have arrived, however long one of them reads or writes."""
        if self.world_size > 1:
            dist.all_reduce(torch.zeros(1))

    def all_reduce(self, values: Sequence[float]) -> list[float]:
        """Return the sums of values over all processes, the same in each."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        sums: list[float] = total.tolist()
        return sums

    def broadcast(self, value: _T) -> _T:
        """Return the main process's value."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def init_process_group() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` has started, until the end; without torchrun, yield a single process.

    Raises LostProcessError where another process has ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    group = dist.new_group(timeout=_PATIENCE)
    assert isinstance(group, dist.ProcessGroup)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), group)
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise LostProcessError(
            "another process of this run has ended or cannot be reached, so that it cannot go on; see what that one "
            "said, and start all of them again with if_exists='resume'"
        ) from error
    finally:
        dist.destroy_process_group()


def is_lost(error: RuntimeError) -> bool:
    """Return whether an error means that communication with another process failed."""
    text = str(error).lower()
    return any(sign in text for sign in ("connection closed by peer", "connection reset", "timed out", "broken pipe"))
