"""Peak memory of a training step, in a process of its own."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, replace

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


if __name__ == "__main__":  # the process that is measured
    name, sizes, count = sys.argv[1], Sizes(**json.loads(sys.argv[2])), int(sys.argv[3])
    train_twice(name, replace(sizes, size=8), 1)  # loads code
    before = resident()
    train_twice(name, sizes, count)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
