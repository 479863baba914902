"""Peak memory of a training step, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.plan_memory import GIVEN_BACK, resident
from benchmarks.speed.libraries import LIBRARIES
from benchmarks.speed.sizes import Sizes, trainer


def peak_memory(library: str, sizes: Sizes, batch_size: int, threads: int) -> int:
    """The bytes by which the resident memory of a process grows at the most in two training steps.

    With weights, gradients and the optimiser's state, without code. Freed memory goes back to the system at once, so
    that this is the memory of the tensors that live at the same time.
    """
    environment = {**os.environ, **GIVEN_BACK, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.speed.memory", library, json.dumps(asdict(sizes)), str(batch_size)]
    return int(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def train_twice(library: str, sizes: Sizes, batch_size: int) -> None:
    """Two steps."""
    step = trainer(LIBRARIES[library], LIBRARIES[library].network(sizes), sizes, batch_size)
    step()
    step()


def growth(call: Callable[[], object]) -> int:
    """The bytes by which the resident memory of this process grows at the most during a call; on Linux alone."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    before = resident()
    call()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 - before


if __name__ == "__main__":  # the process that is measured
    name, sizes, count = sys.argv[1], Sizes(**json.loads(sys.argv[2])), int(sys.argv[3])
    train_twice(name, replace(sizes, size=8), 1)  # loads code
    print(growth(lambda: train_twice(name, sizes, count)))
