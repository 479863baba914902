"""Networks, and whole systems of them."""

from diffusion_labs.models.adm_unet import ADMUNet, adm_unet, levels_of_factors
from diffusion_labs.models.autoencoder import AutoencoderKL, VQModel, autoencoder_kl, vq_model

__all__ = ["ADMUNet", "AutoencoderKL", "VQModel", "adm_unet", "autoencoder_kl", "levels_of_factors", "vq_model"]
