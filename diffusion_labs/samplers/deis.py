"""DEIS."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, bend, step_size
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.sampler import Denoise, Noise
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DEISSampler(MultistepSampler):
    """DEIS, the Adams-Bashforth form (AB-DEIS, arXiv 2204.13902) in log-SNR. One call a step, deterministic.

    ``x_s = alpha_s x0 + sigma_s eps + sigma_s sum_j w_j (eps_j - eps)``: the step of DDIM, and the exact
    integral of the polynomial in log-SNR through the last estimates of the noise (``exponential``).
    The order is their number; but the first steps have fewer, so orders above 2 fall at order 2 unless these are short
    or near pure noise. Arguments as ``MultistepSampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        past = past or ()
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps) + s.sigma * bend(-step_size(t, s), t, s, eps, past)
        return xs, (Point(t, eps), *past)[: self.order - 1]
