"""DPM-Solver++ (3S)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, bend, step_size
from diffusion_labs.samplers.intermediate import between
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DPMSolverPP3SSampler(Sampler):
    """DPM-Solver++ 3S (arXiv 2211.01095, single-step with k = 3). Third order, three calls a step, deterministic.

    ``DPMSolver3Sampler`` in x0. With u and v a third and two thirds of the way from t to s in log-SNR:
    ``x_u = alpha_u x0 + sigma_u eps``; ``x_v = alpha_v x0 + sigma_v eps + alpha_v w_u (x0_u - x0)``;
    ``x_s = alpha_s x0 + sigma_s eps + alpha_s w_v (x0_v - x0)``: the step of DDIM, and the exact integral of the
    line in log-SNR through two estimates of x0 (``exponential``). From pure noise it is the step of DDIM.
    Arguments as ``Sampler``'s.
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
        at_u = Point(u, denoise(u.alpha * x0 + u.sigma * eps, u).x0)
        xv = v.alpha * x0 + v.sigma * eps + v.alpha * bend(step_size(t, v), t, v, x0, [at_u])
        at_v = Point(v, denoise(xv, v).x0)
        return xs + s.alpha * bend(step_size(t, s), t, s, x0, [at_v]), past
