"""Many processes that train one network, as `torchrun` starts them: who is who, and what they tell each other.

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
"""For which a process waits for another within a step. Where a process was killed, its system says so at once; where a
host can no longer be reached, nobody does."""


@dataclass(frozen=True)
class ProcessGroup:
    """One of `world_size` processes, and what it exchanges with the others: nothing where it is alone."""

    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None
    """In which steps are taken; what takes longer, such as reading data, is waited for in torch's own for all."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a network whose backward pass averages gradients over all processes.

        Its batch normalization sees all of a batch. It has the very modules and weights of `model`; of one process
        alone it is `model` itself.
        """
        if self.world_size == 1:
            return model
        self.barrier()
        return SynchronizedParallel(model, process_group=self.group)

    def barrier(self) -> None:
        """Wait until all processes have come here, however long one of them reads or writes."""
        if self.world_size > 1:
            dist.all_reduce(torch.zeros(1))

    def all_reduce(self, values: Sequence[float]) -> list[float]:
        """Return the sums of all processes' values, the same for each."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        sums: list[float] = total.tolist()
        return sums

    def broadcast(self, value: _T) -> _T:
        """Return the main process's value, whatever that of this process is."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def init_process_group() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` has started with this one, until the end; alone where it has started none.

    Raises LostProcessError where another process is gone.
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
            "said, and start all of them again with --resume"
        ) from error
    finally:
        dist.destroy_process_group()


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that a message to or from another process did not get through."""
    text = str(error).lower()
    return any(sign in text for sign in ("connection closed by peer", "connection reset", "timed out", "broken pipe"))
