"""Schedules: how much signal and how much noise there is at each time."""

from diffusion_labs.schedules.adaptive_density import AdaptiveDensity, AdaptiveLogSNR, LossSecondMoment
from diffusion_labs.schedules.betas import (
    cosine_beta_schedule,
    linear_beta_schedule,
    quadratic_beta_schedule,
    rescale_zero_terminal_snr,
    scaled_linear_beta_schedule,
    sigmoid_beta_schedule,
)
from diffusion_labs.schedules.density import Density, UniformTime
from diffusion_labs.schedules.density_schedule import DensitySchedule, LaplaceSchedule
from diffusion_labs.schedules.discrete_gaussian_schedule import DiscreteGaussianSchedule
from diffusion_labs.schedules.log_snr_density import (
    CauchyLogSNR,
    LaplaceLogSNR,
    LogisticLogSNR,
    LogSNRDensity,
    ModeLogSNR,
    NormalLogSNR,
    SechLogSNR,
    SymmetricLogSNR,
    UniformLogSNR,
)
from diffusion_labs.schedules.log_snr_schedule import CosineSchedule, LogSNRSchedule
from diffusion_labs.schedules.noise_level import NoiseLevel, Posterior, Transition, posterior, transition
from diffusion_labs.schedules.rectified_flow_schedule import RectifiedFlowSchedule
from diffusion_labs.schedules.schedule import ContinuousSchedule, Schedule
from diffusion_labs.schedules.time_maps import CosineTimeMap, LinearTimeMap, LogitNormalTimeMap, TimeMap
from diffusion_labs.schedules.variance_exploding_schedule import EDMSchedule, VarianceExplodingSchedule
from diffusion_labs.schedules.variance_preserving_schedule import VariancePreservingSchedule

__all__ = [
    "ContinuousSchedule",
    "CosineSchedule",
    "DensitySchedule",
    "EDMSchedule",
    "LaplaceSchedule",
    "LogSNRSchedule",
    "RectifiedFlowSchedule",
    "VarianceExplodingSchedule",
    "VariancePreservingSchedule",
    "DiscreteGaussianSchedule",
    "AdaptiveDensity",
    "AdaptiveLogSNR",
    "CauchyLogSNR",
    "Density",
    "LaplaceLogSNR",
    "LogSNRDensity",
    "LogisticLogSNR",
    "LossSecondMoment",
    "ModeLogSNR",
    "NormalLogSNR",
    "SechLogSNR",
    "SymmetricLogSNR",
    "UniformLogSNR",
    "UniformTime",
    "CosineTimeMap",
    "LinearTimeMap",
    "LogitNormalTimeMap",
    "TimeMap",
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
