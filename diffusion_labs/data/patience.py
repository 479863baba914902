"""Errors that pass: of the system and not of the data."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from diffusion_labs.data.errors import UnavailableError
from diffusion_labs.data.remote_file import PAUSES

T = TypeVar("T")
OF_SYSTEM = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOBUFS", "ENODEV", "ENOLCK", "ENOMEM", "ENXIO"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET"),
        *("ENETUNREACH", "ENOTCONN", "EPIPE", "EREMOTEIO", "ESHUTDOWN", "ESTALE", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)


def is_of_system(error: Exception) -> bool:
    """Whether an error says nothing about a file: no handles, no memory, a disk or a server that does not answer."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in OF_SYSTEM)


def patiently(read: Callable[[], T]) -> T:
    """What ``read`` returns, after some attempts where data cannot be reached."""
    for pause in PAUSES:
        try:
            return read()
        except UnavailableError:
            time.sleep(pause)
    return read()
