"""Densities that follow the losses, so that training time goes where the loss is large or noisy."""

import torch
from torch import Tensor

from diffusion_labs.schedules.density import Density, Process, UniformTime
from diffusion_labs.schedules.log_snr_density import UniformLogSNR


class AdaptiveDensity(Density):
    """Base of densities that reweight the bins of another one by the losses that were seen there.

    The schedule's times are cut into bins of equal probability under ``base``. Bin i is drawn with
    ``p_i = (1 - uniform) w_i / sum_j w_j + uniform / bins``, and within it times follow ``base``, so
    ``density(t) = bins * p_i * base(t)``. A child writes the weights w, from buffers that ``observe``
    updates in place: a saved run goes on with the same density.

    In distributed training every process learns from its own losses; the estimate is unbiased on each.

    Args:
        base: the density that is reweighted.
        bins: number of bins; T for one per step of a schedule of T steps.
        uniform: share of the times that is drawn from ``base`` itself, so that no bin is forgotten.
    """

    def __init__(self, base: Density, bins: int, uniform: float) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"bins ({bins}) must be at least 1")
        if not 0 < uniform <= 1:
            raise ValueError(f"uniform ({uniform}) must lie in (0, 1]: a bin that is never drawn is never learned")
        self.base = base
        self.bins = bins
        self.uniform = uniform

    def weights(self) -> Tensor:
        """w, not normalised, float64, ``[bins]``."""
        raise NotImplementedError(f"{type(self).__name__} must define weights")

    def probabilities(self) -> Tensor:
        """p, ``[bins]``."""
        weights = self.weights()
        return (1 - self.uniform) * weights / weights.sum() + self.uniform / self.bins

    def cdf(self, schedule: Process, t: Tensor) -> Tensor:
        """Piecewise linear in the base's ``F(t)``."""
        probabilities = self.probabilities()
        position = self.bins * self.base_share(schedule, t)
        index = self.bin(position)
        return (probabilities.cumsum(0) - probabilities)[index] + (position - index) * probabilities[index]

    def quantile(self, schedule: Process, share: Tensor) -> Tensor:
        """See the base class."""
        probabilities = self.probabilities()
        after = probabilities.cumsum(0)
        index = torch.searchsorted(after, share.contiguous(), right=True).clamp(max=self.bins - 1)
        position = index + (share - (after - probabilities)[index]) / probabilities[index]
        low, high = self.base.limits(schedule, share)
        return self.base.quantile(schedule, low + (high - low) * position / self.bins)

    def log_density(self, schedule: Process, t: Tensor) -> Tensor:
        """See the class."""
        index = self.bin(self.bins * self.base_share(schedule, t))
        return (self.bins * self.probabilities()[index]).log() + self.base.log_prob(schedule, t)

    def base_share(self, schedule: Process, t: Tensor) -> Tensor:
        """The base's ``F(t)``, in [0, 1]."""
        t = self.precise(t)
        low, high = self.base.limits(schedule, t)
        return (self.base.cdf(schedule, t) - low) / (high - low)

    def bin(self, position: Tensor) -> Tensor:
        """The bin of a position in [0, bins], int64."""
        return position.long().clamp(0, self.bins - 1)

    def check(self, schedule: Process) -> None:
        """See the base class."""
        self.base.check(schedule)


