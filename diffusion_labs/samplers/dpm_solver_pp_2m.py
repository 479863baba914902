"""DPM-Solver++ (2M)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, data_weight, step_size
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DPMSolverPP2MSampler(Sampler):
    """DPM-Solver++ 2M (arXiv 2211.01095, Alg. 2). Second order, one call a step, deterministic.

    ``x_s = alpha_s x0 + sigma_s eps + alpha_s (1 - e^(-h)) (h / h_last) (x0 - x0_last) / 2``: the
    step of DDIM, and x0 continued to the middle of the step from its last two estimates, where h is
    half the difference of log-SNR. The first step is of first order (as is one after pure noise,
    where h_last is infinite), which does not lower the order. Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        if past is None:
            return weighted_sum(s.alpha, x0, s.sigma, eps), Point(t, x0)

        beyond = data_weight(t, s) * step_size(t, s) / step_size(past.level, t) / 2
        xs = weighted_sum(s.alpha + beyond, x0, s.sigma, eps)
        return weighted_sum(1.0, xs, -beyond, past.value), Point(t, x0)
