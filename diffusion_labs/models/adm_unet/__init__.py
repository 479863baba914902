"""The U-Net of "Diffusion Models Beat GANs on Image Synthesis" (ADM), with the context of GLIDE."""

from diffusion_labs.models.adm_unet.build import adm_unet, levels_of_factors
from diffusion_labs.models.adm_unet.network import ADMUNet

__all__ = ["ADMUNet", "adm_unet", "levels_of_factors"]
