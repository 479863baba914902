"""Linear multi-step method in sigma."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, lagrange, noise_weight
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.sampler import Denoise, Noise
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class LMSSampler(MultistepSampler):
    """Adams-Bashforth for ``d(x / alpha) = eps d(sigma / alpha)`` (k-diffusion's LMS). One call a step, deterministic.

    ``x_s = alpha_s x0 + sigma_s eps + (sigma_s - alpha_s sigma_t / alpha_t) sum_j w_j (eps_j - eps)``: the step
    of DDIM, and the exact integral of the polynomial in sigma / alpha through the last estimates of
    the noise (the rhoAB of DEIS, arXiv 2204.13902). The order is their number; but the first steps have
    fewer, so orders above 2 need short first steps. An estimate made at pure noise is infinitely far away and not
    used. Arguments as
    ``MultistepSampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        points = [point for point in past or () if point.level.alpha > 0]
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps)
        if points:
            ratio_t, ratio_s = t.sigma / t.alpha, s.sigma / s.alpha
            nodes: list[Any] = [(u.sigma / u.alpha - ratio_t) / (ratio_s - ratio_t) for u, _ in points]
            weights = lagrange([0.0, *nodes], [1 / (k + 1) for k in range(len(nodes) + 1)])
            bend = sum((w * (value - eps) for w, (_, value) in zip(weights[1:], points, strict=True)), start=0.0)
            xs = xs + noise_weight(t, s) * bend
        return xs, (Point(t, eps), *(past or ()))[: self.order - 1]
