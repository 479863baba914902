"""Straight lines from data to noise."""

import math

import torch
from torch import Tensor

from diffusion_labs.schedules.schedule import ContinuousSchedule
from diffusion_labs.schedules.time_maps import LinearTimeMap, TimeMap


class RectifiedFlowSchedule(ContinuousSchedule):
    """``xt = (1 - u) x0 + u noise`` (rectified flow, arXiv 2209.03003; flow matching, arXiv 2210.02747).

    ``logit(u) = l(t) + log(shift)`` with the map's log-odds l. For the linear map that is
    ``u = shift t / (1 + (shift - 1) t)``: a shift above 1 moves the times towards the noise, for high resolutions
    (Stable Diffusion 3, arXiv 2403.03206, Eq. 23). The terminal SNR is zero, so noise prediction is not defined.

    Args:
        shift: 1 for the map itself.
        time_map: from t to u: ``LinearTimeMap()`` if ``None``, ``CosineTimeMap()`` or ``LogitNormalTimeMap()``.
            Training starts where the map, without the shift, has u = 0.001.
        terminal: the last time, in the units in which the network is told the time; t above is a share of it.
            Networks from diffusers are told times up to 1000.
    """

    def __init__(self, shift: float = 1.0, time_map: TimeMap | None = None, *, terminal: float = 1.0) -> None:
        super().__init__()
        if not 0 < shift < math.inf:
            raise ValueError(f"shift ({shift}) must be positive and finite")
        if not terminal > 0:
            raise ValueError(f"terminal ({terminal}) must be positive")
        self.shift = shift
        self.log_shift = math.log(shift)
        self.time_map = LinearTimeMap() if time_map is None else time_map
        self.unit = self.terminal = terminal
        self.first = terminal * self.time_map.time(torch.tensor(1e-3, dtype=torch.float64, device="cpu").logit()).item()

    def log_odds(self, t: Tensor) -> Tensor:
        """``logit(u)``."""
        return self.time_map.log_odds(self.precise(t) / self.unit) + self.log_shift

    def log_snr(self, t: Tensor) -> Tensor:
        """``-2 logit(u)``."""
        return -2 * self.log_odds(t)

    def alpha(self, t: Tensor) -> Tensor:
        """``1 - u = sigmoid(-logit(u))``."""
        return (-self.log_odds(t)).sigmoid()

    def sigma(self, t: Tensor) -> Tensor:
        """``u``."""
        return self.log_odds(t).sigmoid()

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class: ``logit(u) = -log_snr / 2``, then the map back to t."""
        return self.unit * self.time_map.time(-self.precise(log_snr) / 2 - self.log_shift).clamp(0, 1)
