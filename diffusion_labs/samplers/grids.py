"""Grids of times at which a sampler calls the network, for any schedule.

A grid is a function of the schedule and the number of calls that returns the times of the calls,
``[steps]``, strictly decreasing. The sampler adds the way from the last of them to clean data.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_labs.schedules.schedule import Schedule

Grid = Callable[[Schedule, int], Tensor]

LEAST_LOG_SNR = -2 * math.log(80)  # sigma / alpha = 80, EDM's largest noise


def all_steps(schedule: Schedule, steps: int | None = None) -> Tensor:
    """Every step of a discrete schedule: T - 1, ..., 1, 0."""
    if schedule.resolution == 0:
        raise ValueError(f"{type(schedule).__name__} is continuous and has no list of steps; give eval_steps")
    count = round((schedule.terminal - schedule.first) / schedule.resolution) + 1
    if steps is not None and steps != count:
        raise ValueError(f"all_steps makes {count} calls, not eval_steps={steps}; use trailing instead")
    return linspace(schedule, count)


def trailing(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced back from the last time: 999, 899, ..., 99. It always starts from pure noise."""
    span = schedule.terminal - schedule.clean
    exact = span * (steps - _count(steps)) / steps
    exact[0] = span  # not a rounding error beside it
    from_clean = schedule.snap(exact)  # rounded as in arXiv 2305.08891, Table 2
    return (from_clean + schedule.clean).to(from_clean.dtype)


def leading(schedule: Schedule, steps: int, offset: float = 0.0) -> Tensor:
    """Evenly spaced from the first time: 900, ..., 100, 0, plus ``offset`` (1 in Stable Diffusion).

    It does not reach the last time, so sampling starts from more noise than the network is told.
    """
    stride = (schedule.terminal - schedule.clean) / steps
    stride -= stride % schedule.resolution if schedule.resolution else 0
    return schedule.snap(schedule.first + offset + stride * _count(steps).flip(0))


def linspace(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced from the last time to the first, both included: 999, 888, ..., 0."""
    if steps == 1:
        return trailing(schedule, steps)
    stride = (schedule.terminal - schedule.first) / (steps - 1)
    return schedule.snap(schedule.first + stride * _count(steps).flip(0))


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Tensor:
    """Evenly spaced in ``(sigma / alpha)^(1 / rho)`` (EDM, arXiv 2206.00364, Eq. 5): more steps at little noise."""
    return _between(schedule, steps, lambda log_snr: torch.exp(-log_snr / (2 * rho)), lambda r: -2 * rho * r.log())


def uniform_log_snr(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced in log-SNR (DPM-Solver, arXiv 2206.00927, Sec. 3.4); in log sigma: "exponential"."""
    return _between(schedule, steps, lambda log_snr: log_snr, lambda log_snr: log_snr)


def _between(
    schedule: Schedule, steps: int, forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]
) -> Tensor:
    """From the last time to the first, evenly spaced in a function of log-SNR, at fractional times.

    Where the last time has zero SNR, it is the first of the grid, and the others go from ``LEAST_LOG_SNR`` on.
    """
    ends = torch.tensor([schedule.terminal, schedule.first], dtype=torch.float64, device="cpu")
    low, high = schedule.log_snr(ends)
    endless = bool(low.isinf())
    low = low.clamp(min=LEAST_LOG_SNR) if endless else low
    share = _count(steps - endless) / max(1, steps - 1 - endless)
    spaced = torch.lerp(forward(low), forward(high), share)
    times = schedule.time(inverse(spaced))
    if not endless:
        times[:1] = schedule.terminal  # not a rounding error beside it
    return torch.cat([ends[:1], times]) if endless else times


def _count(steps: int) -> Tensor:
    return torch.arange(steps, dtype=torch.float64, device="cpu")
