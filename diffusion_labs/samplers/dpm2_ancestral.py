"""DPM-Solver-2 with fresh noise in each step."""

import math
from typing import Any, Unpack

from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.intermediate import level_of
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, remaining
from diffusion_labs.schedules.schedule import Schedule


class DPM2AncestralSampler(Sampler):
    """DPM2 to less noise than s has, and fresh noise up to s (k-diffusion's DPM2 ancestral). Two calls a step.

    With ``w = eta^2 (1 - SNR_t / SNR_s)``, the noise level d of ``sigma_d / alpha_d = (sigma_s / alpha_s) sqrt(1 - w)``
    and u halfway between t and d in log-SNR:
    ``x_u = alpha_u x0 + sigma_u eps`` and ``x_s = alpha_s x0 + sigma_s (sqrt(1 - w) eps + sqrt(w) noise)
    + (sigma_s sqrt(1 - w) - alpha_s sigma_t / alpha_t) (eps_u - eps)``. From pure noise it is the step of
    stochastic DDIM. Deterministic and of second order at eta = 0, where it is ``DPM2Sampler``.

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
        eta: float = 1.0,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta ({eta}) must be in [0, 1]: 0 is deterministic")
        super().__init__(model, schedule, predictor, **options)
        self.eta = eta

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        r = remaining(s, t) if self.eta > 0 else 1.0
        w: Any = self.eta**2 * (1 - r)
        kept: Any = 1 - self.eta**2 + self.eta**2 * r  # 1 - w, but not 0 where w is rounded to 1
        down = s.sigma * kept**0.5

        x0, eps, _ = denoise(xt, t)
        xs = s.alpha * x0 + down * eps
        if t.alpha > 0:
            u = level_of(self.schedule, (t.log_snr + s.log_snr - math.log(kept)) / 2, t)
            _, eps_u, _ = denoise(u.alpha * x0 + u.sigma * eps, u)
            xs = xs + (down - s.alpha * t.sigma / t.alpha) * (eps_u - eps)
        return (xs + s.sigma * w**0.5 * noise(t, s) if self.eta > 0 else xs), past
