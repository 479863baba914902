"""The variance-preserving SDE."""

import torch
from torch import Tensor

from diffusion_labs.schedules.schedule import ContinuousSchedule


class VariancePreservingSchedule(ContinuousSchedule):
    """DDPM in continuous time, with beta growing linearly (Score SDE, arXiv 2011.13456, App. B, Eq. 32).

    ``log alpha(t) = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2``; ``sigma^2 = 1 - alpha^2``.

    Args:
        beta_min: rate of noising at t = 0.
        beta_max: rate of noising at t = 1.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__()
        if not 0 < beta_min <= beta_max:
            raise ValueError(f"beta_min ({beta_min}) and beta_max ({beta_max}) must satisfy 0 < beta_min <= beta_max")
        self.beta_min = beta_min
        self.beta_max = beta_max

    def log_alpha(self, t: Tensor) -> Tensor:
        """``log alpha(t)``."""
        t = self.precise(t)
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def alpha(self, t: Tensor) -> Tensor:
        """See the class."""
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """See the class."""
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class: the positive root of the quadratic ``log alpha(t) = -softplus(-log_snr) / 2``."""
        integral = torch.logaddexp(-self.precise(log_snr), torch.zeros_like(self.precise(log_snr)))  # -2 log alpha
        integral = integral.clamp(max=1e30)  # of log-SNR far beyond the range, as far as -inf
        slope = self.beta_max - self.beta_min
        root = 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())
        return root.clamp(0, 1)
