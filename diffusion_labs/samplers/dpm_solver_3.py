"""DPM-Solver-3."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, bend, step_size
from diffusion_labs.samplers.intermediate import between
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DPMSolver3Sampler(Sampler):
    """DPM-Solver-3 (arXiv 2206.00927, Alg. 2, r_1 = 1/3, r_2 = 2/3). Third order, three calls a step, deterministic.

    With u and v a third and two thirds of the way from t to s in log-SNR: ``x_u = alpha_u x0 + sigma_u eps``;
    ``x_v = alpha_v x0 + sigma_v eps + sigma_v w_u (eps_u - eps)``; ``x_s = alpha_s x0 + sigma_s eps
    + sigma_s w_v (eps_v - eps)``: the step of DDIM, and the exact integral of the line in log-SNR through two
    estimates of the noise (``exponential``). From pure noise it is the step of DDIM. Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps)
        if t.alpha == 0:
            return xs, past

        u, v = between(self.schedule, t, s, 1 / 3), between(self.schedule, t, s, 2 / 3)
        at_u = Point(u, denoise(u.alpha * x0 + u.sigma * eps, u).eps)
        xv = v.alpha * x0 + v.sigma * eps + v.sigma * bend(-step_size(t, v), t, v, eps, [at_u])
        at_v = Point(v, denoise(xv, v).eps)
        return xs + s.sigma * bend(-step_size(t, s), t, s, eps, [at_v]), past
