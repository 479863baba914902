"""An ordinary differential equation for each sample of a batch, to a given accuracy."""

from collections.abc import Callable

import torch
from torch import Tensor

# Dormand and Prince, "A family of embedded Runge-Kutta formulae", 1980: RK5(4)7M. The last row is the solution.
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # fifth order minus fourth

SAFETY, SLOWEST, FASTEST = 0.9, 0.2, 5.0  # of the change of a step (Hairer, Norsett, Wanner, Sec. II.4)


def integrate(
    slope: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    start: Tensor,
    end: Tensor,
    *,
    rtol: float,
    atol: float,
    max_steps: int = 10_000,
) -> Tensor:
    """Solve ``dy / du = slope(y, u)`` from ``start`` to ``end`` with the fifth-order pair of Dormand and Prince.

    Every sample has its own steps, so its result does not depend on its batch. A step is accepted if the root mean
    square of its estimated error, in units of ``atol + rtol |y|``, is at most 1. Six calls a step.

    Args:
        slope: of y ``[b, ...]`` at u ``[b]``.
        y: ``[b, ...]``, at ``start``.
        start: ``[]``.
        end: ``[]``, before or after ``start``.
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_steps: steps after which to give up.

    Raises:
        ValueError: if the slope is not finite, or the tolerance is not reached in ``max_steps``.
    """
    shape = [-1] + [1] * (y.ndim - 1)
    u = start.expand(len(y)).clone()
    h = (end - start).expand(len(y))
    first = slope(y, u)

    for _ in range(max_steps):
        left = end - u
        last = h.abs() >= left.abs()
        h = torch.where(last, left, h)
        step = h.reshape(shape).to(y.dtype)
        slopes = [first]
        for row in STAGES:
            stage = y + step * sum(a * k for a, k in zip(row, slopes, strict=True))
            slopes.append(slope(stage, u + sum(row) * h))

        scale = atol + rtol * torch.maximum(y.abs(), stage.abs())
        error = step * sum(e * k for e, k in zip(ERROR, slopes, strict=True)) / scale
        error = error.flatten(1).square().mean(1).sqrt().to(u)
        if not bool(error.isfinite().all()):
            raise ValueError(f"the slope is not finite near u = {u.tolist()}: does the model return NaN?")

        accepted = error <= 1
        y, first = (torch.where(accepted.reshape(shape), a, b) for a, b in ((stage, y), (slopes[-1], first)))
        u = torch.where(accepted, torch.where(last, end, u + h), u)
        if bool((u == end).all()):
            return y
        h = h * (SAFETY * error.clamp(min=1e-10) ** (-1 / 5)).clamp(SLOWEST, FASTEST)
    raise ValueError(f"rtol={rtol} and atol={atol} are not reached in {max_steps} steps; raise them")
