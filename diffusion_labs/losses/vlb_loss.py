"""The variational bound, one term at a time."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from diffusion_labs.losses.simple_loss import BatchMean, field, mean_flat
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.predictors.predictor import at_least_float32
from diffusion_labs.schedules.schedule import Schedule

Likelihood = Callable[[Tensor, Tensor, Tensor], Tensor]


def gaussian_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, exp(log_variance1)) || N(mean2, exp(log_variance2))) in nats, elementwise."""
    ratio = torch.exp(log_variance1 - log_variance2)
    return 0.5 * (log_variance2 - log_variance1 - 1 + ratio + (mean1 - mean2) ** 2 * torch.exp(-log_variance2))


def gaussian_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log N(x; mean, exp(log_variance)) in nats, elementwise: for latents and other continuous data."""
    return 0.5 * (math.log(2 * math.pi) + log_variance + (x - mean) ** 2 * torch.exp(-log_variance))


def discretized_gaussian_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the mass that a Gaussian puts on an 8-bit value, in nats, elementwise (DDPM, Eq. 13).

    Args:
        x: 8-bit images in [-1, 1]: ``value / 127.5 - 1``. The bins of the end values reach to infinity.
        mean: mean of the Gaussian.
        log_variance: its log-variance.
    """
    inverse_std = torch.exp(-0.5 * log_variance)
    upper = torch.special.ndtr((x - mean + 1 / 255) * inverse_std)
    lower = torch.special.ndtr((x - mean - 1 / 255) * inverse_std)
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return -(upper - lower).clamp(min=1e-12).log()


class VLBLoss(nn.Module):
    """A term of the variational bound at each sample's time, in bits per dimension.

    The KL divergence from q(x_s | x_t, x_0) to p(x_s | x_t), s one step before t, and at the first step
    the negative log-likelihood of the data (DDPM, arXiv 2006.11239, Eq. 5; Improved DDPM, Sec. 2.1).
    The bound is the sum over all steps, plus the prior's term.

    Args:
        schedule: the process.
        likelihood: of the first step: ``discretized_gaussian_nll`` for 8-bit images, ``gaussian_nll`` for
            other data.
        mean: from times and terms, ``[b]``, to a scalar; the plain mean if ``None``. With ``ImportanceMean`` and
            ``LossSecondMoment`` it is the estimate of Improved DDPM, Sec. 3.3.
        data_field: clean data to read.
        xt_field: noisy data to read.
        time_field: time to read.

    Raises:
        ValueError: for a continuous schedule, which has no step before t.
    """

    def __init__(
        self,
        schedule: Schedule,
        likelihood: Likelihood = discretized_gaussian_nll,
        *,
        mean: BatchMean | None = None,
        data_field: str = "x",
        xt_field: str = "xt",
        time_field: str = "t",
    ) -> None:
        super().__init__()
        if schedule.resolution == 0:
            raise ValueError(
                f"{type(schedule).__name__} is continuous: the bound is not a sum over its steps; take a discrete "
                "schedule, or SimpleLoss"
            )
        self.schedule = schedule
        self.likelihood = likelihood
        self.mean = mean
        self.data_field = data_field
        self.xt_field = xt_field
        self.time_field = time_field

    def terms(self, mean: Tensor, log_variance: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The term of each sample in bits per dimension, ``[b]``.

        Args:
            mean: mean of p(x_s | x_t), ``[b, c, ...]``.
            log_variance: its log-variance, which broadcasts with ``mean``.
            x0: clean data, ``[b, c, ...]``.
            xt: noisy data, ``[b, c, ...]``.
            t: time of ``xt``, ``[b]``.
        """
        mean, log_variance, x0, xt = (at_least_float32(value) for value in (mean, log_variance, x0, xt))
        true_mean, true_log_variance = self.schedule.q_posterior(x0, xt, t)
        kl = mean_flat(gaussian_kl(true_mean, true_log_variance, mean, log_variance))
        nll = mean_flat(self.likelihood(x0, mean, log_variance))
        return torch.where(t == self.schedule.first, nll, kl) / math.log(2)

    def forward(self, output: DiffusionOutput, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean term of a batch: a scalar.

        Raises:
            ValueError: if ``output`` has no mean and log-variance: use ``DDPMSampler`` in train mode
                around a network that learns the variance.
            KeyError: naming a missing field.
        """
        if output.mean is None or output.log_variance is None:
            raise ValueError(
                "the output has no mean and log_variance: give the loss the output of a DDPMSampler in train "
                "mode, around a network with learned_variance=True"
            )
        x0, xt, t = (field(self, batch, name) for name in (self.data_field, self.xt_field, self.time_field))
        terms = self.terms(output.mean, output.log_variance, x0, xt, t)
        return terms.mean() if self.mean is None else self.mean(t, terms)
