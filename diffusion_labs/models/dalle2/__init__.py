"""DALL-E 2: text to images through embeddings of CLIP."""

from diffusion_labs.models.dalle2.encode_embeddings import EncodeEmbeddings
from diffusion_labs.models.dalle2.prior import DiffusionPrior, unchanged, unit_norm
from diffusion_labs.models.dalle2.prior_preset import dalle2_prior

__all__ = [
    "DiffusionPrior",
    "EncodeEmbeddings",
    "dalle2_prior",
    "unchanged",
    "unit_norm",
]
