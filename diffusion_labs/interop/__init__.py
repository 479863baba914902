"""Formats of other libraries."""

from diffusion_labs.interop.compvis_autoencoder import load_compvis_autoencoder, to_compvis_autoencoder
from diffusion_labs.interop.diffusers_autoencoder import (
    DiffusersAutoencoder,
    load_diffusers_autoencoder,
    save_diffusers_autoencoder,
)
from diffusion_labs.interop.diffusers_config import DiffusersParts, from_diffusers_config
from diffusion_labs.interop.key_rules import KeyRule, KeyRules, TensorChange, load_foreign

__all__ = [
    "DiffusersAutoencoder",
    "DiffusersParts",
    "KeyRule",
    "KeyRules",
    "TensorChange",
    "from_diffusers_config",
    "load_compvis_autoencoder",
    "load_diffusers_autoencoder",
    "load_foreign",
    "save_diffusers_autoencoder",
    "to_compvis_autoencoder",
]
