"""The autoencoders of the Latent Diffusion paper (arXiv 2112.10752), by the names of their checkpoints.

fN: latents have N pixels a side. Sizes are those of the released configurations, for images of 256 x 256 x 3.
"""

from diffusion_labs.models.autoencoder.autoencoder_kl import AutoencoderKL
from diffusion_labs.models.autoencoder.build import autoencoder_kl, vq_model
from diffusion_labs.models.autoencoder.vq_model import VQModel


def kl_f4() -> AutoencoderKL:
    """Latents of 64 x 64 x 3."""
    return autoencoder_kl(latent_channels=3, channels=(128, 256, 512))


def kl_f8() -> AutoencoderKL:
    """Latents of 32 x 32 x 4; also the autoencoder of Stable Diffusion 1, 2 and XL."""
    return autoencoder_kl(latent_channels=4, channels=(128, 256, 512, 512))


def kl_f16() -> AutoencoderKL:
    """Latents of 16 x 16 x 16."""
    return autoencoder_kl(latent_channels=16, channels=(128, 128, 256, 256, 512), attention_levels=(4,))


def kl_f32() -> AutoencoderKL:
    """Latents of 8 x 8 x 64."""
    return autoencoder_kl(latent_channels=64, channels=(128, 128, 256, 256, 512, 512), attention_levels=(4, 5))


def vq_f4() -> VQModel:
    """Latents of 64 x 64 x 3, 8192 codes."""
    return vq_model(latent_channels=3, num_codes=8192, channels=(128, 256, 512))


def vq_f4_noattn() -> VQModel:
    """``vq_f4`` without any attention: convolutions alone, for large images (the paper's inpainting)."""
    return vq_model(latent_channels=3, num_codes=8192, channels=(128, 256, 512), middle_attention=False)


def vq_f8() -> VQModel:
    """Latents of 32 x 32 x 4, 16384 codes."""
    return vq_model(latent_channels=4, num_codes=16384, channels=(128, 256, 256, 512), attention_levels=(3,))


def vq_f8_n256() -> VQModel:
    """``vq_f8`` with 256 codes."""
    return vq_model(latent_channels=4, num_codes=256, channels=(128, 256, 256, 512), attention_levels=(3,))


def vq_f16() -> VQModel:
    """Latents of 16 x 16 x 8, 16384 codes."""
    return vq_model(latent_channels=8, num_codes=16384, channels=(128, 128, 256, 256, 512), attention_levels=(4,))
