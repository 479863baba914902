"""Adapters: wrap a network and keep its call signature, so that they stack."""

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.cfguidance import CFGuidance
from diffusion_labs.adapters.inpainting import InPainting
from diffusion_labs.adapters.patchify import Patchify
from diffusion_labs.adapters.super_resolution import SuperResolution

__all__ = ["Adapter", "CFGuidance", "InPainting", "Patchify", "SuperResolution"]
