"""DPM-Solver++ (2S)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import data_weight
from diffusion_labs.samplers.intermediate import midpoint
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DPMSolverPP2SSampler(Sampler):
    """DPM-Solver++ 2S (arXiv 2211.01095, Alg. 1, r = 1/2). Second order, two calls a step, deterministic.

    With u halfway between t and s in log-SNR: ``x_u = alpha_u x0 + sigma_u eps`` and
    ``x_s = alpha_s x0 + sigma_s eps + alpha_s (1 - e^(-h)) (x0_u - x0)``: the step of DDIM with the x0 of the
    middle. From pure noise, where the middle is pure noise too, x0_u is x0. Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps)
        if t.alpha == 0:
            return xs, past

        u = midpoint(self.schedule, t, s)
        x0_u, _, _ = denoise(u.alpha * x0 + u.sigma * eps, u)
        return xs + data_weight(t, s) * (x0_u - x0), past
