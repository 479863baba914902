"""Adapters: wrap a network and keep its call signature, so that they stack."""

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.cfguidance import CFGuidance
from diffusion_labs.adapters.classifier_guidance import ClassifierGuidance
from diffusion_labs.adapters.edm_preconditioning import EDMPreconditioning
from diffusion_labs.adapters.inpainting import InPainting
from diffusion_labs.adapters.known_region import KnownRegion
from diffusion_labs.adapters.linear_posterior import LinearPosterior
from diffusion_labs.adapters.patchify import Patchify
from diffusion_labs.adapters.super_resolution import SuperResolution

__all__ = [
    "Adapter",
    "CFGuidance",
    "ClassifierGuidance",
    "EDMPreconditioning",
    "InPainting",
    "KnownRegion",
    "LinearPosterior",
    "Patchify",
    "SuperResolution",
]
