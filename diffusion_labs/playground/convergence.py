"""How far a picture is from the one with many steps."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event

from torch import Tensor

from diffusion_labs.playground.painting import Subject, distance, paint
from diffusion_labs.playground.request import Request

STEPS = (2, 4, 8, 16, 32)
MANY = 128


def errors(subject: Subject, request: Request, stopped: Event | None = None) -> Iterator[tuple[int, float]]:
    """Calls of the network, and how far the pictures then are from those of ``MANY`` steps and the same noise.

    Args:
        subject: is not changed.
        request: its steps are not read: there are those of ``STEPS``.
        stopped: see ``paint``.

    Raises:
        ValueError: for a request that cannot be drawn, or is too large.
        Stopped: when ``stopped`` is set.
    """
    best = last(subject, replace(request, steps=MANY), stopped)
    for steps in STEPS:
        asked = replace(request, steps=steps)
        error = distance(last(subject, asked, stopped), best)
        yield asked.calls(subject.model, subject.sizes, subject.most_work), error


def last(subject: Subject, request: Request, stopped: Event | None = None) -> Tensor:
    """The finished pictures."""
    *_, images = paint(subject, request, stopped=stopped)
    return images
