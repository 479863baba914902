"""What the guidance adapters share: the outputs of several passes become one, at some of the noise levels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion_labs.adapters.combinations import Combine
from diffusion_labs.adapters.guidance_interval import GuidanceInterval
from diffusion_labs.output import DiffusionOutput


def guide(
    combine: Combine,
    u: DiffusionOutput,
    conditionals: Sequence[DiffusionOutput],
    scales: Sequence[float],
    x: Tensor,
    timestep: Tensor,
) -> DiffusionOutput:
    """Combine the outputs of the passes, whatever guidance the model has inside.

    A learned variance is the mean of the conditionals'. The prediction that gives the noise, where the model has one of
    its own, is combined as the prediction is.
    """
    prediction = combine(u.prediction, [c.prediction for c in conditionals], scales, x, timestep)
    renoise_prediction = None
    if any(output.renoise_prediction is not None for output in (u, *conditionals)):
        renoise_prediction = combine(renoising(u), [renoising(c) for c in conditionals], scales, x, timestep)
    values = [c.variance_value for c in conditionals if c.variance_value is not None]
    variance_value = torch.stack(values).mean(0) if values else None
    return DiffusionOutput(prediction, variance_value, renoise_prediction=renoise_prediction)


def renoising(output: DiffusionOutput) -> Tensor:
    """The prediction whose noise the next x_s gets."""
    return output.prediction if output.renoise_prediction is None else output.renoise_prediction


def split(output: DiffusionOutput, parts: int) -> list[DiffusionOutput]:
    """The outputs of the passes that one call made together, each as large as the others."""
    fields = [[None] * parts if field is None else field.unflatten(0, (parts, -1)).unbind() for field in output]
    return [DiffusionOutput(*values) for values in zip(*fields, strict=True)]


def within(
    interval: GuidanceInterval | None,
    timestep: Tensor,
    guided: Callable[[], DiffusionOutput],
    plain: Callable[[], DiffusionOutput],
) -> DiffusionOutput:
    """The guided output inside of the interval, the plain one outside; both are made only where samples differ."""
    if interval is None:
        return guided()
    inside = interval(timestep)
    if not torch.compiler.is_compiling():  # a branch on a value would break the graph
        if bool(inside.all()):
            return guided()
        if not bool(inside.any()):
            return plain()
    return choose(inside, guided(), plain())


def choose(inside: Tensor, guided: DiffusionOutput, plain: DiffusionOutput) -> DiffusionOutput:
    """Each sample from one of two outputs."""
    if guided.renoise_prediction is not None or plain.renoise_prediction is not None:
        guided, plain = (output._replace(renoise_prediction=renoising(output)) for output in (guided, plain))
    fields = zip(guided, plain, strict=True)
    return DiffusionOutput._make(
        None if g is None or p is None else torch.where(inside.reshape(-1, *[1] * (g.ndim - 1)), g, p)
        for g, p in fields
    )
