"""Multistep consistency sampling."""

from typing import Any, Unpack

from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.distilled_grid import distilled
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel
from diffusion_labs.schedules.schedule import Schedule


class LCMSampler(Sampler):
    """Multistep sampling of latent consistency models (arXiv 2310.04378, Alg. 3). One call a step, stochastic.

    ``x_s = alpha_s f + sigma_s noise`` with the consistency function ``f = c_skip x_t + c_out x0``, ``c_skip = 1 /
    (u^2 + 1)`` and ``c_out = u / sqrt(u^2 + 1)``, where u is 0 for clean data and ``scaling`` at the last time. For
    models distilled for it: with an exact denoiser, which gives the mean of the data, samples have too little spread.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        scaling: of time in c_skip and c_out. The published models have 20 for each of a thousand steps:
            ``timestep_scaling = 10`` over ``sigma_data = 0.5``.
        **options: ``eval_steps`` (4), ``grid`` (``distilled``), ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        scaling: float = 20_000.0,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if scaling <= 0:
            raise ValueError(f"scaling ({scaling}) must be positive")
        options.setdefault("eval_steps", 4)
        options.setdefault("grid", distilled)
        super().__init__(model, schedule, predictor, **options)
        self.scaling = scaling

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        return s.alpha * self.consistency(xt, t, denoise) + s.sigma * noise(), past

    def last_step(self, xt: Tensor, t: NoiseLevel, past: Any, denoise: Denoise) -> Tensor:
        """To clean data: the consistency function."""
        return self.consistency(xt, t, denoise)

    def consistency(self, xt: Tensor, t: NoiseLevel, denoise: Denoise) -> Tensor:
        """f(x_t, t)."""
        x0, eps, _ = denoise(xt, t)
        clean, terminal = self.schedule.clean, self.schedule.terminal
        u = self.scaling * (self.schedule.precise(t.t) - clean) / (terminal - clean)
        return (t.alpha * x0 + t.sigma * eps) / (u**2 + 1) + u / (u**2 + 1) ** 0.5 * x0
