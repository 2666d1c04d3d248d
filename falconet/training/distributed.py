"""Many processes that train one network, as `torchrun` starts them: who is who, and what they tell each other.

Each takes its part of every batch; torch's DistributedDataParallel averages the gradients (Li et al.: PyTorch
distributed. VLDB, 2020), and batch normalization sees all parts together. The first process leads: it alone reads
checkpoints, writes, and reports.
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

T = TypeVar("T")

PATIENCE = timedelta(minutes=2)
"""For which a process waits for another within a step. Where a process was killed, its system says so at once; where a
host can no longer be reached, nobody does."""


@dataclass(frozen=True)
class Team:
    """One of `size` processes; alone, it has nobody to tell anything."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    """In which steps are taken; what takes longer, such as reading data, is waited for in torch's own for all."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a network whose backward pass averages gradients over the team, and whose batch normalization sees all
        of a batch; alone, the network itself. It has the very modules and weights of `model`.
        """
        if self.size == 1:
            return model
        self.meet()
        return SynchronizedParallel(model, process_group=self.group)

    def meet(self) -> None:
        """Wait until all processes have come here, however long one of them reads or writes."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))

    def add_up(self, values: Sequence[float]) -> list[float]:
        """Return the sums of all processes' values, the same for each."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        sums: list[float] = total.tolist()
        return sums

    def hear(self, value: T) -> T:
        """Return the leader's value, whatever that of this process is."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


ALONE = Team()


@contextmanager
def join_team() -> Iterator[Team]:
    """Join the processes that `torchrun` has started with this one, until the end; alone where it has started none.

    Raises LostProcessError where another process is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    group = dist.new_group(timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), group)
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
