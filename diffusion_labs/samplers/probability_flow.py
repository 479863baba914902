"""The probability flow of any schedule in one bounded variable, the angle of its noise level.

With ``phi = atan(sigma / alpha)`` and ``z = x_t / sqrt(alpha^2 + sigma^2) = cos(phi) x0 + sin(phi) eps``, the flow
``d(x / alpha) = eps d(sigma / alpha)`` (EDM, arXiv 2206.00364, Eq. 1 and 4) of every schedule is
``dz / dphi = cos(phi) eps - sin(phi) x0``: v of arXiv 2202.00512, App. D. It is finite from clean data, phi = 0, to
pure noise, phi = pi / 2.
"""

import math

import torch
from torch import Tensor

from diffusion_labs.schedules.noise_level import NoiseLevel
from diffusion_labs.schedules.schedule import Schedule


def angle(level: NoiseLevel) -> Tensor:
    """``phi``, float64: ``[]``, or the shape of the level's coefficients."""
    alpha, sigma = (torch.as_tensor(value, dtype=torch.float64) for value in (level.alpha, level.sigma))
    return torch.atan2(sigma, alpha)


def level_at(schedule: Schedule, phi: Tensor, like: Tensor) -> NoiseLevel:
    """The noise level of each sample's angle ``[b]``, shaped to multiply ``like``, ``[b, ...]``."""
    return schedule.at(schedule.time(-2 * phi.tan().clamp(min=math.exp(-700)).log()), like)


def amplitude(level: NoiseLevel) -> Tensor | float:
    """``sqrt(alpha^2 + sigma^2)``, which makes z of x_t."""
    return (level.alpha**2 + level.sigma**2) ** 0.5


def velocity(x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
    """``dz / dphi = cos(phi) eps - sin(phi) x0``."""
    return (level.alpha * eps - level.sigma * x0) / amplitude(level)
