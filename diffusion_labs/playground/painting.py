"""Pictures as they grow."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.playground.request import Request, too_much
from diffusion_labs.recipes.drawing import draw, guide_prior
from diffusion_labs.recipes.known import Known, know
from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.recipes.variants import shared_copy
from diffusion_labs.samplers import Sampler


@dataclass(frozen=True)
class Subject:
    """What is played with.

    Attributes:
        model: what ``sizes.build`` returned, trained. It is never changed: every request has a copy of its structure.
        sizes: of the model.
        source: where it came from.
        most_work: calls of the network, times pictures, of one request.
    """

    model: nn.Module
    sizes: ModelSizes
    source: str
    most_work: int = 4000

    @property
    def inpaints(self) -> bool:
        """Whether a part of a picture can be known: where one sampler makes it all."""
        return not hasattr(self.model, "upsamplers")

    @property
    def has_prior(self) -> bool:
        """Whether a prior, with a guidance of its own, comes before the pictures."""
        return hasattr(self.model, "prior")


class Stopped(Exception):  # noqa: N818 (not an error)
    """Nobody waits for the pictures any more."""


def paint(
    subject: Subject, request: Request, known: Known | None = None, stopped: threading.Event | None = None
) -> Iterator[Tensor]:
    """The model's estimate of the pictures at each call of the network, ``[n, c, h, w]``; the last are the pictures.

    The last are those of ``draw``, bit for bit. Sampling happens in a thread, which ends when the iterator is closed.

    Args:
        subject: is not changed.
        request: what to draw.
        known: what is kept.
        stopped: ends it at the next call of a network.

    Raises:
        ValueError: for a request that cannot be drawn, or is too large.
        Stopped: when ``stopped`` is set.
    """
    request.check(subject.model, subject.sizes, subject.most_work)
    frames: SimpleQueue[Tensor | Exception | None] = SimpleQueue()
    abandoned = threading.Event()

    def go_on(*_: Any) -> None:
        if abandoned.is_set() or (stopped is not None and stopped.is_set()):
            raise Stopped

    def work() -> None:
        try:
            frames.put(_drawn(subject, request, known, frames, go_on))
            frames.put(None)
        except Exception as error:
            frames.put(error)

    thread = threading.Thread(target=work)  # no daemon: one that is in torch when Python ends aborts the process
    thread.start()
    try:
        while (frame := frames.get()) is not None:
            if isinstance(frame, Exception):
                raise frame
            yield frame
    finally:
        abandoned.set()
        thread.join()


def _drawn(
    subject: Subject,
    request: Request,
    known: Known | None,
    frames: "SimpleQueue[Tensor | Exception | None]",
    go_on: Callable[..., None],
) -> Tensor:
    how = request.how()
    model: Any = shared_copy(subject.model)
    guide_prior(model, request.prior_guidance_scale)
    given: dict[str, Tensor] = {}
    if known is not None:
        given = know(model, subject.sizes, known, request.count)
    for part in model.modules():
        if isinstance(part, Sampler):
            part.model.register_forward_pre_hook(go_on)
    network = subject.sizes.sampler(model).model
    predictor = subject.sizes.sampler(model).predictor
    decode = model.decode if hasattr(model, "autoencoder") else _unchanged
    calls = 0

    def watch(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        nonlocal calls
        calls += 1
        if calls * request.count > subject.most_work:  # of samplers that choose their steps
            raise ValueError(too_much(request, subject.most_work))
        x0, _ = predictor.denoise(output.prediction, arguments[0], arguments[1])
        frames.put(decode(x0).float().clamp(-1, 1).cpu())

    network.register_forward_hook(watch)
    return draw(model, subject.sizes, request.wanted(subject.sizes), **how, known=given)


def _unchanged(x: Tensor) -> Tensor:
    return x


def distance(first: Tensor, second: Tensor) -> float:
    """The root of the mean squared difference of pictures in [-1, 1]."""
    return torch.sqrt(torch.mean((first.double() - second.double()) ** 2)).item()
