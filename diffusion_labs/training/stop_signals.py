"""Signals that ask the training to stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
ONE_PRESS = 1.0  # seconds in which SIGINT may arrive more than once: from the terminal, and from a launcher


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
    """A list that becomes true when SIGINT, SIGTERM, SIGHUP or SIGUSR1 arrives.

    Repeats change nothing, as schedulers and launchers send one each; only a SIGINT later than a second after the first
    acts as usual. Signals that are ignored, as SIGHUP under nohup, stay so.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    pressed: list[float] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if number == signal.SIGINT:
            pressed.append(time.monotonic())
            if pressed[-1] - pressed[0] > ONE_PRESS:
                signal.signal(number, before[number])
                signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
