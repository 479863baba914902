"""The U-Net of "Diffusion Models Beat GANs on Image Synthesis" (ADM), with the context of GLIDE."""

from diffusion_labs.models.adm_unet.build import adm_unet, levels_of_factors
from diffusion_labs.models.adm_unet.classifier import ADMClassifier, adm_classifier
from diffusion_labs.models.adm_unet.network import ADMUNet
from diffusion_labs.models.adm_unet.sizes import ADM_CLASSIFIERS, ADM_UNETS

__all__ = [
    "ADM_CLASSIFIERS",
    "ADM_UNETS",
    "ADMClassifier",
    "ADMUNet",
    "adm_classifier",
    "adm_unet",
    "levels_of_factors",
]
