"""What the guidance adapters share: the outputs of several passes become one, at some of the noise levels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.adapters.combinations import Combine
from diffusion_labs.adapters.guidance_interval import GuidanceInterval
from diffusion_labs.compilation import constant
from diffusion_labs.output import DiffusionOutput

WRONG_IN_INFERENCE_MODE = torch.__version__ < "2.13"  # derivatives of torch.func, without a word


def check_differentiable() -> None:
    """Raise a ``RuntimeError`` where this version of PyTorch gives wrong derivatives."""
    if WRONG_IN_INFERENCE_MODE and torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"torch.func of PyTorch {torch.__version__} gives wrong derivatives in inference mode; sample in "
            "torch.no_grad(), or with PyTorch 2.13"
        )


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
    guided: Callable[..., DiffusionOutput],
    plain: Callable[..., DiffusionOutput],
    x: Tensor,
    timestep: Tensor,
    *conditions: Mapping[str, Tensor],
) -> DiffusionOutput:
    """The guided output inside of the interval, the plain one outside; both only where samples differ.

    Args:
        interval: everywhere if ``None``.
        guided: ``guided(x, timestep, *conditions)``, with ``plain=`` the plain output where that is made already.
        plain: ``plain(x, timestep, conditions)``: one pass, with the first of them.
        x: see ``ConditionalModule``.
        timestep: likewise.
        *conditions: for the passes.
    """
    if interval is None:
        return guided(x, timestep, *conditions)
    inside = interval(timestep)
    if torch.compiler.is_compiling():
        output = plain(x, timestep, conditions[0])
        return (branch if may_branch() else chosen)(inside, guided, output, x, timestep, *conditions)
    if bool(inside.all()):
        return guided(x, timestep, *conditions)
    output = plain(x, timestep, conditions[0])
    return chosen(inside, guided, output, x, timestep, *conditions) if bool(inside.any()) else output


@constant
def may_branch() -> bool:
    """Whether the graph that is traced may branch: with ``dynamic=True`` a branch may read no float, as networks do."""
    return bool(torch._dynamo.config.assume_static_by_default)


def chosen(
    inside: Tensor, guided: Callable[..., DiffusionOutput], plain: DiffusionOutput, *inputs: Any
) -> DiffusionOutput:
    """The guided output for the samples inside, the plain one for the others."""
    return choose(inside, guided(*inputs, plain=plain), plain)


def branch(
    inside: Tensor,
    guided: Callable[..., DiffusionOutput],
    plain: DiffusionOutput,
    x: Tensor,
    timestep: Tensor,
    *conditions: Mapping[str, Tensor],
) -> DiffusionOutput:
    """``chosen`` in a graph that makes the passes of the guided output only where a sample is inside.

    A branch takes no views, and gives tensors alone, none that it got. Both ways of it have the same fields.
    """
    apart = [{name: value.clone() for name, value in each.items()} for each in conditions]
    known = DiffusionOutput._make([None if value is None else value.clone() for value in plain])
    inputs = (x.clone(), timestep.clone(), *apart)

    def inner() -> list[Tensor]:
        return [value for value in chosen(inside, guided, known, *inputs) if value is not None]

    def outer() -> list[Tensor]:
        return [value.clone() for value in known if value is not None]

    names = [name for name, value in plain._asdict().items() if value is not None]
    values = torch.cond(inside.any(), inner, outer, ())
    return DiffusionOutput(**dict(zip(names, values, strict=True)))


def choose(inside: Tensor, guided: DiffusionOutput, plain: DiffusionOutput) -> DiffusionOutput:
    """Each sample from one of two outputs."""
    if guided.renoise_prediction is not None or plain.renoise_prediction is not None:
        guided, plain = (output._replace(renoise_prediction=renoising(output)) for output in (guided, plain))
    fields = zip(guided, plain, strict=True)
    return DiffusionOutput._make(
        [
            None if g is None or p is None else torch.where(inside.reshape(-1, *[1] * (g.ndim - 1)), g, p)
            for g, p in fields
        ]
    )
