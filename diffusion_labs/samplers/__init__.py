"""Samplers: wrap the model; one call of it in train mode, the whole schedule in eval mode."""

from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.ddpm import DDPMSampler
from diffusion_labs.samplers.grids import all_steps, leading, linspace, trailing
from diffusion_labs.samplers.sampler import Estimate, Sampler

__all__ = [
    "DDIMSampler",
    "DDPMSampler",
    "Estimate",
    "Sampler",
    "all_steps",
    "leading",
    "linspace",
    "trailing",
]
