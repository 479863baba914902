"""Grids of times at which a sampler calls the network, for any schedule.

A grid is a function of the schedule and the number of calls that returns the times of the calls,
``[steps]``, strictly decreasing. The sampler adds the way from the last of them to clean data.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from diffusion_labs.compilation import constant
from diffusion_labs.schedules.schedule import Schedule
from diffusion_labs.schedules.variance_exploding_schedule import EDMSchedule

Grid = Callable[[Schedule, int], Tensor]

LEAST_LOG_SNR = -2 * math.log(80)  # sigma / alpha = 80, EDM's largest noise


@constant
def grid_times(schedule: Schedule, grid: Grid, grid_id: int, eval_steps: int | None, start: float | None) -> Tensor:
    """The times of a sampler's calls, from ``start`` or the last time; every step if ``eval_steps`` is ``None``.

    ``grid_id`` is ``id(grid)``: by themselves, two functions with the same code are one to ``torch.compile``.

    Raises:
        ValueError: if the grid is not strictly decreasing within the schedule, or ``start`` is not in it.
    """
    if eval_steps is None:
        times = all_steps(schedule)
    elif isinstance(eval_steps, str) or eval_steps != round(eval_steps) or eval_steps < 1:
        raise ValueError(f"eval_steps ({eval_steps!r}) must be a whole number, at least 1")
    else:
        times = grid(schedule, eval_steps)

    inside = bool(times[0] <= schedule.terminal) and bool(times[-1] > schedule.clean)
    if not inside or bool((times.diff() >= 0).any()):
        raise ValueError(
            f"{getattr(grid, '__name__', 'the grid')} with eval_steps={eval_steps} does not give "
            f"strictly decreasing times in ({schedule.clean:g}, {schedule.terminal:g}]; "
            "use fewer steps"
        )
    if start is None:
        return times
    if not schedule.clean < start <= schedule.terminal:
        raise ValueError(f"start ({start}) must be in ({schedule.clean:g}, {schedule.terminal:g}]")
    first = schedule.snap(torch.tensor([start], dtype=torch.float64, device="cpu"))
    return torch.cat([first, times[times < first]])


def default_grid(schedule: Schedule) -> Grid:
    """``trailing``; for ``EDMSchedule``, whose time is its noise, ``karras``, with which it was published."""
    return karras if isinstance(schedule, EDMSchedule) else trailing


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

    def space(low: Tensor, high: Tensor, count: int) -> Tensor:
        root = torch.lerp(torch.exp(-low / (2 * rho)), torch.exp(-high / (2 * rho)), _ramp(count))
        return -2 * rho * root.log()

    return between_ends(schedule, steps, space)


def karras_flow(schedule: Schedule, steps: int, rho: float = 3.0) -> Tensor:
    """Evenly spaced in ``u^(1 / rho)``, ``u = sigma / (alpha + sigma)``: ``karras`` in the time of rectified flow.

    Little is spent on noise that hides everything, where u is nearly 1.
    """

    def space(low: Tensor, high: Tensor, count: int) -> Tensor:
        root = torch.lerp((-low / 2).sigmoid() ** (1 / rho), (-high / 2).sigmoid() ** (1 / rho), _ramp(count))
        return -2 * (root**rho).logit()

    return between_ends(schedule, steps, space)


def uniform_log_snr(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced in log-SNR (DPM-Solver, arXiv 2206.00927, Sec. 3.4): ``exponential`` with rho = 1."""
    return exponential(schedule, steps)


def exponential(schedule: Schedule, steps: int, rho: float = 1.0) -> Tensor:
    """``log(sigma / alpha)`` falls as ``(1 - u)^rho``, u even in [0, 1] (k-diffusion's polyexponential schedule).

    rho above 1 puts more steps at little noise. With many steps and a large rho the last of them can
    be too close to tell apart, which the sampler refuses.
    """
    if not rho > 0:
        raise ValueError(f"rho ({rho}) must be positive")
    return between_ends(schedule, steps, lambda low, high, count: torch.lerp(low, high, 1 - (1 - _ramp(count)) ** rho))


def at_times(times: Sequence[float]) -> Grid:
    """A grid of given times: ``Sampler(..., eval_steps=3, grid=at_times([999, 500, 10]))``.

    Args:
        times: strictly decreasing, within the range of the schedule; ``eval_steps`` must be their number.

    Raises:
        ValueError: if ``times`` is empty or not strictly decreasing; from the grid, if the number or the range
            do not fit.
    """
    given = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if given.ndim != 1 or len(given) == 0 or not bool((given.diff() < 0).all()):
        raise ValueError(f"times must be a list of strictly decreasing times; got {times}")
    return partial(given_times, tuple(given.tolist()))  # numbers, which a graph takes as constant


def given_times(given: tuple[float, ...], schedule: Schedule, steps: int) -> Tensor:
    """The grid of ``at_times``."""
    times = torch.tensor(given, dtype=torch.float64, device="cpu")
    if steps != len(times):
        raise ValueError(f"at_times has {len(times)} times, not eval_steps={steps}; give eval_steps={len(times)}")
    if times[0] > schedule.terminal or times[-1] <= schedule.clean:
        raise ValueError(
            f"at_times goes from {times[0]:g} to {times[-1]:g}, but the times of {type(schedule).__name__} are in "
            f"({schedule.clean:g}, {schedule.terminal:g}]; leave out what is beyond, and clean data"
        )
    snapped = schedule.snap(times)
    return snapped if torch.equal(snapped.double(), times) else times


def between_ends(schedule: Schedule, steps: int, space: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
    """From the last time to the first by log-SNR: ``space(low, high, count)`` places the calls, at fractional times.

    Where the last time has zero SNR, the others are placed as if it had ``LEAST_LOG_SNR``.
    """
    ends = torch.tensor([schedule.terminal, schedule.first], dtype=torch.float64, device="cpu")
    low, high = schedule.log_snr(ends)
    times = schedule.time(space(low.clamp(min=LEAST_LOG_SNR) if low.isinf() else low, high, steps))
    times[:1] = schedule.terminal  # not a rounding error beside it, nor what stood for it
    return times


def _ramp(steps: int) -> Tensor:
    """From 0 to 1, both included."""
    return _count(steps) / max(1, steps - 1)


def _count(steps: int) -> Tensor:
    return torch.arange(steps, dtype=torch.float64, device="cpu")
