"""DPM-Solver++ (3M)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, bend, step_size
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DPMSolverPP3MSampler(Sampler):
    """DPM-Solver++ 3M (arXiv 2211.01095, multi-step with k = 3). Third order, one call a step, deterministic.

    ``x_s = alpha_s x0 + sigma_s eps + alpha_s sum_j w_j (x0_j - x0)``: the step of DDIM, and the exact
    integral of the parabola in log-SNR through the last three estimates of x0 (``exponential``).

    The version of diffusers takes half of the second derivative of x0, and is of second order. The first two steps
    are of orders one and two: the error from a given x_T falls at third order only as far as x0
    hardly changes in them, as near pure noise; in the limit, at second. Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        past = past or ()
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps) + s.alpha * bend(step_size(t, s), t, s, x0, past)
        return xs, (Point(t, x0), *past)[:2]
