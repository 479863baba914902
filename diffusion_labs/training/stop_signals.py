"""Signals that ask the training to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):  # noqa: N818 (not an error)
    """Training was asked to stop by a signal; the state of the last update is saved.

    Attributes:
        signal: the number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that becomes true when SIGINT or SIGTERM arrives; a second signal acts as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number in numbers:
            signal.signal(number, before[number])
