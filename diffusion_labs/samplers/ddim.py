"""Denoising diffusion implicit models."""

from typing import Any, Unpack

from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, remaining, weighted_sum
from diffusion_labs.schedules.schedule import Schedule


class DDIMSampler(Sampler):
    """DDIM (arXiv 2010.02502, Eq. 12 and 16). First order, one call a step; deterministic at eta = 0.

    ``x_s = alpha_s x0 + sigma_s (sqrt(1 - w) eps + sqrt(w) noise)`` with
    ``w = eta^2 (1 - SNR_t / SNR_s)``; eta = 1 is DDPM with its fixed-small variance.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        eta: share of fresh noise, in [0, 1].
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        eta: float = 0.0,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta ({eta}) must be in [0, 1]: 0 is deterministic, 1 as noisy as DDPM")
        super().__init__(model, schedule, predictor, **options)
        self.eta = eta

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        if self.eta == 0:
            return weighted_sum(s.alpha, x0, s.sigma, eps), past

        w = self.eta**2 * (1 - remaining(s, t))
        mixed = weighted_sum((1 - w) ** 0.5, eps, w**0.5, noise(t, s))
        return weighted_sum(s.alpha, x0, s.sigma, mixed), past
