"""SDE-DPM-Solver++ (3M)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, bend, step_size
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, remaining


class DPMSolverPPSDE3MSampler(Sampler):
    """SDE-DPM-Solver++ 3M (k-diffusion's DPM++ 3M SDE at eta = 1). One call a step, stochastic.

    ``x_s = alpha_s x0 + sigma_s e^(-h) eps + alpha_s sum_j w_j (x0_j - x0) + sigma_s sqrt(1 - e^(-2h)) noise``: the
    step of DDPM, and the exact integral of the parabola in log-SNR through the last three estimates of x0
    (``exponential``, with the kernel ``2h e^(-2h (1 - u))`` of the SDE, arXiv 2211.01095), where h is half
    the difference of log-SNR. k-diffusion takes half of the second derivative of x0. The first two steps have fewer
    estimates. Second order in law in the limit, like 2M, since x0 along a noisy path is no polynomial. Arguments as
    ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        past = past or ()
        x0, eps, _ = denoise(xt, t)
        r = remaining(s, t)
        xs = s.alpha * x0 + s.sigma * r**0.5 * eps + s.alpha * bend(2 * step_size(t, s), t, s, x0, past)
        return xs + s.sigma * (1 - r) ** 0.5 * noise(t, s), (Point(t, x0), *past)[:2]
