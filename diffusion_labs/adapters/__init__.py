"""Adapters: wrap a network and keep its call signature, so that they stack."""

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.autoguidance import AutoGuidance
from diffusion_labs.adapters.cfguidance import CFGuidance
from diffusion_labs.adapters.cfguidance_plus_plus import CFGuidancePlusPlus
from diffusion_labs.adapters.classifier_guidance import ClassifierGuidance
from diffusion_labs.adapters.combinations import AdaptiveProjectedGuidance, GuidanceRescale
from diffusion_labs.adapters.concatenation import Concatenation
from diffusion_labs.adapters.deep_cache import DeepCache
from diffusion_labs.adapters.edm_preconditioning import EDMPreconditioning
from diffusion_labs.adapters.expert_denoisers import ExpertDenoisers
from diffusion_labs.adapters.guidance_interval import GuidanceInterval
from diffusion_labs.adapters.inpainting import InPainting, image_then_mask, image_then_signed_mask, mask_then_image
from diffusion_labs.adapters.known_region import KnownRegion
from diffusion_labs.adapters.linear_posterior import LinearPosterior
from diffusion_labs.adapters.micro_conditioning import MicroConditioning
from diffusion_labs.adapters.patchify import Patchify
from diffusion_labs.adapters.perturbed_attention_guidance import PerturbedAttentionGuidance
from diffusion_labs.adapters.super_resolution import SuperResolution

__all__ = [
    "Adapter",
    "AdaptiveProjectedGuidance",
    "AutoGuidance",
    "CFGuidance",
    "CFGuidancePlusPlus",
    "ClassifierGuidance",
    "Concatenation",
    "DeepCache",
    "EDMPreconditioning",
    "ExpertDenoisers",
    "GuidanceInterval",
    "GuidanceRescale",
    "InPainting",
    "KnownRegion",
    "LinearPosterior",
    "MicroConditioning",
    "Patchify",
    "PerturbedAttentionGuidance",
    "SuperResolution",
    "image_then_mask",
    "image_then_signed_mask",
    "mask_then_image",
]
