"""Which process hangs, when all wait."""

import sys
import threading
import time
from typing import Any

import torch.distributed

from diffusion_labs.training.world import World

PATIENCE = 0.8  # of the timeout, after which others would have given up


class Heartbeat:
    """Tells which processes are behind when this one has not gone on for long.

    A process that hangs, or whose machine does, is silent, and the others only say that an exchange took too long. So a
    thread of each puts the number of exchanges that it has begun into the store by which the processes found each
    other, where the others read it.

    Args:
        world: the processes.
        timeout: minutes after which one that waits for another gives up.
    """

    def __init__(self, world: World, timeout: float) -> None:
        self.world = world
        self.patience = 60 * timeout * PATIENCE
        self.last = time.monotonic()
        self.step = 0
        self.left = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Heartbeat":
        if self.world.size > 1:
            self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.left.set()

    def beat(self, step: int) -> None:
        """This process has come to an update."""
        self.step, self.last = step, time.monotonic()

    def _watch(self) -> None:
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        keys = [f"exchanges-{rank}" for rank in range(self.world.size)]
        pause = self.patience / 20
        while not self.left.wait(pause):
            if time.monotonic() - self.last < self.patience:
                continue
            store.set(keys[self.world.rank], str(exchanges()))
            if not self.left.wait(2 * pause):  # for the others to tell theirs
                told = {rank: int(store.get(key)) for rank, key in enumerate(keys) if store.check([key])}
                print(self._report(told), file=sys.stderr, flush=True)
            return

    def _report(self, told: dict[int, int]) -> str:
        """Who is behind, or silent."""
        silent = [rank for rank in range(self.world.size) if rank not in told]
        behind = [rank for rank, count in told.items() if count < max(told.values())]
        waits = f"process {self.world.rank} has been at update {self.step} for {time.monotonic() - self.last:.0f} s"
        causes = [
            f"{what} process {', '.join(map(str, ranks))}"
            for what, ranks in (("nothing is heard of", silent), ("behind the others is", behind))
            if ranks
        ]
        return f"{waits}: {' and '.join(causes) or 'all have come as far; look at the network between them'}"


def exchanges() -> int:
    """How many exchanges with other processes this one has begun."""
    groups: Any = torch.distributed.distributed_c10d._world.pg_map
    return sum(group._get_sequence_number_for_group() for group in groups)
