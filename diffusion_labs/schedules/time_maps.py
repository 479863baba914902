"""How the noise of rectified flow grows with time.

A map is given by the log-odds ``l(t) = log(u / (1 - u))`` of the noise u, from -infinity at t = 0 to infinity at
t = 1: near both ends they keep the precision that u and 1 - u lose.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion_labs.schedules.log_snr_density import check_width


@runtime_checkable
class TimeMap(Protocol):
    """A strictly increasing map from t in [0, 1] to the log-odds of u, and its inverse."""

    def log_odds(self, t: Tensor) -> Tensor:
        """l(t)."""

    def time(self, log_odds: Tensor) -> Tensor:
        """The t at which they are ``log_odds``."""


@dataclass(frozen=True)
class LinearTimeMap:
    """``u = t``."""

    def log_odds(self, t: Tensor) -> Tensor:
        """``logit(t)``."""
        return t.logit()

    def time(self, log_odds: Tensor) -> Tensor:
        """See ``TimeMap``."""
        return log_odds.sigmoid()


@dataclass(frozen=True)
class CosineTimeMap:
    """``u / (1 - u) = tan(pi t / 2)``: the SNR of the cosine schedule (CosMap, arXiv 2403.03206, Sec. 3.1)."""

    def log_odds(self, t: Tensor) -> Tensor:
        """``log tan(pi t / 2)``."""
        return torch.where(t < 1, (math.pi / 2 * t).tan(), torch.inf).log()

    def time(self, log_odds: Tensor) -> Tensor:
        """See ``TimeMap``."""
        return 2 / math.pi * log_odds.exp().atan()


@dataclass(frozen=True)
class LogitNormalTimeMap:
    """``logit(u) = mean + std * ndtri(t)``: uniform t gives logit-normal u (arXiv 2403.03206, Sec. 3.1).

    Args:
        mean: of logit(u): negative for more time on little noise.
        std: of logit(u).
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_width("std", self.std)

    def log_odds(self, t: Tensor) -> Tensor:
        """See the class."""
        return self.mean + self.std * torch.special.ndtri(t)

    def time(self, log_odds: Tensor) -> Tensor:
        """See ``TimeMap``."""
        return torch.special.ndtr((log_odds - self.mean) / self.std)
