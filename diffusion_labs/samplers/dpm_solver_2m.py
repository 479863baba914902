"""DPM-Solver (2M)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, noise_weight, step_size
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DPMSolver2MSampler(Sampler):
    """DPM-Solver 2M, multi-step in the noise (diffusers' "dpmsolver"). Second order, one call a step, deterministic.

    ``x_s = alpha_s x0 + sigma_s eps + (sigma_s - alpha_s sigma_t / alpha_t) (h / h_last) (eps - eps_last) / 2``:
    ``DPMSolverPP2MSampler`` with the noise, not x0, continued to the middle of the step, where h is half the
    difference of log-SNR. With the integral of the line in place of its middle it is ``DEISSampler(order=2)``
    (diffusers' solver type "heun").
    Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps)
        if past is not None:
            ratio = step_size(t, s) / step_size(past.level, t)
            xs = xs + noise_weight(t, s) * ratio * (eps - past.value) / 2
        return xs, Point(t, eps)
