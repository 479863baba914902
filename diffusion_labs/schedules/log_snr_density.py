"""Densities over log-SNR."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.schedules.density import Density, Process


class LogSNRDensity(Density):
    """Base of densities that are the same over log-SNR whatever the schedule.

    A child writes ``above``, its inverse ``log_snr`` and its derivative ``log_pdf``. In time,
    ``cdf(t) = above(log_snr(t))`` and ``density(t) = pdf(log_snr(t)) * -d log_snr / dt``.
    """

    def above(self, log_snr: Tensor) -> Tensor:
        """The share of the noise levels whose log-SNR is higher than ``log_snr``."""
        raise NotImplementedError(f"{type(self).__name__} must define above")

    def log_snr(self, share: Tensor) -> Tensor:
        """The inverse of ``above``."""
        raise NotImplementedError(f"{type(self).__name__} must define log_snr")

    def log_pdf(self, log_snr: Tensor) -> Tensor:
        """The log-density of log-SNR, untruncated."""
        raise NotImplementedError(f"{type(self).__name__} must define log_pdf")

    def cdf(self, schedule: Process, t: Tensor) -> Tensor:
        """See the class.

        Restricted to times that float64 tells apart: where the terminal SNR is zero, a density with heavy
        tails would otherwise put a point mass on the last time.
        """
        last = schedule.terminal * (1 - 1e-12)
        return self.above(self.precise(schedule.log_snr(t.clamp(schedule.first, last))))

    def quantile(self, schedule: Process, share: Tensor) -> Tensor:
        """See the class."""
        return schedule.time(self.log_snr(share))

    def log_density(self, schedule: Process, t: Tensor) -> Tensor:
        """See the class."""
        return self.log_pdf(schedule.log_snr(t)) + (-schedule.log_snr_rate(t)).log()


class UniformLogSNR(LogSNRDensity):
    """Every log-SNR equally often: the measure of the variational bound (arXiv 2303.00848).

    Args:
        log_snr_min: no levels below; needed on schedules whose terminal SNR is zero.
        log_snr_max: no levels above.
    """

    def __init__(self, log_snr_min: float = -math.inf, log_snr_max: float = math.inf) -> None:
        super().__init__()
        if not log_snr_min < log_snr_max:
            raise ValueError(f"log_snr_min ({log_snr_min}) must be below log_snr_max ({log_snr_max})")
        self.log_snr_min = log_snr_min
        self.log_snr_max = log_snr_max

    def above(self, log_snr: Tensor) -> Tensor:
        """``-log_snr`` within the bounds, which is it up to a linear map."""
        return -log_snr.clamp(self.log_snr_min, self.log_snr_max)

    def log_snr(self, share: Tensor) -> Tensor:
        """See the base class."""
        return -share

    def log_pdf(self, log_snr: Tensor) -> Tensor:
        """0 within the bounds."""
        inside = (log_snr >= self.log_snr_min) & (log_snr <= self.log_snr_max)
        return torch.where(inside, torch.zeros_like(log_snr), -torch.inf)

    def check(self, schedule: Process) -> None:
        """See the base class."""
        super().check(schedule)
        last = torch.tensor([schedule.terminal], dtype=torch.float64, device="cpu")
        if schedule.log_snr(last).clamp(min=self.log_snr_min).isinf():
            raise ValueError(
                f"log_snr_min ({self.log_snr_min}) must be finite on {type(schedule).__name__}, whose terminal SNR is "
                "zero: no density is uniform down to -inf"
            )


class SymmetricLogSNR(LogSNRDensity):
    """Base of densities of ``log_snr = mean - scale * z``, with z of a standard, symmetric distribution.

    A child writes the standard ``standard_cdf``, ``standard_quantile`` and ``standard_log_pdf``.

    Args:
        mean: the centre, and the log-SNR with the highest density.
        scale: the width, in units of log-SNR.
    """

    def __init__(self, mean: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        if not math.isfinite(mean):
            raise ValueError(f"mean ({mean}) must be finite")
        check_width("scale", scale)
        self.mean = mean
        self.scale = scale

    def standard_cdf(self, z: Tensor) -> Tensor:
        """The distribution function of z."""
        raise NotImplementedError(f"{type(self).__name__} must define standard_cdf")

    def standard_quantile(self, share: Tensor) -> Tensor:
        """Its inverse."""
        raise NotImplementedError(f"{type(self).__name__} must define standard_quantile")

    def standard_log_pdf(self, z: Tensor) -> Tensor:
        """The logarithm of its derivative."""
        raise NotImplementedError(f"{type(self).__name__} must define standard_log_pdf")

    def above(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return self.standard_cdf((self.mean - log_snr) / self.scale)

    def log_snr(self, share: Tensor) -> Tensor:
        """See the base class."""
        return self.mean - self.scale * self.standard_quantile(share)

    def log_pdf(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return self.standard_log_pdf((self.mean - log_snr) / self.scale) - math.log(self.scale)


class NormalLogSNR(SymmetricLogSNR):
    """Normal log-SNR: ``pdf(z) = exp(-z^2 / 2) / sqrt(2 pi)``.

    Log-normal noise scales and logit-normal times of rectified flow are cases of it: see ``edm`` and
    ``logit_normal``.
    """

    @classmethod
    def edm(cls, log_mean: float = -1.2, log_std: float = 1.2) -> "NormalLogSNR":
        """``log(sigma / alpha) ~ N(log_mean, log_std^2)`` (EDM, arXiv 2206.00364, Table 1: P_mean, P_std).

        ``log_snr = -2 log(sigma / alpha)``, so its mean is ``-2 log_mean`` and its deviation ``2 log_std``.
        """
        check_width("log_std", log_std)
        return cls(-2 * log_mean, 2 * log_std)

    @classmethod
    def logit_normal(cls, mean: float = 0.0, std: float = 1.0) -> "NormalLogSNR":
        """``logit(u) ~ N(mean, std^2)`` on ``xt = (1 - u) x0 + u noise`` (arXiv 2403.03206, Sec. 3.1).

        ``log_snr = -2 logit(u)``: a negative mean trains more on little noise.
        """
        check_width("std", std)
        return cls(-2 * mean, 2 * std)

    def standard_cdf(self, z: Tensor) -> Tensor:
        """See the base class."""
        return torch.special.ndtr(z)

    def standard_quantile(self, share: Tensor) -> Tensor:
        """See the base class."""
        return torch.special.ndtri(share)

    def standard_log_pdf(self, z: Tensor) -> Tensor:
        """See the class."""
        return -(z**2) / 2 - math.log(2 * math.pi) / 2


class LaplaceLogSNR(SymmetricLogSNR):
    """Laplace log-SNR: ``pdf(z) = exp(-|z|) / 2`` (Improved Noise Schedule, arXiv 2407.03297, Sec. 3.1)."""

    def standard_cdf(self, z: Tensor) -> Tensor:
        """See the base class."""
        half = 0.5 * torch.exp(-z.abs())
        return torch.where(z < 0, half, 1 - half)

    def standard_quantile(self, share: Tensor) -> Tensor:
        """See the base class."""
        tail = -torch.log(2 * torch.minimum(share, 1 - share))
        return torch.where(share < 0.5, -tail, tail)

    def standard_log_pdf(self, z: Tensor) -> Tensor:
        """See the class."""
        return -z.abs() - math.log(2)


class LogisticLogSNR(SymmetricLogSNR):
    """Logistic log-SNR: ``pdf(z) = sigmoid(z) sigmoid(-z)``.

    With scale 2 it is uniform time on the straight lines of ``RectifiedFlowSchedule``.
    """

    def standard_cdf(self, z: Tensor) -> Tensor:
        """See the base class."""
        return z.sigmoid()

    def standard_quantile(self, share: Tensor) -> Tensor:
        """See the base class."""
        return share.logit()

    def standard_log_pdf(self, z: Tensor) -> Tensor:
        """See the class."""
        return F.logsigmoid(z) + F.logsigmoid(-z)


class SechLogSNR(SymmetricLogSNR):
    """Hyperbolic-secant log-SNR: ``pdf(z) = 1 / (pi cosh z)``.

    With scale 2 it is uniform time on the cosine schedule (arXiv 2303.00848).
    """

    def standard_cdf(self, z: Tensor) -> Tensor:
        """See the base class."""
        return 2 / math.pi * z.exp().atan()

    def standard_quantile(self, share: Tensor) -> Tensor:
        """See the base class."""
        return (math.pi / 2 * share).tan().log()

    def standard_log_pdf(self, z: Tensor) -> Tensor:
        """See the class; ``log cosh z = |z| + log(1 + exp(-2 |z|)) - log 2``."""
        return -(z.abs() + torch.log1p(torch.exp(-2 * z.abs())) - math.log(2)) - math.log(math.pi)


class CauchyLogSNR(SymmetricLogSNR):
    """Cauchy log-SNR: ``pdf(z) = 1 / (pi (1 + z^2))`` (Improved Noise Schedule, arXiv 2407.03297)."""

    def standard_cdf(self, z: Tensor) -> Tensor:
        """``1/2 + atan(z) / pi``, without cancellation in the lower tail."""
        return torch.atan2(torch.ones_like(z), -z) / math.pi

    def standard_quantile(self, share: Tensor) -> Tensor:
        """``tan(pi (share - 1/2))``."""
        return -1 / (math.pi * share).tan()

    def standard_log_pdf(self, z: Tensor) -> Tensor:
        """See the class."""
        return -torch.log1p(z**2) - math.log(math.pi)


class ModeLogSNR(LogSNRDensity):
    """Times of rectified flow with an adjustable mode and heavy tails (arXiv 2403.03206, Eq. 20).

    ``u = f(v)``, v uniform, on ``xt = (1 - u) x0 + u noise``, where ``log_snr = -2 logit(u)``:
    ``f(v) = 1 - v - scale (cos^2(pi v / 2) - 1 + v)``. f decreases, so ``above`` is 1 - v.

    Args:
        scale: 0 is uniform u; positive favours the middle, negative the ends; in [-1, 2 / (pi - 2)],
            where f is monotone.
    """

    def __init__(self, scale: float = 1.29) -> None:
        super().__init__()
        if not -1 <= scale <= 2 / (math.pi - 2):
            raise ValueError(f"scale ({scale}) must lie in [-1, {2 / (math.pi - 2):.4f}], where the map is monotone")
        self.scale = scale

    def flow(self, share: Tensor) -> Tensor:
        """``f(1 - share) = share + scale (share - sin^2(pi share / 2))``."""
        return share + self.scale * (share - torch.sin(math.pi / 2 * share) ** 2)

    def flow_rate(self, share: Tensor) -> Tensor:
        """The derivative of ``flow``."""
        return 1 + self.scale * (1 - math.pi / 2 * torch.sin(math.pi * share))

    def above(self, log_snr: Tensor) -> Tensor:
        """The inverse of ``flow``, which has no closed form: a table brackets it, then Newton's method."""
        u = (-log_snr / 2).sigmoid()
        grid = torch.linspace(0, 1, 1025, dtype=u.dtype, device=u.device)
        upper = torch.searchsorted(self.flow(grid), u.contiguous()).clamp(1, len(grid) - 1)
        low, high = grid[upper - 1], grid[upper]
        share = (low + high) / 2
        for _ in range(4):
            step = (self.flow(share) - u) / self.flow_rate(share).clamp(min=1e-12)
            share = torch.minimum(torch.maximum(share - step, low), high)
        return share

    def log_snr(self, share: Tensor) -> Tensor:
        """See the class."""
        return -2 * self.flow(share).clamp(0, 1).logit()

    def log_pdf(self, log_snr: Tensor) -> Tensor:
        """``-log flow'(share) + log |du / d log_snr|``, with the second ``u (1 - u) / 2``."""
        rate = self.flow_rate(self.above(log_snr))
        return -rate.log() + F.logsigmoid(-log_snr / 2) + F.logsigmoid(log_snr / 2) - math.log(2)


def check_width(name: str, value: float) -> None:
    """Raise a ``ValueError`` unless the width of a density is a positive number."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} ({value}) must be positive and finite")
