"""Variance-preserving diffusion in discrete steps, as in DDPM."""

import torch
from torch import Tensor

from diffusion_labs.schedules.log_snr_schedule import VariancePreserving


class DiscreteGaussianSchedule(VariancePreserving):
    """The process of DDPM (arXiv 2006.11239, Eq. 2 and 4), from the betas of its steps.

    ``alpha(t)^2 = prod_{i <= t} (1 - beta_i)`` and ``sigma(t)^2 = 1 - alpha(t)^2`` for t = 0 .. T - 1;
    clean data is t = -1. Between two steps log-SNR is interpolated linearly; before the first step,
    and into a last step of zero SNR, where it is infinite, the noise-to-signal and the
    signal-to-noise amplitude are.

    Args:
        betas: the variance added by each step, ``[T]``, in (0, 1]; only the last may be 1 (zero
            terminal SNR, arXiv 2305.08891).

    Raises:
        ValueError: if ``betas`` is not such a table.

    Example:
        >>> schedule = DiscreteGaussianSchedule(linear_beta_schedule(1000))
        >>> schedule.alpha(torch.tensor([-1, 0])) ** 2
        tensor([1.0000, 0.9999], dtype=torch.float64)
    """

    clean = -1.0
    first = 0.0
    resolution = 1.0

    betas: Tensor
    log_snr_table: Tensor
    rise: Tensor
    least_variance: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        betas = torch.as_tensor(betas, dtype=torch.float64, device="cpu")
        if betas.ndim != 1 or len(betas) < 2:
            raise ValueError(f"betas has shape {list(betas.shape)}; give one beta per step, [T], T >= 2")
        if not bool(((betas > 0) & (betas <= 1)).all()) or bool((betas[:-1] == 1).any()):
            raise ValueError(
                f"betas must lie in (0, 1], only the last may be 1; got {betas.min():.3g} to {betas.max():.3g}"
            )
        self.steps = len(betas)
        self.terminal = float(self.steps - 1)

        log_alpha_squared = torch.log1p(-betas).cumsum(0)
        log_snr = log_alpha_squared - torch.log(-torch.expm1(log_alpha_squared))
        if not bool((log_snr.diff() < 0).all()):
            raise ValueError("betas are too small: two steps have the same signal-to-noise ratio in float64")
        self.register_table("betas", betas)
        self.register_table("log_snr_table", log_snr)
        self.register_table("rise", -log_snr.diff(prepend=log_snr[:1]))  # log_snr(t - 1) - log_snr(t)
        snr = log_snr.exp()
        self.register_table("least_variance", (1 - snr[1] / snr[0]) * betas[0])  # variance of q(x_0 | x_1, x)

    def log_snr(self, t: Tensor) -> Tensor:
        """See the base class; exactly the table at whole steps."""
        t = t.to(self.log_snr_table)
        upper = t.nan_to_num(0.0).ceil().long()  # no index is NaN; its log-SNR is
        below = upper - t  # how far t is below the next whole step, in [0, 1)
        between = self.log_snr_table[upper] + below * self.rise[upper]
        into_zero = self.log_snr_table[upper - 1] + 2 * below.log()
        inside = torch.where(self.rise[upper].isinf(), into_zero, between)
        return torch.where(t < 0, self.log_snr_table[0] - 2 * torch.log1p(t), inside)

    def time(self, log_snr: Tensor) -> Tensor:
        """See the base class: fractional steps from -1 (clean) to T - 1."""
        log_snr = log_snr.to(self.log_snr_table)
        table = self.log_snr_table
        upper = torch.searchsorted(-table, -log_snr.contiguous()).clamp(1, self.steps - 1)
        between = upper - (log_snr - table[upper]) / self.rise[upper]
        into_zero = upper - ((log_snr - table[upper - 1]) / 2).exp()
        inside = torch.where(self.rise[upper].isinf(), into_zero, between).clamp(max=self.terminal)
        return torch.where(log_snr > table[0], torch.expm1((table[0] - log_snr) / 2), inside)

    def previous(self, t: Tensor) -> Tensor:
        """One step back: ``t - 1``, not before clean data."""
        return (t - 1).clamp(min=-1)

    def first_variance(self) -> Tensor:
        """The posterior variance of the step from 1 to 0 (improved-diffusion's clipped variance)."""
        return self.least_variance
