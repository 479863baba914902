"""Heun's method for the probability flow."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import noise_weight
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class HeunSampler(Sampler):
    """Heun's method of EDM (arXiv 2206.00364, Alg. 1). Second order, two calls a step, deterministic.

    The trapezoidal rule for ``d(x / alpha) = eps d(sigma / alpha)``: with Euler's
    ``x_s' = alpha_s x0 + sigma_s eps`` and the estimate eps' there,
    ``x_s = x_s' + (sigma_s - alpha_s sigma_t / alpha_t) (eps' - eps) / 2``. From pure noise
    (alpha_t = 0), where the rule has no limit, it is Euler's step. From nearly pure noise it needs a grid such as
    ``karras``: ``lint(..., sampler=HeunSampler)`` tells. Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        xs, _ = trapezoid(xt, t, s, denoise)
        return xs, past


def trapezoid(xt: Tensor, t: NoiseLevel, s: NoiseLevel, denoise: Denoise) -> tuple[Tensor, Tensor]:
    """Heun's step: x_s, and the estimate of the noise at t."""
    x0, eps, _ = denoise(xt, t)
    xs = weighted_sum(s.alpha, x0, s.sigma, eps)
    if t.alpha == 0:
        return xs, eps

    _, eps_s, _ = denoise(xs, s)
    return weighted_sum(1.0, xs, noise_weight(t, s) / 2, eps_s - eps), eps
