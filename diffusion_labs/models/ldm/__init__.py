"""Latent diffusion."""

from diffusion_labs.models.ldm.unet import ldm_unet
from diffusion_labs.models.ldm.unet_sizes import LDM_UNETS

__all__ = ["LDM_UNETS", "ldm_unet"]
