"""How far a picture is from the one with many steps."""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from diffusion_labs.playground.painting import Subject, distance, paint
from diffusion_labs.playground.request import Request

STEPS = (2, 4, 8, 16, 32)
MANY = 128


def errors(subject: Subject, request: Request) -> Iterator[tuple[int, float]]:
    """Numbers of steps, and how far the pictures then are from those of ``MANY`` steps and the same noise.

    Args:
        subject: is not changed.
        request: its steps are not read.

    Raises:
        ValueError: for a request that cannot be drawn, or is too large.
    """
    best = last(subject, replace(request, steps=MANY))
    for steps in STEPS:
        yield steps, distance(last(subject, replace(request, steps=steps)), best)


def last(subject: Subject, request: Request) -> Tensor:
    """The finished pictures."""
    *_, images = paint(subject, request)
    return images
