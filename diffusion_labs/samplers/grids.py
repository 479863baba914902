"""Grids of times at which a sampler calls the network, for any schedule.

A grid is a function of the schedule and the number of calls that returns the times of the calls,
``[steps]``, strictly decreasing. The sampler adds the way from the last of them to clean data.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_labs.schedules.schedule import Schedule

Grid = Callable[[Schedule, int], Tensor]


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
    stride = (schedule.terminal - schedule.clean) / steps
    return schedule.snap(schedule.terminal - stride * _count(steps))


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
    return schedule.snap(torch.linspace(schedule.terminal, schedule.first, steps, dtype=torch.float64, device="cpu"))


def _count(steps: int) -> Tensor:
    return torch.arange(steps, dtype=torch.float64, device="cpu")
