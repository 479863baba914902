"""DALL-E 2: text to images through embeddings of CLIP."""

from diffusion_labs.models.dalle2.dalle2 import DALLE2
from diffusion_labs.models.dalle2.decoder import dalle2_decoder
from diffusion_labs.models.dalle2.encode_captions import EncodeCaptions
from diffusion_labs.models.dalle2.encode_embeddings import EncodeEmbeddings
from diffusion_labs.models.dalle2.image_encoding import ImageEncoding
from diffusion_labs.models.dalle2.interpolation import slerp, text_difference
from diffusion_labs.models.dalle2.prior import DiffusionPrior, unchanged, unit_norm
from diffusion_labs.models.dalle2.prior_preset import dalle2_prior
from diffusion_labs.models.dalle2.prior_protocol import Prior
from diffusion_labs.models.dalle2.scaled_embedding import ScaledEmbedding
from diffusion_labs.models.dalle2.unet_sizes import DALLE2_UNETS
from diffusion_labs.models.dalle2.upsamplers import dalle2_upsampler_256, dalle2_upsampler_1024

__all__ = [
    "DALLE2",
    "DALLE2_UNETS",
    "DiffusionPrior",
    "EncodeCaptions",
    "EncodeEmbeddings",
    "ImageEncoding",
    "Prior",
    "ScaledEmbedding",
    "dalle2_decoder",
    "dalle2_prior",
    "dalle2_upsampler_256",
    "dalle2_upsampler_1024",
    "slerp",
    "text_difference",
    "unchanged",
    "unit_norm",
]
