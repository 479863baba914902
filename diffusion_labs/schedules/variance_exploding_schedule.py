"""Processes that add noise and leave the data as it is."""

import math

import torch
from torch import Tensor

from diffusion_labs.schedules.log_snr_density import NormalLogSNR
from diffusion_labs.schedules.schedule import ContinuousSchedule


class VarianceExplodingSchedule(ContinuousSchedule):
    """The variance-exploding SDE: alpha = 1 (Score SDE, arXiv 2011.13456, App. B, Eq. 30 and 31).

    ``sigma(t)^2 = sigma_min^2 ((sigma_max / sigma_min)^(2 t) - 1)``, the noise added since t = 0.

    Args:
        sigma_min: scale of the smallest noise, in units of the data.
        sigma_max: scale of the largest.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        super().__init__()
        _check_range(sigma_min, sigma_max)
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.growth = 2 * math.log(sigma_max / sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(self.precise(t))

    def sigma(self, t: Tensor) -> Tensor:
        """See the class."""
        return self.sigma_min * torch.expm1(self.growth * self.precise(t)).sqrt()

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        ratio = torch.exp(-self.precise(log_snr)) / self.sigma_min**2
        return (torch.log1p(ratio) / self.growth).clamp(0, 1)


class EDMSchedule(ContinuousSchedule):
    """alpha = 1 and sigma(t) = t: time is the noise itself (EDM, arXiv 2206.00364, Table 1).

    Training times are log-normal, ``NormalLogSNR.edm``.

    Args:
        sigma_min: the least noise that the network is trained on.
        sigma_max: the noise at which sampling starts.
        log_mean: mean of log sigma in training (P_mean).
        log_std: standard deviation of log sigma in training (P_std).
    """

    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, *, log_mean: float = -1.2, log_std: float = 1.2
    ) -> None:
        super().__init__(NormalLogSNR.edm(log_mean, log_std))
        _check_range(sigma_min, sigma_max)
        self.first = self.sigma_min = sigma_min
        self.terminal = self.sigma_max = sigma_max
        self.log_mean = log_mean
        self.log_std = log_std

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(self.precise(t))

    def sigma(self, t: Tensor) -> Tensor:
        """t."""
        return self.precise(t)

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return torch.exp(-self.precise(log_snr) / 2).clamp(0, self.terminal)


def _check_range(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min ({sigma_min}) and sigma_max ({sigma_max}) must satisfy 0 < sigma_min < sigma_max")
