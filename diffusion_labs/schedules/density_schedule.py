"""Variance-preserving processes whose log-SNR has a given density over uniform time."""

import math

import torch
from torch import Tensor

from diffusion_labs.schedules.log_snr_density import LaplaceLogSNR, LogSNRDensity
from diffusion_labs.schedules.log_snr_schedule import LogSNRSchedule


class DensitySchedule(LogSNRSchedule):
    """Log-SNR has a given density over uniform t: ``log_snr(t)`` is its quantile (arXiv 2407.03297, Sec. 3.1).

    With F(log_snr) the share of levels whose log-SNR is higher: ``log_snr(t) = F^-1(u)``, where
    ``u = t F(log_snr_min)``, so that it goes from infinity at t = 0 to ``log_snr_min`` at t = 1. Training
    starts at ``log_snr_max``.

    Args:
        log_snr_density: the density, over all log-SNR up to infinity.
        log_snr_min: log-SNR of the last time.
        log_snr_max: log-SNR of the first time, where sampling ends.

    Example:
        >>> schedule = DensitySchedule(CauchyLogSNR(scale=2.0))
    """

    def __init__(self, log_snr_density: LogSNRDensity, log_snr_min: float = -15.0, log_snr_max: float = 10.0) -> None:
        super().__init__()
        if not -math.inf < log_snr_min < log_snr_max:
            raise ValueError(f"log_snr_min ({log_snr_min}) must be finite and below log_snr_max ({log_snr_max})")
        levels = torch.tensor([log_snr_max, log_snr_min, math.inf], dtype=torch.float64, device="cpu")
        first, end, clean = log_snr_density.above(levels).tolist()
        if clean != 0 or not 0 < first < end:
            raise ValueError(
                f"{type(log_snr_density).__name__} has the shares {clean:.3g}, {first:.3g} and {end:.3g} above log-SNR "
                f"infinity, log_snr_max ({log_snr_max}) and log_snr_min ({log_snr_min}); they must increase from 0: "
                "choose a density that reaches infinity, wide enough for these bounds"
            )
        self.log_snr_density = log_snr_density
        self.log_snr_min = log_snr_min
        self.log_snr_max = log_snr_max
        self.end = end
        self.first = first / end

    def log_snr(self, t: Tensor) -> Tensor:
        """See the class."""
        return self.log_snr_density.log_snr(self.end * self.precise(t)).clamp(min=self.log_snr_min)

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return (self.log_snr_density.above(self.precise(log_snr)) / self.end).clamp(0, 1)


class LaplaceSchedule(DensitySchedule):
    """Log-SNR with a Laplace density over uniform t: training time spent on the middle noise levels.

    ``log_snr(t) = mean - scale * sign(t - 1/2) * (-log(1 - 2 |t - 1/2|))``, at least ``log_snr_min``
    (Improved Noise Schedule, arXiv 2407.03297, Sec. 3.1).

    Args:
        mean: the log-SNR with the highest density.
        scale: of the density.
        log_snr_min: log-SNR of the last time.
        log_snr_max: log-SNR of the first time, where sampling ends.
    """

    def __init__(
        self, mean: float = 0.0, scale: float = 0.5, log_snr_min: float = -15.0, log_snr_max: float = 10.0
    ) -> None:
        super().__init__(LaplaceLogSNR(mean, scale), log_snr_min, log_snr_max)
        self.mean = mean
        self.scale = scale
