"""Variance-preserving processes, given by their log-SNR."""

import torch
from torch import Tensor

from diffusion_labs.schedules.schedule import ContinuousSchedule, Schedule


class VariancePreserving(Schedule):
    """Base of variance-preserving schedules that write ``log_snr(t)`` and its inverse, ``time``.

    ``alpha^2 = sigmoid(log_snr)`` and ``sigma^2 = sigmoid(-log_snr)`` (Variational Diffusion Models,
    arXiv 2107.00630, Sec. 3.2).
    """

    def log_snr(self, t: Tensor) -> Tensor:
        """``log(alpha^2 / sigma^2)``, strictly decreasing from infinity at t = 0."""
        raise NotImplementedError(f"{type(self).__name__} must define log_snr")

    def alpha(self, t: Tensor) -> Tensor:
        """``sqrt(sigmoid(log_snr))``."""
        return self.log_snr(t).sigmoid().sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """``sqrt(sigmoid(-log_snr))``."""
        return (-self.log_snr(t)).sigmoid().sqrt()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the base class."""
        log_snr = self.log_snr(t)
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt(), log_snr


class LogSNRSchedule(VariancePreserving, ContinuousSchedule):
    """``VariancePreserving`` in continuous time."""


class CosineSchedule(LogSNRSchedule):
    """``alpha = cos(pi t / 2)`` in continuous time, shifted for resolution, and cut at its noisy end.

    ``log_snr(t) = -2 log tan(pi u / 2) + 2 log(shift)``, u = t times the u at which it is ``log_snr_min``
    (Simple Diffusion, arXiv 2301.11093, Sec. 2.1 and App. A).

    Args:
        shift: reference resolution divided by the data's: 64 / 256 for 256 pixels adds noise everywhere.
        log_snr_min: log-SNR of the last time; ``-inf`` for zero terminal SNR, which noise prediction cannot use.
    """

    def __init__(self, shift: float = 1.0, log_snr_min: float = -15.0) -> None:
        super().__init__()
        if not shift > 0:
            raise ValueError(f"shift ({shift}) must be positive")
        self.shift = shift
        self.log_snr_min = log_snr_min
        self.log_shift = 2 * torch.tensor(shift, dtype=torch.float64, device="cpu").log().item()
        self.end = self._angle(torch.tensor(log_snr_min, dtype=torch.float64, device="cpu")).item()

    def log_snr(self, t: Tensor) -> Tensor:
        """See the class."""
        angle = self.end * self.precise(t)
        return -2 * torch.where(angle < torch.pi / 2, angle.tan(), torch.inf).log() + self.log_shift

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return (self._angle(self.precise(log_snr)) / self.end).clamp(0, 1)

    def _angle(self, log_snr: Tensor) -> Tensor:
        return torch.atan(torch.exp((self.log_shift - log_snr) / 2))
