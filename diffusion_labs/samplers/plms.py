"""Pseudo linear multi-step method, as in Stable Diffusion."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.heun import trapezoid
from diffusion_labs.samplers.ipndm import IPNDMSampler
from diffusion_labs.samplers.sampler import Denoise, Noise
from diffusion_labs.schedules.noise_level import NoiseLevel


class PLMSSampler(IPNDMSampler):
    """PLMS of Stable Diffusion (diffusers' PNDM with skip_prk_steps). Second order, one call a step, deterministic.

    ``IPNDMSampler`` but for the first step, which is ``HeunSampler``'s, with what that says of nearly pure noise, and
    makes two calls. Arguments as ``IPNDMSampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        if past is not None:
            return super().step(xt, t, s, past, denoise, noise)

        xs, eps = trapezoid(xt, t, s, denoise)
        return xs, (eps,)[: self.order - 1]
