"""Formats of other libraries."""

from diffusion_labs.interop.diffusers_config import DiffusersParts, from_diffusers_config

__all__ = ["DiffusersParts", "from_diffusers_config"]
