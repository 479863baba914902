"""Transformers."""

from diffusion_labs.models.transformer.build import dit
from diffusion_labs.models.transformer.dit import DiT
from diffusion_labs.models.transformer.mmdit import MMDiT
from diffusion_labs.models.transformer.mmdit_build import mmdit
from diffusion_labs.models.transformer.pixart import PixArt
from diffusion_labs.models.transformer.pixart_build import pixart
from diffusion_labs.models.transformer.prior_transformer import PriorTransformer, prior_transformer
from diffusion_labs.models.transformer.sizes import DITS, MMDITS, PIXARTS, UVITS
from diffusion_labs.models.transformer.uvit import UViT
from diffusion_labs.models.transformer.uvit_build import uvit

__all__ = [
    "DITS",
    "MMDITS",
    "PIXARTS",
    "UVITS",
    "DiT",
    "MMDiT",
    "PixArt",
    "PriorTransformer",
    "UViT",
    "dit",
    "mmdit",
    "pixart",
    "prior_transformer",
    "uvit",
]
