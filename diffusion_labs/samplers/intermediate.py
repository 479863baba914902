"""Noise levels between those of the grid."""

import torch

from diffusion_labs.schedules.noise_level import Coefficient, NoiseLevel
from diffusion_labs.schedules.schedule import Schedule


def midpoint(schedule: Schedule, t: NoiseLevel, s: NoiseLevel) -> NoiseLevel:
    """The noise level halfway between t and s in log-SNR, both finite."""
    return between(schedule, t, s, 1 / 2)


def between(schedule: Schedule, t: NoiseLevel, s: NoiseLevel, share: float) -> NoiseLevel:
    """The noise level after a share of the way from t to s in log-SNR, both finite."""
    return level_of(schedule, t.log_snr + share * (s.log_snr - t.log_snr), t)


def middle_of_time(schedule: Schedule, t: NoiseLevel, s: NoiseLevel) -> NoiseLevel:
    """The noise level halfway between t and s in time, where a discrete schedule may have no step."""
    return schedule.levels(((t.t + s.t) / 2)[None])[0]


def level_of(schedule: Schedule, log_snr: Coefficient, like: NoiseLevel) -> NoiseLevel:
    """The noise level with a given log-SNR, on the device of ``like``."""
    value = torch.tensor([log_snr], dtype=torch.float64)
    return schedule.levels(schedule.time(schedule.on(like.t.device, value)))[0]
