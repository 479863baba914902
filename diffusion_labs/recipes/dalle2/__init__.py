"""DALL-E 2 on small captioned images: the sizes of its stages, and what trains them."""

from diffusion_labs.recipes.dalle2.assembly import Updates, dalle2_stages
from diffusion_labs.recipes.dalle2.sizes import (
    CLIPModel,
    DALLE2Model,
    DecoderModel,
    PriorModel,
    UpsamplerModel,
    part_of,
)

__all__ = [
    "CLIPModel",
    "DALLE2Model",
    "DecoderModel",
    "PriorModel",
    "Updates",
    "UpsamplerModel",
    "dalle2_stages",
    "part_of",
]
