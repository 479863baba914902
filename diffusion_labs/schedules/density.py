"""How often each noise level is trained."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion_labs.schedules.precise_module import PreciseModule


@runtime_checkable
class Process(Protocol):
    """What a density reads of a schedule; see ``Schedule``."""

    first: float
    terminal: float
    resolution: float

    def log_snr(self, t: Tensor) -> Tensor:
        """Log-SNR, decreasing in ``t``."""

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """Its derivative."""

    def time(self, log_snr: Tensor) -> Tensor:
        """Its inverse."""

    def snap(self, t: Tensor) -> Tensor:
        """The nearest times that a network is trained on."""


class Density(PreciseModule):
    """Base class: a density over the times that a network is trained on, for any schedule.

    A child writes ``cdf``, its inverse ``quantile`` and its derivative ``log_density``, untruncated and
    up to a scale. Here the density is restricted to the schedule's times, ``first`` to ``terminal``, and
    normalised: ``F(t) = (cdf(t) - cdf(first)) / (cdf(terminal) - cdf(first))``. A discrete step has the
    probability of its cell, which reaches half a step to both sides.

    Times are ``F^-1(v)`` of uniform numbers v in [0, 1), so how the numbers are drawn
    (``independent_uniform``, ``stratified_uniform``) does not depend on the density.
    """

    def cdf(self, schedule: Process, t: Tensor) -> Tensor:
        """Increases in ``t`` as the share of the training times up to it does, float64."""
        raise NotImplementedError(f"{type(self).__name__} must define cdf")

    def quantile(self, schedule: Process, share: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        raise NotImplementedError(f"{type(self).__name__} must define quantile")

    def log_density(self, schedule: Process, t: Tensor) -> Tensor:
        """The logarithm of the derivative of ``cdf``; read for continuous schedules only."""
        raise NotImplementedError(f"{type(self).__name__} must define log_density")

    def observe(self, schedule: Process, t: Tensor, losses: Tensor) -> None:
        """Learn from the losses of a batch, ``[b]``. Only densities that adapt do."""

    def times(self, schedule: Process, v: Tensor) -> Tensor:
        """The training times at shares ``v`` in [0, 1): float64, or int64 if the schedule has steps.

        Args:
            schedule: the process.
            v: uniform numbers, ``[b]``.
        """
        v = self.precise(v)
        low, high = self.limits(schedule, v)
        t = self.quantile(schedule, low + (high - low) * v)
        return schedule.snap(t.clamp(schedule.first, schedule.terminal))

    def log_prob(self, schedule: Process, t: Tensor) -> Tensor:
        """The log-density with respect to t, or the log-probability of a step if the schedule has steps.

        Args:
            schedule: the process.
            t: times, whole steps if the schedule has steps.

        Returns:
            Float64, of the shape of ``t``; -inf outside the schedule's trained times.
        """
        t = self.precise(t)
        low, high = self.limits(schedule, t)
        if schedule.resolution == 0:
            log_prob = self.log_density(schedule, t) - (high - low).log()
        else:
            half = schedule.resolution / 2
            log_prob = ((self.cdf(schedule, t + half) - self.cdf(schedule, t - half)) / (high - low)).log()
        inside = (t >= schedule.first) & (t <= schedule.terminal)
        return torch.where(inside, log_prob, -torch.inf)

    def limits(self, schedule: Process, like: Tensor) -> tuple[Tensor, Tensor]:
        """``cdf`` at both ends of the trained times, scalars on the device of ``like``."""
        half = schedule.resolution / 2
        first, last = schedule.first - half, schedule.terminal + half
        ends = torch.linspace(first, last, 2, dtype=like.dtype, device=like.device)
        low, high = self.cdf(schedule, ends).unbind()
        return low, high

    def check(self, schedule: Process) -> None:
        """Raise a ``ValueError`` if the density cannot be normalised on the schedule's trained times."""
        low, high = self.limits(schedule, torch.zeros((), dtype=torch.float64, device="cpu"))
        mass = (high - low).item()
        if not 0 < mass < float("inf"):
            ends = torch.tensor([schedule.terminal, schedule.first], dtype=torch.float64, device="cpu")
            noisy, clean = schedule.log_snr(ends).tolist()
            raise ValueError(
                f"{type(self).__name__} has the mass {mass:g} on the times of {type(schedule).__name__}, log-SNR "
                f"{noisy:.3g} to {clean:.3g}; it must be positive and finite: move it there, or give it bounds"
            )


class UniformTime(Density):
    """Every time, or every step, equally often (DDPM, arXiv 2006.11239, Alg. 1)."""

    def cdf(self, schedule: Process, t: Tensor) -> Tensor:
        """t."""
        return self.precise(t)

    def quantile(self, schedule: Process, share: Tensor) -> Tensor:
        """t."""
        return share

    def log_density(self, schedule: Process, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(self.precise(t))
