"""Latent diffusion."""

from diffusion_labs.models.ldm.autoencoder import LatentAutoencoder
from diffusion_labs.models.ldm.encode_latents import EncodeLatents
from diffusion_labs.models.ldm.latent_diffusion import LatentDiffusion
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.models.ldm.presets import (
    ldm_celebahq,
    ldm_imagenet,
    ldm_imagenet_f8,
    ldm_inpainting,
    ldm_layout,
    ldm_lsun_churches,
    ldm_semantic_synthesis,
    ldm_super_resolution,
    ldm_text2img256,
    ldm_text2img_large,
    stable_diffusion_1,
    stable_diffusion_1_inpainting,
    stable_diffusion_2,
)
from diffusion_labs.models.ldm.unet import ldm_unet
from diffusion_labs.models.ldm.unet_sizes import LDM_UNETS

__all__ = [
    "LDM_UNETS",
    "EncodeLatents",
    "LatentAutoencoder",
    "LatentDiffusion",
    "LatentScale",
    "ldm_celebahq",
    "ldm_imagenet",
    "ldm_imagenet_f8",
    "ldm_inpainting",
    "ldm_layout",
    "ldm_lsun_churches",
    "ldm_semantic_synthesis",
    "ldm_super_resolution",
    "ldm_text2img256",
    "ldm_text2img_large",
    "ldm_unet",
    "stable_diffusion_1",
    "stable_diffusion_1_inpainting",
    "stable_diffusion_2",
]