class LossSecondMoment(AdaptiveDensity):
    """Importance sampling: ``p_t`` in proportion to ``sqrt(E[L_t^2])`` (Improved DDPM, arXiv 2102.09672, Eq. 18).

    The expectation is over the last losses of a bin; until all bins are full, times follow ``base``.
    With the mean of ``ImportanceMean(schedule, drawn=self, intended=self.base)`` it is the choice of least variance.

    Args:
        bins: number of bins: T on a schedule of T steps.
        base: the density of the intended loss; uniform times if ``None``.
        history: how many losses a bin keeps.
        uniform: share of the times that is drawn from ``base`` itself.
    """

    losses: Tensor

    def __init__(
        self, bins: int = 1000, base: Density | None = None, *, history: int = 10, uniform: float = 0.001
    ) -> None:
        super().__init__(UniformTime() if base is None else base, bins, uniform)
        if history < 1:
            raise ValueError(f"history ({history}) must be at least 1")
        self.history = history
        empty = torch.full((bins, history), torch.inf, dtype=torch.float64, device="cpu")
        self.register_buffer("losses", empty)  # of each bin, the oldest first; infinite where there is none

    def weights(self) -> Tensor:
        """``sqrt(mean(losses^2))``, or 1 until all bins are full; a loss that is not finite counts as none."""
        moment = (self.losses**2).mean(1).sqrt()
        full = self.losses.isfinite().all() & (moment.sum() > 0)
        return torch.where(full, moment, torch.ones_like(moment))

    def observe(self, schedule: Process, t: Tensor, losses: Tensor) -> None:
        """Append the losses of a batch, in its order, to those of their bins.

        A bin with m new losses keeps the last ones of its old losses followed by the new ones: entries
        m .. m + history - 1 of that list. The new ones are consecutive after a stable sort by bin.
        """
        index, order = self.bin(self.bins * self.base_share(schedule, t)).sort(stable=True)
        bins = torch.arange(self.bins, device=index.device)
        start = torch.searchsorted(index, bins)
        count = torch.searchsorted(index, bins, right=True) - start

        history = self.losses.shape[1]
        entry = count[:, None] + torch.arange(history, device=index.device)
        old = self.losses.gather(1, entry.clamp(max=history - 1))
        new = losses.detach().to(self.losses)[order][(start[:, None] + entry - history).clamp(0, len(order) - 1)]
        self.losses.copy_(torch.where(entry < history, old, new))


class AdaptiveLogSNR(AdaptiveDensity):
    """Log-SNR in proportion to the mean loss there, in the spirit of the adaptive schedule of arXiv 2303.00848.

    The density is piecewise constant over log-SNR; the mean of a bin is a moving one. Until all bins
    have been seen, log-SNR is uniform.

    Args:
        log_snr_min: no levels below; needed on schedules whose terminal SNR is zero.
        log_snr_max: no levels above.
        bins: number of bins, of equal width on the schedule's range.
        decay: of the moving mean, for each loss of a bin.
        uniform: share of the levels that is drawn uniformly.
    """

    total: Tensor
    weight: Tensor

    def __init__(
        self,
        log_snr_min: float = -float("inf"),
        log_snr_max: float = float("inf"),
        *,
        bins: int = 100,
        decay: float = 0.99,
        uniform: float = 0.1,
    ) -> None:
        super().__init__(UniformLogSNR(log_snr_min, log_snr_max), bins, uniform)
        if not 0 <= decay < 1:
            raise ValueError(f"decay ({decay}) must lie in [0, 1)")
        self.log_snr_min = log_snr_min
        self.log_snr_max = log_snr_max
        self.decay = decay
        for name in ("total", "weight"):
            self.register_buffer(name, torch.zeros(bins, dtype=torch.float64, device="cpu"))

    def weights(self) -> Tensor:
        """The moving means of the losses, or 1 until all bins have been seen."""
        mean = self.total / self.weight
        seen = (self.weight > 0).all() & (mean.sum() > 0)
        return torch.where(seen, mean, torch.ones_like(mean))

    def observe(self, schedule: Process, t: Tensor, losses: Tensor) -> None:
        """Move the means: a bin with m losses keeps ``decay^m`` of what it had.

        The sum of the losses and that of their weights decay alike, so their ratio is unbiased from the start.
        Losses that are not finite are left out.
        """
        index = self.bin(self.bins * self.base_share(schedule, t))
        losses = losses.detach().to(self.total)
        member = (index[:, None] == torch.arange(self.bins, device=index.device)) & losses.isfinite()[:, None]
        count = member.sum(0)
        mean = torch.where(member, losses[:, None], 0.0).sum(0) / count.clamp(min=1)
        kept = self.decay**count
        self.total.copy_(kept * self.total + (1 - kept) * mean)
        self.weight.copy_(kept * self.weight + (1 - kept))
