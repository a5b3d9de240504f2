"""Several processes, one run: what ``torchrun`` starts, each on its own GPU (or CPU in tests).

Every process draws its own places of the same global batch (``data.make_batch``), so the run sees
the same crops however many processes share them. After the backward pass one all-reduce averages
the gradients, BatchNorm's running statistics and the loss. Batch statistics themselves stay those
of a process's own share: give each at least 8 crops.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.errors import UsageError


@dataclass(frozen=True)
class World:
    """This process among its peers. The default is a run of one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process prints, validates and saves."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """This process's places in a global batch.

        Raises ``UsageError`` when the processes cannot share it evenly.
        """
        if batch % self.size:
            raise UsageError(
                f"--batch {batch} cannot be shared by {self.size} processes; "
                f"nearest that can: {max(1, batch // self.size) * self.size}"
            )
        own = batch // self.size
        return range(self.rank * own, (self.rank + 1) * own)

    def average(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Average gradients, running statistics and the loss over all; returns the mean loss."""
        if self.size == 1:
            return loss
        shared = [p.grad for p in model.parameters() if p.grad is not None]
        shared += [b for b in model.buffers() if b.is_floating_point()]
        value = loss.detach().reshape(1).float()
        flat = torch.cat([t.reshape(-1).float() for t in shared] + [value])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for tensor in shared:
            part = flat[start : start + tensor.numel()]
            tensor.copy_(part.view_as(tensor))
            start += tensor.numel()
        return flat[-1]


@contextmanager
def join_world(cuda: bool) -> Iterator[World]:
    """The world that ``torchrun`` describes in the environment; a run of one without it.

    Raises ``UsageError`` where the environment describes none.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield World()
        return
    world = World(_number("RANK", None), size, _number("LOCAL_RANK", 0))
    if not (size > 1 and 0 <= world.rank < size and world.local_rank >= 0):
        raise UsageError(
            f"WORLD_SIZE {size}, RANK {world.rank} and LOCAL_RANK {world.local_rank} describe no "
            "run of several processes",
            hint="start them with torchrun, or unset WORLD_SIZE",
        )
    if cuda:
        torch.cuda.set_device(world.local_rank)
    try:
        dist.init_process_group("nccl" if cuda else "gloo")
    except ValueError as error:  # no or no good MASTER_ADDR, MASTER_PORT
        raise UsageError(
            f"the processes of this run cannot meet: {str(error).splitlines()[0]}",
            hint="start them with torchrun, or unset WORLD_SIZE",
        ) from error
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise UsageError(
            f"{name} '{text}' in the environment is no number",
            hint="start several processes with torchrun, or unset WORLD_SIZE",
        )
    return int(text)
