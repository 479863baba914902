"""Pseudo numerical methods for diffusion models."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import noise_weight
from diffusion_labs.samplers.intermediate import middle_of_time
from diffusion_labs.samplers.ipndm import IPNDMSampler
from diffusion_labs.samplers.sampler import Denoise, Noise
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class PNDMSampler(IPNDMSampler):
    """PNDM (arXiv 2202.09778, Alg. 2). Second order, deterministic; one call a step, but four in each of the first.

    ``IPNDMSampler``, whose last estimates are there from the start: the first ``order - 1`` steps are
    pseudo Runge-Kutta. With Phi(s, e) = ``alpha_s x0 + sigma_s eps + (sigma_s - alpha_s sigma_t / alpha_t) (e - eps)``,
    the step of DDIM from t to s with e for the noise, and u halfway between t and s in time, e_2 is estimated at
    Phi(u, eps), e_3 at Phi(u, e_2), e_4 at Phi(s, e_3), and ``x_s = Phi(s, (eps + 2 e_2 + 2 e_3 + e_4) / 6)``.
    From pure noise, where Phi has no limit, it is the step of DDIM; from nearly pure noise a long step is far off, as
    ``HeunSampler``'s: take more steps, or a grid that begins later. Arguments as ``IPNDMSampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        past = past or ()
        if len(past) == self.order - 1:
            return super().step(xt, t, s, past, denoise, noise)

        x0, eps, _ = denoise(xt, t)
        past = (eps, *past)
        if t.alpha == 0:
            return weighted_sum(s.alpha, x0, s.sigma, eps), past

        def transfer(s: NoiseLevel, bend: Tensor | float) -> Tensor:
            return weighted_sum(s.alpha, x0, s.sigma, eps) + noise_weight(t, s) * bend

        u = middle_of_time(self.schedule, t, s)
        bend_2 = denoise(transfer(u, 0.0), u).eps - eps
        bend_3 = denoise(transfer(u, bend_2), u).eps - eps
        bend_4 = denoise(transfer(s, bend_3), s).eps - eps
        return transfer(s, (2 * bend_2 + 2 * bend_3 + bend_4) / 6), past
