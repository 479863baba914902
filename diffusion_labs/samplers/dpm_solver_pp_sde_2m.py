"""SDE-DPM-Solver++ (2M)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, step_size
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, remaining, weighted_sum


class DPMSolverPPSDE2MSampler(Sampler):
    """SDE-DPM-Solver++ 2M (arXiv 2211.01095). One call a step, stochastic.

    ``x_s = alpha_s x0 + sigma_s e^(-h) eps + alpha_s (1 - e^(-2h)) (x0' - x0) + sigma_s sqrt(1 - e^(-2h)) noise``: the
    step of DDPM, with ``x0' = x0 + (h / h_last) (x0 - x0_last) / 2``, x0 continued to the middle of the step,
    where h is half the difference of log-SNR. x0' is x0 in the first step, and after pure noise, where
    h_last is infinite. Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        r = remaining(s, t)
        xs = weighted_sum(s.alpha, x0, s.sigma * r**0.5, eps)
        if past is not None:
            ratio = step_size(t, s) / step_size(past.level, t)
            xs = xs + s.alpha * (1 - r) * ratio * (x0 - past.value) / 2
        return xs + s.sigma * (1 - r) ** 0.5 * noise(t, s), Point(t, x0)
