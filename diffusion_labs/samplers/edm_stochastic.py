"""The stochastic sampler of EDM."""

import math
from typing import Any, Unpack, cast

from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.heun import HeunSampler
from diffusion_labs.samplers.intermediate import level_of
from diffusion_labs.samplers.sampler import Denoise, Noise, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, transition
from diffusion_labs.schedules.schedule import Schedule


class EDMStochasticSampler(HeunSampler):
    """The stochastic sampler of EDM (arXiv 2206.00364, Alg. 2): noise is added, then Heun's step. Two calls a step.

    From ``rho = sigma_t / alpha_t`` in ``noisy``, x_t is noised to u with ``rho_u = (1 + gamma) rho`` and
    ``gamma = min(churn / steps, sqrt(2) - 1)``, but not beyond the schedule's last time:
    ``x_u = alpha_tu x_t + noise_scale sigma_tu noise``. ``HeunSampler`` goes from u to s. With churn 0 it is
    ``HeunSampler``. The paper's best for ImageNet: churn 40, noisy (0.05, 50), noise_scale 1.003.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        churn: the noise added on the whole way (S_churn), at least 0.
        noisy: the range of sigma / alpha in which noise is added (S_tmin, S_tmax).
        noise_scale: standard deviation of the added noise (S_noise); a little over 1 makes up for networks that
            remove too much.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        churn: float = 40.0,
        noisy: tuple[float, float] = (0.0, float("inf")),
        noise_scale: float = 1.0,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if not churn >= 0:
            raise ValueError(f"churn ({churn}) must be at least 0: 0 adds no noise")
        if not noise_scale >= 0 or not noisy[0] <= noisy[1]:
            raise ValueError(f"noise_scale ({noise_scale}) must be at least 0, and noisy ({noisy}) a range, low first")
        super().__init__(model, schedule, predictor, **options)
        self.churn = churn
        self.noisy = noisy
        self.noise_scale = noise_scale

    @property
    def gamma(self) -> float:
        """The share of noise added in a step; the steps are those of the whole way, also after a later ``start``."""
        return min(self.churn / len(self.times()), 2**0.5 - 1)

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        low, high = self.noisy
        gamma = self.gamma
        if gamma == 0 or not low * t.alpha <= t.sigma <= high * t.alpha:
            return super().step(xt, t, s, past, denoise, noise)

        u = level_of(self.schedule, t.log_snr - 2 * math.log1p(gamma), t)
        alpha, variance = cast(tuple[float, float], transition(t, u))
        xu = alpha * xt + self.noise_scale * max(variance, 0.0) ** 0.5 * noise()  # 0 but for rounding at the last time
        return super().step(xu, u, s, past, denoise, noise)
