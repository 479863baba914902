"""Networks, and whole systems of them."""

from diffusion_labs.models.adm_unet import ADMUNet, adm_unet, levels_of_factors

__all__ = ["ADMUNet", "adm_unet", "levels_of_factors"]
