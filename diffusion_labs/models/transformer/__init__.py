"""Transformers."""

from diffusion_labs.models.transformer.build import dit
from diffusion_labs.models.transformer.dit import DiT
from diffusion_labs.models.transformer.prior_transformer import PriorTransformer, prior_transformer
from diffusion_labs.models.transformer.sizes import DITS

__all__ = ["DITS", "DiT", "PriorTransformer", "dit", "prior_transformer"]
