"""The processes of a run, which torchrun has started, or one alone."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Which process this is, of how many.

    Attributes:
        rank: from 0.
        size: number of processes.
        tensor: how many of them, neighbours, compute each batch together, with a part of the layers each.
    """

    rank: int = 0
    size: int = 1
    tensor: int = 1

    @property
    def data_rank(self) -> int:
        """Which group this process is in, that has batches of its own; from 0."""
        return self.rank // self.tensor

    @property
    def data_size(self) -> int:
        """The number of these groups."""
        return self.size // self.tensor

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means of scalars over the processes, of which each has the same names."""
        if self.size == 1 or not values:
            return dict(values)
        total = torch.stack([value.detach().double() for value in values.values()])
        torch.distributed.all_reduce(total)
        return dict(zip(values, total / self.size, strict=True))

    def gather(self, value: T) -> list[T]:
        """What each group has, which its processes have alike, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values[:: self.tensor]

    def from_first(self, value: T) -> T:
        """What the first process has."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Go on when all processes are here, for which one may be a day late."""
        if self.size > 1:
            group = torch.distributed.new_group(timeout=timedelta(days=1))
            torch.distributed.barrier(group)
            torch.distributed.destroy_process_group(group)


def is_distributed() -> bool:
    """Whether processes are joined."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def current_world() -> World:
    """The processes that are joined now."""
    if is_distributed():
        return World(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return World()


@contextmanager
def joined(device: str = "cpu", *, timeout: float = 30.0) -> Iterator[World]:
    """Join the processes that torchrun has started, over NCCL on GPUs, else over gloo; one alone without torchrun.

    Those that are joined already stay so.

    Args:
        device: where they compute.
        timeout: minutes after which one that waits for another gives up.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or current_world().size > 1:
        yield current_world()
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(minutes=timeout))
    try:
        yield current_world()
    finally:
        torch.distributed.destroy_process_group()


def local_device(name: str) -> str:
    """The device of this process: of several on a machine, each has a GPU of its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and "LOCAL_RANK" in os.environ else name
