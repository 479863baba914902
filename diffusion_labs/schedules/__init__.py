"""Schedules: how much signal and how much noise there is at each time."""

from diffusion_labs.schedules.betas import (
    cosine_beta_schedule,
    linear_beta_schedule,
    quadratic_beta_schedule,
    rescale_zero_terminal_snr,
    scaled_linear_beta_schedule,
    sigmoid_beta_schedule,
)
from diffusion_labs.schedules.discrete_gaussian_schedule import DiscreteGaussianSchedule
from diffusion_labs.schedules.noise_level import NoiseLevel, Posterior, Transition, posterior, transition
from diffusion_labs.schedules.schedule import Schedule

__all__ = [
    "DiscreteGaussianSchedule",
    "NoiseLevel",
    "Posterior",
    "Schedule",
    "Transition",
    "cosine_beta_schedule",
    "linear_beta_schedule",
    "posterior",
    "quadratic_beta_schedule",
    "rescale_zero_terminal_snr",
    "scaled_linear_beta_schedule",
    "sigmoid_beta_schedule",
    "transition",
]
