"""The autoencoders of Latent Diffusion: images to small latents, and back."""

from diffusion_labs.models.autoencoder.autoencoder_kl import AutoencoderKL, KLOutput
from diffusion_labs.models.autoencoder.build import autoencoder_kl, vq_model
from diffusion_labs.models.autoencoder.diagonal_gaussian import DiagonalGaussian
from diffusion_labs.models.autoencoder.patch_discriminator import PatchDiscriminator
from diffusion_labs.models.autoencoder.presets import (
    kl_f4,
    kl_f8,
    kl_f16,
    kl_f32,
    vq_f4,
    vq_f4_noattn,
    vq_f8,
    vq_f8_n256,
    vq_f16,
)
from diffusion_labs.models.autoencoder.tiled import sliced, tiled
from diffusion_labs.models.autoencoder.vector_quantizer import CodeUsage, Quantized, VectorQuantizer, code_usage
from diffusion_labs.models.autoencoder.vq_model import VQModel, VQOutput

__all__ = [
    "AutoencoderKL",
    "CodeUsage",
    "DiagonalGaussian",
    "KLOutput",
    "PatchDiscriminator",
    "Quantized",
    "VQModel",
    "VQOutput",
    "VectorQuantizer",
    "autoencoder_kl",
    "code_usage",
    "kl_f4",
    "kl_f8",
    "kl_f16",
    "kl_f32",
    "sliced",
    "tiled",
    "vq_f4",
    "vq_f4_noattn",
    "vq_f8",
    "vq_f8_n256",
    "vq_f16",
    "vq_model",
]
