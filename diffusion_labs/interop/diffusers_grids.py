"""The times of diffusers' ``set_timesteps``, as grids for our samplers.

Where a scheduler of diffusers places noise levels and then rounds or truncates their times to integers,
the network is told another noise level than the solver takes. Here the level is theirs, and the time
is that of the level: a fractional one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_labs.samplers.beta_grid import beta_quantile
from diffusion_labs.samplers.grids import Grid, all_steps
from diffusion_labs.schedules.schedule import Schedule

Place = Callable[[Tensor, Tensor, int], Tensor]  # noise levels from a high to a low one

MOST_NOISE = 2.0**12  # sigma / alpha of diffusers' last step at zero SNR: alpha^2 is set to 2^-24


def karras_levels(high: Tensor, low: Tensor, count: int) -> Tensor:
    """Evenly spaced in the seventh root (EDM, arXiv 2206.00364, Eq. 5)."""
    return torch.lerp(high ** (1 / 7), low ** (1 / 7), _ramp(count)) ** 7


def exponential_levels(high: Tensor, low: Tensor, count: int) -> Tensor:
    """Evenly spaced in the logarithm."""
    return torch.lerp(high.log(), low.log(), _ramp(count)).exp()


def beta_levels(high: Tensor, low: Tensor, count: int) -> Tensor:
    """At quantiles of Beta(0.6, 0.6), of the noise level itself."""
    return torch.lerp(low, high, beta_quantile(1 - _ramp(count), 0.6, 0.6))


def fractional_linspace(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced from the last time to the first, not rounded."""
    return schedule.terminal + (schedule.first - schedule.terminal) * _ramp(steps)


def open_linspace(schedule: Schedule, steps: int, count: int) -> Tensor:
    """Evenly spaced over the first ``count`` times, without time 0."""
    return schedule.snap((count - 1) / steps * _from_one(steps))


def open_leading(schedule: Schedule, steps: int, count: int, offset: int) -> Tensor:
    """Multiples of a whole stride over the first ``count`` times, without time 0, plus ``offset``."""
    return schedule.snap(count // (steps + 1) * _from_one(steps) + offset)


def distilled(schedule: Schedule, steps: int, original: int) -> Tensor:
    """Some of the ``original`` times that a model was distilled at (Latent Consistency Models, arXiv 2310.04378)."""
    if steps > original:
        raise ValueError(f"eval_steps ({steps}) must be at most original_inference_steps ({original})")
    every = all_steps(schedule)
    times = torch.arange(original, 0, -1) * (len(every) // original) - 1
    return times[(original / steps * torch.arange(steps, dtype=torch.float64)).long()]


def placed(schedule: Schedule, steps: int, place: Place, ends: Grid, high: float | None, low: float | None) -> Tensor:
    """Noise levels ``sigma / alpha`` from ``high`` to ``low``, where given, or those of the ends of a grid."""
    times = ends(schedule, steps)[[0, -1]].double()
    noisiest, cleanest = torch.exp(-schedule.log_snr(times) / 2).nan_to_num(posinf=MOST_NOISE)
    levels = place(
        noisiest if high is None else torch.full_like(noisiest, high),
        cleanest if low is None else torch.full_like(cleanest, low),
        steps,
    )
    spaced = schedule.time(-2 * levels.log())
    if high is None:
        spaced[:1] = times[0]  # not a rounding error beside it
    return spaced


def both_ends(schedule: Schedule, steps: int) -> Tensor:
    """The last time and the first."""
    return torch.tensor([schedule.terminal, schedule.first], dtype=torch.float64)


def flow(
    schedule: Schedule,
    steps: int,
    *,
    high: float,
    low: float,
    extra: int,
    shift: float,
    end: float | None,
    place: Place | None,
) -> Tensor:
    """Times of a rectified flow, in this order: even, shifted, stretched to ``end``, placed again.

    ``sigma = shift u / (1 + (shift - 1) u)`` (Stable Diffusion 3, arXiv 2403.03206, Eq. 23), for u from high to
    low in ``steps + extra`` values, of which the first ``steps`` are taken.
    """
    u = (high + (low - high) * _ramp(steps + extra))[:steps]
    sigma = shift * u / (1 + (shift - 1) * u)
    if end and steps > 1:
        sigma = 1 - (1 - sigma) * (1 - end) / (1 - sigma[-1])
    if place:
        sigma = place(sigma[0], sigma[-1], steps)
    return schedule.terminal * sigma.clamp(max=1)


def geometric(schedule: Schedule, steps: int, end: float) -> Tensor:
    """``sigma_min (sigma_max / sigma_min)^u``, u even from 1 to ``end`` (Score SDE, arXiv 2011.13456, App. C)."""
    u = 1 + (end - 1) * _ramp(steps)
    return schedule.terminal * (schedule.first / schedule.terminal) ** (1 - u)


def linspace_to(schedule: Schedule, steps: int, end: float) -> Tensor:
    """Evenly spaced from the last time to ``end``."""
    return schedule.terminal + (end - schedule.terminal) * _ramp(steps)


def _ramp(steps: int) -> Tensor:
    """From 0 to 1, both included."""
    return torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)


def _from_one(steps: int) -> Tensor:
    return torch.arange(steps, 0, -1, dtype=torch.float64)
