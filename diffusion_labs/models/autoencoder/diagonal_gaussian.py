"""A normal distribution with independent components."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_labs.randomness import Generators, KeyedGenerator, randn


class DiagonalGaussian(NamedTuple):
    """``N(mean, diag(exp(log_variance)))``: the distribution of the latents of an image.

    Attributes:
        mean: ``[b, c, ...]``.
        log_variance: ``[b, c, ...]``.
    """

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> "DiagonalGaussian":
        """From the means and then the log-variances in the channels, the latter clamped to [-30, 20] as in LDM."""
        mean, log_variance = parameters.chunk(2, dim=1)
        return cls(mean, log_variance.clamp(-30, 20))

    @classmethod
    def point(cls, mean: Tensor) -> "DiagonalGaussian":
        """No spread: the log-variance is -10,000, whose standard deviation is 0 in every dtype, and which is finite."""
        return cls(mean, torch.full_like(mean, -1e4))

    @property
    def std(self) -> Tensor:
        """The standard deviation of each component."""
        return torch.exp(0.5 * self.log_variance)

    @property
    def variance(self) -> Tensor:
        """The variance of each component."""
        return torch.exp(self.log_variance)

    def mode(self) -> Tensor:
        """The likeliest value, which is the mean."""
        return self.mean

    def sample(self, generator: Generators | KeyedGenerator = None) -> Tensor:
        """``mean + std * noise``, which passes gradients on to both (VAE, arXiv 1312.6114, section 2.4).

        The noise is drawn in float32 and cast, so that a seed gives the same sample in every precision.

        Args:
            generator: see ``randn``: one for the batch, or one for each sample.
        """
        noise = randn(self.mean.shape, generator, dtype=torch.float32, device=self.mean.device)
        return self.mean + torch.exp(0.5 * self.log_variance) * noise.to(self.mean.dtype)

    def kl(self, other: "DiagonalGaussian | None" = None) -> Tensor:
        """``KL(self || other)``, summed over the components of each sample, in nats.

        ``1/2 sum (log v2 - log v1 + (v1 + (m1 - m2)^2) / v2 - 1)``; for the standard normal distribution this is
        ``1/2 sum (m^2 + v - 1 - log v)`` (VAE, arXiv 1312.6114, appendix B).

        Args:
            other: the second distribution; standard normal by default.

        Returns:
            ``[b]``.
        """
        if other is None:
            terms = self.mean**2 + torch.exp(self.log_variance) - 1 - self.log_variance
        else:
            ratio = torch.exp(self.log_variance - other.log_variance)
            distance = (self.mean - other.mean) ** 2 * torch.exp(-other.log_variance)
            terms = ratio + distance - 1 - self.log_variance + other.log_variance
        return 0.5 * terms.flatten(1).sum(1)

    def nll(self, x: Tensor) -> Tensor:
        """``-log p(x) = 1/2 sum (log(2 pi) + log v + (x - m)^2 / v)`` of each sample, in nats: ``[b]``."""
        terms = math.log(2 * math.pi) + self.log_variance + (x - self.mean) ** 2 * torch.exp(-self.log_variance)
        return 0.5 * terms.flatten(1).sum(1)
