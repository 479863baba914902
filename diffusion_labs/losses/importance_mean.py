"""The mean loss under one density of times, from times that were drawn from another."""

import torch
from torch import Tensor, nn

from diffusion_labs.schedules.density import Density
from diffusion_labs.schedules.schedule import Schedule


class ImportanceMean(nn.Module):
    """``mean(p_intended(t) / p_drawn(t) * loss)``, the expectation under ``intended`` with times from ``drawn``.

    A weighting says what is minimised, a density where training time is spent: this mean makes the second
    free, so that it changes the variance of the loss and not its expectation. Every level that
    ``intended`` draws must be drawn by ``drawn``.

    In train mode ``drawn`` then observes the losses, so that adaptive densities learn; they are the ones
    that the intended mean is of, without the ratio.

    Args:
        schedule: the process.
        drawn: the density that the times come from.
        intended: the density of the expectation; the schedule's own if ``None``.

    Example:
        >>> density = LossSecondMoment(1000)
        >>> transform = RandomDiffusionSteps(schedule, density)
        >>> loss = SimpleLoss(mean=ImportanceMean(schedule, density))
    """

    def __init__(self, schedule: Schedule, drawn: Density, intended: Density | None = None) -> None:
        super().__init__()
        self.schedule = schedule
        self.drawn = drawn
        self.intended = schedule.density if intended is None else intended
        for density in (self.drawn, self.intended):
            density.check(schedule)

    def ratio(self, t: Tensor) -> Tensor:
        """``p_intended(t) / p_drawn(t)``, float64, of the shape of ``t``."""
        return torch.exp(self.intended.log_prob(self.schedule, t) - self.drawn.log_prob(self.schedule, t))

    def forward(self, t: Tensor, losses: Tensor) -> Tensor:
        """The mean of a batch.

        Args:
            t: times, ``[b]``.
            losses: losses of the samples, ``[b]``.

        Returns:
            A scalar in the dtype of ``losses``.
        """
        mean = (self.ratio(t).to(losses.dtype) * losses).mean()
        if self.training:
            self.drawn.observe(self.schedule, t, losses)
        return mean
