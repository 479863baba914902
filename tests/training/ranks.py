"""Processes that are joined, for tests."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def on_ranks(count: int, work: Callable[..., None], *words: Any) -> list[str]:
    """Call a function of a module with some words on each of several processes; what each has told, or how it failed.

    That is the last line of an error, else what was printed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    call = f"from {work.__module__} import {work.__name__} as work; work(*{[str(word) for word in words]})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", call],
            env={**os.environ, "PYTHONPATH": os.getcwd(), **together, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    told = [process.communicate(timeout=200) for process in processes]
    return [
        out if process.returncode == 0 else error.strip().splitlines()[-1]
        for process, (out, error) in zip(processes, told, strict=True)
    ]
