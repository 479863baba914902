"""Latent diffusion."""

from diffusion_labs.models.ldm.autoencoder import LatentAutoencoder
from diffusion_labs.models.ldm.encode_latents import EncodeLatents
from diffusion_labs.models.ldm.latent_diffusion import LatentDiffusion
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.models.ldm.unet import ldm_unet
from diffusion_labs.models.ldm.unet_sizes import LDM_UNETS

__all__ = ["LDM_UNETS", "EncodeLatents", "LatentAutoencoder", "LatentDiffusion", "LatentScale", "ldm_unet"]
