"""Weights of a loss as functions of log-SNR.

Each is w in ``w(log_snr) * |x0_hat - x0|^2``: defined on the error of the clean data, so that it means
the same whatever the network predicts. The squared error of x0 is ``(sigma / det)^2`` times that of the
network's output; ``SimpleLoss`` does that conversion once, by the predictor's algebra.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Weighting = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Uniform:
    """``w = 1``: the squared error of the clean data."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class SNR:
    """``w = SNR``: the squared error of the noise (DDPM's simple loss, arXiv 2006.11239, Eq. 14)."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp()


@dataclass(frozen=True)
class MinSNR:
    """``w = min(SNR, gamma)`` (arXiv 2303.09556, Sec. 3.4)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma ({self.gamma}) must be positive")

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma)


@dataclass(frozen=True)
class P2:
    """``w = SNR / (k + SNR)^gamma`` (arXiv 2204.00227, Eq. 8)."""

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not self.k > 0:
            raise ValueError(f"k ({self.k}) must be positive")

    def __call__(self, log_snr: Tensor) -> Tensor:
        snr = log_snr.exp()
        return snr / (self.k + snr) ** self.gamma


@dataclass(frozen=True)
class Sigmoid:
    """``w = SNR sigmoid(bias - log_snr)``: the squared error of the noise, times a sigmoid (arXiv 2303.00848).

    The paper integrates over uniform log-SNR: with other times, give the loss
    ``ImportanceMean(schedule, drawn, intended=UniformLogSNR())`` for the same expectation.
    """

    bias: float = 2.0

    def __call__(self, log_snr: Tensor) -> Tensor:
        # SNR / (1 + SNR / exp(bias)), which does not overflow
        return math.exp(self.bias) * (log_snr - self.bias).sigmoid()


@dataclass(frozen=True)
class EDM:
    """``w = SNR + 1 / sigma_data^2`` (arXiv 2206.00364, Table 1: 1 / c_out^2 with sigma^2 = 1 / SNR)."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data ({self.sigma_data}) must be positive")

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp() + 1 / self.sigma_data**2
