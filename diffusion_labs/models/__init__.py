"""Networks, and whole systems of them."""

from diffusion_labs.models.adm_unet import ADMUNet, adm_unet, levels_of_factors
from diffusion_labs.models.autoencoder import AutoencoderKL, VQModel, autoencoder_kl, vq_model
from diffusion_labs.models.transformer import (
    DiT,
    MMDiT,
    PixArt,
    PriorTransformer,
    UViT,
    dit,
    mmdit,
    pixart,
    prior_transformer,
    uvit,
)

__all__ = [
    "ADMUNet",
    "AutoencoderKL",
    "DiT",
    "MMDiT",
    "PixArt",
    "PriorTransformer",
    "UViT",
    "VQModel",
    "adm_unet",
    "autoencoder_kl",
    "dit",
    "levels_of_factors",
    "mmdit",
    "pixart",
    "prior_transformer",
    "uvit",
    "vq_model",
]
