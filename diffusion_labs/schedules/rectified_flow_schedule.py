"""Straight lines from data to noise."""

from torch import Tensor

from diffusion_labs.schedules.schedule import ContinuousSchedule


class RectifiedFlowSchedule(ContinuousSchedule):
    """``xt = (1 - u) x0 + u noise`` (rectified flow, arXiv 2209.03003; flow matching, arXiv 2210.02747).

    ``u = shift t / (1 + (shift - 1) t)``: a shift above 1 moves the times towards the noise, for high
    resolutions (Stable Diffusion 3, arXiv 2403.03206, Eq. 23). The terminal SNR is zero, so noise
    prediction is not defined.

    Args:
        shift: 1 for times on the line itself.
        terminal: the last time, in the units in which the network is told the time; t above is a share of it.
            Networks from diffusers are told times up to 1000.
    """

    def __init__(self, shift: float = 1.0, *, terminal: float = 1.0) -> None:
        super().__init__()
        if not shift > 0:
            raise ValueError(f"shift ({shift}) must be positive")
        if not terminal > 0:
            raise ValueError(f"terminal ({terminal}) must be positive")
        self.shift = shift
        self.terminal = terminal
        self.first = self.first * terminal

    def alpha(self, t: Tensor) -> Tensor:
        """``1 - u = (1 - t) / (1 + (shift - 1) t)``."""
        t = self.precise(t) / self.terminal
        return (1 - t) / (1 + (self.shift - 1) * t)

    def sigma(self, t: Tensor) -> Tensor:
        """``u``."""
        t = self.precise(t) / self.terminal
        return self.shift * t / (1 + (self.shift - 1) * t)

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class: ``u = sigmoid(-log_snr / 2)``, then the map back to t."""
        u = (-self.precise(log_snr) / 2).sigmoid()
        return self.terminal * (u / (self.shift - (self.shift - 1) * u)).clamp(0, 1)
