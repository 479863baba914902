"""Ancestral sampling."""

from typing import Any, Unpack

from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, posterior, remaining, weighted_sum
from diffusion_labs.schedules.schedule import Schedule


class DDPMSampler(Sampler):
    """Ancestral sampling of p(x_s | x_t) (DDPM, arXiv 2006.11239, Alg. 2). One call a step, stochastic.

    ``x_s = alpha_s x0 + sigma_s sqrt(SNR_t / SNR_s) eps + sqrt(small^(1 - v) large^v) noise``: the mean and the
    bounds of the variance of ``schedule.q_posterior``, and v learned by the network (Improved DDPM, arXiv
    2102.09672, Eq. 15) or fixed. In train mode, the mean and log-variance of the step of a network that learns the
    variance are filled in, for ``VLBLoss``.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        variance_value: v for networks that do not learn it: 0 is fixed-small, 1 fixed-large.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        variance_value: float = 0.0,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if not 0 <= variance_value <= 1:
            raise ValueError(f"variance_value ({variance_value}) must be in [0, 1]")
        super().__init__(model, schedule, predictor, **options)
        self.variance_value = variance_value

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, learned = denoise(xt, t)
        q = posterior(s, t)
        v = self.variance_value if learned is None else learned

        mean = weighted_sum(s.alpha, x0, s.sigma * remaining(s, t) ** 0.5, eps)
        std = (q.small * (q.large / q.small) ** v) ** 0.5
        return weighted_sum(1.0, mean, std, noise(t, s)), past

    def train_step(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """The model's output, with the moments of the step one back if it learns the variance."""
        output = super().train_step(x, timestep, conditional_inputs)
        if output.variance_value is None:
            return output
        x0 = self.predictor.predict_x0(output.prediction, x, timestep)
        mean, log_variance = self.schedule.q_posterior(x0, x, timestep, output.variance_value)
        return output._replace(mean=mean, log_variance=log_variance)
